//! What a message may be, and what it leaves unsaid.

use dwell_model::ids::VenueId;
use dwell_model::time::{DAY_MS, MINUTE_MS, TsMs};

use super::{FieldNames, WireField};

/// Rules that hold for a whole message.
#[derive(Debug, Clone)]
pub struct DecodeRules {
    /// Names that are understood.
    pub names: FieldNames,
    /// The venue of all events, where the path or the command names it. An event that names another is refused.
    pub venue: Option<VenueId>,
    /// Values of fields that events leave out. One that does not belong to an event's kind is not used for it.
    pub defaults: Vec<(WireField, String)>,
    /// Which event times are taken; `None` takes all, as for imports.
    pub times: Option<TimeRules>,
    /// Cell separator of CSV; `None`: that one of comma, semicolon, tab and bar which the header holds most.
    pub delimiter: Option<u8>,
    /// Longest event, in bytes of its text.
    pub max_event_bytes: usize,
    /// Most events of a message.
    pub max_events: u64,
}

impl Default for DecodeRules {
    fn default() -> Self {
        Self {
            names: FieldNames::new(),
            venue: None,
            defaults: Vec::new(),
            times: None,
            delimiter: None,
            max_event_bytes: 1 << 20,
            max_events: u64::MAX,
        }
    }
}

/// Which event times are taken from gateways, whose clocks may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRules {
    /// The time now.
    pub now: TsMs,
    /// How far in the future an event may lie, in milliseconds.
    pub max_future_ms: i64,
    /// How old an event may be, in milliseconds: as long as raw events are kept.
    pub max_age_ms: i64,
}

impl TimeRules {
    /// The defaults at a time: 5 minutes into the future, 90 days into the past.
    pub fn at(now: TsMs) -> Self {
        Self {
            now,
            max_future_ms: 5 * MINUTE_MS,
            max_age_ms: 90 * DAY_MS,
        }
    }
}
