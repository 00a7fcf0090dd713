//! The sweep of a day: what its mark says goes, a slot at a time, under the day's lease.
//!
//! A mark may be old by the time that it is swept, so nothing of it is believed but what may go: the day is looked at
//! again (held? dirty by now? still old enough, by the policy as it is now?), what people forbid is asked again before
//! each window of rows, since a large day takes long, and each row is compared with the archive once more, in the step
//! that removes it. A row that came meanwhile keeps its slot for the next sweep. Sessions go after as fresh a
//! comparison of the whole day: what their rows' sweep has just compared is not read again.
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
use crate::facts::{ArchiveProof, Policy};
use crate::lease::{Held, lost, under_leases};
use crate::marks::Mark;
use crate::metrics;
use crate::plan::{DayPlan, Verdict, written_before};
use crate::policy;
use crate::prove::unreadable;
use crate::records::{self, Swept};

mod allowed;

use allowed::Going;

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
    /// Removes of a day what its mark says, as far as the policy in force allows it still (the installation's is
    /// `default`). `None` when somebody else holds the day. Repeating it changes nothing.
    pub async fn sweep(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: &DayPlan,
        mark: &Mark,
        default: &Policy,
        cancel: &CancellationToken,
    ) -> Result<Option<DaySwept>> {
        let mut days = vec![day.day];
        for (neighbour, edge) in [
            (day.day.prev(), calendar.bounds(day.day).0),
            (day.day.next(), calendar.bounds(day.day).1),
        ] {
            let goes = |plan: &&DayPlan| plan.day == neighbour && removes_raw(plan).next().is_some();
            if edge.rem_euclid(SLOT_MS) != 0 && mark.days.iter().any(|plan| goes(&plan)) {
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
                spared_from: self.spared_from().await?,
                mark,
                default,
                policy: self.policy(venue, default).await?,
            };
            failpoint!("retention.sweep.begins");
            let mut swept = DaySwept::default();
            let going = match sweeper.going(day).await? {
                Ok(going) => going,
                Err(why) => {
                    swept.stayed.push(why);
                    return Ok(swept);
                }
            };
            swept.stayed.extend(going.too_young.clone());
            let mut sharers = Vec::new();
            for plan in mark
                .days
                .iter()
                .filter(|plan| plan.day != day.day && days.contains(&plan.day))
            {
                sharers.extend(sweeper.going(plan).await?.ok());
            }
            let mut compared = BTreeSet::new();
            if !going.kinds.is_empty() {
                compared = sweeper.sweep_raw(&going, &sharers, &mut swept).await?;
            }
            if let Some(why) = sweeper.forbidden(&[day.day]).await? {
                swept.stay(why);
                return Ok(swept);
            }
            if going.sessions {
                match sweeper.doubt(day.day, &compared).await? {
                    Some(doubt) => swept.stayed.push(format!("sessions stay: {doubt}")),
                    None => sweeper.sweep_sessions(day.day, &mut swept).await?,
                }
            }
            if let Some(why) = sweeper.forbidden(&[day.day]).await? {
                swept.stay(why);
                return Ok(swept);
            }
            sweeper.sweep_generations(day, &mut swept).await?;
            Ok(swept)
        })
        .await
    }

    async fn policy(&self, venue: &VenueKey, default: &Policy) -> Result<Policy> {
        policy::in_force(&*self.stores().documents, &venue.tenant, default)
            .await
            .doing("read the retention policy")
    }
}

impl DaySwept {
    /// Says once why something stayed.
    fn stay(&mut self, why: String) {
        if !self.stayed.contains(&why) {
            self.stayed.push(why);
        }
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
    /// Why the rest was not looked at any more.
    forbidden: Option<String>,
}

struct Sweeper<'a> {
    retention: &'a Retention,
    venue: &'a VenueKey,
    calendar: &'a VenueCalendar,
    held: &'a Held,
    cancel: &'a CancellationToken,
    /// Before any row was read.
    began_at: TsMs,
    /// What was written since then stays where a store deletes by time.
    spared_from: TsMs,
    mark: &'a Mark,
    /// The installation's policy.
    default: &'a Policy,
    /// The policy in force when the sweep of the day began.
    policy: Policy,
}

impl Retention {
    /// From when on writes are spared that a comparison which begins now may not see, by the clock that dates them.
    async fn spared_from(&self) -> Result<TsMs> {
        Ok(self.raw_now_ms().await? - self.settings().clock_skew_ms)
    }
}

impl Sweeper<'_> {
    /// Removes a day's raw rows; returns the kinds of which all rows were found in the archive, read from end to end.
    async fn sweep_raw(
        &self,
        day: &Going,
        sharers: &[Going],
        swept: &mut DaySwept,
    ) -> Result<BTreeSet<Kind>> {
        let raw = &self.retention.stores().raw;
        let (start, end) = self.calendar.bounds(day.day);
        let marks = raw.marks(self.venue, start..end).await.doing("read the marks")?;
        let before = self.count(day.day).await?;
        let mut compared = BTreeSet::new();
        for &kind in &day.kinds {
            let sharers = sharers.iter().filter(|sharer| sharer.kinds.contains(&kind));
            let days: Vec<LocalDay> = [day.day]
                .into_iter()
                .chain(sharers.map(|sharer| sharer.day))
                .collect();
            match self.sweep_kind(kind, &days).await {
                Ok(SweptKind {
                    forbidden: Some(why), ..
                }) => {
                    swept.stay(why);
                    break;
                }
                Ok(SweptKind { stayed: 0, rows, .. }) => {
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
        let mut swept = SweptKind {
            rows: 0,
            stayed: 0,
            forbidden: None,
        };
        for window in comparison.windows(slots).await? {
            self.held.check()?;
            let compared = comparison.compare(window).await?;
            swept.forbidden = self.forbidden(days).await?;
            if swept.forbidden.is_some() {
                break;
            }
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
                    written_before: self.spared_from,
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
        let due = self.still_old(day.day, due, swept).await?;
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
