//! Failures of Kafka, told by what to do about them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{ErrorKind, StorageError};

/// What a caller can do about a Kafka error.
pub(super) fn kind_of(error: &KafkaError) -> ErrorKind {
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => {
            ErrorKind::Invalid
        }
        error => error
            .rdkafka_error_code()
            .map_or(ErrorKind::Unavailable, kind_of_code),
    }
}

/// See [`kind_of`]. What is not named here may pass: brokers away, leaders being elected, time run out.
pub(super) fn kind_of_code(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::QueueFull => ErrorKind::Busy,
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::PolicyViolation => ErrorKind::Invalid,
        Code::MessageBatchTooLarge => ErrorKind::Invalid,
        Code::BadMessage | Code::InvalidMessage => ErrorKind::Damaged,
        Code::OffsetOutOfRange | Code::AutoOffsetReset => ErrorKind::Gap,
        _ => ErrorKind::Unavailable,
    }
}

/// A Kafka error as a store's.
pub(super) fn failed(doing: impl Into<String>, error: KafkaError) -> StorageError {
    StorageError::with_source(kind_of(&error), doing, error)
}

/// A Kafka error code as a store's error.
pub(super) fn failed_code(doing: impl Into<String>, code: RDKafkaErrorCode) -> StorageError {
    StorageError::with_source(kind_of_code(code), doing, code)
}
