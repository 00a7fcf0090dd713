//! What a running instance has beside its stores: listeners, nights, housekeeping.

use std::sync::Arc;

use anyhow::Result;
use dwell_runtime::admin::{self, AdminState};
use dwell_runtime::shutdown::Phase;
use dwell_runtime::tasks::TaskPolicy;
use dwell_runtime::telemetry;
use tokio::net::TcpListener;

use super::{Platform, housekeeping};

impl Platform {
    /// Starts everything that only a running instance does.
    pub(crate) fn start_serving(&mut self, api: TcpListener, admin: TcpListener) -> Result<()> {
        let (nights, handle) = dwell_batch_layer::Service::new(self.batch.clone());
        let token = self.controller.register(Phase::StopJobs, "nights");
        self.tasks
            .spawn("nights", TaskPolicy::Essential, nights.run(token));
        self.nights = Some(handle);

        let token = self.controller.register(Phase::StopJobs, "gauges");
        let gauges = crate::metrics::keep_up(
            self.stores.clone(),
            self.paths.clone(),
            Arc::clone(&self.clock),
            token,
        );
        self.tasks.spawn("gauges", TaskPolicy::Log, gauges);

        let token = self.controller.register(Phase::StopJobs, "housekeeping");
        let keeping = housekeeping::run(
            self.stores.clone(),
            Arc::clone(&self.clock),
            self.config.retention.log.as_ms(),
            self.raw_writer.clone(),
            token,
        );
        self.tasks.spawn("housekeeping", TaskPolicy::Log, keeping);

        let metrics = telemetry::install_metrics()?;
        for definitions in [
            dwell_runtime::metrics::DEFINITIONS,
            dwell_storage::metrics::DEFINITIONS,
            dwell_ingest::metrics::DEFINITIONS,
            dwell_speed_layer::metrics::DEFINITIONS,
            dwell_batch_layer::metrics::DEFINITIONS,
            dwell_serving_api::metrics::DEFINITIONS,
            crate::metrics::DEFINITIONS,
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
            log: self.log.clone(),
        };
        let token = self.controller.register(Phase::Admin, "admin port");
        self.tasks.spawn(
            "admin port",
            TaskPolicy::Essential,
            admin::serve(admin, state, token),
        );

        let router = self.router();
        let stop = self.controller.signal(Phase::StopAccepting);
        // Held until the last request is answered.
        let token = self.controller.register(Phase::FinishRequests, "api");
        self.tasks.spawn("api", TaskPolicy::Essential, async move {
            let served = axum::serve(api, router)
                .with_graceful_shutdown(stop.requested_owned())
                .await;
            drop(token);
            served
        });
        Ok(())
    }
}
