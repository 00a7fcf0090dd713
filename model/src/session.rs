//! Sessions and zone visits: one person's stay, folded from a track's events.
//!
//! [`SubjectFold`] is the state of one subject: it takes the subject's events in the order (ts, sensor), one at a time,
//! and gives a [`Session`] whenever a gap ends one. The batch layer runs it over a sorted day with [`fold_day`]; the
//! speed layer keeps one per subject and looks at [`SubjectFold::snapshot`] between events. Both therefore see the
//! same sessions for the same events.

mod fold;
mod subject;

pub use fold::{DayFold, FoldContext, PositionEvent, SubjectFold, fold_day};
pub use subject::{Subject, session_id};

use serde::{Deserialize, Serialize};

use crate::time::TsMs;

/// One person's stay within a venue-day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The person, as the sensors know them.
    pub subject: Subject,
    /// First event.
    pub start: TsMs,
    /// Last event.
    pub end: TsMs,
    /// Number of events.
    pub points: u64,
    /// Length of the path, in micrometres: each step's length rounded, then summed, so that no order matters.
    pub path_um: u64,
    /// Whether it begins within the session gap of the day's start.
    pub continued_in: bool,
    /// Whether it ends within the session gap of the day's end.
    pub continued_out: bool,
    /// Its stays in zones, by (enter, exit, zone id); `_venue` is left out, since it is the session itself.
    pub visits: Vec<ZoneVisit>,
}

/// One stay in a zone within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ZoneVisit {
    /// First instant inside.
    pub enter: TsMs,
    /// Last instant inside.
    pub exit: TsMs,
    /// Index of the zone in [`Layout::zones`](crate::layout::Layout::zones) (sorted by id).
    pub zone: u16,
}

impl ZoneVisit {
    /// Length of the stay.
    pub fn dwell_ms(&self) -> i64 {
        self.exit - self.enter
    }
}

impl Session {
    /// Length of the stay.
    pub fn dwell_ms(&self) -> i64 {
        self.end - self.start
    }
}

/// Takes what a fold finds.
pub trait SessionSink {
    /// A session has ended.
    fn session(&mut self, session: Session);

    /// The subject stayed at a place from one event of a session to the next (for the heat map). `is_staff`: it is a
    /// track that the layout's staff tags name.
    fn stay(&mut self, at: &PositionEvent<'_>, duration_ms: i64, is_staff: bool);
}
