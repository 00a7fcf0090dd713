//! Jobs in Cassandra: a row per job, lists of ids by tenant and of all, and the ids of those that have not ended.
//!
//! The lists are written before the row, so that a job that is there is found; an entry without its row, or with the
//! row of another tenant's job, is passed over. Every change of a row is a conditional write on its stamp: the job is
//! read, changed, and stored if nobody else has changed it; otherwise again.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use dwell_model::time::{DAY_MS, TsMs};
use futures::TryStreamExt;
use scylla::value::CqlTimestamp;
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::cluster::{Cluster, Cql};
use super::contention::{Contention, Stamp, is_stamp, stamp};
use super::encoding::{from_json, to_json};
use super::several;
use super::values::{damaged_value, to_stored};
use crate::api::{Flip, Job, JobState, Jobs};
use crate::error::{ErrorKind, Result, StorageError};

const READ: Cql = Cql::read(
    "read a job",
    "SELECT job, creation, claim, stamp FROM {ks}.jobs WHERE id = ?",
);
const SETTLE: Cql = Cql::serial_read(
    "read a job",
    "SELECT job, creation, claim, stamp FROM {ks}.jobs WHERE id = ?",
);
const CREATE: Cql = Cql::conditional(
    "create a job",
    "INSERT INTO {ks}.jobs (id, tenant, kind, state, fence, leased_until, job, creation, stamp)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
);
const CHANGE: Cql = Cql::conditional(
    "change a job",
    "UPDATE {ks}.jobs SET state = ?, fence = ?, leased_until = ?, job = ?, claim = ?, stamp = ?
     WHERE id = ? IF stamp = ?",
);
const ADD_TO_LIST: Cql = Cql::write(
    "list a job",
    "INSERT INTO {ks}.job_lists (list, id) VALUES (?, ?)",
);
const LIST: Cql = Cql::read(
    "list jobs",
    "SELECT id FROM {ks}.job_lists WHERE list = ? LIMIT ?",
);
const LIST_BEFORE: Cql = Cql::read(
    "list jobs",
    "SELECT id FROM {ks}.job_lists WHERE list = ? AND id < ? LIMIT ?",
);
const OPEN: Cql = Cql::write(
    "open a job",
    "INSERT INTO {ks}.open_jobs (part, id, created_at) VALUES (0, ?, ?)",
);
const CLOSE: Cql = Cql::write(
    "close a job",
    "DELETE FROM {ks}.open_jobs WHERE part = 0 AND id = ?",
);
const LIST_OPEN: Cql = Cql::read(
    "list open jobs",
    "SELECT id, created_at FROM {ks}.open_jobs WHERE part = 0",
);

/// Parts of the list of all jobs.
const ALL_PARTS: u64 = 8;
/// Ids asked for at a time.
const PAGE_MAX: usize = 500;
/// Jobs read at a time.
const READS_AT_ONCE: usize = 8;
/// An open entry without a job is removed when it is that old: whoever wrote it has long given up.
const ABANDONED_AFTER_MS: i64 = DAY_MS;

/// The jobs table in Cassandra.
#[derive(Debug)]
pub struct CassandraJobs {
    cluster: Cluster,
    /// Held while claiming: workers of one process do not get in each other's way.
    claiming: Mutex<()>,
}

struct StoredJob {
    job: Job,
    creation: Option<Vec<u8>>,
    claim: Option<Vec<u8>>,
    stamp: Option<Vec<u8>>,
}

impl CassandraJobs {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            claiming: Mutex::new(()),
        }
    }

    async fn read(&self, cql: Cql, id: &str) -> Result<Option<StoredJob>> {
        type Columns = (Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let row: Option<Columns> = self.cluster.first(cql, (id,)).await?;
        row.map(|(job, creation, claim, stamp)| {
            let job = job.ok_or_else(|| damaged_value(format_args!("the job {id} is empty")))?;
            Ok(StoredJob {
                job: from_json(&job)?,
                creation,
                claim,
                stamp,
            })
        })
        .transpose()
    }

    async fn read_of(&self, tenant: &TenantId, id: &str) -> Result<StoredJob> {
        let stored = self.read(READ, id).await?;
        stored
            .filter(|stored| stored.job.tenant == *tenant)
            .ok_or_else(|| {
                StorageError::new(ErrorKind::NotFound, format!("there is no job with the id {id}"))
            })
    }

    /// Stores a changed job if nobody has changed it since it was read. `claim` is another's as before, or this one's.
    async fn change(
        &self,
        before: &StoredJob,
        job: &Job,
        claim: Option<&Stamp>,
        mine: &Stamp,
    ) -> Result<bool> {
        let read_back = async {
            let found = self.read(SETTLE, &job.id).await?;
            Ok(found.is_some_and(|found| match claim {
                Some(claim) => is_stamp(found.claim.as_ref(), claim),
                None => is_stamp(found.stamp.as_ref(), mine),
            }))
        };
        let row = (
            job.state.word(),
            to_stored(job.fence)?,
            job.leased_until.map(CqlTimestamp),
            to_json(job)?,
            claim.map(|claim| claim.as_slice()).or(before.claim.as_deref()),
            mine.as_slice(),
            &job.id,
            before.stamp.as_deref(),
        );
        self.cluster.conditional(CHANGE, row, read_back).await
    }

    /// Takes a job that has ended out of the open ones. When that fails the next claim does it.
    async fn close(&self, id: &str) {
        if let Err(error) = self.cluster.execute(CLOSE, (id,)).await {
            tracing::debug!(id, %error, "a job that has ended is still listed as open");
        }
    }

    /// Tries to claim one job; `None` when it is not to be had.
    async fn claim_found(&self, found: StoredJob, now: TsMs, ttl_ms: i64) -> Result<Option<Job>> {
        let mut contention = Contention::new(&self.cluster, "claim a job");
        let mut found = Some(found);
        while let Some(before) = found.filter(|stored| stored.job.is_claimable(now, ttl_ms)) {
            let mut job = before.job.clone();
            job.state = JobState::Running;
            job.started_at = job.started_at.or(Some(now));
            job.attempts += 1;
            job.fence += 1;
            job.leased_until = Some(now.saturating_add(ttl_ms));
            let mine = stamp()?;
            if self.change(&before, &job, Some(&mine), &mine).await? {
                return Ok(Some(job));
            }
            contention.wait().await?;
            found = self.read(READ, &before.job.id).await?;
        }
        Ok(None)
    }

    /// Ids before another one, newest first, of a tenant or of all.
    async fn ids(
        &self,
        tenant: Option<&TenantId>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let lists: Vec<String> = match tenant {
            Some(tenant) => vec![list_of(tenant)],
            None => (0..ALL_PARTS).map(|part| format!("all/{part}")).collect(),
        };
        let rows = i32::try_from(limit).unwrap_or(i32::MAX);
        let lists = lists.iter().map(|list| async move {
            match before {
                None => self.cluster.all::<(String,)>(LIST, (list, rows)).await,
                Some(before) => self.cluster.all(LIST_BEFORE, (list, before, rows)).await,
            }
        });
        let found = futures::future::try_join_all(lists).await?;
        let mut ids: Vec<String> = found.into_iter().flatten().map(|(id,)| id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(limit);
        Ok(ids)
    }
}

#[async_trait]
impl Jobs for CassandraJobs {
    async fn create(&self, job: &Job) -> Result<()> {
        let taken = || {
            let why = format!("there is a job with the id {} already", job.id);
            StorageError::new(ErrorKind::Conflict, why)
        };
        if self.read(READ, &job.id).await?.is_some() {
            return Err(taken());
        }
        let (list, all) = (list_of(&job.tenant), all_list(&job.id));
        futures::try_join!(
            self.cluster.execute(ADD_TO_LIST, (&list, &job.id)),
            self.cluster.execute(ADD_TO_LIST, (&all, &job.id)),
            self.cluster
                .execute(OPEN, (&job.id, CqlTimestamp(job.created_at))),
        )?;
        let mine = stamp()?;
        let is_mine = async |cql| {
            let found = self.read(cql, &job.id).await?;
            Ok::<_, StorageError>(found.map(|found| is_stamp(found.creation.as_ref(), &mine)))
        };
        let mut contention = Contention::new(&self.cluster, CREATE.doing());
        loop {
            let row = (
                &job.id,
                job.tenant.as_str(),
                &job.kind,
                job.state.word(),
                to_stored(job.fence)?,
                job.leased_until.map(CqlTimestamp),
                to_json(job)?,
                mine.as_slice(),
                mine.as_slice(),
            );
            let read_back = async { Ok(is_mine(SETTLE).await? == Some(true)) };
            if self.cluster.conditional(CREATE, row, read_back).await? {
                return Ok(());
            }
            match is_mine(READ).await? {
                Some(true) => return Ok(()),
                Some(false) => return Err(taken()),
                None => contention.wait().await?,
            }
        }
    }

    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<Job>> {
        let stored = self.read(READ, id).await?;
        Ok(stored
            .map(|stored| stored.job)
            .filter(|job| job.tenant == *tenant))
    }

    async fn list(&self, tenant: Option<&TenantId>, before: Option<&str>, limit: usize) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let mut before = before.map(str::to_owned);
        // Entries without a job make a page short, so it goes on until there are enough or no more.
        while jobs.len() < limit {
            let asked = (limit - jobs.len()).min(PAGE_MAX);
            let ids = self.ids(tenant, before.as_deref(), asked).await?;
            let reads = ids.iter().map(|id| self.read(READ, id));
            let found: Vec<Option<StoredJob>> = several::in_order(reads, READS_AT_ONCE).try_collect().await?;
            let of_tenant = |job: &Job| tenant.is_none_or(|tenant| job.tenant == *tenant);
            jobs.extend(
                found
                    .into_iter()
                    .flatten()
                    .map(|stored| stored.job)
                    .filter(of_tenant),
            );
            if ids.len() < asked {
                break;
            }
            before = ids.into_iter().last();
        }
        Ok(jobs)
    }

    async fn unfinished(&self, now: TsMs, limit: usize) -> Result<Vec<Job>> {
        let open: Vec<(String, Option<CqlTimestamp>)> = self.cluster.all(LIST_OPEN, ()).await?;
        let reads = open.iter().map(|(id, created_at)| async move {
            Ok::<_, StorageError>((id, created_at, self.read(READ, id).await?))
        });
        let mut oldest_first = std::pin::pin!(several::in_order(reads, READS_AT_ONCE));
        let mut jobs = Vec::new();
        while let Some((id, created_at, found)) = oldest_first.try_next().await? {
            if jobs.len() == limit {
                break;
            }
            match found {
                Some(stored) if stored.job.state.is_final() => self.close(id).await,
                Some(stored) => jobs.push(stored.job),
                // Its creation is under way, or was given up.
                None => {
                    let age_ms = created_at.map_or(0, |at| now.saturating_sub(at.0));
                    if age_ms > ABANDONED_AFTER_MS {
                        self.close(id).await;
                    }
                }
            }
        }
        Ok(jobs)
    }

    async fn claim_one(&self, tenant: &TenantId, id: &str, now: TsMs, ttl_ms: i64) -> Result<Option<Job>> {
        let _claiming = self.claiming.lock().await;
        match self.read(READ, id).await? {
            Some(found) if found.job.tenant == *tenant => self.claim_found(found, now, ttl_ms).await,
            _ => Ok(None),
        }
    }

    async fn update(&self, job: &Job) -> Result<Flip> {
        let mut contention = Contention::new(&self.cluster, "update a job");
        let mut tried = false;
        loop {
            let before = self.read_of(&job.tenant, &job.id).await?;
            // A job that has ended belongs to nobody.
            if before.job.fence != job.fence || before.job.state != JobState::Running {
                // Only who holds the fence ends a running job: an earlier try of this call, answered too late.
                let ended_it = tried && before.job.fence == job.fence && before.job.state == job.state;
                return Ok(if ended_it { Flip::Done } else { Flip::Lost });
            }
            let update = job.clone();
            let updated = Job {
                spec: update.spec,
                state: update.state,
                attempts: update.attempts,
                progress: update.progress,
                report: update.report,
                error: update.error,
                finished_at: update.finished_at,
                leased_until: update.leased_until.filter(|_| !update.state.is_final()),
                ..before.job.clone()
            }
            .into_stored();
            if self.change(&before, &updated, None, &stamp()?).await? {
                if updated.state.is_final() {
                    self.close(&job.id).await;
                }
                return Ok(Flip::Done);
            }
            tried = true;
            contention.wait().await?;
        }
    }

    async fn request_cancel(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<Job> {
        let mut contention = Contention::new(&self.cluster, "cancel a job");
        loop {
            let before = self.read_of(tenant, id).await?;
            let mut job = before.job.clone();
            if job.state.is_final() {
                return Ok(job);
            }
            job.cancel_requested = true;
            if job.state == JobState::Queued {
                job.state = JobState::Cancelled;
                job.finished_at = Some(now);
            }
            let job = job.into_stored();
            if self.change(&before, &job, None, &stamp()?).await? {
                if job.state.is_final() {
                    self.close(id).await;
                }
                return Ok(job);
            }
            contention.wait().await?;
        }
    }
}

fn list_of(tenant: &TenantId) -> String {
    format!("tenant/{tenant}")
}

fn all_list(id: &str) -> String {
    format!("all/{}", xxh3_64(id.as_bytes()) % ALL_PARTS)
}
