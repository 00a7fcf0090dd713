//! What retention remembers of each venue-day: the last comparison with the archive, and what it has removed.
//!
//! A record is a document in a collection of its venue, written under the day's lease.

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use dwell_storage::api::{Document, Documents, Flip, Generation, ListFrom, Marks};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use serde::{Deserialize, Serialize};

/// Records read at a time.
const PAGE: usize = 500;

/// What is remembered of a day. Stored as JSON: fields may be added with a default, none changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DayRecord {
    /// The last comparison of raw with the archive.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// The last sweep of raw rows.
    #[serde(default)]
    pub swept: Option<Swept>,
    /// Generations whose sessions are gone.
    #[serde(default)]
    pub sessions_gone: BTreeSet<Generation>,
    /// Generations that are being removed: out of the history, or about to be, with rows that may still be there.
    #[serde(default)]
    pub forgetting: Vec<Generation>,
    /// The published generation when there was no older one left.
    #[serde(default)]
    pub alone: Option<Generation>,
}

/// A comparison of a day's raw rows with the archive's files, read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// When it began: before a row was read.
    pub at: TsMs,
    /// The day's marks, read before the rows.
    pub marks: Marks,
    /// How the venue cut its days.
    pub calendar: VenueCalendar,
    /// What was compared.
    pub kinds: BTreeMap<Kind, KindProof>,
    /// Why files could not be read back, naming them.
    pub unreadable: Vec<String>,
    /// The archive lacked what the published generation was made of.
    #[serde(default)]
    pub missing: bool,
}

/// The comparison of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KindProof {
    /// Over identities, payloads and deliveries that raw held.
    #[serde(with = "as_text")]
    pub raw: Checksum,
    /// Over those of them that the archive held.
    #[serde(with = "as_text")]
    pub found: Checksum,
    /// Files of the archive that were read.
    pub files: Vec<String>,
    /// Event times of some rows that were not found.
    #[serde(default)]
    pub not_found_at: Vec<TsMs>,
}

/// A sweep of a day's raw rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swept {
    /// When its comparison began.
    pub at: TsMs,
    /// The day's marks, read before the rows.
    pub marks: Marks,
    /// How the venue cut its days.
    pub calendar: VenueCalendar,
    /// Rows that were there when it began, all kinds together.
    pub rows: u64,
    /// Rows that were there when it ended.
    pub left: BTreeMap<Kind, u64>,
}

impl Proof {
    /// Sums over all kinds: what raw held, and what of it was found.
    pub fn sums(&self) -> (Checksum, Checksum) {
        let (mut raw, mut found) = (Checksum::default(), Checksum::default());
        for kind in self.kinds.values() {
            raw.merge(kind.raw);
            found.merge(kind.found);
        }
        (raw, found)
    }

    /// Whether everything that was compared was found.
    pub fn holds(&self) -> bool {
        let (raw, found) = self.sums();
        raw == found && self.unreadable.is_empty() && !self.missing
    }
}

/// The record of a day; an empty one where nothing is remembered.
pub async fn load(documents: &dyn Documents, venue: &VenueKey, day: LocalDay) -> Result<DayRecord> {
    let found = documents
        .get(&venue.tenant, &collection_of(venue), &day.to_string())
        .await?;
    found.map_or_else(|| Ok(DayRecord::default()), |found| read(&found))
}

/// The records of all days of a venue.
pub async fn all(documents: &dyn Documents, venue: &VenueKey) -> Result<BTreeMap<LocalDay, DayRecord>> {
    let collection = collection_of(venue);
    let mut records = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let from = ListFrom::After(after.as_deref());
        let page = documents.list(&venue.tenant, &collection, from, PAGE).await?;
        for document in &page {
            let day = document
                .id
                .parse()
                .map_err(|error| damaged(&document.id, error))?;
            records.insert(day, read(document)?);
        }
        if page.len() < PAGE {
            return Ok(records);
        }
        after = page.last().map(|last| last.id.clone());
    }
}

/// Changes the record of a day, whoever else does; returns what stands.
pub(crate) async fn update(
    documents: &dyn Documents,
    venue: &VenueKey,
    day: LocalDay,
    change: impl Fn(&mut DayRecord),
) -> Result<DayRecord> {
    const TRIES: u32 = 16;
    let (collection, id) = (collection_of(venue), day.to_string());
    for _ in 0..TRIES {
        let found = documents.get(&venue.tenant, &collection, &id).await?;
        let before = match &found {
            Some(found) => read(found)?,
            None => DayRecord::default(),
        };
        let mut record = before.clone();
        change(&mut record);
        if record == before {
            return Ok(record);
        }
        let body = serde_json::to_value(&record).map_err(|error| {
            StorageError::with_source(ErrorKind::Bug, "write a day's retention record", error)
        })?;
        let version = found.map(|found| found.version);
        match documents
            .put(&venue.tenant, &collection, &id, &body, version)
            .await?
        {
            Flip::Done => return Ok(record),
            Flip::Lost => {}
        }
    }
    let what = format!("change the retention record of {venue} {day}: others change it all the time");
    Err(StorageError::new(ErrorKind::Busy, what))
}

/// A collection of a venue's days, so that a partition of it stays small.
fn collection_of(venue: &VenueKey) -> String {
    format!("retention-days-{}", venue.venue)
}

fn read(document: &Document) -> Result<DayRecord> {
    serde_json::from_value(document.body.clone()).map_err(|error| damaged(&document.id, error))
}

fn damaged(id: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    let what = format!("read the retention record of {id}");
    StorageError::with_source(ErrorKind::Damaged, what, error)
}

/// A checksum as `{rows}:{sum, hexadecimal}`: JSON values hold no number of 128 bits.
mod as_text {
    use dwell_model::event::Checksum;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &Checksum, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{:032x}", sum.rows, sum.sum))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Checksum, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (rows, sum) = text.split_once(':')?;
            Some(Checksum {
                rows: rows.parse().ok()?,
                sum: u128::from_str_radix(sum, 16).ok()?,
            })
        };
        read().ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is no checksum")))
    }
}
