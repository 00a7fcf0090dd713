//! A shard on the embedded stores, step by step.

mod exclusions;
mod gaps;
mod golden;
mod owners;
mod partitions;

use dwell_model::event::EventBatch;
use dwell_model::testing::position_batch;

use super::*;
use crate::testing::{Shop, zone_of_day};

const DAY: &str = "2026-03-10";

/// Someone at a place, every second from a time on, so many times.
fn walker(track: &str, from: i64, seconds: i64, x: f32) -> EventBatch {
    let rows: Vec<_> = (0..seconds)
        .map(|s| ("s1", track, from + s * 1_000, x, 2.0_f32))
        .collect();
    position_batch(&rows)
}

#[tokio::test]
async fn a_lone_event_shows_at_the_next_tick_and_its_person_is_gone_after_the_session_gap() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    assert_eq!(
        (
            shop.occupancy("left"),
            shop.occupancy("right"),
            shop.occupancy("_venue")
        ),
        (0, 0, 0)
    );
    assert!(shop.rows(DAY).is_empty());

    shop.post(walker("t1", shop.now(), 1, 1.0)).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(
        (
            shop.occupancy("left"),
            shop.occupancy("right"),
            shop.occupancy("_venue")
        ),
        (1, 0, 1)
    );
    let left = zone_of_day(&shop.rows(DAY), "left").unwrap();
    assert_eq!((left.visits, left.visitors, left.dwell_ms), (1, Some(1), 0));
    assert_eq!(shop.live().open_sessions, 1);

    shop.pass(30.0);
    shard.tick().unwrap();
    assert_eq!(shop.occupancy("left"), 1, "the gap is not more than 30 s yet");
    shop.pass(0.001);
    shard.tick().unwrap();
    assert_eq!(
        (
            shop.occupancy("left"),
            shop.occupancy("_venue"),
            shop.live().open_sessions
        ),
        (0, 0, 0)
    );
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_redelivery_is_neither_counted_nor_late() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    for _ in 0..3 {
        shop.post(walker("t1", from, 20, 1.0)).await;
        shop.pass(60.0);
        shop.post(walker("t2", shop.now(), 1, 6.0)).await;
        shop.catch_up(&mut shard).await;
    }
    assert_eq!(shop.live().late_events, 0);
    assert_eq!(shop.rebuild(&mut shard).await, 0);
    let left = zone_of_day(&shop.rows(DAY), "left").unwrap();
    assert_eq!((left.visits, left.dwell_ms), (1, 19_000));
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_late_event_is_counted_and_after_a_rebuild_within_a_minute_as_if_it_had_come_in_time() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    // From 12:00:00 to 12:00:19, then from 12:00:40 on: the gap of 21 s hides nothing yet.
    shop.post(walker("t1", from, 20, 1.0)).await;
    shop.pass(60.0);
    shop.post(walker("t1", from + 60_000, 2, 1.0)).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(
        zone_of_day(&shop.rows(DAY), "left").unwrap().visits,
        2,
        "40 s lie between the two stays"
    );
    shop.pass(20.0);
    shop.post(walker("t2", shop.now(), 1, 6.0)).await;
    shop.catch_up(&mut shard).await;
    // What joins the two comes late.
    shop.post(walker("t1", from + 40_000, 1, 1.0)).await;
    shop.write_raw().await;
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.live().late_events, 1);
    assert_eq!(zone_of_day(&shop.rows(DAY), "left").unwrap().visits, 2);
    assert!(
        shard.next_rebuild().await.unwrap().is_none(),
        "its companions are waited for"
    );
    assert_eq!(shop.rebuild(&mut shard).await, 1);
    let left = zone_of_day(&shop.rows(DAY), "_venue").unwrap();
    assert_eq!(
        (left.visits, left.dwell_ms),
        (2, 61_000),
        "one stay of t1, one of t2"
    );
    assert_eq!(shop.live().late_events, 1);
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_late_event_that_nothing_settled_depends_on_needs_no_rebuild() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.post(walker("t1", shop.now(), 5, 1.0)).await;
    shop.catch_up(&mut shard).await;
    shop.post(walker("t2", shop.now() - 600_000, 20, 6.0)).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.live().late_events, 20);
    assert_eq!(zone_of_day(&shop.rows(DAY), "right").unwrap().dwell_ms, 19_000);
    assert_eq!(shop.rebuild(&mut shard).await, 0);
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_correction_counts_as_late_and_wins_after_a_rebuild_and_a_stale_retry_changes_nothing() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    let first = walker("t1", from, 20, 1.0);
    let corrected = walker("t1", from, 20, 6.0);
    shop.post(first.clone()).await;
    shop.catch_up(&mut shard).await;
    shop.pass(1.0);
    shop.post(corrected).await;
    shop.pass(1.0);
    shop.post(first).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.live().late_events, 20, "the retry was known");
    shop.write_raw().await;
    assert!(shop.rebuild(&mut shard).await >= 1);
    let rows = shop.rows(DAY);
    assert_eq!(zone_of_day(&rows, "left"), None);
    assert_eq!(zone_of_day(&rows, "right").unwrap().dwell_ms, 19_000);
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_rebuild_takes_the_tail_of_the_log_that_raw_lacks_and_what_comes_meanwhile() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    shop.post(walker("t1", from, 20, 1.0)).await;
    shop.write_raw().await;
    shop.post(walker("t1", from, 1, 1.5)).await; // a correction that raw has not got
    shop.post(walker("t2", from, 20, 6.0)).await; // nor this
    shop.catch_up(&mut shard).await;
    shop.pass(3.0);
    let job = shard.next_rebuild().await.unwrap().unwrap();
    shop.post(walker("t3", from + 3_000, 10, 1.0)).await;
    shop.catch_up(&mut shard).await; // this comes while the day is built
    let outcome = job.run().await;
    shop.post(walker("t4", from + 3_000, 10, 1.0)).await; // and this is not read yet
    shard.adopt(outcome).await.unwrap();
    shard.tick().unwrap();
    assert_eq!(zone_of_day(&shop.rows(DAY), "_venue").unwrap().visits, 3);
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn after_a_kill_the_numbers_are_the_same() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    shop.post(walker("t1", from - 600_000, 20, 1.0)).await;
    shop.write_raw().await;
    shop.post(walker("t2", from, 20, 6.0)).await;
    shop.catch_up(&mut shard).await;
    shop.post(walker("t3", from - 700_000, 5, 6.0)).await;
    shop.catch_up(&mut shard).await;
    shard.checkpoint().await.unwrap();
    let before = shop.live();
    assert_eq!(before.late_events, 5);
    drop(shard); // no goodbye

    let mut shard = shop.start().await;
    shard.tick().unwrap();
    let after = shop.live();
    assert!(after.fence > before.fence);
    assert_eq!(after.days, before.days, "without reading any of the log again");
    assert_eq!(
        (&after.occupancy, after.late_events),
        (&before.occupancy, before.late_events)
    );
    assert_eq!(after.watermark, before.watermark);
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn without_a_checkpoint_or_with_a_damaged_one_it_starts_from_raw() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    shop.post(walker("t1", shop.now() - 600_000, 20, 1.0)).await;
    shop.write_raw().await;
    shop.post(walker("t2", shop.now(), 20, 6.0)).await;
    let mut shard = shop.start().await;
    shard.tick().unwrap();
    assert_eq!(
        zone_of_day(&shop.rows(DAY), "_venue").unwrap().visits,
        1,
        "what raw holds"
    );
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;

    let name = checkpoint::name(shop.deps.log.epoch(), 0);
    let fence = shop.deps.checkpoints.take_ownership(&name).await.unwrap();
    shop.deps
        .checkpoints
        .store(
            &name,
            Checkpoint {
                fence,
                bytes: vec![7; 40],
            },
        )
        .await
        .unwrap();
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_former_owner_can_neither_store_nor_show() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut former = shop.start().await;
    shop.catch_up(&mut former).await;
    former.checkpoint().await.unwrap();
    let mut owner = shop.start().await;
    shop.post(walker("t1", shop.now(), 1, 1.0)).await;
    shop.catch_up(&mut owner).await;
    owner.checkpoint().await.unwrap();
    let shown = shop.live();

    shop.pass(5.0);
    assert!(matches!(former.tick(), Err(Error::TakenOver { .. })));
    assert_eq!(shop.live(), shown);
    while former.follow().await.unwrap() {}
    assert!(matches!(former.checkpoint().await, Err(Error::TakenOver { fence, .. }) if fence < shown.fence));
    owner.tick().unwrap();
    assert_eq!(shop.occupancy("left"), 1);
}

#[tokio::test]
async fn another_layout_rebuilds_the_open_day_and_another_time_zone_cuts_it_anew() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.post(walker("t1", shop.now(), 20, 1.0)).await;
    shop.catch_up(&mut shard).await;
    let before = shop.live().days[0].layout;

    let everywhere = r#"{"id":"all","polygon":[[0,0],[10,0],[10,8],[0,8]]}"#;
    shop.put_venue(&crate::testing::venue_spec("Europe/Madrid", everywhere))
        .await;
    shop.pass(3.0);
    shard.upkeep().await.unwrap();
    assert_eq!(shop.rebuild(&mut shard).await, 1);
    assert_ne!(shop.live().days[0].layout, before);
    assert_eq!(zone_of_day(&shop.rows(DAY), "all").unwrap().visits, 1);
    assert_eq!(zone_of_day(&shop.rows(DAY), "left"), None);
    shop.assert_equals_batch(DAY).await;

    // 12:00 in Madrid is 00:00 of the next day in Auckland.
    shop.put_venue(&crate::testing::venue_spec("Pacific/Auckland", everywhere))
        .await;
    shop.pass(3.0);
    shard.upkeep().await.unwrap();
    assert!(shop.rebuild(&mut shard).await >= 1);
    shop.assert_equals_batch("2026-03-11").await;
}

#[tokio::test]
async fn a_closed_day_stays_until_its_final_generation_is_published() {
    let shop = Shop::open("Europe/Madrid", DAY, 23.99).await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    let end = shop.at("2026-03-11", 0.0).await;
    shop.post(walker("t1", end - 10_000, 20, 1.0)).await; // across midnight
    shop.clock.set_ms(end + 9_000);
    shop.catch_up(&mut shard).await;
    assert_eq!(
        shop.occupancy("_venue"),
        1,
        "one person, though with a session in each day"
    );
    shop.pass(600.0);
    shop.post(walker("t2", shop.now(), 1, 1.0)).await;
    shop.catch_up(&mut shard).await;
    let days: Vec<String> = shop
        .live()
        .days
        .iter()
        .map(|shown| shown.day.to_string())
        .collect();
    assert_eq!(days, ["2026-03-10", "2026-03-11"]);
    shop.assert_equals_batch(DAY).await;
    shop.assert_equals_batch("2026-03-11").await;

    // Late for yesterday, which nobody else answers for yet.
    shop.post(walker("t3", end - 3_600_000, 5, 6.0)).await;
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    shop.assert_equals_batch(DAY).await;

    shop.publish(DAY, true, Default::default()).await;
    shop.pass(6.0);
    shard.upkeep().await.unwrap();
    shop.catch_up(&mut shard).await;
    assert_eq!(
        shop.live().days.len(),
        2,
        "a provisional generation does not answer for it"
    );
    shop.publish(DAY, false, Default::default()).await;
    shop.pass(6.0);
    shard.upkeep().await.unwrap();
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.live().days.len(), 1);

    // From now on late events of that day are the nightly run's.
    let late = shop.live().late_events;
    shop.post(walker("t4", end - 3_600_000, 5, 6.0)).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.live().late_events, late + 5);
    assert_eq!(shop.rebuild(&mut shard).await, 0);
    let mut restarted = shop.start().await;
    shop.catch_up(&mut restarted).await;
    assert_eq!(shop.live().days.len(), 1);
}

#[tokio::test]
async fn events_of_a_closed_day_that_was_never_live_bring_it_back_until_it_is_published() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    shop.post(walker("t1", shop.now() - 36 * 3_600_000, 20, 1.0))
        .await; // the day before
    shop.post(walker("t1", shop.now() - 30 * 86_400_000, 20, 1.0))
        .await; // out of reach
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    let days: Vec<String> = shop
        .live()
        .days
        .iter()
        .map(|shown| shown.day.to_string())
        .collect();
    assert_eq!(days, ["2026-03-09", "2026-03-10"]);
    shop.assert_equals_batch("2026-03-09").await;
    assert_eq!(shop.live().late_events, 40);
}

#[tokio::test]
async fn a_venue_is_met_when_its_first_events_come_and_an_unknown_one_harms_nobody() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.catch_up(&mut shard).await;
    let mut other = crate::testing::venue_spec("Europe/Madrid", crate::testing::ZONES);
    other.id = dwell_model::ids::VenueId::new("young").unwrap();
    let young = VenueKey::new(shop.venue.tenant.clone(), other.id.clone());
    shop.append_for(&young, walker("t1", shop.now(), 1, 1.0)).await;
    shop.post(walker("t1", shop.now(), 1, 1.0)).await;
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.occupancy("left"), 1);
    assert!(shop.handle.shared().board.venue(&young).is_none());

    use dwell_storage::api::Registry;
    let flip = shop
        .stores
        .registry
        .put_venue(&young.tenant, &other, None)
        .await
        .unwrap();
    assert_eq!(flip, dwell_storage::api::Flip::Done);
    shop.pass(3.0);
    shard.upkeep().await.unwrap();
    shop.catch_up(&mut shard).await;
    let live = shop.handle.shared().board.venue(&young).unwrap();
    assert_eq!(
        zone_of_day(&live.days[0].rows, "left").unwrap().visits,
        1,
        "also what came before it was known"
    );
}

#[tokio::test]
async fn a_rebuild_waits_for_a_raw_writer_that_is_far_behind() {
    let mut shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    shop.config.tail_events_max = 30;
    let mut shard = shop.start().await;
    let from = shop.now();
    shop.post(walker("t1", from, 40, 1.0)).await;
    shop.post(walker("t1", from, 1, 1.5)).await;
    shop.catch_up(&mut shard).await;
    shop.pass(3.0);
    let job = shard.next_rebuild().await.unwrap().unwrap();
    let outcome = job.run().await;
    shard.adopt(outcome).await.unwrap();
    shop.write_raw().await;
    assert_eq!(shop.rebuild(&mut shard).await, 1);
    shop.assert_equals_batch(DAY).await;
    // A start with the raw writer far behind reads the log from there instead of holding it in memory.
    shop.post(walker("t2", from, 40, 6.0)).await;
    shop.catch_up(&mut shard).await;
    shard.checkpoint().await.unwrap();
    let mut restarted = shop.start().await;
    shop.catch_up(&mut restarted).await;
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_full_reorder_window_settles_early_and_a_rebuild_puts_it_right() {
    let mut shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    shop.config.waiting_events_max = 10;
    let mut shard = shop.start().await;
    let from = shop.now();
    shop.post(walker("t1", from, 20, 1.0)).await;
    shop.catch_up(&mut shard).await;
    shop.post(walker("t1", from, 1, 1.0)).await;
    shop.post({
        let mut shifted = walker("t1", from + 500, 3, 1.0);
        shifted.ts[2] = from + 19_500;
        shifted
    })
    .await;
    shop.write_raw().await;
    shop.catch_up(&mut shard).await;
    assert!(shop.live().late_events >= 2, "{}", shop.live().late_events);
    shop.rebuild(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
}
