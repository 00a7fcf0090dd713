//! Exclusions of an open day: the live rows are those of the deliveries that are left.

use dwell_model::exclusion::{DaySet, Ended, Exclusion, Scope};
use dwell_model::ids::Receipt;
use dwell_storage::api::{Flip, documents};

use super::*;
use crate::testing::Dice;
use crate::testing::events::{assorted, walk};

/// Receipt of the first post of a shop; they are numbered from 0.
const FIRST: u128 = 0;

fn exclusion(shop: &Shop, id: &str, scope: Scope) -> Exclusion {
    Exclusion {
        id: id.to_owned(),
        venue: shop.venue.venue.clone(),
        scope,
        reason: "rubbish".to_owned(),
        made_by: "operator".to_owned(),
        made_at: shop.now(),
        ended: None,
        days: DaySet::default(),
        is_searched: false,
    }
}

async fn store(shop: &Shop, exclusion: &Exclusion) {
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    let stored = documents::store(documents, tenant, &exclusion.id, exclusion, None).await;
    assert_eq!(stored.unwrap(), Flip::Done);
}

async fn undo(shop: &Shop, id: &str) {
    let (documents, tenant, at) = (&*shop.stores.documents, &shop.venue.tenant, shop.now());
    documents::update::<Exclusion>(documents, tenant, id, |known| {
        let mut ended = known.unwrap().clone();
        let (job, by) = ("undo".to_owned(), "operator".to_owned());
        ended.ended = Some(Ended {
            at,
            job,
            by,
            reason: None,
        });
        Some(ended)
    })
    .await
    .unwrap();
}

fn of_receipt(number: u128) -> Scope {
    Scope {
        receipt: Some(Receipt::from_u128(number)),
        ..Scope::default()
    }
}

/// Takes note of what was changed elsewhere, and builds what that asks for.
async fn settle(shop: &Shop, shard: &mut Shard) -> usize {
    shop.pass(5.0);
    shard.upkeep().await.unwrap();
    shop.rebuild(shard).await
}

#[tokio::test]
async fn an_open_day_of_all_kinds_is_that_of_the_deliveries_left_before_and_after_the_undo() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let (mut dice, noon) = (Dice(5), shop.now());
    for person in 0..6 {
        for event in walk(&format!("t{person}"), noon - 7_200_000, 60, &mut dice) {
            shop.post(event).await;
        }
        for event in assorted(noon - 3_600_000 * person, &mut dice) {
            shop.post(event).await;
        }
    }
    shop.write_raw().await;
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
    let full = shop.rows(DAY);

    // What s1 sent, as far as it was received so far.
    let scope = Scope {
        sensor: Some("s1".to_owned()),
        ..Scope::default()
    };
    store(&shop, &exclusion(&shop, "j", scope)).await;
    static MADE_AT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    MADE_AT.store(shop.now(), std::sync::atomic::Ordering::Relaxed);
    *shop.left_out.lock().unwrap() = |sensor, _, delivery| {
        sensor == "s1" && delivery.received_at < MADE_AT.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert!(settle(&shop, &mut shard).await > 0, "the day is built anew");
    assert_ne!(shop.rows(DAY), full);
    shop.assert_equals_batch(DAY).await;

    // Good data of the same sensor, by the ordinary way.
    shop.post(walker("good", shop.now(), 20, 1.0)).await;
    shop.pass(30.0);
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;

    // After a start in another process it is the same.
    let mut other = shop.start().await;
    shop.catch_up(&mut other).await;
    shop.assert_equals_batch(DAY).await;

    undo(&shop, "j").await;
    *shop.left_out.lock().unwrap() = |_, _, _| false;
    settle(&shop, &mut other).await;
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_receipt_that_comes_again_stays_excluded_and_its_events_by_another_count() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let wrong = walker("wrong", shop.now(), 10, 1.0);
    shop.post(wrong.clone()).await;
    shop.post(walker("good", shop.now(), 10, 6.0)).await;
    shop.pass(30.0);
    shop.catch_up(&mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_some());

    store(&shop, &exclusion(&shop, "j", of_receipt(FIRST))).await;
    shop.handle.exclusions_changed();
    shard.upkeep().await.unwrap();
    shop.rebuild(&mut shard).await;
    *shop.left_out.lock().unwrap() = |_, _, delivery| delivery.receipt.to_u128() == FIRST;
    shop.assert_equals_batch(DAY).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_none());
    assert!(zone_of_day(&shop.rows(DAY), "right").is_some());

    // The retry of a gateway that never heard of it: the same receipt, and more of it.
    shop.post_again(FIRST, wrong.clone()).await;
    shop.post_again(FIRST, walker("more", shop.now(), 5, 1.0)).await;
    shop.pass(30.0);
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_none());
    shop.assert_equals_batch(DAY).await;

    // The same events by another request are not excluded, though they were seen before.
    shop.post(wrong).await;
    shop.pass(30.0);
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert_eq!(zone_of_day(&shop.rows(DAY), "left").unwrap().visits, 1);
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_covered_payload_comes_back_into_the_live_view() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let noon = shop.now();
    shop.post(walker("t", noon, 10, 1.0)).await;
    shop.pass(15.0);
    shop.post(walker("t", noon, 10, 6.0)).await;
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_none(), "corrected");
    store(&shop, &exclusion(&shop, "j", of_receipt(FIRST + 1))).await;
    *shop.left_out.lock().unwrap() = |_, _, delivery| delivery.receipt.to_u128() == FIRST + 1;
    settle(&shop, &mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_some());
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn a_day_that_was_being_built_without_an_exclusion_is_not_taken_for_one_with_it() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    shop.post(walker("wrong", shop.now(), 10, 1.0)).await;
    shop.pass(30.0);
    shop.catch_up(&mut shard).await;
    shop.handle
        .request_rebuild(&shop.venue, crate::testing::day(DAY))
        .unwrap();
    shard.upkeep().await.unwrap();
    shop.pass(5.0);
    let job = shard
        .next_rebuild()
        .await
        .unwrap()
        .expect("a rebuild was asked for");
    let built = job.run().await;
    store(&shop, &exclusion(&shop, "j", of_receipt(FIRST))).await;
    shop.handle.exclusions_changed();
    shard.upkeep().await.unwrap();
    shard.adopt(built).await.unwrap();
    shop.rebuild(&mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "left").is_none());
}
