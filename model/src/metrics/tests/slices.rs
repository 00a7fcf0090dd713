//! The slices `open` and `staff`: by hand, and against the definitions written down literally.

use super::*;
use crate::event::{Column, NO_I64, NO_TEXT};

const MINUTE: i64 = 60_000;

/// A venue with one zone (x below 5), entrances where asked for, hours and staff.
fn shop(tz: &str, rest: &str) -> Venue {
    let json = format!(
        r#"{{"id":"v","tz":"{tz}","zones":[{{"id":"left","polygon":[[0,0],[5,0],[5,8],[0,8]]}},
            {{"id":"right","polygon":[[5,0],[10,0],[10,8],[5,8]]}}],
            "sensors":[{{"id":"scoped","track_scope":"sensor"}}],{rest}}}"#
    );
    serde_json::from_str::<VenueSpec>(&json)
        .unwrap()
        .to_venue(None)
        .unwrap()
}

fn day_of(venue: &Venue, day: &str) -> (DayCut, Layout) {
    let day = day.parse().unwrap();
    (venue.calendar.cut(day), venue.layout_on(day).clone())
}

/// One event a second from `from` to `to`, minutes of the day, at a place.
fn stay(cut: &DayCut, track: &str, (from, to): (i64, i64), x: f32) -> Vec<Row> {
    (from * 60..=to * 60)
        .map(|second| {
            (
                "a".to_owned(),
                track.to_owned(),
                cut.start + second * 1_000,
                x,
                1.2,
            )
        })
        .collect()
}

fn of_slice(rows: &[AggregateRow], slice: Slice, family: Family) -> Vec<&AggregateRow> {
    rows.iter()
        .filter(|row| row.slice == slice && row.family == family)
        .collect()
}

/// (minute of the start, length in minutes, visits, visitors, minutes of dwell time, minutes of each dwell, peak)
type Numbers = (i64, i64, u64, u64, u64, Vec<u64>, u64);

fn zone(cut: &DayCut, rows: &[AggregateRow], slice: Slice, grain: Grain, id: &str) -> Vec<Numbers> {
    let numbers = |row: &&AggregateRow| match &row.value {
        Value::Zone(zone) if row.grain == grain && row.subject == id => Some((
            (row.start - cut.start) / MINUTE,
            row.length_ms / MINUTE,
            zone.visits,
            zone.visitors.unwrap(),
            zone.dwell_ms / MINUTE as u64,
            zone.dwells_ms.iter().map(|ms| ms / MINUTE as u64).collect(),
            zone.occupancy_max,
        )),
        _ => None,
    };
    of_slice(rows, slice, Family::Zone)
        .iter()
        .filter_map(numbers)
        .collect()
}

#[test]
fn visits_count_where_they_begin_within_opening_hours_and_presence_is_clipped() {
    let venue = shop("Etc/UTC", r#""open":9.5,"close":21"#);
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let rows: Vec<Row> = [
        stay(&cut, "early", (9 * 60 + 20, 9 * 60 + 40), 1.0),
        stay(&cut, "noon", (12 * 60 + 50, 13 * 60 + 10), 1.0),
        stay(&cut, "late", (20 * 60 + 50, 21 * 60 + 10), 1.0),
        stay(&cut, "night", (22 * 60, 22 * 60 + 5), 1.0),
    ]
    .concat();
    let rows = compute(&cut, &layout, &rows);
    assert_eq!(
        zone(&cut, &rows, Slice::Open, Grain::Hour, "left"),
        [
            (540, 30, 0, 1, 10, vec![], 1),
            (720, 60, 1, 1, 10, vec![20], 1),
            (780, 60, 0, 1, 10, vec![], 1),
            (1_200, 60, 1, 1, 10, vec![10], 1),
        ]
    );
    // Nobody is anywhere else, so the venue has the zone's numbers.
    for id in ["left", "_venue"] {
        assert_eq!(
            zone(&cut, &rows, Slice::Open, Grain::Day, id),
            [(0, 690, 2, 3, 40, vec![10, 20], 1)]
        );
    }
    // `all` is what it was, the bucket's length too.
    assert_eq!(
        zone(&cut, &rows, Slice::All, Grain::Day, "left"),
        [(0, 1_440, 4, 4, 65, vec![5, 20, 20, 20], 1)]
    );
    // Footfall comes from visits here: those within opening hours.
    let footfall = |slice| {
        let of_day = of_slice(&rows, slice, Family::Traffic);
        let row = of_day.into_iter().find(|row| row.grain == Grain::Day).unwrap();
        evaluate("footfall", &row.value, row.length_ms)
    };
    assert_eq!(footfall(Slice::All), Some(Number::Integer(4)));
    assert_eq!(footfall(Slice::Open), Some(Number::Integer(2)));
    // Hours between are there without gaps, hours outside of opening are not.
    let hours: Vec<i64> = of_slice(&rows, Slice::Open, Family::Traffic)
        .iter()
        .filter(|row| row.grain == Grain::Hour)
        .map(|row| (row.start - cut.start) / (60 * MINUTE))
        .collect();
    assert_eq!(hours, (9..21).collect::<Vec<_>>());
}

#[test]
fn nights_exceptions_and_clock_changes_are_clipped_by_the_local_clock() {
    let hours = r#""opening_hours":{"weekly":{"sat":[["22:00","02:30"]],"sun":[["12:00","13:00"]]},
                   "exceptions":{"2026-10-31":[]}}"#;
    let venue = shop("Europe/Madrid", hours);
    // The clock goes back from 03:00 to 02:00: the night ends at the first 02:30, 150 minutes after midnight.
    let (cut, layout) = day_of(&venue, "2026-10-25");
    let all_day = stay(&cut, "t", (0, 25 * 60 - 1), 1.0);
    let rows = compute(&cut, &layout, &all_day);
    assert_eq!(
        zone(&cut, &rows, Slice::Open, Grain::Hour, "left"),
        [
            // Entered at midnight; of the day 150 minutes and an hour of opening.
            (0, 60, 1, 1, 60, vec![210], 1),
            (60, 60, 0, 1, 60, vec![], 1),
            (120, 30, 0, 1, 30, vec![], 1),
            // Noon is the 13th hour of this day.
            (780, 60, 0, 1, 60, vec![], 1),
        ]
    );
    assert_eq!(
        zone(&cut, &rows, Slice::Open, Grain::Day, "left"),
        [(0, 210, 1, 1, 210, vec![210], 1)]
    );
    // A Saturday on which it stays shut, and so the next night too.
    let venue_closed = |day: &str| {
        let (cut, layout) = day_of(&venue, day);
        let rows = compute(&cut, &layout, &stay(&cut, "t", (0, 3 * 60), 1.0));
        (
            of_slice(&rows, Slice::Open, Family::Zone).len(),
            of_slice(&rows, Slice::All, Family::Zone).len(),
        )
    };
    assert_eq!(venue_closed("2026-10-31").0, 0);
    assert_eq!(venue_closed("2026-11-01"), (0, 10));
    // In spring 02:30 does not exist; the night ends with the first instant after it, two hours after midnight.
    let (cut, layout) = day_of(&venue, "2026-03-29");
    let rows = compute(&cut, &layout, &stay(&cut, "t", (0, 4 * 60), 1.0));
    assert_eq!(
        zone(&cut, &rows, Slice::Open, Grain::Day, "left"),
        [(0, 180, 1, 1, 120, vec![120], 1)]
    );
}

#[test]
fn without_hours_or_staff_there_are_no_slices() {
    let venue = shop("Etc/UTC", r#""width":10"#);
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let rows = compute(&cut, &layout, &stay(&cut, "t", (600, 610), 1.0));
    assert!(rows.iter().all(|row| row.slice == Slice::All) && !rows.is_empty());
    assert_eq!(DaySlices::of(&cut, &layout), DaySlices::default());
}

#[test]
fn staff_is_what_the_tags_name_and_all_still_has_it() {
    let venue = shop("Etc/UTC", r#""staff_tags":["clerk","ghost"],"open":9,"close":10"#);
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let mut rows = [
        stay(&cut, "clerk", (8 * 60, 8 * 60 + 30), 1.0),
        stay(&cut, "customer", (8 * 60 + 10, 8 * 60 + 20), 1.0),
    ]
    .concat();
    // The clerk goes on to the other zone, and is seen by a sensor whose track ids are its own, too.
    rows.extend(
        stay(&cut, "clerk", (8 * 60 + 30, 8 * 60 + 40), 7.0)
            .into_iter()
            .skip(1),
    );
    rows.extend(
        stay(&cut, "clerk", (20 * 60, 20 * 60 + 5), 1.0)
            .into_iter()
            .map(|(_, track, ts, x, y)| ("scoped".to_owned(), track, ts, x, y)),
    );
    let computed = compute(&cut, &layout, &rows);
    assert_eq!(
        zone(&cut, &computed, Slice::Staff, Grain::Day, "left"),
        [(0, 1_440, 2, 2, 35, vec![5, 30], 1)]
    );
    assert_eq!(
        zone(&cut, &computed, Slice::All, Grain::Day, "left"),
        [(0, 1_440, 3, 3, 45, vec![5, 10, 30], 2)]
    );
    // Staff alone gives the same rows as staff among others: transitions and heat map included.
    let alone: Vec<Row> = rows.iter().filter(|row| row.1 == "clerk").cloned().collect();
    let alone = compute(&cut, &layout, &alone);
    for family in [Family::Zone, Family::Transition, Family::Cell] {
        let of_staff: Vec<_> = of_slice(&computed, Slice::Staff, family)
            .into_iter()
            .map(|row| AggregateRow {
                slice: Slice::All,
                ..row.clone()
            })
            .collect();
        let expected: Vec<_> = of_slice(&alone, Slice::All, family)
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(of_staff, expected, "{family:?}");
        assert!(!of_staff.is_empty(), "{family:?}");
    }
    let traffic: Vec<_> = of_slice(&computed, Slice::Staff, Family::Traffic)
        .into_iter()
        .filter(|row| row.grain == Grain::Day)
        .map(|row| evaluate("footfall", &row.value, row.length_ms))
        .collect();
    assert_eq!(traffic, [Some(Number::Integer(2))]);
}

#[test]
fn time_in_a_cell_ends_at_the_closing() {
    let venue = shop("Etc/UTC", r#""open":9,"close":10"#);
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let at = |second: i64, x: f32| {
        (
            "a".to_owned(),
            "t".to_owned(),
            cut.start + 9 * 3_600_000 + second * 1_000,
            x,
            0.2,
        )
    };
    // 20 s across the opening, 30 s, 10 s and 25 s across the closing, 5 s after it.
    let positions = [
        at(-10, 0.1),
        at(10, 1.1),
        at(40, 2.1),
        at(3_575, 3.1),
        at(3_585, 4.1),
        at(3_610, 5.1),
        at(3_615, 6.1),
    ];
    let rows = compute(&cut, &layout, &positions);
    let cells = |slice, grain| -> Vec<(i64, Vec<(i32, u64)>)> {
        of_slice(&rows, slice, Family::Cell)
            .into_iter()
            .filter(|row| row.grain == grain)
            .map(|row| match &row.value {
                Value::Cell(value) => (
                    (row.start - cut.start) / 3_600_000,
                    value.cells.iter().map(|cell| (cell.0, cell.2)).collect(),
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let open = vec![(2, 30_000), (6, 10_000), (8, 15_000)];
    assert_eq!(cells(Slice::Open, Grain::Hour), [(9, open.clone())]);
    assert_eq!(cells(Slice::Open, Grain::Day), [(0, open)]);
    assert_eq!(
        cells(Slice::All, Grain::Hour),
        [
            (8, vec![(0, 20_000)]),
            (9, vec![(2, 30_000), (6, 10_000), (8, 25_000)]),
            (10, vec![(10, 5_000)])
        ]
    );
}

/// A batch of crossings: `(minute, line, direction, count, track)`.
fn crossings(cut: &DayCut, rows: &[(i64, &str, &str, i64, Option<&str>)]) -> EventBatch {
    let mut batch = EventBatch::new(Kind::Crossing);
    let (mut lines, mut directions, mut tracks) = (Vec::new(), Vec::new(), Vec::new());
    for (n, &(minute, line, direction, _, track)) in rows.iter().enumerate() {
        let sensor = batch.strings.intern("door-1");
        let key = batch.strings.intern(&format!("k{n}"));
        batch.ts.push(cut.start + minute * MINUTE);
        batch.sensor.push(sensor);
        batch.key.push(key);
        batch.revision.push(0);
        lines.push(batch.strings.intern(line));
        directions.push(batch.strings.intern(direction));
        tracks.push(track.map_or(NO_TEXT, |track| batch.strings.intern(track)));
    }
    let none = || Column::I64(vec![NO_I64; rows.len()]);
    let counts = Column::I64(rows.iter().map(|row| row.3).collect());
    batch.payload = vec![
        Column::Text(lines),
        Column::Text(directions),
        counts,
        Column::Text(tracks),
        none(),
        none(),
    ];
    batch.check().unwrap();
    batch
}

#[test]
fn crossings_are_sliced_by_time_and_by_the_track_that_they_name() {
    let venue = shop(
        "Etc/UTC",
        r#""open":9,"close":21,"staff_tags":["clerk"],"lines":[{"id":"door"},{"id":"back","role":"internal"}]"#,
    );
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let batch = crossings(
        &cut,
        &[
            (8 * 60, "door", "in", 1, Some("clerk")),
            (9 * 60, "door", "in", 7, None),
            (10 * 60, "door", "out", 2, None),
            (10 * 60 + 1, "door", "in", 1, Some("customer")),
            (20 * 60, "back", "in", 3, None),
            (21 * 60, "door", "out", 6, None),
            (21 * 60 + 1, "door", "out", 1, Some("clerk")),
        ],
    );
    let mut day = DayAccumulator::new(&cut, &layout);
    day.add_events(&batch, None);
    let rows = day.rows();
    let lines = |slice, grain| -> Vec<(i64, &str, i64, i64)> {
        of_slice(&rows, slice, Family::Line)
            .into_iter()
            .filter(|row| row.grain == grain)
            .map(|row| match &row.value {
                Value::Line(line) => (
                    (row.start - cut.start) / 3_600_000,
                    row.subject.as_str(),
                    line.inward,
                    line.outward,
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(
        lines(Slice::All, Grain::Day),
        [(0, "back", 3, 0), (0, "door", 9, 9)]
    );
    assert_eq!(
        lines(Slice::Open, Grain::Day),
        [(0, "back", 3, 0), (0, "door", 8, 2)]
    );
    // Of the line in the back nothing is known: no crossing of it names a track.
    assert_eq!(lines(Slice::Staff, Grain::Day), [(0, "door", 1, 1)]);
    // At ten a crossing named a track, and it was no member of staff: that is a zero that is known.
    assert_eq!(
        lines(Slice::Staff, Grain::Hour),
        [(8, "door", 1, 0), (10, "door", 0, 0), (21, "door", 0, 1)]
    );
    let traffic = |slice, grain| -> Vec<(i64, u64, i64)> {
        of_slice(&rows, slice, Family::Traffic)
            .into_iter()
            .filter(|row| row.grain == grain)
            .map(|row| match &row.value {
                Value::Traffic(t) => ((row.start - cut.start) / 3_600_000, t.footfall, t.occupancy_est),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(traffic(Slice::All, Grain::Day), [(0, 9, 0)]);
    assert_eq!(traffic(Slice::Open, Grain::Day), [(0, 8, 6)]);
    assert_eq!(traffic(Slice::Staff, Grain::Day), [(0, 1, 0)]);
    let open = traffic(Slice::Open, Grain::Hour);
    assert_eq!(
        (open.len(), open[0], open[1], open[11]),
        (12, (9, 7, 7), (10, 1, 6), (20, 0, 6))
    );
    let staff = traffic(Slice::Staff, Grain::Hour);
    assert_eq!(
        (staff.len(), staff[0], staff[5], staff[13]),
        (14, (8, 1, 1), (13, 0, 1), (21, 0, 0))
    );
}

#[test]
fn counters_receipts_readings_and_devices_count_within_opening_hours() {
    let venue = shop("Etc/UTC", r#""open":9,"close":21,"staff_tags":["x"]"#);
    let (cut, layout) = day_of(&venue, "2026-05-05");
    let minutes = [8 * 60, 9 * 60, 20 * 60 + 59, 21 * 60];
    let events = |kind: Kind, keys: [&str; 4], fill: &dyn Fn(&mut EventBatch) -> Vec<Column>| {
        let mut batch = EventBatch::new(kind);
        for (minute, key) in minutes.iter().zip(keys) {
            let (sensor, key) = (batch.strings.intern("s"), batch.strings.intern(key));
            batch.ts.push(cut.start + minute * MINUTE);
            batch.sensor.push(sensor);
            batch.key.push(key);
            batch.revision.push(0);
        }
        batch.payload = fill(&mut batch);
        batch.check().unwrap();
        batch
    };
    let words = |batch: &mut EventBatch, word: &str| Column::Text(vec![batch.strings.intern(word); 4]);
    let mut day = DayAccumulator::new(&cut, &layout);
    day.add_events(
        &events(Kind::Count, ["c"; 4], &|batch| {
            vec![Column::I64(vec![100, 107, 120, 150]), words(batch, "cumulative")]
        }),
        None,
    );
    day.add_events(
        &events(Kind::Transaction, ["r1", "r2", "r3", "r4"], &|batch| {
            let euros = words(batch, "EUR");
            let none = || Column::I64(vec![NO_I64; 4]);
            vec![
                Column::I64(vec![1, 20, 300, 4_000]),
                euros,
                none(),
                Column::Text(vec![NO_TEXT; 4]),
            ]
        }),
        None,
    );
    day.add_events(
        &events(Kind::Reading, ["co2"; 4], &|batch| {
            vec![Column::F64(vec![1.0, 5.0, 3.0, 9.0]), words(batch, "ppm")]
        }),
        None,
    );
    day.add_events(
        &events(Kind::Presence, ["d1", "d1", "d2", "d3"], &|_| {
            let none = || Column::F32(vec![f32::NAN; 4]);
            vec![Column::I64(vec![NO_I64; 4]), none(), none()]
        }),
        None,
    );
    let rows = day.rows();
    let number = |slice, metric: &str| {
        let family = crate::definitions::find(metric).unwrap().family;
        let found: Vec<_> = of_slice(&rows, slice, family)
            .into_iter()
            .filter(|row| row.grain == Grain::Day)
            .filter_map(|row| evaluate(metric, &row.value, row.length_ms))
            .collect();
        found
    };
    for (metric, all, open) in [
        // The first sample ever tells of no increase; that of nine o'clock counts from the one before it.
        ("counter_value", Number::Integer(50), Number::Integer(20)),
        ("sales", Number::Integer(4), Number::Integer(2)),
        ("transaction_amount", Number::Integer(4_321), Number::Integer(320)),
        ("reading_count", Number::Integer(4), Number::Integer(2)),
        ("reading_max", Number::Float(9.0), Number::Float(5.0)),
        ("reading_last", Number::Float(9.0), Number::Float(3.0)),
        ("devices", Number::Integer(3), Number::Integer(2)),
        ("sightings", Number::Integer(4), Number::Integer(2)),
    ] {
        assert_eq!(number(Slice::All, metric), [all], "{metric}");
        assert_eq!(number(Slice::Open, metric), [open], "{metric}");
        assert_eq!(number(Slice::Staff, metric), [], "{metric}");
    }
    assert!(of_slice(&rows, Slice::Open, Family::Source).is_empty());
    // Whatever a slice says not to have, it has not.
    assert!(rows.iter().all(|row| row.slice.has(row.family)));
}

/// Visits of a zone's bucket within opening hours, second by second: whoever is inside at a moment of opening.
fn literally(
    visits: &[(i64, i64, String)],
    (start, end): (i64, i64),
    open: &[(i64, i64)],
) -> Option<(u64, u64, u64, Vec<u64>, u64)> {
    // All times are whole tenths of a second (see `walk`), so tenths are moments enough.
    const STEP: i64 = 100;
    let is_open = |ts: i64| open.iter().any(|&(from, to)| from <= ts && ts < to);
    let (mut dwell, mut peak) = (0, 0);
    let mut people: BTreeSet<&str> = BTreeSet::new();
    for ts in (start..end).step_by(STEP as usize).filter(|&ts| is_open(ts)) {
        let there: BTreeSet<&str> = visits
            .iter()
            .filter(|visit| visit.0 <= ts && ts <= visit.1)
            .map(|visit| visit.2.as_str())
            .collect();
        dwell += visits
            .iter()
            .filter(|visit| visit.0 <= ts && ts < visit.1)
            .count() as i64
            * STEP;
        peak = peak.max(there.len() as u64);
        people.extend(there);
    }
    if people.is_empty() {
        return None;
    }
    let entered = visits
        .iter()
        .filter(|visit| (start..end).contains(&visit.0) && is_open(visit.0));
    let mut dwells: Vec<u64> = entered
        .map(|visit| {
            let moments = (visit.0..visit.1)
                .step_by(STEP as usize)
                .filter(|&ts| is_open(ts));
            moments.count() as u64 * STEP as u64
        })
        .collect();
    dwells.sort_unstable();
    Some((
        dwells.len() as u64,
        people.len() as u64,
        dwell as u64,
        dwells,
        peak,
    ))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Opening hours drawn anywhere in the first two hours of days with and without a clock change.
    #[test]
    fn open_equals_its_definition_written_down_literally(
        people in prop::collection::vec((0_u8..4, prop::collection::vec((0_i64..7_000, 0_i64..29), 1..8)), 1..5),
        spans in prop::collection::vec((0_u16..118, 1_u16..60), 0..4),
        day in 0_usize..3,
    ) {
        let day = ["2026-05-05", "2026-10-25", "2026-03-29"][day];
        let spans: Vec<String> = spans
            .iter()
            .map(|(from, length)| {
                let to = from + length;
                format!(r#"["{:02}:{:02}","{:02}:{:02}"]"#, from / 60, from % 60, to / 60, to % 60)
            })
            .collect();
        let hours = format!(r#""opening_hours":{{"exceptions":{{"{day}":[{}]}}}}"#, spans.join(","));
        let venue = shop("Europe/Madrid", &hours);
        let (cut, layout) = day_of(&venue, day);
        let mut rows: Vec<Row> = Vec::new();
        for (track, hops) in &people {
            for (second, more) in hops {
                for step in [0, *more] {
                    let ts = cut.start + (second + step) * 1_000 + i64::from(*track) * 100;
                    rows.push(("a".into(), format!("t{track}"), ts, 1.0, 1.0));
                }
            }
        }
        let computed = compute(&cut, &layout, &rows);
        // The visits themselves are those of `all`, which other tests hold against its own definition.
        let mut sessions = Sessions::default();
        let context = FoldContext::new(&cut, &layout);
        let batch = batch(&rows);
        let raw = RawRows::delivered_once(batch, Delivery { received_at: 0, receipt: Receipt::from_u128(1) });
        fold_day(&context, &raw.events, &resolve(&raw, |_, _| false).winners, &mut sessions);
        let visits: Vec<(i64, i64, String)> = sessions
            .0
            .iter()
            .map(|session| (session.start, session.end, session.subject.track.clone()))
            .collect();
        let open = layout.opening_hours.as_ref().unwrap().open_intervals(&cut);
        let (mut buckets, mut found) = (vec![], vec![]);
        // Nobody is there after the first hours.
        for hour in &cut.hours[..4] {
            buckets.push((hour.start, literally(&visits, (hour.start, hour.end), &open)));
        }
        buckets.push((-1, literally(&visits, (cut.start, cut.hours[3].end), &open)));
        for row in of_slice(&computed, Slice::Open, Family::Zone) {
            if let Value::Zone(value) = &row.value && row.subject == "_venue" {
                let numbers = (value.visits, value.visitors.unwrap(), value.dwell_ms, value.dwells_ms.clone(), value.occupancy_max);
                found.push((if row.grain == Grain::Day { -1 } else { row.start }, numbers));
            }
        }
        let expected: Vec<_> = buckets.into_iter().filter_map(|(start, numbers)| Some((start, numbers?))).collect();
        prop_assert_eq!(found, expected);
    }

    /// The order of arrival, and sessions that are still open, change no slice: the layers differ in just these.
    #[test]
    fn slices_do_not_depend_on_order_and_split(walks in walk(), seed in any::<u64>()) {
        let venue = shop(
            "Europe/Madrid",
            r#""opening_hours":{"weekly":{"sun":[["00:10","00:40"],["01:00","02:30"],["07:00","07:01"],["12:00","23:59"]]}},
               "staff_tags":["t1","t3"]"#,
        );
        let (cut, layout) = day_of(&venue, "2026-10-25");
        let rows = rows_of(&cut, &walks);
        let expected = compute(&cut, &layout, &rows);
        let mut shuffled = rows.clone();
        let n = shuffled.len() as u64;
        for i in 0..shuffled.len() {
            shuffled.swap(i, (seed.wrapping_mul(i as u64 + 11) % n.max(1)) as usize);
        }
        prop_assert_eq!(&compute(&cut, &layout, &shuffled), &expected);

        let raw = RawRows::delivered_once(batch(&rows), Delivery { received_at: 0, receipt: Receipt::from_u128(1) });
        let mut winners = resolve(&raw, |_, _| false).winners;
        winners.sort_by_key(|&row| (raw.events.ts[row as usize], raw.events.sensor(row as usize).to_owned()));
        let context = FoldContext::new(&cut, &layout);
        let mut settled = DayAccumulator::new(&cut, &layout);
        let mut folds: BTreeMap<_, SubjectFold> = BTreeMap::new();
        for &row in &winners {
            let row = row as usize;
            let subject = context.subject(raw.events.sensor(row), raw.events.key(row));
            let fold = folds.entry(subject.clone()).or_insert_with(|| SubjectFold::new(subject));
            let (x, y) = (raw.events.f32s(0)[row], raw.events.f32s(1)[row]);
            fold.push(&context, &PositionEvent { ts: raw.events.ts[row], x, y, floor: None }, &mut settled);
        }
        settled.observe_positions(&raw.events, Some(&winners));
        let mut open = DayAccumulator::new(&cut, &layout);
        for fold in folds.values() {
            open.add_session(&fold.snapshot(&context).unwrap());
        }
        prop_assert_eq!(settled.rows_with(Some(&open), HourSet::all(), true), expected);
    }
}
