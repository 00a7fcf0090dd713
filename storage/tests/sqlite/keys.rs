//! Destroyed keys leave no trace in the files.

use std::collections::BTreeMap;
use std::path::Path;

use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_storage::api::{PseudonymKey, PseudonymKeys, SecretKey};
use dwell_storage::backends::sqlite::SqlitePseudonymKeys;
use dwell_storage::conformance::samples::{DAY_START, Dice, day, venue};

/// A key whose bytes stand nowhere else.
fn key(number: u64) -> SecretKey {
    let mut dice = Dice::new(number + 1);
    SecretKey(std::array::from_fn(|_| 1 + dice.below(255) as u8))
}

fn bytes_of_files(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        all.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    all
}

/// Positions by the first eight bytes, so that all keys are looked for in one pass.
fn found(bytes: &[u8], keys: &[SecretKey]) -> Vec<usize> {
    let by_start: BTreeMap<[u8; 8], usize> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| (key.0[..8].try_into().unwrap(), n))
        .collect();
    let mut found: Vec<usize> = bytes
        .windows(8)
        .filter_map(|window| by_start.get(<&[u8; 8]>::try_from(window).unwrap()).copied())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[tokio::test]
async fn destroyed_keys_are_gone_from_every_byte_of_the_files_and_live_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlitePseudonymKeys::open(&dir.path().join("keys.db")).unwrap();
    // Hundreds of keys, on many pages, in an order that is not the index's, some with a time that is raised later.
    let mut places: Vec<(VenueKey, LocalDay)> = Vec::new();
    for shop in 0..20 {
        for n in 0..20 {
            places.push((venue("acme", &format!("shop-{shop}")), day("2026-03-29").plus(n)));
        }
    }
    Dice::new(1).shuffle(&mut places);
    let keys: Vec<SecretKey> = (0..places.len() as u64).map(key).collect();
    for (n, (venue, d)) in places.iter().enumerate() {
        store
            .get_or_create(venue, *d, keys[n].clone(), DAY_START + n as i64 % 7)
            .await
            .unwrap();
        if n % 5 == 0 {
            let (venue, d) = &places[n / 2];
            store
                .get_or_create(venue, *d, key(999_999), DAY_START + 100)
                .await
                .unwrap();
        }
    }
    let raised = |n: usize| (0..places.len()).any(|later| later % 5 == 0 && later / 2 == n);
    assert_eq!(
        found(&bytes_of_files(dir.path()), &keys).len(),
        keys.len(),
        "the search finds what is there"
    );

    let expired: Vec<usize> = (0..places.len()).filter(|&n| n % 7 <= 3 && !raised(n)).collect();
    assert_eq!(
        store.destroy_expired(DAY_START + 3).await.unwrap(),
        expired.len() as u64
    );
    let left: Vec<usize> = (0..places.len()).filter(|n| !expired.contains(n)).collect();
    assert_eq!(found(&bytes_of_files(dir.path()), &keys), left);
    for (n, (venue, d)) in places.iter().enumerate() {
        let expected = match expired.contains(&n) {
            true => PseudonymKey::Destroyed,
            false => PseudonymKey::Live(keys[n].clone()),
        };
        assert_eq!(
            store.get_or_create(venue, *d, key(999_999), 0).await.unwrap(),
            expected
        );
    }
    drop(store);
    assert_eq!(found(&bytes_of_files(dir.path()), &keys), left);
}

/// The process dies after the destruction has committed and before the WAL was emptied.
#[tokio::test]
async fn a_destruction_that_was_cut_short_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.db");
    let store = SqlitePseudonymKeys::open(&path).unwrap();
    store
        .get_or_create(&venue("acme", "shop"), day("2026-03-29"), key(1), DAY_START)
        .await
        .unwrap();
    let outside = rusqlite::Connection::open(&path).unwrap();
    outside
        .execute("UPDATE keys SET key = zeroblob(32), destroyed = 1", [])
        .unwrap();
    assert_eq!(
        found(&bytes_of_files(dir.path()), &[key(1)]),
        [0],
        "an older state of the page is in the WAL"
    );
    drop(outside);
    assert_eq!(store.destroy_expired(DAY_START).await.unwrap(), 0);
    assert!(found(&bytes_of_files(dir.path()), &[key(1)]).is_empty());
}
