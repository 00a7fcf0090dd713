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
use dwell_ingest::intake::{Intake, IntakeStores};
use dwell_ingest::raw_writer::{self, LagSource, RawWriterStores};
use dwell_ingest::sources::http;
use dwell_model::ids::TenantId;
use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::{SharedClock, SystemClock};
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_runtime::telemetry::LogHandle;
use dwell_serving_api::{AppState, Parts};
use dwell_storage::access::{self, KeyVerifier};
use dwell_storage::api::{EventLog, LiveView, Role, Stores};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::decorators::instrumented::instrument;
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
        let archive = DeltaArchive::local(&archive_dir, Arc::clone(&clock))
            .with_context(|| format!("cannot open the archive in {}", archive_dir.display()))?;
        let stores =
            resolver::open_stores(&config.tables_uri()?, Arc::clone(&clock), Arc::new(archive)).await?;
        let stores = instrument(stores);
        let tenant = TenantId::new(DEFAULT_TENANT)?;
        stores.registry.create_tenant(&tenant).await?;
        let verifier = KeyVerifier::new(Arc::clone(&stores.registry), Arc::clone(&clock), KEYS_REMEMBERED);
        let admin_key = admin_key(&stores, &verifier, &paths, &tenant, &clock).await?;

        let controller = ShutdownController::default();
        let tasks = Tasks::new(controller.clone());
        let readiness = Readiness::new(&controller);

        let sources = RawWriterStores {
            log: Arc::<dyn EventLog>::clone(&stores.log),
            raw: Arc::clone(&stores.raw),
            quarantine: Arc::clone(&stores.quarantine),
        };
        let check = readiness.register("raw writer");
        let member = stores.log.join(raw_writer::CONSUMER).await?;
        let (writer, raw_writer) = raw_writer::Service::new(
            raw_writer::Config::default(),
            sources,
            Arc::from(member),
            Arc::clone(&clock),
            Some(check),
        );
        let token = controller.register(Phase::DrainIngest, "raw writer");
        tasks.spawn("raw writer", TaskPolicy::Essential, writer.run(token));

        let live: Arc<dyn LiveView> = if live {
            let deps = dwell_speed_layer::Deps::from_stores(
                &stores,
                Arc::clone(&clock),
                tasks.clone(),
                readiness.clone(),
            );
            let service = dwell_speed_layer::Service::new(deps, config.speed.clone())?;
            let handle = service.handle();
            let token = controller.register(Phase::CheckpointSessions, "speed layer");
            tasks.spawn("speed layer", TaskPolicy::Essential, service.run(token));
            Arc::new(handle)
        } else {
            Arc::new(NoLiveView)
        };

        let batch = BatchLayer::new(
            stores.clone(),
            Arc::clone(&clock),
            config.batch.clone(),
            "embedded",
        )?
        .with_live_view(Arc::clone(&live));
        let importer = Importer::new(
            &config,
            stores.clone(),
            Arc::clone(&clock),
            tenant.clone(),
            paths.spill.clone(),
        );
        let verifier = Arc::new(verifier);
        let wake = Arc::new(Notify::new());
        let intake_stores = IntakeStores {
            log: Arc::<dyn EventLog>::clone(&stores.log),
            registry: Arc::clone(&stores.registry),
            quarantine: Arc::clone(&stores.quarantine),
            pseudonym_keys: Arc::clone(&stores.pseudonym_keys),
        };
        let intake = Intake::new(config.intake(), intake_stores, Arc::clone(&clock));
        let replayer = intake.replayer();
        let lag: Arc<dyn LagSource> = Arc::new(raw_writer.clone());
        let ingest = http::HttpState::new(config.http(), intake, Some(lag), Arc::clone(&clock));
        let worker = JobWorker {
            stores: stores.clone(),
            clock: Arc::clone(&clock),
            batch: batch.clone(),
            importer: importer.clone(),
            replayer,
            wake: Arc::clone(&wake),
        };
        let token = controller.register(Phase::StopJobs, "job worker");
        tasks.spawn("job worker", TaskPolicy::Essential, worker.run(token));

        let serving = AppState::new(Parts {
            stores: stores.clone().into(),
            live,
            verifier: Arc::clone(&verifier),
            jobs: Arc::new(jobs::Catalogue::new(Arc::clone(&wake))),
            clock: Arc::clone(&clock),
            shutdown: controller.signal(Phase::StopAccepting),
            config: config.serving,
            further_documents: vec![http::openapi(), routes::document()],
        });
        let ops = OpsState {
            stores: stores.clone(),
            paths: paths.clone(),
            clock: Arc::clone(&clock),
            verifier: Arc::clone(&verifier),
            wake: Arc::clone(&wake),
        };
        let router = dwell_serving_api::app(serving)
            .merge(http::authenticated_router(ingest, Arc::clone(&verifier)))
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

    /// Ends everything in order, then gives the folder back; an error names who did not end in time, or the part that
    /// could not go on.
    pub(crate) async fn close(self) -> Result<()> {
        self.controller.trigger();
        let report = self
            .controller
            .run_to_completion(SHUTDOWN_MAX, &*self.clock)
            .await;
        drop(self.lock);
        match report.is_clean() {
            true => tracing::info!(%report, "stopped"),
            false => anyhow::bail!("the shutdown was not clean: {report}"),
        }
        Ok(())
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
        && verifier
            .verify(&known)
            .await
            .is_ok_and(|known| known.is_some_and(|principal| principal.role == Role::Admin))
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
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
