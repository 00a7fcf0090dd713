//! The event log: everything that was accepted, in the order of acceptance.
//!
//! ```text
//! shard 0: partitions of all kinds of the venues a, d, …     a venue lies in one shard;
//! shard 1: partitions of all kinds of the venues b, c, …     its events of one kind lie in one partition
//! ```
//!
//! Embedded there is one shard of one partition, which holds all kinds, and a record is kept as it was appended. On
//! Kafka a kind is a topic, a shard is what the topics hold under one partition number, and each event is a record of
//! Kafka with a position of its own: what was appended as one record comes back as one or several, and neighbours of one
//! venue, receipt and time of receipt may come back as one. No reader may rest on where records begin and end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::{EventBatch, Kind};
use dwell_model::ids::{Receipt, VenueKey};
use dwell_model::time::TsMs;

use crate::erasure::ErasureFilter;
use crate::error::Result;

/// Number of a partition of the log: an order of records. A venue's events of one kind share one.
pub type Partition = u32;

/// Number of a shard of the log: partitions that are always read by the same process, so that it has all of a venue.
pub type Shard = u32;

/// Place in a partition: the position of the next record to read. Positions only grow.
pub type Position = i64;

/// Events of one venue and one kind, accepted with one receipt, to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Whose events.
    pub venue: VenueKey,
    /// What brought them.
    pub receipt: Receipt,
    /// The events; at least one.
    pub events: EventBatch,
    /// For a file the start of its import, which then stands for the time of appending; `None` for all else.
    pub received_at: Option<TsMs>,
}

/// Where a record was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its partition.
    pub partition: Partition,
    /// Its position; that of its first event where each has one.
    pub position: Position,
    /// The time that it carries; that of its first event where each has one.
    pub received_at: TsMs,
}

/// A record read from the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedRecord {
    /// Its position; that of its first event where each has one.
    pub position: Position,
    /// max(time of appending, that of the record before it in the partition); for a file the start of its import.
    pub received_at: TsMs,
    /// Whose events.
    pub venue: VenueKey,
    /// What brought them.
    pub receipt: Receipt,
    /// The events.
    pub events: EventBatch,
}

/// Some records of a partition, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct LogChunk {
    /// The records; none when the end is reached, or when only positions without a record were passed (Kafka has such):
    /// then `next` lies further.
    pub records: Vec<LoggedRecord>,
    /// Where to read on; where reading began when the end is reached.
    pub next: Position,
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Position of the oldest record that is still held (equal to `end` when none is).
    pub start: Position,
    /// Position that the next record will get.
    pub end: Position,
}

/// How far a reader is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogLag {
    /// Events after the reader's position.
    pub events: u64,
    /// When the first of them was received; `None` when there is none.
    pub oldest_received_at: Option<TsMs>,
}

/// Appending to the log.
#[async_trait]
pub trait EventLogWriter: Send + Sync {
    /// Appends records and returns when they are durable (fsynced, or acknowledged by all in-sync replicas), one
    /// answer per record, in order. Calls made at the same time share an fsync.
    ///
    /// Embedded a call is atomic; on Kafka an error leaves it unknown which of its records were appended, and
    /// sending all of them again is right: deliveries are a set, so a repeated record changes nothing.
    /// `Busy` when too much waits to be appended; `Full` when the disk is full.
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>>;
}

/// Reading the log.
#[async_trait]
pub trait EventLogReader: Send + Sync {
    /// Number of partitions; fixed for the life of the log.
    fn partitions(&self) -> u32;

    /// The partition of a venue's events of a kind.
    fn partition_of(&self, venue: &VenueKey, kind: Kind) -> Partition;

    /// Number of shards; fixed for the life of the log.
    fn shards(&self) -> u32;

    /// The shard of a venue.
    fn shard_of(&self, venue: &VenueKey) -> Shard;

    /// The partitions of a shard, ascending. Each partition belongs to exactly one shard.
    fn partitions_of(&self, shard: Shard) -> Vec<Partition>;

    /// Number of this log's life: raised when the log is created anew, so that marks made with positions of a former
    /// log are never compared with those of this one.
    fn epoch(&self) -> u64;

    /// Reads records from a position on, in order, about `max_bytes` of them (as they lie in memory or in the log,
    /// whichever is nearer) and at least one where there is one. All that was appended before the call counts as there.
    /// `Gap` when `from` lies before the oldest record held, or beyond the end; a reader that goes on where it stopped
    /// may still be given what was fetched for it before it was deleted.
    /// `Damaged` when the record at `from` cannot be read; those before it are given first, and those after it can be
    /// read from `from + 1` on.
    async fn read(&self, partition: Partition, from: Position, max_bytes: usize) -> Result<LogChunk>;

    /// What a partition holds now.
    async fn bounds(&self, partition: Partition) -> Result<LogBounds>;

    /// How far a reader at a position is behind.
    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag>;

    /// Waits until there is a record at `from`, at most for `timeout`; returns whether there is one.
    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool>;
}

/// Keeping the log in bounds.
#[async_trait]
pub trait EventLogAdmin: Send + Sync {
    /// Deletes records received before `before`, oldest first, none at or after `keep_from`; returns how many positions
    /// that were. On Kafka a record counts as received when it was appended, a file's too.
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64>;

    /// Takes the events that a filter names out of the records from `from` on, as many records as make a step; positions
    /// stay as they are, and a record may be left with no event. A log that cannot change a record changes nothing and
    /// says so. Repeatable.
    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog>;

    /// Begins a new life of the log, which keeps its records: raises its epoch, and returns it. It counts for whoever
    /// opens the log afterwards; who has it open goes on in the former life, whose marks and positions are never
    /// compared with those of the new one.
    async fn begin_new_life(&self) -> Result<u64>;
}

/// What a step of an erasure found in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasedLog {
    /// Events taken out; those found, where records cannot be changed.
    pub events: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
    /// Whether what was found is gone. Otherwise the log holds it until it forgets the record.
    pub is_gone: bool,
}

/// Sharing the log out among the processes that read it for the same purpose.
#[async_trait]
pub trait EventLogGroups: Send + Sync {
    /// Joins the processes that share the shards of the log among themselves under a name (`raw-writer`, `speed`).
    /// Every shard is given to one of them as long as any is there. Embedded there is one process, which has all.
    async fn join(&self, group: &'static str) -> Result<Box<dyn GroupMember>>;
}

/// A process's place in a group; dropping it leaves the group.
pub trait GroupMember: Send + Sync {
    /// The shards that are this member's as far as it knows; empty until the group has answered.
    ///
    /// For a while two members may both believe that a shard is theirs (one was paused, or is cut off): what is
    /// written under a shard must be repeatable, or guarded by a fence.
    fn shards(&self) -> tokio::sync::watch::Receiver<BTreeSet<Shard>>;

    /// Tells the engine how far a partition has been read. Only for the engine's lag tools: nothing is ever read
    /// from there, and a failure is nobody's trouble.
    fn mirror(&self, partition: Partition, position: Position);
}

/// The only member of a group: the shards given are its own for ever. For logs of one process, and for tests.
#[derive(Debug)]
pub struct OnlyMember(tokio::sync::watch::Sender<BTreeSet<Shard>>);

impl OnlyMember {
    /// A member with these shards.
    pub fn new(shards: BTreeSet<Shard>) -> Self {
        Self(tokio::sync::watch::Sender::new(shards))
    }
}

impl GroupMember for OnlyMember {
    fn shards(&self) -> tokio::sync::watch::Receiver<BTreeSet<Shard>> {
        self.0.subscribe()
    }

    fn mirror(&self, _: Partition, _: Position) {}
}

/// The whole log.
pub trait EventLog: EventLogWriter + EventLogReader + EventLogAdmin + EventLogGroups {}

impl<T: EventLogWriter + EventLogReader + EventLogAdmin + EventLogGroups> EventLog for T {}
