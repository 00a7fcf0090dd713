//! What [`Erasures`] promises.

use std::sync::Arc;

use super::run_cases;
use super::samples::{DAY_START, shop};
use crate::api::{ErasedSubject, Erasures, NewErasure, SubjectClass};

/// An empty ledger, and what the suite may do with it.
#[derive(Clone)]
pub struct LedgerUnderTest {
    /// The ledger.
    pub ledger: Arc<dyn Erasures>,
    /// The same ledger, opened by somebody else.
    pub other: Arc<dyn Erasures>,
}

impl std::fmt::Debug for LedgerUnderTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerUnderTest").finish_non_exhaustive()
    }
}

/// Runs all cases, each on a fresh ledger that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = LedgerUnderTest>,
{
    run_cases!(
        "erasures",
        make,
        [
            an_empty_ledger_has_no_entries,
            entries_are_numbered_from_one_and_read_in_order,
            an_erasure_appended_again_is_left_as_it_is,
            of_many_who_append_at_once_each_gets_a_number_of_its_own,
            everybody_hashes_under_the_same_key,
        ]
    );
}

async fn erasure(ledger: &dyn Erasures, id: &str) -> NewErasure {
    let key = ledger.key().await.unwrap();
    NewErasure {
        id: id.to_owned(),
        venue: shop(),
        requested_at: DAY_START,
        subjects: vec![ErasedSubject {
            class: SubjectClass::Track,
            name: key.hash(SubjectClass::Track, &shop(), id),
            sensor: None,
            from: i64::MIN,
            until: DAY_START + 1,
        }],
    }
}

async fn an_empty_ledger_has_no_entries(under_test: LedgerUnderTest) {
    for from in [0, 1, 7] {
        assert_eq!(under_test.ledger.read(from).await.unwrap(), vec![]);
    }
}

async fn entries_are_numbered_from_one_and_read_in_order(under_test: LedgerUnderTest) {
    let LedgerUnderTest { ledger, other } = under_test;
    let mut appended = Vec::new();
    for (number, id) in (1..).zip(["c", "a", "b"]) {
        let erasure = erasure(&*ledger, id).await;
        let entry = ledger.append(erasure.clone()).await.unwrap();
        assert_eq!((entry.number, &entry.erasure), (number, &erasure));
        appended.push(entry);
        assert_eq!(other.read(1).await.unwrap(), appended, "seen by all at once");
    }
    assert_eq!(other.read(2).await.unwrap(), appended[1..]);
    assert_eq!(other.read(4).await.unwrap(), vec![]);
}

async fn an_erasure_appended_again_is_left_as_it_is(under_test: LedgerUnderTest) {
    let LedgerUnderTest { ledger, other } = under_test;
    let first = ledger.append(erasure(&*ledger, "one").await).await.unwrap();
    ledger.append(erasure(&*ledger, "two").await).await.unwrap();
    let mut again = erasure(&*ledger, "one").await;
    again.requested_at += 1;
    assert_eq!(other.append(again).await.unwrap(), first);
    assert_eq!(ledger.read(1).await.unwrap().len(), 2);
}

async fn of_many_who_append_at_once_each_gets_a_number_of_its_own(under_test: LedgerUnderTest) {
    let LedgerUnderTest { ledger, other } = under_test;
    let mut appending = Vec::new();
    for n in 0..12 {
        let ledger = if n % 2 == 0 { &ledger } else { &other };
        let erasure = erasure(&**ledger, &format!("e{n}")).await;
        appending.push(ledger.append(erasure));
    }
    let entries = futures::future::join_all(appending).await;
    let mut numbers: Vec<u64> = entries.into_iter().map(|entry| entry.unwrap().number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=12).collect::<Vec<u64>>());
    assert_eq!(ledger.read(1).await.unwrap().len(), 12);
}

async fn everybody_hashes_under_the_same_key(under_test: LedgerUnderTest) {
    let (one, other) = futures::join!(under_test.ledger.key(), under_test.other.key());
    let hash = |key: crate::api::LedgerKey| key.hash(SubjectClass::Track, &shop(), "t9");
    assert_eq!(hash(one.unwrap()), hash(other.unwrap()));
}
