//! Quarantine entries on the wire.

use dwell_storage::api::{QuarantineEncoding, QuarantineEntry, QuarantineLeftOut, QuarantineState};
use serde::Serialize;
use utoipa::ToSchema;

use super::instant;

/// Something that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantineDto {
    id: String,
    venue: Option<String>,
    received_at: String,
    /// The receipt of the request or file that brought it.
    receipt: String,
    /// `http`, or the file's name.
    source: String,
    /// The sensor that the event names, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor: Option<String>,
    /// Index in the request, or line in the file (from 1).
    index: u64,
    /// Why: a stable code.
    code: String,
    /// Why, for people.
    message: String,
    /// open, replayed or dropped.
    state: &'static str,
    /// ndjson, csv, …
    format: String,
    /// plain, or encrypted where the bytes could not be pseudonymised: then they are not shown.
    encoding: &'static str,
    bytes_len: usize,
}

/// An entry with its bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantineEntryDto {
    #[serde(flatten)]
    entry: QuarantineDto,
    /// The bytes as text, device identifiers replaced by pseudonyms; null when they are encrypted or no text.
    text: Option<String>,
    /// The bytes in hexadecimal where they are plain but no text.
    hex: Option<String>,
}

/// A page of entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantinePageDto {
    pub(crate) entries: Vec<QuarantineDto>,
    /// Cursor of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
    /// On the first page, where there are any: what was refused and not kept, since too much waits already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<LeftOutDto>,
}

/// Refused events that were not kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeftOutDto {
    venue: Option<String>,
    source: String,
    /// Where its own bound was reached.
    sensor: Option<String>,
    code: String,
    /// Whose bound was reached: tenant, source or sensor.
    bound: &'static str,
    /// Those of a message that was sent again count again.
    entries: u64,
}

impl From<QuarantineLeftOut> for LeftOutDto {
    fn from(left_out: QuarantineLeftOut) -> Self {
        Self {
            venue: left_out.venue.map(|venue| venue.to_string()),
            source: left_out.source,
            sensor: left_out.sensor,
            code: left_out.code,
            bound: left_out.scope.word(),
            entries: left_out.entries,
        }
    }
}

/// The states of entries by their words.
pub(crate) const QUARANTINE_STATES: [(&str, QuarantineState); 3] = [
    ("open", QuarantineState::Open),
    ("replayed", QuarantineState::Replayed),
    ("dropped", QuarantineState::Dropped),
];

impl From<&QuarantineEntry> for QuarantineDto {
    fn from(entry: &QuarantineEntry) -> Self {
        Self {
            id: entry.id.clone(),
            venue: entry.venue.as_ref().map(ToString::to_string),
            received_at: instant(entry.received_at),
            receipt: entry.receipt.to_string(),
            source: entry.source.clone(),
            sensor: entry.sensor.clone(),
            index: entry.index,
            code: entry.code.clone(),
            message: entry.message.clone(),
            state: QUARANTINE_STATES
                .iter()
                .find(|(_, state)| *state == entry.state)
                .map_or("", |(word, _)| word),
            format: entry.format.clone(),
            encoding: match entry.encoding {
                QuarantineEncoding::Plain => "plain",
                QuarantineEncoding::Encrypted => "encrypted",
            },
            bytes_len: entry.bytes.len(),
        }
    }
}

impl From<QuarantineEntry> for QuarantineEntryDto {
    fn from(entry: QuarantineEntry) -> Self {
        let dto = QuarantineDto::from(&entry);
        let (text, hex) = match (entry.encoding, String::from_utf8(entry.bytes)) {
            (QuarantineEncoding::Encrypted, _) => (None, None),
            (QuarantineEncoding::Plain, Ok(text)) => (Some(text), None),
            (QuarantineEncoding::Plain, Err(error)) => (None, Some(hex::encode(error.into_bytes()))),
        };
        Self {
            entry: dto,
            text,
            hex,
        }
    }
}
