//! Which slices the numbers of a day have. Pure.
//!
//! A generation says by itself how it was sliced, so that opening hours that were changed since do not turn what it has
//! not into zeros. The live view follows the layout in force.

use dwell_model::completeness::BucketState;
use dwell_model::layout::Venue;
use dwell_model::metrics::{DaySlices, Slice};
use dwell_model::time::{LocalDay, TsMs};

use super::sources::DaySource;

/// What a day has of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SliceOfDay {
    /// Its numbers, cut like this.
    Has(DaySlices),
    /// Nothing yet: nothing of the day has been computed, or it was before there were slices.
    Pending(DaySlices),
    /// Nothing: the layout declares no opening hours, or no staff tags.
    Undeclared(BucketState),
}

impl SliceOfDay {
    /// What the numbers of a day have of a slice.
    pub(crate) fn of(venue: &Venue, day: LocalDay, source: &DaySource, slice: Slice) -> Self {
        if slice == Slice::All {
            return match source.is_computed() {
                true => SliceOfDay::Has(DaySlices::default()),
                false => SliceOfDay::Pending(DaySlices::default()),
            };
        }
        let layout = venue.layout_on(day);
        let in_force = || DaySlices::of(&venue.calendar.cut(day), layout);
        let (slices, is_there) = match source {
            DaySource::Batch(info) => match &info.slices {
                Some(slices) => (slices.clone(), true),
                None => (in_force(), false),
            },
            DaySource::Live(live) => (in_force(), live.layout == layout.fingerprint()),
            DaySource::Silent => (in_force(), true),
            DaySource::Nothing => (in_force(), false),
        };
        match slice {
            Slice::Open if !slices.has(slice) => SliceOfDay::Undeclared(BucketState::NoOpeningHours),
            Slice::Staff if !slices.has(slice) => SliceOfDay::Undeclared(BucketState::NoStaffTags),
            _ if is_there => SliceOfDay::Has(slices),
            _ => SliceOfDay::Pending(slices),
        }
    }

    /// How much of a bucket the slice covers, in milliseconds.
    pub(crate) fn length_ms(&self, slice: Slice, start: TsMs, end: TsMs) -> i64 {
        match self {
            SliceOfDay::Has(slices) | SliceOfDay::Pending(slices) => slices.length_ms(slice, start, end),
            SliceOfDay::Undeclared(_) => 0,
        }
    }

    /// For people: what is there.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            SliceOfDay::Has(_) => "computed",
            SliceOfDay::Pending(_) => "pending",
            SliceOfDay::Undeclared(state) => state.word(),
        }
    }
}
