//! Jobs in `data.db`: the job as JSON, beside it the columns that claiming and listing ask for.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use rusqlite::{Connection, OptionalExtension};

use super::connection::Database;
use super::failure::Failure;
use super::values::{from_json, sql_limit, to_json, to_stored};
use crate::api::{Flip, Job, JobState, Jobs};
use crate::error::{ErrorKind, Result};

/// The embedded jobs table.
#[derive(Debug)]
pub struct SqliteJobs {
    data: Database,
}

impl SqliteJobs {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Jobs for SqliteJobs {
    async fn create(&self, job: &Job) -> Result<()> {
        let job = job.clone();
        self.data
            .write("create a job", move |data| {
                if load(data, &job.id)?.is_some() {
                    let why = format!("there is a job with the id {} already", job.id);
                    return Err(Failure::refuse(ErrorKind::Conflict, why));
                }
                store(data, &job)
            })
            .await
    }

    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<Job>> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .read("read a job", move |data| {
                Ok(load(data, &id)?.filter(|job| job.tenant == tenant))
            })
            .await
    }

    async fn list(&self, tenant: Option<&TenantId>, before: Option<&str>, limit: usize) -> Result<Vec<Job>> {
        let (tenant, before) = (tenant.cloned(), before.map(str::to_owned));
        self.data
            .read("list jobs", move |data| {
                let limit = sql_limit(limit);
                // Statements of their own, so that each walks its index.
                let before_id = "(?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3";
                let mut jobs = Vec::new();
                let mut select = match &tenant {
                    Some(_) => data
                        .prepare_cached(&format!("SELECT job FROM jobs WHERE tenant = ?1 AND {before_id}"))?,
                    None => data
                        .prepare_cached(&format!("SELECT job FROM jobs WHERE ?1 IS NULL AND {before_id}"))?,
                };
                let mut rows = select.query((tenant.as_ref().map(TenantId::as_str), before, limit))?;
                while let Some(row) = rows.next()? {
                    jobs.push(from_json(
                        row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?,
                    )?);
                }
                Ok(jobs)
            })
            .await
    }

    async fn unfinished(&self, _: TsMs, limit: usize) -> Result<Vec<Job>> {
        self.data
            .read("list unfinished jobs", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT job FROM jobs WHERE state IN ('queued', 'running') ORDER BY id LIMIT ?1",
                )?;
                let mut rows = select.query([sql_limit(limit)])?;
                let mut jobs = Vec::new();
                while let Some(row) = rows.next()? {
                    jobs.push(from_json(
                        row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?,
                    )?);
                }
                Ok(jobs)
            })
            .await
    }

    async fn claim_one(&self, tenant: &TenantId, id: &str, now: TsMs, ttl_ms: i64) -> Result<Option<Job>> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .write("claim a job", move |data| {
                let found =
                    load(data, &id)?.filter(|job| job.tenant == tenant && job.is_claimable(now, ttl_ms));
                let Some(mut job) = found else { return Ok(None) };
                job.state = JobState::Running;
                job.started_at = job.started_at.or(Some(now));
                job.attempts += 1;
                job.fence += 1;
                job.leased_until = Some(now.saturating_add(ttl_ms));
                store(data, &job)?;
                Ok(Some(job))
            })
            .await
    }

    async fn update(&self, job: &Job) -> Result<Flip> {
        let job = job.clone();
        self.data
            .write("update a job", move |data| {
                let stored = load(data, &job.id)?.filter(|stored| stored.tenant == job.tenant);
                let Some(stored) = stored else {
                    return Err(no_job(&job.id));
                };
                // A job that has ended belongs to nobody.
                if stored.fence != job.fence || stored.state != JobState::Running {
                    return Ok(Flip::Lost);
                }
                let updated = Job {
                    spec: job.spec,
                    state: job.state,
                    attempts: job.attempts,
                    progress: job.progress,
                    report: job.report,
                    error: job.error,
                    finished_at: job.finished_at,
                    leased_until: if job.state.is_final() {
                        None
                    } else {
                        job.leased_until
                    },
                    ..stored
                };
                store(data, &updated.into_stored())?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn request_cancel(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<Job> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .write("cancel a job", move |data| {
                let Some(mut job) = load(data, &id)?.filter(|job| job.tenant == tenant) else {
                    return Err(no_job(&id));
                };
                if job.state.is_final() {
                    return Ok(job);
                }
                job.cancel_requested = true;
                if job.state == JobState::Queued {
                    job.state = JobState::Cancelled;
                    job.finished_at = Some(now);
                }
                let job = job.into_stored();
                store(data, &job)?;
                Ok(job)
            })
            .await
    }
}

fn no_job(id: &str) -> Failure {
    Failure::refuse(ErrorKind::NotFound, format!("there is no job with the id {id}"))
}

fn load(data: &Connection, id: &str) -> Result<Option<Job>, Failure> {
    let mut select = data.prepare_cached("SELECT job FROM jobs WHERE id = ?1")?;
    let found: Option<String> = select.query_row([id], |row| row.get(0)).optional()?;
    found.as_deref().map(from_json).transpose()
}

fn store(data: &Connection, job: &Job) -> Result<(), Failure> {
    data.prepare_cached(
        "INSERT INTO jobs (id, tenant, state, leased_until, fence, job) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET state = ?3, leased_until = ?4, fence = ?5, job = ?6",
    )?
    .execute((
        &job.id,
        job.tenant.as_str(),
        job.state.word(),
        job.leased_until,
        to_stored(job.fence)?,
        to_json(job)?,
    ))?;
    Ok(())
}
