//! The sweep of a day: what its mark says goes, a slot at a time, under the day's lease.
//!
//! A mark may be old by the time that it is swept, so nothing of it is believed but what may go: the day is looked at
//! again (held? dirty by now?), and each row is compared with the archive once more, in the step that removes it. A row
//! that came meanwhile keeps its slot for the next sweep. Sessions go after as fresh a comparison of the whole day: what
//! their rows' sweep has just compared is not read again.
//!
//! A slot goes as a whole. One that two venue-days share (where a zone is off the full ten minutes, or a cut was changed)
//! goes when each of its rows was found in the archive of its day, and both days may go.

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, SLOT_MS, TsMs, VenueCalendar, slot_of};
use dwell_runtime::failpoint;
use dwell_storage::api::{ArchivedDay, ComparedSlot, Flip, Generation};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::compare::{Compared, Comparison};
use crate::engine::Retention;
use crate::error::{Doing, Result};
use crate::facts::ArchiveProof;
use crate::holds;
use crate::lease::{Held, lost, under_leases};
use crate::metrics;
use crate::plan::{DayPlan, Verdict, written_before};
use crate::prove::unreadable;
use crate::records::{self, Swept};

/// What a sweep of a day did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaySwept {
    /// Raw rows that are gone.
    pub raw_rows: u64,
    /// Raw rows that the day has now, whatever the reason.
    pub rows_left: u64,
    /// Sessions that are gone.
    pub sessions: u64,
    /// Generations that are gone.
    pub generations: u64,
    /// Why something that was marked stayed.
    pub stayed: Vec<String>,
}

impl Retention {
    /// Removes of a day what its mark says. `marked` gives the other days of the mark, for slots that two days share.
    /// `None` when somebody else holds the day. Repeating it changes nothing.
    pub async fn sweep(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: &DayPlan,
        marked: &[DayPlan],
        cancel: &CancellationToken,
    ) -> Result<Option<DaySwept>> {
        let mut days = vec![day.day];
        for (neighbour, edge) in [
            (day.day.prev(), calendar.bounds(day.day).0),
            (day.day.next(), calendar.bounds(day.day).1),
        ] {
            let goes = |plan: &&DayPlan| plan.day == neighbour && removes_raw(plan).next().is_some();
            if edge.rem_euclid(SLOT_MS) != 0 && marked.iter().any(|plan| goes(&plan)) {
                days.push(neighbour);
            }
        }
        days.sort_unstable();
        under_leases(self, venue, &days, cancel, async |held| {
            let sweeper = Sweeper {
                retention: self,
                venue,
                calendar,
                held,
                cancel,
                began_at: self.now_ms(),
            };
            failpoint!("retention.sweep.begins");
            let mut swept = DaySwept::default();
            if let Some(why) = sweeper.why_not(day.day).await? {
                swept.stayed.push(why);
                return Ok(swept);
            }
            let mut sharers = Vec::new();
            for &neighbour in days.iter().filter(|neighbour| **neighbour != day.day) {
                if sweeper.why_not(neighbour).await?.is_none() {
                    sharers.extend(marked.iter().find(|plan| plan.day == neighbour));
                }
            }
            let mut compared = BTreeSet::new();
            if removes_raw(day).next().is_some() {
                compared = sweeper.sweep_raw(day, &sharers, &mut swept).await?;
            }
            if matches!(day.sessions, Verdict::Delete { .. }) {
                match sweeper.doubt(day.day, &compared).await? {
                    Some(doubt) => swept.stayed.push(format!("sessions stay: {doubt}")),
                    None => sweeper.sweep_sessions(day.day, &mut swept).await?,
                }
            }
            sweeper.sweep_generations(day, &mut swept).await?;
            Ok(swept)
        })
        .await
    }
}

/// The kinds of which raw rows go.
fn removes_raw(day: &DayPlan) -> impl Iterator<Item = Kind> {
    day.raw
        .iter()
        .filter_map(|(&kind, verdict)| matches!(verdict, Verdict::Delete { .. }).then_some(kind))
}

/// What became of a kind's rows.
struct SweptKind {
    /// How many were compared.
    rows: u64,
    /// How many of them had to stay.
    stayed: u64,
}

struct Sweeper<'a> {
    retention: &'a Retention,
    venue: &'a VenueKey,
    calendar: &'a VenueCalendar,
    held: &'a Held,
    cancel: &'a CancellationToken,
    /// Before any row was read.
    began_at: TsMs,
}

impl Sweeper<'_> {
    /// Why nothing of a day may go any more, whatever its mark says.
    async fn why_not(&self, day: LocalDay) -> Result<Option<String>> {
        let stores = self.retention.stores();
        let holds = holds::standing(&*stores.documents, &self.venue.tenant)
            .await
            .doing("read the holds")?;
        let now = self.retention.now_ms();
        let covering = |hold: &&holds::Hold| hold.is_in_force(now) && hold.covers(&self.venue.venue, day);
        if let Some(hold) = holds.iter().find(covering) {
            return Ok(Some(format!("a legal hold forbids it: {}", hold.reason)));
        }
        let (start, end) = self.calendar.bounds(day);
        let marks = stores
            .raw
            .marks(self.venue, start..end)
            .await
            .doing("read the marks")?;
        let row = stores.venue_days.get(self.venue, day).await;
        let published = row
            .doing("read the published generation")?
            .and_then(|row| row.published);
        Ok(match published {
            None => Some("it was never computed".to_owned()),
            Some(info) if info.provisional => Some("its generation is provisional".to_owned()),
            Some(info) if marks.exceed(&info.marks) || info.calendar != *self.calendar => {
                Some("something came after it was computed: recompute it".to_owned())
            }
            Some(_) => None,
        })
    }

    /// Removes a day's raw rows; returns the kinds of which all rows were found in the archive, read from end to end.
    async fn sweep_raw(
        &self,
        day: &DayPlan,
        sharers: &[&DayPlan],
        swept: &mut DaySwept,
    ) -> Result<BTreeSet<Kind>> {
        let raw = &self.retention.stores().raw;
        let (start, end) = self.calendar.bounds(day.day);
        let marks = raw.marks(self.venue, start..end).await.doing("read the marks")?;
        let before = self.count(day.day).await?;
        let mut compared = BTreeSet::new();
        for kind in removes_raw(day) {
            let sharers = sharers
                .iter()
                .filter(|plan| removes_raw(plan).any(|of| of == kind));
            let days: Vec<LocalDay> = [day.day]
                .into_iter()
                .chain(sharers.map(|plan| plan.day))
                .collect();
            match self.sweep_kind(kind, &days).await {
                Ok(SweptKind { stayed: 0, rows }) => {
                    // Without a row nothing was read.
                    if rows > 0 {
                        compared.insert(kind);
                    }
                }
                Ok(SweptKind { stayed, .. }) => swept.stayed.push(format!(
                    "{stayed} {kind} rows came after the comparison, or lie in a slot shared with a day that stays"
                )),
                Err(error) => swept.stayed.push(unreadable(error)?),
            }
        }
        let left = self.count(day.day).await?;
        let rows: u64 = before.values().sum();
        for (&kind, &rows) in &before {
            let gone = rows.saturating_sub(left.get(&kind).copied().unwrap_or(0));
            metrics::rows_removed(kind, gone);
            swept.raw_rows += gone;
        }
        swept.rows_left = left.values().sum();
        failpoint!("retention.sweep.after_raw");
        let result = Swept {
            at: self.began_at,
            marks,
            calendar: *self.calendar,
            rows,
            left,
        };
        let documents = &*self.retention.stores().documents;
        records::update(documents, self.venue, day.day, |record| {
            record.swept = Some(result.clone());
        })
        .await
        .doing("remember a sweep")?;
        Ok(compared)
    }

    /// What speaks against the archive of a day, compared now but for the kinds that this sweep has compared already. It
    /// is remembered: an earlier comparison that found nothing wrong is not to let the day be taken for proven.
    async fn doubt(&self, day: LocalDay, compared: &BTreeSet<Kind>) -> Result<Option<String>> {
        let proof = self
            .retention
            .compare_rest(self.venue, self.calendar, day, compared, self.cancel)
            .await?;
        let Err(reason) = written_before(&ArchiveProof::from(&proof)) else {
            return Ok(None);
        };
        self.held.check()?;
        let documents = &*self.retention.stores().documents;
        records::update(documents, self.venue, day, |record| {
            record.proof = Some(proof.clone());
        })
        .await
        .doing("remember a proof")?;
        Ok(Some(reason.doubt().unwrap_or_default()))
    }

    /// Removes a kind's rows slot by slot.
    async fn sweep_kind(&self, kind: Kind, days: &[LocalDay]) -> Result<SweptKind> {
        let archive = &self.retention.stores().archive;
        let mut archived: Vec<ArchivedDay> = Vec::with_capacity(days.len());
        for &day in days {
            let held = archive.day(self.venue, kind, day).await;
            archived.push(held.doing("look a day up in the archive")?);
        }
        let comparison = Comparison {
            retention: self.retention,
            venue: self.venue,
            kind,
            archived: &archived,
            cancel: self.cancel,
        };
        // Whole slots: a store that deletes by slot must not take rows of a neighbour that nobody looked for.
        let (start, end) = self.calendar.bounds(days[0]);
        let slots = slot_of(start) * SLOT_MS..(slot_of(end - 1) + 1) * SLOT_MS;
        let mut swept = SweptKind { rows: 0, stayed: 0 };
        for window in comparison.windows(slots).await? {
            self.held.check()?;
            let compared = comparison.compare(window).await?;
            swept.rows += compared.rows.len() as u64;
            swept.stayed += self.remove(compared).await?;
        }
        Ok(swept)
    }

    /// Removes the slots of which every row was found; returns how many rows had to stay.
    async fn remove(&self, compared: Compared) -> Result<u64> {
        let Compared { rows, held, .. } = compared;
        let (mut start, mut stayed) = (0, 0);
        while start < rows.len() {
            let slot = slot_of(rows.events.ts[start]);
            let same = rows.events.ts[start..]
                .iter()
                .take_while(|ts| slot_of(**ts) == slot);
            let end = start + same.count();
            if held[start..end].iter().all(|held| *held) {
                // The lease may have run out while the archive was being read.
                self.held.check()?;
                failpoint!("retention.sweep.before_slot");
                let slot = ComparedSlot {
                    venue: self.venue.clone(),
                    slot,
                    rows: part(&rows, start, end),
                    written_before: self.began_at - self.retention.settings().clock_skew_ms,
                };
                let removed = self.retention.stores().raw.delete_compared(slot).await;
                removed.doing("remove compared raw events")?;
                failpoint!("retention.sweep.after_slot");
            } else {
                stayed += (end - start) as u64;
            }
            start = end;
        }
        Ok(stayed)
    }

    async fn sweep_sessions(&self, day: LocalDay, swept: &mut DaySwept) -> Result<()> {
        let stores = self.retention.stores();
        let record = records::load(&*stores.documents, self.venue, day).await;
        let known = record.doing("read what was swept")?.sessions_gone;
        let history = stores.venue_days.history(self.venue, day).await;
        let history = history.doing("read the day's history")?;
        let mut gone = BTreeSet::new();
        for info in &history {
            if !known.contains(&info.generation) {
                self.held.check()?;
                let removed = stores.sessions.delete(self.venue, day, info.generation).await;
                removed.doing("remove sessions")?;
                swept.sessions += info.sessions;
            }
            gone.insert(info.generation);
        }
        failpoint!("retention.sweep.after_sessions");
        metrics::sessions_removed(swept.sessions);
        records::update(&*stores.documents, self.venue, day, |record| {
            record.sessions_gone = gone.clone();
        })
        .await
        .doing("remember a sweep")?;
        Ok(())
    }

    /// Old generations go in an order that leaves nothing behind wherever it stops: named in the record, out of the
    /// history, their rows, out of the record.
    async fn sweep_generations(&self, day: &DayPlan, swept: &mut DaySwept) -> Result<()> {
        let due: Vec<Generation> = day
            .generations
            .iter()
            .filter(|old| old.reasons.is_empty())
            .map(|old| old.generation)
            .collect();
        let Some(lease) = self.held.of(day.day).filter(|_| !due.is_empty()) else {
            return Ok(());
        };
        let stores = self.retention.stores();
        let (tenant, venue) = (&self.venue.tenant, &self.venue.venue);
        let needed = self
            .retention
            .guard()
            .needed(tenant, venue, day.day, &due, self.retention.now_ms())
            .await
            .doing("ask which generations are needed")?;
        let going: Vec<Generation> = due
            .into_iter()
            .filter(|number| !needed.contains(number))
            .collect();
        let documents = &*stores.documents;
        records::update(documents, self.venue, day.day, |record| {
            record.forgetting.extend(&going);
            record.forgetting.sort_unstable();
            record.forgetting.dedup();
        })
        .await
        .doing("remember which generations go")?;
        failpoint!("retention.sweep.before_forget");
        let forgotten = stores.venue_days.forget(lease, &going).await;
        if forgotten.doing("forget generations")? == Flip::Lost {
            return Err(lost(lease));
        }
        failpoint!("retention.sweep.after_forget");
        for &generation in &going {
            self.held.check()?;
            let rows = stores.aggregates.delete(self.venue, day.day, generation).await;
            rows.doing("remove an old generation")?;
            let sessions = stores.sessions.delete(self.venue, day.day, generation).await;
            sessions.doing("remove an old generation")?;
        }
        let history = stores.venue_days.history(self.venue, day.day).await;
        let history = history.doing("read the day's history")?;
        let alone = match history.as_slice() {
            [only] => Some(only.generation),
            _ => None,
        };
        records::update(documents, self.venue, day.day, |record| {
            record.forgetting.retain(|number| !going.contains(number));
            record.sessions_gone.retain(|number| !going.contains(number));
            record.alone = alone;
        })
        .await
        .doing("remember a sweep")?;
        metrics::generations_removed(going.len() as u64);
        swept.generations = going.len() as u64;
        Ok(())
    }

    async fn count(&self, day: LocalDay) -> Result<BTreeMap<Kind, u64>> {
        let (start, end) = self.calendar.bounds(day);
        let counts = self.retention.stores().raw.count(self.venue, start..end).await;
        Ok(counts.doing("count raw events")?.into_iter().collect())
    }
}

/// Some neighbouring rows.
fn part(rows: &RawRows, start: usize, end: usize) -> RawRows {
    if (start, end) == (0, rows.len()) {
        return rows.clone();
    }
    let taken: Vec<u32> = (start as u32..end as u32).collect();
    let first = if start == 0 { 0 } else { rows.ends[start - 1] };
    RawRows {
        events: rows.events.take(&taken),
        deliveries: rows.deliveries[first as usize..rows.ends[end - 1] as usize].to_vec(),
        ends: rows.ends[start..end].iter().map(|end| end - first).collect(),
    }
}
