//! The event log in `log.db`: one partition, a row per record, the events as one blob.
//!
//! - [`appender`] owns the writing connection: a thread that takes whatever waits in the bounded [`queue`] and commits
//!   it with one fsync.
//! - Readers have connections of their own and see what was committed.

mod appender;
mod queue;
mod record;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::{self, SharedClock};
use dwell_runtime::tasks::blocking;
use rusqlite::{Connection, OptionalExtension};

use self::appender::{Appender, Tail};
pub use self::queue::AppendLimits;
use super::condition::{FileCondition, flush_left_over};
use super::connection::{DatabaseOptions, ReadOnly, open_writer};
use super::failure::Failure;
use super::values::from_stored;
use crate::api::{
    Appended, ErasedLog, EventLogAdmin, EventLogGroups, EventLogReader, EventLogWriter, GroupMember,
    LogBounds, LogChunk, LogLag, LogRecord, OnlyMember, Partition, Position, Shard,
};
use crate::erasure::ErasureFilter;
use crate::erasure::filter::pick_events;
use crate::error::{ErrorKind, Result, StorageError};
use crate::migrations;

/// The only partition.
const PARTITION: Partition = 0;
/// The only shard.
const SHARD: Shard = 0;

const OPTIONS: DatabaseOptions = DatabaseOptions {
    schema: &migrations::LOG,
    writer_cache_kib: 8 * 1_024,
    reader_cache_kib: 4 * 1_024,
    checkpoint_pages: 2_048,
    readers: 4,
    // What an erasure takes out, and what is trimmed, shall not stay readable in the file.
    secure_delete: true,
};

/// The embedded event log.
#[derive(Debug)]
pub struct SqliteEventLog {
    appender: Appender,
    readers: ReadOnly,
    epoch: u64,
    clock: SharedClock,
}

impl SqliteEventLog {
    /// Opens the log, making it where it is missing. Blocking.
    pub fn open(path: &Path, limits: AppendLimits, clock: SharedClock) -> Result<Self> {
        flush_left_over(path)?;
        let condition = FileCondition::new(path);
        let connection = open_writer(path, &OPTIONS, &condition)?;
        let begun = begin_life(&connection, clock.now_ms())
            .and_then(|epoch| Ok((epoch, Tail::load(&connection)?)))
            .map_err(|failure| condition.describe("open the event log", failure));
        let (epoch, tail) = begun?;
        let appender = Appender::start(
            connection,
            Arc::clone(&condition),
            tail,
            limits,
            SharedClock::clone(&clock),
        )?;
        Ok(Self {
            appender,
            readers: ReadOnly::new(condition, OPTIONS),
            epoch,
            clock,
        })
    }

    /// What is known of the file.
    pub(super) fn condition(&self) -> Arc<FileCondition> {
        self.readers.condition()
    }
}

#[async_trait]
impl EventLogWriter for SqliteEventLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.appender.append(record::encode_all(&records)?).await
    }
}

#[async_trait]
impl EventLogReader for SqliteEventLog {
    fn partitions(&self) -> u32 {
        1
    }

    fn partition_of(&self, _venue: &VenueKey, _kind: Kind) -> Partition {
        PARTITION
    }

    fn shards(&self) -> u32 {
        1
    }

    fn shard_of(&self, _venue: &VenueKey) -> Shard {
        SHARD
    }

    fn partitions_of(&self, shard: Shard) -> Vec<Partition> {
        match shard {
            SHARD => vec![PARTITION],
            _ => Vec::new(),
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn read(&self, partition: Partition, from: Position, max_bytes: usize) -> Result<LogChunk> {
        check_partition(partition)?;
        self.readers
            .read("read the event log", move |log| read_chunk(log, from, max_bytes))
            .await
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        check_partition(partition)?;
        self.readers.read("look at the event log's bounds", bounds).await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        check_partition(partition)?;
        self.readers
            .read("look at a reader's lag", move |log| lag(log, position))
            .await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        check_partition(partition)?;
        let mut end = self.appender.end();
        match clock::timeout(&*self.clock, timeout, end.wait_for(|end| *end > from)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => Err(queue::stopped()),
            Err(_) => Ok(false),
        }
    }
}

#[async_trait]
impl EventLogGroups for SqliteEventLog {
    async fn join(&self, _group: &'static str) -> Result<Box<dyn GroupMember>> {
        Ok(Box::new(OnlyMember::new(BTreeSet::from([SHARD]))))
    }
}

#[async_trait]
impl EventLogAdmin for SqliteEventLog {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        check_partition(partition)?;
        let mut all = 0;
        // In small steps, between which appends go on.
        loop {
            let (deleted, more) = self.appender.trim_some(before, keep_from).await?;
            all += deleted;
            if !more {
                return Ok(all);
            }
        }
    }

    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        check_partition(partition)?;
        let from = from.max(self.bounds(partition).await?.start);
        let chunk = self
            .readers
            .read("read the event log", move |log| {
                read_chunk(log, from, ERASE_STEP_BYTES)
            })
            .await?;
        let next = (!chunk.records.is_empty()).then_some(chunk.next);
        let (mut events, mut rewrites) = (0, Vec::new());
        for logged in &chunk.records {
            if let Some(kept) = filter.kept(&logged.venue, &logged.events) {
                events += (logged.events.len() - kept.len()) as u64;
                let left = pick_events(&logged.events, &kept);
                rewrites.push(record::rewrite(logged.position, &left)?);
            }
        }
        if !rewrites.is_empty() {
            self.appender.rewrite(rewrites).await?;
        }
        Ok(ErasedLog {
            events,
            next,
            is_gone: true,
        })
    }

    async fn begin_new_life(&self) -> Result<u64> {
        let (condition, now) = (self.condition(), self.clock.now_ms());
        let doing = "begin a new life of the event log";
        let begin = move || {
            // A connection of its own: the appender's belongs to its thread, and waits for this one no longer than for
            // any other writer.
            condition.check()?;
            let log = open_writer(condition.path(), &OPTIONS, &condition)?;
            let raised = new_epoch(now).and_then(|epoch| {
                log.execute("UPDATE life SET epoch = max(epoch + 1, ?1)", [epoch])?;
                let epoch: i64 = log.query_row("SELECT epoch FROM life", [], |row| row.get(0))?;
                from_stored(epoch)
            });
            raised.map_err(|failure| condition.describe(doing, failure))
        };
        let raised = blocking(doing, begin).await;
        raised.map_err(|error| StorageError::with_source(ErrorKind::Bug, doing, error))?
    }
}

/// Bytes of records that one step of an erasure reads.
const ERASE_STEP_BYTES: usize = 8 << 20;

fn check_partition(partition: Partition) -> Result<()> {
    if partition == PARTITION {
        return Ok(());
    }
    Err(StorageError::new(
        ErrorKind::Invalid,
        format!("the embedded event log has one partition, 0; there is no partition {partition}"),
    ))
}

/// The log's epoch, chosen when it is new: larger than any former one while the clock moves on, and another one even
/// if it does not.
fn begin_life(log: &Connection, now: TsMs) -> Result<u64, Failure> {
    let known: Option<i64> = log
        .query_row("SELECT epoch FROM life", [], |row| row.get(0))
        .optional()?;
    if let Some(epoch) = known {
        return from_stored(epoch);
    }
    let epoch = new_epoch(now)?;
    log.execute("INSERT INTO life VALUES (1, ?1, 0, 0, 0)", [epoch])?;
    from_stored(epoch)
}

fn new_epoch(now: TsMs) -> Result<i64, Failure> {
    let mut random = [0_u8; 2];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::refuse(ErrorKind::Unavailable, format!("no random numbers: {error}")))?;
    Ok((now.clamp(0, i64::MAX >> 17) << 16) | i64::from(u16::from_be_bytes(random)))
}

fn bounds(log: &Connection) -> Result<LogBounds, Failure> {
    let start: Position = log
        .prepare_cached("SELECT trimmed_position FROM life")?
        .query_row([], |row| row.get(0))?;
    let last: Option<Position> = log
        .prepare_cached("SELECT position FROM records ORDER BY position DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(LogBounds {
        start,
        end: last.map_or(start, |last| last + 1),
    })
}

fn lag(log: &Connection, position: Position) -> Result<LogLag, Failure> {
    let first: Option<(i64, TsMs)> = log
        .prepare_cached(
            "SELECT events_before, received_at FROM records WHERE position >= ?1 ORDER BY position LIMIT 1",
        )?
        .query_row([position], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((events_before, received_at)) = first else {
        return Ok(LogLag::default());
    };
    let events_ever: i64 = log
        .prepare_cached("SELECT events_before + events FROM records ORDER BY position DESC LIMIT 1")?
        .query_row([], |row| row.get(0))?;
    Ok(LogLag {
        events: from_stored(events_ever - events_before)?,
        oldest_received_at: Some(received_at),
    })
}

fn read_chunk(log: &Connection, from: Position, max_bytes: usize) -> Result<LogChunk, Failure> {
    let LogBounds { start, end } = bounds(log)?;
    if from < start || from > end {
        let why = format!("the event log holds positions {start} to {end}, but {from} was asked for");
        return Err(Failure::refuse(ErrorKind::Gap, why));
    }
    let mut select = log.prepare_cached(
        "SELECT position, received_at, kind, tenant, venue, receipt, events, batch
         FROM records WHERE position >= ?1 ORDER BY position",
    )?;
    let mut rows = select.query([from])?;
    let mut chunk = LogChunk {
        records: Vec::new(),
        next: from,
    };
    let mut bytes = 0;
    while bytes < max_bytes.max(1) {
        let Some(row) = rows.next()? else { break };
        let (logged, size) = record::decode(row)?;
        if logged.position != chunk.next {
            return Err(Failure::damaged_row(format_args!(
                "the record at position {} is missing from the event log",
                chunk.next
            )));
        }
        chunk.next += 1;
        chunk.records.push(logged);
        bytes += size;
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests;
