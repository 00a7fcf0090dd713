//! What can go wrong in a store, told by what the caller can do about it.

use std::fmt;

/// Result of a store's operation.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The store is full of work: wait, then send the same again. Nothing was done.
    Busy,
    /// The store cannot be reached or failed on its way: try again; the outcome of a write is unknown, and the same
    /// write can be repeated.
    Unavailable,
    /// Somebody else holds a higher fence or has changed what the write rested on: read again, decide anew.
    Conflict,
    /// What was asked for does not exist.
    NotFound,
    /// The log no longer holds the position asked for: events may be missing; stop and name the gap.
    Gap,
    /// Stored bytes are damaged or of an unknown version: stop, name the place, restore or repair.
    Damaged,
    /// The disk or a quota is full: nothing was stored; free room.
    Full,
    /// The request cannot be right, whatever the store's state.
    Invalid,
    /// A mistake in Dwell.
    Bug,
}

impl ErrorKind {
    /// The kind as a word, for metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            ErrorKind::Busy => "busy",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Conflict => "conflict",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Gap => "gap",
            ErrorKind::Damaged => "damaged",
            ErrorKind::Full => "full",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Bug => "bug",
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Busy | ErrorKind::Unavailable)
    }
}

/// Whether an error, or what caused it, is a disk without room.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<std::io::Error>() {
            // One that wraps another shows the causes of that one, not itself.
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        }
    });
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| {
            matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        })
    })
}

/// A failure of a store: its kind, what was being done, and the engine's own error.
#[derive(Debug)]
pub struct StorageError {
    kind: ErrorKind,
    doing: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StorageError {
    /// A failure without an engine's error behind it.
    pub fn new(kind: ErrorKind, doing: impl Into<String>) -> Self {
        Self {
            kind,
            doing: doing.into(),
            source: None,
        }
    }

    /// A failure with the engine's error.
    pub fn with_source(
        kind: ErrorKind,
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            doing: doing.into(),
            source: Some(source.into()),
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Adds what the caller was doing.
    pub fn while_doing(mut self, doing: &str) -> Self {
        self.doing = format!("{doing}: {}", self.doing);
        self
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.doing)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_found_below_what_wraps_it() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let wrapped = std::io::Error::other(StorageError::with_source(ErrorKind::Busy, "write", full()));
        assert!(is_full(&full()));
        assert!(is_full(&StorageError::with_source(
            ErrorKind::Unavailable,
            "commit",
            wrapped
        )));
        assert!(!is_full(&std::io::Error::other("a full house")));
    }
}
