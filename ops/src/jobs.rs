//! Carries out jobs: takes one that waits, does it, and records what came of it; some at a time ([`Places`]). Which is
//! next says [`queue`].
//!
//! A job is claimed for a while and renewed while it runs; one whose worker died is claimed again by another, and a worker
//! that goes down in order hands its job back. One that
//! failed for a reason that may pass by itself keeps its claim until it is to be tried again ([`retry_after`]); so does one
//! that others wait for ([`kinds::JobKind::must_go_on`]). What kinds there are stands in [`kinds`].

mod approve;
mod backups;
mod days;
mod erase;
mod export;
mod kinds;
mod queue;
mod recut;
mod repair;
mod replay;
mod restore;
mod retention;
mod revert;
mod uploads;
mod vacuum;

pub(crate) use backups::place_of;
pub(crate) use kinds::Catalogue;
pub(crate) use queue::Places;
pub(crate) use uploads::ImportJob;
pub(crate) use vacuum::REPLACED_FILES_KEPT;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dwell_batch_layer::BatchLayer;
use dwell_ingest::quarantine::Replayer;
use dwell_model::time::TsMs;
use dwell_retention::{Policy, Retention};
use dwell_runtime::clock::SharedClock;
use dwell_runtime::limits::HumanDuration;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{AuditEntry, Flip, Job, JobProgress, JobState, Lane, Stores, audit};
use dwell_storage::error::{ErrorKind, StorageError};
use dwell_storage::resolver::EngineSettings;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::kinds::{Outcome, kind_of};
use self::queue::{Queue, Waiting};
use crate::erasing::Eraser;
use crate::importing::Importer;

/// How long a claim lasts without renewal.
const LEASE_MS: i64 = 10_000;
/// How often a running job stores its progress, renews its claim and looks whether it shall stop.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How long a worker that goes down waits for its job to come to a place where it can be handed back.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(4);
/// How often a worker looks for jobs that nobody told it of.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most unfinished jobs that a worker looks at.
const LOOKED_AT_MAX: usize = 10_000;
/// Attempts of a job whose failures may pass by themselves.
const ATTEMPTS_MAX: u32 = 8;
/// The wait after the first attempt; it doubles with each, up to [`RETRY_MS_MAX`].
const RETRY_MS: i64 = 2_000;
const RETRY_MS_MAX: i64 = 300_000;

/// What jobs work with.
#[derive(Clone)]
pub(crate) struct JobWorker {
    pub(crate) stores: Stores,
    pub(crate) clock: SharedClock,
    pub(crate) batch: BatchLayer,
    pub(crate) importer: Importer,
    pub(crate) replayer: Replayer,
    pub(crate) eraser: Eraser,
    /// The live view that this process follows, if it does.
    pub(crate) speed: Option<dwell_speed_layer::Handle>,
    pub(crate) retention: Retention,
    /// The retention policy of tenants that have set none.
    pub(crate) retention_policy: Policy,
    pub(crate) settings: Arc<JobSettings>,
    /// Told when a job was stored.
    pub(crate) wake: Arc<Notify>,
    /// What all workers of this process share.
    pub(crate) shared: Arc<Shared>,
}

/// What the workers of a process share: its places, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Shared {
    places: Places,
    queue: Mutex<Queue>,
    /// Of a command: what it works for.
    awaited: Option<Arc<Awaited>>,
    /// Held by the one that looks for a job.
    looking: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn new(places: Places, awaited: Option<Arc<Awaited>>) -> Self {
        Self {
            places,
            queue: Mutex::default(),
            awaited,
            looking: tokio::sync::Mutex::default(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs that a command waits for. Its process takes jobs only while one of these waits for a worker: it is gone when
/// they have ended, and what it began besides would be another's to do again. A command that only looks takes none.
#[derive(Debug)]
pub(crate) struct Awaited {
    ids: Mutex<BTreeSet<String>>,
    wake: Arc<Notify>,
}

impl Awaited {
    /// None yet; `wake` tells the workers when there is one.
    pub(crate) fn new(wake: Arc<Notify>) -> Self {
        Self {
            ids: Mutex::default(),
            wake,
        }
    }

    /// Somebody waits for a job from now on.
    pub(crate) fn add(&self, id: &str) {
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned());
        self.wake.notify_one();
    }

    /// Whether any waits for a worker; what is in front of it is to be done first.
    fn may_be_taken(&self, unfinished: &[Job], now: TsMs) -> bool {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut awaited = unfinished.iter().filter(|job| ids.contains(&job.id));
        awaited.any(|job| job.is_claimable(now, LEASE_MS))
    }
}

/// A place that a running job has; given back when it is dropped.
struct Place<'a> {
    shared: &'a Shared,
    lane: Lane,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.queue().ended(self.lane);
    }
}

/// Days that others hold for longer than a job waits within one attempt. It is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{days} days are held by other workers")]
pub(super) struct Held {
    pub(super) days: u64,
}

/// New parameters of a running job, and whom to tell that they are stored.
type Respec = (serde_json::Value, oneshot::Sender<()>);
/// What jobs are told by the configuration.
#[derive(Debug)]
pub(crate) struct JobSettings {
    /// Which engines keep what: a job may open one again, or reach another place in the same way.
    pub(crate) engines: EngineSettings,
    /// Folder for what does not outlive a job.
    pub(crate) scratch: PathBuf,
    /// How long a replaced file of the archive is kept.
    pub(crate) replaced_files_kept: HumanDuration,
}

/// Where a running job tells how far it is.
#[derive(Clone)]
pub(super) struct Progress {
    sender: watch::Sender<JobProgress>,
    /// What the job's parameters are to be from now on.
    spec: mpsc::Sender<Respec>,
}

impl Progress {
    pub(super) fn set(&self, done: u64, total: u64, doing: &str) {
        self.sender.send_replace(JobProgress {
            done,
            total,
            doing: doing.to_owned(),
        });
    }

    /// Replaces the job's stored parameters, for those that must not stay as they were given; they are stored when
    /// this returns.
    pub(super) async fn respec(&self, spec: serde_json::Value) -> Result<()> {
        let (tell, stored) = oneshot::channel();
        let gone = "the job is another worker's by now";
        self.spec.send((spec, tell)).await.context(gone)?;
        stored.await.context(gone)
    }
}

impl JobWorker {
    /// How many of these a process runs: one for each place.
    pub(crate) fn count(&self) -> usize {
        self.shared.places.all
    }

    /// Works until shutdown, on one job at a time; what runs then is handed back.
    pub(crate) async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        loop {
            if shutdown.is_requested() {
                return Ok(());
            }
            // Long steps do not look whether they shall stop.
            let too_late = async {
                shutdown.requested().await;
                self.clock.sleep(HAND_BACK_WITHIN).await;
            };
            let worked = tokio::select! {
                biased;
                worked = self.run_once(&shutdown) => worked,
                () = too_late => {
                    tracing::info!("what runs is left to be claimed again");
                    return Ok(());
                }
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

    /// Tells the speed layer of this process that exclusions are others now; those of other processes look for
    /// themselves.
    fn exclusions_changed(&self) {
        if let Some(speed) = &self.speed {
            speed.exclusions_changed();
        }
    }

    /// Takes the job whose turn it is, if a place is free for one.
    async fn take(&self, shutdown: &ShutdownToken) -> Result<Option<(Job, Place<'_>)>> {
        let _looking = self.shared.looking.lock().await;
        let (jobs, places) = (&self.stores.jobs, &self.shared.places);
        let now = self.clock.now_ms();
        let unfinished = jobs.unfinished(now, LOOKED_AT_MAX).await?;
        if let Some(awaited) = &self.shared.awaited
            && unfinished.len() < LOOKED_AT_MAX
            && !awaited.may_be_taken(&unfinished, now)
        {
            return Ok(None);
        }
        let is_alone = |job: &Job| kind_of(job).is_some_and(|kind| kind.runs_alone());
        let mut waiting = Waiting::of(&unfinished, now, is_alone);
        loop {
            let Some(next) = self.shared.queue().next(&waiting, places).cloned() else {
                return Ok(None);
            };
            if shutdown.is_requested() {
                return Ok(None);
            }
            let claimed = jobs.claim_one(&next.tenant, &next.id, now, LEASE_MS).await?;
            if let Some(job) = claimed {
                self.shared.queue().begun(&next, &waiting, places);
                let lane = next.lane;
                if waiting.len() > 1 {
                    // One wake tells of any number of jobs.
                    self.wake.notify_one();
                }
                return Ok(Some((
                    job,
                    Place {
                        shared: &self.shared,
                        lane,
                    },
                )));
            }
            // Another process was faster.
            waiting.retain(|job| job.id != next.id);
        }
    }

    /// Takes a job that waits and does it; whether there was one.
    async fn run_once(&self, shutdown: &ShutdownToken) -> Result<bool> {
        let Some((mut job, _place)) = self.take(shutdown).await? else {
            return Ok(false);
        };
        tracing::info!(
            job = job.id,
            kind = job.kind,
            attempt = job.attempts,
            "job begins"
        );
        let cancel = CancellationToken::new();
        // Whether it was our own end that cancelled it, and nobody who asked for that.
        let mut is_stopped = false;
        let (sender, progress) = watch::channel(job.progress.clone());
        let claimed = job.clone();
        let (spec, mut respecs) = mpsc::channel(1);
        let work = self.work(&claimed, Progress { sender, spec }, cancel.clone());
        let outcome = {
            // Both are polled all the time: were the work left alone while its progress is stored, it might be the next
            // in line for the very store that this waits for.
            let worked = CancellationToken::new();
            let working = async {
                let outcome = work.await;
                worked.cancel();
                outcome
            };
            let reporting = self.keep_reporting(&mut job, &progress, &mut respecs, &cancel, &worked);
            tokio::pin!(working, reporting);
            let mut outcome = None;
            loop {
                tokio::select! {
                    biased;
                    done = &mut working, if outcome.is_none() => outcome = Some(done),
                    flip = &mut reporting => match (flip?, outcome) {
                        (Flip::Done, Some(outcome)) => break outcome,
                        _ => {
                            tracing::warn!(job = claimed.id, "another worker has taken the job");
                            return Ok(true);
                        }
                    },
                    () = shutdown.requested(), if !cancel.is_cancelled() => {
                        is_stopped = true;
                        cancel.cancel();
                    }
                }
            }
        };
        let last = progress.borrow().clone();
        let is_done = |outcome: &Outcome| outcome.state == JobState::Succeeded;
        if is_stopped && !outcome.as_ref().is_ok_and(is_done) {
            // What our own end has made of it, or may have: the next worker finds out. It also sees who cancelled it.
            self.hand_back(job, last).await?;
            return Ok(true);
        }
        self.finish(job, last, outcome).await?;
        Ok(true)
    }

    async fn work(&self, job: &Job, progress: Progress, cancel: CancellationToken) -> Result<Outcome> {
        match kind_of(job) {
            Some(kind) => kind.run(self, job, progress, cancel).await,
            None => bail!(
                "this version of Dwell does not know jobs of the kind {:?}",
                job.kind
            ),
        }
    }

    /// Reports from time to time until the work has ended; `Lost` when the claim is.
    async fn keep_reporting(
        &self,
        job: &mut Job,
        progress: &watch::Receiver<JobProgress>,
        respecs: &mut mpsc::Receiver<Respec>,
        cancel: &CancellationToken,
        worked: &CancellationToken,
    ) -> Result<Flip> {
        loop {
            let stored = tokio::select! {
                biased;
                () = worked.cancelled() => return Ok(Flip::Done),
                Some((spec, stored)) = respecs.recv() => {
                    job.spec = spec;
                    Some(stored)
                }
                () = self.clock.sleep(REPORT_EVERY) => None,
            };
            let current = progress.borrow().clone();
            if self.report(job, current, cancel).await? == Flip::Lost {
                return Ok(Flip::Lost);
            }
            if let Some(stored) = stored {
                // Who asked for it may have ended meanwhile.
                let _ = stored.send(());
            }
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

    /// Lets go of a job that was begun, so that another worker goes on with it at once. What it did not fail at is no
    /// attempt.
    async fn hand_back(&self, mut job: Job, progress: JobProgress) -> Result<()> {
        job.progress = progress;
        job.leased_until = Some(self.clock.now_ms());
        job.attempts = job.attempts.saturating_sub(1);
        tracing::info!(job = job.id, "job is handed back");
        self.store(&job).await
    }

    async fn finish(&self, mut job: Job, progress: JobProgress, outcome: Result<Outcome>) -> Result<()> {
        job.progress = progress;
        let now = self.clock.now_ms();
        if let Err(error) = &outcome
            && let Some(wait_ms) = self.wait_after(&job, error).await?
        {
            // Its claim runs out when it is to be tried again.
            job.leased_until = Some(now + wait_ms);
            job.error = Some(format!("{error:#}"));
            job.progress.doing = format!("tries again in {} s", wait_ms / 1_000);
            tracing::warn!(
                job = job.id,
                wait_ms,
                error = job.error,
                "job failed and is tried again"
            );
            return self.store(&job).await;
        }
        job.finished_at = Some(now);
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
        self.audit(&job, now).await?;
        tracing::info!(
            job = job.id,
            state = job.state.word(),
            error = job.error,
            "job ended"
        );
        self.store(&job).await
    }

    /// How long to wait before a failed job is tried again, milliseconds; `None` when it ends. An error leaves it to whoever
    /// claims it next.
    async fn wait_after(&self, job: &Job, error: &anyhow::Error) -> Result<Option<i64>> {
        if let Some(wait_ms) = retry_after(job, error) {
            return Ok(Some(wait_ms));
        }
        let must_go_on = match kind_of(job) {
            Some(kind) => kind.must_go_on(self, job).await?,
            None => false,
        };
        Ok(must_go_on.then(|| retry_wait_ms(job)))
    }

    async fn store(&self, job: &Job) -> Result<()> {
        match self.stores.jobs.update(job).await? {
            Flip::Done => {}
            Flip::Lost => tracing::warn!(job = job.id, "another worker has taken the job"),
        }
        Ok(())
    }

    /// Writes down who had what done, and what came of it; before the job is final, so that no final job is without.
    async fn audit(&self, job: &Job, now: i64) -> Result<()> {
        let entry = AuditEntry {
            at: now,
            who: job.requested_by.clone(),
            action: format!("job.{}", job.kind),
            about: job.id.clone(),
            reason: job.reason.clone(),
            details: json!({
                // For ever, so without the name of a visitor who was to be forgotten.
                "spec": job.spec_to_keep(),
                "state": job.state.word(),
                "attempts": job.attempts,
                "started_at": job.started_at,
                "error": job.error,
                "report": audit::shortened(job.report.as_ref()),
            }),
        };
        Ok(audit::record(self.stores.documents.as_ref(), &job.tenant, &entry).await?)
    }
}

/// A job's parameters as its kind reads them.
fn spec_of<T: DeserializeOwned>(job: &Job) -> Result<T> {
    T::deserialize(&job.spec).context("the job's parameters cannot be read")
}

/// How long to wait before a failed job is tried again, milliseconds; `None` when trying again cannot help.
fn retry_after(job: &Job, error: &anyhow::Error) -> Option<i64> {
    let passes = error.chain().any(|cause| {
        // Room is made without us, as an engine comes back without us.
        let passes = |kind: ErrorKind| kind.is_retryable() || kind == ErrorKind::Full;
        let of_store = cause.downcast_ref::<StorageError>();
        of_store.is_some_and(|cause| passes(cause.kind())) || cause.is::<Held>()
    });
    (passes && has_attempts_left(job)).then(|| retry_wait_ms(job))
}

/// The wait after a job's last attempt.
fn retry_wait_ms(job: &Job) -> i64 {
    let doublings = job.attempts.saturating_sub(1).min(16);
    (RETRY_MS << doublings).min(RETRY_MS_MAX)
}

/// Whether a job that fails in a way that may pass is tried again.
pub(super) fn has_attempts_left(job: &Job) -> bool {
    job.attempts < ATTEMPTS_MAX && !job.cancel_requested
}
