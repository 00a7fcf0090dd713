//! The days of a venue: what was published at the moment of the backup, with its rows and sessions.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_storage::api::{Generation, GenerationInfo, RowFilter, SessionCursor, StoredSession, VenueDay};
use dwell_storage::backup::ObjectRef;
use dwell_storage::backup::manifest::{BackedUpDay, BackedUpGeneration, DaysPart};
use dwell_storage::backup::parts;
use dwell_storage::erasure::filter::Whose;

use super::Taking;
use crate::backup::several;

/// Sessions read at a time.
const SESSIONS_PAGE: usize = 5_000;

impl Taking<'_> {
    /// The days of a venue, a month in each object. `heard` is given the days on which devices were heard.
    pub(super) async fn venue(
        &self,
        venue: &VenueKey,
        rows: Vec<VenueDay>,
        heard: &mut HashSet<LocalDay>,
    ) -> Result<Vec<DaysPart>> {
        let mut months: BTreeMap<String, Vec<VenueDay>> = BTreeMap::new();
        for row in rows {
            let month = row.day.to_string().get(..7).unwrap_or_default().to_owned();
            months.entry(month).or_default().push(row);
        }
        let mut parts_of_venue = Vec::new();
        for (month, rows) in months {
            self.side.check_cancel()?;
            self.renew(&venue.tenant).await?;
            (self.side.tell)(self.lock().days, 0, &format!("{venue} {month}"));
            let former = self.previous.month(self.side.place, venue, &month).await?;
            let days = several(rows.into_iter().map(|row| self.day(venue, row, &former))).await?;
            for day in &days {
                let of_devices =
                    |generation: &BackedUpGeneration| generation.info.events.contains_key(&Kind::Presence);
                if day.generations.iter().any(of_devices) {
                    heard.insert(day.day);
                }
            }
            let count = days.len() as u64;
            self.lock().days += count;
            parts_of_venue.push(DaysPart {
                venue: venue.venue.clone(),
                month,
                days: count,
                object: self.put(parts::to_json(&days)?).await?,
            });
        }
        Ok(parts_of_venue)
    }

    /// A day as of the backup's moment.
    async fn day(
        &self,
        venue: &VenueKey,
        row: VenueDay,
        former: &HashMap<(LocalDay, Generation), BackedUpGeneration>,
    ) -> Result<BackedUpDay> {
        let days = &self.side.stores.venue_days;
        let history = days.history(venue, row.day).await?;
        let of_then: Vec<GenerationInfo> = history
            .into_iter()
            .filter(|info| info.published_at <= self.at)
            .collect();
        // Read after the history: what was published in between is not in that, and is left out.
        let row = days.get(venue, row.day).await?.unwrap_or(row);
        let is_of_then = |now: &GenerationInfo| of_then.iter().any(|info| info.generation == now.generation);
        let published = match &row.published {
            Some(now) if is_of_then(now) => Some(now.generation),
            _ => of_then.first().map(|info| info.generation),
        };
        let mut generations = Vec::new();
        for info in of_then {
            let is_published = published == Some(info.generation);
            let known = former.get(&(row.day, info.generation));
            match self.generation(venue, row.day, info, is_published, known).await? {
                Ok(generation) => generations.push(generation),
                Err(problem) => self
                    .lock()
                    .problems
                    .push(format!("{venue} {}: {problem}", row.day)),
            }
        }
        self.lock().generations += generations.len() as u64;
        let is_kept = |&published: &Generation| {
            generations
                .iter()
                .any(|generation| generation.info.generation == published)
        };
        Ok(BackedUpDay {
            day: row.day,
            fence: row.fence,
            published: published.filter(is_kept),
            generations,
        })
    }

    /// A generation's rows, and its sessions where it is published. The inner error says why there are none.
    async fn generation(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        info: GenerationInfo,
        is_published: bool,
        known: Option<&BackedUpGeneration>,
    ) -> Result<Result<BackedUpGeneration, String>> {
        let known = known.filter(|known| known.info.rows == info.rows);
        let rows = match known {
            Some(known) => self.known(&known.rows),
            None => {
                let all = RowFilter::default();
                let stores = self.side.stores;
                let rows = stores.aggregates.read(venue, day, info.generation, &all).await?;
                if rows.len() as u64 != info.rows {
                    return Ok(Err(format!(
                        "generation {} has {} aggregate rows of {}",
                        info.generation,
                        rows.len(),
                        info.rows
                    )));
                }
                self.put(parts::encode_rows(&rows)?).await?
            }
        };
        let sessions = match is_published && info.sessions > 0 {
            true => self.sessions(venue, day, &info, known).await?,
            false => None,
        };
        Ok(Ok(BackedUpGeneration { info, rows, sessions }))
    }

    /// Sessions of a published generation; none once retention has taken them.
    ///
    /// An erasure takes some away and leaves the generation's number as it is, where the day is closed. So on days of
    /// which somebody was erased they are read in full, and there may be fewer than were published.
    async fn sessions(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        info: &GenerationInfo,
        known: Option<&BackedUpGeneration>,
    ) -> Result<Option<ObjectRef>> {
        let sessions = &self.side.stores.sessions;
        let generation = info.generation;
        let is_touched = self.forgotten.touches(venue, day);
        let known = known.and_then(|known| known.sessions.as_ref());
        if let Some(object) = known.filter(|_| !is_touched) {
            // They go all at once, so one tells whether they are there.
            let first = sessions.list(venue, day, generation, None, 1).await?;
            return Ok((!first.is_empty()).then(|| self.known(object)));
        }
        let mut all: Vec<StoredSession> = Vec::new();
        loop {
            let after = all.last().map(|last| SessionCursor {
                start: last.session.start,
                id: last.id.clone(),
            });
            let page = sessions
                .list(venue, day, generation, after.as_ref(), SESSIONS_PAGE)
                .await?;
            let is_last = page.len() < SESSIONS_PAGE;
            all.extend(page);
            if is_last {
                break;
            }
        }
        // Some of them would be neither what was published nor what retention left.
        if all.is_empty() || (all.len() as u64 != info.sessions && !is_touched) {
            return Ok(None);
        }
        // Of sessions that do not tell whose they are the tables know better.
        let all = self.forgotten.sessions(venue, all, Whose::Theirs);
        Ok(Some(self.put(parts::encode_sessions(&all)?).await?))
    }
}
