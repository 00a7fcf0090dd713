//! Removing rows that were compared with the archive: those rows, with those deliveries, and nothing else.

use std::ops::Range;

use dwell_model::event::{Delivery, Fingerprinter, RawRows, StringId};
use dwell_model::time::slot_of;
use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension};

use super::super::failure::Failure;
use super::super::values::{find_venue, receipt_bytes};
use super::delivery_set;
use super::statements::statements;
use crate::api::ComparedSlot;
use crate::error::ErrorKind;

/// Rows that one transaction removes: other writers wait for no longer than that takes.
pub(super) const STEP_ROWS: usize = 20_000;

/// Refuses what cannot be right, before anything is removed.
pub(super) fn check(slot: &ComparedSlot) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::refuse(ErrorKind::Invalid, why));
    if let Err(error) = slot.rows.check() {
        return refuse(format!("compared rows of {}: {error}", slot.venue));
    }
    match slot.rows.events.ts.iter().find(|ts| slot_of(**ts) != slot.slot) {
        Some(ts) => refuse(format!(
            "a compared row of {} at {ts} does not lie in the slot {}",
            slot.venue, slot.slot
        )),
        None => Ok(()),
    }
}

/// Removes some of a slot's rows.
pub(super) fn remove(
    connection: &Connection,
    slot: &ComparedSlot,
    step: Range<usize>,
) -> Result<(), Failure> {
    let Some(venue_ref) = find_venue(connection, &slot.venue)? else {
        return Ok(());
    };
    let rows = &slot.rows;
    let sql = statements(rows.events.kind);
    let mut remover = Remover {
        names: Names {
            connection,
            venue_ref,
            known: vec![None; rows.events.strings.len()],
        },
        deliveries: HashMap::default(),
        fingerprinter: Fingerprinter::new(),
        refs: Vec::new(),
        blob: Vec::new(),
    };
    let mut delete = connection.prepare_cached(&sql.delete)?;
    let mut select = connection.prepare_cached(&sql.select_deliveries)?;
    let mut update = connection.prepare_cached(&sql.update_deliveries)?;
    for row in step {
        let Some((sensor_ref, key_ref)) = remover.names(rows, row)? else {
            continue;
        };
        remover.collect_deliveries(rows, row)?;
        let ts = rows.events.ts[row];
        let hash = remover.fingerprinter.payload_hash(&rows.events, row);
        if delete.execute((venue_ref, ts, sensor_ref, key_ref, hash, &remover.blob))? == 1 {
            continue;
        }
        // It has other deliveries by now, or is gone.
        let identity = (venue_ref, ts, sensor_ref, key_ref, hash);
        let stored: Option<Vec<u8>> = select.query_row(identity, |row| row.get(0)).optional()?;
        let Some(stored) = stored else { continue };
        let mut left = Vec::new();
        delivery_set::decode(&stored, &mut left)?;
        let before = left.len();
        left.retain(|reference| remover.refs.binary_search(reference).is_err());
        if left.len() == before {
            continue;
        }
        if left.is_empty() {
            delete.execute((venue_ref, ts, sensor_ref, key_ref, hash, stored))?;
            continue;
        }
        let mut bytes = Vec::new();
        delivery_set::encode(&left, &mut bytes);
        update.execute((venue_ref, ts, sensor_ref, key_ref, hash, bytes))?;
    }
    Ok(())
}

struct Remover<'a> {
    names: Names<'a>,
    deliveries: HashMap<Delivery, Option<i64>, foldhash::fast::FixedState>,
    fingerprinter: Fingerprinter,
    refs: Vec<i64>,
    blob: Vec<u8>,
}

impl Remover<'_> {
    /// The numbers of a row's sensor and key; `None` when one has none: then the row is not there.
    fn names(&mut self, rows: &RawRows, row: usize) -> Result<Option<(i64, i64)>, Failure> {
        let sensor = self.names.number(rows, rows.events.sensor[row])?;
        let key = self.names.number(rows, rows.events.key[row])?;
        Ok(sensor.zip(key))
    }

    /// The row's deliveries as sorted numbers in `refs` and as bytes in `blob`.
    fn collect_deliveries(&mut self, rows: &RawRows, row: usize) -> Result<(), Failure> {
        self.refs.clear();
        for delivery in rows.deliveries(row) {
            let known = match self.deliveries.get(delivery) {
                Some(&known) => known,
                None => {
                    let mut find = self.names.connection.prepare_cached(
                        "SELECT id FROM deliveries WHERE received_at = ?1 AND receipt = ?2",
                    )?;
                    let key = (delivery.received_at, receipt_bytes(delivery.receipt));
                    let found = find.query_row(key, |row| row.get(0)).optional()?;
                    self.deliveries.insert(*delivery, found);
                    found
                }
            };
            self.refs.extend(known);
        }
        self.refs.sort_unstable();
        self.refs.dedup();
        delivery_set::encode(&self.refs, &mut self.blob);
        Ok(())
    }
}

/// Numbers of a batch's names, each asked for once.
struct Names<'a> {
    connection: &'a Connection,
    venue_ref: i64,
    known: Vec<Option<Option<i64>>>,
}

impl Names<'_> {
    fn number(&mut self, rows: &RawRows, id: StringId) -> Result<Option<i64>, Failure> {
        if let Some(known) = self.known[id as usize] {
            return Ok(known);
        }
        let mut find = self
            .connection
            .prepare_cached("SELECT id FROM names WHERE venue_ref = ?1 AND name = ?2")?;
        let found = find
            .query_row((self.venue_ref, rows.events.strings.get(id)), |row| row.get(0))
            .optional()?;
        self.known[id as usize] = Some(found);
        Ok(found)
    }
}
