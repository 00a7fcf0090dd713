//! Jobs on the wire.

use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{Job, JobState, Lane};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::instant;

/// A job to be done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    /// What to do; GET /v1/jobs lists the kinds.
    #[schema(example = "recompute")]
    pub(crate) kind: String,
    /// Ids of venues, or `"all"` (also when left out).
    #[serde(default)]
    #[schema(value_type = Option<Value>, example = "all")]
    pub(crate) venues: Option<JobVenues>,
    /// First local day; since ever when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2026-03-01")]
    pub(crate) from: Option<LocalDay>,
    /// Last local day, included; until now when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2026-03-08")]
    pub(crate) to: Option<LocalDay>,
    /// Why, for the record.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Only report what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Which queue to wait in: `nightly` goes before `demand`, that before `backfill`. By kind and range when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "demand")]
    pub(crate) lane: Option<Lane>,
    /// What the kind wants to know besides.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) options: Map<String, Value>,
}

/// Which venues a job is for.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "venues must be \"all\", one id, or a list of ids")]
pub(crate) enum JobVenues {
    /// `"all"`, or one id.
    Word(String),
    /// Ids.
    Ids(Vec<String>),
}

/// A job and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobDto {
    id: String,
    kind: String,
    /// The queue it waits in: nightly, demand or backfill.
    lane: &'static str,
    /// queued, running, succeeded, partial, failed or cancelled.
    state: &'static str,
    progress: JobProgressDto,
    /// The decided parameters, as the kind defines them.
    spec: Value,
    /// What it did, as the kind defines it.
    report: Option<Value>,
    /// Why it failed, for people.
    error: Option<String>,
    /// Public id of the key that asked for it, or the part of Dwell.
    requested_by: String,
    reason: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    attempts: u32,
    cancel_requested: bool,
    /// When it will be done if the rest takes as long per step as the steps so far; null before the first step.
    estimated_end: Option<String>,
}

/// Steps done of steps to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobProgressDto {
    done: u64,
    /// Steps known so far.
    total: u64,
    /// What is being done, for people.
    doing: String,
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobsDto {
    pub(crate) jobs: Vec<JobDto>,
    /// What waits and runs in each queue, of all pages.
    pub(crate) lanes: Vec<LaneDto>,
    /// Kinds that can be asked for.
    pub(crate) kinds: Vec<JobKindDto>,
    /// Cursor of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// A queue of the tenant's jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LaneDto {
    /// nightly, demand or backfill.
    lane: &'static str,
    /// Jobs that wait for a worker.
    queued: u64,
    /// Jobs that a worker has, or that are tried again after a while.
    running: u64,
    /// When the oldest of those that wait was asked for; null when none waits.
    oldest_queued: Option<String>,
}

impl LaneDto {
    /// All lanes, from the jobs that have not ended.
    pub(crate) fn all(unfinished: &[Job]) -> Vec<Self> {
        let of = |lane: Lane| {
            let in_lane = || unfinished.iter().filter(move |job| job.lane == lane);
            let queued = || in_lane().filter(|job| job.state == JobState::Queued);
            Self {
                lane: lane.word(),
                queued: queued().count() as u64,
                running: in_lane().filter(|job| job.state == JobState::Running).count() as u64,
                oldest_queued: queued().map(|job| job.created_at).min().map(instant),
            }
        };
        Lane::ALL.map(of).into()
    }
}

/// A kind of job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobKindDto {
    pub(crate) kind: String,
    pub(crate) summary: String,
}

impl JobDto {
    /// A job as it is at an instant.
    pub(crate) fn of(job: Job, now: TsMs) -> Self {
        Self {
            estimated_end: estimated_end(&job, now).map(instant),
            id: job.id,
            kind: job.kind,
            lane: job.lane.word(),
            state: job.state.word(),
            progress: JobProgressDto {
                done: job.progress.done,
                total: job.progress.total,
                doing: job.progress.doing,
            },
            spec: job.spec,
            report: job.report,
            error: job.error,
            requested_by: job.requested_by,
            reason: job.reason,
            created_at: instant(job.created_at),
            started_at: job.started_at.map(instant),
            finished_at: job.finished_at.map(instant),
            attempts: job.attempts,
            cancel_requested: job.cancel_requested,
        }
    }
}

/// When a running job will be done, by the pace of its steps so far.
fn estimated_end(job: &Job, now: TsMs) -> Option<TsMs> {
    let (done, total) = (job.progress.done, job.progress.total);
    if job.state != JobState::Running || done == 0 || total < done {
        return None;
    }
    let so_far = i128::from(now - job.started_at?).max(0);
    let left = so_far * i128::from(total - done) / i128::from(done);
    now.checked_add(i64::try_from(left).ok()?)
}
