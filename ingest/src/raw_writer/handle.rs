//! How far the raw writer is: for back-pressure, for jobs that wait for it, for readiness and metrics.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell_model::time::TsMs;
use dwell_runtime::admin::CheckHandle;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{EventLogReader, Partition, Position};
use dwell_storage::error::StorageError;
use tokio::sync::watch;

use crate::metrics;

/// How much is in the log and not yet in the raw table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawLag {
    /// Events.
    pub events: u64,
    /// Age of the oldest of them, in milliseconds.
    pub ms: i64,
}

/// Tells the lag, cheaply: asked with every request.
pub trait LagSource: Send + Sync + fmt::Debug {
    /// The lag as last measured.
    fn lag(&self) -> RawLag;
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionStatus {
    /// The next record to be copied; `None` before the partition was begun.
    pub position: Option<Position>,
    /// Why it does not go on, when it does not.
    pub stopped: Option<String>,
    /// What it waits out, when something fails that may pass.
    pub waiting: Option<String>,
    /// This raw writer copies the partition.
    pub copied: bool,
    /// The raw writer has ended.
    pub ended: bool,
}

/// Why waiting for the raw writer came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The partition has stopped: somebody has to look.
    #[error("the raw writer has stopped at partition {partition}: {reason}")]
    Stopped {
        /// The partition.
        partition: Partition,
        /// Why.
        reason: String,
    },
    /// The raw writer has ended.
    #[error("the raw writer has ended")]
    Ended,
    /// This raw writer does not copy the partition.
    #[error("this raw writer does not copy partition {0}")]
    NotMine(Partition),
    /// The log could not be asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Tells how far the raw writer is. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("raw_writer::Handle")
            .field("lag", &self.lag())
            .finish_non_exhaustive()
    }
}

impl LagSource for Handle {
    fn lag(&self) -> RawLag {
        let mut sum = RawLag::default();
        let now = self.shared.clock.now_ms();
        for entry in &self.shared.entries {
            let lag = *entry.lag();
            sum.events += lag.events;
            // Measured now and not when it was last looked at, so that a writer that hangs is seen to hang.
            sum.ms = sum.ms.max(
                lag.oldest_received_at
                    .map_or(0, |oldest| now.saturating_sub(oldest)),
            );
        }
        sum
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The lag of all partitions: events as last measured, the age of the oldest as of now.
    pub fn lag(&self) -> RawLag {
        LagSource::lag(self)
    }

    /// Where a partition stands; `None` when this raw writer does not copy it.
    pub fn status(&self, partition: Partition) -> Option<PartitionStatus> {
        let status = self.shared.entry(partition)?.status.borrow().clone();
        status.copied.then_some(status)
    }

    /// The next record of a partition to be copied.
    pub fn position(&self, partition: Partition) -> Option<Position> {
        self.status(partition).and_then(|status| status.position)
    }

    /// Waits until everything before a position of a partition is in the raw table.
    pub async fn caught_up_to(&self, partition: Partition, position: Position) -> Result<(), WaitError> {
        let entry = self
            .shared
            .entry(partition)
            .ok_or(WaitError::NotMine(partition))?;
        let mut status = entry.status.subscribe();
        loop {
            {
                let now = status.borrow_and_update();
                if now.position.is_some_and(|at| at >= position) {
                    return Ok(());
                }
                if let Some(reason) = now.stopped.clone() {
                    return Err(WaitError::Stopped { partition, reason });
                }
                if now.ended {
                    return Err(WaitError::Ended);
                }
                if !now.copied {
                    return Err(WaitError::NotMine(partition));
                }
            }
            status.changed().await.map_err(|_| WaitError::Ended)?;
        }
    }

    /// Waits until everything that is in the log now is in the raw table.
    pub async fn caught_up(&self, log: &dyn EventLogReader) -> Result<(), WaitError> {
        for partition in 0..log.partitions() {
            let end = log.bounds(partition).await?.end;
            self.caught_up_to(partition, end).await?;
        }
        Ok(())
    }
}

/// What the service and its handles share.
pub(super) struct Shared {
    entries: Vec<PartitionEntry>,
    clock: SharedClock,
    check: Option<CheckHandle>,
}

struct PartitionEntry {
    partition: Partition,
    status: watch::Sender<PartitionStatus>,
    lag: Mutex<MeasuredLag>,
}

#[derive(Debug, Clone, Copy, Default)]
struct MeasuredLag {
    events: u64,
    oldest_received_at: Option<TsMs>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl PartitionEntry {
    fn lag(&self) -> MutexGuard<'_, MeasuredLag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn new(partitions: u32, clock: SharedClock, check: Option<CheckHandle>) -> Self {
        let entry = |partition| PartitionEntry {
            partition,
            status: watch::Sender::new(PartitionStatus::default()),
            lag: Mutex::default(),
        };
        let shared = Self {
            entries: (0..partitions).map(entry).collect(),
            clock,
            check,
        };
        shared.tell_readiness();
        shared
    }

    fn entry(&self, partition: Partition) -> Option<&PartitionEntry> {
        self.entries.get(partition as usize)
    }

    /// The partition is this raw writer's from now on.
    pub(super) fn enter(&self, partition: Partition) {
        self.update(partition, |status| {
            *status = PartitionStatus {
                copied: true,
                ..PartitionStatus::default()
            }
        });
    }

    /// The partition is another raw writer's from now on.
    pub(super) fn leave(&self, partition: Partition) {
        self.update(partition, |status| *status = PartitionStatus::default());
        if let Some(entry) = self.entry(partition) {
            *entry.lag() = MeasuredLag::default();
        }
    }

    /// Changes where a partition stands; tells readiness.
    pub(super) fn update(&self, partition: Partition, change: impl FnOnce(&mut PartitionStatus)) {
        let Some(entry) = self.entry(partition) else {
            return;
        };
        entry.status.send_modify(change);
        self.tell_readiness();
    }

    fn tell_readiness(&self) {
        let troubles: Vec<String> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let status = entry.status.borrow();
                let trouble = status.stopped.as_ref().or(status.waiting.as_ref())?;
                Some(format!("partition {}: {trouble}", entry.partition))
            })
            .collect();
        let stopped = self
            .entries
            .iter()
            .filter(|entry| entry.status.borrow().stopped.is_some())
            .count();
        metrics::raw_stopped(stopped);
        if let Some(check) = &self.check {
            if troubles.is_empty() {
                check.set_ok()
            } else {
                check.set_not_ok(troubles.join("; "))
            }
        }
    }

    /// Measures how far all partitions are behind.
    pub(super) async fn measure(&self, log: &dyn EventLogReader) {
        for entry in &self.entries {
            let Some(position) = entry.status.borrow().position else {
                continue;
            };
            match log.lag(entry.partition, position).await {
                Ok(lag) => {
                    *entry.lag() = MeasuredLag {
                        events: lag.events,
                        oldest_received_at: lag.oldest_received_at,
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, partition = entry.partition, "the lag cannot be measured")
                }
            }
        }
    }

    /// The raw writer has ended: nobody shall wait for it.
    pub(super) fn end(&self) {
        for entry in &self.entries {
            entry.status.send_modify(|status| status.ended = true);
        }
    }
}
