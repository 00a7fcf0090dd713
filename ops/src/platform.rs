//! The whole platform on one data folder: stores, layers and routers, wired together and nothing else.
//!
//! [`Platform::open`] gives what a command needs that has opened the folder itself: stores, raw writer, job worker, router.
//! [`Platform::start_serving`] adds what a running instance has beside: live view, nights, listeners, housekeeping.

mod housekeeping;
mod no_live_view;
mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use dwell_batch_layer::BatchLayer;
use dwell_ingest::raw_writer;
use dwell_model::ids::TenantId;
use dwell_runtime::admin::{CheckHandle, Readiness};
use dwell_runtime::clock::{SharedClock, SystemClock};
use dwell_runtime::shutdown::{Phase, ShutdownController, ShutdownReport};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_runtime::telemetry::LogHandle;
use dwell_serving_api::{AppState, Parts};
use dwell_storage::access::{self, KeyVerifier};
use dwell_storage::api::{LiveView, Role, Stores};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::lock::DataDirLock;
use dwell_storage::paths::DataPaths;
use dwell_storage::resolver;
use tokio::sync::Notify;

use crate::config::Config;
use crate::importing::Importer;
use crate::instance;
use crate::jobs::{self, JobWorker};
use crate::routes::{self, OpsState};
use no_live_view::NoLiveView;

/// The tenant of an embedded installation.
const DEFAULT_TENANT: &str = "default";
/// Keys that the verifier remembers.
const KEYS_REMEMBERED: usize = 10_000;
/// How long an orderly shutdown may take in all.
const SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// An opened data folder with its parts.
pub(crate) struct Platform {
    config: Config,
    paths: DataPaths,
    clock: SharedClock,
    stores: Stores,
    tenant: TenantId,
    admin_key: String,
    controller: ShutdownController,
    tasks: Tasks,
    readiness: Readiness,
    /// Held as long as their parts are watched.
    checks: Vec<CheckHandle>,
    importer: Importer,
    batch: BatchLayer,
    raw_writer: raw_writer::Handle,
    nights: Option<dwell_batch_layer::Handle>,
    router: Router,
    log: Option<LogHandle>,
    /// Given back last.
    lock: DataDirLock,
}

impl Platform {
    /// Opens the folder for a command: no listeners, no live view, no nights.
    pub(crate) async fn open_for_command(config: Config) -> Result<Self> {
        Self::open(config, false).await
    }

    /// Opens the folder for a running instance.
    pub(crate) async fn open_for_serving(config: Config, log: LogHandle) -> Result<Self> {
        let mut platform = Self::open(config, true).await?;
        platform.log = Some(log);
        Ok(platform)
    }

    async fn open(config: Config, live: bool) -> Result<Self> {
        let paths = DataPaths::new(&config.data_dir);
        let lock = DataDirLock::acquire(&paths)?;
        empty_folder(&paths.spill)?;
        let clock = SystemClock::shared();
        let archive_dir = resolver::archive_folder(&config.archive_uri()?);
        let archive = DeltaArchive::local(&archive_dir)
            .with_context(|| format!("cannot open the archive in {}", archive_dir.display()))?;
        let stores = resolver::open_stores(&config.tables_uri()?, SharedClock::clone(&clock), Arc::new(archive)).await?;
        let tenant = TenantId::new(DEFAULT_TENANT)?;
        stores.registry.create_tenant(&tenant).await?;
        let verifier = KeyVerifier::new(Arc::clone(&stores.registry), SharedClock::clone(&clock), KEYS_REMEMBERED);
        let admin_key = admin_key(&stores, &verifier, &paths, &tenant, &clock).await?;

        let controller = ShutdownController::default();
        let tasks = Tasks::new(controller.clone());
        let readiness = Readiness::new(&controller);
        let mut checks = Vec::new();

        let check = readiness.register("raw writer");
        checks.push(check.clone());
        let (writer, raw_writer) =
            raw_writer::Service::new(config.raw_writer.clone(), stores.clone(), SharedClock::clone(&clock), check);
        let token = controller.register(Phase::DrainIngest, "raw writer");
        tasks.spawn("raw writer", TaskPolicy::Essential, writer.run(token));

        let live: Arc<dyn LiveView> = if live {
            let check = readiness.register("speed layer");
            checks.push(check.clone());
            let clock = SharedClock::clone(&clock);
            let (service, handle) = dwell_speed_layer::Service::new(config.speed.clone(), stores.clone(), clock, check)?;
            let token = controller.register(Phase::CheckpointSessions, "speed layer");
            tasks.spawn("speed layer", TaskPolicy::Essential, service.run(token));
            Arc::new(handle)
        } else {
            Arc::new(NoLiveView)
        };

        let batch = BatchLayer::new(stores.clone(), SharedClock::clone(&clock), config.batch.clone(), "embedded")?
            .with_live_view(Arc::clone(&live));
        let importer =
            Importer::new(&config, stores.clone(), SharedClock::clone(&clock), tenant.clone(), paths.spill.clone());
        let verifier = Arc::new(verifier);
        let wake = Arc::new(Notify::new());
        let ingest = dwell_ingest::http::State::new(
            config.ingest.clone(),
            stores.clone(),
            SharedClock::clone(&clock),
            Arc::clone(&verifier),
            raw_writer.clone(),
        );
        let worker = JobWorker {
            stores: stores.clone(),
            clock: SharedClock::clone(&clock),
            batch: batch.clone(),
            importer: importer.clone(),
            replayer: ingest.replayer(),
            wake: Arc::clone(&wake),
        };
        let token = controller.register(Phase::StopJobs, "job worker");
        tasks.spawn("job worker", TaskPolicy::Essential, worker.run(token));

        let serving = AppState::new(Parts {
            stores: stores.clone().into(),
            live,
            verifier: Arc::clone(&verifier),
            jobs: Arc::new(jobs::Catalogue::new(Arc::clone(&wake))),
            clock: SharedClock::clone(&clock),
            shutdown: controller.signal(Phase::StopAccepting),
            config: config.serving.clone(),
            further_documents: vec![dwell_ingest::http::document(), routes::document()],
        });
        let ops = OpsState {
            stores: stores.clone(),
            paths: paths.clone(),
            clock: SharedClock::clone(&clock),
            verifier: Arc::clone(&verifier),
            wake: Arc::clone(&wake),
        };
        let router = dwell_serving_api::app(serving)
            .merge(dwell_ingest::http::router(ingest))
            .merge(routes::router(ops))
            .fallback(dwell_serving_api::problem::no_such_route);
        Ok(Self {
            config,
            paths,
            clock,
            stores,
            tenant,
            admin_key,
            controller,
            tasks,
            readiness,
            checks,
            importer,
            batch,
            raw_writer,
            nights: None,
            router,
            log: None,
            lock,
        })
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub(crate) fn admin_key(&self) -> &str {
        &self.admin_key
    }

    pub(crate) fn importer(&self) -> &Importer {
        &self.importer
    }

    pub(crate) fn paths(&self) -> &DataPaths {
        &self.paths
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.paths.root
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(crate) fn controller(&self) -> &ShutdownController {
        &self.controller
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Ends everything in order; an error names who did not end in time.
    pub(crate) async fn close(self) -> Result<()> {
        self.controller.trigger();
        let report = self.end().await;
        match report.is_clean() {
            true => Ok(()),
            false => anyhow::bail!("the shutdown was not clean: {report}"),
        }
    }

    async fn end(self) -> ShutdownReport {
        let report = self.controller.run_to_completion(SHUTDOWN_MAX, &*self.clock).await;
        match report.is_clean() {
            true => tracing::info!(%report, "stopped"),
            false => tracing::warn!(%report, "stopped, not all in time"),
        }
        report
    }
}

/// The key of the folder's owner: the one in `admin.key` while it is good, else a new one, shown to nobody else.
async fn admin_key(
    stores: &Stores,
    verifier: &KeyVerifier,
    paths: &DataPaths,
    tenant: &TenantId,
    clock: &SharedClock,
) -> Result<String> {
    if let Ok(known) = instance::read_admin_key(&paths.root)
        && verifier.verify(&known).await.is_ok_and(|principal| principal.role == Role::Admin)
    {
        return Ok(known);
    }
    let name = Some("admin.key of the data folder".to_owned());
    let (key, text) = access::issue(tenant.clone(), Role::Admin, None, name, clock.now_ms())?;
    stores.registry.put_key(&key).await?;
    instance::write_admin_key(paths, text.reveal())?;
    Ok(text.reveal().to_owned())
}

/// What former processes left in a folder of theirs.
fn empty_folder(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
