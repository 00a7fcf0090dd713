//! Where somebody can be: each place looked at as it is, without changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use dwell_model::event::{EventBatch, Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, SLOT_MS, TsMs, VenueCalendar};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{
    Generation, Partition, Projection, QuarantineEncoding, QuarantineEntry, QuarantineFilter, SessionCursor,
    periods,
};
use dwell_storage::decorators::erasing::KINDS_OF_PERSONS;
use dwell_storage::erasure::ErasureFilter;
use dwell_storage::erasure::filter::Whose;

use super::Eraser;

/// Slots of raw that are read at a time.
const SLOTS_AT_ONCE: i64 = 6;
/// Sessions and quarantine entries read at a time.
const PAGE: usize = 500;
/// Generations of a day that are looked at, newest first.
const GENERATIONS_MAX: u64 = 1_000;
/// Bytes of the log read at a time.
const LOG_BYTES: usize = 4 << 20;

/// What was found of somebody, by day and place.
pub(crate) type Found = BTreeMap<LocalDay, BTreeMap<&'static str, u64>>;

/// Somebody in a venue.
pub(crate) struct Search<'a> {
    pub(crate) eraser: &'a Eraser,
    pub(crate) venue: &'a VenueKey,
    pub(crate) calendar: VenueCalendar,
    /// Names them and nobody else.
    pub(crate) filter: Arc<ErasureFilter>,
    /// Event times covered.
    pub(crate) range: Range<TsMs>,
    /// Whether the archive is read too. Once it was found to be without them it stays so: every rewrite leaves them
    /// out. So a repetition need not read years of files each night.
    pub(crate) with_archive: bool,
    /// Days that were computed without them, and up to which generation that had not been done: above, what is perhaps
    /// theirs is not.
    pub(crate) computed_without: BTreeMap<LocalDay, Generation>,
}

impl Search<'_> {
    /// Everything that has days: raw rows, archived rows of both datasets, sessions of all generations.
    pub(crate) async fn days(&self) -> Result<Found> {
        let mut found = Found::new();
        for range in self.raw_ranges().await? {
            for rows in self.raw(range).await? {
                for &ts in &rows.events.ts {
                    let of_day = found.entry(self.calendar.day_of(ts)).or_default();
                    *of_day.entry("raw").or_default() += 1;
                }
            }
        }
        let archived = match self.with_archive {
            true => self.archive().await?,
            false => Vec::new(),
        };
        for (day, place, count) in archived {
            *found.entry(day).or_default().entry(place).or_default() += count;
        }
        for day in self.computed_days().await? {
            // A day on which no event of theirs was found has no session of theirs that does not tell; unless its
            // events are gone, and nobody can look: rather a session too many than a person too few.
            let perhaps_up_to = match self.computed_without.get(&day) {
                Some(&generation) => generation,
                None if !self.filter.is_narrow(self.venue) => 0,
                None if found.contains_key(&day) || !self.has_positions(day).await? => Generation::MAX,
                None => 0,
            };
            for (_, sessions) in self.sessions(day, perhaps_up_to).await? {
                let of_day = found.entry(day).or_default();
                *of_day.entry("sessions").or_default() += sessions.len() as u64;
            }
        }
        Ok(found)
    }

    /// Stretches of raw that hold anything in the time covered.
    pub(crate) async fn raw_ranges(&self) -> Result<Vec<Range<TsMs>>> {
        let slots = self
            .eraser
            .bare
            .raw
            .marked_slots(self.venue, self.range.clone())
            .await?;
        let mut ranges: Vec<Range<TsMs>> = Vec::new();
        for (slot, _) in slots {
            let (start, end) = (slot * SLOT_MS, (slot + 1) * SLOT_MS);
            match ranges.last_mut() {
                Some(last) if last.end == start && end - last.start <= SLOTS_AT_ONCE * SLOT_MS => {
                    last.end = end
                }
                _ => ranges.push(start..end),
            }
        }
        Ok(ranges)
    }

    /// The raw rows of a stretch that are theirs, a set per kind.
    pub(crate) async fn raw(&self, range: Range<TsMs>) -> Result<Vec<RawRows>> {
        let mut theirs = Vec::new();
        for kind in KINDS_OF_PERSONS {
            let rows = self.eraser.bare.raw.scan(self.venue, kind, range.clone()).await?;
            let erased = self.filter.erased(self.venue, &rows.events);
            if !erased.is_empty() {
                theirs.push(dwell_storage::erasure::filter::pick_raw(&rows, &erased));
            }
        }
        Ok(theirs)
    }

    async fn archive(&self) -> Result<Vec<(LocalDay, &'static str, u64)>> {
        let archive = &self.eraser.bare.archive;
        let mut found = Vec::new();
        for (day, kind) in self.archived_days().await? {
            let held = archive.day(self.venue, kind, day).await?;
            if !held.superseded.is_empty() {
                let rows = archive.superseded(self.venue, kind, &held).await?;
                let count = self.filter.erased(self.venue, &rows.events).len() as u64;
                found.push((day, "archive_superseded", count));
            }
            let mut reader = archive.open(self.venue, &held, Projection::Events).await?;
            let (filter, venue) = (Arc::clone(&self.filter), self.venue.clone());
            let count = blocking("look for somebody in the archive", move || -> Result<u64> {
                let mut count = 0;
                while let Some(chunk) = reader.next_chunk()? {
                    count += filter.erased(&venue, chunk.events).len() as u64;
                }
                Ok(count)
            });
            found.push((day, "archive", count.await??));
        }
        found.retain(|(_, _, count)| *count > 0);
        Ok(found)
    }

    /// Days and kinds of the archive that can hold them.
    pub(crate) async fn archived_days(&self) -> Result<Vec<(LocalDay, Kind)>> {
        let mut days = self.eraser.bare.archive.days(self.venue).await?;
        days.retain(|(day, kind)| {
            let (start, end) = self.calendar.bounds(*day);
            let near = start - dwell_model::time::DAY_MS..end + dwell_model::time::DAY_MS;
            KINDS_OF_PERSONS.contains(kind) && near.start < self.range.end && self.range.start < near.end
        });
        Ok(days)
    }

    async fn computed_days(&self) -> Result<Vec<LocalDay>> {
        let bound = |ts: TsMs| {
            let ts = ts.clamp(0, self.eraser.clock.now_ms() + dwell_model::time::DAY_MS);
            self.calendar.day_of(ts)
        };
        let (from, to) = (bound(self.range.start).prev(), bound(self.range.end).next());
        let days = self.eraser.bare.venue_days.list(self.venue, from, to).await?;
        Ok(days.into_iter().map(|row| row.day).collect())
    }

    /// Whether positions of a day are left, of whomever: what sessions are made of.
    pub(crate) async fn has_positions(&self, day: LocalDay) -> Result<bool> {
        let bare = &self.eraser.bare;
        if !bare
            .archive
            .day(self.venue, Kind::Position, day)
            .await?
            .is_empty()
        {
            return Ok(true);
        }
        let (from, to) = self.calendar.bounds(day);
        let counted = bare.raw.count(self.venue, from..to).await?;
        Ok(counted
            .iter()
            .any(|(kind, rows)| *kind == Kind::Position && *rows > 0))
    }

    /// Their sessions of each generation of a day, unpublished ones included; of generations up to `perhaps_up_to`
    /// those too that are only perhaps theirs.
    pub(crate) async fn sessions(
        &self,
        day: LocalDay,
        perhaps_up_to: Generation,
    ) -> Result<Vec<(Generation, Vec<SessionCursor>)>> {
        let bare = &self.eraser.bare;
        let Some(row) = bare.venue_days.get(self.venue, day).await? else {
            return Ok(Vec::new());
        };
        let kept = bare.venue_days.history(self.venue, day).await?;
        let proposed = periods::proposal(&*bare.documents, self.venue, day).await?;
        let newest = row.fence.saturating_sub(GENERATIONS_MAX).max(1)..=row.fence;
        let generations: BTreeSet<Generation> = newest
            .chain(kept.into_iter().map(|info| info.generation))
            .chain(proposed.map(|proposed| proposed.value.info.generation))
            .collect();
        let mut found = Vec::new();
        for generation in generations {
            let wanted = match generation <= perhaps_up_to {
                true => Whose::PerhapsTheirs,
                false => Whose::Theirs,
            };
            let mut theirs = Vec::new();
            let mut after: Option<SessionCursor> = None;
            loop {
                let page = bare
                    .sessions
                    .list(self.venue, day, generation, after.as_ref(), PAGE)
                    .await?;
                let is_last = page.len() < PAGE;
                for stored in page {
                    let cursor = SessionCursor {
                        start: stored.session.start,
                        id: stored.id,
                    };
                    if self.filter.whose(self.venue, &stored.session) >= wanted {
                        theirs.push(cursor.clone());
                    }
                    after = Some(cursor);
                }
                if is_last {
                    break;
                }
            }
            if !theirs.is_empty() {
                found.push((generation, theirs));
            }
        }
        Ok(found)
    }

    /// Entries of the quarantine that name them, and when the last encrypted one of the venue was received.
    pub(crate) async fn quarantine(&self) -> Result<(Vec<String>, Option<TsMs>)> {
        let (mut ids, mut encrypted) = (Vec::new(), None);
        let mut before: Option<String> = None;
        loop {
            let page = self
                .eraser
                .bare
                .quarantine
                .list(
                    &self.venue.tenant,
                    &QuarantineFilter::default(),
                    before.as_deref(),
                    PAGE,
                )
                .await?;
            let Some(last) = page.last() else {
                return Ok((ids, encrypted));
            };
            before = Some(last.id.clone());
            for entry in page {
                if entry
                    .venue
                    .as_ref()
                    .is_some_and(|venue| *venue != self.venue.venue)
                {
                    continue;
                }
                match entry.encoding {
                    QuarantineEncoding::Encrypted => encrypted = encrypted.max(Some(entry.received_at)),
                    QuarantineEncoding::Plain if names_entry(&self.filter, self.venue, &entry) => {
                        ids.push(entry.id);
                    }
                    QuarantineEncoding::Plain => {}
                }
            }
        }
    }

    /// Partitions of the log that can hold them.
    pub(crate) fn partitions(&self) -> BTreeSet<Partition> {
        KINDS_OF_PERSONS
            .into_iter()
            .map(|kind| self.eraser.bare.log.partition_of(self.venue, kind))
            .collect()
    }

    /// Their events in the log.
    pub(crate) async fn log(&self) -> Result<u64> {
        let log = &self.eraser.bare.log;
        let mut found = 0;
        for partition in self.partitions() {
            let bounds = log.bounds(partition).await?;
            let mut position = bounds.start;
            while position < bounds.end {
                let chunk = log.read(partition, position, LOG_BYTES).await?;
                for record in &chunk.records {
                    found += self.filter.erased(&record.venue, &record.events).len() as u64;
                }
                if chunk.next <= position {
                    break;
                }
                position = chunk.next;
            }
        }
        Ok(found)
    }
}

/// Whether a refused line, kept in clear, names somebody of a venue.
pub(crate) fn names_entry(filter: &ErasureFilter, venue: &VenueKey, entry: &QuarantineEntry) -> bool {
    // A damaged record of the log is kept as it was stored.
    let batch: Option<EventBatch> = match entry.format.as_str() {
        "postcard" => postcard::from_bytes(&entry.bytes).ok(),
        _ => None,
    };
    match batch.filter(|batch| batch.check().is_ok()) {
        Some(batch) => !filter.erased(venue, &batch).is_empty(),
        None => [entry.bytes.as_slice(), entry.message.as_bytes()]
            .into_iter()
            .any(|bytes| filter.names_bytes(venue, bytes, entry.received_at)),
    }
}
