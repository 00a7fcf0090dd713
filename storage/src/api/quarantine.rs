//! Quarantine: what was refused, with its bytes and the reason, until somebody has looked at it.

pub(crate) mod room;

use async_trait::async_trait;
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// How the bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineEncoding {
    /// As they came, identifiers of devices replaced by pseudonyms.
    Plain,
    /// Encrypted with a key that is destroyed after seven days, since they could not be decoded far enough to
    /// pseudonymise.
    Encrypted,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineState {
    /// Waits.
    Open,
    /// Its events were taken after all.
    Replayed,
    /// Somebody decided that it is rubbish.
    Dropped,
}

/// One refused event, line or body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Unique within the tenant; sorts by time. Derived from receipt and index, so that a retry adds nothing.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// The venue, where it is known.
    pub venue: Option<VenueId>,
    /// When it was refused.
    pub received_at: TsMs,
    /// What brought it.
    pub receipt: Receipt,
    /// Where it came from: `http`, or the file's name.
    pub source: String,
    /// The sensor that the event names, where that could be told.
    #[serde(default)]
    pub sensor: Option<String>,
    /// Its index in the request, or its line in the file (from 1).
    pub index: u64,
    /// Why: a stable code.
    pub code: String,
    /// Why, for people.
    pub message: String,
    /// Format of the bytes (`ndjson`, `csv`, …).
    pub format: String,
    /// How the bytes are kept.
    pub encoding: QuarantineEncoding,
    /// The bytes, cut at the limit of a line.
    pub bytes: Vec<u8>,
    /// What became of it.
    pub state: QuarantineState,
}

/// What an entry takes beside its bytes, roughly.
const ENTRY_BYTES: u64 = 256;

impl QuarantineEntry {
    /// What it takes: an entry, and its bytes with those of its row.
    pub fn size(&self) -> QuarantineSize {
        QuarantineSize {
            entries: 1,
            bytes: self.bytes.len() as u64 + ENTRY_BYTES,
        }
    }
}

/// An amount of entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineSize {
    /// How many.
    pub entries: u64,
    /// What they take.
    pub bytes: u64,
}

impl QuarantineSize {
    /// No bound.
    pub const MAX: Self = Self {
        entries: u64::MAX,
        bytes: u64::MAX,
    };

    /// Adds another amount.
    pub fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Whether, taken as a bound, there is room for more beside what waits.
    pub fn has_room(&self, waiting: Self, more: Self) -> bool {
        waiting.entries.saturating_add(more.entries) <= self.entries
            && waiting.bytes.saturating_add(more.bytes) <= self.bytes
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineBounds {
    /// Of a tenant. Past it nothing is kept.
    pub tenant: QuarantineSize,
    /// Of a venue from a source (`http`, a file), so that none pushes out another's.
    pub source: QuarantineSize,
    /// Of a sensor in that, so that a mad one does not push out others'. Events whose sensor is not known count as one.
    pub sensor: QuarantineSize,
    /// Entries of a reason that are kept although the source's or the sensor's bound is reached.
    pub sample_entries: u64,
}

impl QuarantineBounds {
    /// Only so many entries of a tenant.
    pub fn of_tenant(entries: u64) -> Self {
        Self {
            tenant: QuarantineSize {
                entries,
                bytes: u64::MAX,
            },
            source: QuarantineSize::MAX,
            sensor: QuarantineSize::MAX,
            sample_entries: 0,
        }
    }
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineScope {
    /// The tenant's.
    Tenant,
    /// That of a venue and source.
    Source,
    /// That of a sensor.
    Sensor,
}

impl QuarantineScope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Source, Self::Sensor];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Source => "source",
            Self::Sensor => "sensor",
        }
    }
}

/// What became of entries that were to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuarantineAdded {
    /// Kept, or there already.
    pub kept: u64,
    /// Not kept, by the bound that was reached: the tenant's, the source's, the sensor's.
    pub left_out: [u64; 3],
}

impl QuarantineAdded {
    /// Counts one that was not kept.
    pub(crate) fn leave_out(&mut self, scope: QuarantineScope) {
        self.left_out[scope as usize] += 1;
    }

    /// Adds another call's.
    pub(crate) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        for (sum, more) in self.left_out.iter_mut().zip(other.left_out) {
            *sum += more;
        }
    }
}

/// Refused events that were not kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuarantineLeftOut {
    /// Their venue, where it is known.
    pub venue: Option<VenueId>,
    /// Where they came from.
    pub source: String,
    /// Their sensor, where its own bound was reached.
    pub sensor: Option<String>,
    /// Why they were refused.
    pub code: String,
    /// Which bound was reached.
    pub scope: QuarantineScope,
    /// How many: those of a message that was sent again count again.
    pub entries: u64,
}

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineFilter {
    /// Of this venue.
    pub venue: Option<VenueId>,
    /// Of this sensor.
    pub sensor: Option<String>,
    /// That this request, message or file brought.
    pub receipt: Option<Receipt>,
    /// Refused at this time or later.
    pub from: Option<TsMs>,
    /// Refused before this time.
    pub until: Option<TsMs>,
    /// With this code.
    pub code: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// In this state.
    pub state: Option<QuarantineState>,
}

/// The quarantine table.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Keeps entries; one that is there already is left as it is. Of the open ones that are new, those beyond a bound are not
    /// kept, later ones rather than earlier ones; what is not kept is counted. Past the bound of a source or a sensor a
    /// sample of each reason is kept all the same. Settled entries are kept whatever the bounds say, and take no room.
    async fn keep(&self, entries: Vec<QuarantineEntry>, bounds: &QuarantineBounds)
    -> Result<QuarantineAdded>;

    /// Keeps entries, bounded only by how many a tenant may have; returns how many were kept or there.
    async fn add(&self, entries: Vec<QuarantineEntry>, max_entries: u64) -> Result<u64> {
        let added = self
            .keep(entries, &QuarantineBounds::of_tenant(max_entries))
            .await?;
        Ok(added.kept)
    }

    /// What was refused and not kept, by venue, source, sensor, code and bound; the first `limit` in that order.
    async fn left_out(&self, tenant: &TenantId, limit: usize) -> Result<Vec<QuarantineLeftOut>>;

    /// Entries of a tenant, newest first, before an id, at most `limit`.
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &QuarantineFilter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<QuarantineEntry>>;

    /// One entry.
    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<QuarantineEntry>>;

    /// Removes entries for good; those that are not there are fine.
    async fn erase(&self, tenant: &TenantId, ids: Vec<String>) -> Result<()>;

    /// Sets what became of an entry. One that is not open takes no room; one that is dropped loses its bytes for good.
    /// `NotFound` when there is none.
    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()>;
}
