//! Shards that come and go while the service runs.

use std::sync::atomic::Ordering;

use dwell_model::ids::VenueKey;
use dwell_storage::api::{EventLogReader, LiveViewWriter, Shard};
use dwell_storage::error::ErrorKind;

use super::*;
use crate::error::Error;
use crate::handle::Stage;
use crate::testing::live_table::MemoryLiveTable;

impl Running {
    fn give(&self, shards: &[Shard]) {
        let log = self.shop.kind_log.as_ref().unwrap();
        log.given.send_replace(shards.iter().copied().collect());
    }

    fn stage(&self, shard: Shard) -> Option<Stage> {
        let shards = self.handle.shards();
        let known = shards.iter().find(|status| status.shard == shard);
        known.map(|status| status.stage.clone())
    }

    fn fence(&self, shard: Shard) -> u64 {
        let shards = self.handle.shards();
        shards
            .iter()
            .find(|status| status.shard == shard)
            .map_or(0, |status| status.fence)
    }

    fn occupancy(&self, venue: &VenueKey) -> Option<u64> {
        let live = self.handle.shared().board.venue(venue)?;
        let whole = live.occupancy.iter().find(|(zone, _)| zone == "_venue");
        whole.map(|(_, people)| *people)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_the_group_takes_away_is_forgotten_and_one_that_it_gives_back_goes_on() {
    let running = Running::start_split(async |_| {}).await;
    let (shop, mine) = (&running.shop, running.shop.deps.log.shard_of(&running.shop.venue));
    let elsewhere = shop.put_venue_elsewhere().await;
    running.until_ready().await;
    let now = running.clock.now_ms();
    let here = |track| position_batch(&[("s1", track, now, 1.0, 1.0)]);
    shop.post(here("t1")).await;
    shop.append_for(&elsewhere, here("t1")).await;
    running
        .until("both seen", async || {
            running.occupancy(&shop.venue) == Some(1) && running.occupancy(&elsewhere) == Some(1)
        })
        .await;
    let mut watching = running.handle.subscribe(&shop.venue).await.unwrap();
    watching.borrow_and_update();
    let fence = running.fence(mine);

    running.give(&[1 - mine]);
    running
        .until("forgotten", async || {
            running.stage(mine).is_none() && running.occupancy(&shop.venue).is_none()
        })
        .await;
    assert!(watching.borrow_and_update().is_none(), "subscribers are told");
    assert_eq!(running.occupancy(&elsewhere), Some(1), "the other goes on");
    assert!(running.readiness.report().ready);
    let checkpoints = &shop.deps.checkpoints;
    let name = checkpoint::name(shop.deps.log.epoch(), mine);
    let stored = checkpoints.load(&name).await.unwrap().unwrap();
    assert_eq!(stored.fence, fence);
    let left = checkpoint::decode(&stored.bytes).unwrap();
    assert_eq!(left.venues[0].latest_ts, now, "a last checkpoint was stored");

    shop.post(here("t2")).await;
    running.give(&[0, 1]);
    running
        .until("seen again", async || running.occupancy(&shop.venue) == Some(2))
        .await;
    assert!(running.fence(mine) > fence);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_fenced_stops_and_starts_again_only_after_a_rest() {
    let running = Running::start_split(async |_| {}).await;
    let (shop, mine) = (&running.shop, running.shop.deps.log.shard_of(&running.shop.venue));
    running.until_ready().await;
    let name = checkpoint::name(shop.deps.log.epoch(), mine);
    let others = shop.deps.checkpoints.take_ownership(&name).await.unwrap();
    assert_eq!(others, running.fence(mine) + 1);
    let now = running.clock.now_ms();
    shop.post(position_batch(&[("s1", "t1", now, 1.0, 1.0)])).await;
    running
        .until("stopped", async || running.stage(mine) == Some(Stage::TakenOver))
        .await;
    let since = running.clock.monotonic();
    assert_eq!(running.occupancy(&shop.venue), None, "its state is gone");
    assert!(!running.readiness.report().ready);
    assert_eq!(
        running.stage(1 - mine),
        Some(Stage::Following),
        "the other goes on"
    );
    running
        .until("followed again", async || running.fence(mine) > others)
        .await;
    let rested = running.clock.monotonic() - since;
    assert!(rested > Duration::from_millis(800), "it fought: {rested:?}");
    running
        .until("seen", async || {
            running.occupancy(&shop.venue) == Some(1) && running.readiness.report().ready
        })
        .await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_fails_for_good_ends_no_other_and_is_tried_again_when_it_is_given_anew() {
    let running = Running::start_split(async |_| {}).await;
    let (shop, mine) = (&running.shop, running.shop.deps.log.shard_of(&running.shop.venue));
    let elsewhere = shop.put_venue_elsewhere().await;
    running.until_ready().await;
    let log = shop.kind_log.as_ref().unwrap();
    let partition = log.partitions_of(mine)[0];
    *log.broken.lock().unwrap() = Some((partition, ErrorKind::Bug));
    let now = running.clock.now_ms();
    let here = |track| position_batch(&[("s1", track, now, 1.0, 1.0)]);
    shop.post(here("t1")).await;
    running
        .until("stopped", async || {
            matches!(running.stage(mine), Some(Stage::Stopped(_)))
        })
        .await;
    let detail = running.readiness.report().checks[0].state.clone();
    assert!(!detail.ok && detail.detail.unwrap().starts_with(&format!("shard {mine}: ")));
    shop.append_for(&elsewhere, here("t1")).await;
    running
        .until("the other goes on", async || {
            running.occupancy(&elsewhere) == Some(1)
        })
        .await;

    *log.broken.lock().unwrap() = None;
    running.give(&[1 - mine]);
    running
        .until("forgotten", async || running.stage(mine).is_none())
        .await;
    running.give(&[0, 1]);
    running
        .until("seen", async || {
            running.occupancy(&shop.venue) == Some(1) && running.readiness.report().ready
        })
        .await;
    assert!(matches!(running.stop().await, Err(Error::Storage(error)) if error.kind() == ErrorKind::Bug));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_the_log_again_and_again_while_nothing_comes() {
    let running = Running::start_split(async |_| {}).await;
    running.until_ready().await;
    let reads = &running.shop.kind_log.as_ref().unwrap().reads;
    running.clock.sleep(Duration::from_millis(300)).await;
    let before = reads.load(Ordering::Relaxed);
    running.clock.sleep(Duration::from_millis(2_500)).await;
    assert_eq!(reads.load(Ordering::Relaxed) - before, 0);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_in_the_process_is_shown_in_the_table_and_the_last_state_before_it_ends() {
    let mut shop = Shop::open("Europe/Madrid", "2026-03-10", 12.0).await;
    let table = Arc::new(MemoryLiveTable::default());
    shop.deps.live_table = Some(Arc::clone(&table) as Arc<dyn LiveViewWriter>);
    let running = Running::start_in(shop, async |_| {}).await;
    running.until_ready().await;
    let now = running.clock.now_ms();
    running
        .shop
        .post(position_batch(&[("s1", "t1", now, 1.0, 1.0)]))
        .await;
    let venue = running.shop.venue.clone();
    let people = || {
        let row = table.row(&venue)?;
        row.occupancy
            .iter()
            .find(|(zone, _)| zone == "_venue")
            .map(|(_, n)| *n)
    };
    let seen = async {
        while people() != Some(1) {
            running.clock.sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(&*running.clock, Duration::from_secs(1), seen)
        .await
        .expect("not in the table within a second");
    // Posted just before the end: the follower may or may not read it, but the table has what the handle has.
    running
        .shop
        .post(position_batch(&[("s1", "t2", now, 6.0, 1.0)]))
        .await;
    let handle = running.handle.clone();
    running.stop().await.unwrap();
    let live = handle.shared().board.venue(&venue).unwrap();
    assert_eq!(table.row(&venue).unwrap().days, live.days);
}
