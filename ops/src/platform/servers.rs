//! What a running process has beside its layers: the API's listener, gauges, housekeeping.

use std::sync::Arc;

use dwell_runtime::shutdown::Phase;
use dwell_runtime::tasks::TaskPolicy;
use tokio::net::TcpListener;

use super::{Platform, housekeeping};
use crate::roles::Role;

impl Platform {
    /// Starts everything that only a running process does. `api`: where users are listened for, if they are.
    pub(crate) fn start_serving(&mut self, api: Option<TcpListener>) {
        let base = &self.base;
        if self.roles.has(Role::Scheduler) {
            let token = base.controller.register(Phase::StopJobs, "gauges");
            let gauges = crate::metrics::keep_up(
                self.stores.clone(),
                self.embedded.then(|| self.paths.clone()),
                Arc::clone(&base.clock),
                token,
            );
            base.tasks.spawn("gauges", TaskPolicy::Log, gauges);

            let token = base.controller.register(Phase::StopJobs, "housekeeping");
            let keeping = housekeeping::run(
                self.stores.clone(),
                Arc::clone(&base.clock),
                self.config.retention.log.as_ms(),
                self.embedded,
                token,
            );
            base.tasks.spawn("housekeeping", TaskPolicy::Log, keeping);
        }
        let Some(api) = api else {
            return;
        };
        let router = self.router();
        let stop = base.controller.signal(Phase::StopAccepting);
        // Held until the last request is answered.
        let token = base.controller.register(Phase::FinishRequests, "api");
        base.tasks.spawn("api", TaskPolicy::Essential, async move {
            let served = axum::serve(api, router)
                .with_graceful_shutdown(stop.requested_owned())
                .await;
            drop(token);
            served
        });
    }
}
