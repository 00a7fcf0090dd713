//! What [`Aggregates`] promises.

use std::sync::Arc;

use dwell_model::metrics::{
    AggregateRow, CellValue, Family, Grain, LineValue, ReadingValue, Slice, TransactionValue, Value,
    ZoneValue,
};
use dwell_model::time::HOUR_MS;

use super::run_cases;
use super::samples::{DAY_START, Dice, day, shop, strangers};
use crate::api::{Aggregates, RowFilter};

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Aggregates>>,
{
    run_cases!(
        "aggregates",
        make,
        [
            what_was_written_is_read_in_order,
            filters_leave_out_what_they_do_not_accept,
            slices_of_one_bucket_are_kept_apart,
            many_days_are_answered_in_the_order_asked_for,
            writing_again_replaces,
            generations_days_and_venues_are_kept_apart,
            deleting_removes_one_generation_and_may_be_repeated,
        ]
    );
}

fn row(grain: Grain, hour: i64, family: Family, subject: &str, number: u64) -> AggregateRow {
    let length_ms = if grain == Grain::Day {
        23 * HOUR_MS
    } else {
        HOUR_MS
    };
    let value = match family {
        Family::Zone => Value::Zone(ZoneValue {
            visits: number,
            visitors: Some(number / 2),
            dwell_ms: number * 1_000,
            occupancy_max: 3,
            engaged: number / 3,
            dwells_ms: (0..number).map(|n| n * n).collect(),
            visitor_days: (grain == Grain::Day).then_some(number / 2),
            ..ZoneValue::default()
        }),
        Family::Line => Value::Line(LineValue {
            inward: number as i64,
            outward: -1,
        }),
        Family::Cell => Value::Cell(CellValue {
            cell_cm: 50,
            cells: vec![(-3, i32::MAX, number), (1, 2, u64::MAX)],
        }),
        Family::Reading => Value::Reading(ReadingValue {
            count: number,
            min: -0.5,
            max: f64::MAX,
            sum_nano: i128::MIN + i128::from(number),
            last: 0.1,
            last_ts: DAY_START,
            unit: "°C".to_owned(),
        }),
        _ => Value::Transaction(TransactionValue {
            sales: number,
            returns: 1,
            voids: 2,
            amount: i128::MAX,
        }),
    };
    AggregateRow {
        grain,
        start: DAY_START + hour * HOUR_MS,
        length_ms,
        family,
        subject: subject.to_owned(),
        slice: Slice::All,
        value,
    }
}

/// Rows in the order in which they are read. Subjects are ordered by bytes.
fn ordered() -> Vec<AggregateRow> {
    let subjects = ["", "A", "_venue", "a", "a\u{1f}b", "ab", "é", "🛒"];
    let families = [
        Family::Zone,
        Family::Line,
        Family::Cell,
        Family::Reading,
        Family::Transaction,
    ];
    let mut rows = Vec::new();
    for (grain, hours) in [(Grain::Hour, 0..4), (Grain::Day, 0..1)] {
        for hour in hours {
            for family in families {
                for (n, subject) in subjects.iter().enumerate() {
                    rows.push(row(grain, hour, family, subject, n as u64 + hour as u64 * 10));
                }
            }
        }
    }
    rows
}

fn shuffled() -> Vec<AggregateRow> {
    let mut rows = ordered();
    Dice::new(5).shuffle(&mut rows);
    rows
}

async fn what_was_written_is_read_in_order(store: Arc<dyn Aggregates>) {
    let (d, all) = (day("2026-03-29"), RowFilter::default());
    assert_eq!(store.read(&shop(), d, 1, &all).await.unwrap(), []);
    assert_eq!(store.count(&shop(), d, 1).await.unwrap(), 0);
    store.write(&shop(), d, 1, shuffled()).await.unwrap();
    assert_eq!(store.read(&shop(), d, 1, &all).await.unwrap(), ordered());
    assert_eq!(store.count(&shop(), d, 1).await.unwrap(), ordered().len() as u64);
}

async fn filters_leave_out_what_they_do_not_accept(store: Arc<dyn Aggregates>) {
    let d = day("2026-03-29");
    store.write(&shop(), d, 1, shuffled()).await.unwrap();
    let families = [
        None,
        Some(vec![Family::Line, Family::Zone]),
        Some(vec![Family::Presence]),
        Some(vec![]),
    ];
    let subjects = [
        None,
        Some(vec!["a".to_owned(), "é".to_owned(), "none".to_owned()]),
        Some(vec![]),
    ];
    for grain in [None, Some(Grain::Hour), Some(Grain::Day)] {
        for families in &families {
            for subjects in &subjects {
                let filter = RowFilter {
                    grain,
                    families: families.clone(),
                    subjects: subjects.clone(),
                    slice: None,
                };
                let mut expected = ordered();
                expected.retain(|row| {
                    (grain.is_none() || grain == Some(row.grain))
                        && families
                            .as_ref()
                            .is_none_or(|families| families.contains(&row.family))
                        && subjects
                            .as_ref()
                            .is_none_or(|subjects| subjects.contains(&row.subject))
                });
                assert_eq!(
                    store.read(&shop(), d, 1, &filter).await.unwrap(),
                    expected,
                    "{filter:?}"
                );
            }
        }
    }
}

async fn slices_of_one_bucket_are_kept_apart(store: Arc<dyn Aggregates>) {
    let d = day("2026-03-29");
    let mut rows = Vec::new();
    for grain in [Grain::Hour, Grain::Day] {
        for subject in ["a", "b"] {
            for (n, slice) in Slice::ALL.into_iter().enumerate() {
                rows.push(AggregateRow {
                    slice,
                    // A slice's bucket may be shorter than the others'.
                    length_ms: HOUR_MS - n as i64,
                    ..row(grain, 0, Family::Zone, subject, 10 + n as u64)
                });
            }
        }
    }
    let mut mixed = rows.clone();
    Dice::new(7).shuffle(&mut mixed);
    store.write(&shop(), d, 1, mixed).await.unwrap();
    let all = store.read(&shop(), d, 1, &RowFilter::default()).await.unwrap();
    assert_eq!(all, rows);
    assert_eq!(store.count(&shop(), d, 1).await.unwrap(), 12);
    for slice in Slice::ALL {
        let filter = RowFilter {
            slice: Some(slice),
            families: Some(vec![Family::Zone]),
            ..RowFilter::default()
        };
        let mut expected = rows.clone();
        expected.retain(|row| row.slice == slice);
        assert_eq!(store.read(&shop(), d, 1, &filter).await.unwrap(), expected);
        let many = store
            .read_many(&shop(), &[(d, 1), (d.next(), 1)], &filter)
            .await
            .unwrap();
        assert_eq!(many, [expected, vec![]]);
    }
    // Writing fewer slices leaves none of the others.
    rows.retain(|row| row.slice == Slice::All);
    store.write(&shop(), d, 1, rows.clone()).await.unwrap();
    assert_eq!(
        store.read(&shop(), d, 1, &RowFilter::default()).await.unwrap(),
        rows
    );
}

async fn many_days_are_answered_in_the_order_asked_for(store: Arc<dyn Aggregates>) {
    // Across the end of a year, since days of a year may share a partition.
    let (a, b, c) = (day("2025-12-31"), day("2026-01-01"), day("2026-01-02"));
    let one = |n| {
        vec![
            row(Grain::Hour, 0, Family::Zone, "z", n),
            row(Grain::Day, 0, Family::Zone, "z", n),
        ]
    };
    for (d, generation, n) in [(a, 1, 1), (b, 1, 2), (b, 2, 3), (c, 9, 4)] {
        store.write(&shop(), d, generation, one(n)).await.unwrap();
    }
    let asked = [(c, 9), (a, 1), (a, 2), (b, 2), (b, 1), (a, 1)];
    let answers = store
        .read_many(&shop(), &asked, &RowFilter::default())
        .await
        .unwrap();
    assert_eq!(answers, [one(4), one(1), vec![], one(3), one(2), one(1)]);
    assert_eq!(
        store
            .read_many(&shop(), &[], &RowFilter::default())
            .await
            .unwrap(),
        Vec::<Vec<_>>::new()
    );
    let strange = store
        .read_many(&strangers()[0], &asked, &RowFilter::default())
        .await
        .unwrap();
    assert_eq!(
        strange,
        vec![vec![]; 6],
        "an answer per day, for a venue without any too"
    );
}

async fn writing_again_replaces(store: Arc<dyn Aggregates>) {
    let (d, all) = (day("2026-03-29"), RowFilter::default());
    store.write(&shop(), d, 1, shuffled()).await.unwrap();
    store.write(&shop(), d, 1, shuffled()).await.unwrap();
    assert_eq!(store.read(&shop(), d, 1, &all).await.unwrap(), ordered());
    let fewer = vec![row(Grain::Day, 0, Family::Line, "door", 8)];
    store.write(&shop(), d, 1, fewer.clone()).await.unwrap();
    assert_eq!(store.read(&shop(), d, 1, &all).await.unwrap(), fewer);
}

async fn generations_days_and_venues_are_kept_apart(store: Arc<dyn Aggregates>) {
    let (d, all) = (day("2026-03-29"), RowFilter::default());
    let mut places = vec![(shop(), d, 1), (shop(), d, 2), (shop(), d.next(), 1)];
    places.extend(strangers().into_iter().map(|stranger| (stranger, d, 1)));
    let rows = |n: usize| {
        vec![
            row(Grain::Hour, 0, Family::Zone, "z", n as u64),
            row(Grain::Day, 0, Family::Zone, "z", n as u64),
        ]
    };
    for (n, (venue, d, generation)) in places.iter().enumerate() {
        for (venue, d, generation) in &places[n..] {
            assert_eq!(store.read(venue, *d, *generation, &all).await.unwrap(), []);
            assert_eq!(store.count(venue, *d, *generation).await.unwrap(), 0);
        }
        store.write(venue, *d, *generation, rows(n)).await.unwrap();
    }
    for (n, (venue, d, generation)) in places.iter().enumerate() {
        assert_eq!(store.read(venue, *d, *generation, &all).await.unwrap(), rows(n));
    }
}

async fn deleting_removes_one_generation_and_may_be_repeated(store: Arc<dyn Aggregates>) {
    let (d, all) = (day("2026-03-29"), RowFilter::default());
    store.delete(&shop(), d, 1).await.unwrap();
    for generation in [1, 2] {
        store.write(&shop(), d, generation, shuffled()).await.unwrap();
    }
    store.delete(&shop(), d, 1).await.unwrap();
    store.delete(&shop(), d, 1).await.unwrap();
    for stranger in strangers() {
        store.delete(&stranger, d, 2).await.unwrap();
    }
    assert_eq!(store.read(&shop(), d, 1, &all).await.unwrap(), []);
    assert_eq!(store.read(&shop(), d, 2, &all).await.unwrap(), ordered());
}
