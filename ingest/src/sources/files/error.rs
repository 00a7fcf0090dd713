//! Why an import, or one file of it, came to an end.

use std::path::Path;

use dwell_runtime::failpoints::Injected;
use dwell_runtime::tasks::BlockingError;
use dwell_storage::error::StorageError;

/// Why an import as a whole stopped. What was durable by then stays; the same import can be run again and goes on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The options or the mapping cannot be right; nothing was done.
    #[error("{0}")]
    Options(String),
    /// No file was named, or the folders named hold none that can be imported.
    #[error("nothing to import: {0}")]
    NoFiles(String),
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The lease of a venue-day is held by somebody else for longer than the import is ready to wait.
    #[error(
        "{venue} {day} is being worked on by {holder}; run the import again later, it goes on where it stopped"
    )]
    DayHeld {
        /// The venue.
        venue: String,
        /// The day.
        day: String,
        /// Who holds the lease, when it is known.
        holder: String,
    },
    /// A day of the archive changed under the import again and again.
    #[error("{0} venue-days of the archive were changed by others on every try; run the import again")]
    Contended(usize),
    /// The spill folder cannot be used.
    #[error("spill folder: {0}")]
    Spill(#[source] std::io::Error),
    /// Work on a thread of its own ended badly.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
    /// A failpoint of a test.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// Why one file could not be read to its end. What was read before stays taken; the file counts as not imported.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be opened or read.
    #[error("{place}: {source}")]
    Io {
        /// The file, and the member of a zip where there is one.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file's content is not what its format asks for.
    #[error("{place}: {what}")]
    Content {
        /// The file, and the member of a zip where there is one, with the line where it is known.
        place: String,
        /// What is wrong, for people.
        what: String,
    },
    /// The road that takes the rows has ended: its own error tells why.
    #[error("the import has stopped")]
    Stopped,
    /// A store that is needed for reading failed: the import as a whole stops.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FileError {
    /// A failure of the system at a file.
    pub(super) fn io(place: &Path, source: std::io::Error) -> Self {
        FileError::Io {
            place: place.display().to_string(),
            source,
        }
    }

    /// Content that cannot be right.
    pub(super) fn content(place: impl Into<String>, what: impl Into<String>) -> Self {
        FileError::Content {
            place: place.into(),
            what: what.into(),
        }
    }
}
