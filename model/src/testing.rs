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

/// About `events` positions of people who walk between [from, to) on a floor of 20 × 20 m, one a second, whole
/// centimetres, in the order of time. The same seed gives the same events.
pub fn walkers(events: usize, from: i64, to: i64, seed: u64) -> EventBatch {
    const STAY_EVENTS: usize = 1_000;
    let mut dice = Dice(seed);
    let mut rows: Vec<(i64, usize, f32, f32)> = Vec::with_capacity(events);
    let people = events.div_ceil(STAY_EVENTS);
    for person in 0..people {
        let longest = (STAY_EVENTS as i64 + 1) * 1_000;
        let start = from + (dice.next() % ((to - from - longest).max(1) as u64)) as i64;
        let (mut x, mut y) = ((dice.next() % 2_000) as i32, (dice.next() % 2_000) as i32);
        for step in 0..STAY_EVENTS as i64 {
            // People stand more than they walk.
            if dice.next().is_multiple_of(4) {
                x = (x + (dice.next() % 161) as i32 - 80).clamp(0, 1_999);
                y = (y + (dice.next() % 161) as i32 - 80).clamp(0, 1_999);
            }
            let metres = |centimetres: i32| (f64::from(centimetres) / 100.0) as f32;
            rows.push((
                start + step * 1_000 + (dice.next() % 80) as i64,
                person,
                metres(x),
                metres(y),
            ));
        }
    }
    rows.sort_by_key(|row| row.0);
    let names: Vec<String> = (0..people)
        .map(|person| format!("{:012x}", Dice(person as u64).next()))
        .collect();
    let named: Vec<_> = rows
        .iter()
        .map(|&(ts, person, x, y)| {
            (
                if x < 10.0 { "xs-1" } else { "xs-2" },
                names[person].as_str(),
                ts,
                x,
                y,
            )
        })
        .collect();
    position_batch(&named)
}

/// Numbers that look random and are always the same (SplitMix64).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
