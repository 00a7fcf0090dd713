//! Event time, venue-days and hour buckets.
//!
//! Instants are integer milliseconds UTC ([`TsMs`]). A [`VenueCalendar`] (time zone and day start) cuts them into
//! [`LocalDay`]s; a [`DayCut`] is one such day with its hour buckets. All of it is computed from the compiled-in
//! IANA database, so every machine cuts alike.

mod calendar;
mod parse;

pub use calendar::{CalendarError, DayCut, HourBucket, VenueCalendar};
pub use parse::{TsError, format_rfc3339, parse_ts};

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, Days, NaiveDate};
use serde::{Deserialize, Serialize};

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
pub type TsMs = i64;

/// One second in milliseconds.
pub const SECOND_MS: i64 = 1_000;
/// One minute in milliseconds.
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
/// One hour in milliseconds.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// 24 hours in milliseconds; a local day may have 23 or 25.
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// Length of a slot of the raw table, in milliseconds.
pub const SLOT_MS: i64 = 10 * MINUTE_MS;
/// The first instant that an event may carry (1970-01-01).
pub const MIN_TS: TsMs = 0;
/// The instant that every event lies before (2200-01-01).
pub const MAX_TS: TsMs = 7_258_118_400_000;

/// The raw table's slot of an instant: the number of ten-minute stretches since 1970.
pub fn slot_of(ts: TsMs) -> i64 {
    ts.div_euclid(SLOT_MS)
}

/// A local calendar day of a venue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalDay(NaiveDate);

impl LocalDay {
    /// The day of a date.
    pub fn new(date: NaiveDate) -> Self {
        Self(date)
    }

    /// The date.
    pub fn date(self) -> NaiveDate {
        self.0
    }

    /// Year of the day.
    pub fn year(self) -> i32 {
        self.0.year()
    }

    /// The first and the last day that events can fall on, in any time zone.
    pub fn first_and_last() -> (Self, Self) {
        (Self::of_utc(MIN_TS).prev(), Self::of_utc(MAX_TS))
    }

    /// The day after; the calendar's last day is its own successor.
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The day before; the calendar's first day is its own predecessor.
    pub fn prev(self) -> Self {
        Self(self.0.pred_opt().unwrap_or(self.0))
    }

    /// The day `n` days later.
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.checked_add_days(Days::new(n)).unwrap_or(self.0))
    }

    /// Days since 1970-01-01, for stores.
    pub fn to_epoch_days(self) -> i32 {
        self.0.to_epoch_days()
    }

    /// A day read back from a store; `None` outside the calendar.
    pub fn from_epoch_days(days: i32) -> Option<Self> {
        NaiveDate::from_epoch_days(days).map(Self)
    }

    /// The day of an instant in UTC; 1970-01-01 where the calendar has no such day.
    pub fn of_utc(ts: TsMs) -> Self {
        i32::try_from(ts.div_euclid(DAY_MS))
            .ok()
            .and_then(Self::from_epoch_days)
            .unwrap_or_else(|| Self::new(NaiveDate::default()))
    }

    /// All days from this one to `last`, both included.
    pub fn through(self, last: Self) -> impl Iterator<Item = LocalDay> {
        (self.to_epoch_days()..=last.to_epoch_days()).filter_map(LocalDay::from_epoch_days)
    }
}

impl fmt::Display for LocalDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.format("%Y-%m-%d").to_string())
    }
}

impl fmt::Debug for LocalDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a day: YYYY-MM-DD between 1970 and 2199 is expected")]
pub struct LocalDayError(String);

impl FromStr for LocalDay {
    type Err = LocalDayError;

    fn from_str(text: &str) -> Result<Self, LocalDayError> {
        let refuse = || LocalDayError(text.chars().take(32).collect());
        if text.len() != 10 {
            return Err(refuse());
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| refuse())?;
        if !(1970..2200).contains(&date.year()) {
            return Err(refuse());
        }
        Ok(Self(date))
    }
}

impl TryFrom<String> for LocalDay {
    type Error = LocalDayError;

    fn try_from(text: String) -> Result<Self, LocalDayError> {
        text.parse()
    }
}

impl From<LocalDay> for String {
    fn from(day: LocalDay) -> String {
        day.to_string()
    }
}
