//! What people decide and what touches a day after its mark was made, or while it is swept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell_model::time::DAY_MS;
use dwell_retention::holds::{self, Hold};
use dwell_retention::{NoGuard, Policy, Settings, policy};
use dwell_runtime::failpoints;
use dwell_storage::api::MarkSource;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day};
use crate::doubts::sessions;
use crate::harness::{HUNDRED_DAYS, contents, mark, raw_rows, retention, retention_with, run, sweep};
use crate::sweeps::{FAILPOINTS, old_shop};

const OLD: &str = "2026-03-09";
const FIRST: &str = "2026-03-08";

/// A hold, or a longer policy, that somebody makes while the day is swept window by window.
#[tokio::test(flavor = "multi_thread")]
async fn what_people_forbid_while_a_day_is_swept_keeps_the_rest_of_it() {
    let _alone = FAILPOINTS.write().await;
    for is_hold in [true, false] {
        let shop = old_shop().await;
        let settings = Settings {
            window_rows: 40,
            ..Settings::default()
        };
        let retention = retention_with(&shop, settings, Arc::new(NoGuard));
        let (made, _) = mark(&retention, &shop, "job").await;
        let of_old = made.days.iter().find(|marked| marked.day == day(OLD)).unwrap();
        let before = raw_rows(&shop, day(OLD)).await;
        let documents = Arc::clone(&shop.stores.documents);
        let (venue, now) = (shop.venue.clone(), shop.now());
        let slots = AtomicU64::new(0);
        let guard = failpoints::set_fn("retention.sweep.after_slot", move || {
            if slots.fetch_add(1, Ordering::Relaxed) != 2 {
                return Ok(());
            }
            let hold = Hold {
                venue: None,
                from: None,
                to: None,
                reason: "case 13".into(),
                until: None,
                added_at: now,
                added_by: "k".into(),
                lifted: None,
            };
            block_in_place(|| {
                Handle::current().block_on(async {
                    if is_hold {
                        holds::add(&*documents, &venue.tenant, &hold).await.unwrap();
                    } else {
                        let longer = |policy: &mut Policy| policy.raw_ms = 365 * DAY_MS;
                        policy::change(&*documents, &venue.tenant, &Policy::default(), longer)
                            .await
                            .unwrap();
                    }
                });
            });
            Ok(())
        });
        let cancel = CancellationToken::new();
        let default = Policy::default();
        let swept = retention
            .sweep(&shop.venue, &shop.calendar, of_old, &made, &default, &cancel)
            .await
            .unwrap()
            .unwrap();
        drop(guard);
        let why = if is_hold { "case 13" } else { "policy was changed" };
        assert!(
            swept.stayed.len() == 1 && swept.stayed[0].contains(why),
            "{swept:?}"
        );
        let left = raw_rows(&shop, day(OLD)).await;
        assert!(left > before / 2 && left < before, "{left} of {before}");
        assert_eq!((swept.raw_rows, swept.rows_left), (before - left, left));
        assert!(swept.sessions == 0 && sessions(&shop, OLD).await > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_was_made_longer_after_the_mark_is_the_one_that_counts() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job-1").await;
    let before = contents(&shop).await;
    let set = async |raw_ms, sessions_ms| {
        let change = |policy: &mut Policy| {
            policy.raw_ms = raw_ms;
            policy.sessions_ms = sessions_ms;
        };
        policy::change(
            &*shop.stores.documents,
            &shop.venue.tenant,
            &Policy::default(),
            change,
        )
        .await
        .unwrap();
    };
    set(365 * DAY_MS, 365 * DAY_MS).await;
    let swept = sweep(&retention, &shop, &made).await;
    assert!(
        swept
            .iter()
            .all(|swept| swept.stayed.len() == 1 && swept.stayed[0].contains("until 2027-03-")),
        "{swept:?}"
    );
    assert_eq!(contents(&shop).await, before);
    assert!(sessions(&shop, OLD).await > 0);
    // Sessions for longer only: the rows go.
    set(90 * DAY_MS, 365 * DAY_MS).await;
    sweep(&retention, &shop, &made).await;
    assert!(contents(&shop).await.is_empty());
    assert!(sessions(&shop, OLD).await > 0);
    // A shorter one is for the next mark to follow.
    set(DAY_MS, DAY_MS).await;
    sweep(&retention, &shop, &made).await;
    assert_eq!(sessions(&shop, OLD).await, 0);
}

/// A job that is resumed with an old mark: meanwhile a day was restored, marked by that, and computed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_restored_after_its_mark_is_kept_for_its_90_days_again() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job-1").await;
    run(&retention, &shop, "job-2").await;
    assert!(contents(&shop).await.is_empty());
    shop.advance(Duration::from_secs(3_600));
    let cancel = CancellationToken::new();
    retention
        .restore_day(
            &shop.venue,
            &shop.calendar,
            day(OLD),
            &MarkSource::job("r"),
            2,
            &cancel,
        )
        .await
        .unwrap()
        .unwrap();
    shop.recompute().await;
    assert!(!shop.is_dirty(OLD).await);
    let restored = contents(&shop).await;
    assert!(restored.len() > 1_000);
    let swept = sweep(&retention, &shop, &made).await;
    assert!(
        swept
            .iter()
            .any(|swept| swept.stayed.iter().any(|why| why.contains("after it was marked"))),
        "{swept:?}"
    );
    assert_eq!(contents(&shop).await, restored);
}

/// The same while the job compares other days, before the mark is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_restored_while_its_mark_was_being_made_is_kept() {
    let _alone = FAILPOINTS.write().await;
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(FIRST, 10.0), 600), 1).await;
    shop.post(visit("b", shop.local(OLD, 10.0), 600), 2).await;
    shop.recompute().await;
    shop.advance(HUNDRED_DAYS);
    let sweeping = retention(&shop);
    let (restoring, venue, calendar, clock) = (
        retention(&shop),
        shop.venue.clone(),
        shop.calendar,
        shop.clock.clone(),
    );
    let proofs = AtomicU64::new(0);
    let guard = failpoints::set_fn("retention.before_proof", move || {
        if proofs.fetch_add(1, Ordering::Relaxed) == 0 {
            let (source, cancel) = (MarkSource::job("r"), CancellationToken::new());
            let restored = block_in_place(|| {
                Handle::current().block_on(restoring.restore_day(
                    &venue,
                    &calendar,
                    day(OLD),
                    &source,
                    2,
                    &cancel,
                ))
            });
            restored.unwrap().expect("nobody holds the day");
            clock.advance(Duration::from_secs(60));
        }
        Ok(())
    });
    let (made, _) = mark(&sweeping, &shop, "job").await;
    drop(guard);
    assert_eq!(made.days.len(), 2, "it was looked at before");
    shop.recompute().await;
    let swept = sweep(&sweeping, &shop, &made).await;
    assert!(swept[1].stayed[0].contains("not old enough"), "{swept:?}");
    assert_eq!(
        (raw_rows(&shop, day(FIRST)).await, raw_rows(&shop, day(OLD)).await),
        (0, 601)
    );
    assert_eq!(sessions(&shop, OLD).await, 1);
}
