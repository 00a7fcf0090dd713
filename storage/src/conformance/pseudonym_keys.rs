//! What [`PseudonymKeys`] promises.

use std::sync::Arc;

use super::run_cases;
use super::samples::{DAY_START, day, shop, strangers};
use crate::api::{PseudonymKey, PseudonymKeys, SecretKey, StoredPseudonymKey};

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn PseudonymKeys>>,
{
    run_cases!(
        "pseudonym keys",
        make,
        [
            the_first_candidate_becomes_the_key,
            of_many_candidates_at_once_one_becomes_the_key,
            venues_and_days_have_keys_of_their_own,
            a_key_is_destroyed_when_its_time_is_over_and_stays_destroyed,
            the_time_of_a_key_is_raised_and_never_lowered,
            a_key_is_not_printed,
            looking_up_makes_nothing_and_tells_the_end,
        ]
    );
}

fn key(byte: u8) -> SecretKey {
    SecretKey([byte; 32])
}

fn live(byte: u8) -> PseudonymKey {
    PseudonymKey::Live(key(byte))
}

async fn the_first_candidate_becomes_the_key(store: Arc<dyn PseudonymKeys>) {
    let d = day("2026-03-29");
    assert_eq!(
        store.get_or_create(&shop(), d, key(1), DAY_START).await.unwrap(),
        live(1)
    );
    assert_eq!(
        store.get_or_create(&shop(), d, key(2), DAY_START).await.unwrap(),
        live(1)
    );
    assert_eq!(
        store
            .get_or_create(&shop(), d, key(3), DAY_START + 1)
            .await
            .unwrap(),
        live(1)
    );
}

async fn of_many_candidates_at_once_one_becomes_the_key(store: Arc<dyn PseudonymKeys>) {
    let (venue, d) = (shop(), day("2026-03-29"));
    let asking = (1..=20).map(|n| store.get_or_create(&venue, d, key(n), DAY_START + i64::from(n)));
    let keys: Vec<PseudonymKey> = futures::future::join_all(asking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(
        keys.iter().all(|key| *key == keys[0]),
        "all must work with the same key"
    );
    assert_eq!(
        store.get_or_create(&shop(), d, key(99), DAY_START).await.unwrap(),
        keys[0]
    );
    assert_eq!(
        store.destroy_expired(DAY_START + 19).await.unwrap(),
        0,
        "the latest of all times counts"
    );
    assert_eq!(store.destroy_expired(DAY_START + 20).await.unwrap(), 1);
}

async fn venues_and_days_have_keys_of_their_own(store: Arc<dyn PseudonymKeys>) {
    let d = day("2026-03-29");
    let mut places: Vec<_> = strangers().into_iter().map(|stranger| (stranger, d)).collect();
    places.extend([(shop(), d), (shop(), d.next()), (shop(), d.prev())]);
    for (n, (venue, d)) in places.iter().enumerate() {
        assert_eq!(
            store
                .get_or_create(venue, *d, key(n as u8), DAY_START)
                .await
                .unwrap(),
            live(n as u8)
        );
    }
    for (n, (venue, d)) in places.iter().enumerate() {
        assert_eq!(
            store.get_or_create(venue, *d, key(99), DAY_START).await.unwrap(),
            live(n as u8)
        );
    }
}

async fn a_key_is_destroyed_when_its_time_is_over_and_stays_destroyed(store: Arc<dyn PseudonymKeys>) {
    let d = day("2026-03-29");
    assert_eq!(store.destroy_expired(i64::MAX).await.unwrap(), 0);
    for (n, d) in [d, d.next(), d.next().next()].into_iter().enumerate() {
        store
            .get_or_create(&shop(), d, key(n as u8), DAY_START + n as i64 * 10)
            .await
            .unwrap();
    }
    assert_eq!(store.destroy_expired(DAY_START - 1).await.unwrap(), 0);
    assert_eq!(store.destroy_expired(DAY_START + 10).await.unwrap(), 2);
    assert_eq!(store.destroy_expired(DAY_START + 10).await.unwrap(), 0, "once");
    for d in [d, d.next()] {
        // Not even with a time that lies ahead: the day's key was another.
        let asked = store
            .get_or_create(&shop(), d, key(7), DAY_START + 999)
            .await
            .unwrap();
        assert_eq!(asked, PseudonymKey::Destroyed);
    }
    assert_eq!(
        store
            .get_or_create(&shop(), d.next().next(), key(7), DAY_START)
            .await
            .unwrap(),
        live(2)
    );
    assert_eq!(store.destroy_expired(DAY_START + 1_000).await.unwrap(), 1);
}

async fn the_time_of_a_key_is_raised_and_never_lowered(store: Arc<dyn PseudonymKeys>) {
    let d = day("2026-03-29");
    for keep_until in [DAY_START + 50, DAY_START + 100, DAY_START + 20] {
        store.get_or_create(&shop(), d, key(1), keep_until).await.unwrap();
    }
    assert_eq!(store.destroy_expired(DAY_START + 99).await.unwrap(), 0);
    assert_eq!(store.get_or_create(&shop(), d, key(2), 0).await.unwrap(), live(1));
    assert_eq!(store.destroy_expired(DAY_START + 100).await.unwrap(), 1);
}

async fn a_key_is_not_printed(store: Arc<dyn PseudonymKeys>) {
    let found = store
        .get_or_create(&shop(), day("2026-03-29"), key(0xab), DAY_START)
        .await
        .unwrap();
    let printed = format!("{found:?} {:#?}", key(0xab));
    assert!(!printed.contains("171") && !printed.contains("ab"), "{printed}");
}

async fn looking_up_makes_nothing_and_tells_the_end(store: Arc<dyn PseudonymKeys>) {
    let d = day("2026-03-29");
    assert_eq!(store.look_up(&shop(), d).await.unwrap(), None);
    store.get_or_create(&shop(), d, key(1), DAY_START).await.unwrap();
    store
        .get_or_create(&shop(), d, key(2), DAY_START + 9)
        .await
        .unwrap();
    let stored = |key| {
        Some(StoredPseudonymKey {
            key,
            keep_until: DAY_START + 9,
        })
    };
    assert_eq!(store.look_up(&shop(), d).await.unwrap(), stored(live(1)));
    store.destroy_expired(DAY_START + 9).await.unwrap();
    assert_eq!(
        store.look_up(&shop(), d).await.unwrap(),
        stored(PseudonymKey::Destroyed)
    );
}
