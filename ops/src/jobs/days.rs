//! `recompute`, `archive`, `verify`: work on venue-days, done by the batch layer.

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_batch_layer::{Source, WhatIf};
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
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
    /// Of a dry run of `recompute`: with the layout in force on this day.
    #[serde(default)]
    layout: Option<LocalDay>,
    /// Of a dry run of `recompute`: from raw alone, the archive alone, or both.
    #[serde(default)]
    source: Source,
}

const REPAIR: &str = "repair";

/// Days whose difference a dry run computes; the others are only named.
const COMPARED_DAYS_MAX: usize = 31;
/// Buckets that it lists of each.
const COMPARED_BUCKETS_MAX: usize = 50;

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
                What::Recompute => &["force", "layout", "definitions", "source"],
                What::Archive => &["force"],
            },
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |why: String| Err(JobRefusal(why));
        let option = |name: &str| request.options.get(name);
        let (layout, version, source) = (option("layout"), option("definitions"), option("source"));
        if [layout, version, source].iter().any(Option::is_some) && !request.dry_run {
            return refuse(
                "layout, definitions and source are for looking at the difference: add dry_run".to_owned(),
            );
        }
        if source.is_some_and(|source| Source::deserialize(source).is_err()) {
            return refuse("source is raw, archive or both".to_owned());
        }
        let is_day =
            |day: &serde_json::Value| day.as_str().is_some_and(|day| day.parse::<LocalDay>().is_ok());
        if layout.is_some_and(|layout| !is_day(layout)) {
            return refuse("layout is a day: that on which the wanted layout is in force".to_owned());
        }
        let known = dwell_model::definitions::VERSION;
        if version.is_some_and(|version| version.as_u64() != Some(u64::from(known))) {
            return refuse(format!("this version of Dwell computes definitions {known} only"));
        }
        Ok(())
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
        return dry_run(what, worker, job, &spec, &run, &progress, &cancel).await;
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

/// Which days a run would work on and, for a recompute, what it would change: computed, and published nowhere.
async fn dry_run(
    what: What,
    worker: &JobWorker,
    job: &Job,
    spec: &Spec,
    run: &RunSpec,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let planned = worker.batch.plan_spec(&job.tenant, run).await?;
    let mut report = serde_json::json!({ "dry_run": true, "days": planned });
    if what != What::Recompute {
        return Ok(Outcome::succeeded(report));
    }
    let days: Vec<_> = planned
        .iter()
        .flat_map(|(venue, days)| days.iter().map(move |day| (venue, day.day)))
        .collect();
    let what_if = WhatIf {
        layout_of: spec.layout,
        source: spec.source,
        buckets_max: COMPARED_BUCKETS_MAX,
    };
    let (mut differences, total) = (Vec::new(), days.len().min(COMPARED_DAYS_MAX));
    for (done, (venue, day)) in days.iter().take(total).enumerate() {
        progress.set(done as u64, total as u64, &format!("{} {day}", venue.venue));
        if cancel.is_cancelled() {
            return Ok(Outcome::cancelled(report));
        }
        let mut difference = match worker.batch.what_if(venue, *day, what_if, cancel).await {
            Ok(difference) => serde_json::to_value(&difference)?,
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => serde_json::json!({ "day": day, "error": error.to_string() }),
        };
        difference["venue"] = serde_json::json!(venue.venue);
        differences.push(difference);
    }
    progress.set(total as u64, total as u64, "");
    report["differences"] = serde_json::json!(differences);
    report["days_not_compared"] = serde_json::json!(days.len() - total);
    Ok(Outcome::succeeded(report))
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
    let done = report.computed + report.proposed + report.unchanged + report.archived + report.verified;
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
