//! `undo`: bring back what a revert took out.

use anyhow::Result;
use async_trait::async_trait;
use dwell_batch_layer::excluding::Turn;
use dwell_model::exclusion::{Ended, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, format_rfc3339};
use dwell_runtime::failpoint;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, documents, exclusions};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::{end, ended_as, is_dry_run, preview, recompute, refused};
use crate::jobs::kinds::{JobKind, Outcome};
use crate::jobs::{JobWorker, Progress};

/// Ends an exclusion.
pub(in crate::jobs) struct Undo;

#[async_trait]
impl JobKind for Undo {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "undo",
            summary: "End what a revert made, so that the former numbers come back",
            takes_days: false,
            takes_dry_run: true,
            options: &["job"],
            required: &["job"],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |text: &str| Err(JobRefusal(text.to_owned()));
        if request.venues.is_some() {
            return refuse("an undo takes no venue: the job that it undoes has one");
        }
        match request.options.get("job") {
            Some(Value::String(id)) if !id.trim().is_empty() => Ok(()),
            _ => refuse("job must be the id of a revert; `dwell exclusions` lists them"),
        }
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
    let id = job.spec["job"].as_str().unwrap_or_default();
    let documents = &*worker.stores.documents;
    let Some(stored) = documents::load::<Exclusion>(documents, &job.tenant, id).await? else {
        return Ok(refused(why_not(worker, job, id).await?));
    };
    let exclusion = stored.value;
    if let Some(ended) = exclusion.ended.as_ref().filter(|ended| ended.job != job.id) {
        let at = format_rfc3339(ended.at);
        let problem = match ended.job == exclusion.id {
            true => format!(
                "the revert {id} was cancelled at {at} before it was applied; there is nothing to undo"
            ),
            false => format!("the revert {id} was undone at {at} by the job {}", ended.job),
        };
        return Ok(refused(problem));
    }
    let venue = VenueKey::new(job.tenant.clone(), exclusion.venue.clone());
    if is_dry_run(job) {
        let mut proposed = exclusions::in_force(documents, &venue).await?;
        proposed.retain(|known| known.id != exclusion.id);
        let days: Vec<LocalDay> = exclusion.days.iter().collect();
        let report = Report::of(&exclusion);
        return preview(worker, &venue, &days, &proposed, report, progress, cancel).await;
    }
    let ended = Ended {
        at: job.created_at,
        job: job.id.clone(),
        by: job.requested_by.clone(),
        reason: job.reason.clone(),
    };
    let exclusion = end(worker, job, id, ended).await?.unwrap_or(exclusion);
    failpoint!("undo.before_recompute");
    let run = recompute(worker, job, &venue, progress, cancel).await?;
    let mut report = Report::of(&exclusion);
    report.ran(&run);
    for day in exclusion.days.iter() {
        let difference = worker.batch.published_difference(&venue, day, id, Turn::Ended);
        report.day(day, difference.await?);
    }
    Ok(ended_as(&run, report))
}

/// Why there is no exclusion by this id.
async fn why_not(worker: &JobWorker, job: &Job, id: &str) -> Result<String> {
    Ok(match worker.stores.jobs.get(&job.tenant, id).await? {
        None => format!("there is no job {id:?}"),
        Some(other) if other.kind != "revert" => {
            format!(
                "the job {id} is of the kind {}: only a revert can be undone",
                other.kind
            )
        }
        Some(other) if is_dry_run(&other) => {
            format!("the revert {id} was a dry run: there is nothing to undo")
        }
        Some(other) => format!(
            "the revert {id} made no exclusion (it is {}): there is nothing to undo",
            other.state.word()
        ),
    })
}
