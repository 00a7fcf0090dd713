//! How values that several tables hold are written and read back.

use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::LocalDay;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::error::ErrorKind;

/// A receipt as it is stored.
pub(super) fn receipt_bytes(receipt: Receipt) -> [u8; 16] {
    receipt.to_u128().to_be_bytes()
}

/// A receipt read back.
pub(super) fn receipt_from(bytes: &[u8]) -> Result<Receipt, Failure> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| Failure::damaged_row("a receipt has not 16 bytes"))?;
    Ok(Receipt::from_u128(u128::from_be_bytes(bytes)))
}

/// A tenant's id read back.
pub(super) fn tenant_from(id: &str) -> Result<TenantId, Failure> {
    TenantId::new(id).map_err(|error| Failure::damaged_row(format_args!("tenant {id:?}: {error}")))
}

/// A venue's id read back.
pub(super) fn venue_from(id: &str) -> Result<VenueId, Failure> {
    VenueId::new(id).map_err(|error| Failure::damaged_row(format_args!("venue {id:?}: {error}")))
}

/// A day read back.
pub(super) fn day_from(days: i64) -> Result<LocalDay, Failure> {
    i32::try_from(days)
        .ok()
        .and_then(LocalDay::from_epoch_days)
        .ok_or_else(|| Failure::damaged_row(format_args!("day number {days}")))
}

/// A count or fence as SQLite holds it.
pub(super) fn to_stored(number: u64) -> Result<i64, Failure> {
    i64::try_from(number)
        .map_err(|_| Failure::refuse(ErrorKind::Invalid, format!("{number} is too large to be stored")))
}

/// A count or fence read back.
pub(super) fn from_stored(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::damaged_row(format_args!("negative count {number}")))
}

/// `limit` as SQL takes it.
pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::refuse(ErrorKind::Invalid, format!("not to be written as JSON: {error}")))
}

/// A value from JSON text.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(Failure::damaged_row)
}

/// A blob: a version byte, then postcard.
pub(super) fn to_blob<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, Failure> {
    let mut bytes = postcard::to_stdvec(value)
        .map_err(|error| Failure::refuse(ErrorKind::Invalid, format!("not to be encoded: {error}")))?;
    bytes.insert(0, version);
    Ok(bytes)
}

/// A value from a blob of a known version.
pub(super) fn from_blob<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, Failure> {
    match bytes.split_first() {
        Some((&found, rest)) if found == version => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(Failure::damaged_row("bytes are left over")),
            Err(error) => Err(Failure::damaged_row(error)),
        },
        Some((&found, _)) => Err(Failure::damaged_row(format_args!(
            "version {found} of its encoding; {version} is known"
        ))),
        None => Err(Failure::damaged_row("it is empty")),
    }
}

/// The number of a venue, if anything was ever stored for it.
pub(super) fn find_venue(connection: &Connection, venue: &VenueKey) -> Result<Option<i64>, Failure> {
    let mut find = connection.prepare_cached("SELECT id FROM venue_refs WHERE tenant = ?1 AND venue = ?2")?;
    Ok(find
        .query_row((venue.tenant.as_str(), venue.venue.as_str()), |row| row.get(0))
        .optional()?)
}

/// The number of a venue, given out now if it has none.
pub(super) fn intern_venue(connection: &Connection, venue: &VenueKey) -> Result<i64, Failure> {
    if let Some(id) = find_venue(connection, venue)? {
        return Ok(id);
    }
    let mut insert = connection.prepare_cached("INSERT INTO venue_refs (tenant, venue) VALUES (?1, ?2)")?;
    insert.execute((venue.tenant.as_str(), venue.venue.as_str()))?;
    Ok(connection.last_insert_rowid())
}
