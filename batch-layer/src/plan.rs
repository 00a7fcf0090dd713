//! Which days of a venue to compute, and why. Pure: the facts are read elsewhere.
//!
//! A day is *dirty* when something that its published generation was made of has changed since: a mark is missing from
//! or above the published ones, the layout in force, the metric definitions or the cut of days is another, the day has
//! closed since a provisional computation, the counters' samples carried in from the day before are others, or the
//! exclusions that have a part in it. A day of which there are events and no generation is dirty too.

use std::collections::BTreeMap;
use std::fmt;

use dwell_model::exclusion::{self, Exclusion};
use dwell_model::layout::{Layout, Venue};
use dwell_model::metrics::Carry;
use dwell_model::time::{LocalDay, SLOT_MS, TsMs, VenueCalendar};
use dwell_storage::api::{GenerationInfo, Marks, VenueDay};
use serde::{Deserialize, Serialize};

use crate::spec::RunSpec;

/// What is known of a venue at one moment.
#[derive(Debug)]
pub struct VenueFacts<'a> {
    /// The venue as the registry has it.
    pub venue: &'a Venue,
    /// Version of the metric definitions in force.
    pub definitions: u32,
    /// The time.
    pub now: TsMs,
    /// Marks by slot, ascending.
    pub slots: &'a [(i64, Marks)],
    /// Days that the archive holds; repetition is fine.
    pub archived: &'a [LocalDay],
    /// The venue's rows, ascending by day.
    pub days: &'a [VenueDay],
    /// The venue's exclusions.
    pub exclusions: &'a [Exclusion],
}

/// A day to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDay {
    /// The day.
    pub day: LocalDay,
    /// Why; empty when it was only asked for.
    pub causes: Vec<Cause>,
    /// Whether it is still open.
    pub open: bool,
}

/// Why a day is dirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There are events and no generation.
    NeverComputed,
    /// Events came after the published generation's were read.
    NewEvents,
    /// The published generation was computed while the day was open.
    DayClosed,
    /// The layout in force on the day is another.
    LayoutChanged,
    /// The metric definitions are others.
    DefinitionsChanged,
    /// The venue's time zone or day start is another.
    CutChanged,
    /// The counters' last samples before the day are others.
    CarryChanged,
    /// The exclusions that have a part in the day are others.
    ExclusionsChanged,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::NeverComputed => "first computation",
            Cause::NewEvents => "new events",
            Cause::DayClosed => "day closed",
            Cause::LayoutChanged => "layout changed",
            Cause::DefinitionsChanged => "metric definitions changed",
            Cause::CutChanged => "time zone or day start changed",
            Cause::CarryChanged => "counters carried in changed",
            Cause::ExclusionsChanged => "exclusions changed",
        })
    }
}

/// The days to compute, ascending: all dirty ones, or every day that the spec names of which there is anything. Days
/// that have not begun are left out, the open one unless the spec includes it.
pub fn days_to_compute(facts: &VenueFacts<'_>, spec: &RunSpec) -> Vec<PlannedDay> {
    let mut known: BTreeMap<LocalDay, Known<'_>> = BTreeMap::new();
    for (day, marks) in marks_by_day(&facts.venue.calendar, facts.slots) {
        known.entry(day).or_default().marks = marks;
    }
    for day in facts.archived {
        known.entry(*day).or_default();
    }
    for row in facts.days.iter().filter(|row| row.published.is_some()) {
        known.entry(row.day).or_default().published = row.published.as_ref();
    }
    let today = facts.venue.calendar.day_of(facts.now);
    let layouts = Fingerprints::of(facts.venue);
    let none = Carry::default();
    let mut carry = &none;
    let mut planned = Vec::new();
    for (&day, known) in known.range(..=today) {
        let open = day == today;
        let causes = causes(facts, &layouts, day, known, open, carry);
        if let Some(published) = known.published {
            carry = &published.carry;
        }
        let wanted = if spec.names_days() {
            spec.covers(day)
        } else {
            spec.force || !causes.is_empty()
        };
        if wanted && (spec.include_open || !open) {
            planned.push(PlannedDay { day, causes, open });
        }
    }
    planned
}

/// The marks of each day: those of the slots that it overlaps. Slots must ascend.
pub fn marks_by_day(calendar: &VenueCalendar, slots: &[(i64, Marks)]) -> Vec<(LocalDay, Marks)> {
    let mut days: Vec<(LocalDay, Marks)> = Vec::new();
    // Finding a day costs a walk through the zone's rules, so it is done once per day and not per slot.
    let mut bounds = (TsMs::MAX, TsMs::MIN);
    for (slot, marks) in slots {
        // Where the zone is off the full ten minutes, a slot's end may lie in another day than its start.
        let (start, end) = (slot * SLOT_MS, (slot + 1) * SLOT_MS);
        let mut instant = start;
        while instant < end {
            if !(bounds.0..bounds.1).contains(&instant) {
                let day = calendar.day_of(instant);
                bounds = calendar.bounds(day);
                days.push((day, Marks::default()));
            }
            if let Some((_, of_day)) = days.last_mut() {
                of_day.merge(marks);
            }
            instant = bounds.1;
        }
    }
    days
}

#[derive(Debug, Default)]
struct Known<'a> {
    marks: Marks,
    published: Option<&'a GenerationInfo>,
}

/// Each layout's fingerprint, worked out once and not once per day.
struct Fingerprints<'a> {
    venue: &'a Venue,
    prints: Vec<u64>,
}

impl<'a> Fingerprints<'a> {
    fn of(venue: &'a Venue) -> Self {
        Self {
            venue,
            prints: venue.layouts.iter().map(Layout::fingerprint).collect(),
        }
    }

    /// The fingerprint of the layout in force on a day.
    fn on(&self, day: LocalDay) -> u64 {
        let layout = self.venue.layout_on(day);
        let place = self
            .venue
            .layouts
            .iter()
            .position(|known| std::ptr::eq(known, layout));
        place.map_or_else(|| layout.fingerprint(), |place| self.prints[place])
    }
}

fn causes(
    facts: &VenueFacts<'_>,
    layouts: &Fingerprints<'_>,
    day: LocalDay,
    known: &Known<'_>,
    open: bool,
    carry: &Carry,
) -> Vec<Cause> {
    let Some(published) = known.published else {
        return vec![Cause::NeverComputed];
    };
    let checks = [
        (Cause::NewEvents, known.marks.exceed(&published.marks)),
        (Cause::DayClosed, published.provisional && !open),
        (Cause::LayoutChanged, published.layout != layouts.on(day)),
        (
            Cause::DefinitionsChanged,
            published.definitions != facts.definitions,
        ),
        (Cause::CutChanged, published.calendar != facts.venue.calendar),
        (Cause::CarryChanged, published.carry_in != *carry),
        (
            Cause::ExclusionsChanged,
            published.exclusions.fingerprint
                != exclusion::fingerprint(exclusion::bearing(facts.exclusions, day)),
        ),
    ];
    checks
        .into_iter()
        .filter_map(|(cause, holds)| holds.then_some(cause))
        .collect()
}

#[cfg(test)]
mod tests;
