//! Columns to JSON.

use std::ops::Range;

use dwell_model::event::{Column, EventBatch, Kind, NO_I64, NO_TEXT};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ITEMS, VERSION, is_flag};
use crate::api::LogRecord;
use crate::error::{ErrorKind, Result, StorageError};

/// The records of a call as they go out: one text per event, all in one buffer.
#[derive(Debug, Default)]
pub(in super::super) struct EncodedCall {
    bytes: Vec<u8>,
    /// Where each event's text ends in `bytes`.
    ends: Vec<usize>,
    /// Where each record's events end in `ends`.
    record_ends: Vec<usize>,
    /// What all events of the record being written begin with.
    head: Vec<u8>,
}

impl EncodedCall {
    /// Writes all records of a call, in place of what was there; nothing is usable after an error.
    pub(in super::super) fn encode(&mut self, records: &[LogRecord]) -> Result<()> {
        self.bytes.clear();
        self.ends.clear();
        self.record_ends.clear();
        for record in records {
            self.record(record)?;
            self.record_ends.push(self.ends.len());
        }
        Ok(())
    }

    /// Number of events.
    pub(in super::super) fn events(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all events.
    pub(in super::super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory that is kept for the next call.
    pub(in super::super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The events of each record, as numbers for [`event`](Self::event).
    pub(in super::super) fn records(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.record_ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.record_ends[i - 1] };
            start..self.record_ends[i]
        })
    }

    /// The text of an event.
    pub(in super::super) fn event(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }

    fn record(&mut self, record: &LogRecord) -> Result<()> {
        let events = &record.events;
        if events.is_empty() {
            return Err(refused("a record without events"));
        }
        events.check().map_err(|error| {
            StorageError::with_source(ErrorKind::Invalid, "append to the event log", error)
        })?;
        self.head(record)
            .and_then(|()| (0..events.len()).try_for_each(|row| self.event_of(events, row)))
            .map_err(|error| match error {
                Refused::Value(why) => refused(&why),
                Refused::Text(error) => {
                    StorageError::with_source(ErrorKind::Bug, "write an event as JSON", error)
                }
            })
    }

    fn head(&mut self, record: &LogRecord) -> Result<(), Refused> {
        let out = &mut self.head;
        out.clear();
        out.extend_from_slice(b"{\"v\":");
        json(out, &VERSION)?;
        text_field(out, "tenant", record.venue.tenant.as_str())?;
        text_field(out, "venue", record.venue.venue.as_str())?;
        text_field(out, "kind", record.events.kind.name())?;
        out.extend_from_slice(b",\"receipt\":\"");
        let mut digits = [0_u8; 32];
        hex_of(record.receipt.to_u128(), &mut digits);
        out.extend_from_slice(&digits);
        out.push(b'"');
        if let Some(received_at) = record.received_at {
            field(out, "received_at", &received_at)?;
        }
        Ok(())
    }

    fn event_of(&mut self, events: &EventBatch, row: usize) -> Result<(), Refused> {
        let out = &mut self.bytes;
        out.extend_from_slice(&self.head);
        text_field(out, "sensor", events.sensor(row))?;
        field(out, "ts", &events.ts[row])?;
        let key = events.key(row);
        // A status has no key of its own; where there is none nothing is written.
        if events.kind != Kind::Status || !key.is_empty() {
            text_field(out, events.kind.key_name(), key)?;
        }
        for (described, column) in events.kind.fields().iter().zip(&events.payload) {
            let name = described.name;
            let is_there = match column {
                Column::F32(values) => float(
                    out,
                    name,
                    values[row],
                    values[row].is_finite(),
                    values[row].is_nan(),
                )?,
                Column::F64(values) => float(
                    out,
                    name,
                    values[row],
                    values[row].is_finite(),
                    values[row].is_nan(),
                )?,
                Column::I64(values) if values[row] == NO_I64 => false,
                Column::I64(values) => {
                    match values[row] {
                        flag @ (0 | 1) if is_flag(name) => field(out, name, &(flag == 1))?,
                        number => field(out, name, &number)?,
                    }
                    true
                }
                Column::Text(ids) if ids[row] == NO_TEXT => false,
                Column::Text(ids) => {
                    let text = events.strings.get(ids[row]);
                    match name == ITEMS && is_json_array(text) {
                        true => raw_field(out, name, text),
                        false => text_field(out, name, text)?,
                    }
                    true
                }
            };
            if described.required && !is_there {
                return Err(Refused::Value(format!(
                    "an event of kind {} without {name}",
                    events.kind
                )));
            }
        }
        if events.revision[row] != 0 {
            field(out, "revision", &events.revision[row])?;
        }
        out.push(b'}');
        self.ends.push(out.len());
        Ok(())
    }
}

enum Refused {
    Value(String),
    Text(serde_json::Error),
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self::Text(error)
    }
}

fn refused(what: &str) -> StorageError {
    StorageError::new(ErrorKind::Invalid, format!("append to the event log: {what}"))
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    serde_json::to_writer(out, value)
}

fn name_of(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn field<T: Serialize>(out: &mut Vec<u8>, name: &str, value: &T) -> serde_json::Result<()> {
    name_of(out, name);
    json(out, value)
}

fn text_field(out: &mut Vec<u8>, name: &str, text: &str) -> serde_json::Result<()> {
    name_of(out, name);
    json(out, text)
}

fn raw_field(out: &mut Vec<u8>, name: &str, text: &str) {
    name_of(out, name);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a float that is there; JSON has no infinities.
fn float<T: Serialize>(
    out: &mut Vec<u8>,
    name: &str,
    value: T,
    is_finite: bool,
    is_absent: bool,
) -> Result<bool, Refused> {
    if is_absent {
        return Ok(false);
    }
    if !is_finite {
        return Err(Refused::Value(format!("an event with an infinite {name}")));
    }
    field(out, name, &value)?;
    Ok(true)
}

/// Whether a text is a JSON array to the last byte, which can then stand in the record as such.
fn is_json_array(text: &str) -> bool {
    text.starts_with('[') && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

fn hex_of(number: u128, digits: &mut [u8; 32]) {
    for (place, digit) in digits.iter_mut().enumerate() {
        let value = (number >> (124 - 4 * place)) as usize & 0xf;
        *digit = b"0123456789abcdef"[value];
    }
}
