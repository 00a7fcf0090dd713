//! Two processes (two sessions) that want the same row at the same time.

use dwell_model::time::LocalDay;
use dwell_storage::api::*;
use dwell_storage::conformance::samples::{DAY_START, day, shop};

use super::in_fresh_keyspace;
use super::lost_answers::{TTL, info};

const ROUNDS: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_take_a_lease_exactly_one_gets_it() {
    in_fresh_keyspace(async |keyspace| {
        let (one, two) = (keyspace.stores().await, keyspace.stores().await);
        let venue = shop();
        for round in 0..ROUNDS {
            // A row of a day never leased, and one that is there, in turn.
            let d = day("2026-03-01").plus(round / 2);
            let now = (round % 2) as i64 * TTL;
            let (a, b) = futures::join!(
                one.venue_days.acquire(&venue, d, "one", now, TTL),
                two.venue_days.acquire(&venue, d, "two", now, TTL),
            );
            let leases: Vec<Lease> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
            let [lease] = &leases[..] else {
                panic!("round {round}: {leases:?}");
            };
            let row = one.venue_days.get(&venue, d).await.unwrap().unwrap();
            assert_eq!(
                (row.fence, row.lease),
                (lease.fence, Some((lease.holder.clone(), now + TTL)))
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_paused_loses_against_the_one_that_took_over() {
    in_fresh_keyspace(async |keyspace| {
        let (one, two) = (keyspace.stores().await, keyspace.stores().await);
        let mut before = None;
        for round in 0..10 {
            let now = round * 10 * TTL;
            let paused = lease(&*one.venue_days, "one", now).await;
            let owner = lease(&*two.venue_days, "two", now + TTL).await;
            assert!(owner.fence > paused.fence);
            // It wakes and does all that a holder may, while the new one publishes.
            let (renewed, lost, done) = futures::join!(
                one.venue_days.renew(&paused, now + TTL, TTL),
                one.venue_days.publish(&paused, before, info(paused.fence)),
                two.venue_days.publish(&owner, before, info(owner.fence)),
            );
            assert_eq!(
                (renewed.unwrap(), lost.unwrap(), done.unwrap()),
                (Flip::Lost, Flip::Lost, Flip::Done)
            );
            one.venue_days.release(&paused).await.unwrap();
            let row = one
                .venue_days
                .get(&shop(), day("2026-03-29"))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(row.published.unwrap().generation, owner.fence);
            assert_eq!(
                row.lease,
                Some(("two".to_owned(), now + 2 * TTL)),
                "its lease is left alone"
            );
            before = Some(owner.fence);
        }
        let history = two.venue_days.history(&shop(), day("2026-03-29")).await.unwrap();
        assert_eq!(history.len(), 10, "what lost left no trace");
    })
    .await;
}

async fn lease(days: &dyn VenueDays, holder: &str, now: i64) -> Lease {
    let d: LocalDay = day("2026-03-29");
    days.acquire(&shop(), d, holder, now, TTL)
        .await
        .unwrap()
        .expect("the lease is free")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_never_get_the_same_job() {
    in_fresh_keyspace(async |keyspace| {
        let (one, two) = (keyspace.stores().await, keyspace.stores().await);
        for n in 0..20 {
            one.jobs
                .create(&super::tables::job(&format!("{n:02}")))
                .await
                .unwrap();
        }
        let work = async |jobs: &dyn Jobs| {
            let mut ids = Vec::new();
            while let Some(job) = jobs.claim(DAY_START, TTL).await.unwrap() {
                assert_eq!(job.fence, 1);
                ids.push(job.id);
            }
            ids
        };
        let (mine, theirs) = futures::join!(work(&*one.jobs), work(&*two.jobs));
        assert!(mine.is_sorted() && theirs.is_sorted(), "the oldest ones first");
        let mut all = [mine, theirs].concat();
        all.sort();
        assert_eq!(all, (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_loaded_whole_while_its_owner_stores_the_next_ones() {
    in_fresh_keyspace(async |keyspace| {
        let (owner, reader) = (keyspace.stores().await, keyspace.stores().await);
        let fence = owner.checkpoints.take_ownership("speed").await.unwrap();
        let state = |n: u8| Checkpoint {
            fence,
            bytes: vec![n; 700_000 + usize::from(n)],
        };
        owner.checkpoints.store("speed", state(0)).await.unwrap();
        let storing = async {
            for n in 1..=30 {
                owner.checkpoints.store("speed", state(n)).await.unwrap();
            }
        };
        let loading = async {
            let mut last = 0;
            while last < 30 {
                let loaded = reader.checkpoints.load("speed").await.unwrap().unwrap();
                let n = loaded.bytes[0];
                assert!(loaded == state(n), "state {n} is not whole");
                assert!(n >= last, "{n} after {last}");
                last = n;
            }
        };
        futures::join!(storing, loading);
        let chunks = keyspace.count("checkpoint_chunks").await;
        assert_eq!(chunks, 3, "older states are removed");
    })
    .await;
}
