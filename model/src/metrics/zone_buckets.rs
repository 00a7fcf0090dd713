//! Visits per zone and hour, and the ingredients made of them.

use serde::{Deserialize, Serialize};

use super::{SubjectSketch, ZoneValue};
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
pub(super) struct Bucket {
    pub(super) start: TsMs,
    pub(super) end: TsMs,
    pub(super) day: LocalDay,
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

/// The ingredients of a bucket from the visits that touch it; `None` when there are none.
pub(super) fn zone_value(
    stays: &[Stay],
    bucket: Bucket,
    engaged_after_ms: i64,
    is_day: bool,
) -> Option<ZoneValue> {
    if stays.is_empty() {
        return None;
    }
    let mut value = ZoneValue::default();
    for stay in stays {
        value.dwell_ms += (stay.exit.min(bucket.end) - stay.enter.max(bucket.start)).max(0) as u64;
        if (bucket.start..bucket.end).contains(&stay.enter) {
            let dwell_ms = stay.exit - stay.enter;
            value.visits += 1;
            value.engaged += u64::from(dwell_ms >= engaged_after_ms);
            value.dwells_ms.push(dwell_ms as u64);
        }
    }
    value.dwells_ms.sort_unstable();
    let mut subjects: Vec<u64> = stays.iter().map(|stay| stay.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    value.visitors = Some(subjects.len() as u64);
    value.visitor_days = is_day.then_some(subjects.len() as u64);
    value.occupancy_max = occupancy_max(stays, bucket);
    value.sketch = SubjectSketch::of_sorted(bucket.day, &subjects);
    Some(value)
}

/// Most distinct subjects at one instant of the bucket, intervals closed. A subject's visits of one zone never overlap
/// (a zone is re-entered later than it was left), so subjects need not be told apart.
fn occupancy_max(stays: &[Stay], bucket: Bucket) -> u64 {
    let mut enters: Vec<TsMs> = stays.iter().map(|stay| stay.enter.max(bucket.start)).collect();
    let mut exits: Vec<TsMs> = stays.iter().map(|stay| stay.exit.min(bucket.end - 1)).collect();
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

    fn bucket(start: TsMs, end: TsMs) -> Bucket {
        Bucket {
            start,
            end,
            day: "2026-10-24".parse().unwrap(),
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
            assert_eq!(occupancy_max(&touching, bucket(0, 100)), most);
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
}
