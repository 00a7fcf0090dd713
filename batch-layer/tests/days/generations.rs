//! What is published of a day, and when it changes.

use std::sync::Arc;

use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, Config};
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{Grain, Value};
use dwell_model::testing::position_batch;
use dwell_model::time::HOUR_MS;
use dwell_storage::api::{Drift, GenerationChange, LiveDay, LiveVenue, LiveView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::common::events::{cumulative, visit};
use crate::common::{Shop, assert_outcome, counted, day, one_zone, visits};

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
    let added = second.late.added.as_ref().unwrap();
    assert_eq!((added.events, added.sensors_all, added.receipts_all), (10, 1, 1));
    assert_eq!(
        added.event_times,
        Some((ten + 2 * HOUR_MS, ten + 2 * HOUR_MS + 9_000))
    );
    assert_eq!(added.delay_max_ms, Some(shop.now() - (ten + 2 * HOUR_MS)));
    assert_eq!(added.receipts[0].events, 10);
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

/// A live view that shows what the test says.
struct FixedView(LiveVenue);

#[async_trait::async_trait]
impl LiveView for FixedView {
    async fn venue(&self, _: &VenueKey) -> dwell_storage::error::Result<Option<Arc<LiveVenue>>> {
        Ok(Some(Arc::new(self.0.clone())))
    }

    async fn subscribe(
        &self,
        venue: &VenueKey,
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
