//! The nights: when a venue's days are computed by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::time::Duration;

use common::events::visit;
use common::{Shop, day, visits};
use dwell_batch_layer::ready::{NightTimes, NightWatch, Readiness};
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::{Nightly, Service};
use dwell_model::time::{HOUR_MS, MINUTE_MS};
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use tokio_util::sync::CancellationToken;

async fn look(nightly: &Nightly, shop: &Shop) -> RunReport {
    nightly
        .run_once(shop.now(), &CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_ready_when_the_raw_writer_has_passed_the_end_of_its_grace() {
    let shop = Shop::open().await;
    let (watch, layer) = (NightWatch::default(), &shop.layer);
    let end = shop.local("2026-03-11", 0.0);
    let readiness = async |now| {
        shop.clock.set_ms(now);
        let night = NightTimes {
            day_end: end,
            ready_by: end + 4 * HOUR_MS,
        };
        watch.readiness(layer, &shop.venue, night, now).await.unwrap()
    };
    assert_eq!(
        readiness(end + 15 * MINUTE_MS - 1).await,
        Readiness::NotYet,
        "grace"
    );
    shop.append(visit("a", end - 1_000, 0), 1).await;
    assert_eq!(
        readiness(end + 15 * MINUTE_MS).await,
        Readiness::NotYet,
        "the raw writer is behind"
    );
    shop.write_raw().await;
    // What comes after the grace does not matter any more.
    shop.append(visit("b", end + 15 * MINUTE_MS, 0), 2).await;
    assert_eq!(readiness(end + 16 * MINUTE_MS).await, Readiness::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_must_not_wait_any_longer_is_computed_as_lagging() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-10", 10.0), 60), 1).await;
    let nightly = Nightly::new(shop.layer.clone());
    shop.clock.set_ms(shop.local("2026-03-11", 0.5));
    shop.append(visit("b", shop.local("2026-03-10", 11.0), 60), 2)
        .await;
    assert_eq!(look(&nightly, &shop).await.days, []);
    assert_eq!((nightly.status().waiting, nightly.status().late), (1, 0));
    shop.clock.set_ms(shop.local("2026-03-11", 4.0));
    assert_eq!(look(&nightly, &shop).await.computed, 1);
    let info = shop.published("2026-03-10").await;
    assert!(info.lagging);
    assert_eq!(visits(&shop.rows("2026-03-10").await), 1);
    shop.write_raw().await;
    assert!(
        shop.is_dirty("2026-03-10").await,
        "what came after is late, not lost"
    );
    shop.advance(Duration::from_secs(600));
    assert_eq!(
        look(&nightly, &shop).await.computed,
        1,
        "and need not wait for the next night"
    );
    assert_eq!(nightly.status().late, 0, "the breach is over");
    let info = shop.published("2026-03-10").await;
    assert_eq!((info.lagging, info.late.events), (false, 61));
    assert_eq!(nightly.status().waiting, 0);
}

#[test]
fn a_night_must_be_done_before_the_venue_opens() {
    use dwell_model::layout::VenueSpec;
    let venue = |hours: &str| {
        let spec = format!(r#"{{"id": "v", "tz": "Europe/Madrid"{hours}}}"#);
        let spec: VenueSpec = serde_json::from_str(&spec).unwrap();
        spec.to_venue(None).unwrap()
    };
    // 2026-03-10 in Madrid ends at 23:00 UTC.
    let end = dwell_model::time::parse_ts("2026-03-10T23:00:00Z").unwrap();
    for (hours, ready_by_h) in [
        ("", 4),
        (r#", "open": 9, "close": 21"#, 4),
        (r#", "open": 3, "close": 21"#, 3),
        // Open around the clock: there is no time before it opens.
        (r#", "open": 0, "close": 24"#, 4),
    ] {
        let night = NightTimes::of(&venue(hours), day("2026-03-10"), 4 * HOUR_MS);
        let expected = NightTimes {
            day_end: end,
            ready_by: end + ready_by_h * HOUR_MS,
        };
        assert_eq!(night, expected, "{hours}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_are_local_and_catch_up_after_downtime() {
    let shop = Shop::open().await;
    for (receipt, of) in (1..).zip(["2026-03-05", "2026-03-07", "2026-03-09", "2026-03-10"]) {
        shop.post(visit("a", shop.local(of, 10.0), 60), receipt).await;
    }
    let nightly = Nightly::new(shop.layer.clone());
    // Noon of the 10th: three days were missed, the open one is left alone.
    let report = look(&nightly, &shop).await;
    assert_eq!((report.computed, report.failed), (3, 0), "{report:?}");
    assert_eq!(shop.generation("2026-03-10").await, None);
    assert_eq!(look(&nightly, &shop).await.days, []);
    // A late event of a day that is done waits for the next night.
    shop.post(visit("b", shop.local("2026-03-07", 11.0), 60), 9).await;
    assert_eq!(look(&nightly, &shop).await.days, []);
    // Half an hour into the venue's 11th, which is still the 10th in UTC.
    shop.clock.set_ms(shop.local("2026-03-11", 0.5));
    let report = look(&nightly, &shop).await;
    let done: Vec<_> = report.days.iter().map(|of| of.day).collect();
    assert_eq!(done, [day("2026-03-07"), day("2026-03-10")]);
    let status = nightly.status();
    assert_eq!(
        (status.venues, status.waiting, status.computed, status.failed),
        (1, 0, 5, 0)
    );
    assert!(!shop.published("2026-03-10").await.lagging);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_process_has_nothing_to_do_again() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    look(&Nightly::new(shop.layer.clone()), &shop).await;
    let before = shop.published("2026-03-09").await;
    assert_eq!(look(&Nightly::new(shop.second_worker()), &shop).await.days, []);
    assert_eq!(shop.published("2026-03-09").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_appears_later_is_found() {
    let shop = Shop::open().await;
    let nightly = Nightly::new(shop.layer.clone());
    look(&nightly, &shop).await;
    assert_eq!(nightly.status().venues, 1);
    let mut venue = shop
        .stores
        .registry
        .venue(&shop.venue)
        .await
        .unwrap()
        .unwrap()
        .venue;
    venue.id = dwell_model::ids::VenueId::new("second").unwrap();
    let flip = shop
        .stores
        .registry
        .put_venue(&shop.venue.tenant, &venue, None)
        .await
        .unwrap();
    assert_eq!(flip, dwell_storage::api::Flip::Done);
    look(&nightly, &shop).await;
    assert_eq!(nightly.status().venues, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_computes_a_night_when_it_comes_and_stops_when_told() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-10", 10.0), 60), 1).await;
    let controller = ShutdownController::default();
    let tasks = Tasks::new(controller.clone());
    let (service, mut handle) = Service::new(shop.layer.clone());
    let token = controller.register(Phase::StopJobs, "batch");
    let running = tasks.spawn("batch", TaskPolicy::Log, service.run(token));
    let first = handle.next_look().await.unwrap();
    assert_eq!((first.computed, first.venues), (0, 1));
    shop.clock.sleepers_reach(1).await;
    shop.clock.set_ms(shop.local("2026-03-11", 0.0) + HOUR_MS);
    assert_eq!(handle.next_look().await.unwrap().computed, 1);
    assert_eq!(visits(&shop.rows("2026-03-10").await), 1);
    handle.look_now();
    assert_eq!(handle.next_look().await.unwrap().computed, 1);
    let report = controller
        .run_to_completion(Duration::from_secs(10), &*shop.clock.shared())
        .await;
    assert!(report.is_clean(), "{report}");
    running.join().await.unwrap();
}
