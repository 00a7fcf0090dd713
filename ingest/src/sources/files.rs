//! Files: history and backlogs brought by operators (`dwell import`).
//!
//! # The way of a file
//!
//! ```text
//! paths ─ open ─▶ parts ─▶ text reader ──┐                       ┌─▶ log road: EventLog::append
//!                 (gz, zst, zip)         ├─▶ intake ─▶ groups ───┤
//!                       └▶ Parquet reader┘   │ refuse            └─▶ archive road: sort, spill, rewrite venue-days
//!                                            └▶ quarantine
//! ```
//!
//! 1. Every file is hashed, and claimed under a receipt made of tenant, content and mapping ([`claims`]). A finished claim
//!    means that there is nothing to do; an unfinished one is gone on with under its old time. So a file imported twice
//!    changes nothing, and an import that died is repeated by running it again.
//! 2. All new claims of one import carry its start as their time of receipt, so that the order of files on the command
//!    line decides nothing between corrections: where two files hold different payloads of one identity, the rules of
//!    [`dwell_model::event::resolve`] do.
//! 3. A thread reads ([`intake`]); the road takes what it finds through a bounded channel. [`log_road`] is the default;
//!    [`archive_road`] is for history, and sends the rows of days that have not ended through the log all the same.
//! 4. When all rows of a file are durable its claim is finished.
//!
//! Rows that cannot be taken go to the quarantine with file and line. A file that breaks off or cannot be read ends there:
//! the rows before it stay taken, its claim stays unfinished, the other files go on.
//!
//! **Bounds.** The limit on an event's age does not bind operators; events from the future are refused all the same. Memory
//! is bounded by the channel and the sorter's budget, whatever the size of the files.

mod archive_road;
mod claims;
mod error;
mod expansion;
mod groups;
mod intake;
mod log_road;
mod mapping;
mod open;
mod parquet_reader;
mod presence;
mod progress;
mod quarantining;
mod reading;
mod report;
mod text_reader;
mod venues;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::TenantId;
use dwell_model::time::MINUTE_MS;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks::blocking;
use dwell_storage::api::Stores;

pub use error::{FileError, ImportError};
pub use expansion::ExpansionLimit;
pub use mapping::{Constant, EventTemplate, MappingSpec, OneOrMany, TimeSpec};
pub use progress::{ImportPhase, ImportProgress, ImportState, NoProgress};
pub use report::{FileReport, FileState, ImportReport};

use crate::pseudonymise::PRESENCE_LATE_MS;
use crate::quarantine::QuarantineLimits;
/// A checked mapping for rows that were kept by themselves.
pub(crate) struct KeptRows {
    mapping: mapping::Mapping,
}

impl KeptRows {
    /// Checks a mapping.
    pub(crate) fn new(spec: &MappingSpec) -> Result<Self, ImportError> {
        Ok(Self {
            mapping: spec.resolve()?,
        })
    }

    /// The events that it makes of kept bytes, as NDJSON.
    pub(crate) fn events_of(
        &self,
        zones: &dyn mapping::ZoneOfVenue,
        format: crate::decode::Format,
        bytes: &[u8],
    ) -> Result<Vec<u8>, crate::refusal::Problem> {
        text_reader::events_of(&self.mapping, zones, format, bytes)
    }
}

pub(crate) use mapping::ZoneOfVenue;

use claims::Claimed;
use progress::Tracker;
use venues::VenueTable;

/// Which road the events take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Road {
    /// Through the event log, as if they had been posted: for backlogs.
    #[default]
    Log,
    /// Straight into the archive, by venue-day: for history. Days that have not ended go through the log.
    Archive,
}

impl Road {
    /// Name, as claims keep it.
    pub fn name(self) -> &'static str {
        match self {
            Road::Log => "log",
            Road::Archive => "archive",
        }
    }
}

/// What to import how.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Whose events they are.
    pub tenant: TenantId,
    /// The road.
    pub road: Road,
    /// How columns become fields.
    pub mapping: MappingSpec,
    /// A folder for what does not fit memory; made when it is not there, left empty.
    pub spill_dir: PathBuf,
    /// Memory that the archive road's sorter may take, in bytes; what is more is spilled.
    pub sort_memory_bytes: usize,
    /// How far compressed content may expand.
    pub expansion: ExpansionLimit,
    /// Longest row, in bytes of text.
    pub row_bytes_max: usize,
    /// How far in the future an event may lie, in milliseconds.
    pub future_ms_max: i64,
    /// How long after the import the pseudonym keys of its days live, in milliseconds.
    pub presence_late_ms: i64,
    /// How much of what is refused is kept; a file is a message.
    pub quarantine: QuarantineLimits,
    /// How long the archive road holds a venue-day's lease without renewing it, in milliseconds.
    pub lease_ttl_ms: i64,
    /// How long it waits for a venue-day that somebody else works on.
    pub lease_wait_max: Duration,
}

impl ImportOptions {
    /// The defaults: the log road, no mapping, 256 MiB for sorting.
    pub fn new(tenant: TenantId, spill_dir: PathBuf) -> Self {
        Self {
            tenant,
            road: Road::Log,
            mapping: MappingSpec::default(),
            spill_dir,
            sort_memory_bytes: 256 << 20,
            expansion: ExpansionLimit::default(),
            row_bytes_max: 1 << 20,
            future_ms_max: 5 * MINUTE_MS,
            presence_late_ms: PRESENCE_LATE_MS,
            quarantine: QuarantineLimits {
                message_entries_max: 10_000,
                ..QuarantineLimits::default()
            },
            lease_ttl_ms: MINUTE_MS,
            lease_wait_max: Duration::from_secs(120),
        }
    }
}

/// What an import works with.
#[derive(Debug, Clone)]
pub struct ImportDeps {
    /// The stores.
    pub stores: Stores,
    /// The time.
    pub clock: SharedClock,
}

/// Imports files and folders (`-` is standard input).
///
/// Repeating it, after success or after any failure, ends with the same events and deliveries. Dropping the future
/// stops the import at the next piece of work.
pub async fn import(
    paths: Vec<PathBuf>,
    options: &ImportOptions,
    deps: &ImportDeps,
    progress: Arc<dyn ImportProgress>,
) -> Result<ImportReport, ImportError> {
    let mapping = options.mapping.resolve()?;
    let (spill_dir, fingerprint, tenant) = (
        options.spill_dir.clone(),
        mapping.fingerprint(),
        options.tenant.clone(),
    );
    let tracker = Arc::new(Tracker::new(progress));
    let hashing = Arc::clone(&tracker);
    let found = blocking("import files", move || {
        let found = open::collect(&paths, &spill_dir)?;
        Ok::<_, ImportError>((
            claims::hash_all(found.inputs, &tenant, &fingerprint, &hashing),
            found.skipped,
        ))
    });
    let (hashed, skipped) = found.await??;
    let venues = Arc::new(VenueTable::load(&*deps.stores.registry, &options.tenant).await?);
    let started_at = deps.clock.now_ms();
    let mut report = ImportReport {
        started_at,
        skipped,
        ..ImportReport::default()
    };
    let claimed: Vec<Claimed> = claims::claim_all(hashed, options, deps, started_at, &mut report).await?;
    if !claimed.is_empty() {
        let presence = Arc::new(presence::Presence::new(options, deps).await?);
        let (mapping, tracker) = (Arc::new(mapping), Arc::clone(&tracker));
        let import = reading::Import {
            options,
            deps,
            venues,
            mapping,
            presence,
            tracker,
        };
        match options.road {
            Road::Log => log_road::run(&import, claimed, &mut report).await?,
            Road::Archive => archive_road::run(&import, claimed, &mut report).await?,
        }
    }
    report.add_up();
    tracker.done();
    Ok(report)
}
