//! The event log on Apache Kafka: a topic per kind, an event per record.
//!
//! - [`config`](KafkaConfig): what is configured.
//! - [`layout`]: which topic and partition is which partition and shard of the log.
//! - [`record`]: an event as JSON and back.
//! - [`writer`]: one idempotent producer for the process.
//! - [`reader`]: few consumers, a cursor per partition; times of receipt that every reader sees alike.
//! - [`group`]: consumer groups that share out the shards, and read nothing.
//! - [`epoch`] and [`admin`](KafkaLogAdmin): making the topics, the log's life, and what `dwell doctor` asks.
//!
//! What other users of the topics need stands in `docs/kafka.md`; why it is so in `docs/decisions/0006-kafka-records.md`.

mod admin;
mod config;
mod context;
mod damaged;
mod epoch;
mod failure;
mod group;
mod layout;
mod reader;
mod record;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks;
use tokio::sync::OnceCell;

use self::admin::Admin;
pub use self::admin::{KafkaCreated, KafkaFinding, KafkaLogAdmin};
pub use self::config::{KafkaConfig, KafkaConfigError};
pub use self::damaged::DamagedRecord;
use self::group::KafkaMember;
use self::layout::Layout;
use self::reader::Reader;
use self::writer::Writer;
use crate::api::{
    Appended, ErasedLog, EventLogAdmin, EventLogGroups, EventLogReader, EventLogWriter, GroupMember,
    LogBounds, LogChunk, LogLag, LogRecord, Partition, Position, Shard,
};
use crate::erasure::ErasureFilter;
use crate::error::{ErrorKind, Result, StorageError};

/// The event log on Kafka.
#[derive(Debug)]
pub struct KafkaEventLog {
    config: KafkaConfig,
    layout: Arc<Layout>,
    epoch: u64,
    clock: SharedClock,
    writer: Writer,
    reader: Arc<Reader>,
    /// Made when something is to be trimmed.
    admin: OnceCell<Admin>,
}

impl KafkaEventLog {
    /// Opens a log whose topics are there ([`KafkaLogAdmin::create`] makes them). Its number of shards is the one it was
    /// made with. `Invalid` when the topics are missing or not as they must be, `Unavailable` when no broker answers.
    pub async fn open(config: &KafkaConfig, clock: SharedClock) -> Result<Self> {
        config.check()?;
        let life = admin::look_at_topics(config).await?;
        let layout = Arc::new(Layout::new(&config.prefix, life.shards));
        Ok(Self {
            writer: Writer::start(config, Arc::clone(&layout))?,
            reader: Reader::start(config, Arc::clone(&layout), Arc::clone(&clock))?,
            clock,
            config: config.clone(),
            layout,
            epoch: life.epoch,
            admin: OnceCell::new(),
        })
    }
}

#[async_trait]
impl EventLogWriter for KafkaEventLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        self.writer.append(records).await
    }
}

#[async_trait]
impl EventLogReader for KafkaEventLog {
    fn partitions(&self) -> u32 {
        self.layout.partitions()
    }

    fn partition_of(&self, venue: &VenueKey, kind: Kind) -> Partition {
        self.layout.partition_of(venue, kind)
    }

    fn shards(&self) -> u32 {
        self.layout.shards()
    }

    fn shard_of(&self, venue: &VenueKey) -> Shard {
        self.layout.shard_of(venue)
    }

    fn partitions_of(&self, shard: Shard) -> Vec<Partition> {
        self.layout.partitions_of(shard)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn read(&self, partition: Partition, from: Position, max_bytes: usize) -> Result<LogChunk> {
        self.reader.read(partition, from, max_bytes).await
    }

    async fn bounds(&self, partition: Partition) -> Result<LogBounds> {
        self.reader.bounds(partition).await
    }

    async fn lag(&self, partition: Partition, position: Position) -> Result<LogLag> {
        self.reader.lag(partition, position).await
    }

    async fn wait(&self, partition: Partition, from: Position, timeout: Duration) -> Result<bool> {
        self.reader.wait(partition, from, timeout).await
    }
}

#[async_trait]
impl EventLogGroups for KafkaEventLog {
    async fn join(&self, group: &'static str) -> Result<Box<dyn GroupMember>> {
        Ok(Box::new(KafkaMember::join(&self.config, &self.layout, group)?))
    }
}

#[async_trait]
impl EventLogAdmin for KafkaEventLog {
    async fn trim(&self, partition: Partition, before: TsMs, keep_from: Position) -> Result<u64> {
        let LogBounds { start, end } = self.bounds(partition).await?;
        let young = self.reader.first_since(partition, before).await?;
        let until = young.unwrap_or(end).min(end).min(keep_from);
        if until <= start {
            return Ok(0);
        }
        let admin = self
            .admin
            .get_or_try_init(async || Admin::start(&self.config))
            .await?;
        admin.delete_records(self.layout.place(partition)?, until).await?;
        self.reader.forget(partition, until).await?;
        Ok(until.abs_diff(start))
    }

    /// A record of Kafka cannot be changed: readers leave its events out until the topic's retention takes it. What is
    /// found is counted.
    async fn erase(
        &self,
        partition: Partition,
        from: Position,
        filter: Arc<ErasureFilter>,
    ) -> Result<ErasedLog> {
        let LogBounds { start, end } = self.bounds(partition).await?;
        let from = from.max(start);
        let (events, next) = match from < end {
            true => {
                let chunk = self.reader.read(partition, from, ERASE_STEP_BYTES).await?;
                let found = chunk
                    .records
                    .iter()
                    .map(|record| filter.erased(&record.venue, &record.events).len() as u64);
                (found.sum(), (chunk.next > from).then_some(chunk.next))
            }
            false => (0, None),
        };
        Ok(ErasedLog {
            events,
            next: next.filter(|next| *next < end),
            is_gone: false,
        })
    }

    async fn begin_new_life(&self) -> Result<u64> {
        admin::begin_new_life(&self.config, self.clock.now_ms()).await
    }
}

/// Bytes of records that one step of an erasure reads.
const ERASE_STEP_BYTES: usize = 4 << 20;

/// Runs what blocks on a thread meant for that.
async fn blocking<T, F>(name: &'static str, act: F) -> Result<T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    match tasks::blocking(name, act).await {
        Ok(outcome) => outcome,
        Err(error) => Err(StorageError::with_source(ErrorKind::Bug, name, error)),
    }
}
