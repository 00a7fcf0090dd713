//! Copies the event log into the raw table: each record exactly once in effect, whatever dies in between.
//!
//! ```text
//! log ─▶ read a chunk ─▶ rows by (venue, kind), marks by slot ─▶ apply: rows, then marks, then position
//!             └ while the chunk before is being applied
//! ```
//!
//! - The position lies in the raw store and moves with the rows: embedded in one transaction, elsewhere after them. A crash
//!   at any point repeats a chunk, and repeating changes nothing: rows are keyed by identity and payload, deliveries are a
//!   set, marks never fall.
//! - A record that cannot be read is stepped over, named in the quarantine, and counted; it stalls nobody.
//! - A position that the log no longer has stops that partition, and readiness names it. It is never reset silently.
//!
//! Each partition has its own loop; [`Handle`] tells how far all of them are. Several raw writers share the log's
//! shards through their group: one that is given a shard begins where the stored position stands, one that loses it
//! stops. While two believe that they have it, both write the same, and positions never fall.

mod batch;
mod handle;
mod partition;
mod stored_lag;

pub use handle::{Handle, LagSource, PartitionStatus, RawLag, WaitError};
pub use stored_lag::StoredLag;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::admin::CheckHandle;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::failpoints::Injected;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{EventLog, EventLogReader, GroupMember, Quarantine, RawEvents, Shard, Stores};
use dwell_storage::error::StorageError;
use futures::StreamExt;
use futures::future::{self, AbortHandle, Either};
use futures::stream::FuturesUnordered;

use handle::Shared;
use partition::PartitionWriter;

/// The name under which positions are stored.
pub const CONSUMER: &str = dwell_storage::api::RAW_WRITER;

/// How the raw writer works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of the log that are read, and applied, in one step. Two steps are held in memory. Default 4 MiB.
    pub step_bytes: usize,
    /// Longest wait for new records before looking again. Default 1 s.
    pub idle_wait: Duration,
    /// How often the lag is measured. Default 500 ms.
    pub lag_interval: Duration,
    /// How long it goes on copying once it is asked to stop. What is left is copied after the next start. Default 2 s.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            step_bytes: 4 << 20,
            idle_wait: Duration::from_secs(1),
            lag_interval: Duration::from_millis(500),
            drain: Duration::from_secs(2),
        }
    }
}

/// The stores that it reads and writes.
#[derive(Clone)]
#[allow(missing_docs, reason = "each is the store of its own name")]
pub struct RawWriterStores {
    pub log: Arc<dyn EventLogReader>,
    pub raw: Arc<dyn RawEvents>,
    pub quarantine: Arc<dyn Quarantine>,
}

impl RawWriterStores {
    /// The stores that a raw writer needs of an installation's.
    pub fn from_stores(stores: &Stores) -> Self {
        Self {
            log: Arc::<dyn EventLog>::clone(&stores.log),
            raw: Arc::clone(&stores.raw),
            quarantine: Arc::clone(&stores.quarantine),
        }
    }
}

impl fmt::Debug for RawWriterStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawWriterStores").finish_non_exhaustive()
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A failpoint of a test.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// Something that only people can mend.
    #[error("{0}")]
    Stuck(String),
}

impl Error {
    /// Whether the same step may succeed later without anybody's help. A full disk counts: room is made without us.
    fn is_passing(&self) -> bool {
        match self {
            Error::Storage(error) => {
                error.kind().is_retryable() || error.kind() == dwell_storage::error::ErrorKind::Full
            }
            Error::Injected(_) => true,
            Error::Stuck(_) => false,
        }
    }
}

/// What one run over everything that was there has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Steps applied.
    pub steps: u64,
    /// Rows that were not there before.
    pub new_rows: u64,
    /// Rows that were there and gained at most a delivery.
    pub repeated_rows: u64,
}

/// The raw writer.
pub struct Service {
    config: Config,
    clock: SharedClock,
    stores: RawWriterStores,
    member: Arc<dyn GroupMember>,
    /// For [`run_once`](Self::run_once): kept between its calls.
    writers: Vec<PartitionWriter>,
    end: EndGuard,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("raw_writer::Service")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Tells everybody who waits that the raw writer has ended, however it ended.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Service {
    /// A raw writer of the shards that a group gives to its member, and its handle. `check` tells readiness; without
    /// one nobody is told.
    pub fn new(
        config: Config,
        stores: RawWriterStores,
        member: Arc<dyn GroupMember>,
        clock: SharedClock,
        check: Option<CheckHandle>,
    ) -> (Self, Handle) {
        let shared = Arc::new(Shared::new(
            stores.log.partitions(),
            SharedClock::clone(&clock),
            check,
        ));
        // Who asks before the loops have begun shall wait for them.
        for &shard in member.shards().borrow().iter() {
            stores
                .log
                .partitions_of(shard)
                .into_iter()
                .for_each(|partition| shared.enter(partition));
        }
        let handle = Handle::new(Arc::clone(&shared));
        let service = Self {
            config,
            clock,
            stores,
            member,
            writers: Vec::new(),
            end: EndGuard(shared),
        };
        (service, handle)
    }

    /// Copies until the shutdown asks it to stop; then goes on while there is something to copy and time
    /// ([`Config::drain`]).
    ///
    /// Failures that may pass are waited out and shown in readiness; a partition that cannot go on stops and leaves the
    /// others running. It returns an error only when it has partitions and none of them can go on.
    pub async fn run(self, shutdown: ShutdownToken) -> Result<(), Error> {
        let signal = shutdown.signal();
        let copying = self.copy_shards(&signal);
        let measuring = async {
            loop {
                measure(&self.end.0, &*self.stores.log).await;
                self.clock.sleep(self.config.lag_interval).await;
            }
        };
        futures::pin_mut!(copying, measuring);
        match future::select(copying, measuring).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), _)) => Ok(()),
        }
    }

    /// Runs a loop per partition of the shards given, begins and ends them as shards come and go.
    async fn copy_shards(&self, shutdown: &dwell_runtime::shutdown::ShutdownSignal) -> Result<(), Error> {
        let mut assignment = self.member.shards();
        let mut running: BTreeMap<Shard, Vec<AbortHandle>> = BTreeMap::new();
        let mut loops = FuturesUnordered::new();
        let mut first_error = None;
        loop {
            let given: BTreeSet<Shard> = assignment.borrow_and_update().clone();
            let lost: Vec<Shard> = running
                .keys()
                .copied()
                .filter(|shard| !given.contains(shard))
                .collect();
            for shard in lost {
                tracing::info!(shard, "another raw writer goes on with a shard");
                running
                    .remove(&shard)
                    .into_iter()
                    .flatten()
                    .for_each(|writer| writer.abort());
                for partition in self.stores.log.partitions_of(shard) {
                    self.end.0.leave(partition);
                }
            }
            for &shard in &given {
                running.entry(shard).or_insert_with(|| {
                    let begin = |partition| {
                        self.end.0.enter(partition);
                        let writer = self.writer(partition).run(&self.config, shutdown);
                        let (writer, abort) = future::abortable(writer);
                        loops.push(writer);
                        abort
                    };
                    self.stores
                        .log
                        .partitions_of(shard)
                        .into_iter()
                        .map(begin)
                        .collect()
                });
            }
            let has_loops = !loops.is_empty();
            tokio::select! {
                Some(ended) = loops.next(), if has_loops => {
                    if let Ok(Err(error)) = ended {
                        first_error.get_or_insert(error);
                    }
                    let all_ended = loops.is_empty() && !running.is_empty();
                    if all_ended {
                        return first_error.map_or(Ok(()), Err);
                    }
                }
                changed = assignment.changed(), if !shutdown.is_requested() => {
                    if changed.is_err() {
                        return Err(Error::Stuck("the group of raw writers has ended".to_owned()));
                    }
                }
                () = shutdown.requested(), if !has_loops => return Ok(()),
            }
        }
    }

    /// Copies everything that is in the log now, whoever's shard it is, and returns. For commands and tests; may be
    /// repeated.
    pub async fn run_once(&mut self) -> Result<Progress, Error> {
        if self.writers.is_empty() {
            self.writers = (0..self.stores.log.partitions())
                .map(|partition| {
                    self.end.0.enter(partition);
                    self.writer(partition)
                })
                .collect();
        }
        let mut progress = Progress::default();
        for writer in &mut self.writers {
            writer.copy_all(&mut progress).await?;
        }
        measure(&self.end.0, &*self.stores.log).await;
        Ok(progress)
    }

    fn writer(&self, partition: dwell_storage::api::Partition) -> PartitionWriter {
        PartitionWriter::new(
            partition,
            self.config.step_bytes,
            self.stores.clone(),
            Arc::clone(&self.member),
            SharedClock::clone(&self.clock),
            Arc::clone(&self.end.0),
        )
    }
}

/// Measures the lag, for the handle and the metrics.
async fn measure(shared: &Arc<Shared>, log: &dyn EventLogReader) {
    shared.measure(log).await;
    let lag = Handle::new(Arc::clone(shared)).lag();
    crate::metrics::raw_lag(lag.events, lag.ms);
}

#[cfg(test)]
mod tests;
