//! `recut`: a venue's days cut anew under a corrected time zone or day start, published in one flip.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use dwell_batch_layer::Error as BatchError;
use dwell_batch_layer::recut::{RecutOutcome, RecutReport};
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::VenueCalendar;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::recuts::{self, Recut, Wish};
use dwell_storage::api::{Job, JobProgress, JobState, Lane};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Vec<VenueId>,
    tz: Option<String>,
    day_start_hour: Option<u8>,
    #[serde(default)]
    dry_run: bool,
}

/// The kind.
pub(super) struct RecutJob;

#[async_trait]
impl JobKind for RecutJob {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: recuts::JOB_KIND,
            summary: "Cut a venue's days anew under a corrected time zone or day start, and publish them in one flip",
            takes_days: false,
            takes_dry_run: true,
            options: &["tz", "day_start_hour"],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |why: String| Err(JobRefusal(why));
        if request.venues.as_ref().is_none_or(|venues| venues.len() != 1) {
            return refuse("days are cut anew for one venue at a time: name it".to_owned());
        }
        let hour = match request.options.get("day_start_hour") {
            None => 0,
            Some(hour) => match hour.as_u64().and_then(|hour| u8::try_from(hour).ok()) {
                Some(hour) => hour,
                None => return refuse("day_start_hour is a whole hour from 0 to 23".to_owned()),
            },
        };
        let tz = match request.options.get("tz") {
            None => "Etc/UTC",
            Some(tz) => match tz.as_str() {
                Some(tz) => tz,
                None => return refuse("tz is the name of a time zone".to_owned()),
            },
        };
        match VenueCalendar::from_names(tz, hour) {
            Ok(_) => Ok(()),
            Err(error) => refuse(error.to_string()),
        }
    }

    /// It takes what computing all of the venue's days takes.
    fn lane(&self, _: &JobRequest) -> Lane {
        Lane::Backfill
    }

    /// Once it is decided, everybody else is kept from the venue's days until all is published.
    async fn must_go_on(&self, worker: &JobWorker, job: &Job) -> Result<bool> {
        let spec: Spec = spec_of(job)?;
        let Some(venue) = spec.venues.first().filter(|_| !spec.dry_run) else {
            return Ok(false);
        };
        let key = VenueKey::new(job.tenant.clone(), venue.clone());
        let recut = recuts::load(worker.stores.documents.as_ref(), &key).await?;
        Ok(recut.is_some_and(|recut| recut.value.is_decided()))
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let venue = spec.venues.first().context("no venue is named")?;
        let key = VenueKey::new(job.tenant.clone(), venue.clone());
        let to = wanted(worker, &key, &spec).await?;
        if spec.dry_run {
            return dry_run(worker, &key, to).await;
        }
        let stored = worker.stores.registry.venue(&key).await?;
        let from = stored.context("the venue is not there any more")?.venue.calendar;
        let wish = Wish {
            job: job.id.clone(),
            from,
            to,
            by: job.requested_by.clone(),
            at: job.created_at,
        };
        let tell = |state: JobProgress| progress.set(state.done, state.total, &state.doing);
        let reason = job.reason.as_deref();
        let mut done = worker.batch.recut(&key, &wish, reason, &tell, &cancel).await;
        if matches!(done, Err(BatchError::Cancelled)) {
            let stored = worker.stores.jobs.get(&job.tenant, &job.id).await?;
            if !stored.is_some_and(|stored| stored.cancel_requested) {
                // The process ends; the next one goes on.
                return Ok(Outcome::cancelled(json!({ "venue": venue })));
            }
            let recut = recuts::load(worker.stores.documents.as_ref(), &key).await?;
            let number = recut.filter(|recut| recut.value.job == job.id);
            let number = number.map(|recut| recut.value.number);
            let is_withdrawn = match number {
                Some(number) => worker.batch.withdraw_recut(&key, number, "cancelled").await?,
                None => true,
            };
            if is_withdrawn {
                let report = json!({ "venue": venue, "withdrawn": true });
                return Ok(Outcome::cancelled(report));
            }
            // Too late: half of it would help nobody.
            let go_on = CancellationToken::new();
            done = worker.batch.recut(&key, &wish, reason, &tell, &go_on).await;
        }
        Ok(outcome(venue, done?))
    }
}

/// The cut that is asked for: what the options leave out stays as it is wanted, or as it is.
async fn wanted(worker: &JobWorker, venue: &VenueKey, spec: &Spec) -> Result<VenueCalendar> {
    let stored = worker.stores.registry.venue(venue).await?;
    let published = stored.context("the venue is not there any more")?.venue.calendar;
    let pending = recuts::load(worker.stores.documents.as_ref(), venue).await?;
    let pending = pending
        .map(|stored| stored.value)
        .filter(|recut| recut.is_pending());
    // Of a decided one the registry may have the cut already, and more is to be published.
    let is_decided = pending.as_ref().is_some_and(Recut::is_decided);
    let base = pending.map_or(published, |recut| recut.to);
    if spec.tz.is_none() && spec.day_start_hour.is_none() && base == published && !is_decided {
        bail!(
            "no other time zone or day start is wanted for {}: give tz or day_start_hour, or apply the venue's file",
            venue.venue
        );
    }
    let tz = spec.tz.as_deref().unwrap_or_else(|| base.tz().name());
    let hour = spec.day_start_hour.unwrap_or_else(|| base.day_start_hour());
    Ok(VenueCalendar::from_names(tz, hour)?)
}

async fn dry_run(worker: &JobWorker, venue: &VenueKey, to: VenueCalendar) -> Result<Outcome> {
    let plan = match worker.batch.plan_recut(venue, to).await {
        Err(BatchError::Recut(why)) => {
            let report = json!({ "dry_run": true, "venue": venue.venue, "refused": why });
            return Ok(Outcome::succeeded(report));
        }
        plan => plan?,
    };
    let mut report = report_of(&venue.venue, &plan);
    report["dry_run"] = json!(true);
    Ok(Outcome::succeeded(report))
}

fn outcome(venue: &VenueId, report: RecutReport) -> Outcome {
    let shown = report_of(venue, &report);
    match report.outcome {
        RecutOutcome::Flipped | RecutOutcome::Unchanged => Outcome::succeeded(shown),
        RecutOutcome::Superseded => Outcome::troubled(
            JobState::Cancelled,
            shown,
            "another time zone or day start was asked for since".to_owned(),
        ),
        RecutOutcome::Withdrawn => {
            Outcome::troubled(JobState::Cancelled, shown, "it was taken back before".to_owned())
        }
    }
}

fn report_of(venue: &VenueId, report: &RecutReport) -> serde_json::Value {
    let cut = |calendar: &VenueCalendar| json!({ "tz": calendar.tz().name(), "day_start_hour": calendar.day_start_hour() });
    json!({
        "venue": venue,
        "outcome": report.outcome,
        "from": cut(&report.from),
        "to": cut(&report.to),
        "days": report.days,
        "first": report.first,
        "last": report.last,
        "taken_over": report.taken_over,
        "events": report.events,
        "united": report.united,
    })
}
