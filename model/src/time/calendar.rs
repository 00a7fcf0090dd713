//! Cutting time into venue-days and hour buckets.

use chrono::{NaiveDateTime, NaiveTime, Offset, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{DAY_MS, HOUR_MS, LocalDay, MINUTE_MS, SECOND_MS, TsMs};

/// How a venue cuts time into days: its time zone and the local hour at which a day starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VenueCalendar {
    tz: Tz,
    day_start_hour: u8,
}

/// Why a calendar was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Not a name of the IANA database.
    #[error("{0:?} is not an IANA time zone (for example \"Europe/Madrid\")")]
    UnknownZone(String),
    /// Not an hour of the day.
    #[error("the day start must be a whole local hour from 0 to 23, not {0}")]
    DayStart(u8),
}

/// An hour bucket: the longest stretch of instants with one local date, one local hour and one UTC offset.
/// Half-open, identified by its UTC start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourBucket {
    /// First instant.
    pub start: TsMs,
    /// First instant after it.
    pub end: TsMs,
    /// UTC offset inside it, in seconds.
    pub offset_s: i32,
    /// Local hour of the day, 0 to 23.
    pub hour: u8,
}

/// One venue-day: its bounds and its hour buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCut {
    /// The day.
    pub day: LocalDay,
    /// First instant.
    pub start: TsMs,
    /// First instant of the next day.
    pub end: TsMs,
    /// The hours in order, without gaps, covering the day.
    pub hours: Vec<HourBucket>,
}

/// A stretch of instants with one UTC offset.
#[derive(Debug, Clone, Copy)]
struct Segment {
    start: TsMs,
    end: TsMs,
    offset_ms: i64,
}

impl VenueCalendar {
    /// A calendar of a zone whose days start at `day_start_hour`:00 local time.
    pub fn new(tz: Tz, day_start_hour: u8) -> Result<Self, CalendarError> {
        if day_start_hour > 23 {
            return Err(CalendarError::DayStart(day_start_hour));
        }
        Ok(Self { tz, day_start_hour })
    }

    /// A calendar from the zone's IANA name.
    pub fn from_names(tz: &str, day_start_hour: u8) -> Result<Self, CalendarError> {
        let tz = tz
            .parse::<Tz>()
            .map_err(|_| CalendarError::UnknownZone(tz.chars().take(64).collect()))?;
        Self::new(tz, day_start_hour)
    }

    /// The time zone.
    pub fn tz(&self) -> Tz {
        self.tz
    }

    /// The local hour at which a day starts.
    pub fn day_start_hour(&self) -> u8 {
        self.day_start_hour
    }

    /// UTC offset in force at an instant, in milliseconds.
    pub fn offset_ms(&self, ts: TsMs) -> i64 {
        let seconds = ts.div_euclid(SECOND_MS);
        let utc = chrono::DateTime::from_timestamp(seconds, 0)
            .map(|t| t.naive_utc())
            .unwrap_or_default();
        i64::from(self.tz.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * SECOND_MS
    }

    /// Bounds of a day: from the first instant whose wall time is at or after the day's start, to the next day's.
    pub fn bounds(&self, day: LocalDay) -> (TsMs, TsMs) {
        (self.first_instant(day), self.first_instant(day.next()))
    }

    /// The day that an instant belongs to.
    pub fn day_of(&self, ts: TsMs) -> LocalDay {
        let wall = ts + self.offset_ms(ts) - i64::from(self.day_start_hour) * HOUR_MS;
        let days = i32::try_from(wall.div_euclid(DAY_MS)).unwrap_or(0);
        let mut day = LocalDay::from_epoch_days(days).unwrap_or_else(|| LocalDay::new(Default::default()));
        // The wall clock may have been set back over the day's start: the day that has begun goes on.
        loop {
            let (start, end) = self.bounds(day);
            if ts < start {
                day = day.prev();
            } else if ts >= end {
                day = day.next();
            } else {
                return day;
            }
        }
    }

    /// The day with its bounds and hours.
    pub fn cut(&self, day: LocalDay) -> DayCut {
        let (start, end) = self.bounds(day);
        let mut hours = Vec::with_capacity(25);
        for segment in self.segments(start, end) {
            let mut from = segment.start.max(start);
            let to = segment.end.min(end);
            while from < to {
                let wall = from + segment.offset_ms;
                let next = (from + HOUR_MS - wall.rem_euclid(HOUR_MS)).min(to);
                hours.push(HourBucket {
                    start: from,
                    end: next,
                    offset_s: (segment.offset_ms / SECOND_MS) as i32,
                    hour: (wall.rem_euclid(DAY_MS) / HOUR_MS) as u8,
                });
                from = next;
            }
        }
        DayCut {
            day,
            start,
            end,
            hours,
        }
    }

    /// The first instant whose wall time is at or after `minute` minutes past the midnight of a date (which may be
    /// more than a day's).
    pub fn instant_of(&self, date: LocalDay, minute: u16) -> TsMs {
        let midnight = NaiveDateTime::new(date.date(), NaiveTime::MIN)
            .and_utc()
            .timestamp_millis();
        self.first_instant_from(midnight + i64::from(minute) * MINUTE_MS)
    }

    fn first_instant(&self, day: LocalDay) -> TsMs {
        self.instant_of(day, u16::from(self.day_start_hour) * 60)
    }

    fn first_instant_from(&self, wall: i64) -> TsMs {
        // Offsets lie within ±15 h and change by at most a day (Samoa skipped one), so the instant is near.
        let (before, after) = (wall - 40 * HOUR_MS, wall + 40 * HOUR_MS);
        let offset = self.offset_ms(before);
        if self.offset_ms(after) == offset && self.offset_ms(wall - offset) == offset {
            // No change near: no zone has changed its clock and back within 80 hours since 1970.
            return wall - offset;
        }
        for segment in self.segments(before, after) {
            let candidate = (wall - segment.offset_ms).max(segment.start);
            if candidate < segment.end {
                return candidate;
            }
        }
        wall
    }

    /// The stretches of one offset that cover [from, to), in order. Steps are looked for every 15 minutes and
    /// found to the second: no zone has two changes closer than that.
    fn segments(&self, from: TsMs, to: TsMs) -> Vec<Segment> {
        let probe = 15 * MINUTE_MS;
        let mut segments = Vec::with_capacity(2);
        let mut start = from;
        let mut offset = self.offset_ms(from);
        let mut at = from;
        while at < to {
            let next = (at + probe).min(to);
            let next_offset = self.offset_ms(next);
            if next_offset != offset {
                let change = self.change_between(at, next, offset);
                segments.push(Segment {
                    start,
                    end: change,
                    offset_ms: offset,
                });
                start = change;
                offset = next_offset;
            }
            at = next;
        }
        if start < to {
            segments.push(Segment {
                start,
                end: to,
                offset_ms: offset,
            });
        }
        segments
    }

    fn change_between(&self, mut before: TsMs, mut after: TsMs, offset_before: i64) -> TsMs {
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.offset_ms(middle) == offset_before {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }
}

impl DayCut {
    /// Whether an instant lies in the day.
    pub fn contains(&self, ts: TsMs) -> bool {
        (self.start..self.end).contains(&ts)
    }

    /// Index of the hour bucket that holds an instant of the day; instants outside are clamped to its ends.
    pub fn hour_index(&self, ts: TsMs) -> usize {
        self.hours
            .partition_point(|hour| hour.end <= ts)
            .min(self.hours.len().saturating_sub(1))
    }
}

impl HourBucket {
    /// Length in milliseconds; an hour cut by a clock change may be shorter than 3,600,000.
    pub fn length_ms(&self) -> i64 {
        self.end - self.start
    }
}

#[cfg(test)]
mod tests;
