//! A record that cannot be read, with its bytes.

use dwell_model::time::TsMs;

use crate::error::{ErrorKind, StorageError};

/// Most bytes of a damaged record that are passed on.
const BYTES_MAX: usize = 64 * 1_024;

/// The source of a [`Damaged`](ErrorKind::Damaged) error of the Kafka log: whoever keeps what cannot be read finds the
/// bytes here, by `error.source()` and `downcast_ref`. They are as some producer sent them: identifiers may be in clear.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct DamagedRecord {
    what: String,
    /// When the record was appended (the partition's running maximum).
    pub received_at: TsMs,
    /// The record's value, cut after 64 KiB; empty when it has none.
    pub bytes: Vec<u8>,
}

impl DamagedRecord {
    pub(super) fn new(what: String, received_at: TsMs, bytes: &[u8]) -> Self {
        Self {
            what,
            received_at,
            bytes: bytes[..bytes.len().min(BYTES_MAX)].to_vec(),
        }
    }

    pub(super) fn into_error(self) -> StorageError {
        StorageError::with_source(ErrorKind::Damaged, "read the event log", self)
    }
}
