//! `recompute`, `archive`, `verify`: work on venue-days, done by the batch layer.

use anyhow::{Context, Result};
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_storage::api::{Job, JobProgress, JobState};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{JobWorker, Outcome, Progress};

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
}

pub(super) async fn run(
    worker: &JobWorker,
    job: &Job,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Outcome> {
    let spec: Spec =
        serde_json::from_value(job.spec.clone()).context("the job's parameters cannot be read")?;
    let what = match job.kind.as_str() {
        "archive" => What::Archive,
        "verify" => What::Verify,
        _ => What::Recompute,
    };
    let venues = match &spec.venues {
        serde_json::Value::Array(ids) => {
            let ids: Result<Vec<VenueId>, _> = ids
                .iter()
                .map(|id| VenueId::new(id.as_str().unwrap_or("")))
                .collect();
            Venues::These(ids?)
        }
        _ => Venues::All,
    };
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
        return Ok(Outcome {
            state: JobState::Succeeded,
            report: serde_json::json!({ "dry_run": true, "days": planned }),
            error: None,
        });
    }
    let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
    let report = worker.batch.run_spec(&job.tenant, &run, &tell, &cancel).await?;
    let (state, error) = judge(&report);
    Ok(Outcome {
        state,
        report: serde_json::to_value(&report)?,
        error,
    })
}

/// What a run's report means for its job.
fn judge(report: &RunReport) -> (JobState, Option<String>) {
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
