//! The local days that a venue's events may belong to: closed ones that are kept, today, and tomorrow.

use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};

/// The live days, as of a look at the clock.
#[derive(Debug)]
pub(super) struct LiveWindow {
    today: LocalDay,
    /// Rising, without gaps.
    days: Vec<LiveBounds>,
}

/// A day with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveBounds {
    pub(super) day: LocalDay,
    pub(super) start: TsMs,
    pub(super) end: TsMs,
}

/// Where an instant lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before all live days, which begin then.
    Before(TsMs),
    /// In one of them.
    Live(LiveBounds),
    /// After all of them, which end then.
    After(TsMs),
}

impl LiveWindow {
    /// The live days at a time: `closed_days` before today, today, tomorrow.
    pub(super) fn new(venue: &Venue, now: TsMs, closed_days: usize) -> Self {
        let today = venue.calendar.day_of(now);
        let first = (0..closed_days).fold(today, |day, _| day.prev());
        let bounds = |day| {
            let (start, end) = venue.calendar.bounds(day);
            LiveBounds { day, start, end }
        };
        Self {
            today,
            days: first.through(today.next()).map(bounds).collect(),
        }
    }

    pub(super) fn today(&self) -> LocalDay {
        self.today
    }

    /// The days, rising.
    pub(super) fn days(&self) -> &[LiveBounds] {
        &self.days
    }

    /// A day's bounds; `None` for a day that is not live.
    pub(super) fn bounds(&self, day: LocalDay) -> Option<LiveBounds> {
        self.days.iter().find(|bounds| bounds.day == day).copied()
    }

    /// Whether today is over, or the clock was set back before it.
    pub(super) fn is_past(&self, now: TsMs) -> bool {
        self.bounds(self.today)
            .is_none_or(|today| !(today.start..today.end).contains(&now))
    }

    /// Where an instant lies.
    pub(super) fn place_of(&self, ts: TsMs) -> Place {
        // Nearly all events are of today, the last but one.
        match self.days.iter().rev().find(|bounds| bounds.start <= ts) {
            Some(bounds) if ts < bounds.end => Place::Live(*bounds),
            Some(bounds) => Place::After(bounds.end),
            None => Place::Before(self.days.first().map_or(TsMs::MAX, |bounds| bounds.start)),
        }
    }
}

impl Place {
    /// Whether an instant lies at the same place.
    pub(super) fn holds(&self, ts: TsMs) -> bool {
        match self {
            Place::Before(start) => ts < *start,
            Place::Live(bounds) => (bounds.start..bounds.end).contains(&ts),
            Place::After(end) => ts >= *end,
        }
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::VenueId;
    use dwell_model::layout::Layout;
    use dwell_model::time::{HOUR_MS, VenueCalendar};

    use super::*;

    #[test]
    fn days_follow_each_other_over_a_clock_change() {
        let venue = Venue {
            id: VenueId::new("v").unwrap(),
            name: None,
            calendar: VenueCalendar::from_names("Europe/Madrid", 0).unwrap(),
            tags: Vec::new(),
            layouts: vec![Layout::empty()],
        };
        // 2026-10-25T00:30Z: 02:30 in Madrid, on the day that has 25 hours.
        let now = 1_792_888_200_000;
        let window = LiveWindow::new(&venue, now, 2);
        let days: Vec<String> = window
            .days()
            .iter()
            .map(|bounds| bounds.day.to_string())
            .collect();
        assert_eq!(days, ["2026-10-23", "2026-10-24", "2026-10-25", "2026-10-26"]);
        let today = window.bounds(window.today()).unwrap();
        assert_eq!(today.end - today.start, 25 * HOUR_MS);
        assert!(!window.is_past(now) && window.is_past(today.end) && window.is_past(today.start - 1));
        assert_eq!(window.place_of(today.end - 1), Place::Live(today));
        assert_eq!(
            window.place_of(today.start - 72 * HOUR_MS),
            Place::Before(today.start - 48 * HOUR_MS)
        );
        assert_eq!(
            window.place_of(today.end + 24 * HOUR_MS),
            Place::After(today.end + 24 * HOUR_MS)
        );
        for ts in [
            0,
            today.start - 1,
            today.start,
            today.end,
            today.end + 48 * HOUR_MS,
        ] {
            assert!(window.place_of(ts).holds(ts));
        }
    }
}
