//! Crossings, counters, receipts, readings, presence, status: by hand.

use super::*;
use crate::event::{Column, NO_I64, NO_TEXT, SensorState};

/// A batch of a kind: `(sensor, key, ts)` and the payload columns, built by `fill`.
fn events(
    kind: Kind,
    rows: &[(&str, &str, i64)],
    fill: impl Fn(&mut EventBatch) -> Vec<Column>,
) -> EventBatch {
    let mut batch = EventBatch::new(kind);
    for (sensor, key, ts) in rows {
        let (sensor, key) = (batch.strings.intern(sensor), batch.strings.intern(key));
        batch.ts.push(*ts);
        batch.sensor.push(sensor);
        batch.key.push(key);
        batch.revision.push(0);
    }
    batch.payload = fill(&mut batch);
    batch.check().unwrap();
    batch
}

fn texts(batch: &mut EventBatch, words: &[&str]) -> Column {
    Column::Text(words.iter().map(|word| batch.strings.intern(word)).collect())
}

/// Adds the events in one piece, and one by one backwards; both must give the same rows.
fn rows_of(cut: &DayCut, layout: &Layout, batch: &EventBatch, carry: Carry) -> Vec<AggregateRow> {
    let mut whole = DayAccumulator::new(cut, layout);
    whole.set_carry(carry.clone());
    whole.add_events(batch, None);
    let mut pieces = DayAccumulator::new(cut, layout);
    pieces.set_carry(carry);
    for row in (0..batch.len() as u32).rev() {
        pieces.add_events(batch, Some(&[row]));
    }
    assert_eq!(whole.rows(), pieces.rows(), "order and split");
    assert_eq!(whole.carry_out(), pieces.carry_out());
    whole.rows()
}

fn values(rows: &[AggregateRow], family: Family, grain: Grain) -> Vec<(&str, i64, &Value)> {
    let wanted = rows
        .iter()
        .filter(|row| row.family == family && row.grain == grain);
    wanted
        .map(|row| (row.subject.as_str(), row.start, &row.value))
        .collect()
}

#[test]
fn crossings_make_lines_footfall_and_occupancy() {
    let json = r#"{"id":"v","tz":"Etc/UTC","lines":[{"id":"door"},{"id":"inner","role":"internal"}]}"#;
    let venue = serde_json::from_str::<VenueSpec>(json)
        .unwrap()
        .to_venue(None)
        .unwrap();
    let cut = venue.calendar.cut("2026-05-05".parse().unwrap());
    let at = |hour: i64| cut.start + hour * 3_600_000 + 1;
    let rows = [
        ("s", "a", at(9)),
        ("s", "b", at(9)),
        ("s", "c", at(11)),
        ("s", "d", at(11)),
        ("s", "e", at(11)),
    ];
    let batch = events(Kind::Crossing, &rows, |batch| {
        vec![
            texts(batch, &["door", "door", "door", "inner", "unlisted"]),
            texts(batch, &["in", "out", "out", "in", "in"]),
            Column::I64(vec![5, 1, 7, 3, 2]),
            Column::Text(vec![NO_TEXT; 5]),
            Column::I64(vec![NO_I64; 5]),
            Column::I64(vec![NO_I64; 5]),
        ]
    });
    let rows = rows_of(&cut, venue.layout_on(cut.day), &batch, Carry::default());
    let line = |inward, outward| Value::Line(LineValue { inward, outward });
    assert_eq!(
        values(&rows, Family::Line, Grain::Day),
        [
            ("door", cut.start, &line(5, 8)),
            ("inner", cut.start, &line(3, 0)),
            ("unlisted", cut.start, &line(2, 0))
        ]
    );
    let traffic: Vec<_> = values(&rows, Family::Traffic, Grain::Hour)
        .into_iter()
        .map(|(_, start, value)| match value {
            Value::Traffic(t) => ((start - cut.start) / 3_600_000, t.footfall, t.occupancy_est),
            other => panic!("{other:?}"),
        })
        .collect();
    // The hour between has nobody crossing, but the occupancy stands; going below zero is shown.
    assert_eq!(traffic, [(9, 5, 4), (10, 0, 4), (11, 0, -3)]);
}

#[test]
fn cumulative_counters_rise_from_what_was_carried_in() {
    let json = r#"{"id":"v","tz":"Etc/UTC","sensors":[{"id":"wrapping","counter_wrap":100}]}"#;
    let venue = serde_json::from_str::<VenueSpec>(json)
        .unwrap()
        .to_venue(None)
        .unwrap();
    let cut = venue.calendar.cut("2026-05-05".parse().unwrap());
    let at = |hour: i64| cut.start + hour * 3_600_000;
    let rows = [
        ("plain", "c", at(1)),
        ("plain", "c", at(2)),
        ("plain", "c", at(3)),
        ("wrapping", "c", at(1)),
        ("wrapping", "c", at(2)),
        ("plain", "d", at(4)),
        ("plain", "d", at(5)),
        ("plain", "s", at(6)),
        ("plain", "s", at(6) + 1),
    ];
    let batch = events(Kind::Count, &rows, |batch| {
        let modes = [
            "cumulative",
            "cumulative",
            "cumulative",
            "cumulative",
            "cumulative",
            "delta",
            "delta",
            "state",
            "state",
        ];
        vec![
            Column::I64(vec![110, 130, 7, 90, 5, 4, 6, 9, 3]),
            texts(batch, &modes),
        ]
    });
    let carry = Carry(
        [(
            "plain\u{1f}c\u{1f}cumulative".to_owned(),
            CounterSample { ts: 1, value: 100 },
        )]
        .into(),
    );
    let rows = rows_of(&cut, venue.layout_on(cut.day), &batch, carry.clone());
    let by_hour: Vec<_> = values(&rows, Family::Counter, Grain::Hour)
        .into_iter()
        .map(|(subject, start, value)| match value {
            Value::Counter(c) => (
                (start - cut.start) / 3_600_000,
                subject.replace('\u{1f}', "/"),
                c.value,
                c.resets,
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (1, "plain/c/cumulative", 10, 0),
        (1, "wrapping/c/cumulative", 0, 0),
        (2, "plain/c/cumulative", 20, 0),
        (2, "wrapping/c/cumulative", 15, 0),
        (3, "plain/c/cumulative", 7, 1),
        (4, "plain/d/delta", 4, 0),
        (5, "plain/d/delta", 6, 0),
        (6, "plain/s/state", 3, 0),
    ];
    assert_eq!(
        by_hour,
        expected.map(|(hour, subject, value, resets)| (hour, subject.to_owned(), value, resets))
    );
    let mut accumulator = DayAccumulator::new(&cut, venue.layout_on(cut.day));
    accumulator.set_carry(carry);
    accumulator.add_events(&batch, None);
    let out = accumulator.carry_out().0;
    assert_eq!(out["plain\u{1f}c\u{1f}cumulative"].value, 7);
    assert_eq!(out["wrapping\u{1f}c\u{1f}cumulative"].value, 5);
    assert_eq!(out.len(), 2, "only cumulative counters are carried");
}

#[test]
fn receipts_readings_and_devices_by_hand() {
    let (cut, layout) = cut("Etc/UTC", "2026-05-05");
    let t = cut.start + 3_600_000;
    let receipts = events(
        Kind::Transaction,
        &[
            ("till", "1", t),
            ("till", "2", t),
            ("till", "3", t),
            ("till", "4", t),
        ],
        |b| {
            let void = vec![NO_I64, NO_I64, 1, NO_I64];
            let currency = texts(b, &["CHF", "CHF", "CHF", "EUR"]);
            vec![
                Column::I64(vec![1_000, -250, 99_999, 0]),
                currency,
                Column::I64(void),
                Column::Text(vec![NO_TEXT; 4]),
            ]
        },
    );
    let rows = rows_of(&cut, &layout, &receipts, Carry::default());
    let sum = |sales, returns, voids, amount| {
        Value::Transaction(TransactionValue {
            sales,
            returns,
            voids,
            amount,
        })
    };
    assert_eq!(
        values(&rows, Family::Transaction, Grain::Day),
        [
            ("CHF", cut.start, &sum(1, 1, 1, 750)),
            ("EUR", cut.start, &sum(1, 0, 0, 0))
        ]
    );

    let readings = events(
        Kind::Reading,
        &[("s", "co2", t), ("s", "co2", t + 2), ("s", "co2", t + 1)],
        |b| vec![Column::F64(vec![0.1, 0.2, 0.7]), texts(b, &["ppm", "ppm", "ppm"])],
    );
    let rows = rows_of(&cut, &layout, &readings, Carry::default());
    match values(&rows, Family::Reading, Grain::Hour)[0] {
        ("s\u{1f}co2", _, Value::Reading(r)) => {
            assert_eq!(
                (r.count, r.min, r.max, r.last, r.sum_nano),
                (3, 0.1, 0.7, 0.2, 1_000_000_000)
            );
        }
        other => panic!("{other:?}"),
    }

    let devices = events(
        Kind::Presence,
        &[("s", "p:1", t), ("s", "p:2", t), ("s2", "p:1", t + 5)],
        |_| {
            vec![
                Column::I64(vec![NO_I64; 3]),
                Column::F32(vec![f32::NAN; 3]),
                Column::F32(vec![f32::NAN; 3]),
            ]
        },
    );
    let rows = rows_of(&cut, &layout, &devices, Carry::default());
    match values(&rows, Family::Presence, Grain::Day)[0] {
        (_, _, Value::Presence(p)) => assert_eq!((p.devices, p.sightings), (Some(2), 3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn status_events_tell_states_losses_and_gaps() {
    let (cut, layout) = cut("Etc/UTC", "2026-05-05");
    let at = |minutes: i64| cut.start + minutes * 60_000;
    let batch = events(
        Kind::Status,
        &[("s", "", at(10)), ("s", "", at(40)), ("s", "", at(70))],
        |b| {
            vec![
                texts(b, &["ok", "offline", "ok"]),
                Column::I64(vec![100, NO_I64, 50]),
                Column::I64(vec![0, 20, NO_I64]),
                Column::I64(vec![1, 2, 6]),
                Column::I64(vec![NO_I64, -800, 300]),
            ]
        },
    );
    let rows = rows_of(&cut, &layout, &batch, Carry::default());
    let hours = values(&rows, Family::Source, Grain::Hour);
    let source = |value: &Value| match value {
        Value::Source(source) => source.clone(),
        other => panic!("{other:?}"),
    };
    let first = source(hours[0].2);
    assert_eq!(
        first.state_ms,
        [
            (SensorState::Ok, 30 * 60_000),
            (SensorState::Offline, 20 * 60_000)
        ]
        .into()
    );
    assert_eq!(
        (first.sent, first.dropped, first.sequence_gaps),
        (Some(100), Some(20), 0)
    );
    assert_eq!(first.clock_offset_ms, Some(-800));
    let second = source(hours[1].2);
    assert_eq!(
        second.state_ms,
        [
            (SensorState::Ok, 50 * 60_000),
            (SensorState::Offline, 10 * 60_000)
        ]
        .into()
    );
    assert_eq!(
        (second.sent, second.sequence_gaps, second.statuses),
        (Some(50), 3, 1)
    );
}

#[test]
fn a_declared_interval_counts_what_came() {
    let json = r#"{"id":"v","tz":"Etc/UTC","sensors":[{"id":"s","interval_ms":60000}]}"#;
    let venue = serde_json::from_str::<VenueSpec>(json)
        .unwrap()
        .to_venue(None)
        .unwrap();
    let cut = venue.calendar.cut("2026-05-05".parse().unwrap());
    let times: Vec<i64> = [0, 30, 60, 61, 3_599].map(|s| cut.start + s * 1_000).to_vec();
    let rows: Vec<_> = times.iter().map(|&ts| ("s", "m", ts)).collect();
    let batch = events(Kind::Reading, &rows, |b| {
        vec![Column::F64(vec![1.0; 5]), texts(b, &["u"; 5])]
    });
    let rows = rows_of(&cut, venue.layout_on(cut.day), &batch, Carry::default());
    match values(&rows, Family::Source, Grain::Hour)[0].2 {
        Value::Source(source) => assert_eq!(source.intervals, Some((60, 3))),
        other => panic!("{other:?}"),
    }
}
