//! A record as the log stores it.

use dwell_model::event::{EventBatch, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use rusqlite::Row;

use super::super::failure::Failure;
use super::super::values::{from_blob, receipt_bytes, receipt_from, tenant_from, to_blob, venue_from};
use crate::api::{LogRecord, LoggedRecord};
use crate::error::{ErrorKind, Result, StorageError};

/// Version of the blob that holds the events: postcard of [`EventBatch`].
const BATCH_VERSION: u8 = 1;
/// Largest blob. SQLite takes a gigabyte; a reader has to hold it several times.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// A record ready to be written.
#[derive(Debug)]
pub(super) struct EncodedRecord {
    pub(super) kind: Kind,
    pub(super) venue: VenueKey,
    pub(super) receipt: [u8; 16],
    pub(super) received_at: Option<TsMs>,
    pub(super) events: i64,
    pub(super) batch: Vec<u8>,
}

/// Checks and encodes the records of a call.
pub(super) fn encode_all(records: &[LogRecord]) -> Result<Vec<EncodedRecord>> {
    records.iter().map(encode).collect()
}

fn encode(record: &LogRecord) -> Result<EncodedRecord> {
    let invalid =
        |why: String| StorageError::new(ErrorKind::Invalid, format!("append to the event log: {why}"));
    if record.events.is_empty() {
        return Err(invalid("a record without events".to_owned()));
    }
    // What is wrong now would stop every reader later.
    record
        .events
        .check()
        .map_err(|error| invalid(error.to_string()))?;
    let batch = to_blob(BATCH_VERSION, &record.events).map_err(|failure| match failure {
        Failure::Store(error) => error,
        Failure::Sql(error) => invalid(error.to_string()),
    })?;
    if batch.len() > BATCH_BYTES_MAX {
        return Err(invalid(format!(
            "a record of {} bytes; at most {BATCH_BYTES_MAX} are taken",
            batch.len()
        )));
    }
    Ok(EncodedRecord {
        kind: record.events.kind,
        venue: record.venue.clone(),
        receipt: receipt_bytes(record.receipt),
        received_at: record.received_at,
        events: record.events.len() as i64,
        batch,
    })
}

/// What a record is to hold instead.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) position: i64,
    pub(super) events: i64,
    pub(super) batch: Vec<u8>,
}

/// A record with fewer events, or none.
pub(super) fn rewrite(position: i64, events: &EventBatch) -> Result<Rewrite> {
    let batch = to_blob(BATCH_VERSION, events).map_err(|failure| match failure {
        Failure::Store(error) => error,
        Failure::Sql(error) => StorageError::new(ErrorKind::Bug, error.to_string()),
    })?;
    Ok(Rewrite {
        position,
        events: events.len() as i64,
        batch,
    })
}

/// A record from a row `(position, received_at, kind, tenant, venue, receipt, events, batch)`, with the size of its
/// blob.
pub(super) fn decode(row: &Row<'_>) -> Result<(LoggedRecord, usize), Failure> {
    let position: i64 = row.get(0)?;
    let at = |failure: Failure| match failure {
        Failure::Store(error) => {
            Failure::Store(error.while_doing(&format!("the record at position {position}")))
        }
        sql => sql,
    };
    let blob = row.get_ref(7)?.as_blob().map_err(Failure::damaged_row)?;
    let events: EventBatch = from_blob(BATCH_VERSION, blob).map_err(at)?;
    events.check().map_err(|error| at(Failure::damaged_row(error)))?;
    let kind: u8 = row.get(2)?;
    let count: i64 = row.get(6)?;
    if Kind::from_number(kind) != Some(events.kind) || count != events.len() as i64 {
        return Err(at(Failure::damaged_row(
            "its columns and its events do not match",
        )));
    }
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(Failure::damaged_row);
    let logged = LoggedRecord {
        position,
        received_at: row.get(1)?,
        venue: VenueKey::new(
            tenant_from(text(3)?).map_err(at)?,
            venue_from(text(4)?).map_err(at)?,
        ),
        receipt: receipt_from(row.get_ref(5)?.as_blob().map_err(Failure::damaged_row)?).map_err(at)?,
        events,
    };
    Ok((logged, blob.len()))
}
