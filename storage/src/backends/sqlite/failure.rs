//! SQLite's errors as [`StorageError`]s that say what to do.

use std::fmt::Display;
use std::path::Path;

use rusqlite::{Error as SqlError, ErrorCode};

use crate::error::{ErrorKind, StorageError};

/// What goes wrong inside a transaction: the engine's error, or a store's own.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(SqlError),
    Store(StorageError),
}

impl Failure {
    /// The error for the caller. `path` is the database file.
    pub(super) fn into_error(self, doing: &str, path: &Path) -> StorageError {
        match self {
            Failure::Sql(error) => describe_sql(error, &format!("{doing} in {}", path.display())),
            Failure::Store(error) => error.while_doing(doing),
        }
    }

    /// A row that holds what cannot be there.
    pub(super) fn damaged_row(what: impl Display) -> Self {
        Failure::Store(StorageError::new(
            ErrorKind::Damaged,
            format!("a stored row is damaged: {what}"),
        ))
    }

    /// A store's own refusal.
    pub(super) fn refuse(kind: ErrorKind, why: impl Into<String>) -> Self {
        Failure::Store(StorageError::new(kind, why))
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Failure::Sql(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Store(error)
    }
}

/// An error of SQLite with its kind and advice. `doing` names the file.
pub(super) fn describe_sql(error: SqlError, doing: &str) -> StorageError {
    let (kind, advice) = advice(&error);
    StorageError::with_source(kind, format!("{doing}: {advice}"), error)
}

/// A file that cannot be used as it is.
pub(super) fn damaged(
    doing: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StorageError {
    StorageError::with_source(ErrorKind::Damaged, doing, error)
}

fn advice(error: &SqlError) -> (ErrorKind, &'static str) {
    match error {
        SqlError::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => (ErrorKind::Full, "the disk is full: free room, then send again"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
                ErrorKind::Busy,
                "another process holds the database: try again, or stop that process",
            ),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => (
                ErrorKind::Damaged,
                "the file is damaged: docs/faults.md says how to mend it",
            ),
            ErrorCode::SystemIoFailure => (
                ErrorKind::Unavailable,
                "reading or writing the file failed: look at the disk, then try again",
            ),
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => (
                ErrorKind::Unavailable,
                "the file cannot be opened for writing: check its permissions",
            ),
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "there is no memory left: try again"),
            ErrorCode::TooBig => (ErrorKind::Invalid, "a value is too large to be stored: split it"),
            ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => {
                (ErrorKind::Unavailable, "the operation was interrupted: try again")
            }
            _ => (ErrorKind::Bug, "the database refused a statement"),
        },
        SqlError::FromSqlConversionFailure(..)
        | SqlError::IntegralValueOutOfRange(..)
        | SqlError::InvalidColumnType(..)
        | SqlError::Utf8Error(..) => (
            ErrorKind::Damaged,
            "a stored value has a wrong type: docs/faults.md says how to mend the file",
        ),
        _ => (ErrorKind::Bug, "the database was not used as it must be"),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn engine_errors_say_what_to_do() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, ErrorKind::Full),
            (ffi::SQLITE_BUSY, ErrorKind::Busy),
            (ffi::SQLITE_LOCKED, ErrorKind::Busy),
            (ffi::SQLITE_CORRUPT, ErrorKind::Damaged),
            (ffi::SQLITE_NOTADB, ErrorKind::Damaged),
            (ffi::SQLITE_IOERR_FSYNC, ErrorKind::Unavailable),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, ErrorKind::Unavailable),
            (ffi::SQLITE_TOOBIG, ErrorKind::Invalid),
            (ffi::SQLITE_CONSTRAINT, ErrorKind::Bug),
        ] {
            let failure = Failure::Sql(SqlError::SqliteFailure(ffi::Error::new(code), None));
            let error = failure.into_error("append", Path::new("/data/log.db"));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(
                error.to_string().starts_with("append in /data/log.db: "),
                "{error}"
            );
        }
    }
}
