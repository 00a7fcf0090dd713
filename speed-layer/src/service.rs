//! The service: a task per partition of the log.

use std::fmt;
use std::sync::Arc;

use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_storage::api::{
    Checkpoints, EventLog, EventLogReader, RawEvents, RawEventsReader, Registry, Stores, VenueDays,
    VenueDaysReader,
};

use crate::config::{Config, ConfigError};
use crate::error::Result;
use crate::handle::Handle;
use crate::live_sessions::Moment;
use crate::partition;

/// What the speed layer needs of the rest of the process. It writes nothing but its checkpoints.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Deps {
    pub log: Arc<dyn EventLogReader>,
    pub raw: Arc<dyn RawEventsReader>,
    pub checkpoints: Arc<dyn Checkpoints>,
    pub registry: Arc<dyn Registry>,
    pub venue_days: Arc<dyn VenueDaysReader>,
    pub clock: SharedClock,
    pub tasks: Tasks,
    pub readiness: Readiness,
}

/// Follows the log into the live view.
pub struct Service {
    deps: Deps,
    config: Arc<Config>,
    handle: Handle,
}

impl Deps {
    /// The stores that the speed layer needs of an installation's.
    pub fn from_stores(stores: &Stores, clock: SharedClock, tasks: Tasks, readiness: Readiness) -> Self {
        Self {
            log: Arc::<dyn EventLog>::clone(&stores.log),
            raw: Arc::<dyn RawEvents>::clone(&stores.raw),
            checkpoints: Arc::clone(&stores.checkpoints),
            registry: Arc::clone(&stores.registry),
            venue_days: Arc::<dyn VenueDays>::clone(&stores.venue_days),
            clock,
            tasks,
            readiness,
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            now: self.clock.now_ms(),
            monotonic: self.clock.monotonic(),
        }
    }
}

impl Service {
    /// A service that is not running yet. Its handle answers at once, with nothing until the days are built.
    pub fn new(deps: Deps, config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let handle = Handle::new(&config);
        Ok(Self {
            deps,
            config: Arc::new(config),
            handle,
        })
    }

    /// A way to the live view, from now on and while the service runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Follows all partitions until the shutdown's phase begins, then stores their checkpoints and returns. A partition
    /// that has to stop earlier is named by its readiness check; the others go on, and the first such error is returned
    /// at the end.
    pub async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        let Self { deps, config, handle } = self;
        let (sender, mut ended) = tokio::sync::mpsc::channel(1);
        for number in 0..deps.log.partitions() {
            let following = partition::run(
                number,
                deps.clone(),
                Arc::clone(&config),
                Arc::clone(handle.shared()),
                shutdown.clone(),
            );
            let sender = sender.clone();
            // Errors come back through the channel: only a panic ends the process, which then starts from raw.
            deps.tasks.spawn("speed layer", TaskPolicy::Shutdown, async move {
                let result = following.await;
                // The receiver is gone only when the service itself was dropped.
                let _ = sender.send(result).await;
            });
        }
        drop((sender, shutdown));
        let mut first_error = Ok(());
        while let Some(result) = ended.recv().await {
            first_error = first_error.and(result);
        }
        first_error
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
