//! Ranges of time and their cutting into buckets.
//!
//! A date stands for its whole local day, as the beginning of a range and as its end; an instant stands for itself,
//! and as an end is not included. Either way a range becomes a half-open stretch of instants, which is then widened to
//! whole hour buckets. [`cut`] makes of it the dense list of [`Bucket`]s that a query answers: every bucket is made of
//! [`Piece`]s, whole venue-days where it covers them, hour buckets elsewhere.

use chrono::Datelike;
use dwell_model::metrics::Grain;
use dwell_model::time::{LocalDay, TsMs, VenueCalendar, format_rfc3339, parse_ts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hours_of_day::HoursOfDay;
use crate::problem::{self, Problem, clip};

/// Length of the buckets of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Hour buckets: one local hour at one UTC offset.
    Hour,
    /// Venue-days of 23, 24 or 25 hours.
    #[default]
    Day,
    /// ISO weeks, Monday to Sunday, of venue-days.
    Week,
    /// Calendar months of venue-days.
    Month,
    /// One bucket for the whole range.
    Total,
}

impl By {
    const WORDS: [(&'static str, By); 5] = [
        ("hour", By::Hour),
        ("day", By::Day),
        ("week", By::Week),
        ("month", By::Month),
        ("total", By::Total),
    ];

    /// Reads the parameter `by`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let known = Self::WORDS.into_iter().find(|(word, _)| *word == text);
        known.map(|(_, by)| by).ok_or_else(|| {
            let detail = format!(
                "{:?} is no length of buckets; use hour, day, week, month or total",
                clip(text)
            );
            Problem::parameter("by", detail)
        })
    }
}

/// A half-open stretch of instants, not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First instant.
    pub(crate) start: TsMs,
    /// First instant after it.
    pub(crate) end: TsMs,
}

/// One end of a range as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Day(LocalDay),
    Instant(TsMs),
}

impl Range {
    /// Reads `from` and `to` of a venue. What is left out is the venue's day at `now`; without `to`, a range that
    /// begins later than today is the day it begins with.
    pub(crate) fn parse(
        from: Option<&str>,
        to: Option<&str>,
        calendar: &VenueCalendar,
        now: TsMs,
    ) -> Result<Self, Problem> {
        let today = calendar.day_of(now);
        let from = from.map(|text| end("from", text)).transpose()?;
        let to = to.map(|text| end("to", text)).transpose()?;
        let day_of = |end: End| match end {
            End::Day(day) => day,
            End::Instant(ts) => calendar.day_of(ts),
        };
        let from = from.unwrap_or_else(|| End::Day(to.map_or(today, |to| day_of(to).min(today))));
        let to = to.unwrap_or_else(|| End::Day(day_of(from).max(today)));
        let start = match from {
            End::Day(day) => calendar.bounds(day).0,
            End::Instant(ts) => ts,
        };
        let end = match to {
            End::Day(day) => calendar.bounds(day).1,
            End::Instant(ts) => ts,
        };
        if start >= end {
            let detail = format!(
                "the range from {} until {} is empty; a date as `to` includes its day, an instant as `to` is not included",
                format_rfc3339(start),
                format_rfc3339(end)
            );
            return Err(Problem::new(problem::BAD_RANGE, detail).about("to"));
        }
        Ok(Self { start, end })
    }

    /// The first and the last venue-day that the range touches.
    pub(crate) fn days(&self, calendar: &VenueCalendar) -> (LocalDay, LocalDay) {
        (calendar.day_of(self.start), calendar.day_of(self.end - 1))
    }

    /// Number of venue-days touched, without walking them.
    pub(crate) fn days_len(&self, calendar: &VenueCalendar) -> usize {
        let (first, last) = self.days(calendar);
        usize::try_from(last.to_epoch_days() - first.to_epoch_days() + 1).unwrap_or(0)
    }
}

fn end(name: &str, text: &str) -> Result<End, Problem> {
    if let Ok(day) = text.parse() {
        return Ok(End::Day(day));
    }
    // A plus sign that was not escaped arrives as a space.
    let instant = parse_ts(text).or_else(|error| parse_ts(&text.replace(' ', "+")).map_err(|_| error));
    instant.map(End::Instant).map_err(|_| {
        let detail = format!(
            "{:?} is neither a day (2026-03-01) nor an instant (2026-03-01T09:00:00+01:00, or milliseconds since 1970) \
             between 1970 and 2199",
            clip(text)
        );
        Problem::parameter(name, detail)
    })
}

/// A part of a bucket for which there are rows: a venue-day or an hour of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The venue-day that it is or belongs to.
    pub(crate) day: LocalDay,
    /// Day or hour.
    pub(crate) grain: Grain,
    /// First instant.
    pub(crate) start: TsMs,
    /// First instant after it.
    pub(crate) end: TsMs,
}

impl Piece {
    /// Its length.
    pub(crate) fn length_ms(&self) -> i64 {
        self.end - self.start
    }
}

/// A bucket of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// First instant.
    pub(crate) start: TsMs,
    /// First instant after it.
    pub(crate) end: TsMs,
    /// Sum of the lengths of its pieces; less than `end − start` where hours of the day were chosen.
    pub(crate) length_ms: i64,
    /// UTC offset at its start.
    pub(crate) offset_ms: i64,
    /// Its pieces by time; at least one.
    pub(crate) pieces: Vec<Piece>,
}

/// Cuts a range into buckets, dense and by time. More than `buckets_max` buckets are refused, and more than `days_max`
/// days.
pub(crate) fn cut(
    calendar: &VenueCalendar,
    range: Range,
    by: By,
    hours: HoursOfDay,
    buckets_max: usize,
    days_max: usize,
) -> Result<Vec<Bucket>, Problem> {
    let days = range.days_len(calendar);
    // Before anything is walked: a day has at least one hour of each name but a skipped one.
    let least = match by {
        By::Hour if hours.is_all() => days.saturating_mul(22),
        By::Day => days.saturating_sub(2),
        By::Week => days / 7,
        By::Month => days / 31,
        By::Hour | By::Total => 0,
    };
    if days > days_max || least > buckets_max.saturating_add(44) {
        return Err(too_long(days, buckets_max, days_max));
    }
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut group = None;
    let (first, last) = range.days(calendar);
    for day in first.through(last) {
        for piece in pieces(calendar, range, day, by, hours) {
            let key = group_of(&piece, by);
            match buckets.last_mut() {
                Some(bucket) if group == Some(key) => {
                    bucket.end = piece.end;
                    bucket.length_ms += piece.length_ms();
                    bucket.pieces.push(piece);
                }
                _ => {
                    if buckets.len() >= buckets_max {
                        return Err(too_long(days, buckets_max, days_max));
                    }
                    group = Some(key);
                    buckets.push(Bucket {
                        start: piece.start,
                        end: piece.end,
                        length_ms: piece.length_ms(),
                        offset_ms: calendar.offset_ms(piece.start),
                        pieces: vec![piece],
                    });
                }
            }
        }
    }
    if buckets.is_empty() {
        let detail = "none of the chosen hours of the day lies in the range; widen `from`, `to` or `hours`";
        return Err(Problem::new(problem::BAD_RANGE, detail).about("hours"));
    }
    Ok(buckets)
}

fn too_long(days: usize, buckets_max: usize, days_max: usize) -> Problem {
    let detail = format!(
        "the range of {days} days has more buckets than the limit; the limit is {buckets_max} buckets and {days_max} \
         days: ask for a shorter range or longer buckets (by=day, week, month, total)"
    );
    Problem::new(problem::BAD_RANGE, detail).about("to")
}

/// What a day gives to the range: the whole day, or those of its hours that the range touches.
fn pieces(calendar: &VenueCalendar, range: Range, day: LocalDay, by: By, hours: HoursOfDay) -> Vec<Piece> {
    if by != By::Hour && hours.is_all() {
        let (start, end) = calendar.bounds(day);
        if range.start <= start && end <= range.end {
            return if start < end {
                vec![Piece {
                    day,
                    grain: Grain::Day,
                    start,
                    end,
                }]
            } else {
                Vec::new()
            };
        }
    }
    let touched = |start: TsMs, end: TsMs| start < range.end && range.start < end;
    let cut = calendar.cut(day);
    let hours = cut
        .hours
        .iter()
        .filter(|hour| hours.contains(hour.hour) && touched(hour.start, hour.end));
    hours
        .map(|hour| Piece {
            day,
            grain: Grain::Hour,
            start: hour.start,
            end: hour.end,
        })
        .collect()
}

/// A key for each bucket by which those of several venues belong together: their local time.
pub(crate) fn local_keys(buckets: &[Bucket], by: By) -> Vec<(i64, i64)> {
    let mut keys: Vec<(i64, i64)> = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        let key = match by {
            By::Hour => {
                let wall = bucket.start + bucket.offset_ms;
                // An hour that comes twice, when clocks are set back.
                let times = keys
                    .iter()
                    .rev()
                    .take(2)
                    .filter(|(before, _)| *before == wall)
                    .count();
                (wall, i64::try_from(times).unwrap_or(0))
            }
            _ => bucket.pieces.first().map_or((0, 0), |piece| group_of(piece, by)),
        };
        keys.push(key);
    }
    keys
}

/// Pieces of one bucket have equal groups.
fn group_of(piece: &Piece, by: By) -> (i64, i64) {
    let date = piece.day.date();
    match by {
        By::Hour => (piece.start, 0),
        By::Day => (i64::from(piece.day.to_epoch_days()), 0),
        By::Week => (
            i64::from(date.iso_week().year()),
            i64::from(date.iso_week().week()),
        ),
        By::Month => (i64::from(date.year()), i64::from(date.month())),
        By::Total => (0, 0),
    }
}

#[cfg(test)]
mod tests;
