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
//! Each partition has its own loop; [`Handle`] tells how far all of them are.

mod batch;
mod handle;
mod partition;

pub use handle::{Handle, LagSource, PartitionStatus, RawLag, WaitError};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::admin::CheckHandle;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::failpoints::Injected;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{EventLogReader, Partition, Quarantine, RawEvents};
use dwell_storage::error::StorageError;
use futures::future::{self, Either};

use handle::Shared;
use partition::PartitionWriter;

/// The name under which positions are stored.
pub const CONSUMER: &str = dwell_storage::api::RAW_WRITER;

/// How the raw writer works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The partitions that it copies; `None`: all.
    pub partitions: Option<Vec<Partition>>,
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
            partitions: None,
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
    /// A configured partition that the log does not have.
    #[error("the log has {partitions} partitions; there is no partition {partition}")]
    NoPartition {
        /// The one configured.
        partition: Partition,
        /// How many there are.
        partitions: u32,
    },
}

impl Error {
    /// Whether the same step may succeed later without anybody's help. A full disk counts: room is made without us.
    fn is_passing(&self) -> bool {
        match self {
            Error::Storage(error) => {
                error.kind().is_retryable() || error.kind() == dwell_storage::error::ErrorKind::Full
            }
            Error::Injected(_) => true,
            Error::Stuck(_) | Error::NoPartition { .. } => false,
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
    log: Arc<dyn EventLogReader>,
    partitions: Vec<PartitionWriter>,
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
    /// A raw writer and its handle. `check` tells readiness; without one nobody is told.
    pub fn new(
        config: Config,
        stores: RawWriterStores,
        clock: SharedClock,
        check: Option<CheckHandle>,
    ) -> Result<(Self, Handle), Error> {
        let count = stores.log.partitions();
        let numbers = config.partitions.clone().unwrap_or_else(|| (0..count).collect());
        if let Some(&partition) = numbers.iter().find(|&&partition| partition >= count) {
            return Err(Error::NoPartition {
                partition,
                partitions: count,
            });
        }
        let shared = Arc::new(Shared::new(&numbers, SharedClock::clone(&clock), check));
        let partitions = numbers
            .iter()
            .enumerate()
            .map(|(slot, &partition)| {
                let (stores, clock) = (stores.clone(), SharedClock::clone(&clock));
                PartitionWriter::new(
                    partition,
                    slot,
                    config.step_bytes,
                    stores,
                    clock,
                    Arc::clone(&shared),
                )
            })
            .collect();
        let handle = Handle::new(Arc::clone(&shared));
        Ok((
            Self {
                config,
                clock,
                log: stores.log,
                partitions,
                end: EndGuard(shared),
            },
            handle,
        ))
    }

    /// Copies until the shutdown asks it to stop; then goes on while there is something to copy and time
    /// ([`Config::drain`]).
    ///
    /// Failures that may pass are waited out and shown in readiness; a partition that cannot go on stops and leaves the
    /// others running. It returns an error only when there is nothing left to run.
    pub async fn run(self, shutdown: ShutdownToken) -> Result<(), Error> {
        let Self {
            config,
            clock,
            log,
            partitions,
            end,
        } = self;
        let signal = shutdown.signal();
        let loops = partitions
            .into_iter()
            .map(|partition| partition.run(&config, &signal));
        let copying = future::join_all(loops);
        let measuring = async {
            loop {
                measure(&end.0, &*log).await;
                clock.sleep(config.lag_interval).await;
            }
        };
        futures::pin_mut!(copying, measuring);
        let ends: Vec<Result<(), Error>> = match future::select(copying, measuring).await {
            Either::Left((ends, _)) => ends,
            Either::Right(((), _)) => Vec::new(),
        };
        let stopped = ends.len();
        let mut errors = ends.into_iter().filter_map(Result::err);
        let first = errors.next();
        match first {
            Some(error) if errors.count() + 1 == stopped => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies everything that is in the log now, and returns. For commands and tests; may be repeated.
    pub async fn run_once(&mut self) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        for partition in &mut self.partitions {
            partition.copy_all(&mut progress).await?;
        }
        measure(&self.end.0, &*self.log).await;
        Ok(progress)
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
