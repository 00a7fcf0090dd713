//! Quarantine: what was refused, with its bytes and the reason, until somebody has looked at it.

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

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Of this venue.
    pub venue: Option<VenueId>,
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
    /// Keeps entries; one that is there already is left as it is. Beyond `max_entries` of the tenant the new ones are
    /// not kept; returns how many were kept or there.
    async fn add(&self, entries: Vec<QuarantineEntry>, max_entries: u64) -> Result<u64>;

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

    /// Sets what became of an entry. `NotFound` when there is none.
    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()>;
}
