//! A whole run: from a specification to a report, until nothing is left to do.
//!
//! Days are planned, worked on, and planned again: a day's recompute may change what the next one starts from, events
//! may have come in the meantime, and days that another worker held may be done or free by now. The rounds are bounded;
//! what is left then is in the report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::JobProgress;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::plan::PlannedDay;
use crate::ready::wait_for_raw_writer;
use crate::report::{DayReport, Outcome, RunReport};
use crate::run::DayRequest;
use crate::spec::{RunSpec, What};

/// Most times that a run plans anew because days became dirty while it worked.
const ROUNDS_MAX: u32 = 16;
/// Most tries of a day that fails in a way which may pass.
const TRIES_MAX: u32 = 3;
/// How long a run waits before it tries again what failed or was held.
const PAUSE: Duration = Duration::from_millis(500);
/// Days looked ahead for the one that starts from a changed day.
const LOOK_AHEAD_DAYS: u64 = 31;

/// Is told how far a run has come. Called from the run itself: it should return at once.
pub type Progress<'a> = &'a (dyn Fn(JobProgress) + Send + Sync);

impl BatchLayer {
    /// Does what a specification asks for and reports on it. Waits first until the raw writer has passed the log's end
    /// as of now. An error means that nothing could be planned; days that fail are in the report.
    pub async fn run_spec(
        &self,
        tenant: &TenantId,
        spec: &RunSpec,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<RunReport> {
        spec.validate()?;
        let stopwatch = Stopwatch::start();
        let venues = self.venues_of(tenant, &spec.venues).await?;
        for venue in &venues {
            self.settle_feed(venue).await;
        }
        let tally = Tally::new(progress);
        let outcome = match spec.what {
            What::Verify => self.verify_all(&venues, spec, &tally, cancel).await,
            What::Archive | What::Recompute => match wait_for_raw_writer(self, &venues, cancel).await {
                Ok(()) => self.work_until_clean(&venues, spec, &tally, cancel).await,
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(()) | Err(Error::Cancelled) => {}
            Err(error) => return Err(error),
        }
        let duration_ms = i64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(i64::MAX);
        Ok(tally.into_report().finish(duration_ms, cancel.is_cancelled()))
    }

    async fn work_until_clean(
        &self,
        venues: &[VenueKey],
        spec: &RunSpec,
        tally: &Tally<'_>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let started = self.clock().monotonic();
        let (mut round, mut productive_rounds) = (0, 0);
        loop {
            let mut work = Vec::new();
            for venue in venues {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let days = self.plan_round(venue, spec, round, tally).await?;
                if !days.is_empty() {
                    work.push((venue, days));
                }
            }
            tally.forget_questions_but(&work);
            let waited = self.clock().monotonic().saturating_sub(started);
            let only_held = tally.only_held_left(&work);
            if work.is_empty()
                || productive_rounds == ROUNDS_MAX
                || (only_held && waited >= self.config().held_wait.as_duration())
            {
                tally.left(work.iter().map(|(_, days)| days.len()).sum());
                return Ok(());
            }
            work.iter().for_each(|(_, days)| tally.planned(days.len()));
            futures::stream::iter(work)
                .for_each_concurrent(self.config().workers, |(venue, days)| {
                    self.work_on_venue(venue, days, spec, tally, cancel)
                })
                .await;
            round += 1;
            let Pace { productive, pause } = tally.take_pace();
            productive_rounds += u32::from(productive);
            if pause {
                tokio::select! {
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    () = self.clock().sleep(PAUSE) => {}
                }
            }
        }
    }

    /// The days of a venue for a round: at first what the spec asks for, then what is (still) dirty, and what failed
    /// or was held before.
    async fn plan_round(
        &self,
        venue: &VenueKey,
        spec: &RunSpec,
        round: u32,
        tally: &Tally<'_>,
    ) -> Result<Vec<PlannedDay>> {
        let mut days = self.plan_venue(venue, spec).await?;
        if round > 0 {
            // Archiving alone makes no day clean, so being dirty is no reason to archive again.
            let is_dirty = |day: &PlannedDay| spec.what != What::Archive && !day.causes.is_empty();
            days.retain(|day| is_dirty(day) || tally.is_open_question(venue, day.day));
        }
        days.retain(|day| tally.claim(venue, day));
        Ok(days)
    }

    /// Works on days of one venue in order, group by group, and on those that a changed carry makes dirty.
    async fn work_on_venue(
        &self,
        venue: &VenueKey,
        days: Vec<PlannedDay>,
        spec: &RunSpec,
        tally: &Tally<'_>,
        cancel: &CancellationToken,
    ) {
        let mut queue: BTreeSet<LocalDay> = days.iter().map(|day| day.day).collect();
        while !queue.is_empty() && !cancel.is_cancelled() {
            let group: Vec<LocalDay> = queue.iter().copied().take(self.config().group_days).collect();
            let requests = group.iter().map(|&day| {
                queue.remove(&day);
                DayRequest {
                    day,
                    archive_only: spec.what == What::Archive,
                    force: spec.force,
                    lagging: false,
                    reason: spec.reason.clone(),
                }
            });
            let requests: Vec<DayRequest> = requests.collect();
            tally.doing(venue, &group);
            for report in self.run_group(venue, requests, cancel).await {
                let (day, computed) = (report.day, report.outcome == Outcome::Computed);
                tally.add(report);
                if !computed {
                    continue;
                }
                match self.day_that_starts_from(venue, day).await {
                    Ok(Some(next)) if !group.contains(&next) => {
                        if queue.insert(next) {
                            tally.planned(1);
                        }
                    }
                    Ok(_) => {}
                    // The next round's plan finds it as well.
                    Err(error) => {
                        tracing::warn!(%venue, %day, %error, "days after a changed one not looked up")
                    }
                }
            }
        }
    }

    /// The next computed day, if its counters started from other samples than `day` hands on now.
    pub(crate) async fn day_that_starts_from(
        &self,
        venue: &VenueKey,
        day: LocalDay,
    ) -> Result<Option<LocalDay>> {
        let rows = self
            .stores()
            .venue_days
            .list(venue, day, day.plus(LOOK_AHEAD_DAYS))
            .await;
        let mut rows = rows.doing("read the days after")?.into_iter();
        let Some(changed) = rows
            .next()
            .filter(|row| row.day == day)
            .and_then(|row| row.published)
        else {
            return Ok(None);
        };
        let next = rows.find_map(|row| row.published.map(|info| (row.day, info)));
        Ok(next
            .filter(|(_, info)| info.carry_in != changed.carry)
            .map(|(day, _)| day))
    }

    async fn verify_all(
        &self,
        venues: &[VenueKey],
        spec: &RunSpec,
        tally: &Tally<'_>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        // All days of which there is anything, dirty or not; an open day has no final generation yet.
        let mut every = RunSpec {
            include_open: false,
            ..spec.clone()
        };
        every.force = true;
        let mut work = Vec::new();
        for venue in venues {
            let days = self.plan_venue(venue, &every).await?;
            tally.planned(days.len());
            work.extend(days.into_iter().map(|day| (venue, day.day)));
        }
        futures::stream::iter(work)
            .for_each_concurrent(self.config().workers, |(venue, day)| async move {
                if !cancel.is_cancelled() {
                    tally.doing(venue, &[day]);
                    tally.add(self.verify_day(venue, day).await);
                }
            })
            .await;
        Ok(())
    }
}

/// What a run has done so far; shared by the venues in work.
struct Tally<'a> {
    state: Mutex<State>,
    progress: Progress<'a>,
}

#[derive(Default)]
struct State {
    report: RunReport,
    progress: JobProgress,
    /// The last outcome of each day that may need another try, with the number of tries.
    questions: BTreeMap<(VenueKey, LocalDay), (Outcome, u32)>,
    /// Days that this run will not touch again: open days, days that failed for good.
    settled: BTreeSet<(VenueKey, LocalDay)>,
    left: u64,
    pace: Pace,
}

/// What the last round says about the next one.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// It did something: days may have become dirty by it, or while it worked.
    productive: bool,
    /// Something failed or was held: better after a while.
    pause: bool,
}

impl<'a> Tally<'a> {
    fn new(progress: Progress<'a>) -> Self {
        Self {
            state: Mutex::default(),
            progress,
        }
    }

    fn planned(&self, days: usize) {
        self.update(|state| state.progress.total += days as u64);
    }

    fn doing(&self, venue: &VenueKey, days: &[LocalDay]) {
        self.update(|state| {
            state.progress.doing = match days {
                [day] => format!("{} {day}", venue.venue),
                [first, .., last] => format!("{} {first} to {last}", venue.venue),
                [] => String::new(),
            };
        });
    }

    fn add(&self, report: DayReport) {
        self.update(|state| {
            state.progress.done += 1;
            let key = (report.venue.clone(), report.day);
            let tries = state.questions.remove(&key).map_or(0, |(_, tries)| tries) + 1;
            match report.outcome {
                Outcome::Failed if report.retryable && tries < TRIES_MAX => {
                    state.questions.insert(key, (Outcome::Failed, tries));
                    state.pace.pause = true;
                }
                Outcome::Skipped if report.retryable => {
                    state.questions.insert(key, (Outcome::Skipped, 0));
                    state.pace.pause = true;
                }
                Outcome::Failed | Outcome::Skipped => {
                    state.settled.insert(key);
                }
                _ => state.pace.productive = true,
            }
            state.report.add(report);
        });
    }

    /// Whether the run should work on a day: not when it is done with it. An open day is computed once, since it goes
    /// on getting events.
    fn claim(&self, venue: &VenueKey, day: &PlannedDay) -> bool {
        let mut state = self.lock();
        let key = (venue.clone(), day.day);
        if state.settled.contains(&key) && !state.questions.contains_key(&key) {
            return false;
        }
        if day.open {
            state.settled.insert(key);
        }
        true
    }

    fn is_open_question(&self, venue: &VenueKey, day: LocalDay) -> bool {
        self.lock().questions.contains_key(&(venue.clone(), day))
    }

    /// Questions about days that are no longer planned are answered: another worker has done them.
    fn forget_questions_but(&self, work: &[(&VenueKey, Vec<PlannedDay>)]) {
        let mut state = self.lock();
        if !state.questions.is_empty() {
            let planned: BTreeSet<(VenueKey, LocalDay)> = work
                .iter()
                .flat_map(|(venue, days)| days.iter().map(|day| ((*venue).clone(), day.day)))
                .collect();
            state.questions.retain(|key, _| planned.contains(key));
        }
    }

    /// Whether there is nothing to do but to wait for other workers.
    fn only_held_left(&self, work: &[(&VenueKey, Vec<PlannedDay>)]) -> bool {
        let state = self.lock();
        let held = |venue: &VenueKey, day: LocalDay| {
            let question = state.questions.get(&(venue.clone(), day));
            question.is_some_and(|(outcome, _)| *outcome == Outcome::Skipped)
        };
        work.iter()
            .all(|(venue, days)| days.iter().all(|day| held(venue, day.day)))
    }

    fn left(&self, days: usize) {
        self.update(|state| state.left = days as u64);
    }

    fn take_pace(&self) -> Pace {
        std::mem::take(&mut self.lock().pace)
    }

    fn into_report(self) -> RunReport {
        let State { mut report, left, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.dirty_left = left + report.failed;
        report
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let progress = {
            let mut state = self.lock();
            change(&mut state);
            state.progress.clone()
        };
        (self.progress)(progress);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
