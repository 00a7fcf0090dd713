//! `recompute`, `archive`, `verify`: work on venue-days, done by the batch layer.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use async_trait::async_trait;
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_batch_layer::{Source, WhatIf};
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobProgress, JobState, Lane};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome, days_again, lane_of_range};
use super::{Held, JobWorker, Progress, has_attempts_left, repair, spec_of};

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
    /// Of `verify`: only so many days, others each time.
    sample: Option<usize>,
    /// Of a job that does again what another could not do: the days that failed then.
    only: Option<Vec<(VenueId, LocalDay)>>,
    /// The job that it takes up again.
    retry_of: Option<String>,
    /// Of a dry run of `recompute`: with the layout in force on this day.
    #[serde(default)]
    layout: Option<LocalDay>,
    /// Of a dry run of `recompute`: from raw alone, the archive alone, or both.
    #[serde(default)]
    source: Source,
}

const REPAIR: &str = "repair";
const SAMPLE: &str = "sample";

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
                What::Verify => &["force", REPAIR, "from_backup", SAMPLE],
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
        let sample = request.options.get(SAMPLE);
        if sample.is_some_and(|sample| sample.as_u64().is_none_or(|sample| sample == 0)) {
            return refuse("sample is a number of days, at least 1".to_owned());
        }
        let known = dwell_model::definitions::VERSION;
        if version.is_some_and(|version| version.as_u64() != Some(u64::from(known))) {
            return refuse(format!("this version of Dwell computes definitions {known} only"));
        }
        Ok(())
    }

    fn lane(&self, request: &JobRequest) -> Lane {
        match (self.what, request.from, request.to) {
            // What is dirty is little most of the time; all that was ever archived is not.
            (What::Recompute | What::Archive, None, None) => Lane::Demand,
            _ => lane_of_range(request),
        }
    }

    fn retry(&self, job: &Job) -> Result<serde_json::Value, JobRefusal> {
        // A verification that repaired has its report under `verified`, which is a number else.
        let report = job
            .report
            .as_ref()
            .map(|report| match report["verified"].is_object() {
                true => &report["verified"],
                false => report,
            });
        let report: Option<RunReport> = report.and_then(|report| serde_json::from_value(report.clone()).ok());
        let not_done = report.map(|report| report.days_not_done().collect());
        days_again(job, not_done.unwrap_or_default())
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
    let spec: Spec = spec_of(job)?;
    let venues = venues_of(&spec.venues)?;
    let mut run = RunSpec {
        venues,
        from: spec.from,
        to: spec.to,
        only: spec.only.clone(),
        force: spec.force,
        reason: job.reason.clone(),
        ..RunSpec::all_dirty(what)
    };
    if let Some(sample) = spec.sample.filter(|_| spec.only.is_none()) {
        run.only = Some(sample_of(worker, job, &run, sample).await?);
    }
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
    if report.failed == 0 && !report.cancelled && report.dirty_left > 0 && has_attempts_left(job) {
        // Nothing is wrong: others are at these days, or changed them meanwhile.
        return Err(Held {
            days: report.dirty_left,
        }
        .into());
    }
    let (state, error) = judge(&report);
    let mut report = serde_json::to_value(&report)?;
    if let Some(retry_of) = &spec.retry_of {
        report["retry_of"] = serde_json::json!(retry_of);
        report["days_retried"] = serde_json::json!(spec.only.as_ref().map(Vec::len));
    }
    Ok(Outcome { state, report, error })
}

/// So many of a run's days, spread over all of them; others for each job, the same however often one is begun.
async fn sample_of(
    worker: &JobWorker,
    job: &Job,
    run: &RunSpec,
    sample: usize,
) -> Result<Vec<(VenueId, LocalDay)>> {
    let every = RunSpec {
        include_open: false,
        force: true,
        ..run.clone()
    };
    let planned = worker.batch.plan_spec(&job.tenant, &every).await?;
    let mut days: Vec<(u64, VenueId, LocalDay)> = planned
        .into_iter()
        .flat_map(|(venue, days)| days.into_iter().map(move |day| (venue.venue.clone(), day.day)))
        .map(|(venue, day)| {
            let mut hasher = DefaultHasher::new();
            (&job.id, venue.as_str(), day).hash(&mut hasher);
            (hasher.finish(), venue, day)
        })
        .collect();
    days.sort();
    days.truncate(sample);
    Ok(days.into_iter().map(|(_, venue, day)| (venue, day)).collect())
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
            Err(dwell_batch_layer::Error::Cancelled) => return Ok(Outcome::cancelled(report)),
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

#[cfg(test)]
mod tests {
    use dwell_model::ids::TenantId;
    use serde_json::json;

    use super::*;

    fn ended(report: serde_json::Value) -> Job {
        let spec = json!({"venues": "all", "from": "2026-03-01", "to": "2026-03-05", "dry_run": false, "force": true});
        let tenant = TenantId::new("acme").unwrap();
        let mut job = Job::queued("j1".into(), tenant, "recompute", spec, "me".into(), None, 0);
        (job.state, job.report) = (JobState::Partial, Some(report));
        job
    }

    /// A report as jobs store it, of some days and how they went.
    fn report(days: &[(&str, &str, bool)]) -> serde_json::Value {
        let day = |(day, outcome, retryable): &(&str, &str, bool)| {
            json!({
                "venue": {"tenant": "acme", "venue": "shop"}, "day": day, "what": "recompute", "outcome": outcome,
                "reason": "", "generation": null, "events": 0, "rows": 0, "sessions": 0, "late_events": 0,
                "changed": null, "retryable": retryable, "duration_ms": 0,
            })
        };
        let mut report = serde_json::to_value(RunReport::default()).unwrap();
        report["days"] = days.iter().map(day).collect();
        report
    }

    #[test]
    fn a_retry_asks_for_the_days_that_failed_and_no_others() {
        let days = [
            ("2026-03-01", "computed", false),
            ("2026-03-02", "failed", false),
            ("2026-03-03", "skipped", true),
            ("2026-03-04", "skipped", false),
        ];
        let expected = json!({
            "venues": "all", "from": "2026-03-01", "to": "2026-03-05", "dry_run": false, "force": true,
            "only": [["shop", "2026-03-02"], ["shop", "2026-03-03"]], "retry_of": "j1",
        });
        assert_eq!(RECOMPUTE.retry(&ended(report(&days))).unwrap(), expected);
        // A verification that repaired keeps its report within.
        let repaired = json!({"verified": report(&days), "files": []});
        assert_eq!(VERIFY.retry(&ended(repaired)).unwrap()["only"], expected["only"]);
        assert!(
            RECOMPUTE.retry(&ended(report(&days[..1]))).is_err(),
            "nothing has failed"
        );
        assert!(
            RECOMPUTE.retry(&ended(json!(null))).is_err(),
            "it is not known what has"
        );
    }

    #[test]
    fn a_job_that_broke_off_or_was_stopped_is_taken_up_as_a_whole() {
        let whole = json!({
            "venues": "all", "from": "2026-03-01", "to": "2026-03-05", "dry_run": false, "force": true,
            "retry_of": "j1",
        });
        let some = report(&[("2026-03-01", "computed", false), ("2026-03-02", "failed", false)]);
        for (state, report) in [
            (JobState::Failed, json!(null)),
            (JobState::Cancelled, json!(null)),
            (JobState::Cancelled, some),
        ] {
            let mut job = ended(report);
            job.state = state;
            assert_eq!(RECOMPUTE.retry(&job).unwrap(), whole, "{state:?}");
        }
        // What it was to take up itself stays its own.
        let mut job = ended(json!(null));
        job.state = JobState::Cancelled;
        job.spec["only"] = json!([["shop", "2026-03-02"]]);
        assert_eq!(
            VERIFY.retry(&job).unwrap()["only"],
            json!([["shop", "2026-03-02"]])
        );
    }

    #[test]
    fn a_month_is_waited_for_and_what_is_longer_is_not() {
        let lane = |job: &DaysJob, from: Option<&str>, to: Option<&str>| {
            job.lane(&JobRequest {
                tenant: TenantId::new("acme").unwrap(),
                kind: job.what.word().to_owned(),
                venues: None,
                from: from.map(|day| day.parse().unwrap()),
                to: to.map(|day| day.parse().unwrap()),
                dry_run: false,
                reason: None,
                lane: None,
                options: serde_json::Map::new(),
            })
        };
        let (first, month, longer) = (Some("2026-03-01"), Some("2026-03-31"), Some("2026-04-01"));
        for (job, from, to, expected) in [
            (&RECOMPUTE, first, month, Lane::Demand),
            (&RECOMPUTE, first, longer, Lane::Backfill),
            (&RECOMPUTE, first, None, Lane::Backfill),
            (&RECOMPUTE, None, None, Lane::Demand),
            (&ARCHIVE, None, None, Lane::Demand),
            (&VERIFY, None, None, Lane::Backfill),
            (&VERIFY, first, first, Lane::Demand),
        ] {
            assert_eq!(
                lane(job, from, to),
                expected,
                "{} {from:?} {to:?}",
                job.what.word()
            );
        }
    }
}
