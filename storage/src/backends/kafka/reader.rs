//! Reading: few consumers for the whole process, each with a cursor per partition.
//!
//! A caller reads a partition from wherever it likes; mostly it goes on where it stopped. So a *lane* is a consumer that
//! holds a cursor per partition, with a queue of its own in which librdkafka fetches ahead, bounded; a cursor that
//! stands at the position asked for goes on without asking the broker anything. Several readers follow the same
//! partition (raw writer, speed layer), each at its own position: for them there are up to [`LANES_MAX`] lanes, and a
//! read takes the lane whose cursor stands there, or else the one that was idle longest. Cursors that nobody has read for
//! a while stop fetching. A lane to which a partition's records do not come, though the broker has some, is given up.
//! What brokers are asked besides goes over connections of its own ([`Asker`]).

mod asker;
mod cursor;
mod holes;
mod lane;
mod times;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::{self, SharedClock};
use rdkafka::consumer::BaseConsumer;
use tokio::sync::Semaphore;

use self::asker::Asker;
use self::lane::Lane;
use super::config::KafkaConfig;
use super::context::Logging;
use super::layout::Layout;
use super::writer::lock;
use crate::api::{LogBounds, LogChunk, LogLag, Partition, Position};
use crate::error::Result;

/// Most consumers of a process.
const LANES_MAX: usize = 3;
/// Most calls that block at a time: without a bound, an outage would take the threads that other parts need.
const BLOCKING_MAX: usize = 32;
/// Longest time that a question to the brokers may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A consumer whose lines go to the log.
pub(super) type LogConsumer = BaseConsumer<Logging>;

/// Reads the topics.
#[derive(Debug)]
pub(super) struct Reader {
    config: KafkaConfig,
    layout: Arc<Layout>,
    clock: SharedClock,
    blocking: Semaphore,
    asker: Arc<Asker>,
    lanes: Mutex<Vec<Arc<Lane>>>,
}

impl Reader {
    /// Starts the first consumer. Blocking, though it does not wait for brokers.
    pub(super) fn start(config: &KafkaConfig, layout: Arc<Layout>, clock: SharedClock) -> Result<Arc<Self>> {
        let asker = Arc::new(Asker::start(config, SharedClock::clone(&clock))?);
        let first = Lane::start(config, &layout, &asker)?;
        Ok(Arc::new(Self {
            config: config.clone(),
            layout,
            clock,
            blocking: Semaphore::new(BLOCKING_MAX),
            asker,
            lanes: Mutex::new(vec![first]),
        }))
    }

    /// See [`EventLogReader::read`](crate::api::EventLogReader::read).
    pub(super) async fn read(
        self: &Arc<Self>,
        partition: Partition,
        from: Position,
        max_bytes: usize,
    ) -> Result<LogChunk> {
        self.layout.place(partition)?;
        let reader = Arc::clone(self);
        self.blocking("kafka-read", move || {
            reader
                .lane(partition, from)?
                .with_cursor(partition, |cursor, io| cursor.read(io, from, max_bytes))
        })
        .await
    }

    /// See [`EventLogReader::bounds`](crate::api::EventLogReader::bounds).
    pub(super) async fn bounds(self: &Arc<Self>, partition: Partition) -> Result<LogBounds> {
        self.layout.place(partition)?;
        let reader = Arc::clone(self);
        self.blocking("kafka-bounds", move || {
            reader.asker.bounds(reader.layout.place(partition)?)
        })
        .await
    }

    /// Position of a partition's first record that was not appended before `time`, if there is one.
    pub(super) async fn first_since(
        self: &Arc<Self>,
        partition: Partition,
        time: TsMs,
    ) -> Result<Option<Position>> {
        let reader = Arc::clone(self);
        self.blocking("kafka-time", move || {
            reader.asker.first_since(reader.layout.place(partition)?, time)
        })
        .await
    }

    /// Drops what was fetched of a partition before a position: it was deleted.
    pub(super) async fn forget(self: &Arc<Self>, partition: Partition, before: Position) -> Result<()> {
        let lanes = lock(&self.lanes).clone();
        self.blocking("kafka-forget", move || {
            lanes.iter().for_each(|lane| lane.forget(partition, before));
            Ok(())
        })
        .await
    }

    /// See [`EventLogReader::lag`](crate::api::EventLogReader::lag).
    pub(super) async fn lag(self: &Arc<Self>, partition: Partition, position: Position) -> Result<LogLag> {
        let LogBounds { start, end } = self.bounds(partition).await?;
        let from = position.max(start);
        if from >= end {
            return Ok(LogLag::default());
        }
        let reader = Arc::clone(self);
        let first = self
            .blocking("kafka-lag", move || {
                reader
                    .lane(partition, from)?
                    .with_cursor(partition, |cursor, io| cursor.first_received_at(io, from))
            })
            .await?;
        Ok(match first {
            Some(oldest) => LogLag {
                events: end.abs_diff(from),
                oldest_received_at: Some(oldest),
            },
            // What lies between are no events, but marks of Kafka's own.
            None => LogLag::default(),
        })
    }

    /// See [`EventLogReader::wait`](crate::api::EventLogReader::wait).
    pub(super) async fn wait(
        self: &Arc<Self>,
        partition: Partition,
        from: Position,
        timeout: Duration,
    ) -> Result<bool> {
        self.layout.place(partition)?;
        match clock::timeout(&*self.clock, timeout, self.wait_for_record(partition, from)).await {
            Ok(found) => found.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Runs what blocks, when it is its turn.
    async fn blocking<T, F>(&self, name: &'static str, act: F) -> Result<T>
    where
        F: FnOnce() -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        // The semaphore is never closed.
        let _turn = self.blocking.acquire().await;
        super::blocking(name, act).await
    }

    async fn wait_for_record(self: &Arc<Self>, partition: Partition, from: Position) -> Result<()> {
        loop {
            let lane = self.lane(partition, from)?;
            let waiting = lane.wait_on(partition)?;
            // Registered before looking, so that a record that comes in between wakes.
            let mut woken = std::pin::pin!(waiting.woken());
            woken.as_mut().enable();
            // Looking into a queue that is there asks nobody; only going elsewhere does.
            let found = match lane.look(partition, from) {
                Some(found) => found?,
                None => {
                    let lane = Arc::clone(&lane);
                    self.blocking("kafka-wait", move || {
                        lane.with_cursor(partition, |cursor, io| cursor.has_record(io, from))
                    })
                    .await?
                }
            };
            if found {
                return Ok(());
            }
            woken.await;
        }
    }

    /// The lane to read a partition from a position with.
    fn lane(&self, partition: Partition, from: Position) -> Result<Arc<Lane>> {
        let mut lanes = lock(&self.lanes);
        lanes.retain(|lane| !lane.is_stuck());
        if let Some(lane) = lanes.iter().find(|lane| lane.stands_at(partition, from)) {
            return Ok(Arc::clone(lane));
        }
        if let Some(lane) = lanes.iter().find(|lane| lane.is_free(partition)) {
            return Ok(Arc::clone(lane));
        }
        let idle_longest = lanes.iter().max_by_key(|lane| lane.idle(partition));
        if let Some(lane) = idle_longest.filter(|_| lanes.len() >= LANES_MAX) {
            return Ok(Arc::clone(lane));
        }
        let lane = Lane::start(&self.config, &self.layout, &self.asker)?;
        lanes.push(Arc::clone(&lane));
        Ok(lane)
    }
}
