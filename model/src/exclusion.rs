//! Exclusions: deliveries that an operator took out of the numbers (`revert`), until they are brought back (`undo`).
//!
//! An exclusion says which deliveries of a venue it [covers](Exclusion::covers): by sensor, by receipt, by event time,
//! or by several of them together. Nothing that is kept changes by it: whoever computes drops the covered deliveries
//! before the winner rule ([`event::resolve`](crate::event::resolve)) decides, so that a payload which a wrong one had
//! covered counts again, and after an undo the numbers are what they were.
//!
//! - [`Exclusion`]: one of them, as it is stored. It is never deleted, only ended.
//! - [`DayExclusions`]: those that may bear on one venue-day, and [`BatchExclusions`]: the same for the names of one
//!   batch, which is what the hot paths ask, row by row. Where nothing applies there is nothing to ask.

mod day_set;

pub use day_set::DaySet;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::event::{Delivery, EventBatch, StringId};
use crate::ids::{Receipt, VenueId};
use crate::time::{DAY_MS, LocalDay, TsMs};

/// No event is accepted whose time lies further ahead of its receipt. Ingest's own limits are minutes to an hour.
pub const AHEAD_MS_MAX: i64 = 2 * DAY_MS;

/// Which deliveries an exclusion covers: those that fulfil everything that is said, and it must say something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Events of this sensor.
    pub sensor: Option<String>,
    /// What came with this receipt.
    pub receipt: Option<Receipt>,
    /// Events from this time on.
    pub from: Option<TsMs>,
    /// Events before this time.
    pub to: Option<TsMs>,
}

/// An exclusion as it is stored. Fields may be added with a default, none changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// Id of the job that made it.
    pub id: String,
    /// Whose deliveries.
    pub venue: VenueId,
    /// Which of them.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub made_by: String,
    /// When it was asked for. Without a receipt it covers what was received before, and nothing later.
    pub made_at: TsMs,
    /// Its end, if it was undone.
    pub ended: Option<Ended>,
    /// Days with a delivery that it covers, as far as they were found: those that it has a part in.
    #[serde(default)]
    pub days: DaySet,
    /// Whether all that was received before it was made has been looked through for such days.
    #[serde(default)]
    pub is_searched: bool,
}

/// The end of an exclusion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: TsMs,
    /// The job that ended it.
    pub job: String,
    /// Who asked for it.
    pub by: String,
    /// Why, if they said.
    pub reason: Option<String>,
}

impl Scope {
    /// Whether nothing is said, which would mean everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether its window of event time holds no instant.
    pub fn is_turned_round(&self) -> bool {
        matches!((self.from, self.to), (Some(from), Some(to)) if to <= from)
    }

    fn window(&self) -> Range<TsMs> {
        self.from.unwrap_or(TsMs::MIN)..self.to.unwrap_or(TsMs::MAX)
    }
}

impl Exclusion {
    /// Whether it has not been undone.
    pub fn is_in_force(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether it covers a delivery of its venue, while it is in force.
    ///
    /// A receipt is covered whole, whenever it is delivered. Without one only what was received before the exclusion
    /// was made is covered: good data sent afterwards counts.
    pub fn covers(&self, sensor: &str, ts: TsMs, delivery: &Delivery) -> bool {
        self.scope.sensor.as_ref().is_none_or(|wanted| wanted == sensor)
            && self.scope.receipt.is_none_or(|wanted| wanted == delivery.receipt)
            && self.scope.window().contains(&ts)
            && delivery.received_at < self.received_before()
    }

    /// Whether it can cover a delivery of an event in a range of event times, in force or not.
    pub fn may_bear_on(&self, range: &Range<TsMs>) -> bool {
        let window = self.scope.window();
        window.start < range.end
            && range.start < window.end
            && range.start < self.received_before().saturating_add(AHEAD_MS_MAX)
    }

    /// Whether it is in force and was found to have a part in a day.
    pub fn bears_on(&self, day: LocalDay) -> bool {
        self.is_in_force() && self.days.contains(day)
    }

    /// The time before which a delivery must have been received to be covered.
    fn received_before(&self) -> TsMs {
        match self.scope.receipt {
            Some(_) => TsMs::MAX,
            None => self.made_at,
        }
    }
}

/// Those of a venue's exclusions that are in force and were found to have a part in a day: its input, with its events.
pub fn bearing(exclusions: &[Exclusion], day: LocalDay) -> impl Iterator<Item = &Exclusion> {
    exclusions.iter().filter(move |exclusion| exclusion.bears_on(day))
}

/// A number that stands for a set of exclusions: equal for the same ones in any order, 0 for none.
pub fn fingerprint<'a>(exclusions: impl IntoIterator<Item = &'a Exclusion>) -> u64 {
    let mut said: Vec<_> = exclusions
        .into_iter()
        .map(|exclusion| (&exclusion.id, &exclusion.scope, exclusion.made_at))
        .collect();
    if said.is_empty() {
        return 0;
    }
    said.sort_by_key(|(id, _, _)| *id);
    // Plain data without maps: serialising it cannot fail, and an empty text would only cost a recompute.
    let bytes = postcard::to_stdvec(&said).unwrap_or_default();
    xxhash_rust::xxh3::xxh3_64(&bytes).max(1)
}

/// The exclusions in force that may bear on a stretch of event time, a venue-day as a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DayExclusions {
    rules: Vec<Exclusion>,
    fingerprint: u64,
}

impl DayExclusions {
    /// Of a venue's exclusions those that apply.
    pub fn of<'a>(venues: impl IntoIterator<Item = &'a Exclusion>, range: &Range<TsMs>) -> Self {
        let applies = |exclusion: &&Exclusion| exclusion.is_in_force() && exclusion.may_bear_on(range);
        Self::exactly(venues.into_iter().filter(applies))
    }

    /// Just these, in force or not: those that something was computed with, say.
    pub fn exactly<'a>(exclusions: impl IntoIterator<Item = &'a Exclusion>) -> Self {
        let rules: Vec<Exclusion> = exclusions.into_iter().cloned().collect();
        Self {
            fingerprint: fingerprint(&rules),
            rules,
        }
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The exclusions.
    pub fn rules(&self) -> &[Exclusion] {
        &self.rules
    }

    /// [`fingerprint`] of them.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The same for the names of a batch. A dictionary that grows needs a new one.
    pub fn on(&self, events: &EventBatch) -> BatchExclusions {
        let rule = |(place, exclusion): (usize, &Exclusion)| {
            let sensor = match &exclusion.scope.sensor {
                None => None,
                // A sensor that the batch does not know is not in it.
                Some(name) => Some(events.strings.find(name)?),
            };
            Some(BatchRule {
                place,
                sensor,
                receipt: exclusion.scope.receipt,
                window: exclusion.scope.window(),
                received_before: exclusion.received_before(),
            })
        };
        BatchExclusions {
            rules: self.rules.iter().enumerate().filter_map(rule).collect(),
        }
    }
}

/// [`DayExclusions`] with the names of one batch looked up.
#[derive(Debug, Clone, Default)]
pub struct BatchExclusions {
    rules: Vec<BatchRule>,
}

#[derive(Debug, Clone)]
struct BatchRule {
    /// Its place in [`DayExclusions::rules`].
    place: usize,
    sensor: Option<StringId>,
    receipt: Option<Receipt>,
    window: Range<TsMs>,
    received_before: TsMs,
}

impl BatchExclusions {
    /// Whether no row of the batch can be covered.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a delivery of a row is covered.
    pub fn covers(&self, events: &EventBatch, row: usize, delivery: &Delivery) -> bool {
        self.rules.iter().any(|rule| rule.covers(events, row, delivery))
    }

    /// All that cover a delivery of a row, by their places in [`DayExclusions::rules`].
    pub fn covering<'a>(
        &'a self,
        events: &'a EventBatch,
        row: usize,
        delivery: &'a Delivery,
    ) -> impl Iterator<Item = usize> + 'a {
        let covering = self
            .rules
            .iter()
            .filter(move |rule| rule.covers(events, row, delivery));
        covering.map(|rule| rule.place)
    }
}

impl BatchRule {
    fn covers(&self, events: &EventBatch, row: usize, delivery: &Delivery) -> bool {
        self.sensor.is_none_or(|sensor| sensor == events.sensor[row])
            && self.receipt.is_none_or(|receipt| receipt == delivery.receipt)
            && self.window.contains(&events.ts[row])
            && delivery.received_at < self.received_before
    }
}

#[cfg(test)]
mod tests;
