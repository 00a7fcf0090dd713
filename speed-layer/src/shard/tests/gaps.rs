//! A log that no longer holds what was to be read next.

use dwell_storage::api::{ConsumerPosition, EventLogAdmin, RawEventsWriter, RawWrite};

use super::*;
use crate::rebuild::RAW_WRITER;

/// Lets the log forget everything that it holds now.
async fn forget_all(shop: &Shop) -> i64 {
    let end = shop.deps.log.bounds(0).await.unwrap().end;
    shop.stores.log.trim(0, i64::MAX, end).await.unwrap();
    let start = shop.deps.log.bounds(0).await.unwrap().start;
    assert_eq!(start, end, "the log holds nothing any more");
    end
}

#[tokio::test]
async fn a_consumer_away_for_longer_than_the_log_keeps_starts_from_raw_and_names_the_gap() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.post(walker("t1", shop.now(), 20, 1.0)).await;
    shop.catch_up(&mut shard).await;
    shard.checkpoint().await.unwrap();
    drop(shard);
    let away_from = shop.deps.log.bounds(0).await.unwrap().end;
    for i in 0..5 {
        shop.post(walker("t2", shop.now() + i * 60_000, 20, 6.0)).await;
    }
    shop.write_raw().await;
    let away_to = forget_all(&shop).await;
    shop.pass(600.0);
    shop.post(walker("t3", shop.now(), 3, 1.0)).await;

    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
    shard.report(LogLag::default());
    let gap = shop.handle.shards()[0].gaps[0];
    assert_eq!((gap.partition, gap.from, gap.to), (0, away_from, away_to));
    assert_eq!(
        (gap.records(), gap.is_complete, gap.noticed_at),
        (5, true, shop.now())
    );
    assert_eq!(shard.remark(), None, "raw holds all of it");
    // It is over with the next checkpoint.
    shard.checkpoint().await.unwrap();
    assert!(shop.start().await.gaps.is_empty());
}

#[tokio::test]
async fn a_gap_that_the_raw_writer_has_not_passed_is_named_until_it_has() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    shop.post(walker("t1", shop.now(), 20, 1.0)).await;
    shop.write_raw().await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    let from = shop.deps.log.bounds(0).await.unwrap().end;
    shop.post(walker("t2", shop.now(), 20, 6.0)).await;
    let to = forget_all(&shop).await;
    let error = shard.follow().await.unwrap_err();
    assert!(matches!(error, Error::Gap { partition: 0, .. }), "{error}");
    assert!(
        error.to_string().contains("partition 0 no longer holds position"),
        "{error}"
    );

    shop.post(walker("t3", shop.now(), 3, 6.0)).await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    assert_eq!(
        zone_of_day(&shop.rows(DAY), "_venue").unwrap().visits,
        2,
        "what raw and log hold, without t2"
    );
    let gap = shard.gaps[0];
    assert_eq!((gap.from, gap.to, gap.is_complete), (from, to, false));
    let remark = shard.remark().unwrap();
    assert!(
        remark.starts_with(&format!(
            "the event log lost 1 records of partition 0 (positions {from} to {to}) that the raw table lacks too"
        )),
        "{remark}"
    );
    shard.checkpoint().await.unwrap();
    let mut shard = shop.start().await;
    assert_eq!(shard.gaps.len(), 1, "a restart does not forget it");

    // Somebody lets the raw writer go on behind the gap, and restores what it missed.
    shop.pass(6.0);
    shard.upkeep().await.unwrap();
    assert!(!shard.gaps[0].is_complete);
    let (consumer, epoch) = (RAW_WRITER, shop.deps.log.epoch());
    shop.write_lost_rows(&["t2"]).await;
    let position = Some(ConsumerPosition {
        consumer,
        epoch,
        partition: 0,
        position: to,
    });
    let write = RawWrite {
        position,
        ..RawWrite::default()
    };
    shop.stores.raw.apply(write).await.unwrap();
    shop.pass(6.0);
    shard.upkeep().await.unwrap();
    assert!(shard.gaps[0].is_complete && shard.remark().is_none());
    assert_eq!(shop.rebuild(&mut shard).await, 1);
    shop.assert_equals_batch(DAY).await;
}
