//! What is known of a venue's days: the facts that a plan is made from.
//!
//! Days that are too young for anything are only counted. What an earlier sweep has left is remembered, so that days
//! long gone cost no reading of raw.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::{DAY_MS, LocalDay, MAX_TS, MIN_TS, SLOT_MS, TsMs, VenueCalendar, slot_of};
use dwell_storage::api::{GenerationInfo, Marks, VenueDay};

use crate::engine::Retention;
use crate::error::{Doing, Result};
use crate::facts::{ArchiveProof, DayFacts, OldGeneration, Policy, Published};
use crate::holds::{self, Hold};
use crate::records::{self, DayRecord};

/// What is known of a venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The days that are old enough for something, ascending.
    pub days: Vec<DayFacts>,
    /// Days that are too young for everything.
    pub young: u64,
    /// When the first of them will be old enough, unless something touches it.
    pub next_due_at: Option<TsMs>,
}

impl Retention {
    /// Looks at all days of a venue as of `now`. Changes nothing.
    pub async fn survey(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        policy: &Policy,
        now: TsMs,
    ) -> Result<Survey> {
        let stores = self.stores();
        let surveyor = Surveyor {
            retention: self,
            venue,
            calendar,
            policy,
            now,
            holds: holds::standing(&*stores.documents, &venue.tenant)
                .await
                .doing("read the holds")?,
            records: records::all(&*stores.documents, venue)
                .await
                .doing("read what was swept")?,
            marks: Slots::read(self, venue).await?,
        };
        let (first, last) = whole_calendar();
        let rows = stores
            .venue_days
            .list(venue, first, last)
            .await
            .doing("list the venue's days")?;
        surveyor.survey(rows).await
    }
}

struct Surveyor<'a> {
    retention: &'a Retention,
    venue: &'a VenueKey,
    calendar: &'a VenueCalendar,
    policy: &'a Policy,
    now: TsMs,
    holds: Vec<Hold>,
    records: BTreeMap<LocalDay, DayRecord>,
    marks: Slots,
}

impl Surveyor<'_> {
    async fn survey(mut self, rows: Vec<VenueDay>) -> Result<Survey> {
        let mut rows: BTreeMap<LocalDay, VenueDay> = rows.into_iter().map(|row| (row.day, row)).collect();
        let days: BTreeSet<LocalDay> = rows
            .keys()
            .copied()
            .chain(self.marks.days(self.calendar))
            .collect();
        let mut survey = Survey {
            days: Vec::new(),
            young: 0,
            next_due_at: None,
        };
        for day in days {
            let row = rows.remove(&day);
            let record = self.records.remove(&day).unwrap_or_default();
            let due_at = self
                .calendar
                .bounds(day)
                .1
                .saturating_add(self.policy.first_due_ms());
            let due = due_at <= self.now;
            if !due {
                survey.young += 1;
                survey.next_due_at = Some(survey.next_due_at.map_or(due_at, |first| first.min(due_at)));
            }
            if let Some(facts) = self.day(day, row, &record, due).await? {
                survey.days.push(facts);
            }
        }
        Ok(survey)
    }

    /// The facts of a day; `None` when there is nothing to decide about it. One that is not `due` is looked at for old
    /// generations only.
    async fn day(
        &self,
        day: LocalDay,
        row: Option<VenueDay>,
        record: &DayRecord,
        due: bool,
    ) -> Result<Option<DayFacts>> {
        let (start, end) = self.calendar.bounds(day);
        let published = row.and_then(|row| row.published);
        let (marks, last_mark_at) = self.marks.of(start..end);
        let old = self
            .old_generations(day, start, published.as_ref(), record)
            .await?;
        let mut facts = DayFacts {
            venue: self.venue.clone(),
            day,
            day_end: end,
            raw_rows: BTreeMap::new(),
            sessions: 0,
            // A plan is for looking at: those that are too young for anything would fill it.
            old_generations: old
                .iter()
                .map(|(old, _)| *old)
                .filter(|old| old.replaced_at.saturating_add(self.policy.generations_ms) <= self.now)
                .collect(),
            // Marks of a Dwell that did not write down when it made them lie before what was made of them.
            last_mark_at: last_mark_at.or_else(|| published.as_ref().map(|info| info.published_at)),
            published: published.as_ref().map(|info| Published {
                generation: info.generation,
                provisional: info.provisional,
                dirty: marks.exceed(&info.marks) || info.calendar != *self.calendar,
            }),
            archive: self.proof(record, &marks),
            legal_holds: holds::of_day(
                &self.holds,
                &self.venue.venue,
                day,
                self.now,
                self.retention.now_ms(),
            ),
        };
        if due {
            facts.raw_rows = self.raw_rows(record, &marks, start..end).await?;
            let infos = published.iter().map(|info| (info.generation, info.sessions));
            let infos = infos.chain(old.iter().map(|(old, sessions)| (old.generation, *sessions)));
            let left = infos.filter(|(generation, _)| !record.sessions_gone.contains(generation));
            facts.sessions = left.map(|(_, sessions)| sessions).sum();
        }
        let is_nothing = facts.raw_rows.is_empty() && facts.sessions == 0 && facts.old_generations.is_empty();
        Ok((!is_nothing).then_some(facts))
    }

    /// The generations of a day that are no longer published, each with its number of sessions.
    async fn old_generations(
        &self,
        day: LocalDay,
        day_start: TsMs,
        published: Option<&GenerationInfo>,
        record: &DayRecord,
    ) -> Result<Vec<(OldGeneration, u64)>> {
        let Some(published) = published else {
            return Ok(Vec::new());
        };
        // Nothing of a day is computed before it begins, and nothing comes before its first generation.
        let young =
            day_start.saturating_add(self.policy.generations_ms.min(self.policy.first_due_ms())) > self.now;
        let settled = record.alone == Some(published.generation) && record.forgetting.is_empty();
        if young || settled || (published.generation == 1 && record.forgetting.is_empty()) {
            return Ok(Vec::new());
        }
        let history = self.retention.stores().venue_days.history(self.venue, day).await;
        let history = history.doing("read the day's history")?;
        let mut old = Vec::new();
        // Newest first: each one was replaced by the one before it in the list.
        let mut replaced_at = None;
        for info in &history {
            if let Some(replaced_at) = replaced_at.filter(|_| info.generation < published.generation) {
                let old_one = OldGeneration {
                    generation: info.generation,
                    replaced_at,
                    pinned: false,
                };
                old.push((old_one, info.sessions));
            }
            replaced_at = Some(info.published_at);
        }
        // What a sweep that died had begun to remove is due whatever its age.
        for &generation in &record.forgetting {
            if history.iter().all(|info| info.generation != generation) {
                let half_gone = OldGeneration {
                    generation,
                    replaced_at: MIN_TS,
                    pinned: false,
                };
                old.push((half_gone, 0));
            }
        }
        let numbers: Vec<u64> = old.iter().map(|(old, _)| old.generation).collect();
        let guard = self.retention.guard();
        let needed = guard
            .needed(
                &self.venue.tenant,
                &self.venue.venue,
                day,
                &numbers,
                self.retention.now_ms(),
            )
            .await
            .doing("ask which generations are needed")?;
        for (old, _) in &mut old {
            old.pinned = needed.contains(&old.generation);
        }
        Ok(old)
    }

    async fn raw_rows(
        &self,
        record: &DayRecord,
        marks: &Marks,
        range: Range<TsMs>,
    ) -> Result<BTreeMap<Kind, u64>> {
        if let Some(swept) = &record.swept
            && swept.calendar == *self.calendar
            && !marks.exceed(&swept.marks)
        {
            return Ok(swept.left.clone());
        }
        let counts = self.retention.stores().raw.count(self.venue, range).await;
        Ok(counts.doing("count raw events")?.into_iter().collect())
    }

    fn proof(&self, record: &DayRecord, marks: &Marks) -> ArchiveProof {
        let Some(proof) = &record.proof else {
            return ArchiveProof::Unverified;
        };
        if marks.exceed(&proof.marks) || proof.calendar != *self.calendar {
            return ArchiveProof::Unverified;
        }
        // A sweep uses its proof up: what it left was written since, and waits for another.
        if record
            .swept
            .as_ref()
            .is_some_and(|swept| swept.at >= proof.at && !swept.left.is_empty())
        {
            return ArchiveProof::Unverified;
        }
        proof.into()
    }
}

impl From<&records::Proof> for ArchiveProof {
    fn from(proof: &records::Proof) -> Self {
        let (raw, found) = proof.sums();
        match proof.unreadable.is_empty() {
            false => ArchiveProof::Unreadable {
                what: proof.unreadable.join("; "),
            },
            true if proof.missing => ArchiveProof::Missing,
            true if raw.rows > 0 && found.rows == 0 => ArchiveProof::Missing,
            true => ArchiveProof::Verified {
                at: proof.at,
                raw,
                found,
            },
        }
    }
}

/// Marks by slot, with the time of the last one.
struct Slots {
    marks: BTreeMap<i64, Marks>,
    times: BTreeMap<i64, TsMs>,
}

impl Slots {
    async fn read(retention: &Retention, venue: &VenueKey) -> Result<Self> {
        let raw = &retention.stores().raw;
        let marks = raw
            .marked_slots(venue, MIN_TS..MAX_TS)
            .await
            .doing("read the marks")?;
        let times = raw
            .marked_at(venue, MIN_TS..MAX_TS)
            .await
            .doing("read the times of marks")?;
        Ok(Self {
            marks: marks.into_iter().collect(),
            times: times.into_iter().collect(),
        })
    }

    /// The days that have marks.
    fn days(&self, calendar: &VenueCalendar) -> BTreeSet<LocalDay> {
        let mut days = BTreeSet::new();
        // Finding a day costs a walk through the zone's rules, so it is done once per day and not per slot.
        let mut end = TsMs::MIN;
        for slot in self.marks.keys() {
            // Where the zone is off the full ten minutes, a slot's end may lie in another day than its start.
            let (mut instant, slot_end) = ((slot * SLOT_MS).max(end), (slot + 1) * SLOT_MS);
            while instant < slot_end {
                let day = calendar.day_of(instant);
                days.insert(day);
                end = calendar.bounds(day).1;
                instant = end;
            }
        }
        days
    }

    fn of(&self, range: Range<TsMs>) -> (Marks, Option<TsMs>) {
        let slots = slot_of(range.start)..=slot_of(range.end - 1);
        let mut marks = Marks::default();
        self.marks
            .range(slots.clone())
            .for_each(|(_, of_slot)| marks.merge(of_slot));
        let last = self.times.range(slots).map(|(_, at)| *at).max();
        (marks, last)
    }
}

/// The first and the last day that events can fall on, in any time zone.
fn whole_calendar() -> (LocalDay, LocalDay) {
    let day = |ts: i64| LocalDay::from_epoch_days((ts / DAY_MS) as i32);
    let first = day(MIN_TS).unwrap_or_else(|| LocalDay::new(Default::default()));
    (first.prev(), day(MAX_TS).unwrap_or(first))
}
