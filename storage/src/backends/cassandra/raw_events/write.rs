//! Adding rows: unlogged batches, each of one partition.
//!
//! A batch of one partition is one mutation: it costs the server little more than one row, goes straight to a replica,
//! and is not what Cassandra's batch warnings and limits (5 KiB, 50 KiB) are about: those count batches of several
//! partitions only. Its size is bounded here all the same. Values are written from the columns into the driver's frame;
//! a row costs no allocation.

use std::sync::{Arc, Mutex, PoisonError};

use dwell_model::event::{Column, Fingerprinter, Kind, NO_I64, NO_TEXT, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::slot_of;
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashMap;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::Batch;

use super::super::cluster::Cluster;
use super::super::values::to_stored;
use super::marks::write_time;
use super::slots::{date, is_slot, stored_slot};
use super::statements::{self, VALUES_BEFORE_PAYLOAD};
use crate::api::RawWrite;
use crate::error::{ErrorKind, Result, StorageError};

/// Rows of a batch, at most.
const BATCH_ROWS_MAX: usize = 250;
/// Bytes of a batch, roughly and at most, unless one row alone is larger. Far below the 16 MiB of a mutation.
const BATCH_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of a row besides its names and texts, roughly.
const ROW_BYTES: usize = 160;
/// Batches of one call in flight.
const BATCHES_AT_ONCE: usize = 32;

/// Refuses a write that cannot be right, before anything is stored.
pub(super) fn check(write: &RawWrite) -> Result<()> {
    let refuse = |why: String| Err(StorageError::new(ErrorKind::Invalid, why));
    for (venue, rows) in &write.rows {
        if let Err(error) = rows.check() {
            return refuse(format!("rows of {venue}: {error}"));
        }
    }
    for mark in &write.marks {
        if !is_slot(mark.slot) {
            return refuse(format!(
                "a mark of {} names the slot {}, which no event can lie in",
                mark.venue, mark.slot
            ));
        }
        write_time(mark.position)?;
    }
    if let Some(at) = &write.position {
        to_stored(at.epoch)?;
        write_time(at.position)?;
    }
    Ok(())
}

/// Adds rows; all of them are durable when it returns. Gives their number.
pub(super) async fn rows(
    cluster: &Cluster,
    batches: &Batches,
    entries: &[(VenueKey, RawRows)],
) -> Result<u64> {
    let values = collect(entries);
    stream::iter(cut(&values))
        .map(Ok)
        .try_for_each_concurrent(BATCHES_AT_ONCE, |values| run(cluster, batches, values))
        .await?;
    Ok(entries.iter().map(|(_, rows)| rows.len() as u64).sum())
}

async fn run(cluster: &Cluster, batches: &Batches, values: &[RowValues<'_>]) -> Result<()> {
    let [first, ..] = values else {
        return Ok(());
    };
    let kind = first.rows.events.kind;
    let batch = batches.of(cluster, kind, values.len()).await?;
    cluster
        .run_batch(statements::insert(kind).doing(), &batch, values)
        .await
}

/// Batch statements by kind and number of rows, made when first needed.
#[derive(Default)]
pub(super) struct Batches {
    made: Mutex<HashMap<(Kind, usize), Arc<Batch>, foldhash::fast::FixedState>>,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

impl Batches {
    async fn of(&self, cluster: &Cluster, kind: Kind, rows: usize) -> Result<Arc<Batch>> {
        let key = (kind, rows);
        if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(cluster.batch_of_one(statements::insert(kind), rows).await?);
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::clone(&made));
        Ok(made)
    }
}

/// One stored row: a delivery of a row of the write.
#[derive(Clone, Copy)]
struct RowValues<'a> {
    venue: &'a VenueKey,
    rows: &'a RawRows,
    row: u32,
    delivery: u32,
    payload_hash: i64,
}

impl RowValues<'_> {
    fn slot(&self) -> i64 {
        slot_of(self.rows.events.ts[self.row as usize])
    }

    fn bytes(&self) -> usize {
        let (events, row) = (&self.rows.events, self.row as usize);
        let texts: usize = events
            .payload
            .iter()
            .map(|column| match column {
                Column::Text(ids) if ids[row] != NO_TEXT => events.strings.get(ids[row]).len(),
                _ => 0,
            })
            .sum();
        ROW_BYTES + events.sensor(row).len() + events.key(row).len() + texts
    }
}

/// All rows to store, those of a partition together as far as one entry of the write goes.
fn collect(entries: &[(VenueKey, RawRows)]) -> Vec<RowValues<'_>> {
    let mut fingerprinter = Fingerprinter::new();
    let mut all = Vec::with_capacity(entries.iter().map(|(_, rows)| rows.deliveries.len()).sum());
    for (venue, rows) in entries {
        let start = all.len();
        let mut delivery = 0;
        for (row, &end) in rows.ends.iter().enumerate() {
            let payload_hash = fingerprinter.payload_hash(&rows.events, row);
            while delivery < end {
                all.push(RowValues {
                    venue,
                    rows,
                    row: row as u32,
                    delivery,
                    payload_hash,
                });
                delivery += 1;
            }
        }
        // Mostly they are of one slot, or sorted by time.
        if !all[start..].is_sorted_by_key(RowValues::slot) {
            all[start..].sort_by_key(RowValues::slot);
        }
    }
    all
}

/// Cuts rows into batches: each of one entry and slot, bounded in rows and bytes.
fn cut<'a, 'b>(mut rest: &'b [RowValues<'a>]) -> impl Iterator<Item = &'b [RowValues<'a>]> {
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let slot = first.slot();
        let mut bytes = 0;
        let n = rest
            .iter()
            .take(BATCH_ROWS_MAX)
            .take_while(|values| {
                bytes += values.bytes();
                std::ptr::eq(values.rows, first.rows) && values.slot() == slot && bytes <= BATCH_BYTES_MAX
            })
            .count();
        let (batch, tail) = rest.split_at(n.max(1));
        rest = tail;
        Some(batch)
    })
}

/// Values in the order of [`statements::insert`]. What is absent is left unset, which stores nothing: a null would store
/// a tombstone.
impl SerializeRow for RowValues<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let (events, row) = (&self.rows.events, self.row as usize);
        if context.columns().len() != VALUES_BEFORE_PAYLOAD + events.payload.len() {
            return Err(SerializationError::new(WrongColumns(context.columns().len())));
        }
        let mut put = |bytes: &[u8]| match writer.make_cell_writer().set_value(bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(SerializationError::new(error)),
        };
        let (days, number) = stored_slot(self.slot());
        let delivery = &self.rows.deliveries[self.delivery as usize];
        put(self.venue.tenant.as_str().as_bytes())?;
        put(self.venue.venue.as_str().as_bytes())?;
        put(&date(days).0.to_be_bytes())?;
        put(&number.to_be_bytes())?;
        put(&events.ts[row].to_be_bytes())?;
        put(events.sensor(row).as_bytes())?;
        put(events.key(row).as_bytes())?;
        put(&self.payload_hash.to_be_bytes())?;
        put(&delivery.received_at.to_be_bytes())?;
        put(&delivery.receipt.to_u128().to_be_bytes())?;
        match events.revision[row] {
            0 => skip(writer),
            revision => put_last(writer, &revision.to_be_bytes())?,
        }
        for column in &events.payload {
            match column {
                Column::F32(values) if !values[row].is_nan() => put_last(writer, &values[row].to_be_bytes())?,
                Column::F64(values) if !values[row].is_nan() => put_last(writer, &values[row].to_be_bytes())?,
                Column::I64(values) if values[row] != NO_I64 => put_last(writer, &values[row].to_be_bytes())?,
                Column::Text(ids) if ids[row] != NO_TEXT => {
                    put_last(writer, events.strings.get(ids[row]).as_bytes())?
                }
                _ => skip(writer),
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

fn put_last(writer: &mut RowWriter<'_>, bytes: &[u8]) -> Result<(), SerializationError> {
    match writer.make_cell_writer().set_value(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(SerializationError::new(error)),
    }
}

fn skip(writer: &mut RowWriter<'_>) {
    writer.make_cell_writer().set_unset();
}

#[derive(Debug, thiserror::Error)]
#[error("the statement has {0} columns, which is not what its kind has")]
struct WrongColumns(usize);

#[cfg(test)]
mod tests {
    use dwell_model::event::Delivery;
    use dwell_model::ids::{Receipt, TenantId, VenueId};
    use dwell_model::testing::position_batch;
    use dwell_model::time::SLOT_MS;

    use super::*;

    fn venue(name: &str) -> VenueKey {
        VenueKey::new(TenantId::new("t").unwrap(), VenueId::new(name).unwrap())
    }

    fn rows(ts: &[i64], deliveries: usize) -> RawRows {
        let events: Vec<_> = ts.iter().map(|&ts| ("s", "t", ts, 0.0, 0.0)).collect();
        let delivery = |number: usize| Delivery {
            received_at: number as i64,
            receipt: Receipt::from_u128(1),
        };
        let mut rows = RawRows::delivered_once(position_batch(&events), delivery(0));
        rows.deliveries = (0..ts.len() * deliveries).map(delivery).collect();
        rows.ends = (1..=ts.len() as u32).map(|row| row * deliveries as u32).collect();
        rows
    }

    #[test]
    fn a_batch_is_of_one_partition_and_bounded() {
        let long: Vec<i64> = (0..600).collect();
        let entries = [
            (venue("a"), rows(&long, 1)),
            // Not in order: both of slot 1 go together.
            (venue("a"), rows(&[SLOT_MS, 5, SLOT_MS + 1], 2)),
            (venue("b"), rows(&[6], 1)),
        ];
        let values = collect(&entries);
        let shape: Vec<(i64, usize)> = cut(&values).map(|batch| (batch[0].slot(), batch.len())).collect();
        assert_eq!(shape, [(0, 250), (0, 250), (0, 100), (0, 2), (1, 4), (0, 1)]);
        for batch in cut(&values) {
            assert!(
                batch
                    .iter()
                    .all(|one| one.slot() == batch[0].slot() && std::ptr::eq(one.venue, batch[0].venue))
            );
        }
        let mut seen: Vec<(u32, u32)> = values[600..606]
            .iter()
            .map(|one| (one.row, one.delivery))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]);
    }

    #[test]
    fn a_large_row_goes_alone() {
        let mut batch = rows(&[1, 2, 3], 1);
        let large = batch.events.strings.intern(&"x".repeat(BATCH_BYTES_MAX));
        batch.events.payload[2] = Column::Text(vec![NO_TEXT, large, NO_TEXT]);
        let entries = [(venue("a"), batch)];
        let values = collect(&entries);
        assert_eq!(cut(&values).map(<[_]>::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
