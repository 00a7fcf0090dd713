//! The service: a place in the group that shares out the log, and a task per shard that it is given.

mod followers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::{SharedClock, timeout};
use dwell_runtime::shutdown::ShutdownToken;
use dwell_runtime::tasks::{TaskHandle, TaskPolicy, Tasks};
use dwell_storage::api::{
    Checkpoints, Documents, EventLog, GroupMember, LiveViewTable, LiveViewWriter, RawEvents, RawEventsReader,
    Registry, Stores, VenueDays, VenueDaysReader,
};
use dwell_storage::erasure::ErasureWatch;

use self::followers::Followers;
use crate::config::{Config, ConfigError};
use crate::error::Result;
use crate::handle::{Handle, Shared};
use crate::health::{Health, Part};
use crate::live_sessions::Moment;
use crate::live_table;
use crate::shard::Context;

/// Name of the group whose members share out the shards.
pub const GROUP: &str = "speed";
/// Delays between attempts to join the group.
const JOIN_RETRY_MIN: Duration = Duration::from_millis(200);
const JOIN_RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest time that a shutdown waits for the table of the live view to take the last states.
const TABLE_DRAIN: Duration = Duration::from_secs(2);

/// What the speed layer needs of the rest of the process. It writes nothing but its checkpoints and the live view.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Deps {
    pub log: Arc<dyn EventLog>,
    pub raw: Arc<dyn RawEventsReader>,
    pub checkpoints: Arc<dyn Checkpoints>,
    pub registry: Arc<dyn Registry>,
    pub venue_days: Arc<dyn VenueDaysReader>,
    pub documents: Arc<dyn Documents>,
    /// Where the live view is shown to other processes, beside the handle for this one.
    pub live_table: Option<Arc<dyn LiveViewWriter>>,
    /// Whom to leave out; `None` where nobody keeps a ledger.
    pub erasures: Option<ErasureWatch>,
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
        let as_writer = |table: &Arc<dyn LiveViewTable>| -> Arc<dyn LiveViewWriter> {
            Arc::<dyn LiveViewTable>::clone(table)
        };
        Self {
            log: Arc::clone(&stores.log),
            raw: Arc::<dyn RawEvents>::clone(&stores.raw),
            checkpoints: Arc::clone(&stores.checkpoints),
            registry: Arc::clone(&stores.registry),
            venue_days: Arc::<dyn VenueDays>::clone(&stores.venue_days),
            documents: Arc::clone(&stores.documents),
            live_table: stores.live.as_ref().map(as_writer),
            erasures: None,
            clock,
            tasks,
            readiness,
        }
    }

    /// The clocks' readings, given how far the log has been read.
    pub(crate) fn moment(&self, log_time: dwell_model::time::TsMs) -> Moment {
        let now = self.clock.now_ms();
        Moment {
            now,
            monotonic: self.clock.monotonic(),
            log_time: log_time.min(now),
        }
    }
}

impl Service {
    /// A service that is not running yet. Its handle answers at once, with nothing until the days are built.
    pub fn new(deps: Deps, config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let handle = Handle::new(&config, deps.live_table.is_some());
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

    /// Follows the shards that the group gives to this process until the shutdown's phase begins, then stores their
    /// checkpoints, leaves the group, and returns. A shard that has to stop earlier is named by the readiness check; the
    /// others go on, and the first such error is returned at the end.
    pub async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        let Self { deps, config, handle } = self;
        let health = Arc::new(Health::new(deps.readiness.register("speed layer")));
        let Some(member) = join(&deps, &health, &shutdown).await? else {
            return Ok(());
        };
        let shared = Arc::clone(handle.shared());
        let table = show_in_table(&deps, &config, &shared, &health);
        let context = Context {
            deps: deps.clone(),
            config,
            shared: Arc::clone(&shared),
            member: Arc::from(member),
        };
        let result = Followers::new(context, health, shutdown.clone()).run().await;
        if let (Some(task), Some(queue)) = (table, &shared.table) {
            queue.close();
            if timeout(&*deps.clock, TABLE_DRAIN, task.join()).await.is_err() {
                tracing::warn!("the live view's table did not take the last states in time");
            }
        }
        result
    }
}

/// Joins the group, as often as it takes; `None` when the shutdown came first.
async fn join(
    deps: &Deps,
    health: &Health,
    shutdown: &ShutdownToken,
) -> Result<Option<Box<dyn GroupMember>>> {
    let mut delay = JOIN_RETRY_MIN;
    health.report(Part::Group, Some("joining the group".to_owned()));
    loop {
        let joined = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(None),
            joined = deps.log.join(GROUP) => joined,
        };
        match joined {
            Ok(member) => return Ok(Some(member)),
            Err(error) if error.kind().is_retryable() => {
                tracing::warn!(%error, "the speed layer cannot join its group yet");
                health.report(Part::Group, Some(format!("joining the group: {error}")));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(None),
            () = deps.clock.sleep(delay) => {}
        }
        delay = (delay * 2).min(JOIN_RETRY_MAX);
    }
}

/// Starts the task that shows the live view to other processes, where there is a table for it.
fn show_in_table(
    deps: &Deps,
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    health: &Arc<Health>,
) -> Option<TaskHandle> {
    let table = Arc::clone(deps.live_table.as_ref()?);
    let (config, shared, health) = (Arc::clone(config), Arc::clone(shared), Arc::clone(health));
    let clock = SharedClock::clone(&deps.clock);
    let show = async move {
        if let Some(queue) = &shared.table {
            live_table::show_all(queue, table, &config, clock, &health).await;
        }
    };
    Some(deps.tasks.spawn("live view table", TaskPolicy::Shutdown, show))
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
