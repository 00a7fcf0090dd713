//! The raw writers' lag as seen from a process that runs none: from the positions that they store.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{EventLogReader, RawEventsReader, raw_copied_to};
use dwell_storage::error::Result;

use super::handle::{LagSource, RawLag};

/// How often the lag is measured. It pushes back at half of the log's retention, which is days.
const MEASURE_EVERY: Duration = Duration::from_secs(15);
/// Stands for "nothing waits".
const NOTHING_WAITS: TsMs = TsMs::MAX;

/// The lag of all raw writers, measured from time to time. Clones share what was measured.
#[derive(Clone)]
pub struct StoredLag {
    shared: Arc<Measured>,
}

struct Measured {
    clock: SharedClock,
    events: AtomicU64,
    oldest_received_at: AtomicI64,
}

impl std::fmt::Debug for StoredLag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredLag").field("lag", &self.lag()).finish()
    }
}

impl StoredLag {
    /// Nothing measured yet: no lag.
    pub fn new(clock: SharedClock) -> Self {
        let shared = Measured {
            clock,
            events: AtomicU64::new(0),
            oldest_received_at: AtomicI64::new(NOTHING_WAITS),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Measures until shutdown. While a store is away the last measure stands; its age goes on growing.
    pub async fn run(
        self,
        log: Arc<dyn EventLogReader>,
        raw: Arc<dyn RawEventsReader>,
        shutdown: ShutdownToken,
    ) {
        loop {
            let measured = tokio::select! {
                () = shutdown.requested() => return,
                measured = self.run_once(&*log, &*raw) => measured,
            };
            if let Err(error) = measured {
                tracing::debug!(%error, "the raw writers' lag cannot be measured");
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.shared.clock.sleep(MEASURE_EVERY) => {}
            }
        }
    }

    /// Measures once.
    pub async fn run_once(&self, log: &dyn EventLogReader, raw: &dyn RawEventsReader) -> Result<()> {
        let (mut events, mut oldest) = (0, NOTHING_WAITS);
        for partition in 0..log.partitions() {
            let position = raw_copied_to(log, raw, partition).await?;
            let lag = log.lag(partition, position).await?;
            events += lag.events;
            oldest = oldest.min(lag.oldest_received_at.unwrap_or(NOTHING_WAITS));
        }
        self.shared.events.store(events, Ordering::Relaxed);
        self.shared.oldest_received_at.store(oldest, Ordering::Relaxed);
        crate::metrics::raw_lag(events, self.lag().ms);
        Ok(())
    }
}

impl LagSource for StoredLag {
    fn lag(&self) -> RawLag {
        let oldest = self.shared.oldest_received_at.load(Ordering::Relaxed);
        RawLag {
            events: self.shared.events.load(Ordering::Relaxed),
            ms: self.shared.clock.now_ms().saturating_sub(oldest).max(0),
        }
    }
}
