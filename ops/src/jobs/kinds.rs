//! The kinds of jobs that there are: what each takes, and what does it.
//!
//! A kind is one file with a [`JobKind`] in it and a line in [`KINDS`]. What is asked for is checked when it is asked
//! ([`JobKind::check`]), so that nonsense is refused at once; what there is to do shows when the job runs.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use dwell_serving_api::{DeclaredJob, DeclaredJobs, JobCatalogue, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backups::BackupJob;
use super::{
    JobWorker, Progress, approve, days, erase, recut, replay, restore, retention, revert, uploads, vacuum,
};

/// All kinds.
const KINDS: &[&dyn JobKind] = &[
    &days::RECOMPUTE,
    &days::ARCHIVE,
    &days::VERIFY,
    &approve::Approve,
    &recut::Recut,
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
];

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

    fn created(&self, _: &Job) {
        self.wake.notify_one();
    }
}
