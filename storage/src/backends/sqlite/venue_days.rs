//! Venue-days in `data.db`: leases, fences, the published generation and its history.
//!
//! Each write is a transaction on one row and its generations, so a condition and its effect cannot come apart.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use rusqlite::{Connection, OptionalExtension};

use super::connection::Database;
use super::failure::Failure;
use super::values::{day_from, find_venue, from_json, from_stored, intern_venue, to_json, to_stored};
use crate::api::{
    Flip, Generation, GenerationInfo, LEASE_AHEAD_MS_MAX, Lease, Marks, RestoredDay, VenueDay,
    VenueDaysReader, VenueDaysWriter, refuse_not_staged, refuse_other_fence, refuse_published,
};
use crate::error::{ErrorKind, Result, StorageError};

/// The embedded venue-days table.
#[derive(Debug)]
pub struct SqliteVenueDays {
    data: Database,
}

impl SqliteVenueDays {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl VenueDaysWriter for SqliteVenueDays {
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> Result<Option<Lease>> {
        let expires_at = now.saturating_add(ttl_ms);
        let mut lease = Lease {
            venue: venue.clone(),
            day,
            fence: 0,
            holder: holder.to_owned(),
            expires_at,
        };
        self.data
            .write("take the lease of a venue-day", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                let mut upsert = data.prepare_cached(
                    "INSERT INTO venue_days (venue_ref, day, fence, holder, expires_at) VALUES (?1, ?2, 1, ?3, ?4)
                     ON CONFLICT DO UPDATE SET fence = fence + 1, holder = ?3, expires_at = ?4
                     WHERE holder IS NULL OR holder = ?3 OR expires_at <= ?5 OR expires_at > ?6
                     RETURNING fence",
                )?;
                let ahead = expires_at.saturating_add(LEASE_AHEAD_MS_MAX);
                let row = (venue_ref, day.to_epoch_days(), &lease.holder, expires_at, now, ahead);
                let fence: Option<i64> = upsert.query_row(row, |row| row.get(0)).optional()?;
                let Some(fence) = fence else { return Ok(None) };
                lease.fence = from_stored(fence)?;
                Ok(Some(lease))
            })
            .await
    }

    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> Result<Flip> {
        let lease = lease.clone();
        self.data
            .write("renew the lease of a venue-day", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                let changed = data
                    .prepare_cached(
                        "UPDATE venue_days SET holder = ?4, expires_at = ?5
                         WHERE venue_ref = ?1 AND day = ?2 AND fence = ?3",
                    )?
                    .execute((
                        venue_ref,
                        lease.day.to_epoch_days(),
                        to_stored(lease.fence)?,
                        lease.holder,
                        now.saturating_add(ttl_ms),
                    ))?;
                Ok(if changed == 1 { Flip::Done } else { Flip::Lost })
            })
            .await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.data
            .write("give back the lease of a venue-day", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                data.prepare_cached(
                    "UPDATE venue_days SET holder = NULL, expires_at = NULL
                     WHERE venue_ref = ?1 AND day = ?2 AND fence = ?3",
                )?
                .execute((venue_ref, lease.day.to_epoch_days(), to_stored(lease.fence)?))?;
                Ok(())
            })
            .await
    }

    async fn publish(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        info: GenerationInfo,
    ) -> Result<Flip> {
        let doing = "publish a generation";
        if info.generation != lease.fence || published_before == Some(info.generation) {
            let why = format!(
                "{doing}: the generation of {} {} is {}, its lease has the fence {}: a generation is published once, \
                 under the lease that it was computed with",
                lease.venue, lease.day, info.generation, lease.fence
            );
            return Err(StorageError::new(ErrorKind::Invalid, why));
        }
        let lease = lease.clone();
        self.data
            .write(doing, move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                if !holds(data, venue_ref, &lease, published_before)? {
                    return Ok(Flip::Lost);
                }
                let (day, generation) = (lease.day.to_epoch_days(), to_stored(info.generation)?);
                data.prepare_cached(
                    "INSERT INTO generations (venue_ref, day, generation, info) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((venue_ref, day, generation, to_json(&info)?))?;
                data.prepare_cached(
                    "UPDATE venue_days SET published = ?3 WHERE venue_ref = ?1 AND day = ?2",
                )?
                .execute((venue_ref, day, generation))?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> Result<Flip> {
        if info.generation != lease.fence {
            return Err(refuse_other_fence(lease, info.generation));
        }
        let lease = lease.clone();
        self.data
            .write("stage a generation", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                let (day, generation) = (lease.day.to_epoch_days(), to_stored(info.generation)?);
                match lease_row(data, venue_ref, day)? {
                    Some((fence, published)) if fence == generation && published != Some(generation) => {}
                    _ => return Ok(Flip::Lost),
                }
                data.prepare_cached(
                    "INSERT INTO generations (venue_ref, day, generation, info) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                )?
                .execute((venue_ref, day, generation, to_json(&info)?))?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn promote(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        staged: Generation,
        published_at: TsMs,
    ) -> Result<Flip> {
        let lease = lease.clone();
        self.data
            .write("publish a staged generation", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                let (day, generation) = (lease.day.to_epoch_days(), to_stored(staged)?);
                let published = match lease_row(data, venue_ref, day)? {
                    Some((fence, published)) if fence == to_stored(lease.fence)? => published,
                    _ => return Ok(Flip::Lost),
                };
                if published == Some(generation) {
                    return Ok(Flip::Done);
                }
                if published != published_before.map(to_stored).transpose()? {
                    return Ok(Flip::Lost);
                }
                let info: Option<String> = data
                    .prepare_cached(
                        "SELECT info FROM generations WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
                    )?
                    .query_row((venue_ref, day, generation), |row| row.get(0))
                    .optional()?;
                let Some(info) = info.filter(|_| published < Some(generation)) else {
                    return Err(refuse_not_staged(&lease, staged).into());
                };
                let info = GenerationInfo {
                    published_at,
                    ..from_json(&info)?
                };
                data.prepare_cached(
                    "UPDATE generations SET info = ?4 WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
                )?
                .execute((venue_ref, day, generation, to_json(&info)?))?;
                data.prepare_cached(
                    "UPDATE venue_days SET published = ?3 WHERE venue_ref = ?1 AND day = ?2",
                )?
                .execute((venue_ref, day, generation))?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn raise_marks(
        &self,
        lease: &Lease,
        published: Generation,
        marks: &Marks,
        provisional: bool,
    ) -> Result<Flip> {
        let (lease, marks) = (lease.clone(), marks.clone());
        self.data
            .write("raise the marks of a generation", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                if !holds(data, venue_ref, &lease, Some(published))? {
                    return Ok(Flip::Lost);
                }
                let key = (venue_ref, lease.day.to_epoch_days(), to_stored(published)?);
                let info: String = data
                    .prepare_cached(
                        "SELECT info FROM generations WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
                    )?
                    .query_row(key, |row| row.get(0))?;
                let mut info: GenerationInfo = from_json(&info)?;
                info.marks.merge(&marks);
                info.provisional = provisional;
                let (venue_ref, day, generation) = key;
                data.prepare_cached(
                    "UPDATE generations SET info = ?4 WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
                )?
                .execute((venue_ref, day, generation, to_json(&info)?))?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn forget(&self, lease: &Lease, generations: &[Generation]) -> Result<Flip> {
        let (lease, generations) = (lease.clone(), generations.to_vec());
        self.data
            .write("forget generations", move |data| {
                let venue_ref = intern_venue(data, &lease.venue)?;
                let day = lease.day.to_epoch_days();
                let published = match lease_row(data, venue_ref, day)? {
                    Some((fence, published)) if fence == to_stored(lease.fence)? => published,
                    _ => return Ok(Flip::Lost),
                };
                let mut forget = data.prepare_cached(
                    "DELETE FROM generations WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
                )?;
                for generation in generations {
                    let stored = to_stored(generation)?;
                    if published == Some(stored) {
                        return Err(refuse_published(&lease, generation).into());
                    }
                    forget.execute((venue_ref, day, stored))?;
                }
                Ok(Flip::Done)
            })
            .await
    }

    async fn restore(&self, venue: &VenueKey, restored: RestoredDay) -> Result<Flip> {
        restored.check()?;
        let venue = venue.clone();
        self.data
            .write("restore a venue-day", move |data| {
                let venue_ref = intern_venue(data, &venue)?;
                let (day, fence) = (restored.day.to_epoch_days(), to_stored(restored.fence)?);
                let published = restored.published.map(to_stored).transpose()?;
                let mut upsert = data.prepare_cached(
                    "INSERT INTO venue_days (venue_ref, day, fence, published) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET fence = ?3, published = ?4, holder = NULL, expires_at = NULL
                     WHERE fence < ?3 OR (fence = ?3 AND published IS ?4)",
                )?;
                if upsert.execute((venue_ref, day, fence, published))? == 0 {
                    return Ok(Flip::Lost);
                }
                data.prepare_cached("DELETE FROM generations WHERE venue_ref = ?1 AND day = ?2")?
                    .execute((venue_ref, day))?;
                for info in &restored.history {
                    data.prepare_cached(
                        "INSERT INTO generations (venue_ref, day, generation, info) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((
                        venue_ref,
                        day,
                        to_stored(info.generation)?,
                        to_json(info)?,
                    ))?;
                }
                Ok(Flip::Done)
            })
            .await
    }
}

#[async_trait]
impl VenueDaysReader for SqliteVenueDays {
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<VenueDay>> {
        Ok(self.list(venue, day, day).await?.pop())
    }

    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>> {
        let venue = venue.clone();
        self.data
            .read("list venue-days", move |data| {
                let mut days = Vec::new();
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(days);
                };
                let mut select = data.prepare_cached(
                    "SELECT day, fence, holder, expires_at, published,
                        (SELECT info FROM generations AS g
                         WHERE g.venue_ref = d.venue_ref AND g.day = d.day AND g.generation = d.published)
                     FROM venue_days AS d WHERE venue_ref = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day",
                )?;
                let mut rows = select.query((venue_ref, from.to_epoch_days(), to.to_epoch_days()))?;
                while let Some(row) = rows.next()? {
                    let (holder, expires_at): (Option<String>, Option<TsMs>) = (row.get(2)?, row.get(3)?);
                    let published: Option<i64> = row.get(4)?;
                    let info = row.get_ref(5)?.as_str_or_null().map_err(Failure::damaged_row)?;
                    if published.is_some() && info.is_none() {
                        return Err(Failure::damaged_row("the published generation is missing"));
                    }
                    days.push(VenueDay {
                        day: day_from(row.get(0)?)?,
                        fence: from_stored(row.get(1)?)?,
                        lease: holder.zip(expires_at),
                        published: info.map(from_json).transpose()?,
                    });
                }
                Ok(days)
            })
            .await
    }

    async fn history(&self, venue: &VenueKey, day: LocalDay) -> Result<Vec<GenerationInfo>> {
        let venue = venue.clone();
        self.data
            .read("read the history of a venue-day", move |data| {
                let mut history = Vec::new();
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(history);
                };
                // A generation's number is its fence, which only grows: the order of the numbers is that of publishing.
                let mut select = data.prepare_cached(
                    "SELECT info FROM generations WHERE venue_ref = ?1 AND day = ?2 ORDER BY generation DESC",
                )?;
                let mut rows = select.query((venue_ref, day.to_epoch_days()))?;
                while let Some(row) = rows.next()? {
                    history.push(from_json(
                        row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?,
                    )?);
                }
                Ok(history)
            })
            .await
    }
}

/// Whether the lease's fence is the highest and that generation is the published one.
fn holds(
    data: &Connection,
    venue_ref: i64,
    lease: &Lease,
    published: Option<Generation>,
) -> Result<bool, Failure> {
    let row = lease_row(data, venue_ref, lease.day.to_epoch_days())?;
    let expected = (to_stored(lease.fence)?, published.map(to_stored).transpose()?);
    Ok(row == Some(expected))
}

/// A day's highest fence and published generation.
fn lease_row(data: &Connection, venue_ref: i64, day: i32) -> Result<Option<(i64, Option<i64>)>, Failure> {
    let mut select =
        data.prepare_cached("SELECT fence, published FROM venue_days WHERE venue_ref = ?1 AND day = ?2")?;
    let row = select.query_row((venue_ref, day), |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(row.optional()?)
}
