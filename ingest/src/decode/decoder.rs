//! The decoder of a message: one state per format, fed piece by piece.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::csv::CsvState;
use super::json_array::JsonState;
use super::ndjson::NdjsonState;
use super::{Batches, DecodeRules, Value, WireEvent, WireField};
use crate::refusal::{BodyError, Place};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A format of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// An event per line, each a JSON object.
    Ndjson,
    /// A JSON array of events, or a single event.
    Json,
    /// Rows under a header that names the fields.
    Csv,
}

impl Format {
    /// The name, as in the quarantine.
    pub fn name(self) -> &'static str {
        match self {
            Format::Ndjson => "ndjson",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a format of events; known are ndjson, json, csv")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        [Format::Ndjson, Format::Json, Format::Csv]
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or(UnknownFormat)
    }
}

/// Decodes one message.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    cursor: Cursor,
    begun: bool,
}

#[derive(Debug)]
enum State {
    Ndjson(NdjsonState),
    Json(JsonState),
    Csv(CsvState),
}

/// Where the decoder stands in the message, and what it may do.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) rules: Arc<DecodeRules>,
    /// Number of the next event.
    pub(super) index: u64,
    /// Line that comes next, from 1.
    pub(super) line: u64,
}

impl Decoder {
    /// A decoder for one message.
    pub fn new(format: Format, rules: Arc<DecodeRules>) -> Self {
        let state = match format {
            Format::Ndjson => State::Ndjson(NdjsonState::default()),
            Format::Json => State::Json(JsonState::default()),
            Format::Csv => State::Csv(CsvState::default()),
        };
        Self {
            state,
            cursor: Cursor {
                rules,
                index: 0,
                line: 1,
            },
            begun: false,
        }
    }

    /// Decodes the whole events at the beginning of `bytes` and returns how many bytes were used. The caller gives the
    /// rest again, with more behind it; `last` says that nothing follows, then all bytes are used.
    ///
    /// [`Place`]s of verdicts count from the beginning of `bytes`: use them before the piece is given up. Nothing used
    /// means that the piece holds no whole event: give a longer one. A piece of `max_event_bytes` and a little more is
    /// always enough.
    ///
    /// After an error nothing more can be decoded. Events decoded before it are in `out` all the same: whoever may
    /// take a message as a whole only drops them.
    pub fn decode(&mut self, bytes: &[u8], last: bool, out: &mut Batches) -> Result<usize, BodyError> {
        let mut skip = 0;
        if !self.begun {
            if !last && bytes.len() < BYTE_ORDER_MARK.len() {
                return Ok(0);
            }
            self.begun = true;
            if bytes.starts_with(BYTE_ORDER_MARK) {
                skip = BYTE_ORDER_MARK.len();
            }
        }
        match &mut self.state {
            State::Ndjson(state) => state.decode(&mut self.cursor, bytes, skip, last, out),
            State::Json(state) => state.decode(&mut self.cursor, bytes, skip, last, out),
            State::Csv(state) => state.decode(&mut self.cursor, bytes, skip, last, out),
        }
    }

    /// How many events have been found so far, taken or refused.
    pub fn events(&self) -> u64 {
        self.cursor.index
    }

    /// The header of a CSV message, once it has been read: without it a row means nothing.
    pub fn header(&self) -> Option<&str> {
        match &self.state {
            State::Csv(state) => state.header(),
            _ => None,
        }
    }
}

impl Cursor {
    /// The place of the next event; an error when there are more than allowed.
    pub(super) fn place(&mut self, start: usize, len: usize) -> Result<Place, BodyError> {
        if self.index >= self.rules.max_events {
            return Err(BodyError::TooManyEvents {
                max: self.rules.max_events,
            });
        }
        let place = Place {
            index: self.index,
            line: self.line,
            start: start as u32,
            len: len as u32,
        };
        self.index += 1;
        Ok(place)
    }

    /// Adds what the message leaves unsaid. The kind comes first: it says which other defaults concern the event.
    pub(super) fn complete<'a>(rules: &'a DecodeRules, event: &mut WireEvent<'a>) {
        if rules.defaults.is_empty() {
            return;
        }
        let value = |text: &'a str| Value::Cell(text.into());
        for (_, kind) in rules
            .defaults
            .iter()
            .filter(|(field, _)| *field == WireField::Kind)
        {
            event.set_default(WireField::Kind, value(kind));
        }
        // An event of no known kind is refused whatever else it holds.
        let Ok(kind) = event.kind() else { return };
        for (field, text) in rules.defaults.iter().filter(|(field, _)| field.belongs_to(kind)) {
            event.set_default(*field, value(text));
        }
    }
}
