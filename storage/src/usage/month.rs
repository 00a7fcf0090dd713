//! The documents: one per tenant, month and venue.

use std::collections::BTreeMap;

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::Amounts;
use crate::api::{Document, Documents, Flip, ListFrom};
use crate::error::{ErrorKind, Result, StorageError};

/// What collections of usage begin with; a month (`2026-11`) follows.
const COLLECTION: &str = "usage-";
/// Id of the document of what names no venue.
const NO_VENUE: &str = "-";
/// Documents read at a time.
const PAGE: usize = 200;
/// Tries of a write before others are in the way for too long.
const TRIES: u32 = 16;
/// Processes with an entry of their own in a day, before the ones that were not heard of longest are folded.
const LIVES_MAX: usize = 48;
/// How long nothing was heard of a process whose entry may be folded, in milliseconds.
const SILENT_MS: i64 = 600_000;

/// What stands for a module and source in a document.
pub(super) type Name = String;

/// A month of a venue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Month {
    pub(super) days: BTreeMap<LocalDay, Day>,
}

/// A day in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Day {
    /// The sum of processes whose entries were folded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) folded: BTreeMap<Name, Amounts>,
    /// Running totals, by process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) lives: BTreeMap<String, Life>,
}

/// What one process has counted in the day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Life {
    /// When it last wrote.
    pub(super) at: TsMs,
    pub(super) amounts: BTreeMap<Name, Amounts>,
}

/// Usage of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageOfDay {
    /// The day, of UTC.
    pub day: LocalDay,
    /// The venue; `None` for what names none.
    pub venue: Option<VenueId>,
    /// By module and source (empty for requests).
    pub by: DayUsage,
}

/// Amounts by module and source.
pub type DayUsage = BTreeMap<(String, String), Amounts>;

/// Usage of a tenant on days of UTC, both ends included, by day and venue; of one venue where it is named.
pub async fn read(
    documents: &dyn Documents,
    tenant: &TenantId,
    from: LocalDay,
    to: LocalDay,
    venue: Option<&VenueId>,
) -> Result<Vec<UsageOfDay>> {
    let mut found = Vec::new();
    for collection in documents.collections(tenant).await? {
        let Some(month) = collection.strip_prefix(COLLECTION) else {
            continue;
        };
        let is_wanted = month_of(from).as_str() <= month && month <= month_of(to).as_str();
        if !is_wanted {
            continue;
        }
        for document in months(documents, tenant, &collection, venue).await? {
            let of_venue = match document.id.as_str() {
                NO_VENUE => None,
                id => Some(VenueId::new(id).map_err(|error| damaged(&document.id, error))?),
            };
            let days = parse(&document)?.days.into_iter();
            for (day, usage) in days.filter(|(day, _)| (from..=to).contains(day)) {
                let mut by = DayUsage::new();
                for (name, amounts) in usage.sums() {
                    by.entry(split(&name)).or_default().add(amounts);
                }
                found.push(UsageOfDay {
                    day,
                    venue: of_venue.clone(),
                    by,
                });
            }
        }
    }
    found.sort_by(|a, b| (a.day, &a.venue).cmp(&(b.day, &b.venue)));
    Ok(found)
}

async fn months(
    documents: &dyn Documents,
    tenant: &TenantId,
    collection: &str,
    venue: Option<&VenueId>,
) -> Result<Vec<Document>> {
    if let Some(venue) = venue {
        let found = documents.get(tenant, collection, venue.as_str()).await?;
        return Ok(found.into_iter().collect());
    }
    let mut all: Vec<Document> = Vec::new();
    loop {
        let after = all.last().map(|last| last.id.clone());
        let from = ListFrom::After(after.as_deref());
        let page = documents.list(tenant, collection, from, PAGE).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Changes a month, whoever else does.
pub(super) async fn change(
    documents: &dyn Documents,
    tenant: &TenantId,
    month: &str,
    venue: Option<&VenueId>,
    mut change: impl FnMut(&mut Month),
) -> Result<()> {
    let collection = format!("{COLLECTION}{month}");
    let id = venue.map_or(NO_VENUE, VenueId::as_str);
    for _ in 0..TRIES {
        let found = documents.get(tenant, &collection, id).await?;
        let mut stands = found.as_ref().map(parse).transpose()?.unwrap_or_default();
        change(&mut stands);
        let body = serde_json::to_value(&stands)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write usage", error))?;
        let version = found.map(|found| found.version);
        if documents.put(tenant, &collection, id, &body, version).await? == Flip::Done {
            return Ok(());
        }
    }
    let what = format!("write usage of {id}: others write it all the time");
    Err(StorageError::new(ErrorKind::Busy, what))
}

/// The month of a day, as collections name it.
pub(super) fn month_of(day: LocalDay) -> String {
    day.to_string().chars().take(7).collect()
}

/// A name for a module and source.
pub(super) fn name_of(module: &str, source: &str) -> Name {
    match source.is_empty() {
        true => module.to_owned(),
        false => format!("{module}/{source}"),
    }
}

fn split(name: &str) -> (String, String) {
    let (module, source) = name.split_once('/').unwrap_or((name, ""));
    (module.to_owned(), source.to_owned())
}

impl Month {
    /// Folds what nobody writes any more: entries of days before yesterday, and of silent processes where there are many.
    pub(super) fn fold(&mut self, today: LocalDay, now: TsMs) {
        let yesterday = today.prev();
        for (day, usage) in &mut self.days {
            if *day < yesterday {
                usage.fold_if(|_| true);
            }
            if usage.lives.len() > LIVES_MAX {
                usage.fold_if(|life| now - life.at > SILENT_MS);
            }
        }
    }
}

impl Day {
    /// Sums over all processes.
    pub(super) fn sums(&self) -> BTreeMap<Name, Amounts> {
        let mut sums = self.folded.clone();
        for life in self.lives.values() {
            for (name, amounts) in &life.amounts {
                sums.entry(name.clone()).or_default().add(*amounts);
            }
        }
        sums
    }

    fn fold_if(&mut self, is_over: impl Fn(&Life) -> bool) {
        for (id, life) in std::mem::take(&mut self.lives) {
            if !is_over(&life) {
                self.lives.insert(id, life);
                continue;
            }
            for (name, amounts) in life.amounts {
                self.folded.entry(name).or_default().add(amounts);
            }
        }
    }
}

fn parse(document: &Document) -> Result<Month> {
    serde_json::from_value(document.body.clone()).map_err(|error| damaged(&document.id, error))
}

fn damaged(id: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::with_source(ErrorKind::Damaged, format!("read the usage of {id}"), error)
}
