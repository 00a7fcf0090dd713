//! Days of every length, open and closed, cut and cut again.

use std::collections::BTreeMap;

use dwell_batch_layer::Config;
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::metrics::{Carry, Family, Grain, Value};
use dwell_model::time::{HOUR_MS, VenueCalendar};
use dwell_storage::api::GenerationChange;

use crate::common::events::{busy_day, visit};
use crate::common::{Shop, day, deliver, naive, one_zone, visits};

#[tokio::test(flavor = "multi_thread")]
async fn archived_and_computed_days_equal_the_model_folded_over_the_events() {
    // Both changes of the clocks, and a zone off the full hour with a change of half an hour.
    for (zone, changes) in [
        ("Europe/Madrid", "2026-10-25"),
        ("Europe/Madrid", "2026-03-29"),
        ("Australia/Lord_Howe", "2026-04-05"),
    ] {
        let shop = Shop::open_with(zone, Config::default()).await;
        let cut = shop.calendar.cut(day(changes));
        shop.clock.set_ms(cut.end + 12 * HOUR_MS);
        let delivered = deliver(&shop, busy_day(cut.start, cut.end, 7)).await;
        let report = shop.recompute().await;
        assert!(report.computed >= 1, "{report:?}");
        let winners = naive::winners(&delivered);
        let layout = one_zone(10_000);
        let mut carry = Carry::default();
        // Events before the day's start and after its end belong to its neighbours.
        for of in [cut.day.prev(), cut.day, cut.day.next()] {
            let name = of.to_string();
            let of_day = shop.calendar.cut(of);
            let expected = naive::fold(&of_day, &layout, &winners, carry.clone());
            let Some(info) = shop.generation(&name).await else {
                assert_eq!(expected, [], "{zone} {name} was not computed");
                continue;
            };
            assert_eq!(shop.rows(&name).await, expected, "{zone} {name}");
            assert!(!info.provisional && !expected.is_empty());
            carry = info.carry;
        }
        let info = shop.published(changes).await;
        let hours = shop
            .rows(changes)
            .await
            .iter()
            .filter(|row| row.family == Family::Traffic)
            .count()
            - 1;
        assert_eq!(hours, cut.hours.len(), "{zone}: people all day long");
        assert!(info.conflicts > 0, "the day has corrections");
        let corrected = delivered_twice(&delivered, cut.start, cut.end);
        assert_eq!(info.conflicts, corrected, "{zone}");
    }
}

/// Identities of a day's positions with more than one payload, counted pair by pair.
fn delivered_twice(delivered: &[(EventBatch, Delivery)], start: i64, end: i64) -> u64 {
    let mut payloads: BTreeMap<(String, i64, String), Vec<(u32, u32)>> = BTreeMap::new();
    for (events, _) in delivered
        .iter()
        .filter(|(events, _)| events.kind == Kind::Position)
    {
        for row in (0..events.len()).filter(|&row| (start..end).contains(&events.ts[row])) {
            let identity = (
                events.key(row).to_owned(),
                events.ts[row],
                events.sensor(row).to_owned(),
            );
            let payload = (events.f32s(0)[row].to_bits(), events.f32s(1)[row].to_bits());
            let known = payloads.entry(identity).or_default();
            if !known.contains(&payload) {
                known.push(payload);
            }
        }
    }
    payloads.values().filter(|known| known.len() > 1).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repeated_hour_of_autumn_is_two_buckets() {
    let shop = Shop::open().await;
    let cut = shop.calendar.cut(day("2026-10-25"));
    assert_eq!(cut.hours.len(), 25);
    shop.clock.set_ms(cut.end + HOUR_MS);
    // 02:30 summer time and 02:30 winter time.
    let (summer, winter) = (
        cut.start + 2 * HOUR_MS + HOUR_MS / 2,
        cut.start + 3 * HOUR_MS + HOUR_MS / 2,
    );
    shop.post(visit("a", summer, 20), 1).await;
    shop.post(visit("b", winter, 40), 2).await;
    shop.recompute().await;
    let rows = shop.rows("2026-10-25").await;
    let dwells: Vec<(i64, u64)> = rows
        .iter()
        .filter(|row| row.grain == Grain::Hour && row.subject == "square")
        .map(|row| match &row.value {
            Value::Zone(zone) => (row.start, zone.dwell_ms),
            other => panic!("not a zone: {other:?}"),
        })
        .collect();
    assert_eq!(
        dwells,
        [
            (cut.start + 2 * HOUR_MS, 20_000),
            (cut.start + 3 * HOUR_MS, 40_000)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_day_is_provisional_stays_in_raw_and_is_computed_again_when_it_has_closed() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-10", 10.0), 60), 1).await;
    assert_eq!(shop.recompute().await.computed, 1);
    let provisional = shop.published("2026-03-10").await;
    assert!(provisional.provisional && provisional.files.is_empty());
    assert_eq!(visits(&shop.rows("2026-03-10").await), 1);
    assert_eq!(
        shop.stores.archive.days(&shop.venue).await.unwrap(),
        [],
        "rows of an open day stay in raw"
    );
    assert!(!shop.is_dirty("2026-03-10").await);
    shop.post(visit("b", shop.local("2026-03-10", 11.0), 60), 2).await;
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(shop.published("2026-03-10").await.reason, "new events");
    shop.clock.set_ms(shop.local("2026-03-11", 1.0));
    assert!(shop.is_dirty("2026-03-10").await);
    assert_eq!(shop.recompute().await.computed, 1);
    let closed = shop.published("2026-03-10").await;
    assert!(!closed.provisional && !closed.files.is_empty());
    assert_eq!((closed.reason.as_str(), closed.late.events), ("day closed", 0));
    assert_eq!(visits(&shop.rows("2026-03-10").await), 2);
    assert_eq!(
        closed.changed,
        Some(GenerationChange::default()),
        "raw and archive give the same numbers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_and_its_provisional_twin_agree_on_everything() {
    let posts = |from, to| busy_day(from, to, 11);
    let shop = Shop::open().await;
    let cut = shop.calendar.cut(day("2026-03-10"));
    shop.clock.set_ms(cut.end - 10 * 60_000);
    let delivered = deliver(&shop, posts(cut.start, cut.end - 30 * 60_000)).await;
    assert!(shop.now() < cut.end, "the day is still open");
    shop.recompute().await;
    let open = shop.published("2026-03-10").await;
    assert!(open.provisional);
    let expected = naive::fold(
        &cut,
        &one_zone(10_000),
        &naive::winners(&delivered),
        Carry::default(),
    );
    assert_eq!(shop.rows("2026-03-10").await, expected);
    shop.clock.set_ms(cut.end + HOUR_MS);
    shop.recompute().await;
    let closed = shop.published("2026-03-10").await;
    assert_eq!(
        (&open.events, open.conflicts, &open.carry),
        (&closed.events, closed.conflicts, &closed.carry)
    );
    assert_eq!(shop.rows("2026-03-10").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_time_zone_recuts_what_is_archived() {
    let shop = Shop::open().await;
    // 23:30 in Madrid is 22:30 in Lisbon, and 00:30 in Madrid is 23:30 of the day before.
    shop.post(visit("a", shop.local("2026-03-08", 23.5), 60), 1).await;
    shop.post(visit("b", shop.local("2026-03-09", 0.5), 60), 2).await;
    shop.post(visit("c", shop.local("2026-03-09", 12.0), 60), 3).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows("2026-03-08").await), 1);
    assert_eq!(visits(&shop.rows("2026-03-09").await), 2);
    let lisbon = VenueCalendar::from_names("Europe/Lisbon", 0).unwrap();
    shop.put_venue(lisbon, vec![one_zone(10_000)]).await;
    assert_eq!(shop.recompute().await.computed, 2);
    assert_eq!(visits(&shop.rows("2026-03-08").await), 2);
    assert_eq!(visits(&shop.rows("2026-03-09").await), 1);
    assert_eq!(
        shop.published("2026-03-08").await.events[&Kind::Position].rows,
        122
    );
    assert_eq!(
        shop.published("2026-03-09").await.events[&Kind::Position].rows,
        61
    );
    assert_eq!(
        shop.published("2026-03-09").await.reason,
        "time zone or day start changed, events changed"
    );
    assert_eq!(shop.recompute().await.days.len(), 0);
}
