//! What [`Documents`] promises.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::samples::{day, shop, tenant};
use super::{assert_kind, publications, recuts, run_cases};
use crate::api::{
    DOCUMENT_BYTES_MAX, Document, DocumentKind, Documents, Flip, ListFrom, Pin, Pinned, documents, pins,
};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Documents>>,
{
    run_cases!(
        "documents",
        make,
        [
            a_document_comes_back_as_it_was,
            storing_needs_the_version_read_before,
            of_two_who_change_a_document_one_wins,
            lists_are_by_id_in_either_direction,
            collections_and_tenants_are_apart,
            what_is_too_long_is_refused,
            changes_of_many_are_all_made,
            a_pin_holds_until_it_ends_or_is_released,
            a_pin_is_renewed_by_its_holder_and_released_by_nobody_else,
            recuts::the_newest_wish_stands_and_one_job_asks_once,
            recuts::one_at_a_time_stages_and_keeps_others_away,
            recuts::only_who_stages_decides_and_nobody_takes_that_back,
            recuts::every_former_cut_is_remembered_with_its_end,
            recuts::of_a_staged_day_the_highest_fence_stands,
            publications::a_venue_of_before_begins_with_what_is_published,
            publications::each_is_listed_once_whatever_dies_when,
            publications::entries_come_by_number_and_by_time,
        ]
    );
}

const SHELF: &str = "shelf";

async fn put(store: &Arc<dyn Documents>, id: &str, body: Value, version: Option<u64>) -> Flip {
    store.put(&tenant("a"), SHELF, id, &body, version).await.unwrap()
}

async fn a_document_comes_back_as_it_was(store: Arc<dyn Documents>) {
    let body = json!({"text": "Süd \"2\" \u{1f6d2}", "number": -9_007_199_254_740_993_i64, "none": null, "list": [1.5, true]});
    assert_eq!(put(&store, "one", body.clone(), None).await, Flip::Done);
    let expected = Document {
        id: "one".to_owned(),
        version: 1,
        body,
    };
    assert_eq!(
        store.get(&tenant("a"), SHELF, "one").await.unwrap(),
        Some(expected)
    );
    assert_eq!(store.get(&tenant("a"), SHELF, "two").await.unwrap(), None);
}

async fn storing_needs_the_version_read_before(store: Arc<dyn Documents>) {
    assert_eq!(put(&store, "x", json!(1), Some(1)).await, Flip::Lost, "not there");
    assert_eq!(put(&store, "x", json!(1), None).await, Flip::Done);
    assert_eq!(
        put(&store, "x", json!(2), None).await,
        Flip::Lost,
        "there already"
    );
    assert_eq!(put(&store, "x", json!(3), Some(1)).await, Flip::Done);
    assert_eq!(
        put(&store, "x", json!(4), Some(1)).await,
        Flip::Lost,
        "an old version"
    );
    let found = store.get(&tenant("a"), SHELF, "x").await.unwrap().unwrap();
    assert_eq!((found.version, found.body), (2, json!(3)));
}

async fn of_two_who_change_a_document_one_wins(store: Arc<dyn Documents>) {
    assert_eq!(put(&store, "x", json!("first"), None).await, Flip::Done);
    let (left, right) = tokio::join!(
        put(&store, "x", json!("left"), Some(1)),
        put(&store, "x", json!("right"), Some(1)),
    );
    let winner = match (left, right) {
        (Flip::Done, Flip::Lost) => "left",
        (Flip::Lost, Flip::Done) => "right",
        both => panic!("{both:?}"),
    };
    let found = store.get(&tenant("a"), SHELF, "x").await.unwrap().unwrap();
    assert_eq!((found.version, found.body), (2, json!(winner)));
}

async fn lists_are_by_id_in_either_direction(store: Arc<dyn Documents>) {
    for id in ["b", "B", "a1", "a"] {
        assert_eq!(put(&store, id, json!(id), None).await, Flip::Done);
    }
    let ids = async |from: ListFrom<'_>, limit: usize| -> Vec<String> {
        let listed = store.list(&tenant("a"), SHELF, from, limit).await.unwrap();
        listed.into_iter().map(|document| document.id).collect()
    };
    assert_eq!(ids(ListFrom::After(None), 10).await, ["B", "a", "a1", "b"]);
    assert_eq!(ids(ListFrom::After(None), 2).await, ["B", "a"]);
    assert_eq!(ids(ListFrom::After(Some("a")), 10).await, ["a1", "b"]);
    assert_eq!(ids(ListFrom::Before(None), 3).await, ["b", "a1", "a"]);
    assert_eq!(ids(ListFrom::Before(Some("a1")), 10).await, ["a", "B"]);
    assert_eq!(ids(ListFrom::Before(Some("B")), 10).await, [""; 0]);
}

async fn collections_and_tenants_are_apart(store: Arc<dyn Documents>) {
    let (mine, other) = (tenant("a"), tenant("b"));
    for (owner, collection) in [(&mine, "two"), (&mine, "one"), (&other, "one")] {
        let body = json!(format!("{owner}/{collection}"));
        assert_eq!(
            store.put(owner, collection, "x", &body, None).await.unwrap(),
            Flip::Done
        );
    }
    assert_eq!(store.collections(&mine).await.unwrap(), ["one", "two"]);
    assert_eq!(store.collections(&other).await.unwrap(), ["one"]);
    assert_eq!(store.collections(&tenant("c")).await.unwrap(), [""; 0]);
    let found = store.get(&other, "one", "x").await.unwrap().unwrap();
    assert_eq!(found.body, json!("b/one"));
    assert_eq!(store.get(&other, "two", "x").await.unwrap(), None);
    assert_eq!(
        store.list(&other, "two", ListFrom::After(None), 9).await.unwrap(),
        []
    );
}

async fn what_is_too_long_is_refused(store: Arc<dyn Documents>) {
    let fits = json!("x".repeat(DOCUMENT_BYTES_MAX - 2));
    assert_eq!(put(&store, "fits", fits.clone(), None).await, Flip::Done);
    assert_eq!(
        store
            .get(&tenant("a"), SHELF, "fits")
            .await
            .unwrap()
            .unwrap()
            .body,
        fits
    );
    let long = json!("x".repeat(DOCUMENT_BYTES_MAX - 1));
    let refused = store.put(&tenant("a"), SHELF, "long", &long, None).await;
    assert_kind(refused, ErrorKind::Invalid);
}

#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    count: u64,
}

impl DocumentKind for Tally {
    const COLLECTION: &'static str = "tallies";
}

async fn changes_of_many_are_all_made(store: Arc<dyn Documents>) {
    let tenant = tenant("a");
    let raise = || async {
        for _ in 0..3 {
            let raised = documents::update::<Tally>(store.as_ref(), &tenant, "t", |before| {
                Some(Tally {
                    count: before.map_or(0, |tally| tally.count) + 1,
                })
            });
            raised.await.unwrap();
        }
    };
    tokio::join!(raise(), raise());
    let all = documents::all::<Tally>(store.as_ref(), &tenant).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].value.count, all[0].version), (6, 6));
}

fn pin(holder: &str, expires_at: i64) -> Pin {
    Pin {
        holder: holder.to_owned(),
        reason: "reads".to_owned(),
        set_at: expires_at - 10,
        expires_at,
        files: Pinned::These(["venue=v/day=2026-03-29/a.parquet".to_owned()].into()),
        generations: Pinned::None,
    }
}

async fn a_pin_holds_until_it_ends_or_is_released(store: Arc<dyn Documents>) {
    let (a, store, v) = (tenant("a"), store.as_ref(), shop().venue);
    let d = day("2026-03-29");
    pins::hold(store, &a, "one", &pin("job", 100)).await.unwrap();
    let of_generations = Pin {
        files: Pinned::None,
        generations: Pinned::All,
        ..pin("other", 50)
    };
    pins::hold(store, &a, "two", &of_generations).await.unwrap();
    let held = pins::held(store, &a, 49).await.unwrap();
    assert!(held.holds_file("venue=v/day=2026-03-29/a.parquet") && !held.holds_file("b.parquet"));
    assert!(held.holds_generation(&v, d, 7));
    let later = pins::held(store, &a, 50).await.unwrap();
    assert!(!later.holds_generation(&v, d, 7) && later.pins().len() == 1);
    assert!(
        pins::held(store, &tenant("b"), 49)
            .await
            .unwrap()
            .pins()
            .is_empty()
    );
    pins::release(store, &a, "one", "job", 60).await.unwrap();
    assert!(pins::held(store, &a, 60).await.unwrap().pins().is_empty());
}

async fn a_pin_is_renewed_by_its_holder_and_released_by_nobody_else(store: Arc<dyn Documents>) {
    let (a, store) = (tenant("a"), store.as_ref());
    let ends = async || {
        let held = pins::held(store, &a, 0).await.unwrap();
        held.pins().iter().map(|pin| pin.expires_at).collect::<Vec<_>>()
    };
    for (expires_at, stands) in [(100, 100), (300, 300), (200, 300)] {
        pins::hold(store, &a, "one", &pin("job", expires_at))
            .await
            .unwrap();
        assert_eq!(ends().await, [stands]);
    }
    pins::release(store, &a, "one", "stranger", 10).await.unwrap();
    assert_eq!(ends().await, [300]);
    pins::hold(store, &a, "one", &pin("next", 50)).await.unwrap();
    assert_eq!(ends().await, [50], "another holder's pin takes its place");
}
