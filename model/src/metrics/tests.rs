//! Rows of whole days against a computation written down literally, and the properties that make layers agree.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::{Delivery, EventBatch, Kind, RawRows, resolve};
use crate::ids::Receipt;
use crate::layout::{Layout, Venue, VenueSpec};
use crate::session::{DayFold, FoldContext, PositionEvent, Session, SessionSink, SubjectFold, fold_day};
use crate::testing::position_batch;
use crate::time::DayCut;

/// (sensor, track, ts, x, y)
type Row = (String, String, i64, f32, f32);
/// (sensor, track, steps of (gap choice, x, y), start in seconds of the day)
type Walk = (u8, u8, Vec<(u8, u8, u8)>, u32);
/// (track, sensor where track ids are its own)
type Person = (String, Option<String>);
/// (ts, sensor, x, y)
type At = (i64, String, f32, f32);

fn venue(tz: &str) -> Venue {
    let json = format!(
        r#"{{"id":"v","tz":"{tz}","zones":[
            {{"id":"left","polygon":[[0,0],[5,0],[5,8],[0,8]]}},
            {{"id":"right","polygon":[[5,0],[10,0],[10,8],[5,8]]}},
            {{"id":"other-layer","layer":"b","polygon":[[2.1,1.03],[7.4,1.5],[3.0,5.2]]}}
        ],"sensors":[{{"id":"scoped","track_scope":"sensor"}}]}}"#
    );
    serde_json::from_str::<VenueSpec>(&json)
        .unwrap()
        .to_venue(None)
        .unwrap()
}

fn cut(tz: &str, day: &str) -> (DayCut, Layout) {
    let venue = venue(tz);
    let day = day.parse().unwrap();
    (venue.calendar.cut(day), venue.layout_on(day).clone())
}

fn batch(rows: &[Row]) -> EventBatch {
    let borrowed: Vec<_> = rows
        .iter()
        .map(|r| (r.0.as_str(), r.1.as_str(), r.2, r.3, r.4))
        .collect();
    position_batch(&borrowed)
}

#[derive(Default)]
struct Sessions(Vec<Session>);

impl SessionSink for Sessions {
    fn session(&mut self, session: Session) {
        self.0.push(session);
    }

    fn stay(&mut self, _: &PositionEvent<'_>, _: i64, _: bool) {}
}

fn compute(cut: &DayCut, layout: &Layout, rows: &[Row]) -> Vec<AggregateRow> {
    let delivery = Delivery {
        received_at: 0,
        receipt: Receipt::from_u128(1),
    };
    let raw = RawRows::delivered_once(batch(rows), delivery);
    let winners = resolve(&raw, |_, _| false).winners;
    let context = FoldContext::new(cut, layout);
    let mut accumulator = DayAccumulator::new(cut, layout);
    fold_day(&context, &raw.events, &winners, &mut accumulator);
    accumulator.observe_positions(&raw.events, Some(&winners));
    accumulator.rows()
}

/// Walkers around the gaps that matter, in a day.
fn walk() -> impl Strategy<Value = Vec<Walk>> {
    let step = (0_u8..8, 0_u8..22, 0_u8..18);
    prop::collection::vec(
        (
            0_u8..3,
            0_u8..5,
            prop::collection::vec(step, 1..40),
            0_u32..90_000,
        ),
        1..8,
    )
}

fn rows_of(cut: &DayCut, walks: &[Walk]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (sensor, track, steps, start) in walks {
        let mut ts = cut.start + i64::from(*start) * 1_000;
        for (gap, x, y) in steps {
            ts += [1_000, 1_000, 900, 5_000, 5_001, 30_000, 30_001, 1_300_000][*gap as usize];
            if ts >= cut.end {
                break;
            }
            let sensor = ["a", "b", "scoped"][*sensor as usize].to_owned();
            rows.push((
                sensor,
                format!("t{track}"),
                ts,
                f32::from(*x) * 0.5,
                f32::from(*y) * 0.5,
            ));
        }
    }
    rows
}

/// Visits, visitors, dwell time, dwell list, engaged, peak per (zone, bucket), row by row as the design says it.
type Naive = BTreeMap<(Grain, i64, String), (u64, u64, u64, Vec<u64>, u64, u64)>;

fn naive(cut: &DayCut, layout: &Layout, rows: &[Row]) -> Naive {
    let mut identities: BTreeMap<(String, i64, String), (f32, f32)> = BTreeMap::new();
    for (sensor, track, ts, x, y) in rows {
        let at = identities
            .entry((track.clone(), *ts, sensor.clone()))
            .or_insert((*x, *y));
        if (x.to_bits(), y.to_bits()) > (at.0.to_bits(), at.1.to_bits()) {
            *at = (*x, *y);
        }
    }
    let mut subjects: BTreeMap<Person, Vec<At>> = BTreeMap::new();
    for ((track, ts, sensor), (x, y)) in identities {
        let scope = (sensor == "scoped").then(|| sensor.clone());
        subjects
            .entry((track, scope))
            .or_default()
            .push((ts, sensor, x, y));
    }
    let mut visits: Vec<(String, i64, i64, Person)> = Vec::new();
    for (subject, events) in subjects {
        let mut sessions: Vec<Vec<&At>> = Vec::new();
        for event in &events {
            match sessions.last_mut() {
                Some(session) if event.0 - session.last().unwrap().0 <= 30_000 => session.push(event),
                _ => sessions.push(vec![event]),
            }
        }
        for session in sessions {
            visits.push((
                "_venue".into(),
                session[0].0,
                session.last().unwrap().0,
                subject.clone(),
            ));
            for zone in &layout.zones {
                let mut runs: Vec<(i64, i64)> = Vec::new();
                let mut before = false;
                for (ts, _, x, y) in &session {
                    let inside = zone.polygon.contains(*x, *y);
                    match runs.last_mut() {
                        Some(run) if inside && before => run.1 = *ts,
                        _ if inside => runs.push((*ts, *ts)),
                        _ => {}
                    }
                    before = inside;
                }
                let mut merged: Vec<(i64, i64)> = Vec::new();
                for run in runs {
                    match merged.last_mut() {
                        Some(last) if run.0 - last.1 <= 5_000 => last.1 = run.1,
                        _ => merged.push(run),
                    }
                }
                visits.extend(
                    merged
                        .into_iter()
                        .map(|(a, b)| (zone.id.clone(), a, b, subject.clone())),
                );
            }
        }
    }
    let mut buckets: Vec<(Grain, i64, i64)> =
        cut.hours.iter().map(|h| (Grain::Hour, h.start, h.end)).collect();
    buckets.push((Grain::Day, cut.start, cut.end));
    let mut naive = Naive::new();
    for (grain, start, end) in buckets {
        let zones: BTreeSet<&String> = visits.iter().map(|visit| &visit.0).collect();
        for zone in zones {
            let present: Vec<_> = visits
                .iter()
                .filter(|v| v.0 == *zone && v.1 < end && v.2 >= start)
                .collect();
            if present.is_empty() {
                continue;
            }
            let entered: Vec<_> = present.iter().filter(|v| v.1 >= start).collect();
            let mut dwells: Vec<u64> = entered.iter().map(|v| (v.2 - v.1) as u64).collect();
            dwells.sort_unstable();
            let people: BTreeSet<_> = present.iter().map(|v| &v.3).collect();
            let peak = present
                .iter()
                .map(|at| at.1.max(start))
                .map(|at| {
                    present
                        .iter()
                        .filter(|v| v.1 <= at && at <= v.2)
                        .map(|v| &v.3)
                        .collect::<BTreeSet<_>>()
                        .len()
                })
                .max();
            let overlap = present
                .iter()
                .map(|v| (v.2.min(end) - v.1.max(start)) as u64)
                .sum();
            let engaged = dwells.iter().filter(|dwell| **dwell >= 10_000).count() as u64;
            let numbers = (
                entered.len() as u64,
                people.len() as u64,
                overlap,
                dwells,
                engaged,
                peak.unwrap_or(0) as u64,
            );
            naive.insert((grain, start, zone.clone()), numbers);
        }
    }
    naive
}

fn zone_numbers(rows: &[AggregateRow]) -> Naive {
    let of = |row: &AggregateRow| match &row.value {
        Value::Zone(zone) => Some((
            (row.grain, row.start, row.subject.clone()),
            (
                zone.visits,
                zone.visitors.unwrap(),
                zone.dwell_ms,
                zone.dwells_ms.clone(),
                zone.engaged,
                zone.occupancy_max,
            ),
        )),
        _ => None,
    };
    rows.iter().filter_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn rows_equal_the_definitions_written_down_literally(walks in walk(), day in 0_usize..3) {
        let (tz, day) = [("Europe/Madrid", "2026-10-25"), ("Europe/Madrid", "2026-03-29"), ("Australia/Lord_Howe", "2026-10-04")][day];
        let (cut, layout) = cut(tz, day);
        let rows = rows_of(&cut, &walks);
        prop_assert_eq!(zone_numbers(&compute(&cut, &layout, &rows)), naive(&cut, &layout, &rows));
    }

    #[test]
    fn order_and_repetition_change_nothing(walks in walk(), seed in any::<u64>()) {
        let (cut, layout) = cut("Europe/Madrid", "2026-10-25");
        let rows = rows_of(&cut, &walks);
        let mut shuffled = rows.clone();
        shuffled.extend_from_slice(&rows[..rows.len() / 2]);
        let n = shuffled.len() as u64;
        for i in 0..shuffled.len() {
            shuffled.swap(i, (seed.wrapping_mul(i as u64 + 11) % n.max(1)) as usize);
        }
        prop_assert_eq!(compute(&cut, &layout, &rows), compute(&cut, &layout, &shuffled));
    }

    /// One event at a time with looks in between, chunks cut anywhere, and the settled and the open part kept apart, as
    /// the speed layer does it: the same rows as in one piece.
    #[test]
    fn streaming_equals_batch(walks in walk(), chunk in 1_usize..20, split in 0_usize..200) {
        let (cut, layout) = cut("Europe/Madrid", "2026-10-25");
        let rows = rows_of(&cut, &walks);
        let expected = compute(&cut, &layout, &rows);
        let delivery = Delivery { received_at: 0, receipt: Receipt::from_u128(1) };
        let raw = RawRows::delivered_once(batch(&rows), delivery);
        let winners = resolve(&raw, |_, _| false).winners;
        let context = FoldContext::new(&cut, &layout);

        let mut chunked = DayAccumulator::new(&cut, &layout);
        let mut fold = DayFold::new(&context);
        for rows in winners.chunks(chunk) {
            fold.push_chunk(&raw.events, Some(rows), &mut chunked);
            chunked.observe_positions(&raw.events, Some(rows));
        }
        fold.finish(&mut chunked);
        prop_assert_eq!(&chunked.rows(), &expected);

        let mut by_time = winners.clone();
        by_time.sort_by_key(|&row| (raw.events.ts[row as usize], raw.events.sensor(row as usize).to_owned()));
        let mut settled = DayAccumulator::new(&cut, &layout);
        let mut folds: BTreeMap<_, SubjectFold> = BTreeMap::new();
        for (i, &row) in by_time.iter().enumerate() {
            let row = row as usize;
            let subject = context.subject(raw.events.sensor(row), raw.events.key(row));
            let fold = folds.entry(subject.clone()).or_insert_with(|| SubjectFold::new(subject));
            let (x, y) = (raw.events.f32s(0)[row], raw.events.f32s(1)[row]);
            fold.push(&context, &PositionEvent { ts: raw.events.ts[row], x, y, floor: None }, &mut settled);
            if i == split {
                // A checkpoint: state written and read.
                let bytes = postcard::to_stdvec(&*fold).unwrap();
                *fold = postcard::from_bytes(&bytes).unwrap();
            }
        }
        settled.observe_positions(&raw.events, Some(&winners));
        let mut open = DayAccumulator::new(&cut, &layout);
        for fold in folds.values() {
            open.add_session(&fold.snapshot(&context).unwrap());
        }
        prop_assert_eq!(settled.rows_with(Some(&open), HourSet::all(), true), expected);
    }

    #[test]
    fn hours_unite_to_the_day(walks in walk()) {
        let (cut, layout) = cut("Europe/Madrid", "2026-10-25");
        let rows = compute(&cut, &layout, &rows_of(&cut, &walks));
        let days: Vec<_> = rows.iter().filter(|row| row.grain == Grain::Day).collect();
        for day in days {
            let hours: Vec<&Value> = rows
                .iter()
                .filter(|row| row.grain == Grain::Hour && (row.family, &row.subject) == (day.family, &day.subject))
                .map(|row| &row.value)
                .collect();
            let united = merge(hours, Span::VenueDay).unwrap();
            match (&united, &day.value) {
                (Value::Zone(united), Value::Zone(day)) => {
                    prop_assert_eq!(
                        (united.visits, united.dwell_ms, united.engaged, &united.dwells_ms, united.occupancy_max),
                        (day.visits, day.dwell_ms, day.engaged, &day.dwells_ms, day.occupancy_max)
                    );
                    // Few enough people for the sketch to be exact.
                    prop_assert_eq!(united.sketch.estimate().unwrap(), day.visitors.unwrap());
                }
                (Value::Source(_), _) => {}
                (united, day) => prop_assert_eq!(united, day),
            }
        }
    }
}

#[test]
fn transitions_stay_within_a_layer_and_count_in_the_hour_entered() {
    let (cut, layout) = cut("Etc/UTC", "2026-05-05");
    let at = |s: i64, x: f32| ("a".to_owned(), "t".to_owned(), cut.start + s * 1_000, x, 1.2);
    // left, then right (through other-layer), then left again after the hour.
    let rows = compute(&cut, &layout, &[at(3_590, 1.0), at(3_595, 7.0), at(3_605, 1.0)]);
    let of: Vec<_> = rows
        .iter()
        .filter(|row| row.family == Family::Transition && row.grain == Grain::Hour)
        .map(|row| (row.start - cut.start, row.subject.as_str(), row.value.clone()))
        .collect();
    let one = |from: &str, to: &str| {
        Value::Transition(vec![Transition {
            from: from.into(),
            to: to.into(),
            count: 1,
        }])
    };
    assert_eq!(
        of,
        [
            (0, "default", one("left", "right")),
            (3_600_000, "default", one("right", "left"))
        ]
    );
}

#[test]
fn time_between_events_goes_to_the_earlier_events_cell() {
    let (cut, layout) = cut("Etc/UTC", "2026-05-05");
    let at = |s: i64, x: f32| ("a".to_owned(), "t".to_owned(), cut.start + s * 1_000, x, 0.2);
    let rows = compute(&cut, &layout, &[at(0, 0.49), at(2, 0.5), at(5, -0.1), at(6, 9.0)]);
    let cells = rows
        .iter()
        .find(|row| row.family == Family::Cell && row.grain == Grain::Day)
        .unwrap();
    let expected = CellValue {
        cell_cm: 50,
        cells: vec![(-1, 0, 1_000), (0, 0, 2_000), (1, 0, 3_000)],
    };
    assert_eq!(cells.value, Value::Cell(expected));
}

#[test]
fn a_session_at_the_edge_of_the_day_says_so() {
    let (cut, layout) = cut("Etc/UTC", "2026-05-05");
    let context = FoldContext::new(&cut, &layout);
    let mut sessions = Sessions::default();
    let rows = [
        ("a".to_owned(), "early".to_owned(), cut.start + 30_000, 1.0, 1.0),
        ("a".to_owned(), "late".to_owned(), cut.end - 30_000, 1.0, 1.0),
        (
            "a".to_owned(),
            "noon".to_owned(),
            cut.start + 43_200_000,
            1.0,
            1.0,
        ),
    ];
    fold_day(&context, &batch(&rows), &[0, 1, 2], &mut sessions);
    let flags: Vec<_> = sessions
        .0
        .iter()
        .map(|s| (s.subject.track.as_str(), s.continued_in, s.continued_out))
        .collect();
    assert_eq!(
        flags,
        [
            ("early", true, false),
            ("late", false, true),
            ("noon", false, false)
        ]
    );
}

#[test]
fn families_and_slices_come_back_from_their_numbers() {
    for (number, family) in Family::ALL.into_iter().enumerate() {
        assert_eq!(family as usize, number);
        assert_eq!(Family::from_number(number as u8), Some(family));
    }
    assert_eq!(
        (Family::from_number(0), Family::from_number(9)),
        (Some(Family::Zone), Some(Family::Source))
    );
    assert_eq!((Family::from_number(10), Slice::from_number(3)), (None, None));
    for (number, word) in ["all", "open", "staff"].into_iter().enumerate() {
        let slice = Slice::from_number(number as u8).unwrap();
        assert_eq!((slice as usize, slice.word()), (number, word));
        assert_eq!(Slice::from_word(word), Some(slice));
    }
    assert_eq!((Slice::from_word("closed"), Slice::default()), (None, Slice::All));
}

mod other_kinds;
mod slices;
