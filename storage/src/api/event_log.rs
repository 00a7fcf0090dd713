//! The event log: everything that was accepted, in the order of acceptance.

use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::EventBatch;
use dwell_model::ids::{Receipt, VenueKey};
use dwell_model::time::TsMs;

use crate::error::Result;

/// Number of a partition of the log. A venue's events of all kinds share one.
pub type Partition = u32;

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
    /// Its position.
    pub position: Position,
    /// The time that it carries.
    pub received_at: TsMs,
}

/// A record read from the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedRecord {
    /// Its position.
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
    /// The records; none when the end is reached.
    pub records: Vec<LoggedRecord>,
    /// Where to read on.
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

    /// The partition of a venue.
    fn partition_of(&self, venue: &VenueKey) -> Partition;

    /// Number of this log's life: raised when the log is created anew, so that marks made with positions of a former
    /// log are never compared with those of this one.
    fn epoch(&self) -> u64;

    /// Reads records from a position on, in order, about `max_bytes` of them and at least one where there is one.
    /// `Gap` when `from` lies before the oldest record held, or beyond the end.
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
    /// Deletes records received before `before`, oldest first, none at or after `keep_from`; returns how many.
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64>;
}

/// The whole log.
pub trait EventLog: EventLogWriter + EventLogReader + EventLogAdmin {}

impl<T: EventLogWriter + EventLogReader + EventLogAdmin> EventLog for T {}
