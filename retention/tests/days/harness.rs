//! A venue whose days grow old, and retention over its stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::{Delivery, Kind};
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS, TsMs};
use dwell_retention::marks::Mark;
use dwell_retention::{DaySwept, Decided, GenerationGuard, NoGuard, Policy, Retention, Settings};
use dwell_storage::api::ArchivedDay;
use dwell_storage::conformance::samples::describe;
use tokio_util::sync::CancellationToken;

use crate::common::Shop;

/// What raw holds: the deliveries of each payload, events as plain text.
pub(crate) type Contents = BTreeMap<String, BTreeSet<Delivery>>;

/// A hundred days: everything is old enough then.
pub(crate) const HUNDRED_DAYS: Duration = Duration::from_secs(100 * 86_400);

pub(crate) fn retention(shop: &Shop) -> Retention {
    retention_with(shop, Settings::default(), Arc::new(NoGuard))
}

pub(crate) fn retention_with(shop: &Shop, settings: Settings, guard: Arc<dyn GenerationGuard>) -> Retention {
    Retention::new(shop.stores.clone(), shop.clock.shared(), settings, guard, "test")
}

/// Everything that raw holds of a venue, of all kinds and times.
pub(crate) async fn contents(shop: &Shop) -> Contents {
    let mut contents = Contents::new();
    for kind in Kind::ALL {
        let rows = shop
            .stores
            .raw
            .scan(&shop.venue, kind, MIN_TS..MAX_TS)
            .await
            .unwrap();
        for row in 0..rows.len() {
            let deliveries = rows.deliveries(row).iter().copied().collect();
            let before = contents.insert(describe(&rows.events, row), deliveries);
            assert_eq!(before, None, "a payload stands twice");
        }
    }
    contents
}

pub(crate) async fn raw_rows(shop: &Shop, of: LocalDay) -> u64 {
    let (start, end) = shop.calendar.bounds(of);
    let counts = shop.stores.raw.count(&shop.venue, start..end).await.unwrap();
    counts.into_iter().map(|(_, rows)| rows).sum()
}

/// Marks the venue as of now.
pub(crate) async fn mark(retention: &Retention, shop: &Shop, job: &str) -> (Mark, Decided) {
    mark_as_of(retention, shop, job, shop.now()).await
}

pub(crate) async fn mark_as_of(retention: &Retention, shop: &Shop, job: &str, now: TsMs) -> (Mark, Decided) {
    let policy = Policy::default();
    retention
        .mark(
            &shop.venue,
            &shop.calendar,
            &policy,
            now,
            None,
            job,
            &|_, _, _| {},
            &CancellationToken::new(),
        )
        .await
        .unwrap()
}

/// Sweeps all days of a mark, in an installation whose policy is the mark's.
pub(crate) async fn sweep(retention: &Retention, shop: &Shop, mark: &Mark) -> Vec<DaySwept> {
    let mut swept = Vec::new();
    for day in &mark.days {
        let outcome = retention
            .sweep(
                &shop.venue,
                &shop.calendar,
                day,
                mark,
                &mark.policy,
                &CancellationToken::new(),
            )
            .await
            .unwrap();
        swept.push(outcome.expect("nobody holds the day"));
    }
    swept
}

/// Marks and sweeps.
pub(crate) async fn run(retention: &Retention, shop: &Shop, job: &str) -> (Mark, Vec<DaySwept>) {
    let (mark, _) = mark(retention, shop, job).await;
    let swept = sweep(retention, shop, &mark).await;
    (mark, swept)
}

/// The archive's file of a day's positions.
pub(crate) async fn archived(shop: &Shop, of: LocalDay) -> ArchivedDay {
    shop.stores
        .archive
        .day(&shop.venue, Kind::Position, of)
        .await
        .unwrap()
}

/// Where a file of the archive lies.
pub(crate) fn path_of(shop: &Shop, name: &str) -> PathBuf {
    fn find(folder: &std::path::Path, name: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries.into_iter().find_map(|path| match path.is_dir() {
            true => find(&path, name),
            false => path.ends_with(name).then_some(path),
        })
    }
    find(&shop.folder().join("archive"), name).unwrap_or_else(|| panic!("no file {name}"))
}
