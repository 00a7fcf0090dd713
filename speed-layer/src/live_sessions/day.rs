//! One live venue-day: what is settled, what waits, and the rows made of both.
//!
//! Positions go through [`Subjects`] into the settled [`DayAccumulator`]; events of the other kinds go into it at once,
//! since it takes them in any order. [`DayState::refresh`] adds what the open sessions are so far and renews the rows
//! of the hours that changed. All computing is the model's.

use std::collections::HashSet;
use std::sync::Arc;

use dwell_model::event::{Delivery, EventBatch, Kind, NO_TEXT, RawRows, resolve};
use dwell_model::exclusion::{DayExclusions, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::layout::Layout;
use dwell_model::metrics::{AggregateRow, Carry, DayAccumulator, Family, Grain, HourSet, Slice};
use dwell_model::session::FoldContext;
use dwell_model::time::{DayCut, LocalDay, TsMs, VenueCalendar};

use super::known::{EventHasher, KnownEvents, Seen};
use super::subjects::{Accepted, Subjects};
use crate::config::Config;
use crate::metrics;
use crate::watermark::Watermark;

/// How a day is computed: its cut and its layout.
#[derive(Debug)]
pub(crate) struct DayPlan {
    pub(crate) venue: VenueKey,
    pub(crate) cut: DayCut,
    pub(crate) calendar: VenueCalendar,
    pub(crate) layout: Layout,
    pub(crate) fingerprint: u64,
    pub(crate) context: FoldContext,
    /// Deliveries that do not count.
    pub(crate) exclusions: DayExclusions,
}

/// A day's live state.
#[derive(Debug)]
pub(crate) struct DayState {
    plan: Arc<DayPlan>,
    settled: DayAccumulator,
    subjects: Subjects,
    known: KnownEvents,
    carry: Carry,
    /// The carry for the next day, as long as it holds.
    carry_out: Option<Carry>,
    /// The day is over and all its sessions are ended; what still comes is folded and ended at once.
    is_finished: bool,
    /// Hours whose rows are out of date.
    stale: HourSet,
    /// Something was taken since the last refresh.
    is_touched: bool,
    /// Hashes of the sensors that were heard.
    sensors: HashSet<u64, foldhash::fast::FixedState>,
    rows: Arc<Vec<AggregateRow>>,
}

/// What became of the events of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// New events that are in.
    pub(crate) new: u64,
    /// Of them, those behind the watermark.
    pub(crate) late: u64,
    /// Known ones, dropped.
    pub(crate) redelivered: u64,
    /// Those behind what their subject has settled: only a rebuild brings them in.
    pub(crate) too_late: u64,
    /// Those that came before with another payload: only a rebuild decides.
    pub(crate) corrected: u64,
    /// A known one came with an earlier time of receipt, which may change which of its identity's payloads counts.
    pub(crate) reordered: bool,
}

impl DayPlan {
    /// The plan of a day under the layout in force.
    pub(crate) fn new(venue: VenueKey, calendar: VenueCalendar, day: LocalDay, layout: &Layout) -> Self {
        let cut = calendar.cut(day);
        let context = FoldContext::new(&cut, layout);
        Self {
            venue,
            calendar,
            fingerprint: layout.fingerprint(),
            layout: layout.clone(),
            context,
            cut,
            exclusions: DayExclusions::default(),
        }
    }

    /// The plan without the deliveries that a venue's exclusions cover.
    pub(crate) fn excluding(mut self, of_venue: &[Exclusion]) -> Self {
        self.exclusions = DayExclusions::of(of_venue, &(self.cut.start..self.cut.end));
        self
    }

    pub(crate) fn day(&self) -> LocalDay {
        self.cut.day
    }
}

impl DayState {
    /// A day without events.
    pub(crate) fn new(plan: Arc<DayPlan>, config: &Config) -> Self {
        Self {
            settled: DayAccumulator::new(&plan.cut, &plan.layout),
            subjects: Subjects::default(),
            known: KnownEvents::new(config.known_events_max),
            carry: Carry::default(),
            carry_out: None,
            is_finished: false,
            stale: HourSet::default(),
            is_touched: false,
            sensors: HashSet::default(),
            rows: Arc::default(),
            plan,
        }
    }

    pub(crate) fn plan(&self) -> &Arc<DayPlan> {
        &self.plan
    }

    pub(crate) fn rows(&self) -> &Arc<Vec<AggregateRow>> {
        &self.rows
    }

    pub(crate) fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Takes events from the log: those of `rows` (all of this day), in the order of arrival; `fresh` then holds those
    /// that are in. The hasher is prepared for the batch. `is_reordered`: it was received earlier than one before it.
    pub(crate) fn take(
        &mut self,
        hasher: &EventHasher,
        batch: &EventBatch,
        rows: &[u32],
        watermark: &Watermark,
        is_reordered: bool,
        fresh: &mut Vec<u32>,
    ) -> Taken {
        let mut taken = Taken::default();
        fresh.clear();
        // A loop of its own: the table is large, and so the processor waits for many of its lines at once.
        for &row in rows {
            let at = row as usize;
            match self
                .known
                .note(hasher.identity(batch, at), hasher.payload(batch, at))
            {
                Seen::New => fresh.push(row),
                Seen::Correction => taken.corrected += 1,
                Seen::Redelivery { contested } => {
                    taken.redelivered += 1;
                    taken.reordered |= contested && is_reordered;
                }
            }
        }
        if batch.kind == Kind::Position {
            self.subjects.begin_batch(batch);
            let before = fresh.len();
            fresh.retain(|&row| {
                let (row, hash) = (row as usize, hasher.text(batch.key[row as usize]));
                self.subjects.accept(&self.plan.context, batch, row, hash) == Accepted::Waiting
            });
            taken.too_late = (before - fresh.len()) as u64;
        }
        taken.late = fresh
            .iter()
            .filter(|&&row| watermark.is_late(batch.ts[row as usize]))
            .count() as u64;
        taken.new = fresh.len() as u64;
        self.add(hasher, batch, fresh);
        taken
    }

    /// Takes rows of the raw table: all rows of a kind within a stretch of time that begins at `start`, stretches in
    /// rising order. Returns the latest event time of those that are not excluded.
    pub(crate) fn take_raw(
        &mut self,
        hasher: &mut EventHasher,
        rows: &RawRows,
        settle_before: TsMs,
    ) -> Option<TsMs> {
        let batch = &rows.events;
        hasher.prepare(batch);
        let excluded = self.plan.exclusions.on(batch);
        let mut latest = None;
        for row in 0..batch.len() {
            let is_covered = |delivery: &Delivery| excluded.covers(batch, row, delivery);
            // What is excluded altogether is not known: sent again, it is new.
            if excluded.is_empty() || !rows.deliveries(row).iter().all(is_covered) {
                self.known
                    .note(hasher.identity(batch, row), hasher.payload(batch, row));
                latest = latest.max(Some(batch.ts[row]));
            }
        }
        let winners = resolve(rows, |row, delivery| excluded.covers(batch, row, delivery)).winners;
        if batch.kind == Kind::Position {
            self.settle(settle_before);
            self.subjects.begin_batch(batch);
            for &row in &winners {
                let at = row as usize;
                // Stretches come in rising order and each identity has one winner, so none is too late.
                let accepted =
                    self.subjects
                        .accept(&self.plan.context, batch, at, hasher.text(batch.key[at]));
                debug_assert_eq!(accepted, Accepted::Waiting);
            }
        }
        self.add(hasher, batch, &winners);
        latest
    }

    /// Settles what lies before a time. Sessions beyond the bound are closed.
    pub(crate) fn settle(&mut self, before: TsMs) {
        self.subjects
            .settle(&self.plan.context, before, &mut self.settled);
    }

    /// Closes the longest unheard-of sessions beyond a bound.
    pub(crate) fn stay_bounded(&mut self, open_sessions_max: usize) {
        let cut = self
            .subjects
            .cut(&self.plan.context, open_sessions_max, &mut self.settled);
        metrics::bound_reached("open_sessions_max", cut as u64);
        metrics::bound_reached("known_events_max", self.known.take_forgotten());
    }

    /// The day is over: from now on everything is settled at once.
    pub(crate) fn finish(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            self.is_touched = true;
        }
    }

    /// The last samples of cumulative counters before the day.
    pub(crate) fn set_carry(&mut self, carry: &Carry) {
        if self.carry != *carry {
            self.carry = carry.clone();
            self.settled.set_carry(carry.clone());
            self.stale = HourSet::all();
            self.is_touched = true;
        }
    }

    /// The last samples of cumulative counters at its end.
    pub(crate) fn carry_out(&mut self) -> &Carry {
        self.carry_out.get_or_insert_with(|| self.settled.carry_out())
    }

    /// Brings rows and everybody's whereabouts up to date. Returns whether any row may have changed.
    pub(crate) fn refresh(&mut self, settled_before: TsMs) -> bool {
        if !self.is_touched {
            // Settling alone changes no row: what waited was in them provisionally.
            return false;
        }
        self.is_touched = false;
        self.carry_out = None;
        if self.is_finished {
            self.subjects.finish(&self.plan.context, &mut self.settled);
        } else {
            self.settle(settled_before);
        }
        let mut provisional = DayAccumulator::new(&self.plan.cut, &self.plan.layout);
        self.subjects.provisional(&self.plan.context, &mut provisional);
        // Sessions only grow: what was provisional before is so again, or was settled since, and marks its hours.
        let mut hours = std::mem::take(&mut self.stale);
        hours.merge(self.settled.take_changed());
        hours.merge(provisional.take_changed());
        if hours.is_empty() {
            return false;
        }
        self.renew_rows(&provisional, hours);
        true
    }

    fn add(&mut self, hasher: &EventHasher, batch: &EventBatch, rows: &[u32]) {
        if rows.is_empty() {
            return;
        }
        self.is_touched = true;
        self.settled.add_events(batch, Some(rows));
        let mut last_sensor = NO_TEXT;
        for &row in rows {
            let sensor = batch.sensor[row as usize];
            if sensor != last_sensor && self.sensors.insert(hasher.text(sensor)) {
                // A sensor with a declared interval is missed in every hour, once it is known at all.
                self.stale = HourSet::all();
            }
            last_sensor = sensor;
        }
        if batch.kind != Kind::Position {
            // A sample also decides what later ones mean: a counter's increase, a balance, how long a state held.
            let first = rows
                .iter()
                .map(|&row| self.plan.cut.hour_index(batch.ts[row as usize]))
                .min();
            (first.unwrap_or(0)..self.plan.cut.hours.len()).for_each(|hour| self.stale.insert(hour));
        }
    }

    fn renew_rows(&mut self, provisional: &DayAccumulator, hours: HourSet) {
        let cut = &self.plan.cut;
        let renewed = self.settled.rows_with(Some(provisional), hours, true);
        let is_kept =
            |row: &&AggregateRow| row.grain == Grain::Hour && !hours.contains(cut.hour_index(row.start));
        let mut rows: Vec<AggregateRow> = self.rows.iter().filter(is_kept).cloned().collect();
        rows.extend(renewed);
        rows.sort_by(|a, b| {
            (a.grain, a.start, a.family, &a.subject, a.slice)
                .cmp(&(b.grain, b.start, b.family, &b.subject, b.slice))
        });
        // Traffic has a row for every hour from its first to its last: a new last one also fills the hours between.
        if !is_gapless(cut, &rows) {
            rows = self.settled.rows_with(Some(provisional), HourSet::all(), true);
        }
        self.rows = Arc::new(rows);
    }
}

/// Whether the hours of the traffic rows follow each other. Other slices have the hours of this one, as far as they have
/// any.
fn is_gapless(cut: &DayCut, rows: &[AggregateRow]) -> bool {
    let traffic = rows
        .iter()
        .filter(|row| row.grain == Grain::Hour && row.family == Family::Traffic && row.slice == Slice::All);
    let hours: Vec<usize> = traffic.map(|row| cut.hour_index(row.start)).collect();
    hours.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

#[cfg(test)]
mod tests;
