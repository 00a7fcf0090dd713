//! Why the speed layer stops following a shard, or refuses to start.

use dwell_runtime::tasks::BlockingError;
use dwell_storage::api::{Partition, Position, Shard};
use dwell_storage::error::{ErrorKind, StorageError};

use crate::config::ConfigError;

/// Result of the speed layer's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log no longer holds what the live state needs next. Following on would lose events silently: the shard starts
    /// anew from raw, and the gap is named in its status.
    #[error("the event log has a gap: partition {partition} no longer holds position {position}")]
    Gap {
        /// The partition.
        partition: Partition,
        /// The position that was asked for.
        position: Position,
        /// What the log says.
        #[source]
        source: StorageError,
    },
    /// Another speed layer has taken the shard over.
    #[error(
        "shard {shard} has been taken over by another speed layer (fence {fence} is no longer the highest)"
    )]
    TakenOver {
        /// The shard.
        shard: Shard,
        /// The fence that was ours.
        fence: u64,
    },
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A fold on another thread failed.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
    /// Events from a store that break their own rules.
    #[error("{doing}: {source}")]
    Batch {
        /// What was being read.
        doing: &'static str,
        /// The rule that is broken.
        #[source]
        source: dwell_model::event::BatchError,
    },
    /// The raw writer is so far behind that a rebuild would not fit into memory.
    #[error("the raw writer is {events} events behind, a rebuild waits for it")]
    RawWriterBehind {
        /// Events between its position and ours.
        events: u64,
    },
}

impl Error {
    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Storage(error) => error.kind().is_retryable(),
            // Met while a state is built: the log was trimmed just then, and the next try sees it.
            Error::RawWriterBehind { .. } | Error::Gap { .. } => true,
            _ => false,
        }
    }

    /// A log's failure, told apart by what it means here.
    pub(crate) fn from_log(partition: Partition, position: Position, source: StorageError) -> Self {
        match source.kind() {
            ErrorKind::Gap => Error::Gap {
                partition,
                position,
                source,
            },
            _ => Error::Storage(source),
        }
    }
}
