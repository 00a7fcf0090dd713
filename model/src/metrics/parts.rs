//! A venue-day's hours, each in an open and a closed part where opening hours are declared.
//!
//! What is gathered per part costs an event no more than what is gathered per hour; `all` is then both parts of an hour,
//! `open` the open one.

use std::ops::Range;

use super::Slice;
use crate::time::{DayCut, TsMs};

/// A half-open interval of time.
pub(super) type Interval = (TsMs, TsMs);

/// The parts of a day's hours. Part `h` is the hour `h`, or what of it lies outside of opening hours where these are
/// declared; part `hours + h` is then the rest of it.
#[derive(Debug, Clone)]
pub(super) struct DayParts {
    hours: usize,
    open: Option<Vec<Interval>>,
}

impl DayParts {
    pub(super) fn new(cut: &DayCut, open: Option<Vec<Interval>>) -> Self {
        Self {
            hours: cut.hours.len(),
            open,
        }
    }

    /// When the venue is open, where that is declared.
    pub(super) fn open(&self) -> Option<&[Interval]> {
        self.open.as_deref()
    }

    /// Number of parts.
    pub(super) fn len(&self) -> usize {
        match self.open {
            Some(_) => 2 * self.hours,
            None => self.hours,
        }
    }

    /// The hour of a part.
    pub(super) fn hour_of(&self, part: usize) -> usize {
        part % self.hours.max(1)
    }

    /// Whether a part is one of a slice's.
    pub(super) fn is_in(&self, part: usize, slice: Slice) -> bool {
        slice != Slice::Open || part >= self.hours
    }

    /// The closed part of the hour of a part.
    pub(super) fn closed_twin(&self, part: usize) -> usize {
        self.hour_of(part)
    }

    /// The parts of some hours that belong to a slice.
    pub(super) fn of(&self, slice: Slice, hours: Range<usize>) -> impl Iterator<Item = usize> + Clone {
        let open = match self.open {
            Some(_) => hours.start + self.hours..hours.end + self.hours,
            None => 0..0,
        };
        let closed = match slice {
            Slice::Open => 0..0,
            Slice::All | Slice::Staff => hours,
        };
        closed.chain(open)
    }

    /// The part that an instant lies in; instants outside of the day are clamped to its first or last hour.
    pub(super) fn part_of(&self, cut: &DayCut, ts: TsMs) -> usize {
        CurrentPart::default().index_of(cut, self, ts)
    }
}

/// The part of the last instant asked for: most instants lie in the same one as the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CurrentPart {
    start: TsMs,
    end: TsMs,
    index: usize,
    closing: TsMs,
}

impl CurrentPart {
    /// The part that an instant lies in.
    #[inline]
    pub(super) fn index_of(&mut self, cut: &DayCut, parts: &DayParts, ts: TsMs) -> usize {
        if !(self.start..self.end).contains(&ts) {
            self.move_to(cut, parts, ts);
        }
        self.index
    }

    /// When the venue closes, of an instant while it is open; the end of time for others.
    #[inline]
    pub(super) fn closing(&self) -> TsMs {
        self.closing
    }

    fn move_to(&mut self, cut: &DayCut, parts: &DayParts, ts: TsMs) {
        let index = cut.hour_index(ts);
        let Some(hour) = cut.hours.get(index) else { return };
        let (mut start, mut end) = (hour.start, hour.end);
        (self.index, self.closing) = (index, TsMs::MAX);
        if let Some(open) = &parts.open {
            let next = open.partition_point(|&(_, to)| to <= ts);
            if let Some(&(_, to)) = next.checked_sub(1).and_then(|before| open.get(before)) {
                start = start.max(to);
            }
            match open.get(next) {
                Some(&(from, to)) if from <= ts => {
                    (start, end) = (start.max(from), end.min(to));
                    (self.index, self.closing) = (parts.hours + index, to);
                }
                Some(&(from, _)) => end = end.min(from),
                None => {}
            }
        }
        (self.start, self.end) = (start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR_MS, VenueCalendar};

    #[test]
    fn each_instant_lies_in_one_part_whatever_was_asked_before() {
        let cut = VenueCalendar::from_names("Europe/Madrid", 0)
            .unwrap()
            .cut("2026-10-25".parse().unwrap());
        let at = |minutes: i64| cut.start + minutes * 60_000;
        // A quarter of an hour within one hour, then past the end of another.
        let open = vec![(at(70), at(85)), (at(150), at(400))];
        let parts = DayParts::new(&cut, Some(open.clone()));
        assert_eq!(parts.len(), 50);
        let mut current = CurrentPart::default();
        for step in [1_i64, 7, 13, 487] {
            for n in 0..1_500 {
                let ts = at((n * step) % 1_500);
                let hour = ((ts - cut.start) / HOUR_MS) as usize;
                let span = open.iter().find(|span| (span.0..span.1).contains(&ts));
                let index = current.index_of(&cut, &parts, ts);
                assert_eq!(index, hour + if span.is_some() { 25 } else { 0 });
                assert_eq!(current.closing(), span.map_or(TsMs::MAX, |span| span.1));
                assert_eq!(parts.part_of(&cut, ts), index);
                assert_eq!(parts.hour_of(index), hour);
            }
        }
    }

    #[test]
    fn without_opening_hours_a_part_is_an_hour() {
        let cut = VenueCalendar::from_names("Etc/UTC", 0)
            .unwrap()
            .cut("2026-05-05".parse().unwrap());
        let parts = DayParts::new(&cut, None);
        assert_eq!(
            (parts.len(), parts.part_of(&cut, cut.start + 5 * HOUR_MS)),
            (24, 5)
        );
        assert_eq!(parts.of(Slice::All, 3..5).collect::<Vec<_>>(), [3, 4]);
        let closed = DayParts::new(&cut, Some(Vec::new()));
        assert_eq!(closed.of(Slice::All, 3..5).collect::<Vec<_>>(), [3, 4, 27, 28]);
        assert_eq!(closed.of(Slice::Open, 3..5).collect::<Vec<_>>(), [27, 28]);
        assert_eq!(closed.part_of(&cut, cut.start + 5 * HOUR_MS), 5);
    }
}
