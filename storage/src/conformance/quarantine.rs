//! What [`Quarantine`] promises.

use std::sync::Arc;

use dwell_model::ids::VenueId;

use super::samples::{DAY_START, receipt, tenant};
use super::{assert_kind, run_cases};
use crate::api::{Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineFilter, QuarantineState};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Quarantine>>,
{
    run_cases!(
        "quarantine",
        make,
        [
            an_entry_comes_back_as_it_was,
            an_entry_that_is_there_is_left_as_it_is,
            entries_are_listed_newest_first_in_pages,
            filters_may_be_combined,
            a_tenants_entries_are_bounded,
            an_entry_can_be_settled,
            no_tenant_sees_or_settles_anothers_entries,
            erased_entries_are_gone_and_make_room,
        ]
    );
}

const NO_BOUND: u64 = u64::MAX;

fn entry(id: &str, owner: &str) -> QuarantineEntry {
    QuarantineEntry {
        id: id.to_owned(),
        tenant: tenant(owner),
        venue: Some(VenueId::new("shop").unwrap()),
        received_at: DAY_START,
        receipt: receipt(u128::MAX),
        source: "http".to_owned(),
        index: 3,
        code: "unknown_field".to_owned(),
        message: "the field \"ü\" is not known".to_owned(),
        format: "ndjson".to_owned(),
        encoding: QuarantineEncoding::Plain,
        bytes: vec![0, 255, 10, 13, 0],
        state: QuarantineState::Open,
    }
}

async fn ids(
    store: &dyn Quarantine,
    filter: &QuarantineFilter,
    before: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let entries = store.list(&tenant("acme"), filter, before, limit).await.unwrap();
    entries.into_iter().map(|entry| entry.id).collect()
}

async fn an_entry_comes_back_as_it_was(store: Arc<dyn Quarantine>) {
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), None);
    assert_eq!(store.add(vec![], NO_BOUND).await.unwrap(), 0);
    let full = entry("01", "acme");
    let sparse = QuarantineEntry {
        id: "02".to_owned(),
        venue: None,
        index: 0,
        encoding: QuarantineEncoding::Encrypted,
        bytes: vec![],
        state: QuarantineState::Dropped,
        ..full.clone()
    };
    assert_eq!(
        store
            .add(vec![full.clone(), sparse.clone()], NO_BOUND)
            .await
            .unwrap(),
        2
    );
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(full));
    assert_eq!(store.get(&tenant("acme"), "02").await.unwrap(), Some(sparse));
}

async fn an_entry_that_is_there_is_left_as_it_is(store: Arc<dyn Quarantine>) {
    store.add(vec![entry("01", "acme")], NO_BOUND).await.unwrap();
    store
        .set_state(&tenant("acme"), "01", QuarantineState::Replayed)
        .await
        .unwrap();
    let retried = QuarantineEntry {
        message: "another".to_owned(),
        received_at: 1,
        ..entry("01", "acme")
    };
    assert_eq!(
        store
            .add(vec![retried, entry("02", "acme"), entry("02", "acme")], NO_BOUND)
            .await
            .unwrap(),
        3
    );
    let kept = QuarantineEntry {
        state: QuarantineState::Replayed,
        ..entry("01", "acme")
    };
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(kept));
    assert_eq!(
        ids(&*store, &QuarantineFilter::default(), None, 10).await,
        ["02", "01"]
    );
}

async fn entries_are_listed_newest_first_in_pages(store: Arc<dyn Quarantine>) {
    let entries = [4, 1, 3, 2, 5].map(|n| entry(&format!("0{n}"), "acme")).to_vec();
    store.add(entries, NO_BOUND).await.unwrap();
    let all = QuarantineFilter::default();
    assert_eq!(ids(&*store, &all, None, 10).await, ["05", "04", "03", "02", "01"]);
    assert_eq!(ids(&*store, &all, None, 2).await, ["05", "04"]);
    assert_eq!(ids(&*store, &all, Some("04"), 2).await, ["03", "02"]);
    assert_eq!(ids(&*store, &all, Some("01"), 2).await, [""; 0]);
    assert_eq!(ids(&*store, &all, None, 0).await, [""; 0]);
}

async fn filters_may_be_combined(store: Arc<dyn Quarantine>) {
    let mut entries = Vec::new();
    // Every combination of two venues and none, two codes, two sources, two states.
    for n in 0..24_u32 {
        entries.push(QuarantineEntry {
            venue: [Some("shop"), Some("kiosk"), None][n as usize % 3].map(|id| VenueId::new(id).unwrap()),
            code: ["a", "b"][n as usize / 3 % 2].to_owned(),
            source: ["http", "file.csv"][n as usize / 6 % 2].to_owned(),
            state: [QuarantineState::Open, QuarantineState::Dropped][n as usize / 12],
            ..entry(&format!("{n:02}"), "acme")
        });
    }
    store.add(entries.clone(), NO_BOUND).await.unwrap();
    for venue in [None, Some("shop"), Some("elsewhere")] {
        for code in [None, Some("b")] {
            for source in [None, Some("file.csv")] {
                for state in [None, Some(QuarantineState::Open), Some(QuarantineState::Replayed)] {
                    let venue = venue.map(|id| VenueId::new(id).unwrap());
                    let mut expected: Vec<String> = entries
                        .iter()
                        .filter(|e| venue.is_none() || e.venue == venue)
                        .filter(|e| code.is_none_or(|code| e.code == code))
                        .filter(|e| source.is_none_or(|source| e.source == source))
                        .filter(|e| state.is_none_or(|state| e.state == state))
                        .map(|e| e.id.clone())
                        .collect();
                    expected.reverse();
                    let (code, source) = (code.map(str::to_owned), source.map(str::to_owned));
                    let filter = QuarantineFilter {
                        venue,
                        code,
                        source,
                        state,
                    };
                    assert_eq!(ids(&*store, &filter, None, 100).await, expected, "{filter:?}");
                }
            }
        }
    }
}

async fn a_tenants_entries_are_bounded(store: Arc<dyn Quarantine>) {
    let many = |owner: &str, from: u32, to: u32| -> Vec<QuarantineEntry> {
        (from..to).map(|n| entry(&format!("{n:03}"), owner)).collect()
    };
    assert_eq!(store.add(many("acme", 0, 6), 10).await.unwrap(), 6);
    // Two are there, four more have room, the rest has not.
    assert_eq!(store.add(many("acme", 4, 20), 10).await.unwrap(), 6);
    let kept = ids(&*store, &QuarantineFilter::default(), None, 100).await;
    assert_eq!(kept, (0..10).rev().map(|n| format!("{n:03}")).collect::<Vec<_>>());
    assert_eq!(store.add(many("acme", 30, 31), 10).await.unwrap(), 0);
    // Another tenant's room is its own, in the same call too.
    let mixed = [many("acme", 40, 41), many("other", 0, 3)].concat();
    assert_eq!(store.add(mixed, 10).await.unwrap(), 3);
    assert_eq!(
        store.add(many("acme", 50, 51), 11).await.unwrap(),
        1,
        "a raised bound makes room"
    );
}

async fn an_entry_can_be_settled(store: Arc<dyn Quarantine>) {
    store
        .add(vec![entry("01", "acme"), entry("02", "acme")], NO_BOUND)
        .await
        .unwrap();
    for state in [
        QuarantineState::Replayed,
        QuarantineState::Dropped,
        QuarantineState::Open,
    ] {
        store.set_state(&tenant("acme"), "01", state).await.unwrap();
        store.set_state(&tenant("acme"), "01", state).await.unwrap();
        let expected = QuarantineEntry {
            state,
            ..entry("01", "acme")
        };
        assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(expected));
    }
    assert_eq!(
        store.get(&tenant("acme"), "02").await.unwrap(),
        Some(entry("02", "acme"))
    );
    assert_kind(
        store
            .set_state(&tenant("acme"), "03", QuarantineState::Open)
            .await,
        ErrorKind::NotFound,
    );
}

async fn no_tenant_sees_or_settles_anothers_entries(store: Arc<dyn Quarantine>) {
    // Ids are a tenant's own: the same one may be there twice.
    let mine = entry("01", "acme");
    let theirs = QuarantineEntry {
        message: "theirs".to_owned(),
        ..entry("01", "other")
    };
    store
        .add(vec![mine.clone(), entry("02", "acme")], NO_BOUND)
        .await
        .unwrap();
    assert_eq!(store.get(&tenant("other"), "01").await.unwrap(), None);
    assert_eq!(
        store
            .list(&tenant("other"), &QuarantineFilter::default(), None, 9)
            .await
            .unwrap(),
        []
    );
    assert_eq!(store.add(vec![theirs.clone()], NO_BOUND).await.unwrap(), 1);
    store
        .set_state(&tenant("other"), "01", QuarantineState::Dropped)
        .await
        .unwrap();
    assert_kind(
        store
            .set_state(&tenant("other"), "02", QuarantineState::Dropped)
            .await,
        ErrorKind::NotFound,
    );
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(mine));
    let listed = store
        .list(&tenant("other"), &QuarantineFilter::default(), None, 9)
        .await
        .unwrap();
    assert_eq!(
        listed,
        [QuarantineEntry {
            state: QuarantineState::Dropped,
            ..theirs
        }]
    );
}

async fn erased_entries_are_gone_and_make_room(store: Arc<dyn Quarantine>) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let entries = ["01", "02", "03"].map(|id| entry(id, "acme")).to_vec();
    assert_eq!(store.add(entries, 3).await.unwrap(), 3);
    store.add(vec![entry("02", "other")], 3).await.unwrap();
    for _ in 0..2 {
        let ids = vec!["02".to_owned(), "there is none".to_owned()];
        store.erase(&acme, ids).await.unwrap();
        assert_eq!(store.get(&acme, "02").await.unwrap(), None);
        assert!(store.get(&acme, "01").await.unwrap().is_some());
        assert!(store.get(&other, "02").await.unwrap().is_some());
    }
    assert_eq!(
        store.add(vec![entry("04", "acme")], 3).await.unwrap(),
        1,
        "one has made room"
    );
    assert_eq!(
        store.add(vec![entry("05", "acme")], 3).await.unwrap(),
        0,
        "and one only"
    );
}
