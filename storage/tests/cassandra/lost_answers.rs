//! Conditional writes whose answer, or whose request, is lost on the network: each call finds out what stands.
//!
//! Every check runs through a [`Proxy`] of its own that cuts the connection at the conditional write. The statements
//! have been run once before, so that the count of those to be skipped is that of the call alone.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_model::ids::VenueId;
use dwell_model::layout::{Layout, Venue};
use dwell_model::metrics::Carry;
use dwell_model::time::VenueCalendar;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::*;
use dwell_storage::backends::cassandra::{CassandraConfig, CassandraStores, WireCompression};
use dwell_storage::conformance::samples::{DAY_START, day, receipt, shop, tenant, venue};
use dwell_storage::error::ErrorKind;

use super::proxy::{Loss, Proxy};
use super::tables::job;
use super::{Keyspace, in_fresh_keyspace};

pub(crate) const TTL: i64 = 60_000;
const SETTLES_AFTER: Duration = Duration::from_secs(4);

/// Stores behind a proxy of their own.
struct Behind {
    stores: CassandraStores,
    proxy: Proxy,
}

impl Behind {
    async fn proxy(keyspace: &Keyspace) -> Self {
        let proxy = Proxy::before(&keyspace.config.contact_points[0]).await;
        let config = CassandraConfig {
            contact_points: vec![proxy.address.to_string()],
            compression: WireCompression::None,
            // So that only the statements of the call are counted.
            speculative_read_after_ms: 0,
            ..keyspace.config.clone()
        };
        let stores = CassandraStores::open(&config, SystemClock::shared())
            .await
            .unwrap();
        Self { stores, proxy }
    }

    /// Makes a call while the network loses the request or the answer of one of its statements, the conditional one.
    async fn losing<T>(&self, loss: Loss, skip: usize, call: impl Future<Output = T>) -> T {
        let (before, stopwatch) = (self.proxy.lost(), Stopwatch::start());
        self.proxy.lose(loss, skip);
        let outcome = call.await;
        assert_eq!(self.proxy.lost(), before + 1, "the network lost nothing");
        // Only a conditional write is given that time before its outcome is read back.
        assert!(
            stopwatch.elapsed() >= SETTLES_AFTER,
            "another statement was lost: {:?}",
            stopwatch.elapsed()
        );
        outcome
    }
}

pub(crate) fn info(generation: Generation) -> GenerationInfo {
    GenerationInfo {
        generation,
        published_at: DAY_START,
        duration_ms: 1,
        provisional: false,
        lagging: false,
        reason: "test".to_owned(),
        calendar: VenueCalendar::from_names("Europe/Berlin", 0).unwrap(),
        day_start: DAY_START,
        day_end: DAY_START + 1,
        layout: 1,
        definitions: 1,
        marks: Marks::default(),
        events: BTreeMap::new(),
        conflicts: 0,
        rows: 0,
        sessions: 0,
        files: vec![],
        late: LateLedger::default(),
        drift: None,
        changed: None,
        carry: Carry::default(),
        carry_in: Carry::default(),
        exclusions: Default::default(),
        slices: None,
    }
}

fn marks(position: i64) -> Marks {
    let mut marks = Marks::default();
    marks.raise(&MarkSource::log(1, 0), position);
    marks
}

async fn take(days: &dyn VenueDays, holder: &str, now: i64) -> Lease {
    let lease = days
        .acquire(&shop(), day("2026-03-29"), holder, now, TTL)
        .await
        .unwrap();
    lease.expect("the lease is free")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_day_is_leased_and_published_once_whatever_is_lost() {
    in_fresh_keyspace(async |keyspace| {
        let behind = Behind::proxy(keyspace).await;
        let (days, d) = (&*behind.stores.venue_days, day("2026-03-29"));
        // All statements once.
        let warm = take(days, "a", 0).await;
        assert_eq!(
            days.publish(&warm, None, info(warm.fence)).await.unwrap(),
            Flip::Done
        );
        let raised = days.raise_marks(&warm, warm.fence, &marks(1), false).await;
        assert_eq!(raised.unwrap(), Flip::Done);
        days.release(&warm).await.unwrap();

        // Taking reads the row, then writes.
        let lease = behind.losing(Loss::Answer, 1, take(days, "a", 1)).await;
        assert_eq!(lease.fence, warm.fence + 1, "it was taken once");
        let row = days.get(&shop(), d).await.unwrap().unwrap();
        assert_eq!(
            (row.fence, row.lease),
            (lease.fence, Some(("a".to_owned(), 1 + TTL)))
        );

        let renewing = days.renew(&lease, 2, TTL);
        assert_eq!(
            behind.losing(Loss::Answer, 0, renewing).await.unwrap(),
            Flip::Done
        );

        let publishing = days.publish(&lease, Some(warm.fence), info(lease.fence));
        assert_eq!(
            behind.losing(Loss::Answer, 0, publishing).await.unwrap(),
            Flip::Done
        );
        assert_eq!(days.history(&shop(), d).await.unwrap().len(), 2);

        // Raising reads the row, then writes.
        let marks_then = marks(7);
        let raising = days.raise_marks(&lease, lease.fence, &marks_then, true);
        assert_eq!(behind.losing(Loss::Answer, 1, raising).await.unwrap(), Flip::Done);
        let published = days.get(&shop(), d).await.unwrap().unwrap().published.unwrap();
        assert_eq!((published.marks, published.provisional), (marks(7), true));

        // The request of the next one never arrives: it is sent again.
        let next = take(days, "a", 2).await;
        let publishing = days.publish(&next, Some(lease.fence), info(next.fence));
        assert_eq!(
            behind.losing(Loss::Request, 0, publishing).await.unwrap(),
            Flip::Done
        );
        assert_eq!(days.history(&shop(), d).await.unwrap().len(), 3);

        // Another has taken the lease: a lost answer changes nothing about that.
        let late = take(days, "a", 3).await;
        let other = take(&*keyspace.stores().await.venue_days, "b", 3 * TTL).await;
        let publishing = days.publish(&late, Some(next.fence), info(late.fence));
        assert_eq!(
            behind.losing(Loss::Answer, 0, publishing).await.unwrap(),
            Flip::Lost
        );
        let row = days.get(&shop(), d).await.unwrap().unwrap();
        assert_eq!(
            (row.fence, row.published.unwrap().generation),
            (other.fence, next.fence)
        );
        assert_eq!(days.history(&shop(), d).await.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_has_one_owner_and_its_last_state_whatever_is_lost() {
    in_fresh_keyspace(async |keyspace| {
        let behind = Behind::proxy(keyspace).await;
        let checkpoints = &*behind.stores.checkpoints;
        let state = |fence, text: &str| Checkpoint {
            fence,
            bytes: text.as_bytes().to_vec(),
        };
        let first = checkpoints.take_ownership("a").await.unwrap();
        checkpoints.store("a", state(first, "one")).await.unwrap();
        assert_eq!(checkpoints.take_ownership("a").await.unwrap(), first + 1);

        // Taking reads the owner, then writes.
        let taking = checkpoints.take_ownership("a");
        let fence = behind.losing(Loss::Answer, 1, taking).await.unwrap();
        assert_eq!(fence, first + 2, "it was taken once");

        // Storing reads the owner, writes one chunk, then the row.
        for (loss, text) in [(Loss::Answer, "two"), (Loss::Request, "three")] {
            let storing = checkpoints.store("a", state(fence, text));
            behind.losing(loss, 2, storing).await.unwrap();
            assert_eq!(checkpoints.load("a").await.unwrap(), Some(state(fence, text)));
        }

        let owner = keyspace
            .stores()
            .await
            .checkpoints
            .take_ownership("a")
            .await
            .unwrap();
        assert_eq!(owner, fence + 1);
        let late = checkpoints.store("a", state(fence, "late")).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict);
        assert_eq!(checkpoints.load("a").await.unwrap(), Some(state(fence, "three")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_created_claimed_and_ended_once_whatever_is_lost() {
    in_fresh_keyspace(async |keyspace| {
        let behind = Behind::proxy(keyspace).await;
        let (jobs, acme) = (&*behind.stores.jobs, tenant("acme"));
        jobs.create(&job("00")).await.unwrap();
        let warm = jobs.claim(0, TTL).await.unwrap().unwrap();
        let ended = |job: &Job| Job {
            state: JobState::Succeeded,
            ..job.clone()
        };
        assert_eq!(jobs.update(&ended(&warm)).await.unwrap(), Flip::Done);

        // Creating reads the row, writes three entries, then the row.
        let next = job("01");
        behind.losing(Loss::Answer, 4, jobs.create(&next)).await.unwrap();
        // Claiming reads the row, then writes.
        let claimed = behind
            .losing(Loss::Answer, 1, jobs.claim_one(&acme, "01", 0, TTL))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((&*claimed.id, claimed.fence, claimed.attempts), ("01", 1, 1));
        assert_eq!(jobs.get(&acme, "01").await.unwrap(), Some(claimed.clone()));
        // Updating reads the row, then writes.
        let last = ended(&claimed);
        assert_eq!(
            behind.losing(Loss::Answer, 1, jobs.update(&last)).await.unwrap(),
            Flip::Done
        );
        assert_eq!(
            jobs.get(&acme, "01").await.unwrap().unwrap().state,
            JobState::Succeeded
        );
        assert_eq!(jobs.claim(i64::MAX, TTL).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_keys_and_imports_stand_once_whatever_is_lost() {
    in_fresh_keyspace(async |keyspace| {
        let behind = Behind::proxy(keyspace).await;
        let (registry, acme) = (&*behind.stores.registry, tenant("acme"));
        let shop_of = |name: &str| Venue {
            id: VenueId::new("shop").unwrap(),
            name: Some(name.to_owned()),
            calendar: VenueCalendar::from_names("Europe/Berlin", 0).unwrap(),
            tags: vec![],
            layouts: vec![Layout::empty()],
        };
        for (name, version) in [("one", None), ("two", Some(1))] {
            let put = registry.put_venue(&acme, &shop_of(name), version).await;
            assert_eq!(put.unwrap(), Flip::Done);
        }
        // Storing reads the row, writes its entry, announces the change, then writes.
        let (before, third) = (registry.version().await.unwrap(), shop_of("three"));
        let storing = registry.put_venue(&acme, &third, Some(2));
        assert_eq!(behind.losing(Loss::Answer, 3, storing).await.unwrap(), Flip::Done);
        let stored = registry.venue(&venue("acme", "shop")).await.unwrap().unwrap();
        assert_eq!((stored.venue.name.as_deref(), stored.version), (Some("three"), 3));
        assert_ne!(registry.version().await.unwrap(), before);

        let imports = &*behind.stores.imports;
        let claim = |receipt_number| ImportClaim {
            receipt: receipt(receipt_number),
            name: "file.csv".to_owned(),
            road: "log".to_owned(),
            received_at: DAY_START,
            finished_at: None,
            accepted: 0,
            refused: 0,
        };
        imports.claim(&acme, &claim(1)).await.unwrap();
        // Claiming reads the row, writes its entry, then the row.
        let second = claim(2);
        let claiming = imports.claim(&acme, &second);
        assert_eq!(behind.losing(Loss::Answer, 2, claiming).await.unwrap(), second);
        assert_eq!(imports.list(&acme, 9).await.unwrap().len(), 2);

        let (keys, shop) = (&*behind.stores.pseudonym_keys, shop());
        let key = |byte| SecretKey([byte; 32]);
        let create = async |d, byte| keys.get_or_create(&shop, day(d), key(byte), DAY_START).await;
        create("2026-03-28", 1).await.unwrap();
        // Creating reads the row, writes two entries, then the row.
        let created = behind.losing(Loss::Answer, 3, create("2026-03-29", 2)).await;
        assert_eq!(created.unwrap(), PseudonymKey::Live(key(2)));
        let other = keyspace.stores().await.pseudonym_keys;
        let asked = other
            .get_or_create(&shop, day("2026-03-29"), key(3), DAY_START)
            .await;
        assert_eq!(asked.unwrap(), PseudonymKey::Live(key(2)));
        // Destroying reads the days, then part by part until that of the shop, then writes.
        let select = keyspace.text("SELECT part FROM {ks}.pseudonym_key_ends LIMIT 1");
        let rows = keyspace.session.query_unpaged(select, ()).await.unwrap();
        let (part,) = rows.into_rows_result().unwrap().single_row::<(i8,)>().unwrap();
        let destroying = keys.destroy_expired(DAY_START);
        let destroyed = behind.losing(Loss::Answer, part as usize + 2, destroying).await;
        assert_eq!(destroyed.unwrap(), 2);
        assert_eq!(create("2026-03-29", 4).await.unwrap(), PseudonymKey::Destroyed);
    })
    .await;
}
