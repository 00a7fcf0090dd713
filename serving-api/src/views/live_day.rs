//! The open day so far, hour by hour, from the live view's rows. Pure.

use std::collections::BTreeMap;

use dwell_model::definitions;
use dwell_model::layout::Venue;
use dwell_model::metrics::{AggregateRow, Family, Grain, evaluate};
use dwell_model::time::{LocalDay, SECOND_MS, TsMs};
use serde_json::Value;

use crate::dto::{LiveDayDto, LiveHourDto, LiveZoneHourDto, instant, local};

/// The hours of a day that have begun at `now`, each with the zones in which somebody was.
pub(crate) fn today(venue: &Venue, day: LocalDay, rows: &[AggregateRow], now: TsMs) -> LiveDayDto {
    let cut = venue.calendar.cut(day);
    let begun = cut.hours.iter().filter(|hour| hour.start <= now);
    let hours = begun.map(|hour| {
        let of_hour = rows
            .iter()
            .filter(|row| row.grain == Grain::Hour && row.start == hour.start && row.family == Family::Zone);
        LiveHourDto {
            start: instant(hour.start),
            start_local: local(hour.start, i64::from(hour.offset_s) * SECOND_MS),
            length_ms: hour.length_ms(),
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
