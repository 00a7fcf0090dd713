//! What [`RawEventsWriter::delete_compared`](crate::api::RawEventsWriter::delete_compared) and
//! [`RawEventsReader::marked_at`](crate::api::RawEventsReader::marked_at) promise.

use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{SLOT_MS, TsMs};
use dwell_runtime::clock::{Clock, SystemClock};

use super::{ALL_TIME, Expected, expect, held, mark, rows_write};
use crate::api::{ComparedSlot, ConsumerPosition, MarkSource, RawEvents, RawWrite};
use crate::conformance::assert_kind;
use crate::conformance::samples::{DAY_START, delivered, delivery, events, position, shop, strangers};
use crate::error::ErrorKind;

const SLOT: i64 = DAY_START / SLOT_MS;
/// Longer than the grain of write times.
const A_MOMENT: Duration = Duration::from_millis(5);

async fn write(store: &dyn RawEvents, venue: &VenueKey, rows: &RawRows) {
    store
        .apply(rows_write(vec![(venue.clone(), rows.clone())]))
        .await
        .unwrap();
}

/// An instant that all writes before the call precede, and all after it follow.
async fn now() -> TsMs {
    let clock = SystemClock::new();
    clock.sleep(A_MOMENT).await;
    let now = clock.now_ms();
    clock.sleep(A_MOMENT).await;
    now
}

async fn scan(store: &dyn RawEvents, kind: Kind, slot: i64) -> RawRows {
    let range = slot * SLOT_MS..(slot + 1) * SLOT_MS;
    store.scan(&shop(), kind, range).await.unwrap()
}

async fn delete(store: &dyn RawEvents, rows: RawRows, written_before: TsMs) {
    let slot = ComparedSlot {
        venue: shop(),
        slot: rows.events.ts.first().map_or(SLOT, |ts| ts.div_euclid(SLOT_MS)),
        rows,
        written_before,
    };
    store.delete_compared(slot).await.unwrap();
}

pub(super) async fn compared_rows_go_and_nothing_else_does(store: Arc<dyn RawEvents>) {
    let next = DAY_START + SLOT_MS;
    let mut kept = Vec::new();
    for kind in Kind::ALL {
        for (start, by) in [(DAY_START, 1), (next, 2)] {
            let rows = delivered(events(kind, start, 40, 0), delivery(by, by as u128));
            write(&*store, &shop(), &rows).await;
            if (kind, start) != (Kind::Position, DAY_START) {
                kept.push(rows);
            }
        }
    }
    let theirs = delivered(events(Kind::Position, DAY_START, 40, 0), delivery(1, 1));
    for stranger in strangers() {
        write(&*store, &stranger, &theirs).await;
    }
    let source = MarkSource::log(7, 0);
    let marked = RawWrite {
        marks: vec![mark(&shop(), SLOT, &source, 5)],
        position: Some(ConsumerPosition {
            consumer: "raw-writer",
            epoch: 7,
            partition: 0,
            position: 6,
        }),
        ..RawWrite::default()
    };
    store.apply(marked).await.unwrap();

    let rows = scan(&*store, Kind::Position, SLOT).await;
    assert_eq!(rows.len(), 40);
    delete(&*store, rows.clone(), now().await).await;
    assert!(scan(&*store, Kind::Position, SLOT).await.is_empty());
    for kind in Kind::ALL {
        let mut expected = Expected::new();
        let of_kind = kept.iter().filter(|rows| rows.events.kind == kind);
        of_kind.for_each(|rows| expect(&mut expected, rows));
        assert_eq!(held(&*store, &shop(), kind).await, expected, "{kind}");
    }
    for stranger in strangers() {
        assert_eq!(
            store.count(&stranger, ALL_TIME).await.unwrap(),
            [(Kind::Position, 40)]
        );
    }
    assert_eq!(store.marks(&shop(), ALL_TIME).await.unwrap().0[&source], 5);
    assert_eq!(store.position("raw-writer", 7, 0).await.unwrap(), Some(6));
    // Marks can still rise where rows were removed.
    let higher = vec![mark(&shop(), SLOT, &source, 9)];
    store
        .apply(RawWrite {
            marks: higher,
            ..RawWrite::default()
        })
        .await
        .unwrap();
    assert_eq!(store.marks(&shop(), ALL_TIME).await.unwrap().0[&source], 9);
    // Removing what is not there, or was never there, is fine.
    delete(&*store, rows, now().await).await;
    delete(
        &*store,
        delivered(position("nobody", "ever", DAY_START, 1.0, 1.0), delivery(9, 9)),
        now().await,
    )
    .await;
}

pub(super) async fn what_came_after_the_comparison_survives(store: Arc<dyn RawEvents>) {
    let first = delivered(events(Kind::Position, DAY_START, 20, 0), delivery(1, 1));
    write(&*store, &shop(), &first).await;
    let compared = scan(&*store, Kind::Position, SLOT).await;
    let written_before = now().await;
    // A redelivery of some of the rows, another payload of theirs, and an event nobody had seen.
    let again = delivered(events(Kind::Position, DAY_START, 5, 0), delivery(2, 2));
    let corrected = delivered(events(Kind::Position, DAY_START, 3, 1), delivery(3, 3));
    let late = delivered(position("cam", "late", DAY_START + 77, 1.0, 2.0), delivery(4, 4));
    for rows in [&again, &corrected, &late] {
        write(&*store, &shop(), rows).await;
    }
    delete(&*store, compared, written_before).await;
    let mut expected = Expected::new();
    [&again, &corrected, &late]
        .into_iter()
        .for_each(|rows| expect(&mut expected, rows));
    assert_eq!(held(&*store, &shop(), Kind::Position).await, expected);
    assert_eq!(
        store.count(&shop(), ALL_TIME).await.unwrap(),
        [(Kind::Position, 9)]
    );
}

pub(super) async fn rows_written_again_after_they_went_are_there(store: Arc<dyn RawEvents>) {
    let mut all = delivered(events(Kind::Reading, DAY_START, 30, 0), delivery(1, 1));
    all.append(&delivered(
        events(Kind::Reading, DAY_START, 10, 1),
        delivery(2, 2),
    ));
    let mut expected = Expected::new();
    expect(&mut expected, &all);
    for _ in 0..3 {
        write(&*store, &shop(), &all).await;
        assert_eq!(held(&*store, &shop(), Kind::Reading).await, expected);
        let compared = scan(&*store, Kind::Reading, SLOT).await;
        let written_before = now().await;
        delete(&*store, compared.clone(), written_before).await;
        assert!(held(&*store, &shop(), Kind::Reading).await.is_empty());
        // The same rows again right after it, and the same deletion once more, as a repetition would.
        write(&*store, &shop(), &all).await;
        if !store.tells_repeats() {
            delete(&*store, compared, written_before).await;
        }
        assert_eq!(held(&*store, &shop(), Kind::Reading).await, expected);
        let compared = scan(&*store, Kind::Reading, SLOT).await;
        delete(&*store, compared, now().await).await;
        assert!(held(&*store, &shop(), Kind::Reading).await.is_empty());
    }
}

pub(super) async fn a_large_slot_goes_as_a_whole(store: Arc<dyn RawEvents>) {
    let batch = |n: i64| {
        let names: Vec<String> = (0..1_000).map(|i| format!("t{n}-{i}")).collect();
        let rows: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(i, name)| ("cam", name.as_str(), DAY_START + n * 10 + i as i64, 0.5, i as f32))
            .collect();
        dwell_model::testing::position_batch(&rows)
    };
    for n in 0..42 {
        let by = delivery(n, n as u128);
        write(&*store, &shop(), &delivered(batch(n), by)).await;
    }
    let compared = scan(&*store, Kind::Position, SLOT).await;
    assert_eq!(compared.len(), 42_000);
    delete(&*store, compared, now().await).await;
    assert_eq!(store.count(&shop(), ALL_TIME).await.unwrap(), []);
}

pub(super) async fn rows_outside_the_slot_are_refused(store: Arc<dyn RawEvents>) {
    let rows = delivered(events(Kind::Count, DAY_START, 5, 0), delivery(1, 1));
    write(&*store, &shop(), &rows).await;
    for slot in [SLOT - 1, SLOT + 1, i64::MAX] {
        let wrong = ComparedSlot {
            venue: shop(),
            slot,
            rows: rows.clone(),
            written_before: now().await,
        };
        assert_kind(store.delete_compared(wrong).await, ErrorKind::Invalid);
    }
    assert_eq!(store.count(&shop(), ALL_TIME).await.unwrap(), [(Kind::Count, 5)]);
}

pub(super) async fn slots_remember_when_they_were_marked(store: Arc<dyn RawEvents>) {
    assert_eq!(store.marked_at(&shop(), ALL_TIME).await.unwrap(), []);
    let source = MarkSource::job("restore-1");
    let raise = async |slots: &[i64], position| {
        let marks = slots
            .iter()
            .map(|slot| mark(&shop(), SLOT + slot, &source, position))
            .collect();
        store
            .apply(RawWrite {
                marks,
                ..RawWrite::default()
            })
            .await
            .unwrap();
        SystemClock::new().sleep(A_MOMENT).await;
    };
    raise(&[0, 3, 200], 5).await;
    let first = store.marked_at(&shop(), ALL_TIME).await.unwrap();
    let slots: Vec<i64> = first.iter().map(|(slot, _)| slot - SLOT).collect();
    assert_eq!(slots, [0, 3, 200]);
    assert!(first.iter().all(|(_, at)| *at == first[0].1 && *at > 0));
    // A mark that does not rise counts, too.
    raise(&[3, 3], 1).await;
    raise(&[4], 6).await;
    let second = store.marked_at(&shop(), ALL_TIME).await.unwrap();
    let slots: Vec<i64> = second.iter().map(|(slot, _)| slot - SLOT).collect();
    assert_eq!(slots, [0, 3, 4, 200]);
    assert_eq!((second[0], second[3]), (first[0], first[2]));
    assert!(second[1].1 >= first[1].1 && second[2].1 >= second[1].1);
    if !store.tells_repeats() {
        assert!(second[1].1 > first[1].1, "such a store has a clock that goes");
    }
    let at = |slot: i64| DAY_START + slot * SLOT_MS;
    for (range, expected) in [
        (at(3)..at(4), &second[1..2]),
        (at(1)..at(3), &second[..0]),
        (at(3) + 1..at(4) + 1, &second[1..3]),
        (at(3)..at(3), &second[..0]),
    ] {
        let found = store.marked_at(&shop(), range.clone()).await.unwrap();
        assert_eq!(found, expected, "{range:?}");
    }
    for stranger in strangers() {
        assert_eq!(store.marked_at(&stranger, ALL_TIME).await.unwrap(), []);
    }
}

pub(super) async fn marks_are_dated_by_the_clock_that_is_asked(store: Arc<dyn RawEvents>) {
    let before = store.now_ms().await.unwrap();
    let write = RawWrite {
        marks: vec![mark(&shop(), SLOT, &MarkSource::job("restore-1"), 5)],
        ..RawWrite::default()
    };
    store.apply(write).await.unwrap();
    let after = store.now_ms().await.unwrap();
    let marked_at = store.marked_at(&shop(), ALL_TIME).await.unwrap();
    let [(SLOT, at)] = marked_at[..] else {
        panic!("{marked_at:?}");
    };
    assert!((before..=after).contains(&at), "{before} {at} {after}");
}
