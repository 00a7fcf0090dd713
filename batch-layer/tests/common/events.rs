//! Events for the tests.

use dwell_model::event::{Column, EventBatch, FieldType, Kind, NO_I64, NO_TEXT};
use dwell_model::testing::position_batch;
use dwell_model::time::TsMs;

/// A person in the zone `square` for `seconds`, one event a second.
pub(crate) fn visit(track: &str, from: TsMs, seconds: i64) -> EventBatch {
    let rows: Vec<_> = (0..=seconds)
        .map(|s| ("cam", track, from + s * 1_000, 5.0, 5.0))
        .collect();
    position_batch(&rows)
}

/// Samples `(ts, value)` of the cumulative counter `in` of the sensor `door`.
pub(crate) fn cumulative(samples: &[(TsMs, i64)]) -> EventBatch {
    let mut batch = EventBatch::new(Kind::Count);
    for &(ts, value) in samples {
        push(
            &mut batch,
            "door",
            "in",
            ts,
            &[Cell::Int(value), Cell::Text("cumulative")],
        );
    }
    batch
}

/// A payload value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    Int(i64),
    Float(f64),
    Text(&'a str),
    Absent,
}

/// Appends an event; cells in the order of the kind's fields, those left out are absent.
pub(crate) fn push(batch: &mut EventBatch, sensor: &str, key: &str, ts: TsMs, cells: &[Cell<'_>]) {
    let (sensor, key) = (batch.strings.intern(sensor), batch.strings.intern(key));
    batch.ts.push(ts);
    batch.sensor.push(sensor);
    batch.key.push(key);
    batch.revision.push(0);
    for (index, field) in batch.kind.fields().iter().enumerate() {
        let cell = cells.get(index).copied().unwrap_or(Cell::Absent);
        let id = match cell {
            Cell::Text(text) => batch.strings.intern(text),
            _ => NO_TEXT,
        };
        match (&mut batch.payload[index], cell) {
            (Column::F32(values), Cell::Float(value)) => values.push(value as f32),
            (Column::F64(values), Cell::Float(value)) => values.push(value),
            (Column::I64(values), Cell::Int(value)) => values.push(value),
            (Column::I64(values), _) => values.push(NO_I64),
            (Column::Text(values), _) => values.push(id),
            (Column::F32(values), _) => values.push(f32::NAN),
            (Column::F64(values), _) => values.push(f64::NAN),
        }
        debug_assert!(
            !(field.required && matches!(cell, Cell::Absent)),
            "{} is missing",
            field.name
        );
        debug_assert_eq!(
            batch.payload[index].ty() == FieldType::Text,
            matches!(field.ty, FieldType::Text)
        );
    }
}

/// A sequence of numbers that looks random and is the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Posts of all kinds over `from..to` (and a little beyond), disordered, with duplicates and corrections: each entry
/// is what one request brings.
pub(crate) fn busy_day(from: TsMs, to: TsMs, seed: u64) -> Vec<EventBatch> {
    let mut dice = Dice(seed);
    let span = (to - from) as u64;
    let mut posts = Vec::new();
    for track in 0..60 {
        let track = format!("t{track}");
        let begin = from - 5_000 + dice.below(span) as i64;
        let mut rows = Vec::new();
        let (mut x, mut y, mut ts) = (dice.below(15) as f32, dice.below(15) as f32, begin);
        for _ in 0..dice.below(120) {
            ts += match dice.below(20) {
                0 => 40_000,
                1 => 7_000,
                _ => 300 + dice.below(900) as i64,
            };
            x = (x + dice.below(200) as f32 / 100.0 - 1.0).clamp(-1.0, 14.0);
            y = (y + dice.below(200) as f32 / 100.0 - 1.0).clamp(-1.0, 14.0);
            let sensor = if dice.below(8) == 0 { "cam-2" } else { "cam-1" };
            rows.push((sensor, track.as_str(), ts, x, y));
        }
        let corrected: Vec<_> = rows
            .iter()
            .filter(|_| dice.below(15) == 0)
            .map(|row| (row.0, row.1, row.2, row.3 + 0.5, row.4))
            .collect();
        if rows.is_empty() {
            continue;
        }
        posts.push(position_batch(&rows));
        if dice.below(3) == 0 {
            posts.push(position_batch(&rows));
        }
        if !corrected.is_empty() {
            posts.push(position_batch(&corrected));
        }
    }
    let instant = |dice: &mut Dice| from + dice.below(span) as i64;
    let mut total = 0;
    let mut crossings = EventBatch::new(Kind::Crossing);
    let mut counts = EventBatch::new(Kind::Count);
    let mut presence = EventBatch::new(Kind::Presence);
    let mut transactions = EventBatch::new(Kind::Transaction);
    let mut readings = EventBatch::new(Kind::Reading);
    let mut status = EventBatch::new(Kind::Status);
    for i in 0..200_u64 {
        let ts = instant(&mut dice);
        let word = if dice.below(2) == 0 { "in" } else { "out" };
        let key = format!("door-{word}-{i}");
        push(
            &mut crossings,
            "beam",
            &key,
            ts,
            &[
                Cell::Text("door"),
                Cell::Text(word),
                Cell::Int(1 + dice.below(3) as i64),
            ],
        );
        total += dice.below(5) as i64;
        let counted = [Cell::Int(total), Cell::Text("cumulative")];
        push(
            &mut counts,
            "gate",
            "total",
            from + (i as i64 + 1) * (span as i64 / 202),
            &counted,
        );
        push(
            &mut presence,
            "wifi",
            &format!("device-{}", dice.below(40)),
            ts,
            &[Cell::Int(-60)],
        );
        let sold = [Cell::Int(dice.below(9_000) as i64 - 500), Cell::Text("EUR")];
        push(&mut transactions, "till", &format!("n{i}"), ts, &sold);
        let measured = [
            Cell::Float(18.0 + dice.below(800) as f64 / 100.0),
            Cell::Text("°C"),
        ];
        push(&mut readings, "probe", "temperature", ts, &measured);
        let state = ["ok", "ok", "ok", "degraded", "offline"][dice.below(5) as usize];
        push(&mut status, "cam-1", "", ts, &[Cell::Text(state)]);
    }
    posts.extend([crossings, counts, presence, transactions, readings, status]);
    // Disorder, the same in every run.
    for i in (1..posts.len()).rev() {
        posts.swap(i, dice.below(i as u64 + 1) as usize);
    }
    posts
}
