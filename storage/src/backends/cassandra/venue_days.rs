//! Venue-days in Cassandra: leases, fences, the published generation and its history, all in one row.
//!
//! Every write is a conditional one on that row, so that a generation and its place in the history appear together, and
//! a generation that lost leaves no trace. What a write rests on is either the fence (which only grows) or the row's
//! stamp (which never comes back), so a write that the network delayed finds another fence or stamp and changes nothing.
//! One exception does no harm: a delayed [`renew`](VenueDaysWriter::renew) may give a lease that was released meanwhile,
//! and that nobody has taken, another while to live.
//!
//! A write whose outcome is unknown is read back at SERIAL: its own stamp says that it happened; so does, for
//! publishing, the generation's number in the history, since the number is the lease's fence and nobody else's. A call
//! that cannot find out either is `Unavailable`, and may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use futures::TryStreamExt;
use scylla::value::{CqlDate, CqlTimestamp};

use super::cluster::{Cluster, Cql};
use super::contention::{Contention, is_stamp, stamp};
use super::encoding::{from_json, to_json};
use super::several;
use super::values::{damaged_value, date, day as day_from, from_stored, to_stored};
use crate::api::{
    Flip, Generation, GenerationInfo, LEASE_AHEAD_MS_MAX, Lease, Marks, RestoredDay, VenueDay,
    VenueDaysReader, VenueDaysWriter, refuse_not_staged, refuse_other_fence, refuse_published,
};
use crate::error::{ErrorKind, Result, StorageError};

const READ_LEASE: Cql = Cql::read(
    "read the lease of a venue-day",
    "SELECT fence, holder, expires_at, published, stamp FROM {ks}.venue_days
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const SETTLE_LEASE: Cql = Cql::serial_read(
    "read the lease of a venue-day",
    "SELECT fence, holder, expires_at, published, stamp FROM {ks}.venue_days
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const READ_DAY: Cql = Cql::serial_read(
    "read a venue-day",
    "SELECT day, fence, holder, expires_at, published, info FROM {ks}.venue_days
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const LIST_DAYS: Cql = Cql::read(
    "list venue-days",
    "SELECT day, fence, holder, expires_at, published, info FROM {ks}.venue_days
     WHERE tenant = ? AND venue = ? AND year = ? AND day >= ? AND day <= ?",
);
const READ_PUBLISHED: Cql = Cql::read(
    "read the published generation of a venue-day",
    "SELECT fence, published, info, stamp FROM {ks}.venue_days WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const READ_HISTORY: Cql = Cql::serial_read(
    "read the history of a venue-day",
    "SELECT history FROM {ks}.venue_days WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const FIRST_LEASE: Cql = Cql::conditional(
    "take the lease of a venue-day",
    "INSERT INTO {ks}.venue_days (tenant, venue, year, day, fence, holder, expires_at, stamp)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
);
const NEXT_LEASE: Cql = Cql::conditional(
    "take the lease of a venue-day",
    "UPDATE {ks}.venue_days SET fence = ?, holder = ?, expires_at = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);
const RENEW: Cql = Cql::conditional(
    "renew the lease of a venue-day",
    "UPDATE {ks}.venue_days SET holder = ?, expires_at = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF fence = ?",
);
const RELEASE: Cql = Cql::conditional(
    "give back the lease of a venue-day",
    "UPDATE {ks}.venue_days SET holder = null, expires_at = null, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF fence = ?",
);
const PUBLISH: Cql = Cql::conditional(
    "publish a generation",
    "UPDATE {ks}.venue_days SET published = ?, info = ?, history[?] = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF fence = ? AND published = ?",
);
const STAGE: Cql = Cql::conditional(
    "stage a generation",
    "UPDATE {ks}.venue_days SET history[?] = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);
const READ_STAGED: Cql = Cql::read(
    "read the generations of a venue-day",
    "SELECT fence, published, history, stamp FROM {ks}.venue_days
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ?",
);
const PROMOTE: Cql = Cql::conditional(
    "publish a staged generation",
    "UPDATE {ks}.venue_days SET published = ?, info = ?, history[?] = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);
const RAISE_MARKS: Cql = Cql::conditional(
    "raise the marks of a generation",
    "UPDATE {ks}.venue_days SET info = ?, history[?] = ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);
const FORGET: Cql = Cql::conditional(
    "forget generations",
    "UPDATE {ks}.venue_days SET history = history - ?, stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);

const RESTORE_FIRST: Cql = Cql::conditional(
    "restore a venue-day",
    "INSERT INTO {ks}.venue_days (tenant, venue, year, day, fence, published, info, history, stamp)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
);
const RESTORE: Cql = Cql::conditional(
    "restore a venue-day",
    "UPDATE {ks}.venue_days SET fence = ?, holder = null, expires_at = null, published = ?, info = ?, history = ?,
         stamp = ?
     WHERE tenant = ? AND venue = ? AND year = ? AND day = ? IF stamp = ?",
);

/// Years of one call read at a time.
const READS_AT_ONCE: usize = 16;

/// The venue-days table in Cassandra.
#[derive(Debug)]
pub struct CassandraVenueDays {
    cluster: Cluster,
}

/// A row's key: tenant, venue, year, day.
type Key<'a> = (&'a str, &'a str, i32, CqlDate);
type Blob = Vec<u8>;

/// What a row says of its lease.
struct LeaseRow {
    fence: i64,
    holder: Option<String>,
    expires_at: Option<TsMs>,
    published: Option<i64>,
    stamp: Option<Blob>,
}

/// What a row says of its generations.
struct GenerationsRow {
    fence: i64,
    published: Option<i64>,
    history: BTreeMap<i64, String>,
    stamp: Option<Blob>,
}

impl CassandraVenueDays {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn lease_row(&self, cql: Cql, key: Key<'_>) -> Result<Option<LeaseRow>> {
        type Columns = (
            Option<i64>,
            Option<String>,
            Option<CqlTimestamp>,
            Option<i64>,
            Option<Blob>,
        );
        let row: Option<Columns> = self.cluster.first(cql, key).await?;
        row.map(|(fence, holder, expires_at, published, stamp)| {
            Ok(LeaseRow {
                fence: fence.ok_or_else(|| damaged_value("a venue-day has no fence"))?,
                holder,
                expires_at: expires_at.map(|at| at.0),
                published,
                stamp,
            })
        })
        .transpose()
    }

    async fn generations(&self, key: Key<'_>) -> Result<Option<GenerationsRow>> {
        type Columns = (
            Option<i64>,
            Option<i64>,
            Option<BTreeMap<i64, String>>,
            Option<Blob>,
        );
        let row: Option<Columns> = self.cluster.first(READ_STAGED, key).await?;
        row.map(|(fence, published, history, stamp)| {
            Ok(GenerationsRow {
                fence: fence.ok_or_else(|| damaged_value("a venue-day has no fence"))?,
                published,
                history: history.unwrap_or_default(),
                stamp,
            })
        })
        .transpose()
    }

    async fn stands(&self, key: Key<'_>, mine: &[u8; 16]) -> Result<bool> {
        let row = self.lease_row(SETTLE_LEASE, key).await?;
        Ok(row.is_some_and(|row| is_stamp(row.stamp.as_ref(), mine)))
    }

    async fn was_published(&self, key: Key<'_>, generation: i64) -> Result<bool> {
        let row: Option<(Option<BTreeMap<i64, String>>,)> = self.cluster.first(READ_HISTORY, key).await?;
        let history = row.and_then(|(history,)| history);
        Ok(history.is_some_and(|history| history.contains_key(&generation)))
    }
}

#[async_trait]
impl VenueDaysWriter for CassandraVenueDays {
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> Result<Option<Lease>> {
        let key = key_of(venue, day);
        let (tenant, venue_id, year, date) = key;
        let expires_at = now.saturating_add(ttl_ms);
        let lease = |fence: i64| {
            let lease = Lease {
                venue: venue.clone(),
                day,
                fence: from_stored(fence)?,
                holder: holder.to_owned(),
                expires_at,
            };
            Ok(Some(lease))
        };
        let mut contention = Contention::new(&self.cluster, FIRST_LEASE.doing());
        loop {
            let mine = stamp()?;
            let read_back = self.stands(key, &mine);
            let (stamp, until) = (mine.as_slice(), CqlTimestamp(expires_at));
            let (taken, fence) = match self.lease_row(READ_LEASE, key).await? {
                None => {
                    let row = (tenant, venue_id, year, date, 1_i64, holder, until, stamp);
                    (self.cluster.conditional(FIRST_LEASE, row, read_back).await?, 1)
                }
                Some(row) => {
                    if row.is_held_against(holder, now, expires_at) {
                        return Ok(None);
                    }
                    let fence = row.fence + 1;
                    let row = (
                        fence, holder, until, stamp, tenant, venue_id, year, date, row.stamp,
                    );
                    (self.cluster.conditional(NEXT_LEASE, row, read_back).await?, fence)
                }
            };
            if taken {
                return lease(fence);
            }
            contention.wait().await?;
        }
    }

    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> Result<Flip> {
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let (fence, until) = (to_stored(lease.fence)?, CqlTimestamp(now.saturating_add(ttl_ms)));
        let mut contention = Contention::new(&self.cluster, RENEW.doing());
        loop {
            let mine = stamp()?;
            let row = (
                &lease.holder,
                until,
                mine.as_slice(),
                tenant,
                venue,
                year,
                day,
                fence,
            );
            if self
                .cluster
                .conditional(RENEW, row, self.stands(key, &mine))
                .await?
            {
                return Ok(Flip::Done);
            }
            match self.lease_row(READ_LEASE, key).await? {
                Some(row) if row.fence == fence => contention.wait().await?,
                _ => return Ok(Flip::Lost),
            }
        }
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let fence = to_stored(lease.fence)?;
        let mut contention = Contention::new(&self.cluster, RELEASE.doing());
        loop {
            let mine = stamp()?;
            let row = (mine.as_slice(), tenant, venue, year, day, fence);
            if self
                .cluster
                .conditional(RELEASE, row, self.stands(key, &mine))
                .await?
            {
                return Ok(());
            }
            match self.lease_row(READ_LEASE, key).await? {
                Some(row) if row.fence == fence && row.holder.is_some() => contention.wait().await?,
                _ => return Ok(()),
            }
        }
    }

    async fn publish(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        info: GenerationInfo,
    ) -> Result<Flip> {
        if info.generation != lease.fence || published_before == Some(info.generation) {
            let why = format!(
                "{}: the generation of {} {} is {}, its lease has the fence {}: a generation is published once, under \
                 the lease that it was computed with",
                PUBLISH.doing(),
                lease.venue,
                lease.day,
                info.generation,
                lease.fence
            );
            return Err(StorageError::new(ErrorKind::Invalid, why));
        }
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let (generation, before) = (
            to_stored(info.generation)?,
            published_before.map(to_stored).transpose()?,
        );
        let json = to_json(&info)?;
        // Whether any try of this call may have happened without our knowing.
        let in_doubt = AtomicBool::new(false);
        let mut contention = Contention::new(&self.cluster, PUBLISH.doing());
        loop {
            let mine = stamp()?;
            let row = (
                generation,
                &json,
                generation,
                &json,
                mine.as_slice(),
                tenant,
                venue,
                year,
                day,
                generation,
                before,
            );
            let read_back = async {
                in_doubt.store(true, Ordering::Relaxed);
                self.was_published(key, generation).await
            };
            if self.cluster.conditional(PUBLISH, row, read_back).await? {
                return Ok(Flip::Done);
            }
            let found = self.lease_row(READ_LEASE, key).await?;
            if found.is_some_and(|row| row.fence == generation && row.published == before) {
                contention.wait().await?;
            } else if in_doubt.load(Ordering::Relaxed) && self.was_published(key, generation).await? {
                return Ok(Flip::Done);
            } else {
                return Ok(Flip::Lost);
            }
        }
    }

    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> Result<Flip> {
        if info.generation != lease.fence {
            return Err(refuse_other_fence(lease, info.generation));
        }
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let (generation, json) = (to_stored(info.generation)?, to_json(&info)?);
        let mut contention = Contention::new(&self.cluster, STAGE.doing());
        loop {
            let found = self.generations(key).await?;
            let Some(found) = found.filter(|found| found.fence == generation) else {
                return Ok(Flip::Lost);
            };
            if found.published == Some(generation) {
                return Ok(Flip::Lost);
            }
            if found.history.contains_key(&generation) {
                return Ok(Flip::Done);
            }
            let mine = stamp()?;
            let row = (
                generation,
                &json,
                mine.as_slice(),
                tenant,
                venue,
                year,
                day,
                found.stamp,
            );
            if self
                .cluster
                .conditional(STAGE, row, self.stands(key, &mine))
                .await?
            {
                return Ok(Flip::Done);
            }
            contention.wait().await?;
        }
    }

    async fn promote(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        staged: Generation,
        published_at: TsMs,
    ) -> Result<Flip> {
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let (fence, generation) = (to_stored(lease.fence)?, to_stored(staged)?);
        let before = published_before.map(to_stored).transpose()?;
        let mut contention = Contention::new(&self.cluster, PROMOTE.doing());
        loop {
            let found = self.generations(key).await?;
            let Some(mut found) = found.filter(|found| found.fence == fence) else {
                return Ok(Flip::Lost);
            };
            if found.published == Some(generation) {
                return Ok(Flip::Done);
            }
            if found.published != before {
                return Ok(Flip::Lost);
            }
            let info = found.history.remove(&generation);
            let Some(info) = info.filter(|_| found.published < Some(generation)) else {
                return Err(refuse_not_staged(lease, staged));
            };
            let info = GenerationInfo {
                published_at,
                ..from_json(&info)?
            };
            let (json, mine) = (to_json(&info)?, stamp()?);
            let row = (
                generation,
                &json,
                generation,
                &json,
                mine.as_slice(),
                tenant,
                venue,
                year,
                day,
                found.stamp,
            );
            if self
                .cluster
                .conditional(PROMOTE, row, self.stands(key, &mine))
                .await?
            {
                return Ok(Flip::Done);
            }
            contention.wait().await?;
        }
    }

    async fn raise_marks(
        &self,
        lease: &Lease,
        published: Generation,
        marks: &Marks,
        provisional: bool,
    ) -> Result<Flip> {
        type Columns = (Option<i64>, Option<i64>, Option<String>, Option<Blob>);
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let expected = (Some(to_stored(lease.fence)?), Some(to_stored(published)?));
        let mut contention = Contention::new(&self.cluster, RAISE_MARKS.doing());
        loop {
            let row: Option<Columns> = self.cluster.first(READ_PUBLISHED, key).await?;
            let Some((fence, generation, Some(info), stamp_before)) = row else {
                return Ok(Flip::Lost);
            };
            if (fence, generation) != expected {
                return Ok(Flip::Lost);
            }
            let mut info: GenerationInfo = from_json(&info)?;
            info.marks.merge(marks);
            info.provisional = provisional;
            let (json, mine) = (to_json(&info)?, stamp()?);
            let row = (
                &json,
                generation,
                &json,
                mine.as_slice(),
                tenant,
                venue,
                year,
                day,
                stamp_before,
            );
            if self
                .cluster
                .conditional(RAISE_MARKS, row, self.stands(key, &mine))
                .await?
            {
                return Ok(Flip::Done);
            }
            contention.wait().await?;
        }
    }

    async fn forget(&self, lease: &Lease, generations: &[Generation]) -> Result<Flip> {
        let key = key_of(&lease.venue, lease.day);
        let (tenant, venue, year, day) = key;
        let fence = to_stored(lease.fence)?;
        let forgotten: BTreeSet<i64> = generations
            .iter()
            .map(|&generation| to_stored(generation))
            .collect::<Result<_>>()?;
        let mut contention = Contention::new(&self.cluster, FORGET.doing());
        loop {
            let Some(found) = self.lease_row(READ_LEASE, key).await? else {
                return Ok(Flip::Lost);
            };
            if found.fence != fence {
                return Ok(Flip::Lost);
            }
            if let Some(published) = found.published.filter(|published| forgotten.contains(published)) {
                return Err(refuse_published(lease, from_stored(published)?));
            }
            if forgotten.is_empty() {
                return Ok(Flip::Done);
            }
            let mine = stamp()?;
            let row = (&forgotten, mine.as_slice(), tenant, venue, year, day, found.stamp);
            if self
                .cluster
                .conditional(FORGET, row, self.stands(key, &mine))
                .await?
            {
                return Ok(Flip::Done);
            }
            contention.wait().await?;
        }
    }

    async fn restore(&self, venue: &VenueKey, restored: RestoredDay) -> Result<Flip> {
        restored.check()?;
        let key = key_of(venue, restored.day);
        let (tenant, venue_id, year, day) = key;
        let fence = to_stored(restored.fence)?;
        let published = restored.published.map(to_stored).transpose()?;
        let info = restored.published_info().map(to_json).transpose()?;
        let mut history: BTreeMap<i64, String> = BTreeMap::new();
        for info in &restored.history {
            history.insert(to_stored(info.generation)?, to_json(info)?);
        }
        let mut contention = Contention::new(&self.cluster, RESTORE.doing());
        loop {
            let mine = stamp()?;
            let read_back = self.stands(key, &mine);
            let values = (fence, published, &info, &history, mine.as_slice());
            let (fence, published, info, history, stamp) = values;
            let done = match self.lease_row(SETTLE_LEASE, key).await? {
                None => {
                    let row = (
                        tenant, venue_id, year, day, fence, published, info, history, stamp,
                    );
                    self.cluster.conditional(RESTORE_FIRST, row, read_back).await?
                }
                Some(there) => {
                    let is_same = there.fence == fence && there.published == published;
                    if there.fence > fence || (there.fence == fence && !is_same) {
                        return Ok(Flip::Lost);
                    }
                    let row = (
                        fence,
                        published,
                        info,
                        history,
                        stamp,
                        tenant,
                        venue_id,
                        year,
                        day,
                        there.stamp,
                    );
                    self.cluster.conditional(RESTORE, row, read_back).await?
                }
            };
            if done {
                return Ok(Flip::Done);
            }
            contention.wait().await?;
        }
    }
}

#[async_trait]
impl VenueDaysReader for CassandraVenueDays {
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<VenueDay>> {
        let row: Option<DayColumns> = self.cluster.first(READ_DAY, key_of(venue, day)).await?;
        row.map(day_from_row).transpose()
    }

    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>> {
        let (tenant, venue) = (venue.tenant.as_str(), venue.venue.as_str());
        let years = (from.year()..=to.year()).map(|year| async move {
            let key = (tenant, venue, year, date(from), date(to));
            self.cluster.all::<DayColumns>(LIST_DAYS, key).await
        });
        let years: Vec<Vec<DayColumns>> = several::in_order(years, READS_AT_ONCE).try_collect().await?;
        years.into_iter().flatten().map(day_from_row).collect()
    }

    async fn history(&self, venue: &VenueKey, day: LocalDay) -> Result<Vec<GenerationInfo>> {
        let row: Option<(Option<BTreeMap<i64, String>>,)> =
            self.cluster.first(READ_HISTORY, key_of(venue, day)).await?;
        let history = row.and_then(|(history,)| history).unwrap_or_default();
        // A generation's number is its fence, which only grows: the order of the numbers is that of publishing.
        history.values().rev().map(|info| from_json(info)).collect()
    }
}

impl LeaseRow {
    /// Whether another holder's lease has not expired. `until`: when one given now would.
    fn is_held_against(&self, holder: &str, now: TsMs, until: TsMs) -> bool {
        let others = self.holder.as_ref().is_some_and(|known| known != holder);
        let ahead = until.saturating_add(LEASE_AHEAD_MS_MAX);
        others && self.expires_at.is_some_and(|at| at > now && at <= ahead)
    }
}

fn key_of(venue: &VenueKey, day: LocalDay) -> Key<'_> {
    (venue.tenant.as_str(), venue.venue.as_str(), day.year(), date(day))
}

type DayColumns = (
    CqlDate,
    Option<i64>,
    Option<String>,
    Option<CqlTimestamp>,
    Option<i64>,
    Option<String>,
);

fn day_from_row((day, fence, holder, expires_at, published, info): DayColumns) -> Result<VenueDay> {
    if published.is_some() != info.is_some() {
        return Err(damaged_value("the published generation is missing"));
    }
    Ok(VenueDay {
        day: day_from(day)?,
        fence: from_stored(fence.ok_or_else(|| damaged_value("a venue-day has no fence"))?)?,
        lease: holder.zip(expires_at.map(|at| at.0)),
        published: info.as_deref().map(from_json).transpose()?,
    })
}
