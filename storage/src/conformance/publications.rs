//! What the feed of publications promises, on whatever keeps its documents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use serde_json::Value;

use super::samples::{day, shop};
use super::venue_days::info;
use crate::api::publications::{self, BLOCK, FeedHead};
use crate::api::{
    Document, Documents, Flip, Generation, GenerationInfo, ListFrom, VenueDay, VenueDaysReader, documents,
};
use crate::error::{ErrorKind, Result, StorageError};

const DAYS: [&str; 3] = ["2026-03-27", "2026-03-28", "2026-03-29"];

/// Venue-days as a test says they are: fence and what was published, by day.
#[derive(Default)]
struct ScriptedDays {
    days: Mutex<BTreeMap<LocalDay, (Generation, Vec<GenerationInfo>)>>,
}

impl ScriptedDays {
    /// Takes the lease of a day.
    fn lease(&self, of: LocalDay) -> (Generation, Option<Generation>) {
        let mut days = self.days.lock().unwrap();
        let (fence, history) = days.entry(of).or_default();
        *fence += 1;
        (*fence, history.last().map(|info| info.generation))
    }

    /// The flip, at a time.
    fn publish(&self, of: LocalDay, generation: Generation, at: TsMs) {
        let mut days = self.days.lock().unwrap();
        let (_, history) = days.entry(of).or_default();
        history.push(GenerationInfo {
            published_at: at,
            ..info(generation)
        });
    }

    fn published(&self) -> Vec<(LocalDay, Generation)> {
        let days = self.days.lock().unwrap();
        let of_day = |(day, (_, history)): (&LocalDay, &(Generation, Vec<GenerationInfo>))| {
            let day = *day;
            history
                .iter()
                .map(move |info| (day, info.generation))
                .collect::<Vec<_>>()
        };
        days.iter().flat_map(of_day).collect()
    }
}

#[async_trait]
impl VenueDaysReader for ScriptedDays {
    async fn get(&self, venue: &VenueKey, of: LocalDay) -> Result<Option<VenueDay>> {
        Ok(self.list(venue, of, of).await?.pop())
    }

    async fn list(&self, _: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>> {
        let days = self.days.lock().unwrap();
        let rows = days.range(from..=to).map(|(day, (fence, history))| VenueDay {
            day: *day,
            fence: *fence,
            lease: None,
            published: history.last().cloned(),
        });
        Ok(rows.collect())
    }

    async fn history(&self, _: &VenueKey, of: LocalDay) -> Result<Vec<GenerationInfo>> {
        let days = self.days.lock().unwrap();
        let history = days.get(&of).map(|(_, history)| history.clone());
        Ok(history.unwrap_or_default().into_iter().rev().collect())
    }
}

/// Documents of a process that dies after so many writes; the last one may have happened or not.
struct Dying {
    documents: Arc<dyn Documents>,
    writes_left: AtomicI64,
    last_happens: bool,
}

#[async_trait]
impl Documents for Dying {
    async fn put(
        &self,
        tenant: &TenantId,
        collection: &str,
        id: &str,
        body: &Value,
        version: Option<u64>,
    ) -> Result<Flip> {
        let left = self.writes_left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || (left == 0 && self.last_happens) {
            let flip = self.documents.put(tenant, collection, id, body, version).await?;
            if left > 0 {
                return Ok(flip);
            }
        }
        Err(StorageError::new(ErrorKind::Unavailable, "the process is dead"))
    }

    async fn get(&self, tenant: &TenantId, collection: &str, id: &str) -> Result<Option<Document>> {
        self.documents.get(tenant, collection, id).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        collection: &str,
        from: ListFrom<'_>,
        limit: usize,
    ) -> Result<Vec<Document>> {
        self.documents.list(tenant, collection, from, limit).await
    }

    async fn collections(&self, tenant: &TenantId) -> Result<Vec<String>> {
        self.documents.collections(tenant).await
    }
}

/// One worker's publication of a day: lease, announce, flip, settle. Ends where the process dies.
async fn publish(documents: &dyn Documents, days: &ScriptedDays, of: LocalDay, at: TsMs) -> Result<()> {
    let (generation, before) = days.lease(of);
    publications::announce(documents, days, &shop(), of, generation, before).await?;
    days.publish(of, generation, at);
    publications::settle(documents, days, &shop(), at)
        .await
        .map(|_| ())
}

/// Follows the feed from a number on.
async fn follow(documents: &dyn Documents, after: u64) -> Vec<publications::Publication> {
    let head = publications::head(documents, &shop()).await.unwrap();
    publications::list(documents, &shop(), &head, after, 1_000)
        .await
        .unwrap()
}

pub(super) async fn each_is_listed_once_whatever_dies_when(store: Arc<dyn Documents>) {
    let days = ScriptedDays::default();
    let venue = shop();
    let (mut seen, mut passed, mut at) = (Vec::new(), 0, 1_000);
    for writes in 0..8 {
        for last_happens in [false, true] {
            for of in DAYS {
                at += 10;
                let dying = Dying {
                    documents: Arc::clone(&store),
                    writes_left: AtomicI64::new(writes),
                    last_happens,
                };
                let _ = publish(&dying, &days, day(of), at).await;
                let new = follow(store.as_ref(), passed).await;
                passed = new.last().map_or(passed, |entry| entry.number);
                seen.extend(new);
            }
            // Another takes on what is left; two at once do no harm.
            let (one, two) = tokio::join!(
                publications::settle(store.as_ref(), &days, &venue, at),
                publications::settle(store.as_ref(), &days, &venue, at),
            );
            assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        }
    }
    at += 10;
    publish(store.as_ref(), &days, day(DAYS[0]), at).await.unwrap();
    seen.extend(follow(store.as_ref(), passed).await);
    let numbers: Vec<u64> = seen.iter().map(|entry| entry.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let mut listed: Vec<_> = seen.iter().map(|entry| (entry.day, entry.generation)).collect();
    listed.sort_unstable();
    assert_eq!(listed, days.published());
    assert_eq!(
        follow(store.as_ref(), 0).await,
        seen,
        "whoever follows from the start sees the same"
    );
    // What was announced by the dead and never published is forgotten.
    let head = publications::head(store.as_ref(), &shop()).await.unwrap();
    assert_eq!(head.pending, []);
}

pub(super) async fn entries_come_by_number_and_by_time(store: Arc<dyn Documents>) {
    let days = ScriptedDays::default();
    for (of, at) in [
        (DAYS[0], 1_000),
        (DAYS[1], 3_000),
        (DAYS[0], 2_000),
        (DAYS[2], 5_000),
    ] {
        publish(store.as_ref(), &days, day(of), at).await.unwrap();
    }
    let entries = follow(store.as_ref(), 0).await;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.number,
                entry.day.to_string(),
                entry.generation,
                entry.before,
                entry.listed_at,
            )
        })
        .collect();
    // A clock that was set back does not let the time of listing fall.
    let expected = [
        (1, DAYS[0].to_owned(), 1, None, 1_000),
        (2, DAYS[1].to_owned(), 1, None, 3_000),
        (3, DAYS[0].to_owned(), 2, Some(1), 3_000),
        (4, DAYS[2].to_owned(), 1, None, 5_000),
    ];
    assert_eq!(told, expected);
    assert_eq!((entries[2].rows, entries[2].before_rows), (2, Some(2)));
    let head = publications::head(store.as_ref(), &shop()).await.unwrap();
    let page = publications::list(store.as_ref(), &shop(), &head, 1, 2)
        .await
        .unwrap();
    assert_eq!(page, entries[1..3]);
    for (ts, number) in [(0, 0), (1_000, 0), (1_001, 1), (3_000, 1), (4_000, 3), (9_000, 4)] {
        let found = publications::number_before(store.as_ref(), &shop(), &head, ts).await;
        assert_eq!(found.unwrap(), number, "{ts}");
    }
    // After a restore the numbers go on far above, over collections that are not there.
    publications::skip_ahead(store.as_ref(), &shop()).await.unwrap();
    publish(store.as_ref(), &days, day(DAYS[1]), 6_000).await.unwrap();
    let after = follow(store.as_ref(), 4).await;
    assert_eq!(after.len(), 1);
    assert!(after[0].number > 1_000 * BLOCK, "{after:?}");
    assert_eq!(follow(store.as_ref(), 900 * BLOCK).await, after);
    // And what is published then is listed once more, each day as a whole.
    let anew = publications::list_anew(store.as_ref(), &days, &shop(), 7_000).await;
    assert_eq!(anew.unwrap(), 3);
    let told: Vec<_> = follow(store.as_ref(), after[0].number)
        .await
        .into_iter()
        .map(|entry| {
            (
                entry.day.to_string(),
                entry.generation,
                entry.before,
                entry.listed_at,
            )
        })
        .collect();
    let expected = [
        (DAYS[0].to_owned(), 2, None, 7_000),
        (DAYS[2].to_owned(), 1, None, 7_000),
        (DAYS[1].to_owned(), 2, None, 7_000),
    ];
    assert_eq!(told, expected);
}

pub(super) async fn a_venue_of_before_begins_with_what_is_published(store: Arc<dyn Documents>) {
    let days = ScriptedDays::default();
    for (of, at) in [(DAYS[1], 1_000), (DAYS[0], 2_000), (DAYS[1], 3_000)] {
        let (generation, _) = days.lease(day(of));
        days.publish(day(of), generation, at);
    }
    publish(store.as_ref(), &days, day(DAYS[0]), 4_000).await.unwrap();
    let told: Vec<_> = follow(store.as_ref(), 0)
        .await
        .into_iter()
        .map(|entry| (entry.day.to_string(), entry.generation, entry.before))
        .collect();
    let expected = [
        (DAYS[0].to_owned(), 1, None),
        (DAYS[1].to_owned(), 2, None),
        (DAYS[0].to_owned(), 2, Some(1)),
    ];
    assert_eq!(told, expected);
    let venue = shop();
    let stored = documents::load::<FeedHead>(store.as_ref(), &venue.tenant, venue.venue.as_str());
    assert_eq!(stored.await.unwrap().unwrap().value.readable(), 3);
}
