//! The kinds of events and the fields of their payloads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an event tells. Each kind has its own topic, table and archive dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// A person's position on the floor.
    Position = 0,
    /// Somebody crossed a counting line.
    Crossing = 1,
    /// A counter's value.
    Count = 2,
    /// A device was heard.
    Presence = 3,
    /// A receipt of the till.
    Transaction = 4,
    /// A measured quantity.
    Reading = 5,
    /// A sensor speaks of itself.
    Status = 6,
}

/// Type of a payload field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// 32-bit float; absent is NaN, which is refused as a value.
    F32,
    /// 64-bit float; absent is NaN, which is refused as a value.
    F64,
    /// Integer; absent is [`NO_I64`](super::NO_I64), which is refused as a value.
    I64,
    /// Text; absent is [`NO_TEXT`](super::NO_TEXT).
    Text,
}

/// A field of a kind's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name, as in NDJSON, tables and the archive.
    pub name: &'static str,
    /// Type of the column.
    pub ty: FieldType,
    /// Whether every event of the kind has it.
    pub required: bool,
}

const fn required(name: &'static str, ty: FieldType) -> Field {
    Field {
        name,
        ty,
        required: true,
    }
}

const fn optional(name: &'static str, ty: FieldType) -> Field {
    Field {
        name,
        ty,
        required: false,
    }
}

/// Column numbers of each kind's payload, in the order of [`Kind::fields`].
#[allow(missing_docs)]
pub mod field {
    pub mod position {
        pub const X: usize = 0;
        pub const Y: usize = 1;
        pub const FLOOR: usize = 2;
    }
    pub mod crossing {
        pub const LINE: usize = 0;
        pub const DIRECTION: usize = 1;
        pub const COUNT: usize = 2;
        pub const TRACK: usize = 3;
        pub const SEQ: usize = 4;
        /// 1 when the identity rests on the ordinal within the message only.
        pub const WEAK: usize = 5;
    }
    pub mod count {
        pub const VALUE: usize = 0;
        pub const MODE: usize = 1;
    }
    pub mod presence {
        pub const RSSI: usize = 0;
        pub const X: usize = 1;
        pub const Y: usize = 2;
    }
    pub mod transaction {
        pub const AMOUNT: usize = 0;
        pub const CURRENCY: usize = 1;
        pub const VOID: usize = 2;
        /// JSON array of `{sku, quantity, amount}`, keys in that order, without spaces.
        pub const ITEMS: usize = 3;
    }
    pub mod reading {
        pub const VALUE: usize = 0;
        pub const UNIT: usize = 1;
    }
    pub mod status {
        pub const STATE: usize = 0;
        pub const SENT: usize = 1;
        pub const DROPPED: usize = 2;
        pub const SEQUENCE: usize = 3;
        pub const CLOCK_OFFSET_MS: usize = 4;
    }
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 7] = [
        Kind::Position,
        Kind::Crossing,
        Kind::Count,
        Kind::Presence,
        Kind::Transaction,
        Kind::Reading,
        Kind::Status,
    ];

    /// Name, as in NDJSON, topics, tables and the archive.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Position => "position",
            Kind::Crossing => "crossing",
            Kind::Count => "count",
            Kind::Presence => "presence",
            Kind::Transaction => "transaction",
            Kind::Reading => "reading",
            Kind::Status => "status",
        }
    }

    /// The kind of a number read back from a store.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }

    /// Name of the column that holds the identity's key: the field of that name in the event, or `key` where it
    /// is made of several ([`Kind::Crossing`]) or always empty ([`Kind::Status`]).
    pub fn key_name(self) -> &'static str {
        match self {
            Kind::Position => "track",
            Kind::Count => "counter",
            Kind::Presence => "device",
            Kind::Transaction => "number",
            Kind::Reading => "metric",
            Kind::Crossing | Kind::Status => "key",
        }
    }

    /// The payload's fields, in the order in which payload bytes are compared and hashed. `revision` follows
    /// them on every kind.
    pub fn fields(self) -> &'static [Field] {
        use FieldType::{F32, F64, I64, Text};
        match self {
            Kind::Position => const { &[required("x", F32), required("y", F32), optional("floor", Text)] },
            Kind::Crossing => {
                const {
                    &[
                        required("line", Text),
                        required("direction", Text),
                        required("count", I64),
                        optional("track", Text),
                        optional("seq", I64),
                        optional("weak", I64),
                    ]
                }
            }
            Kind::Count => const { &[required("value", I64), required("mode", Text)] },
            Kind::Presence => const { &[optional("rssi", I64), optional("x", F32), optional("y", F32)] },
            Kind::Transaction => {
                const {
                    &[
                        required("amount", I64),
                        required("currency", Text),
                        optional("void", I64),
                        optional("items", Text),
                    ]
                }
            }
            Kind::Reading => const { &[required("value", F64), required("unit", Text)] },
            Kind::Status => {
                const {
                    &[
                        required("state", Text),
                        optional("sent", I64),
                        optional("dropped", I64),
                        optional("sequence", I64),
                        optional("clock_offset_ms", I64),
                    ]
                }
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a kind of event; known are position, crossing, count, presence, transaction, reading, status"
)]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind(name.chars().take(64).collect()))
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$vdoc])* $variant),+
        }

        impl $name {
            /// The word used in events.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The value of a word; `None` for any other text.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// Which way a line was crossed.
    Direction {
        /// Into the venue or zone.
        In = "in",
        /// Out of it.
        Out = "out",
    }
}

words! {
    /// What a counter's value means.
    CountMode {
        /// Counted since the previous sample: values add up.
        Delta = "delta",
        /// Counted since the counter's last reset: increases add up, a drop is a reset (or a declared wrap).
        Cumulative = "cumulative",
        /// The state at the sample: the last one holds.
        State = "state",
    }
}

words! {
    /// What a sensor says of itself.
    SensorState {
        /// Working.
        Ok = "ok",
        /// Working, with losses.
        Degraded = "degraded",
        /// Not working.
        Offline = "offline",
    }
}
