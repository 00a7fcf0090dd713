//! What can go wrong in a run.

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_runtime::failpoints::Injected;
use dwell_runtime::tasks::BlockingError;
use dwell_storage::error::{ErrorKind, StorageError};

/// Result of the batch layer's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run, or a day of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error("{doing}: {source}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The store's failure.
        #[source]
        source: StorageError,
    },
    /// A flip failed in a way that leaves open whether it happened, and that could not be found out.
    #[error("whether the generation was published is unknown: {source}")]
    OutcomeUnknown {
        /// The store's last failure.
        #[source]
        source: StorageError,
    },
    /// The venue is not in the registry.
    #[error("there is no venue {0}")]
    UnknownVenue(VenueKey),
    /// The specification cannot be meant.
    #[error("{0}")]
    Spec(String),
    /// The venue's time zone or day start was changed while the day was being computed: the rows read are another
    /// day's.
    #[error("the venue's time zone or day start changed during the run")]
    CutChanged,
    /// A file of the archive gave another number of events than it was written with.
    #[error("the archive of {venue} {day} gave {read} {kind} events where {expected} were written")]
    ArchiveCount {
        /// Whose day.
        venue: VenueKey,
        /// The day.
        day: LocalDay,
        /// Kind of the events.
        kind: Kind,
        /// Events read.
        read: u64,
        /// Events that the files were written with.
        expected: u64,
    },
    /// The commit that the day shared with others failed.
    #[error("commit to the archive: {0}")]
    ArchiveCommit(String),
    /// Others went on rewriting the day's archive while this run tried to.
    #[error("the day's archive was rewritten by others {0} times in a row")]
    Contended(u32),
    /// The raw writer had not passed the log's end within the time allowed.
    #[error("the raw writer is still {behind} records behind the log's end as of the start of the run")]
    RawWriterBehind {
        /// Records between them, over all partitions.
        behind: u64,
    },
    /// Another worker has taken the day.
    #[error("another worker has taken the day")]
    LeaseLost,
    /// A proposed generation cannot be approved; the text says why and what to do.
    #[error("not approved: {0}")]
    NotApproved(String),
    /// A venue's days cannot be cut anew; the text says why and what to do.
    #[error("not cut anew: {0}")]
    Recut(String),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Blocking work panicked, or the process is going down.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
    /// A test let it fail here.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Error {
    /// Whether the same run may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Storage { source, .. } => {
                source.kind().is_retryable() || source.kind() == ErrorKind::Conflict
            }
            Error::OutcomeUnknown { .. }
            | Error::ArchiveCommit(_)
            | Error::CutChanged
            | Error::Contended(_)
            | Error::RawWriterBehind { .. } => true,
            _ => false,
        }
    }

    /// The failure as a word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Error::Storage { source, .. } => source.kind().word(),
            Error::OutcomeUnknown { .. } => "outcome_unknown",
            Error::UnknownVenue(_) => "unknown_venue",
            Error::Spec(_) => "spec",
            Error::CutChanged => "cut_changed",
            Error::ArchiveCount { .. } => "damaged",
            Error::ArchiveCommit(_) => "archive_commit",
            Error::Contended(_) => "contended",
            Error::RawWriterBehind { .. } => "raw_writer_behind",
            Error::LeaseLost => "lease_lost",
            Error::NotApproved(_) => "not_approved",
            Error::Cancelled => "cancelled",
            Error::Blocking(_) => "panic",
            Error::Recut(_) => "recut",
            Error::Injected(_) => "injected",
        }
    }
}

/// Names what was being done when a store failed.
pub(crate) trait Doing<T> {
    /// Adds the name.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, StorageError> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Storage { doing, source })
    }
}
