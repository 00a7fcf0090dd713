//! The kinds of jobs that there are: what each takes, and what does it.
//!
//! A kind is one file with a [`JobKind`] in it and a line in [`KINDS`]. What is asked for is checked when it is asked
//! ([`JobKind::check`]), so that nonsense is refused at once; what there is to do shows when the job runs.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_serving_api::{DeclaredJob, DeclaredJobs, JobCatalogue, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState, Lane, Role};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backups::BackupJob;
use super::{
    JobWorker, Progress, approve, days, erase, export, recut, replay, restore, retention, revert, uploads,
    vacuum,
};

/// All kinds.
const KINDS: &[&dyn JobKind] = &[
    &days::RECOMPUTE,
    &days::ARCHIVE,
    &days::VERIFY,
    &approve::Approve,
    &recut::RecutJob,
    &replay::Replay,
    &replay::DropRefused,
    &revert::Revert,
    &revert::Undo,
    &uploads::Import,
    &retention::Retention,
    &restore::Restore,
    &vacuum::Vacuum,
    &BackupJob::Backup,
    &BackupJob::RestoreBackup,
    &BackupJob::Drill,
    &erase::Erase,
    &export::Export,
];

/// Longest range of days that somebody waits for.
const DEMAND_DAYS_MAX: usize = 31;

/// A kind of job. Doing one twice changes nothing: a worker may die at any point, and another does it again.
#[async_trait]
pub(super) trait JobKind: Sync {
    /// Its name and what it takes; `None` for a kind that has a route of its own to be asked for.
    fn declared(&self) -> Option<DeclaredJob>;

    /// Whether a kind by this name is done by it.
    fn is_named(&self, name: &str) -> bool {
        self.declared().is_some_and(|declared| declared.kind == name)
    }

    /// Checks what options say, once their names are known to be right. Pure and quick.
    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let _ = request;
        Ok(())
    }

    /// The role that may ask for it.
    fn needs(&self) -> Role {
        Role::Operator
    }

    /// Which queue a request waits in that names none.
    fn lane(&self, request: &JobRequest) -> Lane {
        let _ = request;
        Lane::Demand
    }

    /// Whether a tenant's jobs of the kind follow each other, since two at a time would only be in each other's way.
    fn runs_alone(&self) -> bool {
        false
    }

    /// The parameters of a job that does again what a job that has ended could not do.
    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        Err(JobRefusal(format!(
            "a job {} is not taken up again: ask for a new one",
            job.kind
        )))
    }

    /// Whether a job that has failed must not end, whatever it failed of, however often, and though somebody cancelled it:
    /// others wait for what it alone does.
    async fn must_go_on(&self, worker: &JobWorker, job: &Job) -> Result<bool> {
        let _ = (worker, job);
        Ok(false)
    }

    /// Does the job, looking at `cancel` between steps that can be repeated. A failure of a store that may pass by
    /// itself is an error: the job is tried again later.
    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome>;
}

/// The lane of work on a range of days: a month is asked for by somebody who waits, a longer or open range is not.
pub(super) fn lane_of_range(request: &JobRequest) -> Lane {
    let is_short = |days: usize| days <= DEMAND_DAYS_MAX;
    match (request.from, request.to) {
        _ if request.dry_run => Lane::Demand,
        (Some(from), Some(to)) if is_short(from.through(to).take(DEMAND_DAYS_MAX + 1).count()) => {
            Lane::Demand
        }
        _ => Lane::Backfill,
    }
}

/// The parameters of a job that takes up one which works on days, each of which may be done again: the days that its report
/// names as not done. A job that was stopped, or broke off without naming any, is done again as a whole: some of its days
/// were not begun.
pub(super) fn days_again(job: &Job, not_done: Vec<(VenueId, LocalDay)>) -> Result<Value, JobRefusal> {
    let mut spec = job.spec.clone();
    spec["retry_of"] = json!(job.id);
    match job.state {
        JobState::Cancelled => {}
        JobState::Failed if not_done.is_empty() => {}
        _ if not_done.is_empty() => return Err(JobRefusal("no day of the job has failed".to_owned())),
        _ => spec["only"] = json!(not_done),
    }
    Ok(spec)
}

/// What does jobs of a kind.
pub(super) fn kind_of(job: &Job) -> Option<&'static dyn JobKind> {
    KINDS.iter().copied().find(|kind| kind.is_named(&job.kind))
}

/// What a job gave: its final state and report.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) state: JobState,
    pub(super) report: Value,
    pub(super) error: Option<String>,
}

impl Outcome {
    /// Done, with a report.
    pub(super) fn succeeded(report: Value) -> Self {
        Self {
            state: JobState::Succeeded,
            report,
            error: None,
        }
    }

    /// Stopped because somebody asked for it. What was done stays done.
    pub(super) fn cancelled(report: Value) -> Self {
        Self {
            state: JobState::Cancelled,
            report,
            error: None,
        }
    }

    /// Not all of it, or nothing, could be done.
    pub(super) fn troubled(state: JobState, report: Value, error: String) -> Self {
        Self {
            state,
            report,
            error: Some(error),
        }
    }
}

/// The kinds that can be asked for over HTTP; wakes the worker when one was.
#[derive(Debug)]
pub(crate) struct Catalogue {
    declared: DeclaredJobs,
    wake: Arc<Notify>,
}

impl Catalogue {
    pub(crate) fn new(wake: Arc<Notify>) -> Self {
        let declared = KINDS.iter().filter_map(|kind| kind.declared()).collect();
        Self {
            declared: DeclaredJobs::new(declared),
            wake,
        }
    }
}

impl JobCatalogue for Catalogue {
    fn kinds(&self) -> Vec<(String, String)> {
        self.declared.kinds()
    }

    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal> {
        let spec = self.declared.decide(request)?;
        if let Some(kind) = KINDS.iter().find(|kind| kind.is_named(&request.kind)) {
            kind.check(request)?;
        }
        Ok(spec)
    }

    fn needs(&self, kind: &str) -> Role {
        let kind = KINDS.iter().find(|known| known.is_named(kind));
        kind.map_or(Role::Operator, |kind| kind.needs())
    }

    fn lane(&self, request: &JobRequest) -> Lane {
        let kind = KINDS.iter().find(|kind| kind.is_named(&request.kind));
        let usual = kind.map_or(Lane::Demand, |kind| kind.lane(request));
        request.lane.unwrap_or(usual)
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        match kind_of(job) {
            Some(kind) => kind.retry(job),
            None => Err(JobRefusal(format!(
                "there is no kind of job {:?} any more",
                job.kind
            ))),
        }
    }

    fn created(&self, _: &Job) {
        self.wake.notify_one();
    }
}
