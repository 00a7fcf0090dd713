//! Events of every kind, one at a time.

use dwell_model::event::{Column, EventBatch, Kind};
use dwell_model::testing::position_batch;
use dwell_model::time::TsMs;

use super::Dice;

/// One event of any kind, as a batch of one.
pub(crate) type Event = EventBatch;

pub(crate) fn other(
    kind: Kind,
    sensor: &str,
    key: &str,
    ts: TsMs,
    fill: impl FnOnce(&mut EventBatch),
) -> Event {
    let mut batch = EventBatch::new(kind);
    let (sensor, key) = (batch.strings.intern(sensor), batch.strings.intern(key));
    batch.ts.push(ts);
    batch.sensor.push(sensor);
    batch.key.push(key);
    batch.revision.push(0);
    fill(&mut batch);
    for column in &mut batch.payload {
        if column.is_empty() {
            column.push_absent();
        }
    }
    batch.check().unwrap();
    batch
}

pub(crate) fn put(batch: &mut EventBatch, field: usize, value: impl Into<Put>) {
    let value = match value.into() {
        Put::Text(text) => Column::Text(vec![batch.strings.intern(&text)]),
        Put::Number(number) => Column::I64(vec![number]),
        Put::Float(number) => Column::F64(vec![number]),
    };
    batch.payload[field] = value;
}

pub(crate) enum Put {
    Text(String),
    Number(i64),
    Float(f64),
}

impl From<&str> for Put {
    fn from(text: &str) -> Self {
        Put::Text(text.to_owned())
    }
}

impl From<i64> for Put {
    fn from(number: i64) -> Self {
        Put::Number(number)
    }
}

impl From<f64> for Put {
    fn from(number: f64) -> Self {
        Put::Float(number)
    }
}

pub(crate) fn counter(sensor: &str, name: &str, mode: &str, ts: TsMs, value: i64) -> Event {
    other(Kind::Count, sensor, name, ts, |batch| {
        put(batch, 0, value);
        put(batch, 1, mode);
    })
}

/// Something of each kind at a time.
pub(crate) fn assorted(ts: TsMs, dice: &mut Dice) -> Vec<Event> {
    let n = dice.below(1_000) as i64;
    let door = ["in", "out"][dice.below(2) as usize];
    vec![
        other(
            Kind::Crossing,
            "d1",
            &format!("door\u{1f}{door}\u{1f}{n}"),
            ts,
            |batch| {
                put(batch, 0, "door");
                put(batch, 1, door);
                put(batch, 2, 1 + n % 3);
            },
        ),
        counter("c1", "people", "delta", ts + 1, n % 5),
        counter("c1", "total", "cumulative", ts + 2, n),
        counter("c1", "inside", "state", ts + 3, n % 40),
        other(
            Kind::Presence,
            "w1",
            &format!("device{}", n % 7),
            ts + 4,
            |batch| put(batch, 0, -40 - n % 50),
        ),
        other(Kind::Transaction, "till", &format!("r{n}"), ts + 5, |batch| {
            put(batch, 0, n * 7 - 500);
            put(batch, 1, "EUR");
        }),
        other(Kind::Reading, "room", "co2", ts + 6, |batch| {
            put(batch, 0, 400.0 + n as f64 / 7.0);
            put(batch, 1, "ppm");
        }),
        other(Kind::Status, "s1", "", ts + 7, |batch| {
            put(batch, 0, ["ok", "degraded", "offline"][n as usize % 3]);
            put(batch, 3, n);
        }),
    ]
}

/// One walk over the floor: events a few hundred milliseconds apart, with a rest now and then.
pub(crate) fn walk(track: &str, from: TsMs, steps: u64, dice: &mut Dice) -> Vec<Event> {
    let sensor = ["s1", "s2", "own"][dice.below(3) as usize];
    let mut ts = from;
    let (mut x, mut y) = (dice.below(100) as f32 / 10.0, dice.below(80) as f32 / 10.0);
    let mut events = Vec::new();
    for _ in 0..steps {
        ts += match dice.below(40) {
            0 => 31_000 + dice.below(9_000) as i64,
            1..4 => 5_500 + dice.below(4_000) as i64,
            _ => 200 + dice.below(800) as i64,
        };
        x = (x + dice.below(11) as f32 / 10.0 - 0.5).clamp(-0.5, 10.5);
        y = (y + dice.below(11) as f32 / 10.0 - 0.5).clamp(-0.5, 8.5);
        events.push(position_batch(&[(sensor, track, ts, x, y)]));
    }
    events
}
