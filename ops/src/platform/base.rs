//! What every process has before it has stores: a clock, an orderly end, readiness, an admin port.

use std::sync::Arc;

use anyhow::Result;
use dwell_runtime::admin::{self, AdminState, Readiness};
use dwell_runtime::clock::{SharedClock, SystemClock};
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_runtime::telemetry::{self, LogHandle};
use tokio::net::TcpListener;

/// The ground that a process stands on.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) clock: SharedClock,
    pub(crate) controller: ShutdownController,
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
}

impl Base {
    pub(crate) fn new() -> Self {
        let controller = ShutdownController::default();
        Self {
            clock: SystemClock::shared(),
            tasks: Tasks::new(controller.clone()),
            readiness: Readiness::new(&controller),
            controller,
        }
    }

    /// Serves the admin port: before the stores are open, so that a process that waits for them says so.
    pub(crate) fn serve_admin(&self, listener: TcpListener, log: LogHandle) -> Result<()> {
        let metrics = telemetry::install_metrics()?;
        for definitions in [
            dwell_runtime::metrics::DEFINITIONS,
            dwell_storage::metrics::DEFINITIONS,
            dwell_ingest::metrics::DEFINITIONS,
            dwell_speed_layer::metrics::DEFINITIONS,
            dwell_batch_layer::metrics::DEFINITIONS,
            dwell_retention::metrics::DEFINITIONS,
            dwell_serving_api::metrics::DEFINITIONS,
            crate::metrics::DEFINITIONS,
            crate::backup::metrics::DEFINITIONS,
        ] {
            telemetry::describe(definitions);
        }
        let (clock, signal) = (Arc::clone(&self.clock), self.controller.signal(Phase::Admin));
        let kept = metrics.clone();
        self.tasks.spawn("metrics", TaskPolicy::Log, async move {
            kept.keep_up(&*clock, signal).await
        });
        let state = AdminState {
            readiness: self.readiness.clone(),
            metrics,
            log: Some(log),
        };
        let token = self.controller.register(Phase::Admin, "admin port");
        self.tasks.spawn(
            "admin port",
            TaskPolicy::Essential,
            admin::serve(listener, state, token),
        );
        Ok(())
    }
}
