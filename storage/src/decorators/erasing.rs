//! Stores that honour the ledger of erasures: who is to be forgotten is neither written into the raw table nor given to
//! a reader of raw rows or of the log.
//!
//! Writing is the gate: it takes a [`WritePermit`](crate::erasure::WritePermit) and filters under it. Reading filters
//! by what is known here, so that a person is gone from every result at once, whatever still lies in the files.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{SLOT_MS, TsMs, slot_of};

use crate::api::{
    Appended, ComparedSlot, ErasedLog, EventLog, EventLogAdmin, EventLogGroups, EventLogReader,
    EventLogWriter, GroupMember, LogBounds, LogChunk, LogLag, LogRecord, Marks, NameTest, Partition,
    Position, RawApplied, RawEvents, RawEventsReader, RawEventsWriter, RawWrite, Shard, Stores,
};
use crate::erasure::{ErasureFilter, ErasureWatch};
use crate::error::Result;

/// Kinds whose events name a person.
pub const KINDS_OF_PERSONS: [Kind; 3] = [Kind::Position, Kind::Crossing, Kind::Presence];

/// The stores as everybody but the eraser uses them.
pub fn honour_erasures(stores: Stores, watch: &ErasureWatch) -> Stores {
    Stores {
        log: Arc::new(ErasingEventLog {
            inner: stores.log,
            watch: watch.clone(),
        }),
        raw: Arc::new(ErasingRawEvents {
            inner: stores.raw,
            watch: watch.clone(),
        }),
        ..stores
    }
}

/// A raw table that leaves out whom the ledger names.
pub struct ErasingRawEvents {
    watch: ErasureWatch,
    inner: Arc<dyn RawEvents>,
}

impl std::fmt::Debug for ErasingRawEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasingRawEvents").finish_non_exhaustive()
    }
}

impl ErasingRawEvents {
    /// A raw table behind a watch.
    pub fn new(inner: Arc<dyn RawEvents>, watch: ErasureWatch) -> Self {
        Self { inner, watch }
    }

    /// Removes what the ledger names of the slots of a write that was under way while its process was away.
    async fn take_back(&self, slots: BTreeSet<(VenueKey, i64)>, before: &ErasureFilter) -> Result<()> {
        self.watch.renew().await?;
        let filter = self.watch.filter();
        if filter.number() == before.number() {
            return Ok(());
        }
        for (venue, slot) in slots {
            let range = slot * SLOT_MS..(slot + 1) * SLOT_MS;
            if !filter.touches(&venue, &range) {
                continue;
            }
            for kind in KINDS_OF_PERSONS {
                let rows = self.inner.scan(&venue, kind, range.clone()).await?;
                let erased = filter.erased(&venue, &rows.events);
                if !erased.is_empty() {
                    tracing::warn!(%venue, slot, rows = erased.len(), "rows written during an erasure are taken back");
                    let rows = crate::erasure::filter::pick_raw(&rows, &erased);
                    self.inner.erase(&venue, &rows).await?;
                }
            }
        }
        Ok(())
    }
}

/// The slots that a write touches: those that it marks, and those of its rows, which a restore does not mark with them.
fn slots_of(write: &RawWrite) -> BTreeSet<(VenueKey, i64)> {
    let marked = write.marks.iter().map(|mark| (mark.venue.clone(), mark.slot));
    let mut slots: BTreeSet<_> = marked.collect();
    for (venue, rows) in &write.rows {
        // Neighbours mostly lie in one slot.
        let mut of_rows: Vec<i64> = rows.events.ts.iter().map(|ts| slot_of(*ts)).collect();
        of_rows.dedup();
        slots.extend(of_rows.into_iter().map(|slot| (venue.clone(), slot)));
    }
    slots
}

#[async_trait]
impl RawEventsWriter for ErasingRawEvents {
    async fn apply(&self, mut write: RawWrite) -> Result<RawApplied> {
        let permit = self.watch.permit().await?;
        let filter = Arc::clone(permit.filter());
        for (venue, rows) in &mut write.rows {
            if let Some(kept) = filter.kept(venue, &rows.events) {
                *rows = crate::erasure::filter::pick_raw(rows, &kept);
            }
        }
        let slots = slots_of(&write);
        let applied = self.inner.apply(write).await?;
        if !permit.is_valid() {
            drop(permit);
            self.take_back(slots, &filter).await?;
        }
        Ok(applied)
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
        self.inner.erase(venue, rows).await
    }

    async fn forget_names(&self, venue: &VenueKey, is_forgotten: NameTest) -> Result<u64> {
        self.inner.forget_names(venue, is_forgotten).await
    }

    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()> {
        self.inner.delete_compared(slot).await
    }

    fn tells_repeats(&self) -> bool {
        self.inner.tells_repeats()
    }
}

#[async_trait]
impl RawEventsReader for ErasingRawEvents {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows> {
        let rows = self.inner.scan(venue, kind, range).await?;
        Ok(self.watch.filter().apply_raw(venue, rows))
    }

    /// What the store holds: it may count somebody who is being forgotten.
    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>> {
        self.inner.count(venue, range).await
    }

    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks> {
        self.inner.marks(venue, range).await
    }

    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>> {
        self.inner.marked_slots(venue, range).await
    }

    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>> {
        self.inner.marked_at(venue, range).await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        self.inner.now_ms().await
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        self.inner.position(consumer, epoch, partition).await
    }
}

/// An event log that leaves out whom the ledger names.
struct ErasingEventLog {
    inner: Arc<dyn EventLog>,
    watch: ErasureWatch,
}

impl std::fmt::Debug for ErasingEventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasingEventLog").finish_non_exhaustive()
    }
}

#[async_trait]
impl EventLogWriter for ErasingEventLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        self.inner.append(records).await
    }
}

#[async_trait]
impl EventLogReader for ErasingEventLog {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn partition_of(&self, venue: &VenueKey, kind: Kind) -> Partition {
        self.inner.partition_of(venue, kind)
    }

    fn shards(&self) -> u32 {
        self.inner.shards()
    }

    fn shard_of(&self, venue: &VenueKey) -> Shard {
        self.inner.shard_of(venue)
    }

    fn partitions_of(&self, shard: Shard) -> Vec<Partition> {
        self.inner.partitions_of(shard)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    async fn read(&self, partition: Partition, from: Position, max_bytes: usize) -> Result<LogChunk> {
        let chunk = self.inner.read(partition, from, max_bytes).await?;
        Ok(self.watch.filter().apply_chunk(chunk))
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        self.inner.bounds(partition).await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        self.inner.lag(partition, position).await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        self.inner.wait(partition, from, timeout).await
    }
}

#[async_trait]
impl EventLogAdmin for ErasingEventLog {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        self.inner.trim(partition, before, keep_from).await
    }

    async fn begin_new_life(&self) -> Result<u64> {
        self.inner.begin_new_life().await
    }

    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        self.inner.erase(partition, from, filter).await
    }
}

#[async_trait]
impl EventLogGroups for ErasingEventLog {
    async fn join(&self, group: &'static str) -> Result<Box<dyn GroupMember>> {
        self.inner.join(group).await
    }
}
