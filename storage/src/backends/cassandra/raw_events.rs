//! Raw events: a typed table per kind, in partitions of ten minutes of a venue.
//!
//! ```text
//! raw_position, raw_crossing, …   (tenant, venue, UTC date, slot) → ts, sensor, key, payload hash, received_at, receipt
//! raw_dates, raw_slots            which of those partitions there are
//! raw_marks                       (tenant, venue, UTC date) → slot, source → position
//! raw_mark_times                  (tenant, venue, UTC date) → slot → when it was last marked
//! consumer_positions              (consumer, epoch) → partition → position
//! ```
//!
//! A stored row is one delivery of one payload; reading unites the deliveries of a payload, which stand together. Every
//! write is an insert that can be repeated and reordered: rows by their key, marks and positions by a write time that is
//! their position. So nothing is read before it is written, and repeats are not told from new rows.

mod delete;
mod erase;
mod index;
mod marks;
mod read;
mod slots;
mod statements;
mod write;

use std::ops::Range;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;

use self::index::SlotIndex;
use self::write::Batches;
use super::cluster::Cluster;
use crate::api::{
    ComparedSlot, Marks, Partition, Position, RawApplied, RawEventsReader, RawEventsWriter, RawWrite,
};
use crate::error::Result;

/// The raw table in Cassandra.
#[derive(Debug)]
pub struct CassandraRawEvents {
    cluster: Cluster,
    index: SlotIndex,
    batches: Batches,
}

impl CassandraRawEvents {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            index: SlotIndex::new(cluster.clone()),
            batches: Batches::default(),
            cluster,
        }
    }
}

#[async_trait]
impl RawEventsWriter for CassandraRawEvents {
    async fn apply(&self, write: RawWrite) -> Result<RawApplied> {
        write::check(&write)?;
        // What the index lacks of dates and slots comes before the rows and marks that it leads to.
        self.index.add(&write).await?;
        let rows = write::rows(&self.cluster, &self.batches, &write.rows).await?;
        marks::raise(&self.cluster, &write.marks).await?;
        if let Some(position) = &write.position {
            marks::store_position(&self.cluster, position).await?;
        }
        Ok(RawApplied {
            new_rows: rows,
            repeated_rows: 0,
        })
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
        erase::rows(&self.cluster, venue, rows).await
    }

    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()> {
        delete::delete_compared(&self.cluster, &slot).await
    }

    fn tells_repeats(&self) -> bool {
        false
    }
}

#[async_trait]
impl RawEventsReader for CassandraRawEvents {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows> {
        read::scan(&self.cluster, &self.index, venue, kind, range).await
    }

    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>> {
        read::count(&self.cluster, &self.index, venue, range).await
    }

    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks> {
        let mut all = Marks::default();
        let slots = marks::marked_slots(&self.cluster, &self.index, venue, range).await?;
        slots.iter().for_each(|(_, marks)| all.merge(marks));
        Ok(all)
    }

    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>> {
        marks::marked_slots(&self.cluster, &self.index, venue, range).await
    }

    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>> {
        marks::marked_at(&self.cluster, &self.index, venue, range).await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        Ok(self.cluster.write_clock().await?.now_ms())
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        marks::position(&self.cluster, consumer, epoch, partition).await
    }
}
