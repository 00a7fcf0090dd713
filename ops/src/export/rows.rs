//! Which rows go to which table, and with what columns.

use anyhow::{Context, Result};
use dwell_model::ids::VenueId;
use dwell_model::metrics::{
    AggregateRow, Family, FootfallSource, Grain, Value, ZoneValue, exact_mean, nearest_rank,
};
use dwell_model::time::LocalDay;
use dwell_storage::api::StoredSession;

use super::Table;
use super::sheet::{Cell, Sheet, SheetColumn};

use SheetColumn::{Float, Integer, Text};

/// The families that any table needs.
pub(super) const FAMILIES: [Family; 7] = [
    Family::Zone,
    Family::Line,
    Family::Counter,
    Family::Reading,
    Family::Transaction,
    Family::Presence,
    Family::Traffic,
];

/// Separates the parts of a composite subject.
const PART_SEPARATOR: char = '\u{1f}';

const ZONE_VALUES: usize = 13;

macro_rules! zone_columns {
    ($bucket:literal, $ty:expr) => {
        &[
            ("venue", Text),
            ("zone", Text),
            ($bucket, $ty),
            ("visits", Integer),
            ("visitors", Integer),
            ("dwell_ms", Integer),
            ("p50", Integer),
            ("p90", Integer),
            ("p95", Integer),
            ("engaged", Integer),
            ("occupancy_avg", Float),
            ("occupancy_max", Integer),
            ("length_ms", Integer),
            ("generation", Integer),
        ]
    };
}

pub(super) fn columns(table: Table) -> &'static [(&'static str, SheetColumn)] {
    match table {
        Table::Sessions => &[
            ("venue", Text),
            ("track", Text),
            ("start", Integer),
            ("end", Integer),
            ("n", Integer),
            ("sensor", Text),
            ("path_m", Float),
            ("continued_in", Integer),
            ("continued_out", Integer),
            ("day", Text),
            ("id", Text),
        ],
        Table::Hourly => zone_columns!("hour", Integer),
        Table::Daily => zone_columns!("day", Text),
        Table::CrossingsHourly => &[
            ("venue", Text),
            ("line", Text),
            ("hour", Integer),
            ("in", Integer),
            ("out", Integer),
        ],
        Table::TransactionsHourly => &[
            ("venue", Text),
            ("hour", Integer),
            ("sales", Integer),
            ("amount", Integer),
            ("currency", Text),
            ("returns", Integer),
            ("voids", Integer),
        ],
        Table::ReadingsHourly => &[
            ("venue", Text),
            ("sensor", Text),
            ("metric", Text),
            ("hour", Integer),
            ("count", Integer),
            ("min", Float),
            ("max", Float),
            ("mean", Float),
            ("last", Float),
            ("unit", Text),
        ],
        Table::CountsHourly => &[
            ("venue", Text),
            ("sensor", Text),
            ("counter", Text),
            ("hour", Integer),
            ("value", Integer),
            ("mode", Text),
            ("samples", Integer),
            ("resets", Integer),
        ],
        Table::PresenceHourly => &[
            ("venue", Text),
            ("hour", Integer),
            ("devices", Integer),
            ("sightings", Integer),
        ],
        Table::TrafficHourly => &[
            ("venue", Text),
            ("hour", Integer),
            ("footfall", Integer),
            ("source", Text),
            ("in", Integer),
            ("out", Integer),
            ("occupancy_est", Integer),
        ],
    }
}

pub(super) fn push_session(
    table: Table,
    sheet: &mut Sheet,
    venue: &VenueId,
    day: LocalDay,
    stored: &StoredSession,
) -> Result<()> {
    debug_assert_eq!(table, Table::Sessions);
    let session = &stored.session;
    sheet.push(&[
        Cell::Text(venue.as_str()),
        Cell::Text(&session.subject.track),
        Cell::Integer(session.start),
        Cell::Integer(session.end),
        integer(session.points)?,
        session.subject.sensor.as_deref().map_or(Cell::Absent, Cell::Text),
        Cell::Float(session.path_um as f64 / 1e6),
        Cell::Integer(i64::from(session.continued_in)),
        Cell::Integer(i64::from(session.continued_out)),
        Cell::Text(&day.to_string()),
        Cell::Text(&stored.id),
    ])
}

/// Puts a row into the table if it belongs there.
pub(super) fn push_row(
    table: Table,
    sheet: &mut Sheet,
    venue: &VenueId,
    day: LocalDay,
    generation: u64,
    row: &AggregateRow,
) -> Result<()> {
    let venue = Cell::Text(venue.as_str());
    let hour = Cell::Integer(row.start);
    match (table, row.grain, &row.value) {
        (Table::Hourly, Grain::Hour, Value::Zone(zone)) => {
            let tail = zone_values(zone, row.length_ms, generation)?;
            push_zone(sheet, venue, &row.subject, hour, &tail)
        }
        (Table::Daily, Grain::Day, Value::Zone(zone)) => {
            let tail = zone_values(zone, row.length_ms, generation)?;
            push_zone(sheet, venue, &row.subject, Cell::Text(&day.to_string()), &tail)
        }
        (Table::CrossingsHourly, Grain::Hour, Value::Line(line)) => sheet.push(&[
            venue,
            Cell::Text(&row.subject),
            hour,
            Cell::Integer(line.inward),
            Cell::Integer(line.outward),
        ]),
        (Table::TransactionsHourly, Grain::Hour, Value::Transaction(sum)) => sheet.push(&[
            venue,
            hour,
            integer(sum.sales)?,
            integer(sum.amount)?,
            Cell::Text(&row.subject),
            integer(sum.returns)?,
            integer(sum.voids)?,
        ]),
        (Table::ReadingsHourly, Grain::Hour, Value::Reading(reading)) => {
            let (sensor, metric) = row
                .subject
                .split_once(PART_SEPARATOR)
                .unwrap_or((&row.subject, ""));
            sheet.push(&[
                venue,
                Cell::Text(sensor),
                Cell::Text(metric),
                hour,
                integer(reading.count)?,
                Cell::Float(reading.min),
                Cell::Float(reading.max),
                Cell::Float(exact_mean(reading.sum_nano, reading.count)),
                Cell::Float(reading.last),
                Cell::Text(&reading.unit),
            ])
        }
        (Table::CountsHourly, Grain::Hour, Value::Counter(counter)) => {
            let mut parts = row.subject.split(PART_SEPARATOR);
            let (sensor, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            sheet.push(&[
                venue,
                Cell::Text(sensor),
                Cell::Text(name),
                hour,
                Cell::Integer(counter.value),
                Cell::Text(counter.mode.word()),
                integer(counter.samples)?,
                integer(counter.resets)?,
            ])
        }
        (Table::PresenceHourly, Grain::Hour, Value::Presence(presence)) => sheet.push(&[
            venue,
            hour,
            Cell::optional(presence.devices.map(i64::try_from).transpose()?),
            integer(presence.sightings)?,
        ]),
        (Table::TrafficHourly, Grain::Hour, Value::Traffic(traffic)) => sheet.push(&[
            venue,
            hour,
            integer(traffic.footfall)?,
            Cell::Text(match traffic.source {
                FootfallSource::Lines => "lines",
                FootfallSource::Sessions => "sessions",
            }),
            Cell::Integer(traffic.inward),
            Cell::Integer(traffic.outward),
            Cell::Integer(traffic.occupancy_est),
        ]),
        _ => Ok(()),
    }
}

fn push_zone(
    sheet: &mut Sheet,
    venue: Cell<'_>,
    zone: &str,
    bucket: Cell<'_>,
    values: &[Cell<'_>],
) -> Result<()> {
    let mut cells = Vec::with_capacity(1 + ZONE_VALUES);
    cells.extend([venue, Cell::Text(zone), bucket]);
    cells.extend_from_slice(values);
    sheet.push(&cells)
}

fn zone_values(zone: &ZoneValue, length_ms: i64, generation: u64) -> Result<[Cell<'static>; 11]> {
    let rank = |percent| -> Result<Cell<'static>> {
        Ok(Cell::optional(
            nearest_rank(&zone.dwells_ms, percent)
                .map(i64::try_from)
                .transpose()?,
        ))
    };
    Ok([
        integer(zone.visits)?,
        Cell::optional(zone.visitors.map(i64::try_from).transpose()?),
        integer(zone.dwell_ms)?,
        rank(50)?,
        rank(90)?,
        rank(95)?,
        integer(zone.engaged)?,
        Cell::Float(zone.dwell_ms as f64 / length_ms as f64),
        integer(zone.occupancy_max)?,
        Cell::Integer(length_ms),
        integer(generation)?,
    ])
}

fn integer<T: TryInto<i64>>(value: T) -> Result<Cell<'static>> {
    value
        .try_into()
        .ok()
        .map(Cell::Integer)
        .context("a number does not fit 64 bits")
}
