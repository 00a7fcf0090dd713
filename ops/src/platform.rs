//! A process of the platform: stores, the layers of its roles and its routers, wired together and nothing else.
//!
//! ```text
//! Base (clock, shutdown, readiness, admin port) ─▶ Engines (stores) ─▶ Platform::assemble (layers, router) ─▶ listeners
//! ```
//!
//! [`Platform::open_for_command`] is what a command has that has opened the stores itself: no listeners, no nights.

mod base;
mod engines;
mod folder;
mod housekeeping;
mod no_live_view;
mod pinned;
mod servers;
#[cfg(test)]
mod tests;

pub(crate) use base::Base;
pub(crate) use engines::{Engines, check_roles};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use dwell_batch_layer::BatchLayer;
use dwell_ingest::intake::{Intake, IntakeStores};
use dwell_ingest::raw_writer::{self, LagSource, RawWriterStores, StoredLag};
use dwell_ingest::sources::http;
use dwell_model::ids::TenantId;
use dwell_retention::Retention;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_serving_api::{AppState, JobCatalogue, Parts};
use dwell_storage::access::{self, INSTALLATION_TENANT, KeyVerifier};
use dwell_storage::api::{EventLog, LiveView, RawEvents, Role as KeyRole, Stores};
use dwell_storage::decorators::erasing::honour_erasures;
use dwell_storage::decorators::recutting::honour_recuts;
use dwell_storage::erasure::ErasureWatch;
use dwell_storage::paths::DataPaths;
use dwell_storage::usage::{UsageCounter, UsageWriter};
use tokio::sync::Notify;

use crate::client::Client;
use crate::config::Config;
use crate::erasing::Eraser;
use crate::importing::Importer;
use crate::instance;
use crate::jobs::{self, JobSettings, JobWorker};
use crate::roles::{Role, Roles};
use crate::routes::{self, OpsState};
use crate::schedule::{Remembered, Scheduler};
use engines::Hold;
use no_live_view::NoLiveView;
use pinned::PinnedGenerations;

/// Keys that the verifier remembers.
const KEYS_REMEMBERED: usize = 10_000;
/// How long an orderly shutdown may take in all.
const SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// A process with its parts.
pub(crate) struct Platform {
    config: Config,
    roles: Roles,
    base: Base,
    paths: DataPaths,
    embedded: bool,
    stores: Stores,
    tenant: TenantId,
    admin_key: String,
    importer: Importer,
    awaited: Arc<jobs::Awaited>,
    router: Router,
    /// Given back last.
    hold: Hold,
}

impl Platform {
    /// Opens the stores for a command.
    pub(crate) async fn open_for_command(config: Config) -> Result<Self> {
        let base = Base::new();
        let engines = Engines::open(&config, &base).await?;
        Self::assemble(config, base, engines, Roles::Command).await
    }

    /// Wires the layers of some roles together.
    pub(crate) async fn assemble(config: Config, base: Base, engines: Engines, roles: Roles) -> Result<Self> {
        engines.probe(&base, roles);
        let Engines {
            stores,
            paths,
            embedded,
            hold,
        } = engines;
        // Whose days are being cut anew, nobody works on them: the eraser neither.
        let stores = honour_recuts(stores);
        // Everybody but the eraser works with stores that leave out whom the ledger names.
        let bare = stores.clone();
        let watch = ErasureWatch::new(
            &holder()?,
            Arc::clone(&stores.erasures),
            Arc::clone(&stores.documents),
            Arc::clone(&base.clock),
        );
        let stores = honour_erasures(stores, &watch);
        if let Err(error) = watch.read_on().await {
            tracing::warn!(%error, "the ledger of erasures cannot be read yet: nothing is written into raw before it can");
        }
        if roles.has(Role::RawWriter) || roles.has(Role::Speed) {
            let token = base.controller.register(Phase::StopJobs, "erasures");
            base.tasks
                .spawn("erasures", TaskPolicy::Log, watch.clone().run(token));
        }
        let tenant = TenantId::new(INSTALLATION_TENANT)?;
        stores.registry.create_tenant(&tenant).await?;
        let verifier = KeyVerifier::new(
            Arc::clone(&stores.registry),
            Arc::clone(&base.clock),
            KEYS_REMEMBERED,
        );
        // The owner of a data folder finds a key in it; elsewhere this process has one for itself only.
        let admin_key = match embedded {
            true => admin_key(&stores, &verifier, &paths, &tenant, &base.clock).await?,
            false => verifier
                .trust(tenant.clone(), KeyRole::Admin)?
                .reveal()
                .to_owned(),
        };
        let verifier = Arc::new(verifier);

        // A command on a data folder has nobody else to copy what it imports.
        let raw_writer = match roles.has(Role::RawWriter) || (embedded && roles == Roles::Command) {
            true => Some(start_raw_writer(&base, &stores).await?),
            false => None,
        };
        let (live, speed) = start_live_view(&config, &base, &stores, &watch, roles)?;
        let batch = BatchLayer::new(
            stores.clone(),
            Arc::clone(&base.clock),
            config.batch.clone(),
            &holder()?,
        )?
        .with_live_view(Arc::clone(&live));
        let retention = Retention::new(
            stores.clone(),
            Arc::clone(&base.clock),
            config.retention_settings(),
            Arc::new(PinnedGenerations::new(
                Arc::clone(&stores.documents),
                Arc::clone(&stores.venue_days),
            )),
            &holder()?,
        );
        let usage = UsageCounter::default();
        let writer = UsageWriter::new(
            usage.clone(),
            Arc::clone(&stores.documents),
            Arc::clone(&base.clock),
            &holder()?,
        );
        let token = base.controller.register(Phase::FinishRequests, "usage");
        base.tasks.spawn("usage", TaskPolicy::Log, async move {
            writer.run(token).await;
            Ok::<_, std::convert::Infallible>(())
        });
        // What a command asks of itself is no use of the API; what it brings in counts.
        let asked = match roles == Roles::Command {
            true => UsageCounter::default(),
            false => usage.clone(),
        };
        let importer = Importer::new(
            &config,
            stores.clone(),
            Arc::clone(&base.clock),
            tenant.clone(),
            paths.spill.clone(),
            usage.clone(),
        );
        let wake = Arc::new(Notify::new());
        let awaited = Arc::new(jobs::Awaited::new(Arc::clone(&wake)));
        let kinds: Arc<dyn JobCatalogue> = Arc::new(jobs::Catalogue::new(Arc::clone(&wake)));
        if roles.has(Role::Scheduler) {
            let scheduler = Scheduler {
                stores: stores.clone(),
                batch: batch.clone(),
                kinds: Arc::clone(&kinds),
                clock: Arc::clone(&base.clock),
                built_in: config.schedules.clone(),
                remembered: Remembered::default(),
            };
            let token = base.controller.register(Phase::StopJobs, "schedules");
            base.tasks
                .spawn("schedules", TaskPolicy::Essential, scheduler.run(token));
        }
        let intake_stores = IntakeStores {
            log: Arc::<dyn EventLog>::clone(&stores.log),
            registry: Arc::clone(&stores.registry),
            quarantine: Arc::clone(&stores.quarantine),
            pseudonym_keys: Arc::clone(&stores.pseudonym_keys),
        };
        let intake = Intake::new(config.intake(), intake_stores, Arc::clone(&base.clock)).counting(&usage);
        let replayer = intake.replayer().honouring(watch.clone());
        if roles.has(Role::Batch) || roles == Roles::Command {
            let (places, awaited) = match roles == Roles::Command {
                true => (jobs::Places::of_command(), Some(Arc::clone(&awaited))),
                false => (config.jobs.clone(), None),
            };
            let worker = JobWorker {
                stores: stores.clone(),
                clock: Arc::clone(&base.clock),
                batch: batch.clone(),
                importer: importer.clone(),
                replayer: replayer.clone(),
                eraser: Eraser {
                    bare,
                    watch,
                    batch: batch.clone(),
                    clock: Arc::clone(&base.clock),
                    log_retention_ms: config.retention.log.as_ms(),
                    presence_late_ms: dwell_ingest::pseudonymise::PRESENCE_LATE_MS,
                },
                speed,
                retention: retention.clone(),
                retention_policy: config.retention_policy(),
                settings: Arc::new(JobSettings {
                    engines: config.engines()?,
                    scratch: paths.spill.clone(),
                    replaced_files_kept: config.retention.replaced_files,
                }),
                wake: Arc::clone(&wake),
                shared: Arc::new(jobs::Shared::new(places, awaited)),
            };
            for place in 1..=worker.count() {
                let name = format!("job worker {place}");
                let token = base.controller.register(Phase::StopJobs, name.as_str());
                base.tasks
                    .spawn(name.as_str(), TaskPolicy::Essential, worker.clone().run(token));
            }
        }
        if roles.has(Role::Batch) {
            let (nights, _) = dwell_batch_layer::Service::new(batch);
            let token = base.controller.register(Phase::StopJobs, "nights");
            base.tasks
                .spawn("nights", TaskPolicy::Essential, nights.run(token));
        }

        let mut router = Router::new();
        if roles.has(Role::Ingest) || roles == Roles::Command {
            // A command posts nothing for long enough to be held back.
            let lag = (roles != Roles::Command)
                .then(|| lag_source(&base, &stores, raw_writer.as_ref().filter(|_| embedded)));
            let ingest = http::HttpState::new(config.http(), intake, lag, Arc::clone(&base.clock));
            router = router.merge(http::authenticated_router(ingest, Arc::clone(&verifier)));
        }
        if roles.has(Role::Serve) || roles == Roles::Command {
            let serving = AppState::new(Parts {
                stores: stores.clone().into(),
                live,
                verifier: Arc::clone(&verifier),
                jobs: Arc::clone(&kinds),
                usage: asked.clone(),
                clock: Arc::clone(&base.clock),
                shutdown: base.controller.signal(Phase::StopAccepting),
                config: config.serving,
                further_documents: vec![http::openapi(), routes::document()],
            });
            let ops = OpsState {
                stores: stores.clone(),
                uploads: embedded.then(|| paths.uploads.clone()),
                spill: paths.spill.clone(),
                clock: Arc::clone(&base.clock),
                verifier: Arc::clone(&verifier),
                wake: Arc::clone(&wake),
                retention,
                retention_policy: config.retention_policy(),
                kinds,
                replayer,
                usage: asked,
                recent_days: config.serving.recent_days,
            };
            router = router
                .merge(dwell_serving_api::app(serving))
                .merge(routes::router(ops));
        }
        Ok(Self {
            router: router.fallback(dwell_serving_api::problem::no_such_route),
            config,
            roles,
            base,
            paths,
            embedded,
            stores,
            tenant,
            admin_key,
            importer,
            awaited,
            hold,
        })
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// A caller of its API with a key, inside this process.
    pub(crate) fn client(&self, key: &str) -> Client {
        Client::in_process(self.router(), Arc::clone(&self.awaited), key)
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

    /// Whether everything lies in the data folder.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.base.clock
    }

    pub(crate) fn controller(&self) -> &ShutdownController {
        &self.base.controller
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.base.tasks
    }

    /// Ends everything in order, then gives the folder back; an error names who did not end in time, or the part that
    /// could not go on.
    pub(crate) async fn close(self) -> Result<()> {
        self.base.controller.trigger();
        let report = self
            .base
            .controller
            .run_to_completion(SHUTDOWN_MAX, &*self.base.clock)
            .await;
        self.hold.release();
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
            .is_ok_and(|known| known.is_some_and(|principal| principal.role == KeyRole::Admin))
    {
        return Ok(known);
    }
    let name = Some("admin.key of the data folder".to_owned());
    let (key, text) = access::issue(tenant.clone(), KeyRole::Admin, None, name, clock.now_ms())?;
    stores.registry.put_key(&key).await?;
    instance::write_admin_key(paths, text.reveal())?;
    Ok(text.reveal().to_owned())
}

async fn start_raw_writer(base: &Base, stores: &Stores) -> Result<raw_writer::Handle> {
    let sources = RawWriterStores::from_stores(stores);
    let member = stores.log.join(raw_writer::CONSUMER).await?;
    let (writer, handle) = raw_writer::Service::new(
        raw_writer::Config::default(),
        sources,
        Arc::from(member),
        Arc::clone(&base.clock),
        Some(base.readiness.register("raw writer")),
    );
    let token = base.controller.register(Phase::DrainIngest, "raw writer");
    base.tasks
        .spawn("raw writer", TaskPolicy::Essential, writer.run(token));
    Ok(handle)
}

/// The live view that this process reads: the table where there is one, else that of its own speed layer; and that
/// layer, if it has one.
fn start_live_view(
    config: &Config,
    base: &Base,
    stores: &Stores,
    watch: &ErasureWatch,
    roles: Roles,
) -> Result<(Arc<dyn LiveView>, Option<dwell_speed_layer::Handle>)> {
    let mut live: Arc<dyn LiveView> = Arc::new(NoLiveView);
    let mut speed = None;
    if roles.has(Role::Speed) {
        let mut deps = dwell_speed_layer::Deps::from_stores(
            stores,
            Arc::clone(&base.clock),
            base.tasks.clone(),
            base.readiness.clone(),
        );
        deps.erasures = Some(watch.clone());
        let service = dwell_speed_layer::Service::new(deps, config.speed.clone())?;
        live = Arc::new(service.handle());
        speed = Some(service.handle());
        let token = base.controller.register(Phase::CheckpointSessions, "speed layer");
        base.tasks
            .spawn("speed layer", TaskPolicy::Essential, service.run(token));
    }
    if let Some(table) = &stores.live {
        live = Arc::<dyn dwell_storage::api::LiveViewTable>::clone(table);
    }
    Ok((live, speed))
}

/// How far the raw writers are behind: that of this process where it is the only one, else what all of them store.
fn lag_source(base: &Base, stores: &Stores, only: Option<&raw_writer::Handle>) -> Arc<dyn LagSource> {
    if let Some(handle) = only {
        return Arc::new(handle.clone());
    }
    let lag = StoredLag::new(Arc::clone(&base.clock));
    let token = base.controller.register(Phase::StopJobs, "raw lag");
    let measuring = lag.clone().run(
        Arc::<dyn EventLog>::clone(&stores.log),
        Arc::<dyn RawEvents>::clone(&stores.raw),
        token,
    );
    base.tasks.spawn("raw lag", TaskPolicy::Log, measuring);
    Arc::new(lag)
}

/// Names this process as the holder of leases; unlike that of any other, on whatever machine, at whatever time.
fn holder() -> Result<String> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("asking for randomness: {error}"))?;
    Ok(format!("{}-{}", std::process::id(), hex::encode(random)))
}
