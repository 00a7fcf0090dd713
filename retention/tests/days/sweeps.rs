//! What goes when all is well, and what survives whatever happens in between.

use std::sync::Arc;

use dwell_batch_layer::spec::{RunSpec, What};
use dwell_model::event::{Delivery, Kind, RawRows};
use dwell_model::ids::Receipt;
use dwell_model::time::{DAY_MS, HOUR_MS, MAX_TS, MIN_TS};
use dwell_retention::{Comparing, NoGuard, Policy, Settings, Verdict, marks, records};
use dwell_runtime::failpoints;
use dwell_storage::api::{RawWrite, RowFilter};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use crate::common::events::{busy_day, visit};
use crate::common::{Shop, day, deliver};
use crate::harness::{
    HUNDRED_DAYS, contents, mark, mark_as_of, raw_rows, retention, retention_with, run, sweep,
};

/// Failpoints are the process's: tests that set one run alone.
pub(crate) static FAILPOINTS: RwLock<()> = RwLock::const_new(());

const OLD: &str = "2026-03-09";

/// A busy day of all kinds, with redeliveries and corrections, computed and a hundred days old; its generation.
pub(crate) async fn old_shop() -> Shop {
    let shop = Shop::open().await;
    let (start, end) = shop.calendar.bounds(day(OLD));
    // A little beyond the day, so that its neighbours have something too.
    deliver(&shop, busy_day(start, end, 7)).await;
    shop.recompute().await;
    shop.advance(HUNDRED_DAYS);
    shop.recompute().await;
    shop
}

async fn all_rows(shop: &Shop) -> usize {
    let published = shop.published(OLD).await.generation;
    let filter = RowFilter::default();
    let rows = shop
        .stores
        .aggregates
        .read(&shop.venue, day(OLD), published, &filter)
        .await;
    rows.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_go_and_their_numbers_stay() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let (numbers, published) = (shop.rows(OLD).await, shop.published(OLD).await);
    let marked = shop
        .stores
        .raw
        .marked_slots(&shop.venue, MIN_TS..MAX_TS)
        .await
        .unwrap();
    let rows = raw_rows(&shop, day(OLD)).await;
    assert!(rows > 1_000 && published.sessions > 0, "{rows}");

    let (made, swept) = run(&retention(&shop), &shop, "job-1").await;
    let gone: u64 = swept.iter().map(|swept| swept.raw_rows).sum();
    assert_eq!(gone, made.totals.raw_rows);
    assert!(
        swept
            .iter()
            .all(|swept| swept.rows_left == 0 && swept.stayed.is_empty()),
        "{swept:?}"
    );
    assert!(contents(&shop).await.is_empty());
    let of_old = made
        .days
        .iter()
        .position(|marked| marked.day == day(OLD))
        .unwrap();
    assert_eq!(swept[of_old].raw_rows, rows);
    assert_eq!(swept[of_old].sessions, published.sessions);
    let sessions = &shop.stores.sessions;
    let left = sessions
        .list(&shop.venue, day(OLD), published.generation, None, 10)
        .await;
    assert_eq!(left.unwrap(), []);

    assert_eq!(shop.rows(OLD).await, numbers);
    assert_eq!(shop.published(OLD).await, published);
    let still = shop
        .stores
        .raw
        .marked_slots(&shop.venue, MIN_TS..MAX_TS)
        .await
        .unwrap();
    assert_eq!(still, marked, "marks are never touched");
    assert!(!shop.is_dirty(OLD).await);

    // Once more: there is nothing to do.
    let (again, _) = mark(&retention(&shop), &shop, "job-2").await;
    assert_eq!((again.days.len(), again.kept.len()), (0, 0));
    assert_eq!(
        marks::load(&*shop.stores.documents, &shop.venue.tenant, &shop.venue.venue)
            .await
            .unwrap(),
        Some(again)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_stays_until_it_and_its_last_mark_are_90_days_old() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(OLD, 10.0), 60), 1).await;
    shop.recompute().await;
    let end = shop.calendar.bounds(day(OLD)).1;
    // Another delivery of the same, ten days later: it changes no number, and it marks.
    shop.clock.set_ms(end + 10 * DAY_MS);
    shop.post(visit("a", shop.local(OLD, 10.0), 60), 2).await;
    shop.recompute().await;
    for (now, goes) in [
        (end + 90 * DAY_MS - 1, false),
        (end + 90 * DAY_MS, false),
        (end + 100 * DAY_MS - 1, false),
        (end + 100 * DAY_MS, true),
    ] {
        shop.clock.set_ms(now);
        let (made, _) = mark(&retention(&shop), &shop, "job").await;
        assert_eq!(!made.days.is_empty(), goes, "{now}: {made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_if_it_were_later_goes_by_that_time() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(OLD, 10.0), 60), 1).await;
    shop.recompute().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    assert_eq!(made.days.len(), 0);
    let (made, _) = mark_as_of(&retention, &shop, "job", shop.now() + 100 * DAY_MS).await;
    assert_eq!(made.days.len(), 1);
    sweep(&retention, &shop, &made).await;
    assert_eq!(raw_rows(&shop, day(OLD)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_and_a_dry_run_compares() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let before = contents(&shop).await;
    let retention = retention(&shop);
    let decide = async |comparing| {
        retention
            .decide(
                &shop.venue,
                &shop.calendar,
                &Policy::default(),
                shop.now(),
                None,
                comparing,
                &|_, _, _| {},
                &CancellationToken::new(),
            )
            .await
            .unwrap()
    };
    let planned = decide(Comparing::No).await;
    assert!(
        planned
            .plan
            .days
            .iter()
            .all(|day| day.compares() && !day.deletes())
    );
    let dry = decide(Comparing::Look).await;
    assert!(dry.plan.days.iter().all(|day| day.deletes()));
    assert_eq!(contents(&shop).await, before);
    let fence = shop
        .stores
        .venue_days
        .get(&shop.venue, day(OLD))
        .await
        .unwrap()
        .unwrap()
        .fence;
    assert_eq!(fence, shop.published(OLD).await.generation, "no lease was taken");
    let record = records::load(&*shop.stores.documents, &shop.venue, day(OLD))
        .await
        .unwrap();
    assert_eq!(record, records::DayRecord::default(), "nothing is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_larger_than_memory_goes_window_by_window() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let settings = Settings {
        window_rows: 40,
        ..Settings::default()
    };
    let (made, swept) = run(&retention_with(&shop, settings, Arc::new(NoGuard)), &shop, "job").await;
    assert!(swept.iter().all(|swept| swept.stayed.is_empty()));
    let record = records::load(&*shop.stores.documents, &shop.venue, day(OLD))
        .await
        .unwrap();
    let proof = record.proof.unwrap();
    assert!(
        proof.holds() && proof.kinds[&Kind::Position].raw.rows > 40 * 3,
        "{proof:?}"
    );
    assert!(!made.days.is_empty());
    assert!(contents(&shop).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_makes_its_day_wait_and_then_goes_too() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    run(&retention, &shop, "job-1").await;
    let late = shop.local(OLD, 15.0);
    shop.post(visit("late", late, 5), 99).await;
    assert_eq!(raw_rows(&shop, day(OLD)).await, 6, "raw holds only it");
    let before = shop.published(OLD).await;
    // Not computed yet, and too young in any case.
    let (made, _) = mark(&retention, &shop, "job-2").await;
    assert_eq!(made.days.len(), 0);
    shop.recompute().await;
    let after = shop.published(OLD).await;
    let positions = |info: &dwell_storage::api::GenerationInfo| info.events[&Kind::Position].rows;
    assert_eq!(
        positions(&after),
        positions(&before) + 6,
        "with all that only the archive has"
    );
    let (made, _) = mark(&retention, &shop, "job-3").await;
    assert_eq!(made.days.len(), 0, "its mark is young: {made:?}");
    assert_eq!(raw_rows(&shop, day(OLD)).await, 6);
    shop.advance(HUNDRED_DAYS);
    let (_, swept) = run(&retention, &shop, "job-4").await;
    assert_eq!(swept.iter().map(|swept| swept.raw_rows).sum::<u64>(), 6);
    // The archive alone has all of it.
    let numbers = shop.rows(OLD).await;
    let spec = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    shop.run(&spec).await;
    assert!(shop.published(OLD).await.generation > after.generation);
    assert_eq!(shop.rows(OLD).await, numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn computing_anew_with_an_empty_raw_store_gives_equal_numbers() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let (numbers, before) = (shop.rows(OLD).await, shop.published(OLD).await);
    run(&retention(&shop), &shop, "job").await;
    assert!(contents(&shop).await.is_empty());
    let spec = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    let report = shop.run(&spec).await;
    assert_eq!(report.failed, 0, "{report:?}");
    let after = shop.published(OLD).await;
    assert!(after.generation > before.generation);
    assert_eq!(
        (after.events, after.sessions, after.rows),
        (before.events, before.sessions, before.rows)
    );
    assert_eq!(shop.rows(OLD).await, numbers);
    assert!(all_rows(&shop).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_mark_and_sweep_survives() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    // The raw writer has added rows and not yet marked them: nobody can know of them but the comparison.
    let at = shop.local(OLD, 12.0);
    let late = visit("late", at, 3);
    let delivery = Delivery {
        received_at: shop.now(),
        receipt: Receipt::from_u128(77),
    };
    let rows = vec![(shop.venue.clone(), RawRows::delivered_once(late, delivery))];
    let write = RawWrite {
        rows,
        ..RawWrite::default()
    };
    shop.stores.raw.apply(write).await.unwrap();
    let swept = sweep(&retention, &shop, &made).await;
    let left = contents(&shop).await;
    let late_ones = left.keys().filter(|event| event.contains("\"late\"")).count();
    assert_eq!(late_ones, 4);
    let slots: std::collections::BTreeSet<&str> = left
        .keys()
        .map(|event| event.split(' ').next().unwrap())
        .collect();
    assert_eq!(slots.len(), 1, "of positions, and of one slot only: {left:?}");
    assert!(swept.iter().any(|swept| !swept.stayed.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_became_dirty_or_held_after_its_mark_is_left_alone() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    shop.post(visit("late", shop.local(OLD, 12.0), 3), 50).await;
    let before = contents(&shop).await;
    let of_old = made.days.iter().find(|marked| marked.day == day(OLD)).unwrap();
    let cancel = CancellationToken::new();
    let swept = retention
        .sweep(
            &shop.venue,
            &shop.calendar,
            of_old,
            &made,
            &Policy::default(),
            &cancel,
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!((swept.raw_rows, swept.sessions), (0, 0));
    assert!(swept.stayed[0].contains("recompute it"), "{swept:?}");
    assert_eq!(contents(&shop).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_dies_anywhere_goes_on_where_it_was() {
    let _alone = FAILPOINTS.write().await;
    for (point, when) in [
        ("retention.before_proof", "1*error"),
        ("retention.before_mark", "1*error"),
        ("retention.after_mark", "1*error"),
        ("retention.sweep.begins", "1*error"),
        ("retention.sweep.before_slot", "5*off->1*error"),
        ("retention.sweep.after_slot", "9*off->1*error"),
        ("retention.sweep.after_raw", "1*error"),
        ("retention.sweep.after_sessions", "1*error"),
    ] {
        let shop = old_shop().await;
        let retention = retention(&shop);
        let numbers = shop.rows(OLD).await;
        let cancel = CancellationToken::new();
        let once = async || -> dwell_retention::Result<()> {
            let now = shop.now();
            let tell = |_: u64, _: u64, _| {};
            let (made, _) = retention
                .mark(
                    &shop.venue,
                    &shop.calendar,
                    &Policy::default(),
                    now,
                    None,
                    "job",
                    &tell,
                    &cancel,
                )
                .await?;
            for day in &made.days {
                retention
                    .sweep(
                        &shop.venue,
                        &shop.calendar,
                        day,
                        &made,
                        &Policy::default(),
                        &cancel,
                    )
                    .await?;
            }
            Ok(())
        };
        let guard = failpoints::set(point, when).unwrap();
        let died = once().await;
        assert!(
            matches!(died, Err(dwell_retention::Error::Injected(_))),
            "{point}: {died:?}"
        );
        drop(guard);
        // Its lease is still there, as that of a process that died.
        shop.advance(std::time::Duration::from_secs(60));
        once().await.unwrap();
        assert!(contents(&shop).await.is_empty(), "{point}");
        assert_eq!(shop.rows(OLD).await, numbers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_can_be_stopped_between_two_slots() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let stopped = retention
        .sweep(
            &shop.venue,
            &shop.calendar,
            &made.days[0],
            &made,
            &Policy::default(),
            &cancel,
        )
        .await;
    assert!(
        matches!(stopped, Err(dwell_retention::Error::Cancelled)),
        "{stopped:?}"
    );
    sweep(&retention, &shop, &made).await;
    assert!(contents(&shop).await.is_empty());
}

/// Kathmandu is off the full ten minutes, so the slot around midnight belongs to two days.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_two_days_goes_only_when_both_may_go() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open_with("Asia/Kathmandu", Default::default()).await;
    let midnight = shop.calendar.bounds(day(OLD)).1;
    assert_ne!(
        midnight % dwell_model::time::SLOT_MS,
        0,
        "a slot lies across midnight"
    );
    shop.post(visit("night", midnight - 30_000, 60), 1).await;
    shop.post(visit("noon", shop.local(OLD, 12.0), 10), 2).await;
    shop.clock.set_ms(shop.local("2026-03-12", 12.0));
    shop.recompute().await;
    let retention = retention(&shop);

    // The first day alone is old enough: both were marked at noon of the second, before that had ended.
    let (made, _) = mark_as_of(&retention, &shop, "job-1", midnight + 90 * DAY_MS + 13 * HOUR_MS).await;
    assert_eq!(
        made.days.iter().map(|day| day.day).collect::<Vec<_>>(),
        [day(OLD)]
    );
    let swept = sweep(&retention, &shop, &made).await;
    assert_eq!((swept[0].raw_rows, swept[0].rows_left), (11, 30));
    assert!(swept[0].stayed[0].contains("shared"), "{swept:?}");
    assert_eq!(
        contents(&shop).await.len(),
        61,
        "both sides of midnight are there"
    );

    let (made, _) = mark_as_of(&retention, &shop, "job-2", midnight + 92 * DAY_MS).await;
    assert_eq!(made.days.len(), 2);
    let swept = sweep(&retention, &shop, &made).await;
    assert!(swept.iter().all(|swept| swept.stayed.is_empty()), "{swept:?}");
    assert!(contents(&shop).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_with_an_age_of_its_own_goes_alone() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open().await;
    let (start, end) = shop.calendar.bounds(day(OLD));
    deliver(&shop, busy_day(start, end, 3)).await;
    shop.recompute().await;
    shop.advance(std::time::Duration::from_secs(10 * 86_400));
    shop.recompute().await;
    let policy = Policy {
        raw_of_kind_ms: [(Kind::Presence, 7 * DAY_MS)].into(),
        ..Policy::default()
    };
    let retention = retention(&shop);
    let cancel = CancellationToken::new();
    let tell = |_: u64, _: u64, _| {};
    let (made, _) = retention
        .mark(
            &shop.venue,
            &shop.calendar,
            &policy,
            shop.now(),
            None,
            "job",
            &tell,
            &cancel,
        )
        .await
        .unwrap();
    let of_old = made.days.iter().find(|marked| marked.day == day(OLD)).unwrap();
    assert!(matches!(of_old.raw[&Kind::Presence], Verdict::Delete { .. }));
    assert!(matches!(of_old.raw[&Kind::Position], Verdict::Keep { .. }));
    sweep(&retention, &shop, &made).await;
    let kinds: Vec<Kind> = shop
        .stores
        .raw
        .count(&shop.venue, start..end)
        .await
        .unwrap()
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert!(!kinds.contains(&Kind::Presence) && kinds.len() == 6, "{kinds:?}");
}
