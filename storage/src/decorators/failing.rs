//! Stores that fail on command, for tests of the layers above.
//!
//! [`Faults`] is the command: which method fails, how, after how many calls and how often. A fault strikes before the
//! call (nothing was done) or after it (all was done, but the answer is an error): a caller has to live with both,
//! since over a network it cannot tell them apart.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::metrics::AggregateRow;
use dwell_model::time::{LocalDay, TsMs};

use crate::api::{
    Aggregates, AggregatesReader, AggregatesWriter, Appended, Checkpoint, Checkpoints, ComparedSlot,
    ErasedLog, EventLog, EventLogAdmin, EventLogGroups, EventLogReader, EventLogWriter, Flip, Generation,
    GenerationInfo, GroupMember, Lease, LogBounds, LogChunk, LogLag, LogRecord, Marks, NameTest, Partition,
    Position, RawApplied, RawEvents, RawEventsReader, RawEventsWriter, RawWrite, RestoredDay, RowFilter,
    SessionCursor, Sessions, SessionsReader, SessionsWriter, Shard, StoredSession, Stores, VenueDay,
    VenueDays, VenueDaysReader, VenueDaysWriter,
};
use crate::erasure::ErasureFilter;
use crate::error::{ErrorKind, Result, StorageError};

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Instead of the call: nothing is done.
    Before,
    /// After the call: all is done, the answer is lost.
    After,
}

/// One planned fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The method, with its store: `event_log.append`, `raw_events.apply`, `venue_days.publish`, ….
    pub method: &'static str,
    /// Kind of the error.
    pub kind: ErrorKind,
    /// Before or after the call.
    pub strike: Strike,
    /// Calls that pass before.
    pub skip: u64,
    /// Calls that fail then.
    pub times: u64,
}

/// The plan of faults. Clones are the same plan.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Arc<Mutex<Vec<Fault>>>,
}

impl Faults {
    /// A plan without faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn plan(&self, fault: Fault) {
        self.planned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    /// Lets the next `times` calls of a method fail, without their being done.
    pub fn fail(&self, method: &'static str, kind: ErrorKind, times: u64) {
        self.plan(Fault {
            method,
            kind,
            strike: Strike::Before,
            skip: 0,
            times,
        });
    }

    /// Lets the next `times` calls of a method be done and answer with an error.
    pub fn lose_answers(&self, method: &'static str, times: u64) {
        self.plan(Fault {
            method,
            kind: ErrorKind::Unavailable,
            strike: Strike::After,
            skip: 0,
            times,
        });
    }

    /// Forgets all faults that have not struck.
    pub fn clear(&self) {
        self.planned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Makes a call, or has it struck.
    async fn call<T>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.next(method) {
            None => call.await,
            Some((kind, Strike::Before)) => Err(StorageError::new(kind, format!("{method}: made to fail"))),
            Some((kind, Strike::After)) => {
                call.await?;
                Err(StorageError::new(
                    kind,
                    format!("{method}: done, its answer made to be lost"),
                ))
            }
        }
    }

    /// The fault that strikes this call, if one does.
    fn next(&self, method: &'static str) -> Option<(ErrorKind, Strike)> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let place = planned
            .iter()
            .position(|fault| fault.method == method && fault.times > 0)?;
        let fault = &mut planned[place];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times -= 1;
        let strikes = (fault.kind, fault.strike);
        if fault.times == 0 {
            planned.remove(place);
        }
        Some(strikes)
    }
}

/// The stores with faults put around those that hold data: log, raw, sessions, aggregates, venue-days, checkpoints.
pub fn failing(stores: Stores, faults: &Faults) -> Stores {
    Stores {
        log: Arc::new(Failing::new(stores.log, faults)),
        raw: Arc::new(Failing::new(stores.raw, faults)),
        sessions: Arc::new(Failing::new(stores.sessions, faults)),
        aggregates: Arc::new(Failing::new(stores.aggregates, faults)),
        venue_days: Arc::new(Failing::new(stores.venue_days, faults)),
        checkpoints: Arc::new(Failing::new(stores.checkpoints, faults)),
        ..stores
    }
}

/// A store that fails as planned.
pub struct Failing<S: ?Sized> {
    faults: Faults,
    inner: Arc<S>,
}

impl<S: ?Sized> Failing<S> {
    /// Puts the plan around a store.
    pub fn new(inner: Arc<S>, faults: &Faults) -> Self {
        Self {
            faults: faults.clone(),
            inner,
        }
    }
}

impl<S: ?Sized> std::fmt::Debug for Failing<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventLogWriter for Failing<dyn EventLog> {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        self.faults
            .call("event_log.append", self.inner.append(records))
            .await
    }
}

#[async_trait]
impl EventLogReader for Failing<dyn EventLog> {
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
        self.faults
            .call("event_log.read", self.inner.read(partition, from, max_bytes))
            .await
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        self.faults
            .call("event_log.bounds", self.inner.bounds(partition))
            .await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        self.faults
            .call("event_log.lag", self.inner.lag(partition, position))
            .await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        self.faults
            .call("event_log.wait", self.inner.wait(partition, from, timeout))
            .await
    }
}

#[async_trait]
impl EventLogAdmin for Failing<dyn EventLog> {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        self.faults
            .call("event_log.trim", self.inner.trim(partition, before, keep_from))
            .await
    }

    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        self.faults
            .call("event_log.erase", self.inner.erase(partition, from, filter))
            .await
    }

    async fn begin_new_life(&self) -> Result<u64> {
        self.faults
            .call("event_log.begin_new_life", self.inner.begin_new_life())
            .await
    }
}

#[async_trait]
impl EventLogGroups for Failing<dyn EventLog> {
    async fn join(&self, group: &'static str) -> Result<Box<dyn GroupMember>> {
        self.faults.call("event_log.join", self.inner.join(group)).await
    }
}

#[async_trait]
impl RawEventsWriter for Failing<dyn RawEvents> {
    async fn apply(&self, write: RawWrite) -> Result<RawApplied> {
        self.faults
            .call("raw_events.apply", self.inner.apply(write))
            .await
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
        self.faults
            .call("raw_events.erase", self.inner.erase(venue, rows))
            .await
    }

    async fn forget_names(&self, venue: &VenueKey, is_forgotten: NameTest) -> Result<u64> {
        self.faults
            .call(
                "raw_events.forget_names",
                self.inner.forget_names(venue, is_forgotten),
            )
            .await
    }

    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()> {
        self.faults
            .call("raw_events.delete_compared", self.inner.delete_compared(slot))
            .await
    }

    fn tells_repeats(&self) -> bool {
        self.inner.tells_repeats()
    }
}

#[async_trait]
impl RawEventsReader for Failing<dyn RawEvents> {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows> {
        self.faults
            .call("raw_events.scan", self.inner.scan(venue, kind, range))
            .await
    }

    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>> {
        self.faults
            .call("raw_events.count", self.inner.count(venue, range))
            .await
    }

    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks> {
        self.faults
            .call("raw_events.marks", self.inner.marks(venue, range))
            .await
    }

    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>> {
        self.faults
            .call("raw_events.marked_slots", self.inner.marked_slots(venue, range))
            .await
    }

    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>> {
        self.faults
            .call("raw_events.marked_at", self.inner.marked_at(venue, range))
            .await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        self.faults.call("raw_events.now_ms", self.inner.now_ms()).await
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        self.faults
            .call(
                "raw_events.position",
                self.inner.position(consumer, epoch, partition),
            )
            .await
    }
}

#[async_trait]
impl SessionsWriter for Failing<dyn Sessions> {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<StoredSession>,
    ) -> Result<()> {
        self.faults
            .call(
                "sessions.write",
                self.inner.write(venue, day, generation, sessions),
            )
            .await
    }

    async fn erase(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<SessionCursor>,
    ) -> Result<()> {
        self.faults
            .call(
                "sessions.erase",
                self.inner.erase(venue, day, generation, sessions),
            )
            .await
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        self.faults
            .call("sessions.delete", self.inner.delete(venue, day, generation))
            .await
    }
}

#[async_trait]
impl SessionsReader for Failing<dyn Sessions> {
    async fn list(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        after: Option<&SessionCursor>,
        limit: usize,
    ) -> Result<Vec<StoredSession>> {
        self.faults
            .call(
                "sessions.list",
                self.inner.list(venue, day, generation, after, limit),
            )
            .await
    }

    async fn get(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        id: &str,
    ) -> Result<Option<StoredSession>> {
        self.faults
            .call("sessions.get", self.inner.get(venue, day, generation, id))
            .await
    }
}

#[async_trait]
impl AggregatesWriter for Failing<dyn Aggregates> {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        rows: Vec<AggregateRow>,
    ) -> Result<()> {
        self.faults
            .call("aggregates.write", self.inner.write(venue, day, generation, rows))
            .await
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        self.faults
            .call("aggregates.delete", self.inner.delete(venue, day, generation))
            .await
    }
}

#[async_trait]
impl AggregatesReader for Failing<dyn Aggregates> {
    async fn read(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        filter: &RowFilter,
    ) -> Result<Vec<AggregateRow>> {
        self.faults
            .call("aggregates.read", self.inner.read(venue, day, generation, filter))
            .await
    }

    async fn read_many(
        &self,
        venue: &VenueKey,
        days: &[(LocalDay, Generation)],
        filter: &RowFilter,
    ) -> Result<Vec<Vec<AggregateRow>>> {
        self.faults
            .call("aggregates.read_many", self.inner.read_many(venue, days, filter))
            .await
    }
}

#[async_trait]
impl VenueDaysWriter for Failing<dyn VenueDays> {
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> Result<Option<Lease>> {
        self.faults
            .call(
                "venue_days.acquire",
                self.inner.acquire(venue, day, holder, now, ttl_ms),
            )
            .await
    }

    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> Result<Flip> {
        self.faults
            .call("venue_days.renew", self.inner.renew(lease, now, ttl_ms))
            .await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.faults
            .call("venue_days.release", self.inner.release(lease))
            .await
    }

    async fn publish(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        info: GenerationInfo,
    ) -> Result<Flip> {
        self.faults
            .call(
                "venue_days.publish",
                self.inner.publish(lease, published_before, info),
            )
            .await
    }

    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> Result<Flip> {
        self.faults
            .call("venue_days.stage", self.inner.stage(lease, info))
            .await
    }

    async fn promote(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        staged: Generation,
        published_at: TsMs,
    ) -> Result<Flip> {
        let call = self.inner.promote(lease, published_before, staged, published_at);
        self.faults.call("venue_days.promote", call).await
    }

    async fn raise_marks(
        &self,
        lease: &Lease,
        published: Generation,
        marks: &Marks,
        provisional: bool,
    ) -> Result<Flip> {
        let call = self.inner.raise_marks(lease, published, marks, provisional);
        self.faults.call("venue_days.raise_marks", call).await
    }

    async fn forget(&self, lease: &Lease, generations: &[Generation]) -> Result<Flip> {
        let call = self.inner.forget(lease, generations);
        self.faults.call("venue_days.forget", call).await
    }

    async fn restore(&self, venue: &VenueKey, day: RestoredDay) -> Result<Flip> {
        self.faults
            .call("venue_days.restore", self.inner.restore(venue, day))
            .await
    }
}

#[async_trait]
impl VenueDaysReader for Failing<dyn VenueDays> {
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<VenueDay>> {
        self.faults
            .call("venue_days.get", self.inner.get(venue, day))
            .await
    }

    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>> {
        self.faults
            .call("venue_days.list", self.inner.list(venue, from, to))
            .await
    }

    async fn history(&self, venue: &VenueKey, day: LocalDay) -> Result<Vec<GenerationInfo>> {
        self.faults
            .call("venue_days.history", self.inner.history(venue, day))
            .await
    }
}

#[async_trait]
impl Checkpoints for Failing<dyn Checkpoints> {
    async fn take_ownership(&self, name: &str) -> Result<u64> {
        self.faults
            .call("checkpoints.take_ownership", self.inner.take_ownership(name))
            .await
    }

    async fn load(&self, name: &str) -> Result<Option<Checkpoint>> {
        self.faults.call("checkpoints.load", self.inner.load(name)).await
    }

    async fn store(&self, name: &str, checkpoint: Checkpoint) -> Result<()> {
        self.faults
            .call("checkpoints.store", self.inner.store(name, checkpoint))
            .await
    }
}
