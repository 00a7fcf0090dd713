//! Removing slots that were compared with the archive: a partition goes by one deletion with a write time of its own.
//!
//! Rows have ordinary write times, so the deletion's says what it takes: whatever was written up to then, and nothing
//! written since, whichever of them comes first. It lies an hour (or what is allowed between clocks) before the
//! comparison, so that a row which the comparison could not see yet has a later one. A partition's tombstone also costs
//! the servers far less than one for each row.

use dwell_model::time::slot_of;

use super::super::cluster::Cluster;
use super::slots::{date, is_slot, stored_slot};
use super::statements;
use crate::api::ComparedSlot;
use crate::error::{ErrorKind, Result, StorageError};

/// Removes a slot's rows of a kind that were written before `written_before`; without rows there is nothing to remove.
pub(super) async fn delete_compared(cluster: &Cluster, slot: &ComparedSlot) -> Result<()> {
    check(slot)?;
    if slot.rows.is_empty() {
        return Ok(());
    }
    let (days, number) = stored_slot(slot.slot);
    let values = (
        write_time(slot)?,
        slot.venue.tenant.as_str(),
        slot.venue.venue.as_str(),
        date(days),
        number,
    );
    cluster
        .execute(statements::delete(slot.rows.events.kind), values)
        .await
}

fn check(slot: &ComparedSlot) -> Result<()> {
    let refuse = |why: String| Err(StorageError::new(ErrorKind::Invalid, why));
    if let Err(error) = slot.rows.check() {
        return refuse(format!("compared rows of {}: {error}", slot.venue));
    }
    let inside = |ts: &i64| slot_of(*ts) == slot.slot;
    match is_slot(slot.slot) && slot.rows.events.ts.iter().all(inside) {
        true => Ok(()),
        false => refuse(format!(
            "compared rows of {} do not lie in the slot {}",
            slot.venue, slot.slot
        )),
    }
}

/// The last microsecond before `written_before`: of two equal write times the deletion wins.
fn write_time(slot: &ComparedSlot) -> Result<i64> {
    let first_spared = slot.written_before.checked_mul(1_000).filter(|at| *at > 0);
    match first_spared {
        Some(at) => Ok(at - 1),
        None => Err(StorageError::new(
            ErrorKind::Invalid,
            format!("{} is no time to remove rows before", slot.written_before),
        )),
    }
}
