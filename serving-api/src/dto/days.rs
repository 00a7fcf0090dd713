//! Venue-days on the wire.

use std::collections::BTreeMap;

use dwell_storage::api::{
    ArchiveFile, Dataset, Drift, GenerationChange, GenerationInfo, LateArrivals, LateLedger, LateSource,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ProposalDto, instant};

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
    /// Whether its numbers change only when somebody approves it.
    pub(crate) closed: bool,
    /// What was computed since it was closed, and waits for approval.
    pub(crate) proposed: Option<ProposalDto>,
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
    /// What this generation added; null when nothing was late.
    added: Option<LateArrivalsDto>,
}

/// Late events that a generation was the first to include.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LateArrivalsDto {
    events: u64,
    first_received_at: Option<String>,
    last_received_at: Option<String>,
    first_event_at: Option<String>,
    last_event_at: Option<String>,
    /// Half of them were received within so long after their event time (to one part in sixteen).
    delay_p50_ms: Option<i64>,
    delay_p90_ms: Option<i64>,
    delay_max_ms: Option<i64>,
    /// Those who sent most of them, most first; at most ten.
    sensors: Vec<LateSourceDto>,
    /// How many sensors sent any.
    sensors_all: u64,
    /// The receipts that brought most of them; at most ten.
    receipts: Vec<LateSourceDto>,
    receipts_all: u64,
}

/// Who sent late events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LateSourceDto {
    /// A sensor, or a receipt.
    name: String,
    events: u64,
}

/// A day with everything that was ever published of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayHistoryDto {
    pub(crate) venue: String,
    pub(crate) tz: String,
    pub(crate) day: String,
    /// The generation that answers now.
    pub(crate) generation: Option<u64>,
    /// What was proposed last for the closed day.
    pub(crate) proposed: Option<ProposalDto>,
    /// Newest first.
    pub(crate) generations: Vec<GenerationDto>,
}

/// A published generation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationDto {
    pub(crate) generation: u64,
    /// The one that it replaced.
    pub(crate) before: Option<u64>,
    pub(crate) published_at: String,
    pub(crate) reason: String,
    pub(crate) provisional: bool,
    pub(crate) lagging: bool,
    pub(crate) events: u64,
    pub(crate) events_by_kind: BTreeMap<&'static str, u64>,
    pub(crate) conflicts: u64,
    pub(crate) sessions: u64,
    /// Aggregate rows.
    pub(crate) rows: u64,
    /// Fingerprint of the layout used.
    pub(crate) layout: String,
    pub(crate) definitions: u32,
    pub(crate) late: LateDto,
    pub(crate) drift: Option<DriftDto>,
    pub(crate) changed: Option<ChangeDto>,
    pub(crate) files: Vec<FileDto>,
}

impl GenerationDto {
    /// A generation and the one that it replaced.
    pub(crate) fn new(info: &GenerationInfo, before: Option<u64>) -> Self {
        Self {
            generation: info.generation,
            before,
            published_at: instant(info.published_at),
            reason: info.reason.clone(),
            provisional: info.provisional,
            lagging: info.lagging,
            events: info.events.values().map(|sum| sum.rows).sum(),
            events_by_kind: info
                .events
                .iter()
                .map(|(kind, sum)| (kind.name(), sum.rows))
                .collect(),
            conflicts: info.conflicts,
            sessions: info.sessions,
            rows: info.rows,
            layout: format!("{:016x}", info.layout),
            definitions: info.definitions,
            late: (&info.late).into(),
            drift: info.drift.as_ref().map(Into::into),
            changed: info.changed.as_ref().map(Into::into),
            files: info.files.iter().map(Into::into).collect(),
        }
    }
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

impl From<&LateLedger> for LateDto {
    fn from(late: &LateLedger) -> Self {
        Self {
            events: late.events,
            max_late_ms: late.max_late_ms,
            receipts: late.receipts,
            added: late.added.as_ref().map(Into::into),
        }
    }
}

impl From<&LateArrivals> for LateArrivalsDto {
    fn from(late: &LateArrivals) -> Self {
        let sources = |sources: &[LateSource]| {
            let dto = |source: &LateSource| LateSourceDto {
                name: source.name.clone(),
                events: source.events,
            };
            sources.iter().map(dto).collect()
        };
        Self {
            events: late.events,
            first_received_at: late.received.map(|(first, _)| instant(first)),
            last_received_at: late.received.map(|(_, last)| instant(last)),
            first_event_at: late.event_times.map(|(first, _)| instant(first)),
            last_event_at: late.event_times.map(|(_, last)| instant(last)),
            delay_p50_ms: late.delay_p50_ms,
            delay_p90_ms: late.delay_p90_ms,
            delay_max_ms: late.delay_max_ms,
            sensors: sources(&late.sensors),
            sensors_all: late.sensors_all,
            receipts: sources(&late.receipts),
            receipts_all: late.receipts_all,
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
