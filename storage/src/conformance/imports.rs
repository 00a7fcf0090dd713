//! What [`Imports`] promises.

use std::sync::Arc;

use super::samples::{DAY_START, receipt, tenant};
use super::{assert_kind, run_cases};
use crate::api::{ImportClaim, Imports};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Imports>>,
{
    run_cases!(
        "imports",
        make,
        [
            the_first_claim_stands,
            of_many_claims_at_once_one_stands,
            a_finished_import_says_so_to_the_next_claim,
            imports_are_listed_newest_first,
            no_tenant_sees_anothers_imports,
        ]
    );
}

fn claim(receipt_number: u128, received_at: i64) -> ImportClaim {
    ImportClaim {
        receipt: receipt(receipt_number),
        name: format!("file-{receipt_number} ü.csv"),
        road: "archive".to_owned(),
        received_at,
        finished_at: None,
        accepted: 0,
        refused: 0,
    }
}

async fn the_first_claim_stands(store: Arc<dyn Imports>) {
    let acme = tenant("acme");
    let first = claim(1, DAY_START);
    assert_eq!(store.claim(&acme, &first).await.unwrap(), first);
    let later = ImportClaim {
        name: "renamed.csv".into(),
        received_at: DAY_START + 5,
        ..first.clone()
    };
    assert_eq!(
        store.claim(&acme, &later).await.unwrap(),
        first,
        "the time of the first start is kept"
    );
    assert_eq!(store.list(&acme, 10).await.unwrap(), [first]);
}

async fn of_many_claims_at_once_one_stands(store: Arc<dyn Imports>) {
    let acme = tenant("acme");
    let claims: Vec<ImportClaim> = (0..10).map(|n| claim(1, DAY_START + n)).collect();
    let standing = futures::future::join_all(claims.iter().map(|claim| store.claim(&acme, claim))).await;
    let times: Vec<i64> = standing
        .into_iter()
        .map(|claim| claim.unwrap().received_at)
        .collect();
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
}

async fn a_finished_import_says_so_to_the_next_claim(store: Arc<dyn Imports>) {
    let acme = tenant("acme");
    assert_kind(
        store.finish(&acme, receipt(1), 5, 1, 1).await,
        ErrorKind::NotFound,
    );
    let first = claim(1, DAY_START);
    store.claim(&acme, &first).await.unwrap();
    store
        .finish(&acme, receipt(1), DAY_START + 60, 1_000, 7)
        .await
        .unwrap();
    let finished = ImportClaim {
        finished_at: Some(DAY_START + 60),
        accepted: 1_000,
        refused: 7,
        ..first.clone()
    };
    assert_eq!(store.claim(&acme, &first).await.unwrap(), finished);
    assert_eq!(store.list(&acme, 10).await.unwrap(), [finished]);
}

async fn imports_are_listed_newest_first(store: Arc<dyn Imports>) {
    let acme = tenant("acme");
    for (n, received_at) in [(1, 20), (2, 10), (3, 30)] {
        store.claim(&acme, &claim(n, received_at)).await.unwrap();
    }
    let listed = async |limit| -> Vec<i64> {
        store
            .list(&acme, limit)
            .await
            .unwrap()
            .iter()
            .map(|claim| claim.received_at)
            .collect()
    };
    assert_eq!(listed(10).await, [30, 20, 10]);
    assert_eq!(listed(2).await, [30, 20]);
    assert_eq!(listed(0).await, [0; 0]);
}

async fn no_tenant_sees_anothers_imports(store: Arc<dyn Imports>) {
    // The same receipt at two tenants is two imports.
    let (acme, other) = (tenant("acme"), tenant("other"));
    store.claim(&acme, &claim(1, DAY_START)).await.unwrap();
    assert_eq!(store.list(&other, 10).await.unwrap(), []);
    assert_kind(
        store.finish(&other, receipt(1), 5, 1, 1).await,
        ErrorKind::NotFound,
    );
    let theirs = claim(1, DAY_START + 9);
    assert_eq!(store.claim(&other, &theirs).await.unwrap(), theirs);
    store.finish(&other, receipt(1), 5, 1, 1).await.unwrap();
    assert_eq!(store.list(&acme, 10).await.unwrap(), [claim(1, DAY_START)]);
}
