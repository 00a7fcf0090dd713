//! What [`Checkpoints`] promises.

use std::sync::Arc;

use super::{assert_kind, run_cases};
use crate::api::{Checkpoint, Checkpoints};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Checkpoints>>,
{
    run_cases!(
        "checkpoints",
        make,
        [
            fences_only_grow_and_are_each_names_own,
            the_last_stored_state_is_loaded,
            a_new_owner_finds_the_state_of_the_former_one,
            a_former_owner_cannot_store_any_more,
            a_fence_that_was_never_given_out_is_refused,
            owners_at_the_same_time_get_different_fences,
        ]
    );
}

fn state(fence: u64, bytes: &[u8]) -> Checkpoint {
    Checkpoint {
        fence,
        bytes: bytes.to_vec(),
    }
}

async fn fences_only_grow_and_are_each_names_own(store: Arc<dyn Checkpoints>) {
    assert_eq!(store.load("speed/1/0").await.unwrap(), None);
    let first = store.take_ownership("speed/1/0").await.unwrap();
    let second = store.take_ownership("speed/1/0").await.unwrap();
    assert!(0 < first && first < second);
    assert_eq!(store.take_ownership("speed/1/1").await.unwrap(), first);
    assert_eq!(
        store.load("speed/1/0").await.unwrap(),
        None,
        "owning is not storing"
    );
}

async fn the_last_stored_state_is_loaded(store: Arc<dyn Checkpoints>) {
    let fence = store.take_ownership("a").await.unwrap();
    let large = vec![7_u8; 3 << 20];
    for bytes in [b"one".as_slice(), b"", &large, &[0, 255, 0]] {
        store.store("a", state(fence, bytes)).await.unwrap();
        assert_eq!(store.load("a").await.unwrap(), Some(state(fence, bytes)));
    }
    assert_eq!(store.load("b").await.unwrap(), None);
}

async fn a_new_owner_finds_the_state_of_the_former_one(store: Arc<dyn Checkpoints>) {
    let former = store.take_ownership("a").await.unwrap();
    store.store("a", state(former, b"left")).await.unwrap();
    let owner = store.take_ownership("a").await.unwrap();
    assert_eq!(store.load("a").await.unwrap(), Some(state(former, b"left")));
    store.store("a", state(owner, b"taken over")).await.unwrap();
    assert_eq!(store.load("a").await.unwrap(), Some(state(owner, b"taken over")));
}

async fn a_former_owner_cannot_store_any_more(store: Arc<dyn Checkpoints>) {
    let former = store.take_ownership("a").await.unwrap();
    store.store("a", state(former, b"good")).await.unwrap();
    let owner = store.take_ownership("a").await.unwrap();
    // Before the new owner has stored anything, and after.
    assert_kind(store.store("a", state(former, b"bad")).await, ErrorKind::Conflict);
    assert_eq!(store.load("a").await.unwrap(), Some(state(former, b"good")));
    store.store("a", state(owner, b"better")).await.unwrap();
    assert_kind(store.store("a", state(former, b"bad")).await, ErrorKind::Conflict);
    assert_eq!(store.load("a").await.unwrap(), Some(state(owner, b"better")));
}

async fn a_fence_that_was_never_given_out_is_refused(store: Arc<dyn Checkpoints>) {
    assert_kind(store.store("a", state(1, b"x")).await, ErrorKind::Invalid);
    let fence = store.take_ownership("a").await.unwrap();
    assert_kind(store.store("a", state(fence + 1, b"x")).await, ErrorKind::Invalid);
    assert_eq!(store.load("a").await.unwrap(), None);
}

async fn owners_at_the_same_time_get_different_fences(store: Arc<dyn Checkpoints>) {
    let taking = (0..16).map(|_| store.take_ownership("a"));
    let mut fences: Vec<u64> = futures::future::join_all(taking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    fences.sort_unstable();
    fences.dedup();
    assert_eq!(fences.len(), 16);
}
