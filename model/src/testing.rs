//! Generators for tests, here and in the crates above: small batches written by hand, and proptest strategies.

use crate::event::{Column, EventBatch, Kind, NO_TEXT};

/// Positions `(sensor, track, ts, x, y)` as a batch, in the given order.
pub fn position_batch(rows: &[(&str, &str, i64, f32, f32)]) -> EventBatch {
    let mut batch = EventBatch::new(Kind::Position);
    let (mut xs, mut ys, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for &(sensor, track, ts, x, y) in rows {
        let (sensor, track) = (batch.strings.intern(sensor), batch.strings.intern(track));
        batch.ts.push(ts);
        batch.sensor.push(sensor);
        batch.key.push(track);
        batch.revision.push(0);
        xs.push(x);
        ys.push(y);
        floors.push(NO_TEXT);
    }
    batch.payload = vec![Column::F32(xs), Column::F32(ys), Column::Text(floors)];
    batch
}
