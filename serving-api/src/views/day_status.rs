//! What there is to say about a venue-day as a whole: its state, and whether a run has work to do on it. Pure.

use dwell_model::exclusion::{self, Exclusion};
use dwell_model::layout::Venue;
use dwell_model::time::{DayCut, SLOT_MS, TsMs, slot_of};
use dwell_storage::api::{GenerationInfo, Marks};

use super::sources::DaySource;

/// The state of a venue-day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DayState {
    /// A generation of the closed day answers.
    Published,
    /// A generation computed while the day was open answers.
    Provisional,
    /// The live view answers.
    Live,
    /// There are events, and nothing computed of them yet.
    Pending,
    /// Nothing is known of it.
    Empty,
    /// It has not begun.
    Future,
}

impl DayState {
    /// The state as a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            DayState::Published => "published",
            DayState::Provisional => "provisional",
            DayState::Live => "live",
            DayState::Pending => "pending",
            DayState::Empty => "empty",
            DayState::Future => "future",
        }
    }

    /// The state of a day by what answers for it and what has touched its slots.
    pub(crate) fn of(source: &DaySource, marks: &Marks, cut: &DayCut, now: TsMs) -> Self {
        match source {
            DaySource::Batch(info) if info.provisional => DayState::Provisional,
            DaySource::Batch(_) => DayState::Published,
            DaySource::Live(_) => DayState::Live,
            DaySource::Nothing if cut.start > now => DayState::Future,
            DaySource::Silent => DayState::Empty,
            DaySource::Nothing if marks.0.is_empty() => DayState::Empty,
            DaySource::Nothing => DayState::Pending,
        }
    }
}

/// Why the next run would compute the day again; empty when it would not.
pub(crate) fn dirty_because(
    published: Option<&GenerationInfo>,
    marks: &Marks,
    venue: &Venue,
    cut: &DayCut,
    definitions: u32,
    exclusions: &[Exclusion],
    now: TsMs,
) -> Vec<&'static str> {
    let Some(info) = published else {
        let waits = !marks.0.is_empty() && cut.end <= now;
        return if waits {
            vec!["not computed yet"]
        } else {
            Vec::new()
        };
    };
    let reasons = [
        (marks.exceed(&info.marks), "events came after it was computed"),
        (
            info.provisional && cut.end <= now,
            "it was computed while the day was open",
        ),
        (
            venue.layout_on(cut.day).fingerprint() != info.layout,
            "the layout has changed",
        ),
        (
            venue.calendar != info.calendar,
            "the time zone or day start has changed",
        ),
        (
            definitions != info.definitions,
            "the metric definitions have changed",
        ),
        (
            exclusion::fingerprint(exclusion::bearing(exclusions, cut.day)) != info.exclusions.fingerprint,
            "other exclusions are in force",
        ),
    ];
    reasons
        .into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, reason)| reason)
        .collect()
}

/// The marks of a day, from those of its venue's slots by rising number.
pub(crate) fn marks_of_day(slots: &[(i64, Marks)], cut: &DayCut) -> Marks {
    let mut marks = Marks::default();
    let first = slots.partition_point(|(slot, _)| (slot + 1) * SLOT_MS <= cut.start);
    let in_day = slots[first..]
        .iter()
        .take_while(|(slot, _)| *slot <= slot_of(cut.end - 1));
    in_day.for_each(|(_, slot_marks)| marks.merge(slot_marks));
    marks
}

#[cfg(test)]
mod tests {
    use dwell_model::time::VenueCalendar;
    use dwell_storage::api::MarkSource;

    use super::*;

    #[test]
    fn a_day_has_the_marks_of_the_slots_that_it_overlaps() {
        // Kathmandu is 5:45 ahead: its days begin in the middle of a slot, which belongs to both.
        let calendar = VenueCalendar::from_names("Asia/Kathmandu", 0).unwrap();
        let cut = calendar.cut("2026-03-01".parse().unwrap());
        let source = MarkSource::log(1, 0);
        let marked = |position| {
            let mut marks = Marks::default();
            marks.raise(&source, position);
            marks
        };
        let (first, last) = (slot_of(cut.start), slot_of(cut.end - 1));
        assert_eq!(last - first, 144, "145 slots, the first and last by half");
        let slots = [
            (first - 1, marked(9)),
            (first, marked(1)),
            (last, marked(3)),
            (last + 1, marked(8)),
        ];
        assert_eq!(marks_of_day(&slots, &cut), marked(3));
        assert_eq!(marks_of_day(&slots[..2], &cut), marked(1));
        assert_eq!(marks_of_day(&[], &cut), Marks::default());
    }
}
