//! Removing rows: a deletion of ordinary write time for each payload, over all its deliveries.
//!
//! A deletion shadows what was written before it and hides the bytes from every read at once. They leave the disks when
//! the table's files are compacted, at the latest `gc_grace_seconds` and a compaction later, and snapshots when those
//! are cleared.

use dwell_model::event::{Fingerprinter, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::slot_of;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::super::cluster::Cluster;
use super::slots::{date, stored_slot};
use super::statements;
use crate::error::Result;

/// Deletions in flight.
const AT_ONCE: usize = 32;

/// Removes the rows with these identities and payloads; returns how many were named.
pub(super) async fn rows(cluster: &Cluster, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
    let events = &rows.events;
    let (tenant, venue) = (venue.tenant.as_str(), venue.venue.as_str());
    let mut fingerprinter = Fingerprinter::new();
    let hashes: Vec<i64> = (0..events.len())
        .map(|row| fingerprinter.payload_hash(events, row))
        .collect();
    let deletions = hashes.into_iter().enumerate().map(|(row, payload_hash)| {
        let ts = events.ts[row];
        let (epoch_days, slot) = stored_slot(slot_of(ts));
        let key = (
            tenant,
            venue,
            date(epoch_days),
            slot,
            ts,
            events.sensor(row),
            events.key(row),
            payload_hash,
        );
        cluster.execute(statements::erase(events.kind), key)
    });
    stream::iter(deletions)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |deletion| deletion)
        .await?;
    Ok(events.len() as u64)
}
