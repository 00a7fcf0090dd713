//! Carries out jobs: takes the oldest that waits, does it, and records what came of it.
//!
//! A job is claimed for a while and renewed while it runs; one whose worker died is claimed again by another. Every kind
//! is written so that doing it twice changes nothing. Kinds: `recompute`, `archive`, `verify` ([`days`]), `import`
//! ([`uploads`]), `replay` ([`replay`]).

mod days;
mod replay;
mod uploads;

pub(crate) use uploads::ImportJob;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use dwell_batch_layer::BatchLayer;
use dwell_ingest::quarantine::Replayer;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_serving_api::{DeclaredJob, DeclaredJobs, JobCatalogue, JobRefusal, JobRequest};
use dwell_storage::api::{Flip, Job, JobProgress, JobState, Stores};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::importing::Importer;

/// How long a claim lasts without renewal.
const LEASE_MS: i64 = 10_000;
/// How often a running job stores its progress, renews its claim and looks whether it shall stop.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How often a worker looks for jobs that nobody told it of.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The kinds that can be asked for over HTTP; wakes the worker when one was.
#[derive(Debug)]
pub(crate) struct Catalogue {
    declared: DeclaredJobs,
    wake: Arc<Notify>,
}

impl Catalogue {
    pub(crate) fn new(wake: Arc<Notify>) -> Self {
        let days = |kind, summary| DeclaredJob {
            kind,
            summary,
            takes_days: true,
            takes_dry_run: true,
            options: &["force"],
            required: &[],
        };
        let declared = DeclaredJobs::new(vec![
            days(
                "recompute",
                "Archive and compute dirty days, or the days of a range, and publish what changed",
            ),
            days("archive", "Write what raw holds into the archive, and no more"),
            days(
                "verify",
                "Read archive files back and compare counts and checksums",
            ),
            DeclaredJob {
                kind: "replay",
                summary: "Try to take refused events again",
                takes_days: false,
                takes_dry_run: false,
                options: &["entries"],
                required: &["entries"],
            },
        ]);
        Self { declared, wake }
    }
}

impl JobCatalogue for Catalogue {
    fn kinds(&self) -> Vec<(String, String)> {
        self.declared.kinds()
    }

    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal> {
        self.declared.decide(request)
    }

    fn created(&self, _: &Job) {
        self.wake.notify_one();
    }
}

/// What jobs work with.
#[derive(Clone)]
pub(crate) struct JobWorker {
    pub(crate) stores: Stores,
    pub(crate) clock: SharedClock,
    pub(crate) batch: BatchLayer,
    pub(crate) importer: Importer,
    pub(crate) replayer: Replayer,
    /// Told when a job was stored.
    pub(crate) wake: Arc<Notify>,
}

/// What a job gave: its final state and report.
pub(super) struct Outcome {
    state: JobState,
    report: Value,
    error: Option<String>,
}

/// Where a running job tells how far it is.
#[derive(Clone)]
pub(super) struct Progress {
    sender: watch::Sender<JobProgress>,
}

impl Progress {
    pub(super) fn set(&self, done: u64, total: u64, doing: &str) {
        self.sender.send_replace(JobProgress {
            done,
            total,
            doing: doing.to_owned(),
        });
    }
}

impl JobWorker {
    /// Works until shutdown; what runs then is left to be claimed again.
    pub(crate) async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        loop {
            let worked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                worked = self.run_once(&shutdown) => worked,
            };
            match worked {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot look for jobs; trying again"),
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                () = self.wake.notified() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes the oldest job that waits and does it; whether there was one.
    async fn run_once(&self, shutdown: &ShutdownToken) -> Result<bool> {
        let Some(mut job) = self.stores.jobs.claim(self.clock.now_ms(), LEASE_MS).await? else {
            return Ok(false);
        };
        tracing::info!(
            job = job.id,
            kind = job.kind,
            attempt = job.attempts,
            "job begins"
        );
        let cancel = CancellationToken::new();
        let (sender, progress) = watch::channel(job.progress.clone());
        let claimed = job.clone();
        let work = self.work(&claimed, Progress { sender }, cancel.clone());
        let outcome = {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut work => break outcome,
                    () = shutdown.requested(), if !cancel.is_cancelled() => cancel.cancel(),
                    () = self.clock.sleep(REPORT_EVERY) => {
                        let current = progress.borrow().clone();
                        if self.report(&mut job, current, &cancel).await? == Flip::Lost {
                            tracing::warn!(job = job.id, "another worker has taken the job");
                            return Ok(true);
                        }
                    }
                }
            }
        };
        if shutdown.is_requested()
            && outcome
                .as_ref()
                .is_ok_and(|outcome| outcome.state == JobState::Cancelled)
        {
            // Not cancelled by anybody but our own end: the next worker takes it when the claim has run out.
            return Ok(true);
        }
        let last = progress.borrow().clone();
        self.finish(job, last, outcome).await?;
        Ok(true)
    }

    async fn work(&self, job: &Job, progress: Progress, cancel: CancellationToken) -> Result<Outcome> {
        match job.kind.as_str() {
            "recompute" | "archive" | "verify" => days::run(self, job, progress, cancel).await,
            "import" => uploads::run(self, job, progress, cancel).await,
            "replay" => replay::run(self, job, progress, cancel).await,
            other => bail!("this version of Dwell does not know jobs of the kind {other:?}"),
        }
    }

    /// Stores progress, renews the claim, and passes a request to stop on.
    async fn report(&self, job: &mut Job, progress: JobProgress, cancel: &CancellationToken) -> Result<Flip> {
        job.progress = progress;
        job.leased_until = Some(self.clock.now_ms() + LEASE_MS);
        let flip = self.stores.jobs.update(job).await?;
        let stored = self.stores.jobs.get(&job.tenant, &job.id).await?;
        if stored.is_some_and(|stored| stored.cancel_requested) {
            cancel.cancel();
        }
        Ok(flip)
    }

    async fn finish(&self, mut job: Job, progress: JobProgress, outcome: Result<Outcome>) -> Result<()> {
        job.progress = progress;
        job.finished_at = Some(self.clock.now_ms());
        job.leased_until = None;
        match outcome {
            Ok(outcome) => {
                job.state = outcome.state;
                job.report = Some(outcome.report);
                job.error = outcome.error;
            }
            Err(error) => {
                job.state = JobState::Failed;
                job.error = Some(format!("{error:#}"));
            }
        }
        let (id, state, error) = (job.id.clone(), job.state.word(), job.error.clone());
        match self.stores.jobs.update(&job).await? {
            Flip::Done => tracing::info!(job = id, state, error, "job ended"),
            Flip::Lost => tracing::warn!(job = id, "another worker has taken the job"),
        }
        Ok(())
    }
}
