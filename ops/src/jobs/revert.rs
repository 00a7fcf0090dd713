//! `revert` and `undo`: take deliveries out of the numbers, and bring them back.
//!
//! Nothing that is kept changes. A revert stores an [`Exclusion`] under the id of its job, looks through the venue for
//! the days that it has a part in, and has these computed anew; an undo ends it and does the same. Every step can be
//! repeated: the exclusion is there or is not, its days only grow, and a day whose generation was made with other
//! exclusions than it should be is dirty for whoever comes next.

mod report;
mod scope;
mod undo;

pub(super) use undo::Undo;

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::excluding::{CoveredDay, Turn};
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_model::exclusion::{DaySet, Ended, Exclusion};
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::failpoint;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobProgress, JobState, documents, exclusions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::report::Report;
use self::scope::Asked;
use super::days::judge;
use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress};

/// Takes deliveries out of the numbers.
pub(super) struct Revert;

#[async_trait]
impl JobKind for Revert {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "revert",
            summary: "Leave a sensor, a receipt, a file or a window of time of one venue out of the numbers, and compute what that changes",
            takes_days: false,
            takes_dry_run: true,
            options: &scope::OPTIONS,
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |text: &str| Err(JobRefusal(text.to_owned()));
        match request.venues.as_deref() {
            Some([_]) => {}
            _ => return refuse("a revert works on one venue: name it"),
        }
        if request
            .reason
            .as_deref()
            .is_none_or(|reason| reason.trim().is_empty())
        {
            return refuse("say why: a revert needs a reason");
        }
        Asked::read(&request.options).map(|_| ())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        run(worker, job, &progress, &cancel).await
    }
}

async fn run(
    worker: &JobWorker,
    job: &Job,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let venue = venue_of(job)?;
    let options = job.spec.as_object().context("the job has no parameters")?;
    let asked = Asked::read(options)?;
    let scope = match asked.resolve(&*worker.stores.imports, &job.tenant).await? {
        Ok(scope) => scope,
        Err(problem) => return Ok(refused(problem)),
    };
    let wanted = Exclusion {
        id: job.id.clone(),
        venue: venue.venue.clone(),
        scope,
        reason: job.reason.clone().unwrap_or_default(),
        made_by: job.requested_by.clone(),
        // Not the time of an attempt: what is covered must not depend on when a worker came to it.
        made_at: job.created_at,
        ended: None,
        days: DaySet::default(),
        is_searched: false,
    };
    if is_dry_run(job) {
        return try_out(worker, &venue, wanted, progress, cancel).await;
    }
    let exclusion = store(worker, job, wanted).await?;
    if let Some(ended) = &exclusion.ended {
        let report = Report::of(&exclusion).into_value();
        let error = format!("it was ended before it was done, by the job {}", ended.job);
        return Ok(Outcome::troubled(JobState::Failed, report, error));
    }
    failpoint!("revert.after_store");
    worker.exclusions_changed();
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    let found = worker
        .batch
        .write_down_covered(&venue, &exclusion, &tell, cancel)
        .await;
    let found = match found {
        Err(dwell_batch_layer::Error::Cancelled) => return take_back(worker, job, &exclusion).await,
        found => found?,
    };
    let days: Vec<LocalDay> = found.iter().map(|found| found.day).collect();
    failpoint!("revert.before_recompute");
    let run = recompute(worker, job, &venue, progress, cancel).await?;
    let mut report = Report::of(&exclusion);
    report.covered(&found);
    report.ran(&run);
    for day in &days {
        let difference = worker
            .batch
            .published_difference(&venue, *day, &job.id, Turn::Made);
        report.day(*day, difference.await?);
    }
    Ok(ended_as(&run, report))
}

/// Shows the days and numbers that a revert would change.
async fn try_out(
    worker: &JobWorker,
    venue: &VenueKey,
    wanted: Exclusion,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    let found = worker.batch.find_covered(venue, &wanted, &tell, cancel).await;
    let found: Vec<CoveredDay> = match found {
        Err(dwell_batch_layer::Error::Cancelled) => return Ok(Outcome::cancelled(Value::Null)),
        found => found?,
    };
    let mut proposed = exclusions::in_force(&*worker.stores.documents, venue).await?;
    let mut report = Report::of(&wanted);
    proposed.push(wanted);
    report.covered(&found);
    let days: Vec<LocalDay> = found
        .iter()
        .filter(|found| found.problem.is_none())
        .map(|found| found.day)
        .collect();
    preview(worker, venue, &days, &proposed, report, progress, cancel).await
}

/// Computes days with other exclusions and tells the differences; nothing is published.
async fn preview(
    worker: &JobWorker,
    venue: &VenueKey,
    days: &[LocalDay],
    proposed: &[Exclusion],
    mut report: Report,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    let differences = worker
        .batch
        .preview_exclusions(venue, days, proposed, &tell, cancel)
        .await;
    match differences {
        Err(dwell_batch_layer::Error::Cancelled) => Ok(Outcome::cancelled(Value::Null)),
        differences => {
            for difference in differences? {
                report.day(difference.day, Some(difference));
            }
            report.is_dry_run();
            Ok(Outcome::succeeded(report.into_value()))
        }
    }
}

/// Stores an exclusion, once; returns what stands.
async fn store(worker: &JobWorker, job: &Job, wanted: Exclusion) -> Result<Exclusion> {
    let stands = documents::update::<Exclusion>(&*worker.stores.documents, &job.tenant, &job.id, |known| {
        known.is_none().then(|| wanted.clone())
    })
    .await?;
    Ok(stands
        .context("the exclusion is not there after it was stored")?
        .value)
}

/// Ends an exclusion whose job was stopped before its days were known, so that nothing half done stays. A worker that
/// only goes down leaves it for the next one.
async fn take_back(worker: &JobWorker, job: &Job, exclusion: &Exclusion) -> Result<Outcome> {
    let stored = worker.stores.jobs.get(&job.tenant, &job.id).await?;
    if stored.is_some_and(|stored| stored.cancel_requested) {
        let ended = Ended {
            at: worker.clock.now_ms(),
            job: job.id.clone(),
            by: job.requested_by.clone(),
            reason: Some("cancelled before its days were found".to_owned()),
        };
        end(worker, job, &exclusion.id, ended).await?;
    }
    Ok(Outcome::cancelled(Report::of(exclusion).into_value()))
}

/// Ends an exclusion, once, and tells the live view. Returns what stands, if it ever was.
async fn end(worker: &JobWorker, job: &Job, id: &str, ended: Ended) -> Result<Option<Exclusion>> {
    let stands = documents::update::<Exclusion>(&*worker.stores.documents, &job.tenant, id, |known| {
        let mut exclusion = known.filter(|known| known.is_in_force())?.clone();
        exclusion.ended = Some(ended.clone());
        Some(exclusion)
    })
    .await?;
    worker.exclusions_changed();
    Ok(stands.map(|stands| stands.value))
}

/// Computes the venue's dirty days, those of the exclusion among them. The open day is the live view's.
async fn recompute(
    worker: &JobWorker,
    job: &Job,
    venue: &VenueKey,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RunReport> {
    let spec = RunSpec {
        venues: Venues::These(vec![venue.venue.clone()]),
        include_open: false,
        reason: job.reason.clone(),
        ..RunSpec::all_dirty(What::Recompute)
    };
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    Ok(worker.batch.run_spec(&job.tenant, &spec, &tell, cancel).await?)
}

fn ended_as(run: &RunReport, report: Report) -> Outcome {
    let (state, error) = judge(run);
    Outcome {
        state,
        report: report.into_value(),
        error,
    }
}

/// What can only be seen when the job runs: nothing was done.
fn refused(problem: String) -> Outcome {
    Outcome::troubled(JobState::Failed, Value::Null, problem)
}

fn is_dry_run(job: &Job) -> bool {
    job.spec["dry_run"] == json!(true)
}

fn venue_of(job: &Job) -> Result<VenueKey> {
    let id = job.spec["venues"][0].as_str().unwrap_or_default();
    let venue = VenueId::new(id).context("the job names no venue")?;
    Ok(VenueKey::new(job.tenant.clone(), venue))
}
