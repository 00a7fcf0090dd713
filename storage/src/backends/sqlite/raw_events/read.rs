//! Reading rows back as columns.

use std::ops::Range;

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_I64, NO_TEXT, RawRows, StringId};
use dwell_model::ids::VenueKey;
use dwell_model::time::{TsMs, slot_of};
use hashbrown::HashMap;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::failure::Failure;
use super::super::values::{find_venue, from_stored, receipt_from};
use super::delivery_set;
use super::statements::statements;
use crate::api::{MarkSource, Marks};

type Numbered<T> = HashMap<i64, T, foldhash::fast::FixedState>;

/// Columns of a scan before the payload: ts, sensor_ref, key_ref, revision, deliveries.
const SCAN_COLUMNS_BEFORE_PAYLOAD: usize = 5;

/// All rows of a kind in a range.
pub(super) fn scan(
    connection: &Connection,
    venue: &VenueKey,
    kind: Kind,
    range: Range<TsMs>,
) -> Result<RawRows, Failure> {
    let mut scan = Scan {
        connection,
        out: RawRows::new(EventBatch::new(kind)),
        names: Numbered::default(),
        deliveries: Numbered::default(),
        last_delivery: None,
        refs: Vec::new(),
    };
    if let Some(venue_ref) = find_venue(connection, venue)? {
        let mut select = connection.prepare_cached(&statements(kind).scan)?;
        let mut rows = select.query((venue_ref, range.start, range.end))?;
        while let Some(row) = rows.next()? {
            scan.push(row)?;
        }
    }
    scan.out.check().map_err(Failure::damaged_row)?;
    Ok(scan.out)
}

/// Number of rows of each kind in a range.
pub(super) fn count(
    connection: &Connection,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(Kind, u64)>, Failure> {
    let Some(venue_ref) = find_venue(connection, venue)? else {
        return Ok(Vec::new());
    };
    let mut counts = Vec::new();
    for kind in Kind::ALL {
        let rows: i64 = connection
            .prepare_cached(&statements(kind).count)?
            .query_row((venue_ref, range.start, range.end), |row| row.get(0))?;
        if rows > 0 {
            counts.push((kind, from_stored(rows)?));
        }
    }
    Ok(counts)
}

/// The marks of the slots that overlap a range, slot by slot.
pub(super) fn marked_slots(
    connection: &Connection,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(i64, Marks)>, Failure> {
    let mut slots: Vec<(i64, Marks)> = Vec::new();
    let Some(venue_ref) = find_venue(connection, venue)? else {
        return Ok(slots);
    };
    if range.is_empty() {
        return Ok(slots);
    }
    let mut select = connection.prepare_cached(
        "SELECT slot, source, position FROM raw_marks
         WHERE venue_ref = ?1 AND slot BETWEEN ?2 AND ?3 ORDER BY slot",
    )?;
    let mut rows = select.query((venue_ref, slot_of(range.start), slot_of(range.end - 1)))?;
    while let Some(row) = rows.next()? {
        let (slot, source, position) = (row.get(0)?, MarkSource::from_stored(row.get(1)?), row.get(2)?);
        match slots.last_mut() {
            Some((last, marks)) if *last == slot => marks.raise(&source, position),
            _ => {
                let mut marks = Marks::default();
                marks.raise(&source, position);
                slots.push((slot, marks));
            }
        }
    }
    Ok(slots)
}

/// When the slots that overlap a range were last marked.
pub(super) fn marked_at(
    connection: &Connection,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(i64, TsMs)>, Failure> {
    let Some(venue_ref) = find_venue(connection, venue)?.filter(|_| !range.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut select = connection.prepare_cached(
        "SELECT slot, marked_at FROM raw_mark_times
         WHERE venue_ref = ?1 AND slot BETWEEN ?2 AND ?3 ORDER BY slot",
    )?;
    let slots = (venue_ref, slot_of(range.start), slot_of(range.end - 1));
    let rows = select.query_map(slots, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

struct Scan<'a> {
    connection: &'a Connection,
    out: RawRows,
    names: Numbered<StringId>,
    deliveries: Numbered<Delivery>,
    last_delivery: Option<(i64, Delivery)>,
    refs: Vec<i64>,
}

impl Scan<'_> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        let (sensor, key) = (self.name(row.get(1)?)?, self.name(row.get(2)?)?);
        let events = &mut self.out.events;
        events.ts.push(row.get(0)?);
        events.sensor.push(sensor);
        events.key.push(key);
        events.revision.push(row.get(3)?);
        for (i, column) in events.payload.iter_mut().enumerate() {
            let value = row.get_ref(SCAN_COLUMNS_BEFORE_PAYLOAD + i)?;
            match (column, value) {
                (Column::F32(values), ValueRef::Null) => values.push(f32::NAN),
                (Column::F32(values), ValueRef::Real(value)) => values.push(value as f32),
                (Column::F64(values), ValueRef::Null) => values.push(f64::NAN),
                (Column::F64(values), ValueRef::Real(value)) => values.push(value),
                (Column::I64(values), ValueRef::Null) => values.push(NO_I64),
                (Column::I64(values), ValueRef::Integer(value)) => values.push(value),
                (Column::Text(values), ValueRef::Null) => values.push(NO_TEXT),
                (Column::Text(values), ValueRef::Text(text)) => {
                    values.push(
                        events
                            .strings
                            .intern(std::str::from_utf8(text).map_err(Failure::damaged_row)?),
                    );
                }
                _ => {
                    return Err(Failure::damaged_row(
                        "a payload value has another type than its column",
                    ));
                }
            }
        }
        let bytes = row.get_ref(4)?.as_blob().map_err(Failure::damaged_row)?;
        self.push_deliveries(bytes)
    }

    fn push_deliveries(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.refs.clear();
        delivery_set::decode(bytes, &mut self.refs)?;
        let start = self.out.deliveries.len();
        for i in 0..self.refs.len() {
            let delivery = self.delivery(self.refs[i])?;
            self.out.deliveries.push(delivery);
        }
        self.out.deliveries[start..].sort_unstable();
        let end = u32::try_from(self.out.deliveries.len()).map_err(|_| {
            Failure::refuse(
                crate::error::ErrorKind::Invalid,
                "too many rows: ask for a shorter range",
            )
        })?;
        self.out.ends.push(end);
        Ok(())
    }

    fn name(&mut self, id: i64) -> Result<StringId, Failure> {
        if let Some(&known) = self.names.get(&id) {
            return Ok(known);
        }
        let mut select = self
            .connection
            .prepare_cached("SELECT name FROM names WHERE id = ?1")?;
        let mut rows = select.query([id])?;
        let row = rows
            .next()?
            .ok_or_else(|| Failure::damaged_row(format_args!("name {id} is missing")))?;
        let name = row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?;
        let interned = self.out.events.strings.intern(name);
        self.names.insert(id, interned);
        Ok(interned)
    }

    fn delivery(&mut self, id: i64) -> Result<Delivery, Failure> {
        if let Some((last, delivery)) = self.last_delivery
            && last == id
        {
            return Ok(delivery);
        }
        let delivery = match self.deliveries.get(&id) {
            Some(&delivery) => delivery,
            None => {
                let delivery = self.load_delivery(id)?;
                self.deliveries.insert(id, delivery);
                delivery
            }
        };
        self.last_delivery = Some((id, delivery));
        Ok(delivery)
    }

    fn load_delivery(&self, id: i64) -> Result<Delivery, Failure> {
        let mut select = self
            .connection
            .prepare_cached("SELECT received_at, receipt FROM deliveries WHERE id = ?1")?;
        let found: Option<(TsMs, Vec<u8>)> = select
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (received_at, receipt) =
            found.ok_or_else(|| Failure::damaged_row(format_args!("delivery {id} is missing")))?;
        Ok(Delivery {
            received_at,
            receipt: receipt_from(&receipt)?,
        })
    }
}
