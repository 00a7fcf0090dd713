//! Days computed on the embedded stores: what is published, and when it changes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::events::{Cell, busy_day, cumulative, push, visit};
use common::{Shop, assert_outcome, day, naive, one_zone, visits};
use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_batch_layer::{BatchLayer, Config, Error};
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::metrics::{AggregateRow, Carry, Family, Grain, Value};
use dwell_model::testing::position_batch;
use dwell_model::time::{HOUR_MS, VenueCalendar};
use dwell_runtime::limits::{ByteSize, HumanDuration};
use dwell_storage::api::{DeliveredRows, Drift, Flip, GenerationChange, LiveDay, LiveVenue, LiveView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The value of a counter in a day.
fn counted(rows: &[AggregateRow]) -> Option<i64> {
    let row = rows
        .iter()
        .find(|row| row.grain == Grain::Day && row.family == Family::Counter)?;
    match &row.value {
        Value::Counter(counter) => Some(counter.value),
        other => panic!("not a counter: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_is_counted_by_hand() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.post(visit("b", shop.local("2026-03-09", 10.0), 4), 2).await;
    let report = shop.recompute().await;
    assert_eq!((report.computed, report.events), (1, 61 + 5));
    let rows = shop.rows("2026-03-09").await;
    let zone = rows
        .iter()
        .find(|row| row.grain == Grain::Hour && row.subject == "square")
        .unwrap();
    assert_eq!(zone.start, shop.local("2026-03-09", 10.0));
    let Value::Zone(zone) = &zone.value else {
        panic!("not a zone")
    };
    assert_eq!(
        (zone.visits, zone.visitors, zone.dwell_ms, zone.engaged),
        (2, Some(2), 64_000, 1)
    );
    assert_eq!(
        (zone.occupancy_max, zone.dwells_ms.clone()),
        (2, vec![4_000, 60_000])
    );
    let info = shop.published("2026-03-09").await;
    assert_eq!(
        (info.sessions, info.conflicts, info.reason.as_str()),
        (2, 0, "first computation")
    );
    assert_eq!(info.rows, rows.len() as u64);
    let sessions = shop
        .stores
        .sessions
        .list(&shop.venue, day("2026-03-09"), info.generation, None, 10)
        .await
        .unwrap();
    let points: Vec<u64> = sessions.iter().map(|stored| stored.session.points).collect();
    assert_eq!(points.iter().sum::<u64>(), 66);
}

#[tokio::test(flavor = "multi_thread")]
async fn computing_twice_changes_nothing() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    assert_eq!(shop.recompute().await.computed, 1);
    let first = shop.published("2026-03-09").await;
    assert_eq!(shop.recompute().await.days.len(), 0, "nothing is dirty");
    let mut named = RunSpec::all_dirty(What::Recompute);
    named.from = Some(day("2026-03-01"));
    let report = shop.run(&named).await;
    assert_eq!((report.computed, report.unchanged), (0, 1));
    assert_eq!(shop.published("2026-03-09").await, first);
    assert_eq!(
        shop.stores
            .venue_days
            .history(&shop.venue, day("2026-03-09"))
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn force_publishes_a_new_generation_with_the_same_numbers() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.recompute().await;
    let (first, rows) = (shop.published("2026-03-09").await, shop.rows("2026-03-09").await);
    let spec = RunSpec {
        force: true,
        reason: Some("drill".into()),
        ..RunSpec::all_dirty(What::Recompute)
    };
    assert_eq!(shop.run(&spec).await.computed, 1);
    let second = shop.published("2026-03-09").await;
    assert!(second.generation > first.generation);
    assert_eq!(second.reason, "forced (asked for: drill)");
    assert_eq!(second.changed, Some(GenerationChange::default()));
    assert_eq!(second.files, first.files, "unchanged input makes no new file");
    assert_eq!(shop.rows("2026-03-09").await, rows);
    assert_eq!(
        shop.rows_of("2026-03-09", first.generation).await,
        rows,
        "old generations stay"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_makes_a_new_generation_with_reason_ledger_and_change() {
    let shop = Shop::open().await;
    let ten = shop.local("2026-03-09", 10.0);
    shop.post(visit("a", ten, 60), 1).await;
    shop.recompute().await;
    let first = shop.published("2026-03-09").await;
    shop.clock.set_ms(shop.now() + HOUR_MS);
    shop.post(visit("b", ten + 2 * HOUR_MS, 9), 2).await;
    assert!(shop.is_dirty("2026-03-09").await);
    let report = shop.recompute().await;
    assert_eq!((report.computed, report.days[0].late_events), (1, 10));
    let second = shop.published("2026-03-09").await;
    assert_eq!(second.reason, "late events");
    assert_eq!((second.late.events, second.late.receipts), (10, 1));
    assert_eq!(second.late.max_late_ms, first.published_at - (ten + 2 * HOUR_MS));
    let changed = second.changed.unwrap();
    assert!(
        changed.added > 0 && changed.changed > 0 && changed.removed == 0,
        "{changed:?}"
    );
    assert_eq!(visits(&shop.rows("2026-03-09").await), 2);
    assert_eq!(visits(&shop.rows_of("2026-03-09", first.generation).await), 1);
    assert!(!shop.is_dirty("2026-03-09").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_wins_and_is_counted_late_while_a_redelivery_changes_nothing() {
    let shop = Shop::open().await;
    let ten = shop.local("2026-03-09", 10.0);
    shop.post(visit("a", ten, 60), 1).await;
    shop.recompute().await;
    let first = shop.published("2026-03-09").await;
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(visit("a", ten, 60), 2).await;
    assert!(shop.is_dirty("2026-03-09").await);
    let report = shop.recompute().await;
    assert_eq!((report.unchanged, report.computed), (1, 0), "{report:?}");
    assert_eq!(shop.published("2026-03-09").await.generation, first.generation);
    assert!(!shop.is_dirty("2026-03-09").await);
    // One second of the stay was elsewhere, it turns out.
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(position_batch(&[("cam", "a", ten + 60_000, 50.0, 50.0)]), 3)
        .await;
    assert_eq!(shop.recompute().await.computed, 1);
    let second = shop.published("2026-03-09").await;
    assert_eq!(
        (second.reason.as_str(), second.late.events, second.conflicts),
        ("late events", 1, 1)
    );
    assert_eq!(second.events[&Kind::Position].rows, 61);
    let rows = shop.rows("2026-03-09").await;
    let zone = rows
        .iter()
        .find(|row| row.grain == Grain::Day && row.subject == "square")
        .unwrap();
    assert!(matches!(&zone.value, Value::Zone(zone) if zone.dwell_ms == 59_000));
}

/// Posts everything, a second apart, and tells what was delivered when.
async fn deliver(shop: &Shop, posts: Vec<EventBatch>) -> Vec<(EventBatch, Delivery)> {
    let mut delivered = Vec::new();
    for (receipt, events) in (1..).zip(posts) {
        shop.clock.set_ms(shop.now() + 1_000);
        let delivery = Delivery {
            received_at: shop.now(),
            receipt: Receipt::from_u128(receipt),
        };
        shop.append(events.clone(), receipt).await;
        delivered.push((events, delivery));
    }
    shop.write_raw().await;
    delivered
}

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
async fn counters_carry_over_days_and_a_changed_carry_recomputes_the_next_day() {
    let shop = Shop::open().await;
    // Nothing on the 8th: the carry reaches over it.
    shop.post(
        cumulative(&[
            (shop.local("2026-03-07", 10.0), 100),
            (shop.local("2026-03-07", 20.0), 150),
        ]),
        1,
    )
    .await;
    shop.post(cumulative(&[(shop.local("2026-03-09", 9.0), 170)]), 2)
        .await;
    assert_eq!(shop.recompute().await.computed, 2);
    assert_eq!(counted(&shop.rows("2026-03-07").await), Some(50));
    assert_eq!(counted(&shop.rows("2026-03-09").await), Some(20));
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(cumulative(&[(shop.local("2026-03-07", 21.0), 165)]), 3)
        .await;
    assert!(!shop.is_dirty("2026-03-09").await);
    let report = shop.recompute().await;
    assert_eq!(
        report.computed, 2,
        "the late sample moves five from the 9th to the 7th: {report:?}"
    );
    assert_eq!(counted(&shop.rows("2026-03-07").await), Some(65));
    assert_eq!(counted(&shop.rows("2026-03-09").await), Some(5));
    assert_eq!(
        shop.published("2026-03-09").await.reason,
        "counters carried in changed"
    );
    // Computed alone, the first day leaves the next one dirty.
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(cumulative(&[(shop.local("2026-03-07", 22.0), 166)]), 4)
        .await;
    assert_outcome(&shop.compute(&shop.layer, "2026-03-07").await, Outcome::Computed);
    assert!(shop.is_dirty("2026-03-09").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_layout_recomputes_the_days_it_is_in_force_on() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-08", 10.0), 60), 1).await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 2).await;
    shop.recompute().await;
    let before = shop.published("2026-03-08").await;
    let mut later = one_zone(120_000);
    later.valid_from = Some(day("2026-03-09"));
    shop.put_layouts(vec![one_zone(10_000), later]).await;
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(shop.published("2026-03-08").await, before);
    let info = shop.published("2026-03-09").await;
    assert_eq!(info.reason, "layout changed");
    let rows = shop.rows("2026-03-09").await;
    let engaged: Vec<u64> = rows
        .iter()
        .filter(|row| row.grain == Grain::Day && row.subject == "square")
        .filter_map(|row| {
            if let Value::Zone(zone) = &row.value {
                Some(zone.engaged)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(engaged, [0], "a minute is not engaged any more");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_does_not_fit_in_memory_is_computed_in_several_passes() {
    let config = Config {
        memory: ByteSize::mib(16),
        workers: 8,
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    let mut tracks = BTreeMap::new();
    for of in ["2026-03-09", "2026-03-10"] {
        // 16 MiB shared by 8 workers: eleven thousand rows at once.
        for track in 0..40 {
            let from = shop.local(of, 8.0 + f64::from(track) / 20.0);
            shop.append(
                visit(&format!("t{}", track * 37 % 40), from, 999),
                track as u128 + 1,
            )
            .await;
            *tracks.entry(of).or_insert(0) += 1_000;
        }
    }
    shop.write_raw().await;
    shop.recompute().await;
    let (closed, open) = (
        shop.published("2026-03-09").await,
        shop.published("2026-03-10").await,
    );
    assert!(open.provisional && !closed.provisional);
    for (of, info) in [("2026-03-09", &closed), ("2026-03-10", &open)] {
        assert_eq!(info.events[&Kind::Position].rows, tracks[of], "{of}");
        assert_eq!((info.sessions, info.conflicts), (40, 0), "{of}");
        assert_eq!(visits(&shop.rows(of).await), 40, "{of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_computed_in_groups_and_in_order() {
    let config = Config {
        group_days: 3,
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    let days: Vec<_> = day("2026-02-20").through(day("2026-03-09")).collect();
    for (i, of) in (1..).zip(&days) {
        let noon = shop.local(&of.to_string(), 12.0);
        shop.post(cumulative(&[(noon, 100 * i)]), i as u128).await;
    }
    let report = shop.recompute().await;
    assert_eq!(report.computed, days.len() as u64);
    for of in &days[1..] {
        let info = shop.published(&of.to_string()).await;
        assert_eq!(counted(&shop.rows(&of.to_string()).await), Some(100), "{of}");
        assert_eq!(
            info.reason, "first computation",
            "each day is computed once: its carry was there"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archiving_alone_publishes_nothing() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.post(visit("a", shop.local("2026-03-10", 10.0), 60), 2).await;
    let report = shop.run(&RunSpec::all_dirty(What::Archive)).await;
    assert_eq!(
        (report.archived, report.skipped, report.failed),
        (1, 1, 0),
        "{report:?}"
    );
    assert_eq!(shop.generation("2026-03-09").await, None);
    let held = shop
        .stores
        .archive
        .day(&shop.venue, Kind::Position, day("2026-03-09"))
        .await
        .unwrap();
    assert_eq!(held.events_checksum().rows, 61);
    assert!(shop.is_dirty("2026-03-09").await);
    // The archive has it all, so computing writes no new file.
    shop.recompute().await;
    assert_eq!(shop.published("2026-03-09").await.files, held.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_reads_the_files_back() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.recompute().await;
    let report = shop.run(&RunSpec::all_dirty(What::Verify)).await;
    assert_eq!(
        (report.verified, report.failed, report.events),
        (1, 0, 61),
        "{report:?}"
    );
    shop.stores
        .aggregates
        .delete(
            &shop.venue,
            day("2026-03-09"),
            shop.published("2026-03-09").await.generation,
        )
        .await
        .unwrap();
    let report = shop.run(&RunSpec::all_dirty(What::Verify)).await;
    assert_eq!(report.failed, 1);
    assert!(report.days[0].reason.contains("aggregate rows"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_demand_waits_for_the_raw_writer_and_gives_up_with_a_reason() {
    let config = Config {
        raw_writer_wait: HumanDuration::millis(0),
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    shop.append(visit("a", shop.local("2026-03-09", 10.0), 60), 1)
        .await;
    let spec = RunSpec::all_dirty(What::Recompute);
    let run = || async {
        let cancel = CancellationToken::new();
        shop.layer
            .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
            .await
    };
    let error = run().await.unwrap_err();
    assert!(matches!(error, Error::RawWriterBehind { behind: 1 }), "{error}");
    shop.write_raw().await;
    assert_eq!(run().await.unwrap().computed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_venues_and_turned_ranges_are_refused() {
    let shop = Shop::open().await;
    let cancel = CancellationToken::new();
    let mut spec = RunSpec::all_dirty(What::Recompute);
    spec.venues = Venues::These(vec![VenueId::new("nowhere").unwrap()]);
    let error = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnknownVenue(_)), "{error}");
    let mut spec = RunSpec::all_dirty(What::Recompute);
    (spec.from, spec.to) = (Some(day("2026-03-02")), Some(day("2026-03-01")));
    let error = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Spec(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_ends_with_everything_done_and_a_cancelled_run_says_so() {
    let shop = Shop::open().await;
    for (receipt, of) in (1..).zip(["2026-03-07", "2026-03-08", "2026-03-09"]) {
        shop.post(visit("a", shop.local(of, 10.0), 5), receipt).await;
    }
    let seen = std::sync::Mutex::new(Vec::new());
    let spec = RunSpec::all_dirty(What::Recompute);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap();
    assert!(report.cancelled && report.computed == 0, "{report:?}");
    let note = |progress: dwell_storage::api::JobProgress| seen.lock().unwrap().push(progress);
    let cancel = CancellationToken::new();
    shop.layer
        .run_spec(&shop.venue.tenant, &spec, &note, &cancel)
        .await
        .unwrap();
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.done, last.total), (3, 3));
}

/// A live view that shows what the test says.
struct FixedView(LiveVenue);

#[async_trait::async_trait]
impl LiveView for FixedView {
    async fn venue(
        &self,
        _: &dwell_model::ids::VenueKey,
    ) -> dwell_storage::error::Result<Option<Arc<LiveVenue>>> {
        Ok(Some(Arc::new(self.0.clone())))
    }

    async fn subscribe(
        &self,
        venue: &dwell_model::ids::VenueKey,
    ) -> dwell_storage::error::Result<watch::Receiver<Option<Arc<LiveVenue>>>> {
        Ok(watch::channel(self.venue(venue).await?).1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drift_from_the_live_view_is_recorded() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.recompute().await;
    let (first, mut rows) = (shop.published("2026-03-09").await, shop.rows("2026-03-09").await);
    assert_eq!(first.drift, None, "there was no live view");
    let buckets = rows.len() as u64;
    let forced = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    for differs in [false, true] {
        if differs {
            let row = rows.iter_mut().find(|row| row.subject == "square").unwrap();
            let Value::Zone(zone) = &mut row.value else {
                panic!("not a zone")
            };
            zone.visits = 5;
        }
        let live = LiveVenue {
            venue: shop.venue.clone(),
            fence: 1,
            as_of: shop.now(),
            watermark: shop.now(),
            occupancy: vec![],
            open_sessions: 0,
            late_events: 0,
            days: vec![LiveDay {
                day: day("2026-03-09"),
                layout: one_zone(10_000).fingerprint(),
                rows: Arc::new(rows.clone()),
            }],
        };
        let layer = BatchLayer::new(
            shop.stores.clone(),
            shop.clock.shared(),
            Config::default(),
            "live",
        )
        .unwrap()
        .with_live_view(Arc::new(FixedView(live)));
        let cancel = CancellationToken::new();
        layer
            .run_spec(&shop.venue.tenant, &forced, &|_| {}, &cancel)
            .await
            .unwrap();
        let drift = shop.published("2026-03-09").await.drift.unwrap();
        if differs {
            let hour = "zone/square@2026-03-09T09:00:00.000Z visits 5≠1".to_owned();
            assert_eq!(
                drift,
                Drift {
                    buckets,
                    differing: 1,
                    examples: vec![hour]
                }
            );
        } else {
            assert_eq!(
                drift,
                Drift {
                    buckets,
                    differing: 0,
                    examples: vec![]
                }
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_status_and_odd_kinds_survive_the_archive() {
    // Kinds with one key for everything: cut by time, never torn.
    let config = Config {
        memory: ByteSize::mib(16),
        workers: 16,
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    let start = shop.local("2026-03-09", 0.0);
    let mut statuses = EventBatch::new(Kind::Status);
    for i in 0..30_000_i64 {
        push(&mut statuses, "cam", "", start + i * 2_500, &[Cell::Text("ok")]);
    }
    shop.post(statuses, 1).await;
    shop.recompute().await;
    let info = shop.published("2026-03-09").await;
    assert_eq!(info.events[&Kind::Status].rows, 30_000);
    let rows = shop.rows("2026-03-09").await;
    let counted: u64 = rows
        .iter()
        .filter(|row| row.grain == Grain::Hour)
        .filter_map(|row| {
            if let Value::Source(source) = &row.value {
                Some(source.statuses)
            } else {
                None
            }
        })
        .sum();
    assert_eq!(counted, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_brought_straight_into_the_archive_count_like_those_of_the_log() {
    let by_log = Shop::open().await;
    let cut = by_log.calendar.cut(day("2026-03-09"));
    let posts = busy_day(cut.start + 6_000, cut.end - HOUR_MS, 5);
    deliver(&by_log, posts.clone()).await;
    by_log.recompute().await;
    // Half of the posts by the log, half by a job that writes into the archive and marks the day.
    let both = Shop::open().await;
    let mut by_job: BTreeMap<Kind, DeliveredRows> = BTreeMap::new();
    for (receipt, events) in (1..).zip(posts) {
        both.clock.set_ms(both.now() + 1_000);
        if receipt % 2 == 0 {
            both.append(events, receipt).await;
            continue;
        }
        let delivery = Delivery {
            received_at: both.now(),
            receipt: Receipt::from_u128(receipt),
        };
        let rows = by_job
            .entry(events.kind)
            .or_insert_with(|| DeliveredRows::new(events.kind));
        rows.append(&DeliveredRows::delivered_once(events, delivery));
    }
    both.import(day("2026-03-09"), by_job.into_values().collect(), 1)
        .await;
    both.write_raw().await;
    assert_eq!(
        both.recompute().await.computed,
        by_log.recompute().await.computed + 1
    );
    let (expected, info) = (
        by_log.published("2026-03-09").await,
        both.published("2026-03-09").await,
    );
    assert_eq!(
        (&info.events, info.conflicts),
        (&expected.events, expected.conflicts)
    );
    assert_eq!(both.rows("2026-03-09").await, by_log.rows("2026-03-09").await);
    // A second import of some more makes the day dirty by the job's mark alone.
    let late = visit("late", cut.start + HOUR_MS, 30);
    let delivery = Delivery {
        received_at: both.now(),
        receipt: Receipt::from_u128(999),
    };
    both.import(cut.day, vec![DeliveredRows::delivered_once(late, delivery)], 2)
        .await;
    assert!(both.is_dirty("2026-03-09").await);
    assert_eq!(both.recompute().await.computed, 1);
    let again = both.published("2026-03-09").await;
    assert_eq!(
        again.events[&Kind::Position].rows,
        info.events[&Kind::Position].rows + 31
    );
    assert_eq!(
        again.late.events, 31,
        "an import dated before the publishing is late too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn venues_are_worked_on_side_by_side_and_other_tenants_are_left_alone() {
    let shop = Shop::open_with(
        "Europe/Madrid",
        Config {
            workers: 2,
            ..Config::default()
        },
    )
    .await;
    let other = TenantId::new("other").unwrap();
    shop.stores.registry.create_tenant(&other).await.unwrap();
    let venue = shop
        .stores
        .registry
        .venue(&shop.venue)
        .await
        .unwrap()
        .unwrap()
        .venue;
    let mut keys = Vec::new();
    for (tenant, id) in [
        (&shop.venue.tenant, "b"),
        (&shop.venue.tenant, "c"),
        (&other, "shop"),
    ] {
        let venue = Venue {
            id: VenueId::new(id).unwrap(),
            ..venue.clone()
        };
        assert_eq!(
            shop.stores
                .registry
                .put_venue(tenant, &venue, None)
                .await
                .unwrap(),
            Flip::Done
        );
        keys.push(VenueKey::new(tenant.clone(), venue.id));
    }
    shop.append(visit("a", shop.local("2026-03-09", 10.0), 60), 1)
        .await;
    for (receipt, key) in (2..).zip(&keys) {
        shop.append_to(key, visit("a", shop.local("2026-03-08", 10.0), 60), receipt)
            .await;
    }
    shop.write_raw().await;
    let report = shop.recompute().await;
    let done: Vec<String> = report
        .days
        .iter()
        .map(|of| format!("{} {}", of.venue, of.day))
        .collect();
    assert_eq!(
        done,
        ["acme/b 2026-03-08", "acme/c 2026-03-08", "acme/shop 2026-03-09"]
    );
    assert_eq!(
        shop.stores
            .venue_days
            .get(&keys[2], day("2026-03-08"))
            .await
            .unwrap(),
        None
    );
}
