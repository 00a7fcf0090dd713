//! Visits per zone and hour, and the ingredients made of them.

use serde::{Deserialize, Serialize};

use super::parts::Interval;
use super::{SubjectSketch, ZoneValue};
use crate::layout::open_ms;
use crate::time::{DayCut, LocalDay, TsMs};

/// One visit as buckets hold it. The subject is a 64-bit hash: two people of one venue-day share one with a chance of
/// less than one in a billion even among a hundred thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stay {
    pub(super) enter: TsMs,
    pub(super) exit: TsMs,
    pub(super) subject: u64,
}

/// A zone's visits, in each hour that they touch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ZoneBuckets {
    hours: Vec<Vec<Stay>>,
}

/// A bucket to be computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'a> {
    pub(super) start: TsMs,
    pub(super) end: TsMs,
    pub(super) day: LocalDay,
    /// The day's opening hours, where only what lies within them counts.
    pub(super) open: Option<&'a [Interval]>,
}

impl ZoneBuckets {
    pub(super) fn new(cut: &DayCut) -> Self {
        Self {
            hours: vec![Vec::new(); cut.hours.len()],
        }
    }

    pub(super) fn add(&mut self, cut: &DayCut, stay: Stay) {
        for hour in cut.hour_index(stay.enter)..=cut.hour_index(stay.exit) {
            self.hours[hour].push(stay);
        }
    }

    /// The visits that touch an hour.
    pub(super) fn hour(&self, hour: usize) -> &[Stay] {
        &self.hours[hour]
    }

    /// The visits of the day, each once: in the hour in which it was entered.
    pub(super) fn day<'a>(&'a self, cut: &'a DayCut) -> impl Iterator<Item = Stay> + 'a {
        self.hours.iter().zip(&cut.hours).flat_map(|(stays, hour)| {
            stays
                .iter()
                .copied()
                .filter(|stay| (hour.start..hour.end).contains(&stay.enter))
        })
    }
}

/// The ingredients of a bucket from the visits that touch it; `None` when there are none, or none that count.
pub(super) fn zone_value(
    stays: &[Stay],
    bucket: Bucket<'_>,
    engaged_after_ms: i64,
    is_day: bool,
) -> Option<ZoneValue> {
    let mut sum = ZoneSum::default();
    match bucket.open {
        None => sum.add(stays, (bucket.start, bucket.end), |stay| stay.exit - stay.enter),
        Some(open) => {
            let first = open.partition_point(|&(_, to)| to <= bucket.start);
            for &(from, to) in open[first..].iter().take_while(|span| span.0 < bucket.end) {
                let (from, to) = (from.max(bucket.start), to.min(bucket.end));
                let touches = |stay: &&Stay| stay.enter < to && stay.exit >= from;
                let within: Vec<Stay> = stays.iter().filter(touches).copied().collect();
                sum.add(&within, (from, to), |stay| open_ms(open, stay.enter, stay.exit));
            }
        }
    }
    sum.finish(bucket.day, engaged_after_ms, is_day)
}

/// The ingredients of a bucket, stretch by stretch of time.
#[derive(Default)]
struct ZoneSum {
    value: ZoneValue,
    subjects: Vec<u64>,
}

impl ZoneSum {
    /// Adds a stretch with the visits that touch it. `dwell_ms` is what counts of a visit that begins in it.
    fn add(&mut self, stays: &[Stay], (start, end): Interval, dwell_ms: impl Fn(&Stay) -> i64) {
        for stay in stays {
            self.value.dwell_ms += (stay.exit.min(end) - stay.enter.max(start)).max(0) as u64;
            if (start..end).contains(&stay.enter) {
                self.value.visits += 1;
                self.value.dwells_ms.push(dwell_ms(stay) as u64);
            }
        }
        self.subjects.extend(stays.iter().map(|stay| stay.subject));
        let most = occupancy_max(stays, (start, end));
        self.value.occupancy_max = self.value.occupancy_max.max(most);
    }

    fn finish(mut self, day: LocalDay, engaged_after_ms: i64, is_day: bool) -> Option<ZoneValue> {
        if self.subjects.is_empty() {
            return None;
        }
        self.subjects.sort_unstable();
        self.subjects.dedup();
        let mut value = self.value;
        value.dwells_ms.sort_unstable();
        let short = value
            .dwells_ms
            .partition_point(|&dwell_ms| (dwell_ms as i64) < engaged_after_ms);
        value.engaged = (value.dwells_ms.len() - short) as u64;
        value.visitors = Some(self.subjects.len() as u64);
        value.visitor_days = is_day.then_some(self.subjects.len() as u64);
        value.sketch = SubjectSketch::of_sorted(day, &self.subjects);
        Some(value)
    }
}

/// Most distinct subjects at one instant of a stretch, intervals closed. A subject's visits of one zone never overlap
/// (a zone is re-entered later than it was left), so subjects need not be told apart.
fn occupancy_max(stays: &[Stay], (start, end): Interval) -> u64 {
    let mut enters: Vec<TsMs> = stays.iter().map(|stay| stay.enter.max(start)).collect();
    let mut exits: Vec<TsMs> = stays.iter().map(|stay| stay.exit.min(end - 1)).collect();
    enters.sort_unstable();
    exits.sort_unstable();
    let (mut left, mut most) = (0, 0);
    for (entered, enter) in enters.iter().enumerate() {
        // Whoever left at this very instant is still there.
        while exits[left] < *enter {
            left += 1;
        }
        most = most.max(entered + 1 - left);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(start: TsMs, end: TsMs) -> Bucket<'static> {
        Bucket {
            start,
            end,
            day: "2026-10-24".parse().unwrap(),
            open: None,
        }
    }

    #[test]
    fn closed_intervals_that_touch_overlap() {
        let stay = |enter, exit, subject| Stay { enter, exit, subject };
        for (stays, most) in [
            (vec![stay(0, 10, 1), stay(10, 20, 2)], 2),
            (vec![stay(0, 10, 1), stay(11, 20, 2)], 1),
            (vec![stay(5, 5, 1), stay(5, 5, 2), stay(5, 5, 3)], 3),
            (vec![stay(0, 200, 1), stay(150, 160, 2)], 1),
        ] {
            let touching: Vec<Stay> = stays.into_iter().filter(|s| s.enter < 100).collect();
            assert_eq!(occupancy_max(&touching, (0, 100)), most);
        }
    }

    #[test]
    fn a_visit_counts_where_it_is_entered_and_dwells_where_it_is() {
        let stays = [
            Stay {
                enter: -50,
                exit: 30,
                subject: 1,
            },
            Stay {
                enter: 20,
                exit: 150,
                subject: 2,
            },
        ];
        let value = zone_value(&stays, bucket(0, 100), 130, false).unwrap();
        assert_eq!(
            (value.visits, value.visitors, value.dwell_ms),
            (1, Some(2), 30 + 80)
        );
        assert_eq!(
            (value.engaged, value.dwells_ms, value.occupancy_max),
            (1, vec![130], 2)
        );
        assert_eq!(zone_value(&[], bucket(0, 100), 0, false), None);
    }

    /// Open from 100 to 200 and from 300 to 400. By hand.
    #[test]
    fn within_opening_hours_visits_count_where_they_begin_and_presence_is_clipped() {
        let stay = |enter, exit, subject| Stay { enter, exit, subject };
        let stays = [
            stay(50, 120, 1),  // waits for the opening: present for 20
            stay(150, 350, 2), // through the break: one visit, of 50 and 50
            stay(180, 230, 3), // past the closing: 20 count
            stay(210, 290, 4), // while closed: nothing
            stay(250, 300, 5), // is there at the moment of opening
            stay(200, 200, 6), // at the closing, which is no longer open
            stay(390, 999, 7), // past the last closing: 10 count
        ];
        let open = [(100, 200), (300, 400)];
        let of = |start, end| Bucket {
            open: Some(&open),
            ..bucket(start, end)
        };
        let value = zone_value(&stays, of(0, 1_000), 20, true).unwrap();
        assert_eq!((value.visits, value.engaged), (3, 2));
        assert_eq!(value.dwells_ms, [10, 20, 100]);
        assert_eq!(value.dwell_ms, 20 + 50 + 50 + 20 + 10);
        assert_eq!((value.visitors, value.visitor_days), (Some(5), Some(5)));
        assert_eq!(value.occupancy_max, 2);
        // A bucket that ends within the break, one that lies in it, and one that begins there.
        let value = zone_value(&stays, of(0, 220), 20, false).unwrap();
        assert_eq!((value.visits, value.dwell_ms, value.visitors), (2, 90, Some(3)));
        assert_eq!(value.dwells_ms, [20, 100]);
        assert_eq!(zone_value(&stays, of(200, 300), 20, false), None);
        let value = zone_value(&stays, of(220, 360), 20, false).unwrap();
        assert_eq!((value.visits, value.dwell_ms, value.visitors), (0, 50, Some(2)));
    }
}
