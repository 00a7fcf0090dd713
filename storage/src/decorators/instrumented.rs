//! Stores whose calls are timed and whose failures are counted (see [`metrics`]).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::Stopwatch;

use crate::api::{
    Appended, ComparedSlot, ErasedLog, EventLog, EventLogAdmin, EventLogGroups, EventLogReader,
    EventLogWriter, GroupMember, LogBounds, LogChunk, LogLag, LogRecord, Marks, NameTest, Partition,
    Position, RawApplied, RawEvents, RawEventsReader, RawEventsWriter, RawWrite, Shard, Stores,
};
use crate::erasure::ErasureFilter;
use crate::error::{ErrorKind, Result};
use crate::metrics;

/// The stores with their busiest ones measured: the event log and the raw table.
pub fn instrument(stores: Stores) -> Stores {
    Stores {
        log: Arc::new(InstrumentedEventLog::new(stores.log)),
        raw: Arc::new(InstrumentedRawEvents::new(stores.raw)),
        ..stores
    }
}

/// Measures one call.
async fn measured<T>(
    store: &'static str,
    method: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let stopwatch = Stopwatch::start();
    let outcome = call.await;
    let failure: Option<ErrorKind> = outcome.as_ref().err().map(|error| error.kind());
    metrics::call_finished(store, method, stopwatch.elapsed(), failure);
    outcome
}

/// An event log whose calls are measured.
pub struct InstrumentedEventLog {
    inner: Arc<dyn EventLog>,
}

impl InstrumentedEventLog {
    /// Measures the calls of `inner`.
    pub fn new(inner: Arc<dyn EventLog>) -> Self {
        Self { inner }
    }
}

impl std::fmt::Debug for InstrumentedEventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstrumentedEventLog").finish_non_exhaustive()
    }
}

const LOG: &str = "event_log";

#[async_trait]
impl EventLogWriter for InstrumentedEventLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        measured(LOG, "append", self.inner.append(records)).await
    }
}

#[async_trait]
impl EventLogReader for InstrumentedEventLog {
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
        measured(LOG, "read", self.inner.read(partition, from, max_bytes)).await
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        measured(LOG, "bounds", self.inner.bounds(partition)).await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        measured(LOG, "lag", self.inner.lag(partition, position)).await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        // Waiting for events is no work of the log's.
        self.inner.wait(partition, from, timeout).await
    }
}

#[async_trait]
impl EventLogAdmin for InstrumentedEventLog {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        measured(LOG, "trim", self.inner.trim(partition, before, keep_from)).await
    }

    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        measured(LOG, "erase", self.inner.erase(partition, from, filter)).await
    }

    async fn begin_new_life(&self) -> Result<u64> {
        measured(LOG, "begin_new_life", self.inner.begin_new_life()).await
    }
}

#[async_trait]
impl EventLogGroups for InstrumentedEventLog {
    async fn join(&self, group: &'static str) -> Result<Box<dyn GroupMember>> {
        measured(LOG, "join", self.inner.join(group)).await
    }
}

/// A raw table whose calls are measured.
pub struct InstrumentedRawEvents {
    inner: Arc<dyn RawEvents>,
}

impl InstrumentedRawEvents {
    /// Measures the calls of `inner`.
    pub fn new(inner: Arc<dyn RawEvents>) -> Self {
        Self { inner }
    }
}

impl std::fmt::Debug for InstrumentedRawEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstrumentedRawEvents").finish_non_exhaustive()
    }
}

const RAW: &str = "raw_events";

#[async_trait]
impl RawEventsWriter for InstrumentedRawEvents {
    async fn apply(&self, write: RawWrite) -> Result<RawApplied> {
        measured(RAW, "apply", self.inner.apply(write)).await
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
        measured(RAW, "erase", self.inner.erase(venue, rows)).await
    }

    async fn forget_names(&self, venue: &VenueKey, is_forgotten: NameTest) -> Result<u64> {
        measured(RAW, "forget_names", self.inner.forget_names(venue, is_forgotten)).await
    }

    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()> {
        measured(RAW, "delete_compared", self.inner.delete_compared(slot)).await
    }

    fn tells_repeats(&self) -> bool {
        self.inner.tells_repeats()
    }
}

#[async_trait]
impl RawEventsReader for InstrumentedRawEvents {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows> {
        measured(RAW, "scan", self.inner.scan(venue, kind, range)).await
    }

    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>> {
        measured(RAW, "count", self.inner.count(venue, range)).await
    }

    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks> {
        measured(RAW, "marks", self.inner.marks(venue, range)).await
    }

    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>> {
        measured(RAW, "marked_slots", self.inner.marked_slots(venue, range)).await
    }

    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>> {
        measured(RAW, "marked_at", self.inner.marked_at(venue, range)).await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        measured(RAW, "now_ms", self.inner.now_ms()).await
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        measured(RAW, "position", self.inner.position(consumer, epoch, partition)).await
    }
}
