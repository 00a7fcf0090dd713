//! What a job has found out and done about a venue: carried from mark to mark and stored with each step, so that an attempt
//! that takes the job up says no less than one that went through.

use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use serde::{Deserialize, Serialize};

use crate::plan::{DayPlan, Totals};
use crate::sweep::DaySwept;

/// Sums of a job over the days that it has looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// What could go, by the plans.
    pub planned: Totals,
    /// Raw rows that are gone.
    pub raw_rows: u64,
    /// Raw rows that the days swept have still.
    pub rows_left: u64,
    /// Sessions that are gone.
    pub sessions: u64,
    /// Old generations that are gone.
    pub generations: u64,
    /// Days that are old enough and stay because their archive is in doubt.
    pub in_doubt: u64,
    /// Reasons for which something that was to go stayed.
    pub troubles: u64,
    /// The first of both, for people.
    pub first_trouble: Option<String>,
}

impl Tally {
    /// Adds a plan: its sums, and the days that it has or those of them that are kept.
    pub fn plan(&mut self, totals: &Totals, days: &[DayPlan]) {
        self.planned.merge(totals);
        for day in days.iter().filter(|day| day.doubts_the_archive()) {
            self.in_doubt += 1;
            let why = day.reasons().find_map(|reason| reason.doubt());
            let why = why.unwrap_or_default();
            self.first_trouble
                .get_or_insert_with(|| format!("{} {} stays: {why}", day.venue.venue, day.day));
        }
    }

    /// Adds what a sweep of a day did.
    pub fn swept(&mut self, venue: &VenueKey, day: LocalDay, swept: &DaySwept) {
        self.raw_rows += swept.raw_rows;
        self.rows_left += swept.rows_left;
        self.sessions += swept.sessions;
        self.generations += swept.generations;
        for why in &swept.stayed {
            self.trouble(venue, day, why);
        }
    }

    /// Adds a reason for which something that was to go stayed.
    pub fn trouble(&mut self, venue: &VenueKey, day: LocalDay, why: &str) {
        self.troubles += 1;
        self.first_trouble
            .get_or_insert_with(|| format!("{} {day}: {why}", venue.venue));
    }

    /// Adds the sums of another venue.
    pub fn merge(&mut self, other: &Tally) {
        self.planned.merge(&other.planned);
        self.raw_rows += other.raw_rows;
        self.rows_left += other.rows_left;
        self.sessions += other.sessions;
        self.generations += other.generations;
        self.in_doubt += other.in_doubt;
        self.troubles += other.troubles;
        if self.first_trouble.is_none() {
            self.first_trouble.clone_from(&other.first_trouble);
        }
    }
}
