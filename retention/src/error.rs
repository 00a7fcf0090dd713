//! What can go wrong while proving, sweeping or restoring.

use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_runtime::failpoints::Injected;
use dwell_runtime::tasks::BlockingError;
use dwell_storage::error::StorageError;

/// Result of retention's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step failed.
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
    /// Another worker has taken the day.
    #[error("another worker has taken {venue} {day}")]
    LeaseLost {
        /// Whose day.
        venue: VenueKey,
        /// The day.
        day: LocalDay,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A day's raw rows could not be brought back as the archive has them.
    #[error("{0}")]
    NotRestored(String),
    /// Blocking work panicked, or the process is going down.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
    /// A test let it fail here.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Error {
    /// Whether the same step may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Storage { source, .. } if source.kind().is_retryable())
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
