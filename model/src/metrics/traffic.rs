//! Footfall and occupancy: for every hour from the first to the last of which anything is known, and for the day.

use super::accumulate::{BucketOut, Day, HourSet};
use super::tracks::Tracks;
use super::{AggregateRow, Family, FootfallSource, Slice, TrafficValue, Value};
use crate::layout::is_open_at;

/// What is known of the entrances in one slice, by hour.
pub(super) struct Crossed {
    /// People in and out over entrances.
    pub(super) entrances: Vec<(i64, i64)>,
    /// Hours in which any line was crossed, as far as the slice can tell.
    pub(super) known: Vec<bool>,
}

/// Appends the rows of a slice. `everything` is what is known in `all`, which decides the hours: a slice has no others,
/// so that the hours between stay without gaps in each.
pub(super) fn rows(
    day: &Day,
    slice: Slice,
    crossed: &Crossed,
    tracks: &[&Tracks],
    range: &std::ops::RangeInclusive<usize>,
    (hours, with_day): (HourSet, bool),
    rows: &mut Vec<AggregateRow>,
) {
    let source = match day.layout.has_entrance() {
        true => FootfallSource::Lines,
        false => FootfallSource::Sessions,
    };
    let first = match (slice, source) {
        // Where no crossing names a track, nothing is known of staff.
        (Slice::Staff, FootfallSource::Lines) => crossed.known.iter().position(|&known| known),
        _ => Some(*range.start()),
    };
    let Some(first) = first else { return };
    let entered = |hour: usize| match source {
        FootfallSource::Lines => 0,
        FootfallSource::Sessions => entered(day, slice, tracks, hour),
    };
    let value = |(inward, outward): (i64, i64), entered: u64, occupancy_est: i64| {
        let footfall = match source {
            FootfallSource::Lines => inward.max(0) as u64,
            FootfallSource::Sessions => entered,
        };
        Value::Traffic(TrafficValue {
            source,
            footfall,
            inward,
            outward,
            occupancy_est,
        })
    };
    let (mut sum, mut entered_sum) = ((0, 0), 0);
    for hour in first..=*range.end() {
        let (inward, outward) = crossed.entrances[hour];
        sum = (sum.0 + inward, sum.1 + outward);
        let entered = entered(hour);
        entered_sum += entered;
        let mut out = BucketOut::of_hour(day, hour, rows);
        if hours.contains(hour) && out.has(slice) {
            let value = value((inward, outward), entered, sum.0 - sum.1);
            out.push(slice, Family::Traffic, "", value);
        }
    }
    let mut out = BucketOut::of_day(day, rows);
    if with_day && out.has(slice) {
        let value = value(sum, entered_sum, sum.0 - sum.1);
        out.push(slice, Family::Traffic, "", value);
    }
}

/// The hours from the first to the last of which anything is known.
pub(super) fn known_hours(crossed: &Crossed, tracks: &[&Tracks]) -> Option<std::ops::RangeInclusive<usize>> {
    let is_known =
        |hour: &usize| crossed.known[*hour] || tracks.iter().any(|part| !part.venue_stays(*hour).is_empty());
    let first = (0..crossed.known.len()).find(is_known)?;
    let last = (0..crossed.known.len()).rfind(is_known)?;
    Some(first..=last)
}

/// Visits of the venue that began in an hour.
fn entered(day: &Day, slice: Slice, tracks: &[&Tracks], hour: usize) -> u64 {
    let cut = &day.cut.hours[hour];
    let open = day.parts.open().filter(|_| slice == Slice::Open);
    let stays = tracks.iter().flat_map(|part| part.venue_stays(hour));
    let is_entered =
        |enter| (cut.start..cut.end).contains(&enter) && open.is_none_or(|open| is_open_at(open, enter));
    stays.filter(|stay| is_entered(stay.enter)).count() as u64
}
