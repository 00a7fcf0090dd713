//! The engines behind the stores: opened as the configuration says, waited for, watched.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dwell_runtime::admin::CheckHandle;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::{Phase, ShutdownToken};
use dwell_runtime::tasks::TaskPolicy;
use dwell_storage::api::Stores;
use dwell_storage::decorators::instrumented::instrument;
use dwell_storage::error::{Result as StorageResult, StorageError};
use dwell_storage::lock::DataDirLock;
use dwell_storage::paths::DataPaths;
use dwell_storage::resolver;

use super::Base;
use crate::config::Config;
use crate::metrics;
use crate::roles::{Role, Roles};

/// How long a process waits between attempts to open its stores.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// How often the engines are looked at.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How long an engine may take to answer a look.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// The stores of an installation, opened.
pub(crate) struct Engines {
    pub(crate) stores: Stores,
    /// Folder of this process: the data folder where everything is embedded, else one for what does not outlive it.
    pub(crate) paths: DataPaths,
    /// Everything lies in the data folder, which is this process's alone.
    pub(crate) embedded: bool,
    pub(crate) hold: Hold,
}

/// What is given back last.
pub(crate) enum Hold {
    /// The data folder.
    Folder(DataDirLock),
    /// The folder of this process, removed in the end.
    Scratch(PathBuf),
}

impl Hold {
    pub(crate) fn release(self) {
        match self {
            Hold::Folder(lock) => drop(lock),
            Hold::Scratch(folder) => {
                if let Err(error) = std::fs::remove_dir_all(&folder) {
                    tracing::debug!(%error, folder = %folder.display(), "cannot remove the folder of this process");
                }
            }
        }
    }
}

impl Engines {
    /// Opens the stores, once.
    pub(crate) async fn open(config: &Config, base: &Base) -> Result<Self> {
        let settings = config.engines()?;
        let embedded = settings.is_embedded();
        let (paths, hold) = match embedded {
            true => {
                let paths = DataPaths::new(&config.data_dir);
                let lock = DataDirLock::acquire(&paths)?;
                empty_folder(&paths.spill)?;
                (paths, Hold::Folder(lock))
            }
            false => {
                let paths = scratch(config)?;
                let root = paths.root.clone();
                (paths, Hold::Scratch(root))
            }
        };
        match resolver::open_stores(&settings, Arc::clone(&base.clock), &base.tasks).await {
            Ok(stores) => Ok(Self {
                stores: instrument(stores),
                paths,
                embedded,
                hold,
            }),
            Err(error) => {
                hold.release();
                Err(error.into())
            }
        }
    }

    /// Opens the stores, and waits for engines that cannot be reached; `None` when the shutdown came first.
    pub(crate) async fn open_patiently(config: &Config, base: &Base) -> Result<Option<Self>> {
        let check = base.readiness.register("engines");
        loop {
            let opened = tokio::select! {
                opened = Self::open(config, base) => opened,
                () = base.controller.triggered() => return Ok(None),
            };
            let error = match opened {
                Ok(engines) => {
                    check.set_ok();
                    engines.watch(base, check);
                    return Ok(Some(engines));
                }
                Err(error) => error,
            };
            let is_away = error
                .downcast_ref::<StorageError>()
                .is_some_and(|error| error.kind().is_retryable());
            if !is_away || config.engines()?.is_embedded() {
                return Err(error);
            }
            tracing::warn!(
                error = format!("{error:#}"),
                "the engines cannot be reached; trying again"
            );
            check.set_not_ok(format!("{error:#}"));
            tokio::select! {
                () = base.clock.sleep(OPEN_AGAIN) => {}
                () = base.controller.triggered() => return Ok(None),
            }
        }
    }

    /// `check` has said that the stores are open; it is kept as long as the process.
    fn watch(&self, base: &Base, check: CheckHandle) {
        let token = base.controller.register(Phase::CloseStores, "engines");
        base.tasks.spawn("engines", TaskPolicy::Log, async move {
            token.requested().await;
            drop(check);
        });
    }

    /// Looks at the engines that a process uses, for readiness and metrics.
    pub(crate) fn probe(&self, base: &Base, roles: Roles) {
        if self.embedded {
            return;
        }
        for engine in [Engine::Log, Engine::Tables, Engine::Archive] {
            let Some(need) = engine.needed_by(roles) else {
                continue;
            };
            let check = base.readiness.register(engine.name());
            let token = base.controller.register(Phase::CloseStores, engine.name());
            let probing = probe(
                engine,
                need,
                self.stores.clone(),
                Arc::clone(&base.clock),
                check,
                token,
            );
            base.tasks.spawn("probe", TaskPolicy::Log, probing);
        }
    }
}

/// An engine, as readiness names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Log,
    Tables,
    Archive,
}

/// What a process is without an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Not able to do its work.
    Essential,
    /// Able to go on for a while with what it knows.
    Useful,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Log => "event log",
            Engine::Tables => "tables",
            Engine::Archive => "archive",
        }
    }

    fn needed_by(self, roles: Roles) -> Option<Need> {
        let Roles::One(role) = roles else {
            return Some(Need::Essential);
        };
        match (self, role) {
            (Engine::Log, Role::Ingest | Role::RawWriter | Role::Speed | Role::Batch) => {
                Some(Need::Essential)
            }
            (Engine::Log, Role::Serve | Role::Scheduler) => None,
            // Events are taken with the venues and keys last known; queries are answered from what was answered before.
            (Engine::Tables, Role::Ingest | Role::Serve) => Some(Need::Useful),
            (Engine::Tables, _) => Some(Need::Essential),
            (Engine::Archive, Role::Batch) => Some(Need::Essential),
            // The ledger of erasures lies there. Who has read it once goes on without it; who begins waits for it.
            (Engine::Archive, Role::RawWriter | Role::Speed) => Some(Need::Useful),
            (Engine::Archive, _) => None,
        }
    }

    async fn ask(self, stores: &Stores) -> StorageResult<()> {
        match self {
            Engine::Log => stores.log.bounds(0).await.map(drop),
            Engine::Tables => stores.registry.version().await.map(drop),
            Engine::Archive => stores.archive.tables().await.map(drop),
        }
    }
}

async fn probe(
    engine: Engine,
    need: Need,
    stores: Stores,
    clock: SharedClock,
    check: CheckHandle,
    shutdown: ShutdownToken,
) {
    loop {
        let asked = tokio::select! {
            asked = engine.ask(&stores) => asked.map_err(|error| error.to_string()),
            () = clock.sleep(PROBE_MAX) => Err(format!("no answer within {} s", PROBE_MAX.as_secs())),
            () = shutdown.requested() => return,
        };
        metrics::engine_up(engine.name(), asked.is_ok());
        match (asked, need) {
            (Ok(()), _) => check.set_ok(),
            (Err(error), Need::Essential) => check.set_not_ok(error),
            (Err(error), Need::Useful) => check.set_degraded(error),
        }
        tokio::select! {
            () = clock.sleep(PROBE_EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// A folder for what does not outlive the process. Several processes may share a data folder.
fn scratch(config: &Config) -> Result<DataPaths> {
    let processes = config.data_dir.join("processes");
    remove_abandoned(&processes);
    let paths = DataPaths::new(processes.join(std::process::id().to_string()));
    paths
        .create()
        .with_context(|| "data_dir must name a folder that this process may write to")?;
    Ok(paths)
}

/// Removes the folders of processes that are gone. One of them that is alive under a number used again keeps its own.
fn remove_abandoned(processes: &std::path::Path) {
    for entry in std::fs::read_dir(processes).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_alive = std::path::Path::new("/proc").join(&name).exists();
        if !is_alive && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::debug!(%error, folder = %entry.path().display(), "cannot remove an abandoned folder");
        }
    }
}

/// What former processes left in a folder of theirs.
fn empty_folder(folder: &std::path::Path) -> Result<()> {
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

/// Refuses a role of its own where nothing could be shared with it.
pub(crate) fn check_roles(config: &Config, roles: Roles) -> Result<()> {
    if matches!(roles, Roles::One(_)) && config.engines()?.is_embedded() {
        bail!(
            "{roles} works with engines that processes can share, and the configuration keeps everything in {}: set \
             storage.log and storage.tables (see docs/deploying.md), or run `dwell up`",
            config.data_dir.display()
        );
    }
    Ok(())
}
