//! Why something was not taken: codes that clients may match on, and what to do about them.
//!
//! A [`Refusal`] concerns one event; the rest of its message is taken. A [`BodyError`] concerns the whole message:
//! nothing of it is taken. Messages never repeat values of an event, so that no identifier can travel through them
//! into a log or a quarantine; they name fields, places and what was expected.

use std::borrow::Cow;

use dwell_model::ids::VenueId;
use dwell_model::time::TsMs;
use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident, $summary:literal;)+) => {
        /// A stable code of a refused event. The words are part of the API; messages are not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name),+
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$name),+];

            /// The code as clients see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text),+ }
            }

            /// What it means, in general.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$name => $summary),+ }
            }

            fn class(self) -> Class {
                match self { $(Code::$name => Class::$class),+ }
            }
        }
    };
}

/// How far an event was understood when it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Its text could not be taken apart with certainty: anything may stand anywhere.
    Structure,
    /// It was taken apart; a value, the time or the venue is not acceptable.
    Meaning,
}

codes! {
    /// Bytes that are not UTF-8.
    InvalidUtf8 = "invalid_utf8", Structure, "the text is not valid UTF-8";
    /// Not JSON.
    JsonSyntax = "json_syntax", Structure, "the text is not valid JSON";
    /// JSON, but no object.
    NotAnObject = "not_an_object", Structure, "an event must be a JSON object";
    /// Not CSV.
    CsvSyntax = "csv_syntax", Structure, "the row is not valid CSV";
    /// Other than the header's number of cells.
    CsvColumns = "csv_columns", Structure, "the row has another number of cells than the header";
    /// A line longer than allowed.
    LineTooLong = "line_too_long", Structure, "the event is longer than allowed";
    /// A field that is not known, or not for this kind.
    UnknownField = "unknown_field", Structure, "a field is unknown, or does not belong to the kind";
    /// A field that stands twice.
    DuplicateField = "duplicate_field", Structure, "a field stands twice";
    /// A value of another type.
    WrongType = "wrong_type", Structure, "a value has another type than expected";
    /// A required field that is not there.
    MissingField = "missing_field", Meaning, "a required field is missing";
    /// A number that the field cannot hold.
    NumberOutOfRange = "number_out_of_range", Meaning, "a number lies outside what the field can hold";
    /// NaN or an infinity.
    NotFinite = "not_finite", Meaning, "a number is not finite";
    /// A kind that does not exist.
    UnknownKind = "unknown_kind", Structure, "the kind is not known";
    /// Neither milliseconds nor RFC 3339.
    TsUnreadable = "ts_unreadable", Structure, "ts cannot be read";
    /// Outside 1970 to 2199.
    TsOutOfRange = "ts_out_of_range", Meaning, "ts lies outside 1970 to 2199";
    /// Further in the future than clocks may differ.
    TsInFuture = "ts_in_future", Meaning, "ts lies in the future";
    /// Older than raw events are kept.
    TsTooOld = "ts_too_old", Meaning, "ts is older than raw events are kept";
    /// The pseudonym key of the day was destroyed.
    PresenceKeyDestroyed = "presence_key_destroyed", Meaning,
        "presence of that day can no longer be taken: its pseudonym key was destroyed";
    /// A name that is empty, too long, or holds control characters.
    InvalidName = "invalid_name", Meaning, "a name is empty, too long, or holds a control character";
    /// A coordinate beyond any floor plan.
    CoordinateOutOfRange = "coordinate_out_of_range", Meaning, "a coordinate lies beyond any floor plan";
    /// Another word than the field knows.
    UnknownWord = "unknown_word", Meaning, "a word is not one of those that the field knows";
    /// Not three upper-case letters.
    InvalidCurrency = "invalid_currency", Meaning, "currency must be three upper-case letters";
    /// Not a unit.
    InvalidUnit = "invalid_unit", Meaning, "unit must be 1 to 32 bytes without control characters";
    /// Not a list of items.
    InvalidItems = "invalid_items", Meaning, "items must be a list of {sku, quantity, amount}";
    /// Not a venue id.
    InvalidVenue = "invalid_venue", Meaning, "venue is not a valid venue id";
    /// A venue that does not exist.
    UnknownVenue = "unknown_venue", Meaning, "the venue is not known";
    /// Another venue than the path's.
    VenueMismatch = "venue_mismatch", Meaning, "the event names another venue than the path";
    /// A venue that the key may not post to.
    VenueNotAllowed = "venue_not_allowed", Meaning, "the key may not post to that venue";
}

impl Code {
    /// Whether the same event may be taken when it is sent again later, unchanged.
    pub fn is_retryable(self) -> bool {
        self == Code::TsInFuture
    }

    /// Whether the event was taken apart with certainty before it was refused, so that it is known where an
    /// identifier stands in it.
    pub fn is_understood(self) -> bool {
        self.class() == Class::Meaning
    }
}

/// A code with the particulars, before it is known which event it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The code.
    pub code: Code,
    /// For people: what was expected where. Holds no value of the event.
    pub message: Cow<'static, str>,
}

impl Problem {
    /// A problem with its particulars.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code, code.summary())
    }
}

/// Where an event stands in what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its number among the message's events, from 0. Empty lines and a header are not counted.
    pub index: u64,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Where its bytes begin in the slice given to the decoder.
    pub start: u32,
    /// How many bytes it has.
    pub len: u32,
}

impl Place {
    /// The event's bytes within the slice given to the decoder; empty when the slice is another one.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        bytes.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// How the bytes of a refused event may be kept (see [`crate::quarantine`]).
#[derive(Clone, PartialEq, Eq)]
pub enum Keep {
    /// As they are: the event was taken apart and holds no device identifier.
    Plain,
    /// With the device identifier replaced by its pseudonym.
    Device(DeviceSpot),
    /// Encrypted: an identifier may stand anywhere.
    Encrypted,
}

/// Where a device identifier stands in an event's bytes, and what its pseudonym depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceSpot {
    /// The identifier as it was sent.
    pub device: String,
    /// Where its text begins, counted from the event's first byte; the quotes of JSON and CSV included.
    pub start: u32,
    /// How many bytes the text has.
    pub len: u32,
    /// The venue.
    pub venue: VenueId,
    /// Event time.
    pub ts: TsMs,
}

/// Shows no identifier.
impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Keep::Plain => "Plain",
            Keep::Device(_) => "Device(…)",
            Keep::Encrypted => "Encrypted",
        })
    }
}

/// Shows no identifier.
impl std::fmt::Debug for DeviceSpot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceSpot")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// One event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub place: Place,
    /// Why: the stable code.
    pub code: Code,
    /// Why, for people.
    pub message: Cow<'static, str>,
    /// Its venue, where it is known to exist.
    pub venue: Option<VenueId>,
    /// The sensor that it names, where it could be taken apart into fields.
    pub sensor: Option<Box<str>>,
    /// How its bytes may be kept.
    pub keep: Keep,
}

/// A refused event as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedEvent {
    /// Its number among the message's events, from 0.
    pub index: u64,
    /// The stable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Whether the same event may be taken later, unchanged.
    pub retryable: bool,
}

impl From<&Refusal> for RefusedEvent {
    fn from(refusal: &Refusal) -> Self {
        Self {
            index: refusal.place.index,
            code: refusal.code.as_str(),
            message: refusal.message.to_string(),
            retryable: refusal.code.is_retryable(),
        }
    }
}

/// Why a whole message cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// There is nothing in it.
    #[error("there is no event in the body")]
    Empty,
    /// Not UTF-8 where every event depends on it.
    #[error("the body is not valid UTF-8: a wrong byte at offset {offset}")]
    InvalidUtf8 {
        /// Offset of the first wrong byte.
        offset: u64,
    },
    /// A JSON body that cannot be read to its end.
    #[error("the body is not valid JSON at line {line}, event {index}: {what}")]
    JsonSyntax {
        /// Line, from 1.
        line: u64,
        /// Number of the event, from 0.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// A CSV header that cannot be used.
    #[error("the CSV header cannot be used: {0}")]
    CsvHeader(String),
    /// A CSV body that cannot be cut into rows.
    #[error("the CSV cannot be read from line {line} on: {what}")]
    CsvSyntax {
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// One event is longer than allowed, in a format in which the next one cannot be found.
    #[error("the event at line {line} is longer than {max_bytes} bytes")]
    EventTooLong {
        /// Line, from 1.
        line: u64,
        /// Bytes allowed.
        max_bytes: usize,
    },
    /// More events than allowed.
    #[error("there are more than {max} events in the body; send them in several requests")]
    TooManyEvents {
        /// Events allowed.
        max: u64,
    },
}

impl BodyError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            BodyError::Empty => "empty_body",
            BodyError::InvalidUtf8 { .. } => "invalid_utf8",
            BodyError::JsonSyntax { .. } => "json_syntax",
            BodyError::CsvHeader(_) => "csv_header",
            BodyError::CsvSyntax { .. } => "csv_syntax",
            BodyError::EventTooLong { .. } => "line_too_long",
            BodyError::TooManyEvents { .. } => "too_many_events",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(words.iter().all(|word| {
            word.bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'8')
        }));
    }

    #[test]
    fn nothing_prints_a_device() {
        let spot = DeviceSpot {
            device: "aa:bb:cc:dd:ee:ff".to_owned(),
            start: 1,
            len: 19,
            venue: VenueId::new("v").unwrap(),
            ts: 1,
        };
        let printed = format!("{:?} {spot:?}", Keep::Device(spot.clone()));
        assert!(!printed.contains("aa:bb"), "{printed}");
    }
}
