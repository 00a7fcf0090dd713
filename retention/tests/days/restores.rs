//! From the archive back to raw.

use dwell_batch_layer::report::Outcome;
use dwell_model::event::Kind;
use dwell_model::time::DAY_MS;
use dwell_retention::RestoreReport;
use dwell_runtime::failpoints;
use dwell_storage::api::MarkSource;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day};
use crate::harness::{archived, contents, mark_as_of, path_of, raw_rows, retention, run};
use crate::sweeps::{FAILPOINTS, old_shop};

const OLD: &str = "2026-03-09";

async fn restore(shop: &Shop, of: &str, attempt: i64) -> dwell_retention::Result<RestoreReport> {
    let source = MarkSource::job("restore-1");
    let cancel = CancellationToken::new();
    let restored = retention(shop)
        .restore_day(
            &shop.venue,
            &shop.calendar,
            day(of),
            &source,
            attempt * 2,
            &cancel,
        )
        .await?;
    Ok(restored.expect("nobody holds the day"))
}

/// All days that have anything.
async fn restore_all(shop: &Shop) {
    for of in ["2026-03-08", OLD, "2026-03-10"] {
        restore(shop, of, 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_swept_comes_back_row_by_row_with_each_delivery() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let before = contents(&shop).await;
    assert!(
        before.values().any(|deliveries| deliveries.len() > 1),
        "redeliveries"
    );
    let (numbers, published) = (shop.rows(OLD).await, shop.published(OLD).await);
    run(&retention(&shop), &shop, "job").await;
    assert!(contents(&shop).await.is_empty());

    let dry = retention(&shop)
        .look_at_restore(&shop.venue, &shop.calendar, day(OLD), &CancellationToken::new())
        .await
        .unwrap();
    assert!(contents(&shop).await.is_empty(), "a dry run writes nothing");
    assert_eq!(dry.kinds.len(), 7);
    assert!(
        dry.kinds
            .values()
            .all(|kind| kind.archived > 0 && kind.raw_now == 0)
    );

    restore_all(&shop).await;
    assert_eq!(contents(&shop).await, before);
    // Twice is as good as once, and where nothing is missing nothing is added.
    let again = restore(&shop, OLD, 2).await.unwrap();
    assert!(again.kinds.values().all(|kind| kind.raw_before == kind.raw_now));
    assert_eq!(contents(&shop).await, before);
    let deliveries: usize = before
        .iter()
        .filter(|(event, _)| event.starts_with("position"))
        .map(|(_, deliveries)| deliveries.len())
        .sum();
    let of_all: u64 = deliveries as u64;
    assert!(again.kinds[&Kind::Position].deliveries.rows <= of_all);

    // The day is looked at again, and nothing has changed.
    assert!(shop.is_dirty(OLD).await);
    let report = shop.recompute().await;
    let of_old = report.days.iter().find(|report| report.day == day(OLD)).unwrap();
    assert_eq!(of_old.outcome, Outcome::Unchanged, "{of_old:?}");
    assert_eq!(shop.published(OLD).await.generation, published.generation);
    assert_eq!(shop.rows(OLD).await, numbers);
    // Its clock starts again.
    let retention = retention(&shop);
    let restored_at = shop.now();
    for (after, goes) in [(90 * DAY_MS - 1, false), (90 * DAY_MS, true)] {
        let (made, _) = mark_as_of(&retention, &shop, "job-2", restored_at + after).await;
        assert_eq!(
            made.days.iter().any(|marked| marked.day == day(OLD)),
            goes,
            "{after}"
        );
    }
    // And it can go once more.
    shop.advance(crate::harness::HUNDRED_DAYS);
    run(&retention, &shop, "job-3").await;
    assert_eq!(raw_rows(&shop, day(OLD)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_adds_to_what_came_late_and_takes_nothing() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    let before = contents(&shop).await;
    run(&retention(&shop), &shop, "job").await;
    shop.post(visit("late", shop.local(OLD, 12.0), 5), 500).await;
    let late = contents(&shop).await;
    restore_all(&shop).await;
    let mut expected = before;
    expected.extend(late);
    assert_eq!(contents(&shop).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_dies_is_done_again() {
    let _alone = FAILPOINTS.write().await;
    for point in ["restore.after_mark", "restore.after_write", "restore.after_rows"] {
        let shop = old_shop().await;
        let before = contents(&shop).await;
        run(&retention(&shop), &shop, "job").await;
        let guard = failpoints::set(point, "1*error").unwrap();
        let died = restore(&shop, OLD, 1).await;
        assert!(
            matches!(died, Err(dwell_retention::Error::Injected(_))),
            "{point}: {died:?}"
        );
        drop(guard);
        shop.advance(std::time::Duration::from_secs(60));
        assert!(
            shop.is_dirty(OLD).await,
            "{point}: it was marked before it was touched"
        );
        restore_all(&shop).await;
        assert_eq!(contents(&shop).await, before, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_cannot_be_read_is_named_and_nothing_of_it_is_written() {
    let _shared = FAILPOINTS.read().await;
    let shop = old_shop().await;
    run(&retention(&shop), &shop, "job").await;
    let file = archived(&shop, day(OLD)).await.events[0].path.clone();
    let path = path_of(&shop, file.rsplit('/').next().unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let report = restore(&shop, OLD, 1).await.unwrap();
    assert!(report.unreadable[0].contains(&file), "{report:?}");
    assert_eq!(raw_rows(&shop, day(OLD)).await, 0);
    assert!(!shop.is_dirty(OLD).await);
}
