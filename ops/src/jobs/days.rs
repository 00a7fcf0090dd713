//! `recompute`, `archive`, `verify`: work on venue-days, done by the batch layer.

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_serving_api::DeclaredJob;
use dwell_storage::api::{Job, JobProgress, JobState};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, repair};

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: serde_json::Value,
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
    /// Of `verify`: whether broken files are written anew.
    #[serde(default)]
    repair: bool,
    /// Of `verify`: a place with backups that may have copies of the archive's files.
    from_backup: Option<String>,
}

const REPAIR: &str = "repair";

/// A kind of work on days.
pub(super) struct DaysJob {
    what: What,
    summary: &'static str,
}

pub(super) const RECOMPUTE: DaysJob = DaysJob {
    what: What::Recompute,
    summary: "Archive and compute dirty days, or the days of a range, and publish what changed",
};
pub(super) const ARCHIVE: DaysJob = DaysJob {
    what: What::Archive,
    summary: "Write what raw holds into the archive, and no more",
};
pub(super) const VERIFY: DaysJob = DaysJob {
    what: What::Verify,
    summary: "Read archive files back and compare counts and checksums; with the option repair write broken ones anew",
};

#[async_trait]
impl JobKind for DaysJob {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: self.what.word(),
            summary: self.summary,
            takes_days: true,
            takes_dry_run: true,
            options: match self.what {
                What::Verify => &["force", REPAIR, "from_backup"],
                _ => &["force"],
            },
            required: &[],
        })
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        run(self.what, worker, job, progress, cancel).await
    }
}

async fn run(
    what: What,
    worker: &JobWorker,
    job: &Job,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Outcome> {
    let spec: Spec =
        serde_json::from_value(job.spec.clone()).context("the job's parameters cannot be read")?;
    let venues = venues_of(&spec.venues)?;
    let run = RunSpec {
        venues,
        from: spec.from,
        to: spec.to,
        force: spec.force,
        reason: job.reason.clone(),
        ..RunSpec::all_dirty(what)
    };
    if spec.dry_run {
        let planned = worker.batch.plan_spec(&job.tenant, &run).await?;
        return Ok(Outcome::succeeded(
            serde_json::json!({ "dry_run": true, "days": planned }),
        ));
    }
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    let report = worker.batch.run_spec(&job.tenant, &run, &tell, &cancel).await?;
    if what == What::Verify && spec.repair && report.failed > 0 {
        return repair::repair(
            worker,
            job,
            report,
            spec.from_backup.as_deref(),
            &progress,
            &cancel,
        )
        .await;
    }
    let (state, error) = judge(&report);
    Ok(Outcome {
        state,
        report: serde_json::to_value(&report)?,
        error,
    })
}

/// The venues of a spec: `"all"` or a list of ids.
pub(super) fn venues_of(venues: &serde_json::Value) -> Result<Venues> {
    let serde_json::Value::Array(ids) = venues else {
        return Ok(Venues::All);
    };
    let ids: Result<Vec<VenueId>, _> = ids
        .iter()
        .map(|id| VenueId::new(id.as_str().unwrap_or("")))
        .collect();
    Ok(Venues::These(ids?))
}

/// What a run's report means for its job.
pub(super) fn judge(report: &RunReport) -> (JobState, Option<String>) {
    let trouble = report.failed + report.dirty_left;
    let done = report.computed + report.unchanged + report.archived + report.verified;
    if report.cancelled {
        return (JobState::Cancelled, None);
    }
    if trouble == 0 {
        return (JobState::Succeeded, None);
    }
    let first = report
        .days
        .iter()
        .find(|day| matches!(day.outcome, dwell_batch_layer::report::Outcome::Failed))
        .map(|day| format!("{} {}: {}", day.venue.venue, day.day, day.reason));
    let error = match first {
        Some(first) => format!(
            "{} of {} days failed; the first: {first}",
            report.failed,
            report.failed + done
        ),
        None => format!(
            "{} dirty days are left, held by other workers or changed meanwhile",
            report.dirty_left
        ),
    };
    let state = if done > 0 {
        JobState::Partial
    } else {
        JobState::Failed
    };
    (state, Some(error))
}
