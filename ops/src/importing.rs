//! Imports, whoever asks for them: the command line on a folder, or an uploaded job of a running instance.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use dwell_ingest::sources::files::{
    ImportDeps, ImportOptions, ImportProgress, ImportReport, MappingSpec, Road, import,
};
use dwell_model::ids::TenantId;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{Stores, raw_copied_to};
use dwell_storage::usage::{Amounts, UsageCounter};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::config::Config;

/// How long an import waits for the raw writer to have copied what it sent through the log.
const RAW_WRITER_WAIT: Duration = Duration::from_secs(600);

/// What to import how, as flags and jobs say it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImportRequest {
    /// Straight into the archive instead of through the log.
    pub(crate) to_archive: bool,
    /// How columns become fields.
    pub(crate) mapping: MappingSpec,
}

/// Imports files with an installation's limits.
#[derive(Debug, Clone)]
pub(crate) struct Importer {
    deps: ImportDeps,
    options: ImportOptions,
    usage: UsageCounter,
    /// Sorting takes much memory: whoever sorts waits for the one before.
    sorting: Arc<Semaphore>,
}

impl Importer {
    pub(crate) fn new(
        config: &Config,
        stores: Stores,
        clock: SharedClock,
        tenant: TenantId,
        spill_dir: PathBuf,
        usage: UsageCounter,
    ) -> Self {
        let mut options = ImportOptions {
            sort_memory_bytes: config.batch.memory.as_usize(),
            future_ms_max: config.ingest.future_tolerance.as_ms(),
            presence_late_ms: config.ingest.presence_late.as_ms(),
            ..ImportOptions::new(tenant, spill_dir)
        };
        options.quarantine.bounds = config.quarantine_bounds();
        Self {
            deps: ImportDeps { stores, clock },
            options,
            usage,
            sorting: Arc::new(Semaphore::new(1)),
        }
    }

    /// Imports files. What went through the log is in the raw table when it returns, so that the next command finds it.
    pub(crate) async fn run(
        &self,
        tenant: &TenantId,
        paths: Vec<PathBuf>,
        request: &ImportRequest,
        progress: Arc<dyn ImportProgress>,
    ) -> Result<ImportReport> {
        let options = ImportOptions {
            tenant: tenant.clone(),
            road: if request.to_archive {
                Road::Archive
            } else {
                Road::Log
            },
            mapping: request.mapping.clone(),
            ..self.options.clone()
        };
        let _sorting = match request.to_archive {
            true => Some(self.sorting.acquire().await?),
            false => None,
        };
        let report = import(paths, &options, &self.deps, progress).await?;
        // A file's events may be of many venues: they are counted for the tenant.
        let amounts = Amounts::events(report.accepted, report.refused);
        self.usage.count(tenant, None, "events", "file", amounts);
        if report.logged > 0 {
            self.wait_for_raw_writer().await?;
        }
        Ok(report)
    }

    async fn wait_for_raw_writer(&self) -> Result<()> {
        let (log, raw) = (&self.deps.stores.log, &self.deps.stores.raw);
        for partition in 0..log.partitions() {
            let end = log.bounds(partition).await?.end;
            let mut waited = Duration::ZERO;
            loop {
                if raw_copied_to(&**log, &**raw, partition).await? >= end {
                    break;
                }
                if waited >= RAW_WRITER_WAIT {
                    bail!(
                        "the events are durable in the log, but the raw writer has not copied them yet; see its lag in /metrics"
                    );
                }
                let pause = Duration::from_millis(20);
                self.deps.clock.sleep(pause).await;
                waited += pause;
            }
        }
        Ok(())
    }
}
