//! Venue-days on the wire.

use std::collections::BTreeMap;

use dwell_storage::api::{ArchiveFile, Dataset, Drift, GenerationChange, LateLedger};
use serde::Serialize;
use utoipa::ToSchema;

/// The days of a venue, ascending.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DaysDto {
    pub(crate) venue: String,
    pub(crate) tz: String,
    pub(crate) days: Vec<DayDto>,
    /// Cursor of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// What is known of a venue-day as a whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayDto {
    pub(crate) day: String,
    /// published, provisional (computed while the day was open), live (the live view answers), pending (events, and
    /// nothing computed yet), empty, future.
    pub(crate) state: &'static str,
    /// First instant.
    pub(crate) start: String,
    /// First instant of the next day.
    pub(crate) end: String,
    /// 23, 24 or 25 hours, as a rule.
    pub(crate) length_ms: i64,
    /// The published generation.
    pub(crate) generation: Option<u64>,
    pub(crate) published_at: Option<String>,
    /// Whether the next run would compute it again.
    pub(crate) dirty: bool,
    /// Why it would.
    pub(crate) dirty_because: Vec<&'static str>,
    /// Whether somebody is working on it now.
    pub(crate) running: bool,
    /// Computed before all events of the day had arrived in the raw table.
    pub(crate) lagging: bool,
    /// Why it was computed.
    pub(crate) reason: Option<String>,
    /// Share of what the sensors should have sent that came; null when unknown.
    pub(crate) completeness: Option<f64>,
    /// Events that counted.
    pub(crate) events: Option<u64>,
    /// Events that counted, by kind.
    pub(crate) events_by_kind: BTreeMap<&'static str, u64>,
    /// Identities that came with more than one payload.
    pub(crate) conflicts: Option<u64>,
    pub(crate) sessions: Option<u64>,
    /// Aggregate rows of the generation.
    pub(crate) rows: Option<u64>,
    /// How long the run took.
    pub(crate) duration_ms: Option<i64>,
    /// Version of the metric definitions used.
    pub(crate) definitions: Option<u32>,
    /// Events that came after the day had been computed.
    pub(crate) late: Option<LateDto>,
    /// How far the live view was from the batch result; null when there was none to compare with.
    pub(crate) drift: Option<DriftDto>,
    /// What the generation changed against the one before.
    pub(crate) changed: Option<ChangeDto>,
    /// Exclusions that were applied, by the jobs that made them.
    pub(crate) exclusions: Vec<String>,
    /// Events of which they left no delivery.
    pub(crate) excluded_events: Option<u64>,
    /// Archive files that the generation was computed from.
    pub(crate) files: Vec<FileDto>,
}

/// The late ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LateDto {
    events: u64,
    max_late_ms: i64,
    /// Requests and files that brought them.
    receipts: u64,
}

/// Difference between live view and batch result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DriftDto {
    /// Buckets compared.
    buckets: u64,
    /// Buckets that differed.
    differing: u64,
    /// Some of them, for people.
    examples: Vec<String>,
}

/// Difference between two generations, in buckets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeDto {
    added: u64,
    removed: u64,
    changed: u64,
}

/// A file of the archive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileDto {
    /// Kind of its events.
    kind: &'static str,
    /// events, or superseded: further deliveries and covered payloads.
    dataset: &'static str,
    path: String,
    rows: u64,
    bytes: u64,
}

impl From<LateLedger> for LateDto {
    fn from(late: LateLedger) -> Self {
        Self {
            events: late.events,
            max_late_ms: late.max_late_ms,
            receipts: late.receipts,
        }
    }
}

impl From<&Drift> for DriftDto {
    fn from(drift: &Drift) -> Self {
        Self {
            buckets: drift.buckets,
            differing: drift.differing,
            examples: drift.examples.clone(),
        }
    }
}

impl From<&GenerationChange> for ChangeDto {
    fn from(change: &GenerationChange) -> Self {
        Self {
            added: change.added,
            removed: change.removed,
            changed: change.changed,
        }
    }
}

impl From<&ArchiveFile> for FileDto {
    fn from(file: &ArchiveFile) -> Self {
        Self {
            kind: file.kind.name(),
            dataset: match file.dataset {
                Dataset::Events => "events",
                Dataset::Superseded => "superseded",
            },
            path: file.path.clone(),
            rows: file.rows,
            bytes: file.bytes,
        }
    }
}
