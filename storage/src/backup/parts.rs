//! How what tables hold becomes the content of an object, and back.
//!
//! Lists that people may want to read are JSON. Rows and sessions, most of a backup, are postcard behind a version byte,
//! with aggregates' ingredients encoded as the tables have them.

use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, decode_value, encode_value};
use dwell_model::time::{LocalDay, TsMs};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{AccessKey, SecretKey, StoredSession};
use crate::error::{ErrorKind, Result, StorageError};

const ROWS_VERSION: u8 = 1;
const SESSIONS_VERSION: u8 = 1;

/// Venues and access keys of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryPart {
    /// Venues with all their layouts.
    pub venues: Vec<Venue>,
    /// Access keys: hashes, never the keys themselves.
    pub keys: Vec<AccessKey>,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentPart {
    /// Its id.
    pub id: String,
    /// What it says.
    pub body: Value,
}

/// A pseudonym key that lives. Not printable, so that no log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveKeyPart {
    /// Whose.
    pub venue: VenueKey,
    /// Of which day.
    pub day: LocalDay,
    /// Its bytes, hexadecimal.
    key: String,
    /// When its time is over.
    pub keep_until: TsMs,
}

/// A pseudonym key that was destroyed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DestroyedKeyPart {
    /// Whose, of the tenant.
    pub venue: VenueId,
    /// Of which day.
    pub day: LocalDay,
}

impl LiveKeyPart {
    /// A key as it is written.
    pub fn new(venue: VenueKey, day: LocalDay, key: &SecretKey, keep_until: TsMs) -> Self {
        let key = hex::encode(key.0);
        Self {
            venue,
            day,
            key,
            keep_until,
        }
    }

    /// The key.
    pub fn key(&self) -> Result<SecretKey> {
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(&self.key, &mut bytes).map_err(|error| damaged("a pseudonym key", error))?;
        Ok(SecretKey(bytes))
    }
}

impl std::fmt::Debug for LiveKeyPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveKeyPart")
            .field("venue", &self.venue)
            .field("day", &self.day)
            .finish_non_exhaustive()
    }
}

/// A list as JSON.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write a part of a backup", error))
}

/// A list from JSON.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged("a part of a backup", error))
}

/// The stored form of a row. Its fields keep their order for ever; a change is a new version.
#[derive(Serialize, Deserialize)]
struct StoredRow {
    is_day: bool,
    start: TsMs,
    length_ms: i64,
    family: u8,
    subject: String,
    slice: u8,
    value: Vec<u8>,
}

/// Rows of a generation.
pub fn encode_rows(rows: &[AggregateRow]) -> Result<Vec<u8>> {
    let stored: Vec<StoredRow> = rows
        .iter()
        .map(|row| StoredRow {
            is_day: row.grain == Grain::Day,
            start: row.start,
            length_ms: row.length_ms,
            family: row.family as u8,
            subject: row.subject.clone(),
            slice: row.slice as u8,
            value: encode_value(&row.value),
        })
        .collect();
    encode(ROWS_VERSION, &stored)
}

/// Rows of a generation, read back.
pub fn decode_rows(bytes: &[u8]) -> Result<Vec<AggregateRow>> {
    let unknown = |what: &str, number: u8| damaged("rows", format!("{what} {number} is not known"));
    let stored: Vec<StoredRow> = decode(ROWS_VERSION, bytes)?;
    let row = |row: StoredRow| {
        Ok(AggregateRow {
            grain: if row.is_day { Grain::Day } else { Grain::Hour },
            start: row.start,
            length_ms: row.length_ms,
            family: Family::from_number(row.family).ok_or_else(|| unknown("family", row.family))?,
            subject: row.subject,
            slice: Slice::from_number(row.slice).ok_or_else(|| unknown("slice", row.slice))?,
            value: decode_value(&row.value).map_err(|error| damaged("rows", error))?,
        })
    };
    stored.into_iter().map(row).collect()
}

/// Sessions of a generation.
pub fn encode_sessions(sessions: &[StoredSession]) -> Result<Vec<u8>> {
    encode(SESSIONS_VERSION, &sessions)
}

/// Sessions of a generation, read back.
pub fn decode_sessions(bytes: &[u8]) -> Result<Vec<StoredSession>> {
    decode(SESSIONS_VERSION, bytes)
}

fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, vec![version])
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write a part of a backup", error))
}

fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&found, rest)) if found == version => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("a part of a backup", "bytes are left over")),
            Err(error) => Err(damaged("a part of a backup", error)),
        },
        found => {
            let found = found.map(|(version, _)| *version);
            let what = format!("version {found:?} of its encoding; {version} is known");
            Err(damaged("a part of a backup", what))
        }
    }
}

fn damaged(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::with_source(ErrorKind::Damaged, format!("read {what}"), error)
}

#[cfg(test)]
mod tests {
    use dwell_model::metrics::{LineValue, Value as Ingredients};

    use super::*;

    #[test]
    fn rows_come_back_and_what_is_not_theirs_is_refused() {
        let rows: Vec<AggregateRow> = [Grain::Hour, Grain::Day]
            .into_iter()
            .map(|grain| AggregateRow {
                grain,
                start: -5,
                length_ms: 3_600_000,
                family: Family::Line,
                subject: "door ü".to_owned(),
                slice: Slice::All,
                value: Ingredients::Line(LineValue {
                    inward: i64::MAX,
                    outward: -1,
                }),
            })
            .collect();
        let bytes = encode_rows(&rows).unwrap();
        assert_eq!(decode_rows(&bytes).unwrap(), rows);
        let mut other = bytes.clone();
        other[0] = 9;
        for damaged in [
            &bytes[..bytes.len() - 1],
            &[bytes.clone(), vec![0]].concat(),
            &other,
            &[],
        ] {
            assert_eq!(decode_rows(damaged).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn a_key_is_written_and_not_printed() {
        let venue = crate::conformance::samples::shop();
        let key = LiveKeyPart::new(venue, "2026-03-29".parse().unwrap(), &SecretKey([0xab; 32]), 7);
        let written: LiveKeyPart = from_json(&to_json(&key).unwrap()).unwrap();
        assert!(written.key().unwrap() == SecretKey([0xab; 32]));
        assert!(!format!("{key:?}").contains("abab"));
    }
}
