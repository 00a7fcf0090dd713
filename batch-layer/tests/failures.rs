//! What holds when workers race, stall or die. These tests set failpoints, which are global to the process, so they
//! run one after the other and apart from the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::events::{busy_day, visit};
use common::gate::Gate;
use common::{Shop, assert_outcome, day, visits};
use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, Config, DayRequest};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::failpoints;
use dwell_storage::api::periods::{self, ClosedPeriod};
use dwell_storage::api::{
    Flip, GenerationInfo, Lease, Marks, RestoredDay, VenueDay, VenueDays, VenueDaysReader, VenueDaysWriter,
    publications,
};
use dwell_storage::error::{ErrorKind, Result as StorageResult, StorageError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const DAY: &str = "2026-03-09";

/// Held by each test: failpoints are global.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn shop_with_a_visit() -> Shop {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAY, 10.0), 60), 1).await;
    shop
}

async fn row(shop: &Shop) -> VenueDay {
    shop.stores
        .venue_days
        .get(&shop.venue, day(DAY))
        .await
        .unwrap()
        .unwrap()
}

/// Closes the day.
async fn close(shop: &Shop) {
    let period = ClosedPeriod {
        venues: None,
        from: day(DAY),
        to: day(DAY),
        reason: "invoiced".into(),
        closed_by: "key".into(),
        closed_at: shop.now(),
        opened: None,
    };
    periods::close(shop.stores.documents.as_ref(), &shop.venue.tenant, &period)
        .await
        .unwrap();
}

/// Longer than a lease lasts.
const PAST_THE_LEASE: Duration = Duration::from_secs(61);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_workers_on_one_day_one_publishes_and_the_other_finds_it_held() {
    let _alone = ALONE.lock().await;
    let shop = shop_with_a_visit().await;
    let second = shop.second_worker();
    let (a, b) = tokio::join!(shop.compute(&shop.layer, DAY), shop.compute(&second, DAY));
    let mut outcomes = [a.outcome, b.outcome];
    outcomes.sort_by_key(|outcome| outcome.word());
    // Whoever comes second finds the day held, or done.
    assert!(
        [
            [Outcome::Computed, Outcome::Skipped],
            [Outcome::Computed, Outcome::Unchanged]
        ]
        .contains(&outcomes),
        "{a:?} {b:?}"
    );
    assert_eq!(visits(&shop.rows(DAY).await), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_paused_past_its_lease_cannot_publish_and_leaves_nothing() {
    let _alone = ALONE.lock().await;
    for point in [
        "batch.after_lease",
        "batch.before_archive",
        "batch.after_rows",
        "batch.before_publish",
    ] {
        let shop = Arc::new(shop_with_a_visit().await);
        let gate = Gate::at(point);
        let paused = {
            let shop = Arc::clone(&shop);
            #[allow(clippy::disallowed_methods, reason = "a test's own task, joined below")]
            tokio::spawn(async move { shop.compute(&shop.layer, DAY).await })
        };
        gate.reached().await;
        let first_fence = row(&shop).await.fence;
        shop.advance(PAST_THE_LEASE);
        let report = shop.compute(&shop.second_worker(), DAY).await;
        assert_outcome(&report, Outcome::Computed);
        let published = shop.published(DAY).await;
        assert!(published.generation > first_fence, "{point}");
        gate.let_go();
        let lost = paused.await.unwrap();
        assert_eq!(
            (lost.outcome, lost.retryable),
            (Outcome::Skipped, true),
            "{point}: {lost:?}"
        );
        assert_eq!(shop.published(DAY).await, published, "{point}");
        assert_eq!(
            shop.rows_of(DAY, first_fence).await,
            [],
            "{point}: the loser's rows are gone"
        );
        let sessions = &shop.stores.sessions;
        let left = sessions
            .list(&shop.venue, day(DAY), first_fence, None, 10)
            .await
            .unwrap();
        assert_eq!(left, [], "{point}");
        assert_eq!(visits(&shop.rows(DAY).await), 1);
        assert!(!shop.is_dirty(DAY).await, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_lands_between_reading_and_publishing_leaves_the_day_dirty() {
    let _alone = ALONE.lock().await;
    for point in [
        "batch.before_archive",
        "batch.after_archive",
        "batch.after_rows",
        "batch.before_publish",
    ] {
        let shop = Arc::new(shop_with_a_visit().await);
        let gate = Gate::at(point);
        let running = {
            let shop = Arc::clone(&shop);
            #[allow(clippy::disallowed_methods, reason = "a test's own task, joined below")]
            tokio::spawn(async move { shop.compute(&shop.layer, DAY).await })
        };
        gate.reached().await;
        shop.post(visit("b", shop.local(DAY, 11.0), 60), 2).await;
        gate.let_go();
        assert_outcome(&running.await.unwrap(), Outcome::Computed);
        assert_eq!(visits(&shop.rows(DAY).await), 1, "{point}");
        assert!(shop.is_dirty(DAY).await, "{point}");
        assert_eq!(shop.recompute().await.computed, 1);
        assert_eq!(visits(&shop.rows(DAY).await), 2, "{point}");
        assert_eq!(
            shop.published(DAY).await.late.events,
            61,
            "{point}: found by their number"
        );
        assert!(!shop.is_dirty(DAY).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_anywhere_is_repaired_by_running_again() {
    let _alone = ALONE.lock().await;
    let reference = Shop::open().await;
    let posts = |shop: &Shop| busy_day(shop.local(DAY, 0.0), shop.local(DAY, 24.0), 3);
    let post_all = async |shop: &Shop| {
        for (receipt, events) in (1..).zip(posts(shop)) {
            shop.append(events, receipt).await;
        }
        shop.write_raw().await;
    };
    post_all(&reference).await;
    reference.recompute().await;
    let (expected, info) = (reference.rows(DAY).await, reference.published(DAY).await);
    for point in [
        "batch.after_lease",
        "batch.before_archive",
        "batch.after_archive",
        "batch.after_rows",
        "batch.before_publish",
        "batch.after_publish",
    ] {
        let shop = Shop::open().await;
        post_all(&shop).await;
        let crash = failpoints::set(point, "1*error:crash").unwrap();
        let report = shop.compute(&shop.layer, DAY).await;
        assert_outcome(&report, Outcome::Failed);
        assert!(report.reason.contains("crash"), "{point}: {report:?}");
        assert_eq!(failpoints::hits(point), Some(1));
        drop(crash);
        let crashed = row(&shop).await;
        assert!(
            crashed.lease.is_some(),
            "{point}: whoever is dead gives no lease back"
        );
        let held = shop.compute(&shop.second_worker(), DAY).await;
        assert_outcome(&held, Outcome::Skipped);
        shop.advance(PAST_THE_LEASE);
        let again = shop.compute(&shop.second_worker(), DAY).await;
        let published_before_dying = point == "batch.after_publish";
        let outcome = if published_before_dying {
            Outcome::Unchanged
        } else {
            Outcome::Computed
        };
        assert_outcome(&again, outcome);
        assert_eq!(shop.rows(DAY).await, expected, "{point}");
        let repaired = shop.published(DAY).await;
        assert_eq!(repaired.events, info.events, "{point}");
        assert_eq!(
            (repaired.rows, repaired.sessions),
            (info.rows, info.sessions),
            "{point}"
        );
        let history = shop
            .stores
            .venue_days
            .history(&shop.venue, day(DAY))
            .await
            .unwrap();
        assert_eq!(history.len(), 1, "{point}: published once");
        if !published_before_dying {
            assert_eq!(
                shop.rows_of(DAY, crashed.fence).await,
                [],
                "{point}: the dead run's rows are gone"
            );
        }
        assert!(!shop.is_dirty(DAY).await, "{point}");
        let verified = shop.run(&RunSpec::all_dirty(What::Verify)).await;
        assert_eq!(
            (verified.verified, verified.failed),
            (1, 0),
            "{point}: {verified:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_works_on_around_a_day_that_fails() {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await;
    for (receipt, of) in (1..).zip(["2026-03-07", "2026-03-08", DAY]) {
        shop.post(visit("a", shop.local(of, 10.0), 5), receipt).await;
    }
    let broken = failpoints::set("batch.after_rows", "1*off->1*error:broken").unwrap();
    let report = shop.run(&RunSpec::all_dirty(What::Recompute)).await;
    drop(broken);
    assert_eq!(
        (report.computed, report.failed, report.dirty_left),
        (2, 1, 1),
        "{report:?}"
    );
    assert_eq!(report.days[1].day, day("2026-03-08"));
    assert!(shop.is_dirty("2026-03-08").await);
    assert!(!shop.is_dirty(DAY).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_waits_for_days_that_others_hold() {
    let _alone = ALONE.lock().await;
    let shop = Arc::new(shop_with_a_visit().await);
    let gate = Gate::at("batch.after_rows");
    let spawn = |shop: &Arc<Shop>| {
        let shop = Arc::clone(shop);
        #[allow(clippy::disallowed_methods, reason = "a test's own task, joined below")]
        tokio::spawn(async move { shop.run(&RunSpec::all_dirty(What::Recompute)).await })
    };
    let first = spawn(&shop);
    gate.reached().await;
    let second = spawn(&shop);
    // The second finds the day held and sleeps; the first one's renewal sleeps too, but stands in the gate.
    shop.clock.sleepers_reach(2).await;
    gate.let_go();
    assert_eq!(first.await.unwrap().computed, 1);
    while !second.is_finished() {
        shop.advance(Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    let report = second.await.unwrap();
    assert_eq!(
        (report.computed, report.failed, report.dirty_left),
        (0, 0, 0),
        "{report:?}"
    );
    assert_eq!(visits(&shop.rows(DAY).await), 1);
}

/// Venue-days whose first few flips happen, or do not, and fail either way; as a database does whose answer is lost.
struct Doubtful {
    inner: Arc<dyn VenueDays>,
    failures_left: AtomicU64,
    happens: bool,
    /// Reading back fails as well.
    blind: bool,
}

impl Doubtful {
    fn fails_now(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.failures_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }

    fn lost() -> StorageError {
        StorageError::new(ErrorKind::Unavailable, "the answer was lost")
    }
}

#[async_trait::async_trait]
impl VenueDaysWriter for Doubtful {
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> StorageResult<Option<Lease>> {
        self.inner.acquire(venue, day, holder, now, ttl_ms).await
    }

    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> StorageResult<Flip> {
        self.inner.renew(lease, now, ttl_ms).await
    }

    async fn release(&self, lease: &Lease) -> StorageResult<()> {
        self.inner.release(lease).await
    }

    async fn publish(&self, lease: &Lease, before: Option<u64>, info: GenerationInfo) -> StorageResult<Flip> {
        if !self.fails_now() {
            return self.inner.publish(lease, before, info).await;
        }
        if self.happens {
            let _ = self.inner.publish(lease, before, info).await?;
        }
        Err(Self::lost())
    }

    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> StorageResult<Flip> {
        self.inner.stage(lease, info).await
    }

    async fn promote(
        &self,
        lease: &Lease,
        before: Option<u64>,
        staged: u64,
        published_at: TsMs,
    ) -> StorageResult<Flip> {
        self.inner.promote(lease, before, staged, published_at).await
    }

    async fn raise_marks(
        &self,
        lease: &Lease,
        published: u64,
        marks: &Marks,
        provisional: bool,
    ) -> StorageResult<Flip> {
        self.inner.raise_marks(lease, published, marks, provisional).await
    }

    async fn forget(&self, lease: &Lease, generations: &[u64]) -> StorageResult<Flip> {
        self.inner.forget(lease, generations).await
    }

    async fn restore(&self, venue: &VenueKey, day: RestoredDay) -> StorageResult<Flip> {
        self.inner.restore(venue, day).await
    }
}

#[async_trait::async_trait]
impl VenueDaysReader for Doubtful {
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> StorageResult<Option<VenueDay>> {
        if self.blind {
            return Err(Self::lost());
        }
        self.inner.get(venue, day).await
    }

    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> StorageResult<Vec<VenueDay>> {
        self.inner.list(venue, from, to).await
    }

    async fn history(&self, venue: &VenueKey, day: LocalDay) -> StorageResult<Vec<GenerationInfo>> {
        self.inner.history(venue, day).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flip_whose_answer_is_lost_is_looked_up_and_its_rows_are_never_removed_in_doubt() {
    let _alone = ALONE.lock().await;
    for (happens, blind) in [(true, false), (false, false), (true, true), (false, true)] {
        let shop = shop_with_a_visit().await;
        // Archived before, so that the flip is what first reads the day back.
        shop.run(&RunSpec::all_dirty(What::Archive)).await;
        let inner = Arc::clone(&shop.stores.venue_days);
        let failures_left = AtomicU64::new(if blind { u64::MAX } else { 1 });
        let mut stores = shop.stores.clone();
        stores.venue_days = Arc::new(Doubtful {
            inner,
            failures_left,
            happens,
            blind,
        });
        let layer = BatchLayer::new(stores, shop.clock.shared(), Config::default(), "doubtful").unwrap();
        let report = shop.compute(&layer, DAY).await;
        if blind {
            assert_eq!(
                (report.outcome, report.retryable),
                (Outcome::Failed, true),
                "{report:?}"
            );
            assert!(report.reason.contains("unknown"), "{report:?}");
        } else {
            assert_outcome(&report, Outcome::Computed);
        }
        if happens || !blind {
            assert_eq!(
                visits(&shop.rows(DAY).await),
                1,
                "happened: {happens}, blind: {blind}"
            );
        }
        shop.recompute().await;
        assert_eq!(visits(&shop.rows(DAY).await), 1);
        assert!(!shop.is_dirty(DAY).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_publication_is_missing_from_the_feed_or_there_twice_wherever_a_worker_dies() {
    let _alone = ALONE.lock().await;
    for point in [
        "batch.before_publish",
        "batch.after_announce",
        "batch.before_listed",
        "batch.after_publish",
    ] {
        let shop = shop_with_a_visit().await;
        shop.recompute().await;
        shop.post(visit("late", shop.local(DAY, 11.0), 5), 2).await;
        let crash = failpoints::set(point, "1*error:dies").unwrap();
        let report = shop.run(&RunSpec::all_dirty(What::Archive)).await;
        assert_eq!(report.failed, 0, "{point}");
        assert_outcome(&shop.compute(&shop.layer, DAY).await, Outcome::Failed);
        drop(crash);
        // Another worker comes by when the dead one's lease is over. Days that are published are not touched again.
        shop.advance(PAST_THE_LEASE);
        shop.recompute().await;
        shop.recompute().await;
        let documents = shop.stores.documents.as_ref();
        let head = publications::head(documents, &shop.venue).await.unwrap();
        assert_eq!(head.pending, [], "{point}");
        let entries = publications::list(documents, &shop.venue, &head, 0, 100)
            .await
            .unwrap();
        let listed: Vec<_> = entries
            .iter()
            .map(|entry| (entry.number, entry.generation, entry.before))
            .collect();
        let history = shop.stores.venue_days.history(&shop.venue, day(DAY)).await;
        let published: Vec<u64> = history
            .unwrap()
            .iter()
            .rev()
            .map(|info| info.generation)
            .collect();
        assert_eq!(published.len(), 2, "{point}");
        assert_eq!(
            listed,
            [(1, published[0], None), (2, published[1], Some(published[0]))],
            "{point}"
        );
        assert_eq!(visits(&shop.rows(DAY).await), 2, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_death_while_proposing_or_approving_is_repaired_by_doing_it_again() {
    let _alone = ALONE.lock().await;
    for point in [
        "batch.after_rows",
        "batch.before_propose",
        "batch.after_propose",
        "batch.after_approved_rows",
        "batch.before_approve",
        "batch.after_announce",
        "batch.before_listed",
        "batch.after_approve",
    ] {
        let shop = shop_with_a_visit().await;
        shop.recompute().await;
        let documents = shop.stores.documents.as_ref();
        close(&shop).await;
        shop.post(visit("late", shop.local(DAY, 11.0), 5), 2).await;
        let approve = async || {
            let cancel = CancellationToken::new();
            let by = "boss";
            shop.layer
                .approve_day(&shop.venue, day(DAY), None, by, &cancel)
                .await
        };
        let crash = failpoints::set(point, "1*error:dies").unwrap();
        let proposed = shop.compute(&shop.layer, DAY).await;
        let approved = approve().await;
        assert!(
            proposed.outcome == Outcome::Failed || approved.outcome == Outcome::Failed,
            "{point}: {proposed:?} {approved:?}"
        );
        drop(crash);
        shop.advance(PAST_THE_LEASE);
        let again = shop.compute(&shop.layer, DAY).await;
        assert!(
            [Outcome::Proposed, Outcome::Unchanged].contains(&again.outcome),
            "{point}: {again:?}"
        );
        assert_outcome(&approve().await, Outcome::Computed);
        assert_eq!(visits(&shop.rows(DAY).await), 2, "{point}");
        let published = shop.published(DAY).await;
        // What died left no rows behind but those of published generations.
        let history = shop
            .stores
            .venue_days
            .history(&shop.venue, day(DAY))
            .await
            .unwrap();
        assert_eq!(history.len(), 2, "{point}: published once");
        shop.compute(&shop.layer, DAY).await;
        let kept: Vec<u64> = history.iter().map(|info| info.generation).collect();
        for fence in 1..row(&shop).await.fence {
            let rows = shop.rows_of(DAY, fence).await;
            assert_eq!(
                rows.is_empty(),
                !kept.contains(&fence),
                "{point}: generation {fence}"
            );
        }
        assert!(!shop.is_dirty(DAY).await, "{point}");
        publications::settle(
            documents,
            shop.stores.venue_days.as_ref(),
            &shop.venue,
            shop.now(),
        )
        .await
        .unwrap();
        let head = publications::head(documents, &shop.venue).await.unwrap();
        let feed = publications::list(documents, &shop.venue, &head, 0, 10)
            .await
            .unwrap();
        assert_eq!(
            feed.last().map(|entry| entry.generation),
            Some(published.generation),
            "{point}"
        );
        assert_eq!((feed.len(), head.pending.len()), (2, 0), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_under_way_when_the_period_is_closed_proposes() {
    let _alone = ALONE.lock().await;
    let shop = shop_with_a_visit().await;
    shop.recompute().await;
    let before = shop.published(DAY).await;
    shop.post(visit("late", shop.local(DAY, 11.0), 5), 2).await;
    // The day's rows are written; the period is closed before they are published.
    let gate = Gate::at("batch.after_rows");
    let (layer, venue) = (shop.layer.clone(), shop.venue.clone());
    #[allow(clippy::disallowed_methods, reason = "a test's own task, joined below")]
    let working = tokio::spawn(async move {
        let requests = vec![DayRequest::recompute(day(DAY))];
        let cancel = CancellationToken::new();
        layer.run_group(&venue, requests, &cancel).await.remove(0)
    });
    gate.reached().await;
    close(&shop).await;
    gate.let_go();
    assert_outcome(&working.await.unwrap(), Outcome::Proposed);
    assert_eq!(shop.published(DAY).await, before);
    let proposed = periods::proposal(shop.stores.documents.as_ref(), &shop.venue, day(DAY))
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(proposed.base, before.generation);
    assert_eq!(visits(&shop.rows_of(DAY, proposed.info.generation).await), 2);
    assert!(!shop.is_dirty(DAY).await);
}
