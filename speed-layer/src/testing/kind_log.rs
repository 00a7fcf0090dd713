//! A log of several shards, each with a partition per kind, made of embedded logs: what Kafka's topics look like to a
//! reader, on files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{
    Appended, ErasedLog, EventLogAdmin, EventLogGroups, EventLogReader, EventLogWriter, GroupMember,
    LogBounds, LogChunk, LogLag, LogRecord, Partition, Position, Shard,
};
use dwell_storage::backends::sqlite::{AppendLimits, SqliteEventLog};
use dwell_storage::erasure::ErasureFilter;
use dwell_storage::error::{ErrorKind, Result, StorageError};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

const KINDS: u32 = Kind::ALL.len() as u32;

/// Partition `kind × shards + shard` is an embedded log of its own.
#[derive(Debug)]
pub(crate) struct KindLog {
    logs: Vec<SqliteEventLog>,
    shards: u32,
    /// What the members of its groups are given; a member sees what stands here.
    pub(crate) given: watch::Sender<BTreeSet<Shard>>,
    /// Reads so far.
    pub(crate) reads: AtomicU64,
    /// A partition whose reads fail, and how.
    pub(crate) broken: Mutex<Option<(Partition, ErrorKind)>>,
}

struct Member(watch::Receiver<BTreeSet<Shard>>);

impl KindLog {
    pub(crate) fn open(folder: &Path, shards: u32, clock: SharedClock) -> Self {
        let open = |partition: u32| {
            let path = folder.join(format!("kind-log-{partition}.db"));
            SqliteEventLog::open(&path, AppendLimits::default(), SharedClock::clone(&clock)).unwrap()
        };
        Self {
            logs: (0..shards * KINDS).map(open).collect(),
            shards,
            given: watch::Sender::new((0..shards).collect()),
            reads: AtomicU64::new(0),
            broken: Mutex::default(),
        }
    }

    fn log(&self, partition: Partition) -> Result<&SqliteEventLog> {
        let none = || StorageError::new(ErrorKind::Invalid, format!("there is no partition {partition}"));
        self.logs.get(partition as usize).ok_or_else(none)
    }
}

#[async_trait]
impl EventLogWriter for KindLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        let mut answers = Vec::new();
        for record in records {
            let partition = self.partition_of(&record.venue, record.events.kind);
            let appended = self.log(partition)?.append(vec![record]).await?;
            answers.extend(
                appended
                    .into_iter()
                    .map(|answer| Appended { partition, ..answer }),
            );
        }
        Ok(answers)
    }
}

#[async_trait]
impl EventLogReader for KindLog {
    fn partitions(&self) -> u32 {
        self.shards * KINDS
    }

    fn partition_of(&self, venue: &VenueKey, kind: Kind) -> Partition {
        kind as u32 * self.shards + self.shard_of(venue)
    }

    fn shards(&self) -> u32 {
        self.shards
    }

    fn shard_of(&self, venue: &VenueKey) -> Shard {
        (xxh3_64(venue.to_string().as_bytes()) % u64::from(self.shards)) as Shard
    }

    fn partitions_of(&self, shard: Shard) -> Vec<Partition> {
        (0..KINDS).map(|kind| kind * self.shards + shard).collect()
    }

    fn epoch(&self) -> u64 {
        self.logs[0].epoch()
    }

    async fn read(&self, partition: Partition, from: Position, max_bytes: usize) -> Result<LogChunk> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let broken = *self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match broken {
            Some((broken, kind)) if broken == partition => Err(StorageError::new(kind, "made to fail")),
            _ => self.log(partition)?.read(0, from, max_bytes).await,
        }
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        self.log(partition)?.bounds(0).await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        self.log(partition)?.lag(0, position).await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        self.log(partition)?.wait(0, from, timeout).await
    }
}

#[async_trait]
impl EventLogAdmin for KindLog {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        self.log(partition)?.trim(0, before, keep_from).await
    }

    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        self.log(partition)?.erase(0, from, filter).await
    }

    async fn begin_new_life(&self) -> Result<u64> {
        self.logs[0].begin_new_life().await
    }
}

#[async_trait]
impl EventLogGroups for KindLog {
    async fn join(&self, _group: &'static str) -> Result<Box<dyn GroupMember>> {
        Ok(Box::new(Member(self.given.subscribe())))
    }
}

impl GroupMember for Member {
    fn shards(&self) -> watch::Receiver<BTreeSet<Shard>> {
        self.0.clone()
    }

    fn mirror(&self, _: Partition, _: Position) {}
}
