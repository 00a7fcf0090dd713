//! The jobs that cut a venue's days anew: asked for with a corrected time zone, and once more where the job of a decided
//! recut has ended, or is lost, before all of it was published. Everybody else waits for its end, so somebody must go on.

use dwell_model::ids::VenueKey;
use dwell_model::time::{TsMs, VenueCalendar};
use dwell_storage::api::recuts::{self, Recut};
use dwell_storage::api::{Documents, Job, Jobs};
use serde_json::json;

use crate::ids;
use crate::job_catalogue::{JobCatalogue, JobRequest};
use crate::problem::{self, Problem};

/// A job that gives a venue another cut, not stored yet.
pub(crate) fn queued(
    kinds: &dyn JobCatalogue,
    venue: &VenueKey,
    to: VenueCalendar,
    by: &str,
    now: TsMs,
) -> Result<Job, Problem> {
    let request = JobRequest {
        tenant: venue.tenant.clone(),
        kind: recuts::JOB_KIND.to_owned(),
        venues: Some(vec![venue.venue.clone()]),
        from: None,
        to: None,
        dry_run: false,
        reason: None,
        lane: None,
        options: serde_json::Map::from_iter([
            ("tz".to_owned(), json!(to.tz().name())),
            ("day_start_hour".to_owned(), json!(to.day_start_hour())),
        ]),
    };
    let refused = |refusal: crate::job_catalogue::JobRefusal| Problem::new(problem::BAD_BODY, refusal.0);
    let spec = kinds.decide(&request).map_err(refused)?;
    let job = Job::queued(
        ids::new_job_id(now)?,
        venue.tenant.clone(),
        recuts::JOB_KIND,
        spec,
        by.to_owned(),
        None,
        now,
    );
    Ok(job.in_lane(kinds.lane(&request)))
}

/// Whether a recut's job has not ended.
pub(crate) async fn has_job(jobs: &dyn Jobs, venue: &VenueKey, recut: &Recut) -> Result<bool, Problem> {
    let job = jobs.get(&venue.tenant, &recut.job).await?;
    Ok(job.is_some_and(|job| !job.state.is_final()))
}

/// Sees to it that somebody goes on with a decided recut: its own job, or else a new one, asked for by `by`. A backup holds
/// recuts and no jobs, so after a restore there is none. Returns the job's id; whoever asks how often, there is one.
pub async fn go_on(
    documents: &dyn Documents,
    jobs: &dyn Jobs,
    kinds: &dyn JobCatalogue,
    venue: &VenueKey,
    recut: &Recut,
    by: &str,
    now: TsMs,
) -> Result<String, Problem> {
    if has_job(jobs, venue, recut).await? {
        return Ok(recut.job.clone());
    }
    let job = queued(kinds, venue, recut.to, by, now)?;
    let stands = recuts::hand_over(documents, venue, recut.number, &recut.job, &job.id).await?;
    match stands {
        Some(stands) if stands.job == job.id => {}
        // Somebody else has asked for one.
        Some(stands) => return Ok(stands.job),
        None => return Ok(recut.job.clone()),
    }
    // Who dies here leaves a recut whose job there is not: the next look finds it.
    jobs.create(&job).await?;
    kinds.created(&job);
    tracing::warn!(job = job.id, former = recut.job, %venue, "a decided recut had no job any more: asked for a new one");
    Ok(job.id)
}
