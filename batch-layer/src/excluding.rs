//! What an exclusion does to a venue's days: which of them it has a part in, and what would change in the numbers.
//!
//! Nothing here publishes anything. Days become dirty by the exclusion itself (see [`plan`](crate::plan)): the ids of
//! those that have a part in a day are part of its input.

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::event::{Kind, resolve};
use dwell_model::exclusion::{DayExclusions, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Carry};
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS};
use dwell_runtime::failpoint;
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{Generation, GenerationChange, GenerationInfo, JobProgress, RowFilter, exclusions};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::plan::marks_by_day;
use crate::ready::wait_for_raw_writer;
use crate::recompute::pieces::{self, Piece, Purpose};
use crate::recompute::{self, Computed};
use crate::rows;
use crate::run::DayRun;
use crate::runner::Progress;
use crate::totals::{DayTotals, totals};

/// Days looked ahead for one that starts from another day's counters.
const LOOK_AHEAD_DAYS: u64 = 31;

/// A day with deliveries that an exclusion covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredDay {
    /// The day.
    pub day: LocalDay,
    /// Whether it has not ended.
    pub open: bool,
    /// Per kind: events (identities) with a delivery that is covered.
    pub events: BTreeMap<Kind, u64>,
    /// Why the day could not be read; it is then taken for one that the exclusion has a part in.
    pub problem: Option<String>,
}

/// What changes in a day's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DayDifference {
    /// The day.
    pub day: LocalDay,
    /// Whether it has not ended: the live view answers for it.
    pub open: bool,
    /// Buckets.
    pub buckets: GenerationChange,
    /// The day's numbers before; `None` when there are none.
    pub before: Option<DayTotals>,
    /// And after.
    pub after: Option<DayTotals>,
    /// Per kind: events of which the exclusions leave no delivery, after.
    pub excluded: BTreeMap<Kind, u64>,
    /// Events that count with a payload which an excluded one had covered, after.
    pub restored: u64,
}

/// Which way an exclusion goes, to find the generations before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It comes into force.
    Made,
    /// It ends.
    Ended,
}

impl BatchLayer {
    /// Finds the days that a stored exclusion has a part in, and writes them down with it. Where the venue's cut of days
    /// became another meanwhile, what was found is days of the former one: then all is looked through again.
    pub async fn write_down_covered(
        &self,
        venue: &VenueKey,
        exclusion: &Exclusion,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Vec<CoveredDay>> {
        let documents = self.stores().documents.as_ref();
        loop {
            let cut = self.venue(venue).await?.calendar;
            let found = self.find_covered(venue, exclusion, progress, cancel).await?;
            failpoint!("batch.before_covered_days");
            let days: Vec<LocalDay> = found.iter().map(|found| found.day).collect();
            exclusions::add_days(documents, &venue.tenant, &exclusion.id, &days, true)
                .await
                .doing("write the days of an exclusion down")?;
            // Only now: a cut that is published after this finds the days written down, and carries them over.
            if self.venue(venue).await?.calendar == cut {
                return Ok(found);
            }
        }
    }

    /// The days with deliveries that an exclusion covers, in force or not, ascending. Waits first until the raw writer
    /// has passed the log's end as of now, then looks through everything that is known of the days it may bear on;
    /// archived payloads are not read.
    pub async fn find_covered(
        &self,
        venue: &VenueKey,
        exclusion: &Exclusion,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Vec<CoveredDay>> {
        wait_for_raw_writer(self, std::slice::from_ref(venue), cancel).await?;
        let days = self.days_to_look_through(venue, exclusion).await?;
        let total = days.len() as u64;
        let mut found = Vec::new();
        for (done, day) in (0..).zip(days) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            progress(JobProgress {
                done,
                total,
                doing: format!("looking through {} {day}", venue.venue),
            });
            let covered = match self.covered_on(venue, day, exclusion, cancel).await {
                Ok(covered) => covered,
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) if error.is_retryable() => return Err(error),
                // Its computation fails as well and says so there.
                Err(error) => CoveredDay {
                    day,
                    open: false,
                    events: BTreeMap::new(),
                    problem: Some(error.to_string()),
                },
            };
            if covered.problem.is_some() || !covered.events.is_empty() {
                found.push(covered);
            }
        }
        Ok(found)
    }

    /// What would change in the numbers of some days, and of those that start from their counters, if these were the
    /// venue's exclusions in force. Both sides are computed from what is known now; nothing is published.
    pub async fn preview_exclusions(
        &self,
        venue: &VenueKey,
        days: &[LocalDay],
        proposed: &[Exclusion],
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Vec<DayDifference>> {
        let mut queue: BTreeSet<LocalDay> = days.iter().copied().collect();
        let mut handed: Option<Handed> = None;
        let mut differences = Vec::new();
        while let Some(day) = queue.pop_first() {
            let doing = format!("computing {} {day}", venue.venue);
            let done = differences.len() as u64;
            progress(JobProgress {
                done,
                total: done + 1 + queue.len() as u64,
                doing,
            });
            let mut run = DayRun::look(self, venue, day, cancel).await?;
            let layout = self.venue(venue).await?.layout_on(day).clone();
            let stored = run.carry_in(self).await?;
            let (carry_before, carry_after) = match handed.take().filter(|handed| handed.to == day) {
                Some(handed) => (handed.before, handed.after),
                None => (stored.clone(), stored),
            };
            let before = recompute::compute(self, &run, &layout, carry_before).await?;
            run.exclude(proposed.to_vec());
            let after = recompute::compute(self, &run, &layout, carry_after).await?;
            if before.carry != after.carry
                && let Some(to) = self.day_after(venue, day).await?
            {
                queue.insert(to);
                handed = Some(Handed {
                    to,
                    before: before.carry.clone(),
                    after: after.carry.clone(),
                });
            }
            differences.push(DayDifference {
                day,
                open: run.open,
                buckets: rows::change(&before.rows, &after.rows),
                before: totals_of(&before),
                after: totals_of(&after),
                restored: after.excluded.restored,
                excluded: after.excluded.events,
            });
        }
        Ok(differences)
    }

    /// What the published generation of a day changed against the last one on the other side of an exclusion; `None`
    /// when no generation is on this side of it.
    pub async fn published_difference(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        exclusion: &str,
        turn: Turn,
    ) -> Result<Option<DayDifference>> {
        let history = self.stores().venue_days.history(venue, day).await;
        let history = history.doing("read the day's history")?;
        let is_after = |jobs: &[String]| jobs.iter().any(|job| job == exclusion) == (turn == Turn::Made);
        let Some(after) = history.first().filter(|info| is_after(&info.exclusions.jobs)) else {
            return Ok(None);
        };
        let before = history.iter().find(|info| !is_after(&info.exclusions.jobs));
        let rows_after = self.rows_of(venue, day, after.generation).await?;
        let rows_before = match before {
            Some(before) => self.rows_of(venue, day, before.generation).await?,
            None => Vec::new(),
        };
        let counted =
            |info: &GenerationInfo, rows: &[AggregateRow]| totals(rows, info.sessions, &info.events);
        Ok(Some(DayDifference {
            day,
            open: after.provisional,
            buckets: rows::change(&rows_before, &rows_after),
            before: before.map(|before| counted(before, &rows_before)),
            after: Some(counted(after, &rows_after)),
            excluded: after.exclusions.excluded.clone(),
            restored: after.exclusions.restored,
        }))
    }

    async fn rows_of(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
    ) -> Result<Vec<AggregateRow>> {
        let all = RowFilter::default();
        let rows = self.stores().aggregates.read(venue, day, generation, &all).await;
        rows.doing("read a generation")
    }

    /// The days of which there is anything, and on which an exclusion may bear.
    async fn days_to_look_through(
        &self,
        venue: &VenueKey,
        exclusion: &Exclusion,
    ) -> Result<BTreeSet<LocalDay>> {
        let stores = self.stores();
        let calendar = self.venue(venue).await?.calendar;
        let slots = stores.raw.marked_slots(venue, MIN_TS..MAX_TS).await;
        let marked = marks_by_day(&calendar, &slots.doing("read the marks")?);
        let archived = stores
            .archive
            .days(venue)
            .await
            .doing("list the archive's days")?;
        let known = marked.into_iter().map(|(day, _)| day);
        let may_bear = |day: &LocalDay| {
            let (start, end) = calendar.bounds(*day);
            exclusion.may_bear_on(&(start..end))
        };
        Ok(known
            .chain(archived.into_iter().map(|(day, _)| day))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(may_bear)
            .collect())
    }

    async fn covered_on(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        exclusion: &Exclusion,
        cancel: &CancellationToken,
    ) -> Result<CoveredDay> {
        let mut run = DayRun::look(self, venue, day, cancel).await?;
        run.exclusions = DayExclusions::exactly([exclusion]);
        let (exclusions, range) = (run.exclusions.clone(), run.range());
        let _share = self.memory_share(&run.stop).await?;
        let (pieces, incoming) = mpsc::channel(1);
        let (produced, counted) = tokio::join!(
            async { pieces::read(self, &run, Purpose::LookUp, pieces).await },
            blocking("batch.look_up", move || count_covered(
                &exclusions,
                &range,
                incoming
            )),
        );
        let counted = counted?;
        produced?;
        Ok(CoveredDay {
            day,
            open: run.open,
            events: counted?,
            problem: None,
        })
    }

    /// The next computed day after one, which starts from its counters.
    async fn day_after(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<LocalDay>> {
        let rows = self
            .stores()
            .venue_days
            .list(venue, day.next(), day.plus(LOOK_AHEAD_DAYS))
            .await;
        let mut rows = rows.doing("read the days after")?.into_iter();
        Ok(rows.find(|row| row.published.is_some()).map(|row| row.day))
    }
}

/// The counters that a day hands on to the next one, on both sides.
struct Handed {
    to: LocalDay,
    before: Carry,
    after: Carry,
}

fn totals_of(computed: &Computed) -> Option<DayTotals> {
    let is_empty = computed.rows.is_empty() && computed.events.is_empty();
    (!is_empty).then(|| totals(&computed.rows, computed.sessions.len() as u64, &computed.events))
}

fn count_covered(
    exclusions: &DayExclusions,
    range: &std::ops::Range<i64>,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<BTreeMap<Kind, u64>> {
    let mut counted: BTreeMap<Kind, u64> = BTreeMap::new();
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Part(rows) => {
                let on = exclusions.on(&rows.events);
                // The identities with a covered delivery are those that have a winner when the others are left out.
                let covered = resolve(&rows, |row, delivery| !on.covers(&rows.events, row, delivery));
                *counted.entry(rows.events.kind).or_default() += covered.winners.len() as u64;
            }
            Piece::Winners(mut winners) => {
                let events = counted.entry(winners.kind).or_default();
                while let Some(chunk) = winners.reader.next_chunk().doing("read an archived day")? {
                    let on = exclusions.on(chunk.events);
                    let is_covered = |&(row, first): &(usize, &_)| {
                        range.contains(&chunk.events.ts[row]) && on.covers(chunk.events, row, first)
                    };
                    *events += chunk.first.iter().enumerate().filter(is_covered).count() as u64;
                }
            }
        }
    }
    counted.retain(|_, events| *events > 0);
    Ok(counted)
}
