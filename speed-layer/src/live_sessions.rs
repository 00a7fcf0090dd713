//! A venue's live state: its days, its watermark, and who is present now.
//!
//! ```text
//! log record ─▶ VenueState::take ─▶ by local day, without what is excluded
//!                                  ─▶ DayState ─┬▶ known: a redelivery is dropped
//!                                               ├▶ too late or a correction: the day wants a rebuild
//!                                               └▶ queued per subject, or gathered at once
//! tick ─▶ VenueState::tick ─▶ watermark, settle, rows of what changed, occupancy ─▶ LiveVenue
//! ```
//!
//! Live days are the open one, tomorrow (sensors may be ahead of the clock) and closed days until their final
//! generation is published. Nothing here waits or reads a store; a day that needs one is named by
//! [`VenueState::due_rebuild`], built by the shard, and comes back through [`VenueState::adopt`].

mod day;
mod known;
mod presence;
mod subjects;
mod window;
mod wishes;

pub(crate) use day::{DayPlan, DayState};
pub(crate) use known::EventHasher;
pub(crate) use wishes::Reason;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::{Delivery, Kind};
use dwell_model::exclusion::{DayExclusions, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::metrics::Carry;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{LiveDay, LiveVenue, LoggedRecord};

use self::presence::Presence;
use self::window::{LiveBounds, LiveWindow, Place};
use self::wishes::RebuildWishes;
use crate::checkpoint::VenueCheckpoint;
use crate::config::Config;
use crate::metrics;
use crate::watermark::Watermark;

/// Waiting events at which they are settled between ticks, so that catching up does not pile them up.
const SETTLE_AT: usize = 50_000;
/// A state is published again after this time, even without news.
const SHOWN_FOR: Duration = Duration::from_secs(1);

/// A venue of a shard.
#[derive(Debug)]
pub(crate) struct VenueState {
    key: VenueKey,
    venue: Venue,
    config: Arc<Config>,
    watermark: Watermark,
    window: LiveWindow,
    days: BTreeMap<LocalDay, DayState>,
    /// Days to be built from raw and log.
    wishes: RebuildWishes,
    /// Those in force.
    exclusions: Vec<Exclusion>,
    /// Closed days of the window whose final generation is published.
    published: BTreeSet<LocalDay>,
    /// The latest published generation's carry.
    carry: Option<(LocalDay, Carry)>,
    /// Events before this time may have been passed over because their day was too far ahead.
    passed_over_before: TsMs,
    /// Late events since the start of a day.
    late: (LocalDay, u64),
    /// Latest time of receipt of each kind: kinds may come from partitions that are read at different speeds.
    received_at: [TsMs; Kind::ALL.len()],
    settle_at: usize,
    presence: Presence,
    shown_at: Option<Duration>,
    is_changed: bool,
    rows: Vec<u32>,
    not_excluded: Vec<u32>,
    fresh: Vec<u32>,
}

/// The clock at one moment: the wall for event time, the monotonic one for pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: TsMs,
    pub(crate) monotonic: Duration,
    /// What was received before has been read, `now` where nothing is left to read: the time up to which event time
    /// may be settled. While a backlog is read it stands in for `now`, so that one kind that is read ahead of another
    /// does not make that one late.
    pub(crate) log_time: TsMs,
}

/// What a tick has to show.
#[derive(Debug)]
pub(crate) struct Showing {
    pub(crate) state: Arc<LiveVenue>,
    /// Something changed; else it only tells that the last state still holds.
    pub(crate) is_news: bool,
}

/// Whether the events of a record are seen for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// Late ones are counted.
    First,
    /// They were counted before a restart or a rebuild.
    Again,
}

impl VenueState {
    /// A venue without any live day.
    pub(crate) fn new(key: VenueKey, venue: Venue, config: Arc<Config>, now: TsMs) -> Self {
        let window = LiveWindow::new(&venue, now, config.closed_days_max);
        Self {
            watermark: Watermark::new(config.reorder_window.as_ms()),
            late: (window.today(), 0),
            key,
            venue,
            config,
            window,
            days: BTreeMap::new(),
            wishes: RebuildWishes::default(),
            exclusions: Vec::new(),
            published: BTreeSet::new(),
            carry: None,
            passed_over_before: TsMs::MIN,
            // What was received before the start may have been overtaken by what raw holds.
            received_at: [now; Kind::ALL.len()],
            settle_at: SETTLE_AT,
            presence: Presence::default(),
            shown_at: None,
            is_changed: true,
            rows: Vec::new(),
            not_excluded: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Goes on from a checkpoint.
    pub(crate) fn restore(&mut self, stored: &VenueCheckpoint) {
        self.watermark.restore(stored.latest_ts, stored.watermark);
        if stored.late.0 == self.late.0 {
            self.late.1 += stored.late.1;
        }
    }

    pub(crate) fn checkpoint(&self) -> VenueCheckpoint {
        VenueCheckpoint {
            venue: self.key.clone(),
            latest_ts: self.watermark.latest_ts(),
            watermark: self.watermark.settled_before(),
            late: self.late,
        }
    }

    pub(crate) fn key(&self) -> &VenueKey {
        &self.key
    }

    pub(crate) fn venue(&self) -> &Venue {
        &self.venue
    }

    /// Events that wait in the reorder window.
    pub(crate) fn waiting(&self) -> usize {
        self.days.values().map(|day| day.subjects().waiting()).sum()
    }

    /// Sessions open at the last tick.
    pub(crate) fn open_sessions(&self) -> u64 {
        self.presence.people()
    }

    pub(crate) fn today(&self) -> LocalDay {
        self.window.today()
    }

    /// The days that events may belong to, rising, with their bounds.
    pub(crate) fn live_days(&self) -> Vec<(LocalDay, TsMs, TsMs)> {
        self.window
            .days()
            .iter()
            .map(|live| (live.day, live.start, live.end))
            .collect()
    }

    /// Closed days with a state, or asked for, whose publication is awaited.
    pub(crate) fn closed_days(&self) -> Vec<LocalDay> {
        let known = self.days.keys().copied().chain(self.wishes.days());
        BTreeSet::from_iter(known.filter(|day| *day < self.today()))
            .into_iter()
            .collect()
    }

    /// Takes a record of the log.
    pub(crate) fn take(
        &mut self,
        hasher: &mut EventHasher,
        record: &LoggedRecord,
        at: Moment,
        counting: Counting,
    ) {
        self.roll_over(at.now);
        hasher.prepare(&record.events);
        let times = &record.events.ts;
        let mut rows = std::mem::take(&mut self.rows);
        let mut from = 0;
        while let Some(&first) = times.get(from) {
            let place = self.window.place_of(first);
            let run = times[from..].iter().take_while(|&&ts| place.holds(ts)).count();
            rows.clear();
            rows.extend((from..from + run).map(|row| row as u32));
            self.take_run(hasher, record, &rows, place, at, counting);
            from += run;
        }
        self.rows = rows;
        let received_at = &mut self.received_at[record.events.kind as usize];
        *received_at = record.received_at.max(*received_at);
        self.bound_waiting(at.log_time);
    }

    /// Takes again what came for a day while it was built up to an earlier position.
    pub(crate) fn take_again(
        &mut self,
        hasher: &mut EventHasher,
        record: &LoggedRecord,
        day: LocalDay,
        at: Moment,
    ) {
        let Some(live) = self.window.bounds(day) else {
            return;
        };
        let of_day = |(row, ts): (usize, &TsMs)| (live.start..live.end).contains(ts).then_some(row as u32);
        let rows: Vec<u32> = record.events.ts.iter().enumerate().filter_map(of_day).collect();
        if !rows.is_empty() {
            hasher.prepare(&record.events);
            self.take_run(hasher, record, &rows, Place::Live(live), at, Counting::Again);
        }
    }

    /// Brings everything up to date with the clock; gives the state to publish when there is news, or the last one is
    /// old. `is_caught_up`: the log had nothing more.
    pub(crate) fn tick(&mut self, fence: u64, at: Moment, is_caught_up: bool) -> Option<Showing> {
        self.roll_over(at.now);
        let today = self.today();
        if !self.days.contains_key(&today) && !self.wishes.is_awaited(today) {
            self.begin_day(today, at);
        }
        let settled_before = self.watermark.advance(at.log_time);
        self.refresh_days(settled_before, at.now, is_caught_up);
        self.look_who_is_here(at.now);
        let is_old = self
            .shown_at
            .is_none_or(|shown| at.monotonic.saturating_sub(shown) >= SHOWN_FOR);
        // A day that is still being built would be shown as an empty one.
        if !(self.is_changed || is_old) || !self.days.contains_key(&today) {
            return None;
        }
        let is_news = std::mem::take(&mut self.is_changed);
        self.shown_at = Some(at.monotonic);
        let shown = self.days.range(..=today);
        let days = shown.map(|(&day, state)| LiveDay {
            day,
            layout: state.plan().fingerprint,
            rows: Arc::clone(state.rows()),
        });
        let state = LiveVenue {
            venue: self.key.clone(),
            fence,
            as_of: at.now,
            watermark: settled_before,
            occupancy: self.presence.by_zone().to_vec(),
            open_sessions: self.presence.people(),
            late_events: self.late.1,
            days: days.collect(),
        };
        Some(Showing {
            state: Arc::new(state),
            is_news,
        })
    }

    /// Another version of the venue. Days whose cut or layout differs are built anew.
    pub(crate) fn set_venue(&mut self, venue: Venue, at: Moment) {
        let is_recut = venue.calendar != self.venue.calendar;
        self.venue = venue;
        if is_recut {
            self.window = LiveWindow::new(&self.venue, at.now, self.config.closed_days_max);
            self.late = (self.today(), self.late.1);
            self.days.clear();
            self.published.clear();
            self.wishes.retain(|_| false);
            for live in self.window.days() {
                self.wishes.want(live.day, Reason::Unknown, at.monotonic);
            }
            return;
        }
        let changed: Vec<LocalDay> = self
            .days
            .iter()
            .filter(|(day, state)| self.venue.layout_on(**day).fingerprint() != state.plan().fingerprint)
            .map(|(day, _)| *day)
            .collect();
        changed
            .into_iter()
            .for_each(|day| self.want(day, Reason::Layout, at));
    }

    /// The exclusions in force. Days on which others bear than they were built with are built anew.
    pub(crate) fn set_exclusions(&mut self, in_force: Vec<Exclusion>, at: Moment) {
        if self.exclusions == in_force {
            return;
        }
        self.exclusions = in_force;
        let changed: Vec<LocalDay> = self
            .days
            .iter()
            .filter(|(_, state)| !self.is_excluding(state.plan()))
            .map(|(day, _)| *day)
            .collect();
        changed
            .into_iter()
            .for_each(|day| self.want(day, Reason::Exclusion, at));
    }

    /// Whether a plan leaves out what the exclusions in force cover.
    fn is_excluding(&self, plan: &DayPlan) -> bool {
        let wanted = DayExclusions::of(&self.exclusions, &(plan.cut.start..plan.cut.end));
        wanted.fingerprint() == plan.exclusions.fingerprint()
    }

    /// Asks for a day to be built anew. Days that are not live are left alone.
    pub(crate) fn want(&mut self, day: LocalDay, reason: Reason, at: Moment) {
        if self.window.bounds(day).is_some() && !self.published.contains(&day) {
            self.wishes.want(day, reason, at.monotonic);
        }
    }

    /// A day whose rebuild is due, the one that waits longest first.
    pub(crate) fn due_rebuild(&self, at: Moment) -> Option<(LocalDay, Reason)> {
        self.wishes.due(&self.config, at.monotonic)
    }

    /// The plan of a day whose rebuild begins now; what comes from here on is wanted anew.
    pub(crate) fn begin_rebuild(&mut self, day: LocalDay) -> DayPlan {
        self.wishes.begin(day);
        self.plan(day)
    }

    /// A day as the venue's description and its exclusions want it now.
    fn plan(&self, day: LocalDay) -> DayPlan {
        let layout = self.venue.layout_on(day);
        DayPlan::new(self.key.clone(), self.venue.calendar, day, layout).excluding(&self.exclusions)
    }

    /// A rebuild has failed: the day is still wanted.
    pub(crate) fn give_back(&mut self, day: LocalDay, reason: Reason, at: Moment) {
        self.wishes.end(day, Duration::ZERO, &self.config, at.monotonic);
        self.want(day, reason, at);
    }

    /// Takes a day whose building took so long; false when it was built for a layout or a cut that is no longer in
    /// force, or its generation has been published meanwhile.
    pub(crate) fn adopt(
        &mut self,
        state: DayState,
        latest_ts: Option<TsMs>,
        took: Duration,
        at: Moment,
    ) -> bool {
        let day = state.plan().day();
        self.wishes.end(day, took, &self.config, at.monotonic);
        let is_current = self.window.bounds(day).is_some()
            && !self.published.contains(&day)
            && state.plan().calendar == self.venue.calendar;
        if !is_current {
            return false;
        }
        if state.plan().fingerprint != self.venue.layout_on(day).fingerprint() {
            self.want(day, Reason::Layout, at);
            return false;
        }
        if !self.is_excluding(state.plan()) {
            self.want(day, Reason::Exclusion, at);
            return false;
        }
        self.wishes.forget_events(day);
        latest_ts.into_iter().for_each(|ts| self.watermark.see(ts));
        self.days.insert(day, state);
        self.is_changed = true;
        true
    }

    /// The final generation of a closed day is published: the live view no longer answers for it.
    pub(crate) fn set_published(&mut self, day: LocalDay, carry: Carry) {
        self.published.insert(day);
        self.wishes.forget(day);
        self.is_changed |= self.days.remove(&day).is_some();
        self.set_carry(day, carry);
    }

    /// Asks for everything that is shown to be built anew.
    pub(crate) fn want_all(&mut self, reason: Reason, at: Moment) {
        let days: Vec<LocalDay> = self.days.keys().copied().collect();
        days.into_iter().for_each(|day| self.want(day, reason, at));
    }

    /// Whether the final generation of a closed day is known to be published.
    pub(crate) fn is_published(&self, day: LocalDay) -> bool {
        self.published.contains(&day)
    }

    /// Drops a day's state; it is wanted anew.
    pub(crate) fn drop_day(&mut self, day: LocalDay, at: Moment) {
        self.days.remove(&day);
        self.wishes.want(day, Reason::Unknown, at.monotonic);
    }

    /// The carry of a published generation.
    pub(crate) fn set_carry(&mut self, day: LocalDay, carry: Carry) {
        if self.carry.as_ref().is_none_or(|(known, _)| *known <= day) {
            self.carry = Some((day, carry));
        }
    }

    fn roll_over(&mut self, now: TsMs) {
        if !self.window.is_past(now) {
            return;
        }
        self.window = LiveWindow::new(&self.venue, now, self.config.closed_days_max);
        let window = &self.window;
        let is_live = |day: &LocalDay| window.bounds(*day).is_some();
        let (kept, dropped) = std::mem::take(&mut self.days)
            .into_iter()
            .partition(|(day, _)| is_live(day));
        self.days = kept;
        for (day, state) in BTreeMap::from_iter::<BTreeMap<_, DayState>>(dropped) {
            if day > window.today() {
                // The clock was set back: the day is built anew when it comes.
                self.passed_over_before = self.passed_over_before.max(state.plan().cut.end);
            } else {
                metrics::bound_reached("closed_days_max", 1);
                tracing::warn!(venue = %self.key, %day, "a closed day was never published and leaves the live view");
            }
        }
        self.wishes.retain(|day| is_live(&day));
        self.published.retain(is_live);
        self.late = (self.window.today(), 0);
        self.is_changed = true;
    }

    /// Begins a day of which nothing has come yet.
    fn begin_day(&mut self, day: LocalDay, at: Moment) {
        let plan = self.plan(day);
        if plan.cut.start < self.passed_over_before {
            self.want(day, Reason::Unknown, at);
            return;
        }
        self.days.insert(day, DayState::new(Arc::new(plan), &self.config));
    }

    fn take_run(
        &mut self,
        hasher: &EventHasher,
        record: &LoggedRecord,
        rows: &[u32],
        place: Place,
        at: Moment,
        counting: Counting,
    ) {
        let events = rows.len() as u64;
        match place {
            Place::Before(_) => self.pass_over("published", events, counting),
            Place::After(_) => {
                let latest = rows.iter().map(|&row| record.events.ts[row as usize]).max();
                self.passed_over_before = self.passed_over_before.max(latest.map_or(TsMs::MIN, |ts| ts + 1));
                metrics::ignored("future", events);
            }
            Place::Live(live) => {
                if !self.days.contains_key(&live.day)
                    && !self.wishes.is_awaited(live.day)
                    && live.day >= self.today()
                {
                    self.begin_day(live.day, at);
                }
                if self.days.contains_key(&live.day) {
                    self.take_live(hasher, record, rows, live, at, counting);
                } else if live.day < self.today() {
                    let is_published = self.published.contains(&live.day);
                    self.pass_over(
                        if is_published { "published" } else { "rebuild" },
                        events,
                        counting,
                    );
                    self.want(live.day, Reason::Unknown, at);
                }
            }
        }
    }

    fn take_live(
        &mut self,
        hasher: &EventHasher,
        record: &LoggedRecord,
        rows: &[u32],
        live: LiveBounds,
        at: Moment,
        counting: Counting,
    ) {
        let Some(state) = self.days.get_mut(&live.day) else {
            return;
        };
        let batch = &record.events;
        let excluded = state.plan().exclusions.on(batch);
        let mut not_excluded = std::mem::take(&mut self.not_excluded);
        not_excluded.clear();
        if !excluded.is_empty() {
            let delivery = Delivery {
                received_at: record.received_at,
                receipt: record.receipt,
            };
            let counts = |row: &u32| !excluded.covers(batch, *row as usize, &delivery);
            not_excluded.extend(rows.iter().copied().filter(counts));
            metrics::ignored("excluded", (rows.len() - not_excluded.len()) as u64);
        }
        let left = if excluded.is_empty() { rows } else { &not_excluded };
        let is_reordered = record.received_at < self.received_at[batch.kind as usize];
        let taken = state.take(
            hasher,
            batch,
            left,
            &self.watermark,
            is_reordered,
            &mut self.fresh,
        );
        self.not_excluded = not_excluded;
        self.fresh
            .iter()
            .for_each(|&row| self.watermark.see(batch.ts[row as usize]));
        self.is_changed |= taken.new > 0;
        if taken.too_late > 0 {
            self.want(live.day, Reason::Late, at);
        }
        if taken.corrected > 0 || taken.reordered {
            self.want(live.day, Reason::Correction, at);
        }
        metrics::ignored("redelivery", taken.redelivered);
        self.pass_over("folded", taken.late, counting);
        self.pass_over("rebuild", taken.too_late + taken.corrected, counting);
    }

    /// Counts late events.
    fn pass_over(&mut self, outcome: &'static str, events: u64, counting: Counting) {
        if events > 0 && counting == Counting::First {
            self.late.1 += events;
            self.is_changed = true;
            metrics::late(outcome, events);
        }
    }

    /// Settles between ticks when much is waiting, and earlier than the window allows when too much is.
    fn bound_waiting(&mut self, log_time: TsMs) {
        let waiting = self.waiting();
        if waiting < self.settle_at.min(self.config.waiting_events_max) {
            return;
        }
        let mut before = self.watermark.advance(log_time);
        self.days.values_mut().for_each(|state| state.settle(before));
        while self.waiting() > self.config.waiting_events_max {
            let medians = self
                .days
                .values()
                .filter_map(|state| state.subjects().median_waiting_ts());
            let Some(median) = medians.min() else { break };
            before = before.max(median + 1);
            self.watermark.raise(before);
            self.days.values_mut().for_each(|state| state.settle(before));
            metrics::bound_reached("waiting_events_max", 1);
        }
        // A wide window may rightly hold more: look again when it has grown by half.
        self.settle_at = SETTLE_AT.max(self.waiting() * 3 / 2);
    }

    fn refresh_days(&mut self, settled_before: TsMs, now: TsMs, is_caught_up: bool) {
        let last = self.days.keys().next_back().copied();
        let mut carry = self.carry.clone();
        for (&day, state) in &mut self.days {
            // Until then somebody of that day may still count as present.
            let over = state.plan().cut.end + state.plan().layout.rules.session_gap_ms;
            let is_quiet = is_caught_up && now >= over + self.config.reorder_window.as_ms();
            if settled_before >= over || is_quiet {
                state.finish();
            }
            if let Some((of, carry)) = &carry
                && *of < day
            {
                state.set_carry(carry);
            }
            self.is_changed |= state.refresh(settled_before);
            state.stay_bounded(self.config.open_sessions_max);
            if last > Some(day) && carry.as_ref().is_none_or(|(of, _)| *of < day) {
                carry = Some((day, state.carry_out().clone()));
            }
        }
    }

    fn look_who_is_here(&mut self, now: TsMs) {
        let nobody = self.days.values().all(|state| state.subjects().is_empty());
        if nobody && self.presence.people() == 0 && !self.is_changed {
            return;
        }
        let layout = self.venue.layout_on(self.today());
        self.is_changed |= self.presence.count(layout, &self.days, now);
    }
}
