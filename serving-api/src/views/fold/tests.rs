use dwell_model::definitions;
use dwell_model::event::CountMode;
use dwell_model::layout::VenueSpec;
use dwell_model::metrics::{AggregateRow, CounterValue, Grain, LineValue, Slice, SourceValue, ZoneValue};
use dwell_model::time::{HOUR_MS, LocalDay, parse_ts};
use dwell_storage::api::LiveDay;
use serde_json::json;

use super::super::sources::DaySource;
use super::*;
use crate::query::hours_of_day::HoursOfDay;
use crate::query::range::{self, By, Range};

fn venue() -> Venue {
    let spec = json!({"id": "v", "tz": "UTC", "zones": [{"id": "a", "polygon": [[0, 0], [1, 0], [1, 1]]}]});
    serde_json::from_value::<VenueSpec>(spec)
        .unwrap()
        .to_venue(None)
        .unwrap()
}

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

/// A row of a family in an hour, or in the day when `hour` is `None`.
fn row(day: &str, hour: Option<i64>, family: Family, subject: &str, value: Value) -> AggregateRow {
    let midnight = parse_ts(&format!("{day}T00:00:00Z")).unwrap();
    let (grain, start, length_ms) = match hour {
        Some(hour) => (Grain::Hour, midnight + hour * HOUR_MS, HOUR_MS),
        None => (Grain::Day, midnight, 24 * HOUR_MS),
    };
    AggregateRow {
        grain,
        start,
        length_ms,
        family,
        subject: subject.to_owned(),
        slice: Slice::All,
        value,
    }
}

fn heard(day: &str, hour: Option<i64>) -> AggregateRow {
    let value = Value::Source(SourceValue {
        events: 1,
        ..SourceValue::default()
    });
    row(day, hour, Family::Source, "s1", value)
}

fn zone(visits: u64, dwells_ms: &[u64]) -> Value {
    let (visitors, visitor_days) = (Some(visits), Some(visits));
    Value::Zone(ZoneValue {
        visits,
        visitors,
        visitor_days,
        dwells_ms: dwells_ms.to_vec(),
        ..ZoneValue::default()
    })
}

/// Folds buckets of the days with a live source, in chunks of `chunk_days`; the numbers of one series.
fn fold(
    days: Vec<(&str, Vec<AggregateRow>)>,
    series: Series,
    (from, to): (&str, &str),
    by: By,
    chunk_days: usize,
) -> Result<Vec<(Number, BucketState)>, Problem> {
    let venue = venue();
    let live = |text: &str| {
        DaySource::Live(LiveDay {
            day: day(text),
            layout: 0,
            rows: std::sync::Arc::new(Vec::new()),
        })
    };
    let sources = Sources::of(days.iter().map(|(text, _)| (day(text), live(text))));
    let rows = Rows::of(days.into_iter().map(|(text, rows)| (day(text), rows)));
    let now = parse_ts("2030-01-01T00:00:00Z").unwrap();
    let range = Range::parse(Some(from), Some(to), &venue.calendar, now).unwrap();
    let buckets = range::cut(&venue.calendar, range, by, HoursOfDay::ALL, 1_000, 1_000).unwrap();
    let series = [series];
    let mut judge = Judge::new(&venue, &sources, now, Slice::All);
    let mut folds: Vec<_> = buckets
        .iter()
        .map(|_| BucketFold::new(&venue, &sources, &series))
        .collect();
    for chunk in chunks(&buckets, chunk_days) {
        for (index, pieces) in chunk {
            folds[index].add(pieces, &rows, &rows, &mut judge)?;
        }
    }
    let finished = folds.into_iter().map(BucketFold::finish).zip(&buckets);
    let number = |((info, ingredients), bucket): ((BucketInfo, Vec<Ingredients>), &Bucket)| {
        (
            ingredients[0].number(series[0].definition, bucket.length_ms),
            info.state,
        )
    };
    Ok(finished.map(number).collect())
}

fn series(metric: &str, subject: Subject) -> Series {
    Series {
        definition: definitions::find(metric).unwrap(),
        subject,
    }
}

fn zone_a(metric: &str) -> Series {
    series(metric, Subject::Zone("a".to_owned()))
}

#[test]
fn however_a_bucket_is_cut_into_chunks_its_number_is_the_same() {
    let days = || {
        (1..=9)
            .map(|n| {
                let name: &'static str = [
                    "2026-03-01",
                    "2026-03-02",
                    "2026-03-03",
                    "2026-03-04",
                    "2026-03-05",
                    "2026-03-06",
                    "2026-03-07",
                    "2026-03-08",
                    "2026-03-09",
                ][n - 1];
                let dwells = [n as u64 * 100, n as u64 * 1_000];
                (
                    name,
                    vec![
                        heard(name, None),
                        row(name, None, Family::Zone, "a", zone(2, &dwells)),
                    ],
                )
            })
            .collect::<Vec<_>>()
    };
    let range = ("2026-03-01", "2026-03-09");
    // 18 dwell times: 100 … 900 and 1,000 … 9,000; the ninth is 900.
    for (metric, expected) in [
        ("visits", Number::Integer(18)),
        ("dwell_p50", Number::Integer(900)),
        ("visitor_days", Number::Integer(18)),
    ] {
        for chunk_days in [1, 2, 4, 100] {
            let total = fold(days(), zone_a(metric), range, By::Total, chunk_days).unwrap();
            assert_eq!(total, [(expected, BucketState::Ok)], "{metric} {chunk_days}");
            let weeks = fold(days(), zone_a(metric), range, By::Week, chunk_days).unwrap();
            assert_eq!(weeks.len(), 3, "March 1st is a Sunday");
        }
    }
}

#[test]
fn zero_is_said_only_where_sensors_were_heard() {
    let name = "2026-03-01";
    let rows = || {
        vec![(
            name,
            vec![
                heard(name, Some(10)),
                row(name, Some(11), Family::Zone, "a", zone(1, &[5])),
            ],
        )]
    };
    let hour = |hour: i64, metric: &str| {
        fold(rows(), zone_a(metric), (name, name), By::Hour, 9).unwrap()[hour as usize]
    };
    assert_eq!(hour(10, "visits"), (Number::Integer(0), BucketState::Ok));
    assert_eq!(hour(10, "visitors"), (Number::Integer(0), BucketState::Ok));
    assert_eq!(hour(10, "occupancy_avg"), (Number::Float(0.0), BucketState::Ok));
    assert_eq!(
        hour(10, "dwell_p50"),
        (Number::None, BucketState::Ok),
        "the median of no visits"
    );
    assert_eq!(
        hour(10, "engagement_rate"),
        (Number::None, BucketState::Ok),
        "a ratio to zero"
    );
    assert_eq!(hour(9, "visits"), (Number::None, BucketState::Missing));
    // What was measured is said, even where no sensor's health is known.
    assert_eq!(hour(11, "visits").0, Number::Integer(1));
    let unknown = series("visits", Subject::Unknown);
    assert_eq!(
        fold(rows(), unknown, (name, name), By::Hour, 9).unwrap()[10].0,
        Number::None
    );
}

#[test]
fn a_day_without_anybody_does_not_disturb_the_others() {
    let (first, second) = ("2026-03-01", "2026-03-02");
    let days = || {
        vec![
            (
                first,
                vec![
                    heard(first, None),
                    row(first, None, Family::Zone, "a", zone(3, &[1, 2, 3])),
                ],
            ),
            (second, vec![heard(second, None)]),
        ]
    };
    for chunk_days in [1, 2] {
        let total = fold(days(), zone_a("visits"), (first, second), By::Total, chunk_days).unwrap();
        assert_eq!(total, [(Number::Integer(3), BucketState::Ok)]);
    }
    let with_gap = fold(days(), zone_a("visits"), ("2026-02-28", second), By::Total, 9).unwrap();
    assert_eq!(
        with_gap,
        [(Number::Integer(3), BucketState::Partial)],
        "a day is not computed yet"
    );
}

#[test]
fn counters_add_up_or_keep_the_last_by_their_mode() {
    let name = "2026-03-01";
    let counter = |mode, value, ts| {
        Value::Counter(CounterValue {
            mode,
            value,
            samples: 1,
            resets: 0,
            last_ts: ts,
        })
    };
    let subject = |mode: CountMode| {
        let (sensor, counter) = ("s".to_owned(), "c".to_owned());
        Subject::Counter {
            sensor,
            counter,
            mode,
        }
    };
    for (mode, expected, silent) in [
        (CountMode::Delta, Number::Integer(12), Number::Integer(0)),
        (CountMode::Cumulative, Number::Integer(12), Number::Integer(0)),
        (CountMode::State, Number::Integer(5), Number::None),
    ] {
        let in_rows = subject(mode).in_rows().unwrap();
        let rows = || {
            let mut rows: Vec<_> = (0..24).map(|hour| heard(name, Some(hour))).collect();
            rows.push(row(name, Some(3), Family::Counter, &in_rows, counter(mode, 7, 1)));
            rows.push(row(name, Some(4), Family::Counter, &in_rows, counter(mode, 5, 2)));
            vec![(name, rows)]
        };
        let series = || series("counter_value", subject(mode));
        let hours = ("2026-03-01T03:00:00Z", "2026-03-01T06:00:00Z");
        assert_eq!(
            fold(rows(), series(), hours, By::Total, 9).unwrap()[0].0,
            expected,
            "{mode:?}"
        );
        assert_eq!(
            fold(rows(), series(), hours, By::Hour, 9).unwrap()[2].0,
            silent,
            "{mode:?}"
        );
    }
}

#[test]
fn conversion_is_a_ratio_of_sums_over_currencies_and_days() {
    let (first, second) = ("2026-03-01", "2026-03-02");
    let traffic = |footfall| {
        let source = FootfallSource::Lines;
        Value::Traffic(TrafficValue {
            source,
            footfall,
            inward: footfall as i64,
            outward: 0,
            occupancy_est: 0,
        })
    };
    let sales = |sales| {
        Value::Transaction(TransactionValue {
            sales,
            returns: 1,
            voids: 1,
            amount: 500,
        })
    };
    let days = vec![
        (
            first,
            vec![
                heard(first, None),
                row(first, None, Family::Traffic, "", traffic(30)),
                row(first, None, Family::Transaction, "EUR", sales(4)),
                row(first, None, Family::Transaction, "GBP", sales(2)),
            ],
        ),
        (
            second,
            vec![
                heard(second, None),
                row(second, None, Family::Traffic, "", traffic(10)),
                row(second, None, Family::Transaction, "EUR", sales(4)),
            ],
        ),
    ];
    let by_day = fold(
        days.clone(),
        series(CONVERSION, Subject::Venue),
        (first, second),
        By::Day,
        1,
    )
    .unwrap();
    assert_eq!(
        [by_day[0].0, by_day[1].0],
        [Number::Float(0.2), Number::Float(0.4)]
    );
    for chunk_days in [1, 2] {
        let total = fold(
            days.clone(),
            series(CONVERSION, Subject::Venue),
            (first, second),
            By::Total,
            chunk_days,
        )
        .unwrap();
        assert_eq!(
            total[0].0,
            Number::Float(0.25),
            "10 sales of 40 people, not the mean of the days"
        );
    }
}

#[test]
fn footfall_of_lines_and_of_sessions_is_never_added() {
    let (first, second) = ("2026-03-01", "2026-03-02");
    let traffic = |source| {
        Value::Traffic(TrafficValue {
            source,
            footfall: 1,
            inward: 0,
            outward: 0,
            occupancy_est: 0,
        })
    };
    let days = vec![
        (
            first,
            vec![row(
                first,
                None,
                Family::Traffic,
                "",
                traffic(FootfallSource::Lines),
            )],
        ),
        (
            second,
            vec![row(
                second,
                None,
                Family::Traffic,
                "",
                traffic(FootfallSource::Sessions),
            )],
        ),
    ];
    let footfall = || series("footfall", Subject::Venue);
    assert!(fold(days.clone(), footfall(), (first, second), By::Day, 9).is_ok());
    let refused = fold(days, footfall(), (first, second), By::Total, 9).unwrap_err();
    assert_eq!(refused.kind(), problem::UNMERGEABLE);
}

#[test]
fn completeness_is_that_of_the_sensors_over_the_whole_bucket() {
    let name = "2026-03-01";
    let venue = venue();
    let declared = |hour, expected, seen| {
        let value = SourceValue {
            events: 1,
            intervals: Some((expected, seen)),
            ..SourceValue::default()
        };
        row(name, Some(hour), Family::Source, "s1", Value::Source(value))
    };
    let rows = Rows::of([(
        day(name),
        vec![declared(0, 60, 60), declared(1, 60, 30), heard(name, Some(2))],
    )]);
    let live = LiveDay {
        day: day(name),
        layout: 0,
        rows: std::sync::Arc::new(Vec::new()),
    };
    let sources = Sources::of([(day(name), DaySource::Live(live))]);
    let now = parse_ts("2030-01-01T00:00:00Z").unwrap();
    let range = Range::parse(
        Some("2026-03-01T00:00:00Z"),
        Some("2026-03-01T02:00:00Z"),
        &venue.calendar,
        now,
    )
    .unwrap();
    let buckets = range::cut(&venue.calendar, range, By::Total, HoursOfDay::ALL, 10, 10).unwrap();
    let series = [series("in", Subject::Line("door".to_owned()))];
    let mut fold = BucketFold::new(&venue, &sources, &series);
    fold.add(
        &buckets[0].pieces,
        &rows,
        &rows,
        &mut Judge::new(&venue, &sources, now, Slice::All),
    )
    .unwrap();
    let (info, ingredients) = fold.finish();
    assert_eq!(
        (info.completeness, info.state),
        (Some(0.75), BucketState::Partial),
        "90 of 120 intervals"
    );
    assert_eq!(
        ingredients[0].main,
        Some(Value::Line(LineValue::default())),
        "nobody crossed"
    );
    assert!(info.provisional && info.layers.contains(&Layer::Live));
}

#[test]
fn chunks_keep_the_pieces_of_a_day_together() {
    let venue = venue();
    let now = parse_ts("2030-01-01T00:00:00Z").unwrap();
    let range = Range::parse(
        Some("2026-03-01T22:00:00Z"),
        Some("2026-03-04T02:00:00Z"),
        &venue.calendar,
        now,
    )
    .unwrap();
    for by in [By::Hour, By::Day, By::Total] {
        let buckets = range::cut(&venue.calendar, range, by, HoursOfDay::ALL, 1_000, 10).unwrap();
        for days_max in 1..=5 {
            let chunks = chunks(&buckets, days_max);
            let mut pieces = Vec::new();
            for chunk in &chunks {
                let of_chunk: Vec<Piece> = chunk
                    .iter()
                    .flat_map(|(_, pieces)| pieces.iter().copied())
                    .collect();
                let days: BTreeSet<LocalDay> = of_chunk.iter().map(|piece| piece.day).collect();
                assert!(days.len() <= days_max);
                pieces.push((of_chunk, days));
            }
            for (before, after) in pieces.iter().zip(pieces.iter().skip(1)) {
                assert!(
                    before.1.is_disjoint(&after.1),
                    "{by:?} {days_max}: a day was torn apart"
                );
            }
            let all: Vec<Piece> = pieces.into_iter().flat_map(|(pieces, _)| pieces).collect();
            let expected: Vec<Piece> = buckets.iter().flat_map(|bucket| bucket.pieces.clone()).collect();
            assert_eq!(all, expected, "{by:?} {days_max}");
        }
    }
}
