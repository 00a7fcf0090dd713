//! `backup`, `restore-backup`, `drill`: the installation's backups, as jobs.
//!
//! A backup holds the data of all tenants, so only the operators of the installation's own tenant may ask for one.

use std::str::FromStr;

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_model::time::format_rfc3339;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState, Lane, Role};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backup::BackupPlace;
use dwell_storage::resolver::{self, StoreUri};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};
use crate::backup::pruning::{self, Keep};
use crate::backup::restoring::{self, How};
use crate::backup::{INSTALLATION_TENANT, Side, drill, is_cancelled, state, taking};

/// Days that a drill computes anew when nobody says how many.
const SAMPLE: usize = 5;

/// What any of the kinds is told.
#[derive(Debug, Deserialize)]
struct Spec {
    /// Where a backup goes.
    to: Option<String>,
    /// Where one is read from.
    from: Option<String>,
    #[serde(default)]
    archive: bool,
    keep: Option<usize>,
    keep_days: Option<u64>,
    backup: Option<String>,
    #[serde(default)]
    force: bool,
    sample: Option<usize>,
    #[serde(default)]
    dry_run: bool,
}

/// A kind of work on backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackupJob {
    Backup,
    RestoreBackup,
    Drill,
}

#[async_trait]
impl JobKind for BackupJob {
    fn declared(&self) -> Option<DeclaredJob> {
        let (kind, summary): (_, &'static str) = match self {
            BackupJob::Backup => (
                "backup",
                "Back up tables, documents and keys to a place; with the option archive the archive's files too",
            ),
            BackupJob::RestoreBackup => ("restore-backup", "Bring a backup back into an empty installation"),
            BackupJob::Drill => (
                "drill",
                "Restore the newest backup into a scratch folder, and compare",
            ),
        };
        let (options, required): (&'static [&'static str], &'static [&'static str]) = match self {
            BackupJob::Backup => (&["to", "archive", "keep", "keep_days"], &["to"]),
            BackupJob::RestoreBackup => (&["from", "backup", "force"], &["from"]),
            BackupJob::Drill => (&["from", "backup", "sample"], &[]),
        };
        Some(DeclaredJob {
            kind,
            summary,
            takes_days: false,
            takes_dry_run: *self == BackupJob::RestoreBackup,
            options,
            required,
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        if request.tenant.as_str() != INSTALLATION_TENANT {
            return Err(JobRefusal(format!(
                "a backup holds all tenants' data: only the operators of the tenant {INSTALLATION_TENANT} may ask for one"
            )));
        }
        let spec: Spec = serde_json::from_value(request.to_spec())
            .map_err(|error| JobRefusal(format!("the options cannot be read: {error}")))?;
        for place in [&spec.to, &spec.from].into_iter().flatten() {
            place_of(place).map_err(|error| JobRefusal(format!("{error:#}")))?;
        }
        Ok(())
    }

    fn needs(&self) -> Role {
        // A backup holds everything, the keys of pseudonyms among it, and is written where the one who asks says.
        Role::Admin
    }

    fn lane(&self, _: &JobRequest) -> Lane {
        match self {
            BackupJob::Backup => Lane::Demand,
            BackupJob::RestoreBackup | BackupJob::Drill => Lane::Backfill,
        }
    }

    fn runs_alone(&self) -> bool {
        true
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        Ok(job.spec.clone())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let done = match self {
            BackupJob::Backup => backup(worker, job, &spec, &progress, &cancel).await,
            BackupJob::RestoreBackup => restore(worker, job, &spec, &progress, &cancel).await,
            BackupJob::Drill => drill_newest(worker, job, &spec, &progress, &cancel).await,
        };
        match done {
            Err(error) if is_cancelled(&error) => Ok(Outcome::cancelled(Value::Null)),
            done => done,
        }
    }
}

async fn backup(
    worker: &JobWorker,
    job: &Job,
    spec: &Spec,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    if let Some(to) = &spec.to {
        BackupPlace::make(&place_of(to)?, &worker.settings.engines.objects)?;
    }
    let opened = Opened::new(worker, spec.to.as_deref())?;
    let tell = |done: u64, total: u64, doing: &str| progress.set(done, total, doing);
    let side = opened.side(worker, job, &tell, cancel);
    let taken = taking::take(&side, &backup_id(job), spec.archive).await?;
    let keep = Keep {
        count: spec.keep,
        days: spec.keep_days,
    };
    let mut report = serde_json::to_value(&taken)?;
    if keep != Keep::default() {
        let pruned = prune(worker, job, &opened.place, keep).await?;
        report["pruned"] = serde_json::to_value(&pruned)?;
    }
    if taken.problems.is_empty() {
        return Ok(Outcome::succeeded(report));
    }
    let error = format!(
        "{} generations could not be read and are not in the backup; the first: {}",
        taken.problems.len(),
        taken.problems[0]
    );
    Ok(Outcome::troubled(JobState::Partial, report, error))
}

async fn prune(worker: &JobWorker, job: &Job, place: &BackupPlace, keep: Keep) -> Result<pruning::Pruned> {
    let documents = worker.stores.documents.as_ref();
    let now = || worker.clock.now_ms();
    state::hold_place(documents, place.name(), &job.id, now()).await?;
    let pruned = pruning::prune(place, keep, now()).await;
    state::release_place(documents, place.name(), &job.id, now()).await?;
    pruned
}

async fn restore(
    worker: &JobWorker,
    job: &Job,
    spec: &Spec,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let opened = Opened::new(worker, spec.from.as_deref())?;
    let tell = |done: u64, total: u64, doing: &str| progress.set(done, total, doing);
    let side = opened.side(worker, job, &tell, cancel);
    let manifest = restoring::find(&side, spec.backup.as_deref()).await?;
    let how = How {
        force: spec.force,
        dry_run: spec.dry_run,
        is_drill: false,
    };
    let restored = restoring::restore(&side, &manifest, how).await?;
    Ok(Outcome::succeeded(serde_json::to_value(&restored)?))
}

async fn drill_newest(
    worker: &JobWorker,
    job: &Job,
    spec: &Spec,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let documents = worker.stores.documents.as_ref();
    let known = state::load(documents).await?.place;
    let from = spec
        .from
        .as_deref()
        .or_else(|| (!known.is_empty()).then_some(known.as_str()))
        .context("there was no backup yet: take one, or name a place")?;
    let opened = Opened::new(worker, Some(from))?;
    let tell = |done: u64, total: u64, doing: &str| progress.set(done, total, doing);
    let side = opened.side(worker, job, &tell, cancel);
    let manifest = restoring::find(&side, spec.backup.as_deref()).await?;
    let scratch = worker.settings.scratch.join(format!("drill-{}", job.id));
    let sample = spec.sample.unwrap_or(SAMPLE);
    let config = worker.batch.config();
    let drilled = drill::drill(&side, &manifest, config, &scratch, sample).await?;
    let report = serde_json::to_value(&drilled)?;
    if drilled.differing > 0 {
        let first = drilled.differences.first().map_or("", String::as_str);
        let error = format!("{} differences; the first: {first}", drilled.differing);
        return Ok(Outcome::troubled(JobState::Failed, report, error));
    }
    let last = state::LastDrill {
        backup: drilled.backup.clone(),
        at: worker.clock.now_ms(),
        duration_ms: drilled.restore_ms + drilled.compare_ms + drilled.recompute_ms,
    };
    state::change(documents, |state| state.drill = Some(last.clone())).await?;
    Ok(Outcome::succeeded(report))
}

/// What a job works with.
struct Opened {
    place: BackupPlace,
    archive: DeltaArchive,
    archive_name: String,
}

impl Opened {
    fn new(worker: &JobWorker, place: Option<&str>) -> Result<Self> {
        let engines = &worker.settings.engines;
        let place = place_of(place.context("a place is missing")?)?;
        Ok(Self {
            place: BackupPlace::open(&place, &engines.objects)?,
            archive: resolver::open_archive(engines, &worker.clock)?,
            archive_name: engines.archive.to_string(),
        })
    }

    fn side<'a>(
        &'a self,
        worker: &'a JobWorker,
        job: &'a Job,
        tell: &'a (dyn Fn(u64, u64, &str) + Send + Sync),
        cancel: &'a CancellationToken,
    ) -> Side<'a> {
        Side {
            stores: &worker.stores,
            archive: Some(&self.archive),
            archive_name: &self.archive_name,
            place: &self.place,
            clock: &worker.clock,
            job: &job.id,
            repeat_erasures_ms: worker.eraser.repeats_ms(),
            tell,
            cancel,
        }
    }
}

/// A place by its URI.
pub(crate) fn place_of(text: &str) -> Result<StoreUri> {
    let uri = StoreUri::from_str(text)?;
    match uri {
        StoreUri::Folder(_) | StoreUri::Objects(_) => Ok(uri),
        other => anyhow::bail!("{other} can hold no backups: file:///, s3://, gs:// and az:// can"),
    }
}

/// A backup's id: when its job was asked for, and by which; the same however often the job is begun.
fn backup_id(job: &Job) -> String {
    let at: String = format_rfc3339(job.created_at)
        .chars()
        .take("2026-11-21T10:15:00".len())
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    format!("{at}Z-{}", job.id)
}
