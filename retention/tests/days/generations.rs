//! Generations that are no longer published.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::DAY_MS;
use dwell_model::time::{LocalDay, TsMs};
use dwell_retention::{GenerationGuard, Policy, Settings, policy, records};
use dwell_runtime::failpoints;
use dwell_storage::api::Generation;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day};
use crate::harness::{mark, retention, retention_with, run, sweep};
use crate::sweeps::FAILPOINTS;

const OLD: &str = "2026-03-09";
const YEARS: Duration = Duration::from_secs(500 * 86_400);

/// A day with three generations, the last one published, long ago.
async fn three_generations() -> (Shop, Vec<Generation>) {
    let shop = Shop::open().await;
    for n in 0..3 {
        let from = shop.local(OLD, 10.0 + f64::from(n));
        shop.post(visit(&format!("t{n}"), from, 60), 1 + n as u128).await;
        shop.recompute().await;
    }
    shop.advance(YEARS);
    let generations = history(&shop).await;
    assert_eq!(generations.len(), 3);
    (shop, generations)
}

async fn history(shop: &Shop) -> Vec<Generation> {
    let history = shop
        .stores
        .venue_days
        .history(&shop.venue, day(OLD))
        .await
        .unwrap();
    history.iter().map(|info| info.generation).collect()
}

async fn rows(shop: &Shop, generation: Generation) -> u64 {
    shop.stores
        .aggregates
        .count(&shop.venue, day(OLD), generation)
        .await
        .unwrap()
}

/// Needs one generation.
#[derive(Debug)]
struct Needs(Generation);

#[async_trait]
impl GenerationGuard for Needs {
    async fn needed(
        &self,
        _: &TenantId,
        _: &VenueId,
        _: LocalDay,
        generations: &[Generation],
        _: TsMs,
    ) -> dwell_storage::error::Result<Vec<Generation>> {
        Ok(generations
            .iter()
            .copied()
            .filter(|number| *number == self.0)
            .collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_generations_go_but_for_the_published_one_and_what_somebody_needs() {
    let _shared = FAILPOINTS.read().await;
    let (shop, generations) = three_generations().await;
    let [newest, middle, first] = generations[..] else {
        panic!("{generations:?}")
    };
    let numbers = shop.rows(OLD).await;
    let guarded = retention_with(&shop, Settings::default(), Arc::new(Needs(middle)));
    let (_, swept) = run(&guarded, &shop, "job-1").await;
    assert_eq!(swept.iter().map(|swept| swept.generations).sum::<u64>(), 1);
    assert_eq!(history(&shop).await, [newest, middle]);
    assert_eq!(rows(&shop, first).await, 0);
    assert!(rows(&shop, middle).await > 0);

    run(&retention(&shop), &shop, "job-2").await;
    assert_eq!(history(&shop).await, [newest]);
    assert_eq!(rows(&shop, middle).await, 0);
    assert_eq!(shop.rows(OLD).await, numbers);
    let record = records::load(&*shop.stores.documents, &shop.venue, day(OLD))
        .await
        .unwrap();
    assert_eq!((record.alone, record.forgetting), (Some(newest), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_replaced_lately_stays() {
    let _shared = FAILPOINTS.read().await;
    let (shop, generations) = three_generations().await;
    shop.post(visit("late", shop.local(OLD, 18.0), 60), 9).await;
    shop.recompute().await;
    let (made, _) = run(&retention(&shop), &shop, "job").await;
    let of_generations = made.days.iter().map(|day| day.generations.len()).sum::<usize>();
    assert_eq!(of_generations, 2, "those that go: {made:?}");
    let left = history(&shop).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(
        left[1], generations[0],
        "the one that was published until just now"
    );
    assert!(rows(&shop, generations[0]).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_that_a_later_policy_keeps_for_longer_stay() {
    let _shared = FAILPOINTS.read().await;
    let (shop, generations) = three_generations().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    for (days, left) in [(800, &generations[..]), (450, &generations[..1])] {
        let change = |policy: &mut Policy| policy.generations_ms = days * DAY_MS;
        policy::change(documents, tenant, &Policy::default(), change)
            .await
            .unwrap();
        sweep(&retention, &shop, &made).await;
        assert_eq!(history(&shop).await, left, "kept for {days} days");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_generations_that_dies_leaves_no_rows_behind() {
    let _alone = FAILPOINTS.write().await;
    for point in ["retention.sweep.before_forget", "retention.sweep.after_forget"] {
        let (shop, generations) = three_generations().await;
        let retention = retention(&shop);
        let cancel = CancellationToken::new();
        let once = async |job: &str| -> dwell_retention::Result<()> {
            let tell = |_: u64, _: u64, _| {};
            let policy = Policy::default();
            let (made, _) = retention
                .mark(
                    &shop.venue,
                    &shop.calendar,
                    &policy,
                    shop.now(),
                    None,
                    job,
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
        let guard = failpoints::set(point, "1*error").unwrap();
        let died = once("job-1").await;
        assert!(
            matches!(died, Err(dwell_retention::Error::Injected(_))),
            "{point}: {died:?}"
        );
        drop(guard);
        shop.advance(Duration::from_secs(60));
        // Another job, which knows nothing of the first one's mark.
        once("job-2").await.unwrap();
        assert_eq!(history(&shop).await, [generations[0]], "{point}");
        for &generation in &generations[1..] {
            assert_eq!(rows(&shop, generation).await, 0, "{point}");
        }
    }
}
