//! Removing rows, and names that nothing uses any more.

use dwell_model::event::{Fingerprinter, Kind, RawRows};
use dwell_model::ids::VenueKey;
use rusqlite::{Connection, OptionalExtension};

use super::super::failure::Failure;
use super::super::values::find_venue;
use super::statements::statements;
use crate::api::NameTest;

/// Removes the rows with these identities and payloads; returns how many were named.
pub(super) fn rows(connection: &Connection, venue: &VenueKey, rows: &RawRows) -> Result<u64, Failure> {
    let Some(venue_ref) = find_venue(connection, venue)? else {
        return Ok(0);
    };
    let events = &rows.events;
    let mut find = connection.prepare_cached("SELECT id FROM names WHERE venue_ref = ?1 AND name = ?2")?;
    let mut names: Vec<Option<i64>> = Vec::with_capacity(events.strings.len());
    for name in events.strings.iter() {
        names.push(find.query_row((venue_ref, name), |row| row.get(0)).optional()?);
    }
    let mut delete = connection.prepare_cached(&statements(events.kind).erase)?;
    let mut fingerprinter = Fingerprinter::new();
    for row in 0..events.len() {
        let (sensor, key) = (events.sensor[row] as usize, events.key[row] as usize);
        let (Some(sensor_ref), Some(key_ref)) = (names[sensor], names[key]) else {
            continue;
        };
        let payload_hash = fingerprinter.payload_hash(events, row);
        delete.execute((venue_ref, events.ts[row], sensor_ref, key_ref, payload_hash))?;
    }
    Ok(events.len() as u64)
}

/// Removes the names that are meant and that no row of their venue uses; returns how many.
pub(super) fn unused_names(
    connection: &Connection,
    venue: &VenueKey,
    is_forgotten: &NameTest,
) -> Result<u64, Failure> {
    let Some(venue_ref) = find_venue(connection, venue)? else {
        return Ok(0);
    };
    let mut meant: Vec<i64> = Vec::new();
    {
        let mut select = connection.prepare_cached("SELECT id, name FROM names WHERE venue_ref = ?1")?;
        let mut rows = select.query([venue_ref])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(1)?.as_str().map_err(Failure::damaged_row)?;
            if is_forgotten(name) {
                meant.push(row.get(0)?);
            }
        }
    }
    let mut delete = connection.prepare_cached("DELETE FROM names WHERE id = ?1")?;
    let mut forgotten = 0;
    for id in meant {
        if !is_used(connection, venue_ref, id)? {
            forgotten += delete.execute([id])? as u64;
        }
    }
    Ok(forgotten)
}

fn is_used(connection: &Connection, venue_ref: i64, name: i64) -> Result<bool, Failure> {
    for kind in Kind::ALL {
        let mut uses = connection.prepare_cached(&statements(kind).uses_name)?;
        if uses.exists((venue_ref, name))? {
            return Ok(true);
        }
    }
    Ok(false)
}
