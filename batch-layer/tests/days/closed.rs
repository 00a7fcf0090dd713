//! Closed days: what is proposed, when it is published, and what is refused.

use dwell_batch_layer::report::{DayReport, Outcome};
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_storage::api::documents::{load, update};
use dwell_storage::api::periods::{self, ClosedPeriod, Opened, Proposal, ProposalState};
use dwell_storage::api::publications;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, assert_outcome, day, one_zone, visits};

const DAY: &str = "2026-03-09";

/// A day with one visit, published and closed; its period's id.
async fn closed_day() -> (Shop, String) {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAY, 10.0), 60), 1).await;
    shop.recompute().await;
    let period = ClosedPeriod {
        venues: None,
        from: day("2026-03-01"),
        to: day(DAY),
        reason: "invoiced".into(),
        closed_by: "key".into(),
        closed_at: shop.now(),
        opened: None,
    };
    let documents = shop.stores.documents.as_ref();
    let id = periods::close(documents, &shop.venue.tenant, &period)
        .await
        .unwrap();
    (shop, id)
}

async fn proposal(shop: &Shop) -> Proposal {
    let documents = shop.stores.documents.as_ref();
    let stored = periods::proposal(documents, &shop.venue, day(DAY)).await.unwrap();
    stored.expect("a proposal").value
}

async fn approve(shop: &Shop, generation: Option<u64>) -> DayReport {
    let cancel = CancellationToken::new();
    shop.layer
        .approve_day(&shop.venue, day(DAY), generation, "boss", &cancel)
        .await
}

async fn late_visitor(shop: &Shop, track: &str, receipt: u128) {
    shop.post(visit(track, shop.local(DAY, 12.0), 5), receipt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_day_keeps_its_numbers_until_the_proposal_is_approved() {
    let (shop, _) = closed_day().await;
    let before = shop.published(DAY).await;
    late_visitor(&shop, "late", 2).await;
    assert!(shop.is_dirty(DAY).await);
    let report = shop.recompute().await;
    assert_eq!((report.proposed, report.computed), (1, 0));
    assert_eq!(shop.published(DAY).await, before);
    let proposed = proposal(&shop).await;
    assert_eq!(
        (&proposed.state, proposed.base),
        (&ProposalState::Pending, before.generation)
    );
    assert_eq!(proposed.info.late.events, 6);
    assert!(proposed.info.changed.as_ref().unwrap().changed > 0);
    assert_eq!(visits(&shop.rows_of(DAY, proposed.info.generation).await), 2);
    // Equal input is no reason to compute the day again, tonight or any other night.
    assert!(!shop.is_dirty(DAY).await);
    assert_eq!(shop.recompute().await.days, []);
    // A redelivery touches the day and changes nothing: the proposal includes it.
    late_visitor(&shop, "late", 3).await;
    let report = shop.recompute().await;
    assert_eq!((report.unchanged, report.proposed), (1, 0), "{report:?}");
    assert_eq!(proposal(&shop).await.info.generation, proposed.info.generation);
    assert!(!shop.is_dirty(DAY).await);

    let approved = approve(&shop, Some(proposed.info.generation)).await;
    assert_outcome(&approved, Outcome::Computed);
    let after = shop.published(DAY).await;
    assert_eq!(Some(after.generation), approved.generation);
    assert_eq!(visits(&shop.rows(DAY).await), 2);
    assert!(after.reason.starts_with("late events"), "{}", after.reason);
    assert_eq!(after.sessions, 2);
    let sessions = &shop.stores.sessions;
    let sessions = sessions
        .list(&shop.venue, day(DAY), after.generation, None, 10)
        .await;
    assert_eq!(sessions.unwrap().len(), 2);
    assert_eq!(
        shop.rows_of(DAY, proposed.info.generation).await,
        [],
        "the proposal's own rows are gone"
    );
    assert!(!shop.is_dirty(DAY).await);
    // Approving again changes nothing, and the feed has what was published and not what was proposed.
    assert_outcome(&approve(&shop, None).await, Outcome::Computed);
    assert_eq!(shop.published(DAY).await, after);
    let documents = shop.stores.documents.as_ref();
    let head = publications::head(documents, &shop.venue).await.unwrap();
    let feed = publications::list(documents, &shop.venue, &head, 0, 10)
        .await
        .unwrap();
    let generations: Vec<u64> = feed.iter().map(|entry| entry.generation).collect();
    assert_eq!(generations, [before.generation, after.generation]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_proposal_replaces_the_older_one_and_a_stale_one_is_not_approved() {
    let (shop, _) = closed_day().await;
    assert_outcome(&approve(&shop, None).await, Outcome::Failed);
    late_visitor(&shop, "late", 2).await;
    shop.recompute().await;
    let first = proposal(&shop).await.info.generation;
    late_visitor(&shop, "later", 3).await;
    let refused = approve(&shop, None).await;
    assert_outcome(&refused, Outcome::Failed);
    assert!(
        refused.reason.contains("more events came") && refused.reason.contains("recompute"),
        "{}",
        refused.reason
    );
    shop.recompute().await;
    let second = proposal(&shop).await.info.generation;
    assert!(second > first);
    assert_eq!(shop.rows_of(DAY, first).await, []);
    let refused = approve(&shop, Some(first)).await;
    assert!(
        refused
            .reason
            .contains(&format!("generation {second} is proposed now")),
        "{}",
        refused.reason
    );
    assert_eq!(visits(&shop.rows(DAY).await), 1, "nothing was published");
    // A changed layout makes it stale as well.
    shop.put_layouts(vec![one_zone(1_000)]).await;
    let refused = approve(&shop, Some(second)).await;
    assert!(refused.reason.contains("layout"), "{}", refused.reason);
    shop.recompute().await;
    assert_outcome(&approve(&shop, None).await, Outcome::Computed);
    assert_eq!(visits(&shop.rows(DAY).await), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_withdrawn_when_the_input_is_again_what_is_published() {
    let (shop, _) = closed_day().await;
    shop.put_layouts(vec![one_zone(1_000)]).await;
    shop.recompute().await;
    let proposed = proposal(&shop).await;
    assert_eq!(proposed.info.reason, "layout changed");
    shop.put_layouts(vec![one_zone(10_000)]).await;
    let report = shop.recompute().await;
    assert_eq!((report.unchanged, report.proposed), (1, 0), "{report:?}");
    assert_eq!(proposal(&shop).await.state, ProposalState::Withdrawn);
    assert_eq!(shop.rows_of(DAY, proposed.info.generation).await, []);
    assert!(!shop.is_dirty(DAY).await);
    assert_outcome(&approve(&shop, None).await, Outcome::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opened_period_lets_the_next_run_publish() {
    let (shop, period) = closed_day().await;
    late_visitor(&shop, "late", 2).await;
    shop.recompute().await;
    let proposed = proposal(&shop).await.info.generation;
    let opened = Opened {
        at: shop.now(),
        by: "boss".into(),
        reason: "mistake".into(),
    };
    let documents = shop.stores.documents.as_ref();
    periods::open(documents, &shop.venue.tenant, &period, &opened)
        .await
        .unwrap();
    assert!(shop.is_dirty(DAY).await);
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(visits(&shop.rows(DAY).await), 2);
    assert_eq!(proposal(&shop).await.state, ProposalState::Withdrawn);
    assert_eq!(shop.rows_of(DAY, proposed).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_no_orphan_and_rows_that_nobody_names_are() {
    let (shop, _) = closed_day().await;
    late_visitor(&shop, "late", 2).await;
    shop.recompute().await;
    let proposed = proposal(&shop).await;
    // Runs that find nothing to do look for orphans too.
    for _ in 0..3 {
        assert_outcome(&shop.compute(&shop.layer, DAY).await, Outcome::Unchanged);
    }
    assert_eq!(
        shop.rows_of(DAY, proposed.info.generation).await.len() as u64,
        proposed.info.rows
    );
    // Were its rows lost all the same, it would be computed again.
    let aggregates = &shop.stores.aggregates;
    aggregates
        .delete(&shop.venue, day(DAY), proposed.info.generation)
        .await
        .unwrap();
    assert_outcome(&approve(&shop, None).await, Outcome::Failed);
    assert_outcome(&shop.compute(&shop.layer, DAY).await, Outcome::Proposed);
    assert_outcome(&approve(&shop, None).await, Outcome::Computed);
    assert_eq!(visits(&shop.rows(DAY).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_while_approving_leaves_it_to_be_approved_again() {
    // Before the flip: the document says under which number it was to be published.
    let (shop, _) = closed_day().await;
    late_visitor(&shop, "late", 2).await;
    shop.recompute().await;
    let (documents, tenant) = (shop.stores.documents.as_ref(), &shop.venue.tenant);
    let id = periods::proposal_id(&shop.venue, day(DAY));
    let generation = proposal(&shop).await.info.generation;
    let set = async |state: ProposalState| {
        update::<Proposal>(documents, tenant, &id, |there| {
            let mut proposal = there.unwrap().clone();
            proposal.state = state.clone();
            Some(proposal)
        })
        .await
        .unwrap();
    };
    let by = || "boss".to_owned();
    set(ProposalState::Approving {
        generation: 77,
        by: by(),
    })
    .await;
    assert_outcome(&approve(&shop, Some(generation)).await, Outcome::Computed);
    let published = shop.published(DAY).await;
    assert_ne!(published.generation, 77);
    // After it: the published generation is the one that the document names.
    set(ProposalState::Approving {
        generation: published.generation,
        by: by(),
    })
    .await;
    assert_outcome(&approve(&shop, Some(generation)).await, Outcome::Computed);
    assert_eq!(shop.published(DAY).await, published);
    let stored = load::<Proposal>(documents, tenant, &id).await.unwrap().unwrap();
    assert!(
        matches!(stored.value.state, ProposalState::Approved { generation, .. } if generation == published.generation)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_final_is_not_held_back() {
    let (shop, _) = closed_day().await;
    shop.post(visit("b", shop.local("2026-03-05", 10.0), 5), 5).await;
    let mut spec = RunSpec::all_dirty(What::Recompute);
    spec.from = Some(day("2026-03-05"));
    spec.to = spec.from;
    assert_eq!(
        shop.run(&spec).await.computed,
        1,
        "a first generation is no restatement"
    );
    shop.post(visit("c", shop.local("2026-03-05", 11.0), 5), 6).await;
    assert_eq!(shop.run(&spec).await.proposed, 1);
}
