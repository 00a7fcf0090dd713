//! The driver's errors, told by what the caller can do about them.

use scylla::errors::{
    DbError, ExecutionError, IntoRowsResultError, NewSessionError, PrepareError, RequestAttemptError,
    SchemaAgreementError,
};

use crate::error::{ErrorKind, StorageError};

/// CQL's error code of a conditional write whose outcome the coordinator does not know (since Cassandra 4.1).
const CAS_WRITE_UNKNOWN: i32 = 0x1700;

/// What became of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The servers did not do it.
    NotDone,
    /// They may have done it; the coordinator has stopped trying.
    Unknown,
    /// They may have done it, or may still do it: nobody heard from the coordinator.
    Open,
}

/// A failed request as a [`StorageError`].
pub(super) fn failed(doing: &str, error: ExecutionError) -> StorageError {
    StorageError::with_source(kind(&error), format!("{doing} in Cassandra"), error)
}

/// A failed preparation of a statement.
pub(super) fn not_prepared(doing: &str, error: PrepareError) -> StorageError {
    failed(doing, ExecutionError::PrepareError(error))
}

/// No connection could be made.
pub(super) fn not_connected(points: &str, error: NewSessionError) -> StorageError {
    let kind = match &error {
        NewSessionError::IllegalConfig(_) | NewSessionError::EmptyKnownNodesList => ErrorKind::Invalid,
        _ if error.to_string().contains("uthentication") => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("connect to Cassandra at {points}"), error)
}

/// The nodes do not agree on the schema.
pub(super) fn not_agreed(doing: &str, error: SchemaAgreementError) -> StorageError {
    StorageError::with_source(ErrorKind::Unavailable, format!("{doing} in Cassandra"), error)
}

/// A request took longer than it may.
pub(super) fn timed_out(doing: &str, after_ms: u64) -> StorageError {
    StorageError::new(
        ErrorKind::Unavailable,
        format!("{doing} in Cassandra: no answer within {after_ms} ms"),
    )
}

/// A row or an answer does not decode.
pub(super) fn damaged(
    doing: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StorageError {
    StorageError::with_source(
        ErrorKind::Damaged,
        format!("{doing} in Cassandra: a row does not decode"),
        error,
    )
}

/// An answer without rows where rows belong: the statement is not what its caller thinks.
pub(super) fn not_rows(doing: &str, error: IntoRowsResultError) -> StorageError {
    let kind = match &error {
        IntoRowsResultError::ResultNotRows(_) => ErrorKind::Bug,
        _ => ErrorKind::Damaged,
    };
    StorageError::with_source(kind, format!("{doing} in Cassandra"), error)
}

/// What became of a write that failed so.
pub(super) fn outcome(error: &ExecutionError) -> Outcome {
    let ExecutionError::LastAttemptError(attempt) = error else {
        return match error {
            ExecutionError::RequestTimeout(_) => Outcome::Open,
            _ => Outcome::NotDone,
        };
    };
    match attempt {
        RequestAttemptError::BrokenConnectionError(_) => Outcome::Open,
        RequestAttemptError::DbError(
            DbError::WriteTimeout { .. }
            | DbError::WriteFailure { .. }
            | DbError::ReadTimeout { .. }
            | DbError::ReadFailure { .. }
            | DbError::ServerError
            // Before the write or between its rounds: an earlier round may have been accepted.
            | DbError::Unavailable { .. }
            | DbError::Other(CAS_WRITE_UNKNOWN),
            _,
        )
        | RequestAttemptError::CqlResultParseError(_)
        | RequestAttemptError::CqlErrorParseError(_)
        | RequestAttemptError::BodyExtensionsParseError(_)
        | RequestAttemptError::UnexpectedResponse(_) => Outcome::Unknown,
        _ => Outcome::NotDone,
    }
}

fn kind(error: &ExecutionError) -> ErrorKind {
    match error {
        ExecutionError::BadQuery(_) => ErrorKind::Bug,
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => {
            attempt_kind(first_attempt)
        }
        ExecutionError::PrepareError(PrepareError::PreparedStatementIdsMismatch) => ErrorKind::Bug,
        ExecutionError::LastAttemptError(attempt) => attempt_kind(attempt),
        _ => ErrorKind::Unavailable,
    }
}

fn attempt_kind(error: &RequestAttemptError) -> ErrorKind {
    match error {
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        | RequestAttemptError::NonfinishedPagingState => ErrorKind::Bug,
        RequestAttemptError::UnableToAllocStreamId => ErrorKind::Busy,
        RequestAttemptError::DbError(db, message) => db_kind(db, message),
        _ => ErrorKind::Unavailable,
    }
}

fn db_kind(error: &DbError, message: &str) -> ErrorKind {
    match error {
        DbError::Overloaded | DbError::RateLimitReached { .. } => ErrorKind::Busy,
        // A guardrail refuses writes when the disks are too full; CQL has no code of its own for that.
        DbError::Invalid if message.contains("disk usage") => ErrorKind::Full,
        // Tables or columns that are not there: the schema is another one than this program knows.
        DbError::Invalid
        | DbError::ConfigError
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::AlreadyExists { .. } => ErrorKind::Invalid,
        DbError::SyntaxError | DbError::ProtocolError | DbError::FunctionFailure { .. } => ErrorKind::Bug,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use scylla::statement::Consistency;

    use super::*;

    fn told(error: DbError, message: &str) -> ErrorKind {
        let attempt = RequestAttemptError::DbError(error, message.to_owned());
        failed("test", ExecutionError::LastAttemptError(attempt)).kind()
    }

    #[test]
    fn a_failure_says_what_the_caller_can_do() {
        let away = DbError::Unavailable {
            consistency: Consistency::LocalQuorum,
            required: 2,
            alive: 1,
        };
        for (error, message, expected) in [
            (away, "", ErrorKind::Unavailable),
            (DbError::Overloaded, "", ErrorKind::Busy),
            (DbError::IsBootstrapping, "", ErrorKind::Unavailable),
            (
                DbError::Invalid,
                "Guardrail replica disk usage violated: no writes",
                ErrorKind::Full,
            ),
            (
                DbError::Invalid,
                "unconfigured table sessions",
                ErrorKind::Invalid,
            ),
            (DbError::Unauthorized, "", ErrorKind::Invalid),
            (DbError::SyntaxError, "", ErrorKind::Bug),
        ] {
            assert_eq!(told(error.clone(), message), expected, "{error} {message}");
        }
        let silent = ExecutionError::RequestTimeout(std::time::Duration::from_secs(1));
        assert_eq!(outcome(&silent), Outcome::Open);
        assert_eq!(failed("test", silent).kind(), ErrorKind::Unavailable);
        let refused = RequestAttemptError::DbError(DbError::Invalid, String::new());
        assert_eq!(
            outcome(&ExecutionError::LastAttemptError(refused)),
            Outcome::NotDone
        );
        let unknown = RequestAttemptError::DbError(DbError::Other(CAS_WRITE_UNKNOWN), String::new());
        assert_eq!(
            outcome(&ExecutionError::LastAttemptError(unknown)),
            Outcome::Unknown
        );
        assert_eq!(outcome(&ExecutionError::EmptyPlan), Outcome::NotDone);
    }
}
