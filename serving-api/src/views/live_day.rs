//! The open day so far, hour by hour, from the live view's rows. Pure.

use std::collections::BTreeMap;

use dwell_model::definitions;
use dwell_model::layout::Venue;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, evaluate};
use dwell_model::time::{LocalDay, SECOND_MS, TsMs};
use serde_json::Value;

use super::slices::SliceOfDay;
use super::sources::DaySource;
use crate::dto::{LiveDayDto, LiveHourDto, LiveSliceDto, LiveZoneHourDto, instant, local};

/// The open day of the live view.
#[derive(Debug)]
pub(crate) struct LiveRows<'a> {
    /// The day.
    pub(crate) day: LocalDay,
    /// Its rows; none when nothing of it has been seen.
    pub(crate) rows: &'a [AggregateRow],
    /// What gave them.
    pub(crate) source: DaySource,
}

/// The hours of a day that have begun at `now`, each with the zones in which somebody was.
pub(crate) fn today(venue: &Venue, live: LiveRows<'_>, now: TsMs, slice: Option<Slice>) -> LiveDayDto {
    let LiveRows { day, rows, source } = live;
    let of_day = slice.map(|slice| SliceOfDay::of(venue, day, &source, slice));
    let slice_wanted = slice.unwrap_or_default();
    let cut = venue.calendar.cut(day);
    let begun = cut.hours.iter().filter(|hour| hour.start <= now);
    let hours = begun.map(|hour| {
        let is_of_hour = |row: &&AggregateRow| {
            (row.grain, row.start) == (Grain::Hour, hour.start)
                && (row.family, row.slice) == (Family::Zone, slice_wanted)
        };
        let of_hour = rows.iter().filter(is_of_hour);
        let length_ms = of_day.as_ref().map_or(hour.length_ms(), |of_day| {
            of_day.length_ms(slice_wanted, hour.start, hour.end)
        });
        LiveHourDto {
            start: instant(hour.start),
            start_local: local(hour.start, i64::from(hour.offset_s) * SECOND_MS),
            length_ms,
            running: hour.end > now,
            zones: of_hour
                .map(|row| LiveZoneHourDto {
                    id: row.subject.clone(),
                    metrics: metrics(row),
                })
                .collect(),
        }
    });
    LiveDayDto {
        day: day.to_string(),
        slice: of_day.as_ref().map(|of_day| LiveSliceDto {
            slice: slice_wanted.word(),
            state: of_day.word(),
        }),
        hours: hours.collect(),
    }
}

/// Every metric of a zone's row that has a number.
fn metrics(row: &AggregateRow) -> BTreeMap<&'static str, Value> {
    let of_zones = definitions::ALL
        .iter()
        .filter(|definition| definition.family == row.family);
    let numbers = of_zones.filter_map(|definition| {
        let number = evaluate(definition.id, &row.value, row.length_ms)?;
        let value = serde_json::to_value(number)
            .ok()
            .filter(|value| !value.is_null())?;
        Some((definition.id, value))
    });
    numbers.collect()
}
