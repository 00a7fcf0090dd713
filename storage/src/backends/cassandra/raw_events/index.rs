//! Which partitions there are: dates of a venue, and slots of a date by kind.
//!
//! Written before what they lead to, once per process; a process remembers what it has written.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::slot_of;
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashSet;
use scylla::value::CqlDate;

use super::super::cluster::{Cluster, Cql};
use super::super::values::{damaged_value, epoch_days_of};
use super::slots::{Span, date, slot_at, stored_slot};
use crate::api::RawWrite;
use crate::error::{Result, StorageError};

/// Up to so many dates are asked for one by one, without asking first which there are.
const DATES_DIRECT_MAX: usize = 32;
/// Requests of one call in flight.
const REQUESTS_AT_ONCE: usize = 16;
/// Entries remembered, twice: the recent ones and those before them.
const GENERATION_ENTRIES_MAX: usize = 32 * 1_024;

const ADD_DATE: Cql = Cql::write(
    "note a date of raw events",
    "INSERT INTO {ks}.raw_dates (tenant, venue, utc_date) VALUES (?, ?, ?)",
);
const ADD_SLOT: Cql = Cql::write(
    "note a slot of raw events",
    "INSERT INTO {ks}.raw_slots (tenant, venue, utc_date, kind, slot) VALUES (?, ?, ?, ?, ?)",
);
const DATES: Cql = Cql::read(
    "read the dates of raw events",
    "SELECT utc_date FROM {ks}.raw_dates WHERE tenant = ? AND venue = ? AND utc_date >= ? AND utc_date <= ?",
);
const SLOTS: Cql = Cql::read(
    "read the slots of raw events",
    "SELECT kind, slot FROM {ks}.raw_slots WHERE tenant = ? AND venue = ? AND utc_date = ?",
);

/// The index, with a memory of what this process has written to it.
#[derive(Debug)]
pub(super) struct SlotIndex {
    cluster: Cluster,
    known: Mutex<Known>,
}

/// A date of a venue (no kind; days since 1970-01-01), or a slot of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Entry {
    venue: VenueKey,
    kind: Option<Kind>,
    number: i64,
}

#[derive(Debug, Default)]
struct Known {
    recent: HashSet<Entry, foldhash::fast::FixedState>,
    former: HashSet<Entry, foldhash::fast::FixedState>,
}

impl Known {
    fn has(&mut self, entry: &Entry) -> bool {
        if self.recent.contains(entry) {
            return true;
        }
        match self.former.take(entry) {
            Some(entry) => {
                self.keep(entry);
                true
            }
            None => false,
        }
    }

    fn keep(&mut self, entry: Entry) {
        if self.recent.len() >= GENERATION_ENTRIES_MAX {
            self.former = std::mem::take(&mut self.recent);
        }
        self.recent.insert(entry);
    }
}

impl SlotIndex {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            known: Mutex::default(),
        }
    }

    /// Notes the dates and slots of a write, those that this process has not noted before. Durable when it returns.
    pub(super) async fn add(&self, write: &RawWrite) -> Result<()> {
        let missing = self.missing(write);
        if missing.is_empty() {
            return Ok(());
        }
        // Kinds come after none, so a venue's dates are begun before its slots; the order among them does not matter.
        stream::iter(&missing)
            .map(Ok)
            .try_for_each_concurrent(REQUESTS_AT_ONCE, |entry| self.write(entry))
            .await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        missing.into_iter().for_each(|entry| known.keep(entry));
        Ok(())
    }

    /// The dates in a span that have rows or marks, perhaps with some that have none; ascending days since 1970-01-01.
    pub(super) async fn dates(&self, venue: &VenueKey, span: Span) -> Result<Vec<i32>> {
        let dates = span.dates();
        if dates.clone().count() <= DATES_DIRECT_MAX {
            return Ok(dates.collect());
        }
        let values = (
            venue.tenant.as_str(),
            venue.venue.as_str(),
            date(*dates.start()),
            date(*dates.end()),
        );
        let found: Vec<(CqlDate,)> = self.cluster.all(DATES, values).await?;
        Ok(found.into_iter().map(|(date,)| epoch_days_of(date)).collect())
    }

    /// The slots in a span that have rows, by kind, ascending.
    pub(super) async fn slots(&self, venue: &VenueKey, span: Span) -> Result<[Vec<i64>; Kind::ALL.len()]> {
        let mut slots: [Vec<i64>; Kind::ALL.len()] = Default::default();
        let dates = self.dates(venue, span).await?;
        let mut answers = stream::iter(dates)
            .map(|days| async move {
                let values = (venue.tenant.as_str(), venue.venue.as_str(), date(days));
                let found: Vec<(String, i16)> = self.cluster.all(SLOTS, values).await?;
                Ok::<_, StorageError>((days, found))
            })
            .buffered(REQUESTS_AT_ONCE);
        while let Some((days, found)) = answers.try_next().await? {
            for (kind, number) in found {
                if !span.slots_of(days).contains(&number) {
                    continue;
                }
                let kind: Kind = kind.parse().map_err(damaged_value)?;
                slots[kind as usize].push(slot_at(days, number));
            }
        }
        Ok(slots)
    }

    fn missing(&self, write: &RawWrite) -> BTreeSet<Entry> {
        let mut missing = BTreeSet::new();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut note = |venue: &VenueKey, kind: Option<Kind>, slot: i64| {
            let (days, _) = stored_slot(slot);
            let number = if kind.is_some() { slot } else { i64::from(days) };
            let entry = Entry {
                venue: venue.clone(),
                kind,
                number,
            };
            if !known.has(&entry) {
                missing.insert(entry);
            }
        };
        for (venue, rows) in &write.rows {
            let mut last = None;
            for &ts in &rows.events.ts {
                let slot = slot_of(ts);
                if last.replace(slot) != Some(slot) {
                    note(venue, None, slot);
                    note(venue, Some(rows.events.kind), slot);
                }
            }
        }
        for mark in &write.marks {
            note(&mark.venue, None, mark.slot);
        }
        missing
    }

    async fn write(&self, entry: &Entry) -> Result<()> {
        let (tenant, venue) = (entry.venue.tenant.as_str(), entry.venue.venue.as_str());
        match entry.kind {
            // A date was a slot's, so it fits.
            None => {
                self.cluster
                    .execute(ADD_DATE, (tenant, venue, date(entry.number as i32)))
                    .await
            }
            Some(kind) => {
                let (days, number) = stored_slot(entry.number);
                self.cluster
                    .execute(ADD_SLOT, (tenant, venue, date(days), kind.name(), number))
                    .await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{TenantId, VenueId};

    use super::*;

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let venue = VenueKey::new(TenantId::new("t").unwrap(), VenueId::new("v").unwrap());
        let entry = |number| Entry {
            venue: venue.clone(),
            kind: Some(Kind::Count),
            number,
        };
        let mut known = Known::default();
        known.keep(entry(-1));
        for number in 0..3 * GENERATION_ENTRIES_MAX as i64 {
            assert!(!known.has(&entry(number)));
            known.keep(entry(number));
            assert!(known.has(&entry(-1)));
        }
        assert!(known.recent.len() + known.former.len() <= 2 * GENERATION_ENTRIES_MAX);
        assert!(
            !known.has(&Entry {
                kind: None,
                ..entry(-1)
            }),
            "a date is no slot"
        );
    }
}
