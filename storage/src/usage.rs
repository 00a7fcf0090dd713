//! Usage: what each tenant, venue and part of the API was asked for and took in, per day.
//!
//! ```text
//! a request or message ─▶ UsageCounter (atomics in a fixed table) ─▶ UsageWriter, each minute and at the end
//!    ─▶ a document per tenant, month and venue ─▶ read(), summed over the processes that wrote it
//! ```
//!
//! - [`UsageCounter`] counts in memory: no lock, no allocation once a name is known, a fixed number of names.
//! - [`UsageWriter`] adds what was counted to the documents. Each process has an entry of its own in them, which holds its
//!   running total of the day and is written anew each time: two processes never lose each other's counts, and a write that
//!   is repeated counts nothing twice. Entries of days gone by are folded into one.
//! - [`read()`] sums up.
//!
//! A process that is killed loses what it has counted since it last wrote, a minute at most. Days are days of UTC.

mod counter;
mod month;
mod writer;

pub use counter::{Counted, UsageCounter};
pub use month::{DayUsage, UsageOfDay, read};
pub use writer::UsageWriter;

use dwell_model::ids::VenueId;
use serde::{Deserialize, Serialize};

/// Amounts of one module and source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests answered.
    pub requests: u64,
    /// Rows in the answers: buckets, sessions, entries.
    pub rows: u64,
    /// Events taken, redeliveries included.
    pub taken: u64,
    /// Events refused.
    pub refused: u64,
}

impl Amounts {
    /// A request with so many rows in its answer.
    pub fn request(rows: u64) -> Self {
        Self {
            requests: 1,
            rows,
            ..Self::default()
        }
    }

    /// Events of a message.
    pub fn events(taken: u64, refused: u64) -> Self {
        Self {
            taken,
            refused,
            ..Self::default()
        }
    }

    /// Whether there is nothing to count.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.rows += other.rows;
        self.taken += other.taken;
        self.refused += other.refused;
    }

    /// What has come since.
    pub(crate) fn since(&self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            rows: self.rows.saturating_sub(before.rows),
            taken: self.taken.saturating_sub(before.taken),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// As four numbers: documents hold thousands of them.
impl Serialize for Amounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.requests, self.rows, self.taken, self.refused].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [requests, rows, taken, refused] = <[u64; 4]>::deserialize(deserializer)?;
        Ok(Self {
            requests,
            rows,
            taken,
            refused,
        })
    }
}

/// The parts of the API that usage tells apart; everything else is `other`.
const MODULES: [&str; 27] = [
    "audit",
    "changes",
    "days",
    "definitions",
    "erasures",
    "events",
    "exclusions",
    "explain",
    "export",
    "heatmap",
    "imports",
    "jobs",
    "keys",
    "live",
    "metrics",
    "periods",
    "permits",
    "quarantine",
    "query",
    "retention",
    "schedules",
    "sessions",
    "transitions",
    "uploads",
    "usage",
    "venues",
    "closings",
];

/// The part of the API that a path belongs to: what follows `/v1`, or follows the venue.
pub fn module_of(path: &str) -> &'static str {
    let mut words = path.split('/').filter(|word| !word.is_empty()).skip(1);
    let word = match (words.next(), words.nth(1)) {
        (Some("venues"), Some(of_venue)) => of_venue,
        (Some(word), _) => word,
        (None, _) => "",
    };
    let known = MODULES.iter().find(|known| **known == word);
    known.copied().unwrap_or("other")
}

/// The venue that a path names, whether there is one or not.
pub fn venue_in(path: &str) -> Option<VenueId> {
    let of_venues = path.strip_prefix("/v1/venues/")?;
    VenueId::new(of_venues.split('/').next()?).ok()
}

#[cfg(test)]
mod tests;
