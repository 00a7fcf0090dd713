//! What is reverted before days are cut anew, and while they are.

use dwell_batch_layer::BatchLayer;
use dwell_model::event::{Delivery, EventBatch};
use dwell_model::exclusion::{DaySet, Ended, Exclusion, Scope};
use dwell_model::ids::{Receipt, VenueKey};
use dwell_runtime::failpoints;
use dwell_storage::api::{Flip, documents};
use tokio_util::sync::CancellationToken;

use super::common::Shop;
use super::common::gate::Gate;
use super::{
    ALONE, PAST_THE_LEASE, assert_clean, begin_recut, calendar, expected, read, recut, recut_by, small_shop,
    wish,
};

/// What the job `revert` stores at first, of a receipt.
async fn exclude(shop: &Shop, receipt: u128) -> Exclusion {
    let exclusion = Exclusion {
        id: "revert".to_owned(),
        venue: shop.venue.venue.clone(),
        scope: Scope {
            receipt: Some(Receipt::from_u128(receipt)),
            ..Scope::default()
        },
        reason: "rubbish".to_owned(),
        made_by: "operator".to_owned(),
        made_at: shop.now(),
        ended: None,
        days: DaySet::default(),
        is_searched: false,
    };
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    let stored = documents::store(documents, tenant, &exclusion.id, &exclusion, None).await;
    assert_eq!(stored.unwrap(), Flip::Done);
    exclusion
}

/// What the job does next: looks for the days.
async fn search(layer: &BatchLayer, venue: &VenueKey, exclusion: &Exclusion) {
    layer
        .write_down_covered(venue, exclusion, &|_| {}, &CancellationToken::new())
        .await
        .unwrap();
}

/// What the job `undo` does at first.
async fn undo(shop: &Shop) {
    let (documents, tenant, at) = (&*shop.stores.documents, &shop.venue.tenant, shop.now());
    documents::update::<Exclusion>(documents, tenant, "revert", |known| {
        let mut exclusion = known?.clone();
        exclusion.ended = Some(Ended {
            at,
            job: "undo".to_owned(),
            by: "operator".to_owned(),
            reason: None,
        });
        Some(exclusion)
    })
    .await
    .unwrap();
}

/// Numbers without the second visit, which is on the 9th in Madrid and on the 8th in Lisbon; with it when it is undone.
async fn assert_excluded_and_undone(shop: &Shop, delivered: &[(EventBatch, Delivery)], when: &str) {
    let lisbon = calendar("Europe/Lisbon", 0);
    let mut left = delivered.to_vec();
    left.remove(1);
    assert_eq!(read(shop).await.2, expected(&left, &lisbon), "{when}");
    assert_clean(shop, when).await;
    undo(shop).await;
    shop.recompute().await;
    assert_eq!(read(shop).await.2, expected(delivered, &lisbon), "{when}: undone");
    assert_clean(shop, when).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_reverted_while_days_are_cut_anew_counts_in_no_day_of_the_new_cut() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    // The days are found before the flip; or the search is under way when it comes.
    for ends_after_the_flip in [false, true] {
        let (shop, delivered) = small_shop().await;
        let gate = Gate::at("recut.before_decision");
        let working = begin_recut(&shop, lisbon);
        gate.reached().await;
        let exclusion = exclude(&shop, 2).await;
        let search_gate = Gate::at("batch.before_covered_days");
        if !ends_after_the_flip {
            search_gate.let_go();
        }
        let (layer, venue) = (shop.layer.clone(), shop.venue.clone());
        #[allow(clippy::disallowed_methods, reason = "a test's own task, joined below")]
        let searching = tokio::spawn(async move { search(&layer, &venue, &exclusion).await });
        search_gate.reached().await;
        if ends_after_the_flip {
            gate.let_go();
            working.await.unwrap().unwrap();
            search_gate.let_go();
            searching.await.unwrap();
        } else {
            searching.await.unwrap();
            gate.let_go();
            working.await.unwrap().unwrap();
        }
        let when = format!("the search ends after the flip: {ends_after_the_flip}");
        assert!(shop.is_dirty("2026-03-08").await, "{when}");
        shop.recompute().await;
        assert_excluded_and_undone(&shop, &delivered, &when).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reverted_before_days_are_staged_is_left_out_of_them() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    // Before the recut, or between its tries: staged days that did not know of it are not taken over.
    for is_between in [false, true] {
        let (shop, delivered) = small_shop().await;
        if is_between {
            let guard = failpoints::set("recut.before_decision", "1*error:died").unwrap();
            recut_by(&shop.layer, &shop, &wish("1", lisbon))
                .await
                .unwrap_err();
            drop(guard);
            shop.advance(PAST_THE_LEASE);
        }
        let exclusion = exclude(&shop, 2).await;
        search(&shop.layer, &shop.venue, &exclusion).await;
        if !is_between {
            shop.recompute().await;
        }
        recut(&shop, "1", lisbon).await;
        assert_excluded_and_undone(&shop, &delivered, &format!("between two tries: {is_between}")).await;
    }
}
