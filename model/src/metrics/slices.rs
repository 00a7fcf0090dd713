//! Slices: which part of a venue-day's events a bucket counts.
//!
//! A venue-day's rows are computed once for each slice that the layout in force allows: `all` always, `open` where
//! opening hours are declared, `staff` where staff tags are. All three come from one gathering ([`super::DayAccumulator`]).
//!
//! **`all`** is every event, staff included, at any time of the day.
//!
//! **`open`** is `all` clipped to the venue's opening hours on that local day: dated exceptions, stretches past midnight
//! and clock changes included. A stretch of opening is half-open, like a bucket. A bucket without a moment of opening has
//! no rows. What is measured in a bucket is measured within its opening hours:
//!
//! | ingredient | in `open` |
//! |---|---|
//! | `visits` | those whose enter lies within opening hours |
//! | `visitors`, `visitor_days`, `occupancy_max` | of those present at a moment of opening, at such moments |
//! | `dwell_ms` | visit time that overlaps opening hours, also of visits that began before |
//! | dwell lists, `engaged` | of the visits counted, each with its time within the day's opening hours |
//! | `occupancy_avg` | divides by the bucket's time of opening, which is its row's length |
//! | transitions | those whose second enter lies within opening hours |
//! | heat map | time after a position within opening hours, until the closing |
//! | lines, presence, receipts, readings | events within opening hours |
//! | counters | samples within opening hours; a cumulative one's increase since its previous sample, whenever that was |
//! | footfall | inward crossings of entrances within opening hours, else visits of `_venue` as above |
//! | `occupancy_est` | in minus out over the crossings within the day's opening hours so far |
//!
//! **`staff`** is what is left of `all` when only tracks count that the layout's staff tags name; it is not clipped.
//! Sessions are of tracks. A crossing counts when it names a staff track, and a line has a row only where crossings name
//! tracks at all: elsewhere nothing is known of staff. Counters, presence, receipts and readings name nobody, so they have
//! no such slice.
//!
//! The health of sensors is not sliced: what they should have sent does not depend on who was there.

use serde::{Deserialize, Serialize};

use super::Family;
use crate::layout::{Layout, open_ms};
use crate::time::{DayCut, TsMs};

/// Which part of the events a bucket covers (see the [module](self)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Slice {
    /// All of them.
    #[default]
    All = 0,
    /// Clipped to the venue's opening hours.
    Open = 1,
    /// Of staff only.
    Staff = 2,
}

impl Slice {
    /// Every slice, by its number.
    pub const ALL: [Slice; 3] = [Slice::All, Slice::Open, Slice::Staff];

    /// A slice read back from its number, by which stores know it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The slice as a word.
    pub fn word(self) -> &'static str {
        match self {
            Slice::All => "all",
            Slice::Open => "open",
            Slice::Staff => "staff",
        }
    }

    /// The slice of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slice| slice.word() == word)
    }

    /// Whether rows of a family can be in the slice.
    pub fn has(self, family: Family) -> bool {
        match self {
            Slice::All => true,
            Slice::Open => family != Family::Source,
            Slice::Staff => matches!(
                family,
                Family::Zone | Family::Line | Family::Transition | Family::Cell | Family::Traffic
            ),
        }
    }
}

/// Which slices a venue-day has besides `all`, as its layout declares them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DaySlices {
    /// When the venue was open on that day, in UTC: disjoint half-open intervals in order; none when it was closed all
    /// day. `None`: no opening hours are declared, so there is no slice `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Vec<(TsMs, TsMs)>>,
    /// Whether staff tags are declared; without any there is no slice `staff`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staff: bool,
}

impl DaySlices {
    /// The slices of a day under the layout in force.
    pub fn of(cut: &DayCut, layout: &Layout) -> Self {
        Self {
            open: layout
                .opening_hours
                .as_ref()
                .map(|hours| hours.open_intervals(cut)),
            staff: !layout.staff_tags.is_empty(),
        }
    }

    /// Whether the day has rows of a slice at all.
    pub fn has(&self, slice: Slice) -> bool {
        match slice {
            Slice::All => true,
            Slice::Open => self.open.is_some(),
            Slice::Staff => self.staff,
        }
    }

    /// How much of a bucket [start, end) a slice covers, in milliseconds.
    pub fn length_ms(&self, slice: Slice, start: TsMs, end: TsMs) -> i64 {
        match slice {
            Slice::All | Slice::Staff => end - start,
            Slice::Open => open_ms(self.open.as_deref().unwrap_or_default(), start, end),
        }
    }
}
