//! Large days, long histories, and events that came by another road.

use std::collections::BTreeMap;

use dwell_batch_layer::Config;
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::ids::Receipt;
use dwell_model::metrics::{Grain, Value};
use dwell_model::time::HOUR_MS;
use dwell_runtime::limits::ByteSize;
use dwell_storage::api::DeliveredRows;

use crate::common::events::{Cell, busy_day, cumulative, push, visit};
use crate::common::{Shop, counted, day, deliver, visits};

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
