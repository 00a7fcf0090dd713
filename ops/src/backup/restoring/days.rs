//! The days of a venue: brought back under fences of this life, and marked where the archive is not what was published.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Result, bail};
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, SLOT_MS};
use dwell_storage::api::{
    ArchiveFile, Dataset, Flip, Generation, GenerationInfo, Mark, MarkSource, RawWrite, RestoredDay,
};
use dwell_storage::backup::TenantBackup;
use dwell_storage::backup::manifest::{BackedUpDay, DaysPart};
use dwell_storage::backup::parts;
use dwell_storage::erasure::filter::Whose;

use super::{Restored, Restoring, TRIES};
use crate::backup::several;

/// Days before the backup that may have been leased without being in it, and that get a fence of the new life.
const DAYS_BEFORE: i32 = 40;
/// Marks that are written at a time.
const MARKS_AT_ONCE: usize = 500;
/// Days that a report lists.
const LISTED_MAX: usize = 100;

/// Which sessions of a generation are left out because of erasures. Nobody is left out of one whose files the archive
/// has still, for want of knowing whose a session is: those files would have been replaced. The others are computed anew.
fn left_out(info: &GenerationInfo, archived: &HashSet<String>) -> Whose {
    let stands = |file: &ArchiveFile| archived.contains(&file.path);
    match !info.provisional && !info.files.is_empty() && info.files.iter().all(stands) {
        true => Whose::Theirs,
        false => Whose::PerhapsTheirs,
    }
}

impl Restoring<'_> {
    /// Paths of the files that a tenant's archive has, where they matter to what is brought back of some of its venues.
    pub(super) async fn archived(&self, backup: &TenantBackup) -> Result<HashSet<String>> {
        let is_narrow = |part: &DaysPart| {
            let venue = VenueKey::new(backup.tenant.clone(), part.venue.clone());
            self.forgotten.is_narrow(&venue)
        };
        match self.side.archive {
            Some(archive) if backup.days.iter().any(is_narrow) => {
                let files = archive.files_now(&backup.tenant).await?;
                Ok(files.into_iter().map(|file| file.path).collect())
            }
            _ => Ok(HashSet::new()),
        }
    }

    /// A day: its rows and sessions, then the row that names them. Returns how many generations and sessions.
    pub(super) async fn day(
        &self,
        venue: &VenueKey,
        day: BackedUpDay,
        fence: Generation,
        archived: &HashSet<String>,
    ) -> Result<(u64, u64)> {
        let (stores, place) = (self.side.stores, self.side.place);
        let mut sessions_restored = 0;
        for generation in &day.generations {
            let rows = parts::decode_rows(&place.object(&generation.rows).await?)?;
            if rows.len() as u64 != generation.info.rows {
                bail!(
                    "{venue} {}: the backup has not all rows of its generation",
                    day.day
                );
            }
            let number = generation.info.generation;
            stores.aggregates.write(venue, day.day, number, rows).await?;
            if let Some(object) = &generation.sessions {
                let sessions = parts::decode_sessions(&place.object(object).await?)?;
                let sessions = self
                    .forgotten
                    .sessions(venue, sessions, left_out(&generation.info, archived));
                sessions_restored += sessions.len() as u64;
                stores.sessions.write(venue, day.day, number, sessions).await?;
            }
        }
        let count = day.generations.len() as u64;
        let row = RestoredDay {
            day: day.day,
            fence: fence.max(day.fence + 1),
            published: day.published,
            history: day
                .generations
                .into_iter()
                .map(|generation| generation.info)
                .collect(),
        };
        self.put_day(venue, row).await?;
        Ok((count, sessions_restored))
    }

    async fn put_day(&self, venue: &VenueKey, mut row: RestoredDay) -> Result<()> {
        let days = &self.side.stores.venue_days;
        for _ in 0..TRIES {
            if days.restore(venue, row.clone()).await? == Flip::Done {
                return Ok(());
            }
            // A day that was leased since this restore began, or a former one: above that too.
            let there = days.get(venue, row.day).await?;
            row.fence = there.map_or(row.fence, |there| there.fence + 1).max(row.fence);
        }
        bail!(
            "{venue} {} is being worked on: stop what runs on this installation",
            row.day
        )
    }

    /// Gives days that the backup does not know, but that the former life may have leased, a fence of this one.
    pub(super) async fn fence_other_days(
        &self,
        venue: &VenueKey,
        of_registry: &Venue,
        known: &BTreeSet<LocalDay>,
        restored: &Restored,
    ) -> Result<()> {
        let archived = self.side.stores.archive.days(venue).await?;
        let mut others: BTreeSet<LocalDay> = archived.into_iter().map(|(day, _)| day).collect();
        let calendar = &of_registry.calendar;
        let first = calendar.day_of(restored.taken_at).to_epoch_days() - DAYS_BEFORE;
        let last = calendar.day_of(self.now).to_epoch_days() + 1;
        others.extend((first..=last).filter_map(LocalDay::from_epoch_days));
        let others = others.difference(known).map(|&day| RestoredDay {
            day,
            fence: restored.fence,
            published: None,
            history: Vec::new(),
        });
        several(others.map(|row| self.fence_day(venue, row))).await?;
        Ok(())
    }

    async fn fence_day(&self, venue: &VenueKey, row: RestoredDay) -> Result<()> {
        match self.side.stores.venue_days.get(venue, row.day).await? {
            // Published here by the life that a force writes over, and unknown to the backup: it stays.
            Some(there) if there.published.is_some() => Ok(()),
            _ => self.put_day(venue, row).await,
        }
    }

    /// Marks the days whose archive is not what their generation was made of.
    pub(super) async fn mark_days(&self, backup: &TenantBackup, restored: &mut Restored) -> Result<()> {
        let Some(archive) = self.side.archive else {
            return Ok(());
        };
        let (stores, tenant) = (self.side.stores, &backup.tenant);
        let mut archived: BTreeMap<(VenueId, LocalDay), BTreeSet<String>> = BTreeMap::new();
        for file in archive.files_now(tenant).await? {
            let paths = archived.entry((file.venue, file.day)).or_default();
            if file.dataset == Dataset::Events {
                paths.insert(file.path);
            }
        }
        let mut made_of: BTreeMap<(VenueId, LocalDay), BTreeSet<String>> = BTreeMap::new();
        for part in &backup.days {
            let days: Vec<BackedUpDay> = self.part(&part.object).await?;
            for day in days {
                let published = day
                    .generations
                    .iter()
                    .find(|generation| Some(generation.info.generation) == day.published);
                let Some(published) = published.filter(|published| !published.info.provisional) else {
                    continue;
                };
                let files = published.info.files.iter().map(|file| file.path.clone());
                made_of.insert((part.venue.clone(), day.day), files.collect());
            }
        }
        for (place, files) in &made_of {
            if !files.is_empty()
                && !archived.contains_key(place)
                && restored.without_archive.len() < LISTED_MAX
            {
                restored
                    .without_archive
                    .push(format!("{tenant}/{} {}", place.0, place.1));
            }
        }
        let source = MarkSource::job(self.side.job);
        let mut marks = Vec::new();
        for venue in stores.registry.venues(tenant).await? {
            let key = VenueKey::new(tenant.clone(), venue.venue.id.clone());
            let of_venue = archived.iter().filter(|((id, _), _)| *id == key.venue);
            for ((id, day), files) in of_venue {
                if made_of.get(&(id.clone(), *day)) == Some(files) {
                    continue;
                }
                // A slot that lies in the day whatever its zone.
                let (start, _) = venue.venue.calendar.bounds(*day);
                marks.push(Mark {
                    venue: key.clone(),
                    slot: (start + SLOT_MS).div_euclid(SLOT_MS),
                    source: source.clone(),
                    position: self.now,
                });
                restored.dirty_days += 1;
            }
        }
        for some in marks.chunks(MARKS_AT_ONCE) {
            let marks = some.to_vec();
            stores
                .raw
                .apply(RawWrite {
                    marks,
                    ..RawWrite::default()
                })
                .await?;
        }
        Ok(())
    }
}
