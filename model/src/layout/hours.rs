//! Opening hours: by weekday, with exceptions for single dates, past midnight allowed.

use std::collections::BTreeMap;

use chrono::Datelike;
use serde::{Deserialize, Serialize};

use crate::time::{DAY_MS, DayCut, LocalDay, MINUTE_MS, SECOND_MS, TsMs};

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All of them, Monday first.
    pub const ALL: [Weekday; 7] = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
        Weekday::Sat,
        Weekday::Sun,
    ];

    /// Weekday of a date.
    pub fn of(day: LocalDay) -> Self {
        Self::ALL[day.date().weekday().num_days_from_monday() as usize]
    }
}

/// A stretch of opening, in minutes of local wall time since the midnight that its date begins with.
///
/// `close_minute` is later than `open_minute` and may lie past midnight: 22:00 to 02:00 is 1320 to 1560.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct OpenSpan {
    open_minute: u16,
    close_minute: u16,
}

/// Why a stretch of opening was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{open_minute} to {close_minute} minutes is no stretch of opening of at most a day from one date")]
pub struct OpenSpanError {
    open_minute: u16,
    close_minute: u16,
}

impl OpenSpan {
    /// A stretch from wall time to wall time, in minutes since midnight; a close at or before the open is on the next
    /// date. The open is before 24:00, the close at most at 24:00.
    pub fn new(open_minute: u16, close_minute: u16) -> Result<Self, OpenSpanError> {
        let past_midnight = if close_minute <= open_minute {
            DAY_MINUTES
        } else {
            0
        };
        if open_minute >= DAY_MINUTES || close_minute > DAY_MINUTES {
            return Err(OpenSpanError {
                open_minute,
                close_minute,
            });
        }
        Ok(Self {
            open_minute,
            close_minute: close_minute + past_midnight,
        })
    }

    /// The whole date.
    pub fn all_day() -> Self {
        Self {
            open_minute: 0,
            close_minute: DAY_MINUTES,
        }
    }

    /// Minutes since midnight at which it opens.
    pub fn open_minute(self) -> u16 {
        self.open_minute
    }

    /// Minutes since the same midnight at which it closes.
    pub fn close_minute(self) -> u16 {
        self.close_minute
    }
}

impl TryFrom<(u16, u16)> for OpenSpan {
    type Error = OpenSpanError;

    fn try_from((open_minute, close_minute): (u16, u16)) -> Result<Self, OpenSpanError> {
        let length = i32::from(close_minute) - i32::from(open_minute);
        if open_minute >= DAY_MINUTES || !(1..=i32::from(DAY_MINUTES)).contains(&length) {
            return Err(OpenSpanError {
                open_minute,
                close_minute,
            });
        }
        Ok(Self {
            open_minute,
            close_minute,
        })
    }
}

impl From<OpenSpan> for (u16, u16) {
    fn from(span: OpenSpan) -> Self {
        (span.open_minute, span.close_minute)
    }
}

/// When a venue is open. A date's stretches are those of its exception if it has one, else those of its weekday.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpeningHours {
    /// For Monday to Sunday.
    weekly: [Vec<OpenSpan>; 7],
    exceptions: BTreeMap<LocalDay, Vec<OpenSpan>>,
}

impl OpeningHours {
    /// The same hours on every date.
    pub fn every_day(span: OpenSpan) -> Self {
        Self {
            weekly: std::array::from_fn(|_| vec![span]),
            exceptions: BTreeMap::new(),
        }
    }

    /// Hours by weekday (those not named are closed), and by date.
    pub fn new(
        weekly: BTreeMap<Weekday, Vec<OpenSpan>>,
        exceptions: BTreeMap<LocalDay, Vec<OpenSpan>>,
    ) -> Self {
        let mut hours = Self {
            weekly: Default::default(),
            exceptions,
        };
        for (weekday, spans) in weekly {
            hours.weekly[weekday as usize] = spans;
        }
        hours
    }

    /// The stretches that begin on a date.
    pub fn spans_on(&self, date: LocalDay) -> &[OpenSpan] {
        self.exceptions
            .get(&date)
            .unwrap_or(&self.weekly[Weekday::of(date) as usize])
    }

    /// When the venue is open during a venue-day, in UTC: disjoint half-open intervals in order, cut to the day.
    ///
    /// A stretch that began on the date before and runs past midnight counts, so does what begins on the next date
    /// before the venue-day ends (with a day start at 04:00, say). A wall time that clock changes skip is the first
    /// instant after it; of one that comes twice, the first counts.
    pub fn open_intervals(&self, cut: &DayCut) -> Vec<(TsMs, TsMs)> {
        let mut open = Vec::new();
        for date in [cut.day.prev(), cut.day, cut.day.next()] {
            let midnight = i64::from(date.to_epoch_days()) * DAY_MS;
            let instant = |minute: u16| first_with_wall_time(cut, midnight + i64::from(minute) * MINUTE_MS);
            for span in self.spans_on(date) {
                let (from, to) = (instant(span.open_minute), instant(span.close_minute));
                if from < to {
                    open.push((from, to));
                }
            }
        }
        open.sort_unstable();
        let mut united: Vec<(TsMs, TsMs)> = Vec::with_capacity(open.len());
        for (from, to) in open {
            match united.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => united.push((from, to)),
            }
        }
        united
    }
}

/// The first instant of a day whose wall time, in milliseconds since 1970, is at or after `wall`; the day's end if it has
/// none.
fn first_with_wall_time(cut: &DayCut, wall: i64) -> TsMs {
    for hour in &cut.hours {
        let offset_ms = i64::from(hour.offset_s) * SECOND_MS;
        if wall < hour.end + offset_ms {
            return (wall - offset_ms).max(hour.start);
        }
    }
    cut.end
}

/// Whether an instant lies within open intervals.
pub fn is_open_at(open: &[(TsMs, TsMs)], ts: TsMs) -> bool {
    let next = open.partition_point(|&(_, to)| to <= ts);
    open.get(next).is_some_and(|&(from, _)| from <= ts)
}

/// Milliseconds of a bucket [start, end) that lie within open intervals; a bucket with none is closed.
pub fn open_ms(open: &[(TsMs, TsMs)], start: TsMs, end: TsMs) -> i64 {
    open.iter()
        .map(|&(from, to)| (to.min(end) - from.max(start)).max(0))
        .sum()
}

#[cfg(test)]
mod tests;
