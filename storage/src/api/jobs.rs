//! Jobs: what operators and the schedule asked for, and how far it is.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

use super::{Flip, LEASE_AHEAD_MS_MAX};
use crate::error::Result;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker is at it.
    Running,
    /// Done.
    Succeeded,
    /// Some of its days failed; the report says which.
    Partial,
    /// Failed; the report says why.
    Failed,
    /// Taken back before it was done.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }

    /// The state as a word.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Partial => "partial",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

/// Which queue a job waits in. Those of an earlier lane go first, though none is passed over for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// What is asked for by itself: schedules.
    Nightly,
    /// What somebody asked for and waits for.
    #[default]
    Demand,
    /// Long ranges, imports, restores: what may take hours, and nobody waits for.
    Backfill,
}

impl Lane {
    /// All lanes, the first to go first.
    pub const ALL: [Lane; 3] = [Lane::Nightly, Lane::Demand, Lane::Backfill];

    /// The lane as a word.
    pub fn word(self) -> &'static str {
        match self {
            Lane::Nightly => "nightly",
            Lane::Demand => "demand",
            Lane::Backfill => "backfill",
        }
    }
}

/// Steps done of steps to do (venue-days, files), and a word on what is being done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobProgress {
    /// Steps done.
    pub done: u64,
    /// Steps known so far.
    pub total: u64,
    /// What is being done, for people.
    pub doing: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Unique; sorts by time of creation.
    pub id: String,
    /// Whose job.
    pub tenant: TenantId,
    /// What to do (`recompute`, `archive`, `verify`, `import`, …).
    pub kind: String,
    /// Which queue it waits in.
    #[serde(default)]
    pub lane: Lane,
    /// The decided parameters, as the kind defines them.
    pub spec: serde_json::Value,
    /// How far it is.
    pub state: JobState,
    /// Steps.
    pub progress: JobProgress,
    /// Who asked for it.
    pub requested_by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: TsMs,
    /// When a worker first took it.
    pub started_at: Option<TsMs>,
    /// When it ended.
    pub finished_at: Option<TsMs>,
    /// Attempts begun.
    pub attempts: u32,
    /// Whether somebody asked to stop it.
    pub cancel_requested: bool,
    /// What it did, as the kind defines it.
    pub report: Option<serde_json::Value>,
    /// Why it failed, for people.
    pub error: Option<String>,
    /// Fence of the worker that has it; raised by every claim.
    pub fence: u64,
    /// Until when the worker has it.
    pub leased_until: Option<TsMs>,
}

impl Job {
    /// A job that waits for a worker, in the lane of demand.
    pub fn queued(
        id: String,
        tenant: TenantId,
        kind: &str,
        spec: serde_json::Value,
        requested_by: String,
        reason: Option<String>,
        now: TsMs,
    ) -> Self {
        Self {
            id,
            tenant,
            kind: kind.to_owned(),
            lane: Lane::default(),
            spec,
            state: JobState::Queued,
            progress: JobProgress::default(),
            requested_by,
            reason,
            created_at: now,
            started_at: None,
            finished_at: None,
            attempts: 0,
            cancel_requested: false,
            report: None,
            error: None,
            fence: 0,
            leased_until: None,
        }
    }

    /// The kind of job that forgets a visitor.
    pub const ERASE: &'static str = "erase";

    /// Its parameters as they may stay for ever: of a job that forgets somebody without whom, sealed or in clear.
    pub fn spec_to_keep(&self) -> serde_json::Value {
        let mut spec = self.spec.clone();
        if self.kind == Self::ERASE
            && let Some(fields) = spec.as_object_mut()
        {
            for name in ["track", "device", "sensor", "sealed"] {
                fields.remove(name);
            }
        }
        spec
    }

    /// The job as it is stored: once it has ended, with what may stay of its parameters.
    #[must_use]
    pub(crate) fn into_stored(self) -> Self {
        match self.state.is_final() {
            true => Self {
                spec: self.spec_to_keep(),
                ..self
            },
            false => self,
        }
    }

    /// The same in a lane.
    #[must_use]
    pub fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    /// Whether a worker may take it for `ttl_ms`: it is queued, or running with a lease that has run out, or that a clock
    /// gave which has been set back since.
    pub fn is_claimable(&self, now: TsMs, ttl_ms: i64) -> bool {
        let ahead = now.saturating_add(ttl_ms).saturating_add(LEASE_AHEAD_MS_MAX);
        match self.state {
            JobState::Queued => true,
            JobState::Running => self
                .leased_until
                .is_some_and(|until| until <= now || until > ahead),
            _ => false,
        }
    }
}

/// The jobs table.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores a new job. `Conflict` when the id is taken.
    async fn create(&self, job: &Job) -> Result<()>;

    /// A job of a tenant.
    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<Job>>;

    /// Jobs of a tenant (of all tenants for `None`), newest first, at most `limit`, before an id.
    async fn list(&self, tenant: Option<&TenantId>, before: Option<&str>, limit: usize) -> Result<Vec<Job>>;

    /// Jobs that have not ended, of all tenants, oldest first, at most `limit`. What a process left behind that died
    /// while it created a job is tidied up on the way, by its age at `now`.
    async fn unfinished(&self, now: TsMs, limit: usize) -> Result<Vec<Job>>;

    /// Gives a job that is queued, or running with an expired lease, to a worker until `now + ttl_ms`: raises its fence
    /// and attempts. A lease that ends more than [`LEASE_AHEAD_MS_MAX`] after `now + ttl_ms`
    /// counts as expired. Conditional write. `None` when it is not to be had.
    async fn claim_one(&self, tenant: &TenantId, id: &str, now: TsMs, ttl_ms: i64) -> Result<Option<Job>>;

    /// The same with the oldest that is to be had.
    async fn claim(&self, now: TsMs, ttl_ms: i64) -> Result<Option<Job>> {
        for job in self.unfinished(now, usize::MAX).await? {
            if job.is_claimable(now, ttl_ms)
                && let Some(job) = self.claim_one(&job.tenant, &job.id, now, ttl_ms).await?
            {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// Stores a claimed job's parameters, state, attempts, progress, report and lease, conditional on its fence;
    /// `cancel_requested` is kept as stored. A lease that ends now hands the job back. A final state ends the lease, and of
    /// the parameters leaves what [may stay](Job::spec_to_keep).
    async fn update(&self, job: &Job) -> Result<Flip>;

    /// Asks a job to stop: a queued one is cancelled at once, which is a final state. `NotFound` when there is none.
    async fn request_cancel(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<Job>;
}
