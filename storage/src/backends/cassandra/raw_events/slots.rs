//! Ten-minute slots as the tables name them: a UTC date, and the slot's number in it.

use std::ops::{Range, RangeInclusive};

use dwell_model::time::{DAY_MS, MAX_TS, MIN_TS, SLOT_MS, TsMs, slot_of};
use scylla::value::CqlDate;

use super::super::values::date_of_epoch_days;

/// Slots of a UTC date.
pub(super) const SLOTS_PER_DATE: i64 = DAY_MS / SLOT_MS;

/// The date of a slot, in days since 1970-01-01, and its number in it. For slots of the times that events may have.
pub(super) fn stored_slot(slot: i64) -> (i32, i16) {
    (
        slot.div_euclid(SLOTS_PER_DATE) as i32,
        slot.rem_euclid(SLOTS_PER_DATE) as i16,
    )
}

/// The slot of a date and a number in it.
pub(super) fn slot_at(epoch_days: i32, number: i16) -> i64 {
    i64::from(epoch_days) * SLOTS_PER_DATE + i64::from(number)
}

/// Whether a slot lies within the times that events may have.
pub(super) fn is_slot(slot: i64) -> bool {
    (slot_of(MIN_TS)..=slot_of(MAX_TS - 1)).contains(&slot)
}

/// A date as the tables take it.
pub(super) fn date(epoch_days: i32) -> CqlDate {
    date_of_epoch_days(epoch_days)
}

/// What a range touches: never empty, and within the times that events may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: TsMs,
    end: TsMs,
}

impl Span {
    /// `None` when there can be nothing in the range.
    pub(super) fn of(range: &Range<TsMs>) -> Option<Self> {
        let (start, end) = (range.start.max(MIN_TS), range.end.min(MAX_TS));
        (start < end).then_some(Self { start, end })
    }

    /// The range of event times.
    pub(super) fn ts(self) -> Range<TsMs> {
        self.start..self.end
    }

    /// The slots that overlap it.
    pub(super) fn slots(self) -> RangeInclusive<i64> {
        slot_of(self.start)..=slot_of(self.end - 1)
    }

    /// The dates that overlap it, in days since 1970-01-01.
    pub(super) fn dates(self) -> RangeInclusive<i32> {
        let slots = self.slots();
        stored_slot(*slots.start()).0..=stored_slot(*slots.end()).0
    }

    /// The slots of a date that overlap it, by their numbers.
    pub(super) fn slots_of(self, epoch_days: i32) -> RangeInclusive<i16> {
        let slots = self.slots();
        let first = (*slots.start()).max(slot_at(epoch_days, 0));
        let last = (*slots.end()).min(slot_at(epoch_days, SLOTS_PER_DATE as i16 - 1));
        stored_slot(first).1..=stored_slot(last).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-29, 20,541 days after 1970-01-01.
    const DAY: i32 = 20_541;
    const DAY_START: TsMs = DAY as i64 * DAY_MS;

    #[test]
    fn a_slot_is_a_date_and_a_number_in_it() {
        for (ts, expected) in [
            (0, (0, 0)),
            (DAY_START, (DAY, 0)),
            (DAY_START + SLOT_MS - 1, (DAY, 0)),
            (DAY_START + SLOT_MS, (DAY, 1)),
            (DAY_START - 1, (DAY - 1, 143)),
        ] {
            let slot = slot_of(ts);
            assert_eq!(stored_slot(slot), expected);
            assert_eq!(slot_at(expected.0, expected.1), slot);
        }
        assert!(is_slot(0) && is_slot(slot_of(MAX_TS - 1)));
        assert!(!is_slot(-1) && !is_slot(slot_of(MAX_TS)) && !is_slot(i64::MAX));
    }

    #[test]
    fn a_span_touches_the_slots_that_it_overlaps() {
        let span = Span::of(&(DAY_START - 1..DAY_START + SLOT_MS)).unwrap();
        assert_eq!(
            (span.dates(), span.slots_of(DAY - 1), span.slots_of(DAY)),
            (DAY - 1..=DAY, 143..=143, 0..=0)
        );
        let all = Span::of(&(i64::MIN..i64::MAX)).unwrap();
        assert_eq!(
            (all.ts(), *all.dates().start(), all.slots_of(DAY)),
            (MIN_TS..MAX_TS, 0, 0..=143)
        );
        for (start, end) in [(5, 5), (6, 5), (-10, 0), (MAX_TS, MAX_TS + 9)] {
            assert!(Span::of(&(start..end)).is_none(), "{start}..{end}");
        }
    }
}
