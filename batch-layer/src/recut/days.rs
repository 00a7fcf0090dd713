//! Which days of two cuts share events. Pure.

use std::collections::BTreeSet;
use std::ops::Range;

use dwell_model::time::{LocalDay, TsMs, VenueCalendar};

/// A venue's time under the cut that is published and the one that is wanted, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoCuts {
    /// The published cut.
    pub from: VenueCalendar,
    /// The wanted one.
    pub to: VenueCalendar,
    /// The time.
    pub now: TsMs,
}

/// What is made of a day of the wanted cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// All its events are in the archive: a final generation.
    Final,
    /// It has ended, and some of its events belong to a day of the published cut that has not, so that they are in raw
    /// alone: a provisional generation. The next run makes it final.
    Provisional,
    /// It has not ended: its part of the archive and no generation.
    Files,
}

impl TwoCuts {
    /// What is made of a day, as far as the cuts tell.
    pub fn make(&self, day: LocalDay) -> Make {
        let (_, end) = self.to.bounds(day);
        if self.now < end {
            Make::Files
        } else if !self.in_raw_alone(day).is_empty() {
            Make::Provisional
        } else {
            Make::Final
        }
    }

    /// The part of a day that belongs to a day of the published cut which has not ended: its events are in raw and not
    /// in the archive.
    pub fn in_raw_alone(&self, day: LocalDay) -> Range<TsMs> {
        let (start, end) = self.to.bounds(day);
        let (still_open, _) = self.from.bounds(self.from.day_of(self.now));
        start.max(still_open)..end
    }

    /// The days of the published cut that overlap a day of the wanted one, ascending.
    pub fn sources(&self, day: LocalDay) -> Vec<LocalDay> {
        overlapping(&self.to, day, &self.from)
    }

    /// The days of the wanted cut that overlap days of the published one, and days whose files or generations have to
    /// go since there is nothing left of them.
    pub fn days(&self, known: impl IntoIterator<Item = LocalDay>) -> BTreeSet<LocalDay> {
        let mut days = BTreeSet::new();
        for day in known {
            days.insert(day);
            days.extend(overlapping(&self.from, day, &self.to));
        }
        days
    }
}

/// The days of a cut that overlap a day of another, ascending.
fn overlapping(of: &VenueCalendar, day: LocalDay, others: &VenueCalendar) -> Vec<LocalDay> {
    let (start, end) = of.bounds(day);
    others.day_of(start).through(others.day_of(end - 1)).collect()
}

#[cfg(test)]
mod tests;
