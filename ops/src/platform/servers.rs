//! What a running process has beside its layers: the API's listener, gauges, housekeeping.

use std::sync::Arc;

use dwell_runtime::shutdown::Phase;
use dwell_runtime::tasks::TaskPolicy;
use dwell_storage::resolver::StoreUri;
use tokio::net::TcpListener;

use super::{Platform, folder, housekeeping};
use crate::roles::Role;

impl Platform {
    /// Starts everything that only a running process does. `api`: where users are listened for, if they are.
    pub(crate) fn start_serving(&mut self, api: Option<TcpListener>) {
        let base = &self.base;
        self.watch_folders();
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

    /// Looks at the folders of an embedded installation.
    fn watch_folders(&self) {
        let (base, Some(files)) = (&self.base, &self.stores.files) else {
            return;
        };
        let archive = self.config.engines().map(|engines| engines.archive);
        let folders = folder::Folders {
            files: Arc::clone(files),
            room: self.paths.room.clone(),
            archive_room: match archive {
                Ok(StoreUri::Folder(folder)) => Some(folder.join(".room")),
                _ => None,
            },
        };
        let check = base.readiness.register("folder");
        let token = base.controller.register(Phase::CloseStores, "folder");
        let watching = folder::watch(folders, Arc::clone(&base.clock), check, token);
        base.tasks.spawn("folder", TaskPolicy::Essential, watching);
    }
}
