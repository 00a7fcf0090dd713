//! What a run did, day by day.

use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_storage::api::{Generation, GenerationChange};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::What;

/// Most days that a report lists; the counts go on. Failed and skipped days are kept before the others.
pub const LISTED_DAYS_MAX: usize = 2_000;

/// What a run did. Stored with its job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// Days of which a new generation was published.
    pub computed: u64,
    /// Closed days for which a generation was proposed.
    #[serde(default)]
    pub proposed: u64,
    /// Days whose input had not changed.
    pub unchanged: u64,
    /// Days written to the archive only.
    pub archived: u64,
    /// Days read back and found whole.
    pub verified: u64,
    /// Days left alone.
    pub skipped: u64,
    /// Days that failed.
    pub failed: u64,
    /// Events in the days computed, archived or verified.
    pub events: u64,
    /// How long the run took.
    pub duration_ms: i64,
    /// Somebody stopped it.
    pub cancelled: bool,
    /// Dirty days that are left, because they failed or are held; 0 when all is done.
    pub dirty_left: u64,
    /// The days, at most [`LISTED_DAYS_MAX`].
    pub days: Vec<DayReport>,
    /// Days that the list has no room for.
    pub days_unlisted: u64,
}

/// What became of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayReport {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// What was to be done.
    pub what: What,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was done, left alone, or failed; for people.
    pub reason: String,
    /// The generation that is published now, as far as the run knows.
    pub generation: Option<Generation>,
    /// Events that count.
    pub events: u64,
    /// Aggregate rows.
    pub rows: u64,
    /// Sessions.
    pub sessions: u64,
    /// Events that came after the generation before had been published.
    pub late_events: u64,
    /// Difference to the generation before.
    pub changed: Option<GenerationChange>,
    /// Whether trying again may help.
    pub retryable: bool,
    /// How long it took.
    pub duration_ms: i64,
}

/// What became of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A new generation is published.
    Computed,
    /// The day is closed: a new generation is proposed.
    Proposed,
    /// The input had not changed: the published generation includes everything.
    Unchanged,
    /// Written to the archive, or found in it, without computing.
    Archived,
    /// Read back and found whole.
    Verified,
    /// Left alone: it has not begun, or another worker holds it.
    Skipped,
    /// It failed.
    Failed,
}

impl Outcome {
    /// The outcome as a word.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Computed => "computed",
            Outcome::Proposed => "proposed",
            Outcome::Unchanged => "unchanged",
            Outcome::Archived => "archived",
            Outcome::Verified => "verified",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
        }
    }

    fn is_trouble(self) -> bool {
        matches!(self, Outcome::Skipped | Outcome::Failed)
    }
}

impl DayReport {
    /// A report without numbers.
    pub(crate) fn new(venue: &VenueKey, day: LocalDay, what: What, outcome: Outcome, reason: String) -> Self {
        Self {
            venue: venue.clone(),
            day,
            what,
            outcome,
            reason,
            generation: None,
            events: 0,
            rows: 0,
            sessions: 0,
            late_events: 0,
            changed: None,
            retryable: false,
            duration_ms: 0,
        }
    }
}

impl DayReport {
    /// The report of a day that could not be done. A day that another worker took is left to that one.
    pub(crate) fn of_failure(venue: &VenueKey, day: LocalDay, what: What, error: &Error) -> Self {
        let lost = matches!(error, Error::LeaseLost);
        let outcome = match error {
            Error::LeaseLost | Error::Cancelled => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        let mut report = Self::new(venue, day, what, outcome, error.to_string());
        report.retryable = lost || error.is_retryable();
        report
    }
}

impl RunReport {
    /// The days that failed, or that other workers held to the end, as far as they are listed.
    pub fn days_not_done(&self) -> impl Iterator<Item = (VenueId, LocalDay)> {
        let not_done = |day: &&DayReport| match day.outcome {
            Outcome::Failed => true,
            Outcome::Skipped => day.retryable,
            _ => false,
        };
        let days = self.days.iter().filter(not_done);
        days.map(|day| (day.venue.venue.clone(), day.day))
    }

    /// Adds a day. A later report on the same day replaces the earlier one, so that a day which was held and then
    /// computed counts once.
    pub(crate) fn add(&mut self, report: DayReport) {
        if let Some(place) = self
            .days
            .iter()
            .position(|day| day.venue == report.venue && day.day == report.day)
            && self.days[place].outcome.is_trouble()
        {
            let former = self.days.swap_remove(place);
            *self.count(former.outcome) -= 1;
        }
        *self.count(report.outcome) += 1;
        self.events += report.events;
        self.days.push(report);
        if self.days.len() > LISTED_DAYS_MAX {
            let plain = self
                .days
                .iter()
                .position(|day| !day.outcome.is_trouble())
                .unwrap_or(0);
            self.days.swap_remove(plain);
            self.days_unlisted += 1;
        }
    }

    /// Sorts the days and ends the report.
    pub(crate) fn finish(mut self, duration_ms: i64, cancelled: bool) -> Self {
        self.days
            .sort_by(|a, b| (&a.venue, a.day).cmp(&(&b.venue, b.day)));
        self.duration_ms = duration_ms;
        self.cancelled = cancelled;
        self
    }

    fn count(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Computed => &mut self.computed,
            Outcome::Proposed => &mut self.proposed,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Archived => &mut self.archived,
            Outcome::Verified => &mut self.verified,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed => &mut self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::TenantId;

    use super::*;

    fn report(day: LocalDay, outcome: Outcome) -> DayReport {
        let venue = VenueKey::new(TenantId::new("t").unwrap(), VenueId::new("v").unwrap());
        DayReport::new(&venue, day, What::Recompute, outcome, String::new())
    }

    #[test]
    fn a_day_that_was_held_and_then_computed_counts_once() {
        let day: LocalDay = "2026-03-01".parse().unwrap();
        let mut run = RunReport::default();
        run.add(report(day, Outcome::Skipped));
        run.add(report(day, Outcome::Computed));
        assert_eq!((run.skipped, run.computed, run.days.len()), (0, 1, 1));
    }

    #[test]
    fn what_failed_or_was_held_is_not_done_and_what_has_not_begun_is_left_alone() {
        let first: LocalDay = "2026-03-01".parse().unwrap();
        let mut run = RunReport::default();
        let outcomes = [
            Outcome::Computed,
            Outcome::Failed,
            Outcome::Unchanged,
            Outcome::Skipped,
            Outcome::Skipped,
        ];
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let mut day = report(first.plus(n as u64), outcome);
            day.retryable = n == 4;
            run.add(day);
        }
        let days: Vec<String> = run
            .days_not_done()
            .map(|(venue, day)| format!("{venue} {day}"))
            .collect();
        assert_eq!(days, ["v 2026-03-02", "v 2026-03-05"]);
    }

    #[test]
    fn a_long_run_lists_its_failures_first_and_counts_the_rest() {
        let first: LocalDay = "2020-01-01".parse().unwrap();
        let mut run = RunReport::default();
        run.add(report(first, Outcome::Failed));
        for day in 1..=LISTED_DAYS_MAX as u64 + 9 {
            run.add(report(first.plus(day), Outcome::Computed));
        }
        let run = run.finish(5, false);
        assert_eq!(run.days.len(), LISTED_DAYS_MAX);
        assert_eq!(run.days[0].outcome, Outcome::Failed);
        assert_eq!(
            (run.computed, run.failed, run.days_unlisted),
            (LISTED_DAYS_MAX as u64 + 9, 1, 10)
        );
    }
}
