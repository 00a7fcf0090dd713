//! Adding rows: numbers for names, rows in key order, one insert each.
//!
//! Rows are sorted by key before they are inserted, so that neighbours go to the same page. Most rows are new: an insert
//! that does nothing on conflict settles them in one search of the tree; only a row that was there is looked at again.

use dwell_model::event::{Column, Fingerprinter, Kind, NO_I64, NO_TEXT, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use rusqlite::{Connection, Statement};

use super::super::failure::Failure;
use super::super::values::{intern_venue, to_stored};
use super::delivery_set;
use super::names::Interner;
use super::statements::{COLUMNS_BEFORE_PAYLOAD, Statements, statements};
use crate::api::{ConsumerPosition, Mark, RawApplied, RawWrite};
use crate::error::ErrorKind;

/// Refuses a write that cannot be right, before anything is stored.
pub(super) fn check(write: &RawWrite) -> Result<(), Failure> {
    for (venue, rows) in &write.rows {
        rows.check()
            .map_err(|error| Failure::refuse(ErrorKind::Invalid, format!("rows of {venue}: {error}")))?;
    }
    Ok(())
}

/// Adds the rows, raises the marks at the time `now`, stores the position.
pub(super) fn apply(
    connection: &Connection,
    interner: &mut Interner<'_>,
    write: &RawWrite,
    now: TsMs,
) -> Result<RawApplied, Failure> {
    let mut writer = RowWriter::new(connection, interner);
    for kind in Kind::ALL {
        writer.write_kind(kind, &write.rows)?;
    }
    let applied = writer.applied;
    raise_marks(connection, &write.marks, now)?;
    if let Some(position) = &write.position {
        store_position(connection, position)?;
    }
    Ok(applied)
}

/// The key of a row, and where it stands in the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    venue_ref: i64,
    ts: i64,
    sensor_ref: i64,
    key_ref: i64,
    payload_hash: i64,
    entry: u32,
    row: u32,
}

struct RowWriter<'a, 'b> {
    connection: &'a Connection,
    interner: &'a mut Interner<'b>,
    fingerprinter: Fingerprinter,
    applied: RawApplied,
    keys: Vec<RowKey>,
    refs: Vec<i64>,
    stored_refs: Vec<i64>,
    blob: Vec<u8>,
}

impl<'a, 'b> RowWriter<'a, 'b> {
    fn new(connection: &'a Connection, interner: &'a mut Interner<'b>) -> Self {
        Self {
            connection,
            interner,
            fingerprinter: Fingerprinter::new(),
            applied: RawApplied::default(),
            keys: Vec::new(),
            refs: Vec::new(),
            stored_refs: Vec::new(),
            blob: Vec::new(),
        }
    }

    fn write_kind(&mut self, kind: Kind, entries: &[(VenueKey, RawRows)]) -> Result<(), Failure> {
        self.keys.clear();
        for (entry, (venue, rows)) in entries.iter().enumerate() {
            if rows.events.kind == kind && !rows.is_empty() {
                self.collect_keys(entry as u32, venue, rows)?;
            }
        }
        if self.keys.is_empty() {
            return Ok(());
        }
        self.keys.sort_unstable();
        let sql = statements(kind);
        let mut insert = self.connection.prepare_cached(&sql.insert)?;
        // Out of `self` while its other parts are used.
        let keys = std::mem::take(&mut self.keys);
        for key in &keys {
            self.write_row(&mut insert, sql, &entries[key.entry as usize].1, key)?;
        }
        self.keys = keys;
        Ok(())
    }

    fn collect_keys(&mut self, entry: u32, venue: &VenueKey, rows: &RawRows) -> Result<(), Failure> {
        let venue_ref = intern_venue(self.connection, venue)?;
        let events = &rows.events;
        // Numbers are given out from 1: 0 stands for a name that has not been asked for.
        let mut name_refs = vec![0_i64; events.strings.len()];
        self.keys.reserve(events.len());
        for row in 0..events.len() {
            let (sensor, key) = (events.sensor[row], events.key[row]);
            for id in [sensor, key] {
                if name_refs[id as usize] == 0 {
                    name_refs[id as usize] = self.interner.name(venue_ref, events.strings.get(id))?;
                }
            }
            self.keys.push(RowKey {
                venue_ref,
                ts: events.ts[row],
                sensor_ref: name_refs[sensor as usize],
                key_ref: name_refs[key as usize],
                payload_hash: self.fingerprinter.payload_hash(events, row),
                entry,
                row: row as u32,
            });
        }
        Ok(())
    }

    fn write_row(
        &mut self,
        insert: &mut Statement<'_>,
        sql: &Statements,
        rows: &RawRows,
        key: &RowKey,
    ) -> Result<(), Failure> {
        let row = key.row as usize;
        self.collect_deliveries(rows, row)?;
        insert.raw_bind_parameter(1, key.venue_ref)?;
        insert.raw_bind_parameter(2, key.ts)?;
        insert.raw_bind_parameter(3, key.sensor_ref)?;
        insert.raw_bind_parameter(4, key.key_ref)?;
        insert.raw_bind_parameter(5, key.payload_hash)?;
        insert.raw_bind_parameter(6, rows.events.revision[row])?;
        let mut parameter = COLUMNS_BEFORE_PAYLOAD + 1;
        for column in &rows.events.payload {
            bind_payload(insert, parameter, rows, column, row)?;
            parameter += 1;
        }
        insert.raw_bind_parameter(parameter, self.blob.as_slice())?;
        if insert.raw_execute()? == 1 {
            self.applied.new_rows += 1;
            return Ok(());
        }
        self.applied.repeated_rows += 1;
        self.add_deliveries(sql, key)
    }

    /// The row's deliveries as sorted numbers in `refs` and as bytes in `blob`.
    fn collect_deliveries(&mut self, rows: &RawRows, row: usize) -> Result<(), Failure> {
        let before = match *self.refs.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        self.refs.clear();
        for &delivery in rows.deliveries(row) {
            self.refs.push(self.interner.delivery(delivery)?);
        }
        if self.refs.len() > 1 {
            self.refs.sort_unstable();
            self.refs.dedup();
        } else if before == Some(self.refs[0]) {
            return Ok(());
        }
        delivery_set::encode(&self.refs, &mut self.blob);
        Ok(())
    }

    /// Adds the deliveries in `refs` to a row that is there.
    fn add_deliveries(&mut self, sql: &Statements, key: &RowKey) -> Result<(), Failure> {
        let identity = (
            key.venue_ref,
            key.ts,
            key.sensor_ref,
            key.key_ref,
            key.payload_hash,
        );
        self.stored_refs.clear();
        {
            let mut select = self.connection.prepare_cached(&sql.select_deliveries)?;
            let mut found = select.query(identity)?;
            let row = found.next()?.ok_or_else(|| {
                Failure::refuse(
                    ErrorKind::Bug,
                    "a row that an insert met was not there a moment later",
                )
            })?;
            let bytes = row.get_ref(0)?.as_blob().map_err(Failure::damaged_row)?;
            delivery_set::decode(bytes, &mut self.stored_refs)?;
        }
        if !delivery_set::unite(&mut self.stored_refs, &self.refs) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        delivery_set::encode(&self.stored_refs, &mut bytes);
        let (venue_ref, ts, sensor_ref, key_ref, payload_hash) = identity;
        let mut update = self.connection.prepare_cached(&sql.update_deliveries)?;
        update.execute((venue_ref, ts, sensor_ref, key_ref, payload_hash, bytes))?;
        Ok(())
    }
}

fn bind_payload(
    insert: &mut Statement<'_>,
    parameter: usize,
    rows: &RawRows,
    column: &Column,
    row: usize,
) -> rusqlite::Result<()> {
    let null = rusqlite::types::Null;
    match column {
        Column::F32(values) if values[row].is_nan() => insert.raw_bind_parameter(parameter, null),
        Column::F32(values) => insert.raw_bind_parameter(parameter, f64::from(values[row])),
        Column::F64(values) if values[row].is_nan() => insert.raw_bind_parameter(parameter, null),
        Column::F64(values) => insert.raw_bind_parameter(parameter, values[row]),
        Column::I64(values) if values[row] == NO_I64 => insert.raw_bind_parameter(parameter, null),
        Column::I64(values) => insert.raw_bind_parameter(parameter, values[row]),
        Column::Text(values) if values[row] == NO_TEXT => insert.raw_bind_parameter(parameter, null),
        Column::Text(values) => insert.raw_bind_parameter(parameter, rows.events.strings.get(values[row])),
    }
}

fn raise_marks(connection: &Connection, marks: &[Mark], now: TsMs) -> Result<(), Failure> {
    let mut raise = connection.prepare_cached(
        "INSERT INTO raw_marks (venue_ref, slot, source, position) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET position = excluded.position WHERE excluded.position > position",
    )?;
    let mut note = connection.prepare_cached(
        "INSERT INTO raw_mark_times (venue_ref, slot, marked_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET marked_at = excluded.marked_at WHERE excluded.marked_at > marked_at",
    )?;
    let mut noted = None;
    for mark in marks {
        let venue_ref = intern_venue(connection, &mark.venue)?;
        raise.execute((venue_ref, mark.slot, mark.source.as_str(), mark.position))?;
        if noted.replace((venue_ref, mark.slot)) != Some((venue_ref, mark.slot)) {
            note.execute((venue_ref, mark.slot, now))?;
        }
    }
    Ok(())
}

fn store_position(connection: &Connection, position: &ConsumerPosition) -> Result<(), Failure> {
    let epoch = to_stored(position.epoch)?;
    connection
        .prepare_cached(
            "INSERT INTO consumer_positions (consumer, epoch, partition, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET position = excluded.position",
        )?
        .execute((position.consumer, epoch, position.partition, position.position))?;
    Ok(())
}
