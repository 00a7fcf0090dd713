//! What [`RawEvents`] promises.

mod deletion;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_TEXT, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{MAX_TS, MIN_TS, SLOT_MS, TsMs};

use super::samples::{DAY_START, Dice, delivered, delivery, describe, events, position, shop, strangers};
use super::{assert_kind, run_cases};
use crate::api::{ConsumerPosition, Mark, MarkSource, Marks, RawApplied, RawEvents, RawWrite};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn RawEvents>>,
{
    run_cases!(
        "raw events",
        make,
        [
            an_empty_table_answers_with_nothing,
            rows_of_every_kind_come_back_as_they_were,
            extreme_values_survive,
            names_are_told_apart_by_every_byte,
            a_redelivery_adds_to_the_set_of_deliveries_and_to_nothing_else,
            each_payload_of_an_identity_is_a_row,
            a_write_may_repeat_itself,
            any_order_and_repetition_of_writes_ends_in_the_same_rows,
            writes_at_the_same_time_lose_nothing,
            ranges_are_half_open_and_rows_are_sorted,
            a_row_in_many_batches_is_counted_once,
            marks_rise_and_never_fall,
            marks_are_those_of_the_slots_that_a_range_overlaps,
            a_position_belongs_to_consumer_epoch_and_partition,
            a_refused_write_changes_nothing,
            no_venue_sees_anothers_rows,
            erasing_removes_payloads_with_all_deliveries_and_nothing_else,
            names_are_forgotten_when_no_row_uses_them,
            deletion::compared_rows_go_and_nothing_else_does,
            deletion::what_came_after_the_comparison_survives,
            deletion::rows_written_again_after_they_went_are_there,
            deletion::a_large_slot_goes_as_a_whole,
            deletion::rows_outside_the_slot_are_refused,
            deletion::slots_remember_when_they_were_marked,
            deletion::marks_are_dated_by_the_clock_that_is_asked,
        ]
    );
}

const ALL_TIME: std::ops::Range<TsMs> = MIN_TS..MAX_TS;

fn rows_write(rows: Vec<(VenueKey, RawRows)>) -> RawWrite {
    RawWrite {
        rows,
        ..RawWrite::default()
    }
}

fn mark(venue: &VenueKey, slot: i64, source: &MarkSource, position: i64) -> Mark {
    Mark {
        venue: venue.clone(),
        slot,
        source: source.clone(),
        position,
    }
}

/// What a table should hold: deliveries by event text.
type Expected = BTreeMap<String, BTreeSet<Delivery>>;

fn expect(expected: &mut Expected, rows: &RawRows) {
    for row in 0..rows.len() {
        expected
            .entry(describe(&rows.events, row))
            .or_default()
            .extend(rows.deliveries(row));
    }
}

async fn held(store: &dyn RawEvents, venue: &VenueKey, kind: Kind) -> Expected {
    let rows = store.scan(venue, kind, ALL_TIME).await.unwrap();
    rows.check().unwrap();
    let mut held = Expected::new();
    for row in 0..rows.len() {
        let deliveries: BTreeSet<Delivery> = rows.deliveries(row).iter().copied().collect();
        assert_eq!(
            deliveries.len(),
            rows.deliveries(row).len(),
            "a delivery stands twice"
        );
        let before = held.insert(describe(&rows.events, row), deliveries);
        assert_eq!(before, None, "an identity and payload stands in two rows");
    }
    held
}

/// What a write answers that met so many rows; a store that does not tell repeats takes them all for new.
fn counted(store: &dyn RawEvents, new_rows: u64, repeated_rows: u64) -> RawApplied {
    match store.tells_repeats() {
        true => RawApplied {
            new_rows,
            repeated_rows,
        },
        false => RawApplied {
            new_rows: new_rows + repeated_rows,
            repeated_rows: 0,
        },
    }
}

async fn an_empty_table_answers_with_nothing(store: Arc<dyn RawEvents>) {
    let venue = shop();
    for kind in Kind::ALL {
        let rows = store.scan(&venue, kind, ALL_TIME).await.unwrap();
        assert!(rows.is_empty());
        assert_eq!(rows.events.kind, kind);
    }
    assert_eq!(store.count(&venue, ALL_TIME).await.unwrap(), []);
    assert_eq!(store.marks(&venue, ALL_TIME).await.unwrap(), Marks::default());
    assert_eq!(store.marked_slots(&venue, ALL_TIME).await.unwrap(), []);
    assert_eq!(store.position("raw-writer", 1, 0).await.unwrap(), None);
    assert_eq!(
        store.apply(RawWrite::default()).await.unwrap(),
        RawApplied::default()
    );
}

async fn rows_of_every_kind_come_back_as_they_were(store: Arc<dyn RawEvents>) {
    let by = delivery(DAY_START + 9, 77);
    let written: Vec<RawRows> = Kind::ALL
        .into_iter()
        .map(|kind| delivered(events(kind, DAY_START, 23, 1), by))
        .collect();
    let write = rows_write(written.iter().map(|rows| (shop(), rows.clone())).collect());
    let applied = store.apply(write).await.unwrap();
    assert_eq!(applied, counted(&*store, 7 * 23, 0));
    for rows in &written {
        let mut expected = Expected::new();
        expect(&mut expected, rows);
        assert_eq!(held(&*store, &shop(), rows.events.kind).await, expected);
    }
    let counts: Vec<_> = Kind::ALL.into_iter().map(|kind| (kind, 23)).collect();
    assert_eq!(store.count(&shop(), ALL_TIME).await.unwrap(), counts);
}

async fn extreme_values_survive(store: Arc<dyn RawEvents>) {
    let floats = [
        f32::MIN,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
        -0.0,
        16_777_217.0,
        0.1,
        f32::EPSILON,
    ];
    let mut all = RawRows::new(EventBatch::new(Kind::Position));
    for (i, &x) in floats.iter().enumerate() {
        let ts = if i == 0 { MAX_TS - 1 } else { i as i64 - 1 };
        let mut one = position("s", "t", ts, x, -x);
        one.revision[0] = if i % 2 == 0 { i64::MAX } else { i64::MIN };
        let by = Delivery {
            received_at: i64::MAX,
            ..delivery(0, u128::MAX - i as u128)
        };
        all.append(&delivered(one, by));
    }
    let mut readings = events(Kind::Reading, DAY_START, 3, 0);
    readings.payload[0] = Column::F64(vec![f64::MIN, 5e-324, 0.1 + 0.2]);
    let mut counts = events(Kind::Count, DAY_START, 3, 0);
    counts.payload[0] = Column::I64(vec![i64::MAX, i64::MIN + 1, 0]);
    let mut receipts = events(Kind::Transaction, DAY_START, 1, 0);
    let items = receipts.strings.intern(&format!(
        "[{}]",
        "{\"sku\":\"ß\",\"quantity\":1,\"amount\":-5},".repeat(3_000)
    ));
    receipts.payload[3] = Column::Text(vec![items]);
    let by = delivery(5, 0);
    for rows in [
        all,
        delivered(readings, by),
        delivered(counts, by),
        delivered(receipts, by),
    ] {
        store
            .apply(rows_write(vec![(shop(), rows.clone())]))
            .await
            .unwrap();
        let mut expected = Expected::new();
        expect(&mut expected, &rows);
        assert_eq!(held(&*store, &shop(), rows.events.kind).await, expected);
    }
}

async fn names_are_told_apart_by_every_byte(store: Arc<dyn RawEvents>) {
    // Upper case, white space, composed and decomposed letters, a number as text, a separator, the longest name.
    let long = "x".repeat(256);
    let names = [
        "a",
        "A",
        "a ",
        " a",
        "é",
        "e\u{301}",
        "1",
        "01",
        "1.0",
        "line\u{1f}in\u{1f}7",
        "🛒",
        "0",
        "%",
        "'",
        &long,
    ];
    let mut all = RawRows::new(EventBatch::new(Kind::Position));
    for name in names {
        all.append(&delivered(
            position(name, "t", DAY_START, 1.0, 2.0),
            delivery(1, 1),
        ));
        all.append(&delivered(
            position("s", name, DAY_START, 1.0, 2.0),
            delivery(1, 1),
        ));
    }
    let mut floors = position("s", "floors", DAY_START, 1.0, 2.0);
    floors.payload[2] = Column::Text(vec![floors.strings.intern("")]);
    all.append(&delivered(floors, delivery(1, 1)));
    store
        .apply(rows_write(vec![(shop(), all.clone())]))
        .await
        .unwrap();
    let mut expected = Expected::new();
    expect(&mut expected, &all);
    assert_eq!(expected.len(), names.len() * 2 + 1);
    assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
    let rows = store.scan(&shop(), Kind::Position, ALL_TIME).await.unwrap();
    let absent = rows
        .events
        .text_ids(2)
        .iter()
        .filter(|&&id| id == NO_TEXT)
        .count();
    assert_eq!(absent, names.len() * 2, "an empty text is not an absent one");
}

async fn a_redelivery_adds_to_the_set_of_deliveries_and_to_nothing_else(store: Arc<dyn RawEvents>) {
    let batch = events(Kind::Position, DAY_START, 10, 0);
    let mut expected = Expected::new();
    // Out of order, the same receipt at another time, another receipt at the same time, and an exact repetition.
    for (i, by) in [delivery(20, 1), delivery(10, 1), delivery(20, 2), delivery(20, 1)]
        .into_iter()
        .enumerate()
    {
        let rows = delivered(batch.clone(), by);
        expect(&mut expected, &rows);
        let applied = store.apply(rows_write(vec![(shop(), rows)])).await.unwrap();
        let (new, repeated) = if i == 0 { (10, 0) } else { (0, 10) };
        assert_eq!(applied, counted(&*store, new, repeated));
        assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
    }
    assert!(expected.values().all(|deliveries| deliveries.len() == 3));
}

async fn each_payload_of_an_identity_is_a_row(store: Arc<dyn RawEvents>) {
    let mut expected = Expected::new();
    let mut revised = position("s", "t", DAY_START, 1.0, 1.0);
    revised.revision[0] = 1;
    let mut on_a_floor = position("s", "t", DAY_START, 1.0, 1.0);
    on_a_floor.payload[2] = Column::Text(vec![on_a_floor.strings.intern("EG")]);
    let payloads = [
        position("s", "t", DAY_START, 1.0, 1.0),
        position("s", "t", DAY_START, 1.0, 2.0),
        revised,
        on_a_floor,
        // The same payload as one of −0.
        position("s", "t", DAY_START, 0.0, 0.0),
        position("s", "t", DAY_START, -0.0, 0.0),
    ];
    for (i, batch) in payloads.into_iter().enumerate() {
        let rows = delivered(batch, delivery(i as i64, 1));
        expect(&mut expected, &rows);
        store.apply(rows_write(vec![(shop(), rows)])).await.unwrap();
    }
    assert_eq!(expected.len(), 5);
    assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
}

async fn a_write_may_repeat_itself(store: Arc<dyn RawEvents>) {
    let mut rows = delivered(events(Kind::Crossing, DAY_START, 4, 0), delivery(1, 1));
    rows.append(&delivered(
        events(Kind::Crossing, DAY_START, 4, 0),
        delivery(2, 2),
    ));
    rows.append(&delivered(
        events(Kind::Crossing, DAY_START, 4, 0),
        delivery(1, 1),
    ));
    let other = delivered(events(Kind::Crossing, DAY_START, 4, 0), delivery(3, 3));
    let mut expected = Expected::new();
    expect(&mut expected, &rows);
    expect(&mut expected, &other);
    let applied = store
        .apply(rows_write(vec![(shop(), rows), (shop(), other)]))
        .await
        .unwrap();
    assert_eq!(applied, counted(&*store, 4, 12));
    assert_eq!(held(&*store, &shop(), Kind::Crossing).await, expected);
}

async fn any_order_and_repetition_of_writes_ends_in_the_same_rows(store: Arc<dyn RawEvents>) {
    // The same writes for several venues, each in another order and with other repetitions.
    let source = MarkSource::log(3, 0);
    for seed in 0..4 {
        let venue = super::samples::venue("acme", &format!("shop-{seed}"));
        let mut dice = Dice::new(17);
        let mut writes = Vec::new();
        let mut expected = Expected::new();
        let mut marks = Marks::default();
        for number in 0..12_i64 {
            let variant = dice.below(3) as u8;
            let first_ts = DAY_START + dice.below(4) as i64 * 1_000;
            let rows = delivered(
                events(Kind::Position, first_ts, 8, variant),
                delivery(number / 2, number as u128 / 3),
            );
            expect(&mut expected, &rows);
            marks.raise(&source, number);
            writes.push(RawWrite {
                rows: vec![(venue.clone(), rows)],
                marks: vec![mark(&venue, DAY_START / SLOT_MS, &source, number)],
                position: None,
            });
        }
        let mut order = Dice::new(seed);
        let repeated: Vec<RawWrite> = (0..5).map(|_| writes[order.below(12) as usize].clone()).collect();
        writes.extend(repeated);
        order.shuffle(&mut writes);
        for write in writes {
            store.apply(write).await.unwrap();
        }
        assert_eq!(held(&*store, &venue, Kind::Position).await, expected);
        assert_eq!(store.marks(&venue, ALL_TIME).await.unwrap(), marks);
    }
}

async fn writes_at_the_same_time_lose_nothing(store: Arc<dyn RawEvents>) {
    let mut expected = Expected::new();
    let writes: Vec<RawWrite> = (0..16_i64)
        .map(|i| {
            let rows = delivered(
                events(Kind::Position, DAY_START + i % 4 * 1_000, 50, 0),
                delivery(i, i as u128),
            );
            expect(&mut expected, &rows);
            rows_write(vec![(shop(), rows)])
        })
        .collect();
    let applied = futures::future::join_all(writes.into_iter().map(|write| store.apply(write))).await;
    let (mut new, mut repeated) = (0, 0);
    for one in applied {
        let one = one.unwrap();
        new += one.new_rows;
        repeated += one.repeated_rows;
    }
    assert_eq!(new + repeated, 16 * 50);
    if store.tells_repeats() {
        assert_eq!(new, expected.len() as u64);
    }
    assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
}

async fn ranges_are_half_open_and_rows_are_sorted(store: Arc<dyn RawEvents>) {
    let mut batch = EventBatch::new(Kind::Position);
    for i in 0..60_i64 {
        // Written latest first.
        batch.append(&position(
            ["s1", "s2"][i as usize % 2],
            &format!("t{}", i % 7),
            DAY_START - i / 3,
            i as f32,
            0.0,
        ));
    }
    store
        .apply(rows_write(vec![(
            shop(),
            delivered(batch.clone(), delivery(1, 1)),
        )]))
        .await
        .unwrap();
    let first = DAY_START - 19;
    for range in [
        first..DAY_START + 1,
        first..DAY_START,
        first + 1..first + 2,
        first..first,
        DAY_START + 1..MAX_TS,
    ] {
        let rows = store.scan(&shop(), Kind::Position, range.clone()).await.unwrap();
        let mut expected: Vec<_> = (0..batch.len())
            .filter(|&row| range.contains(&batch.ts[row]))
            .map(|row| describe(&batch, row))
            .collect();
        let mut found: Vec<_> = (0..rows.len()).map(|row| describe(&rows.events, row)).collect();
        assert!(rows.events.ts.is_sorted(), "rows are sorted by time first");
        // Of one time and sensor all rows stand together, of one key too: that is what the order is for.
        let groups: Vec<_> = (0..rows.len())
            .map(|row| (rows.events.ts[row], rows.events.sensor(row)))
            .collect();
        let distinct: BTreeSet<_> = groups.iter().collect();
        let runs = groups.chunk_by(|a, b| a == b).count();
        assert_eq!(runs, distinct.len(), "a sensor's rows of one time are torn apart");
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{range:?}");
        let counted = store.count(&shop(), range).await.unwrap();
        let counts = if expected.is_empty() {
            vec![]
        } else {
            vec![(Kind::Position, expected.len() as u64)]
        };
        assert_eq!(counted, counts);
    }
}

async fn a_row_in_many_batches_is_counted_once(store: Arc<dyn RawEvents>) {
    for i in 0..3 {
        let rows = delivered(events(Kind::Reading, DAY_START, 30, 0), delivery(i, i as u128));
        store.apply(rows_write(vec![(shop(), rows)])).await.unwrap();
    }
    assert_eq!(
        store.count(&shop(), ALL_TIME).await.unwrap(),
        [(Kind::Reading, 30)]
    );
    let third = store.count(&shop(), DAY_START..DAY_START + 10_000).await.unwrap();
    assert_eq!(
        third,
        [(Kind::Reading, 10)],
        "a second apart, so ten in ten seconds"
    );
}

async fn marks_rise_and_never_fall(store: Arc<dyn RawEvents>) {
    let (log, job) = (MarkSource::log(7, 0), MarkSource::job("restore-1"));
    let slot = DAY_START / SLOT_MS;
    let raise = async |source: &MarkSource, position| {
        let marks = vec![mark(&shop(), slot, source, position)];
        store
            .apply(RawWrite {
                marks,
                ..RawWrite::default()
            })
            .await
            .unwrap();
    };
    raise(&log, 5).await;
    raise(&log, 9).await;
    raise(&log, 7).await;
    raise(&job, 1).await;
    // A mark may stand twice in one write.
    let marks = vec![mark(&shop(), slot, &job, 4), mark(&shop(), slot, &job, 2)];
    store
        .apply(RawWrite {
            marks,
            ..RawWrite::default()
        })
        .await
        .unwrap();
    let expected = Marks(BTreeMap::from([(log.clone(), 9), (job, 4)]));
    assert_eq!(
        store.marks(&shop(), DAY_START..DAY_START + 1).await.unwrap(),
        expected
    );
    // Another epoch of the log is another source.
    raise(&MarkSource::log(8, 0), 0).await;
    let marks = store.marks(&shop(), DAY_START..DAY_START + 1).await.unwrap();
    assert_eq!((marks.0.len(), marks.0[&log]), (3, 9));
}

async fn marks_are_those_of_the_slots_that_a_range_overlaps(store: Arc<dyn RawEvents>) {
    let source = MarkSource::log(1, 0);
    let first = DAY_START / SLOT_MS;
    let marks = [(0, 10), (1, 11), (5, 12), (6, 3)];
    let marks = marks
        .map(|(slot, position)| mark(&shop(), first + slot, &source, position))
        .to_vec();
    store
        .apply(RawWrite {
            marks,
            ..RawWrite::default()
        })
        .await
        .unwrap();
    let at = |slot: i64| DAY_START + slot * SLOT_MS;
    for (range, expected) in [
        (at(0)..at(1), vec![(0, 10)]),
        (at(0)..at(1) + 1, vec![(0, 10), (1, 11)]),
        (at(1) - 1..at(1), vec![(0, 10)]),
        (at(1)..at(6), vec![(1, 11), (5, 12)]),
        (at(2)..at(5), vec![]),
        (at(0)..at(0), vec![]),
        (at(6) + 5..at(6) + 6, vec![(6, 3)]),
        (ALL_TIME, vec![(0, 10), (1, 11), (5, 12), (6, 3)]),
    ] {
        let slots = store.marked_slots(&shop(), range.clone()).await.unwrap();
        let found: Vec<_> = slots
            .iter()
            .map(|(slot, marks)| (slot - first, marks.0[&source]))
            .collect();
        assert_eq!(found, expected, "{range:?}");
        let highest = expected.iter().map(|(_, position)| *position).max();
        let marks = store.marks(&shop(), range.clone()).await.unwrap();
        assert_eq!(marks.0.get(&source).copied(), highest, "{range:?}");
    }
}

async fn a_position_belongs_to_consumer_epoch_and_partition(store: Arc<dyn RawEvents>) {
    let at = |consumer, epoch, partition, position| RawWrite {
        position: Some(ConsumerPosition {
            consumer,
            epoch,
            partition,
            position,
        }),
        ..RawWrite::default()
    };
    store.apply(at("raw-writer", 7, 0, 100)).await.unwrap();
    store.apply(at("raw-writer", 7, 0, 140)).await.unwrap();
    store.apply(at("raw-writer", 7, 1, 3)).await.unwrap();
    for (consumer, epoch, partition, expected) in [
        ("raw-writer", 7, 0, Some(140)),
        ("raw-writer", 7, 1, Some(3)),
        ("raw-writer", 7, 2, None),
        ("raw-writer", 8, 0, None),
        ("speed", 7, 0, None),
    ] {
        assert_eq!(
            store.position(consumer, epoch, partition).await.unwrap(),
            expected
        );
    }
}

async fn a_refused_write_changes_nothing(store: Arc<dyn RawEvents>) {
    let good = delivered(events(Kind::Position, DAY_START, 5, 0), delivery(1, 1));
    let mut without_delivery = good.clone();
    without_delivery.ends[4] -= 1;
    without_delivery.deliveries.pop();
    let mut unknown_name = good.clone();
    unknown_name.events.key[2] = 999;
    let mut bad_time = good.clone();
    bad_time.events.ts[0] = MAX_TS;
    for bad in [without_delivery, unknown_name, bad_time] {
        let write = RawWrite {
            rows: vec![(shop(), good.clone()), (shop(), bad)],
            marks: vec![mark(&shop(), DAY_START / SLOT_MS, &MarkSource::log(1, 0), 1)],
            position: Some(ConsumerPosition {
                consumer: "raw-writer",
                epoch: 1,
                partition: 0,
                position: 5,
            }),
        };
        assert_kind(store.apply(write).await, ErrorKind::Invalid);
    }
    assert_eq!(store.count(&shop(), ALL_TIME).await.unwrap(), []);
    assert_eq!(store.marks(&shop(), ALL_TIME).await.unwrap(), Marks::default());
    assert_eq!(store.position("raw-writer", 1, 0).await.unwrap(), None);
    // What the refused writes named is written as if they had never been.
    let applied = store
        .apply(rows_write(vec![(shop(), good.clone())]))
        .await
        .unwrap();
    assert_eq!(applied.new_rows, 5);
    let mut expected = Expected::new();
    expect(&mut expected, &good);
    assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
}

async fn no_venue_sees_anothers_rows(store: Arc<dyn RawEvents>) {
    let venues: Vec<VenueKey> = [vec![shop()], strangers()].concat();
    for (i, venue) in venues.iter().enumerate() {
        for stranger in &venues[i..] {
            assert_eq!(store.count(stranger, ALL_TIME).await.unwrap(), []);
            assert_eq!(store.marks(stranger, ALL_TIME).await.unwrap(), Marks::default());
            assert_eq!(store.marked_slots(stranger, ALL_TIME).await.unwrap(), []);
            assert!(
                store
                    .scan(stranger, Kind::Position, ALL_TIME)
                    .await
                    .unwrap()
                    .is_empty()
            );
        }
        // The same identities everywhere, with payloads of their own.
        let rows = delivered(events(Kind::Position, DAY_START, 6, i as u8), delivery(1, 1));
        let marks = vec![mark(venue, DAY_START / SLOT_MS, &MarkSource::log(1, 0), i as i64)];
        store
            .apply(RawWrite {
                rows: vec![(venue.clone(), rows)],
                marks,
                position: None,
            })
            .await
            .unwrap();
    }
    for (i, venue) in venues.iter().enumerate() {
        let mut expected = Expected::new();
        expect(
            &mut expected,
            &delivered(events(Kind::Position, DAY_START, 6, i as u8), delivery(1, 1)),
        );
        assert_eq!(held(&*store, venue, Kind::Position).await, expected);
        let marks = store.marks(venue, ALL_TIME).await.unwrap();
        assert_eq!(marks.0.values().copied().collect::<Vec<_>>(), [i as i64]);
    }
}

async fn erasing_removes_payloads_with_all_deliveries_and_nothing_else(store: Arc<dyn RawEvents>) {
    let (venue, stranger) = (shop(), strangers()[1].clone());
    for kind in Kind::ALL {
        let mut write = RawWrite::default();
        for by in [delivery(DAY_START, 1), delivery(DAY_START + 5, 2)] {
            // Two payloads of each identity.
            for variant in [0, 9] {
                let rows = delivered(events(kind, DAY_START, 12, variant), by);
                write.rows.push((venue.clone(), rows.clone()));
                write.rows.push((stranger.clone(), rows));
            }
        }
        store.apply(write).await.unwrap();
        let (before, of_stranger) = (
            held(&*store, &venue, kind).await,
            held(&*store, &stranger, kind).await,
        );
        // Named by what they are: who brought them does not matter.
        let all = events(kind, DAY_START, 12, 9);
        let erased = RawRows::delivered_once(all.take(&[0, 3, 4]), delivery(0, 99));
        for _ in 0..2 {
            assert_eq!(store.erase(&venue, &erased).await.unwrap(), 3);
            let mut expected = before.clone();
            for row in 0..3 {
                assert!(expected.remove(&describe(&erased.events, row)).is_some());
            }
            assert_eq!(held(&*store, &venue, kind).await, expected, "{kind}");
            assert_eq!(held(&*store, &stranger, kind).await, of_stranger, "{kind}");
        }
        let unknown = RawRows::delivered_once(events(kind, DAY_START + 7, 2, 200), delivery(0, 1));
        store.erase(&venue, &unknown).await.unwrap();
    }
}

async fn names_are_forgotten_when_no_row_uses_them(store: Arc<dyn RawEvents>) {
    let (venue, stranger) = (shop(), strangers()[1].clone());
    let by = delivery(DAY_START, 1);
    let gone = delivered(position("s", "gone", DAY_START, 1.0, 1.0), by);
    let stays = delivered(position("s", "stays", DAY_START, 1.0, 1.0), by);
    store
        .apply(rows_write(vec![
            (venue.clone(), gone.clone()),
            (venue.clone(), stays.clone()),
            (stranger.clone(), gone.clone()),
        ]))
        .await
        .unwrap();
    store.erase(&venue, &gone).await.unwrap();
    let all: crate::api::NameTest = Arc::new(|_| true);
    store.forget_names(&venue, all).await.unwrap();
    let mut expected = Expected::new();
    expect(&mut expected, &stays);
    assert_eq!(held(&*store, &venue, Kind::Position).await, expected);
    // The name may come again, and is another one's elsewhere.
    store
        .apply(rows_write(vec![(venue.clone(), gone.clone())]))
        .await
        .unwrap();
    expect(&mut expected, &gone);
    assert_eq!(held(&*store, &venue, Kind::Position).await, expected);
    assert_eq!(held(&*store, &stranger, Kind::Position).await.len(), 1);
}
