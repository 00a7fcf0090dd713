//! Who was late: the events of a day that were received after its former generation had been published.
//!
//! Everything is counted in a way that no order of reading can change, within bounds: delays in a histogram of buckets a
//! sixteenth wide, sensors and receipts by name up to a number, of which the largest are told.

use std::collections::BTreeMap;

use dwell_model::event::{Delivery, EventBatch};
use dwell_model::ids::Receipt;
use dwell_model::time::TsMs;
use dwell_storage::api::{LateArrivals, LateSource};

/// Most receipts, and most sensors, that are told apart.
const TOLD_APART_MAX: usize = 1_000;
/// Most of them that a generation names.
const NAMED_MAX: usize = 10;
/// Buckets of the histogram per doubling.
const STEPS: u64 = 16;

/// What was late in all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LateEvents {
    /// How many of the events that count now.
    pub(crate) events: u64,
    /// The earliest event time among them.
    pub(crate) earliest_ts: Option<TsMs>,
    /// How many receipts brought them.
    pub(crate) receipts: u64,
    /// From whom, and how late.
    pub(crate) arrivals: LateArrivals,
}

/// Looks at events as they are folded.
#[derive(Default)]
pub(crate) struct Late {
    /// What was received later than this was too late; `None`: nothing was.
    pub(crate) after: Option<TsMs>,
    events: u64,
    received: Option<(TsMs, TsMs)>,
    event_times: Option<(TsMs, TsMs)>,
    delays: BTreeMap<u64, u64>,
    delay_max_ms: i64,
    sensors: BTreeMap<String, u64>,
    receipts: BTreeMap<Receipt, u64>,
}

impl Late {
    /// Looks at some rows of a batch, all for `None`, with the first delivery of each; `first` may be empty.
    pub(crate) fn see(&mut self, events: &EventBatch, rows: Option<&[u32]>, first: &[Delivery]) {
        let Some(after) = self.after.filter(|_| !first.is_empty()) else {
            return;
        };
        let mut see = |row: usize| {
            if let Some(delivery) = first.get(row).filter(|delivery| delivery.received_at > after) {
                self.count(events, row, delivery);
            }
        };
        match rows {
            Some(rows) => rows.iter().for_each(|&row| see(row as usize)),
            None => (0..events.len()).for_each(see),
        }
    }

    fn count(&mut self, events: &EventBatch, row: usize, delivery: &Delivery) {
        let ts = events.ts[row];
        self.events += 1;
        widen(&mut self.event_times, ts);
        widen(&mut self.received, delivery.received_at);
        let delay_ms = delivery.received_at.saturating_sub(ts).max(0);
        self.delay_max_ms = self.delay_max_ms.max(delay_ms);
        *self.delays.entry(bucket(delay_ms.unsigned_abs())).or_default() += 1;
        let (sensor, has_room) = (events.sensor(row), self.sensors.len() < TOLD_APART_MAX);
        match self.sensors.get_mut(sensor) {
            Some(count) => *count += 1,
            None if has_room => {
                self.sensors.insert(sensor.to_owned(), 1);
            }
            None => {}
        }
        let has_room = self.receipts.len() < TOLD_APART_MAX;
        if has_room || self.receipts.contains_key(&delivery.receipt) {
            *self.receipts.entry(delivery.receipt).or_default() += 1;
        }
    }

    /// What was found.
    pub(crate) fn found(self) -> LateEvents {
        let quantile = |percent: u64| {
            let rank = (self.events * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = self.delays.iter().find(|(_, count)| {
                seen += **count;
                seen >= rank
            });
            found.map(|(bucket, _)| upper_end(*bucket).min(self.delay_max_ms))
        };
        let receipts = self.receipts.len() as u64;
        let arrivals = LateArrivals {
            events: self.events,
            received: self.received,
            event_times: self.event_times,
            delay_p50_ms: quantile(50),
            delay_p90_ms: quantile(90),
            delay_max_ms: (self.events > 0).then_some(self.delay_max_ms),
            sensors_all: self.sensors.len() as u64,
            sensors: largest(self.sensors),
            receipts_all: receipts,
            receipts: largest(self.receipts),
        };
        LateEvents {
            events: self.events,
            earliest_ts: self.event_times.map(|(earliest, _)| earliest),
            receipts,
            arrivals,
        }
    }
}

fn widen(range: &mut Option<(TsMs, TsMs)>, ts: TsMs) {
    *range = Some(range.map_or((ts, ts), |(first, last)| (first.min(ts), last.max(ts))));
}

/// The largest by count, equal ones by name.
fn largest<N: ToString>(counts: BTreeMap<N, u64>) -> Vec<LateSource> {
    let mut sources: Vec<LateSource> = counts
        .into_iter()
        .map(|(name, events)| LateSource {
            name: name.to_string(),
            events,
        })
        .collect();
    sources.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
    sources.truncate(NAMED_MAX);
    sources
}

/// The bucket of a delay: exact below [`STEPS`], then [`STEPS`] to a doubling.
fn bucket(delay_ms: u64) -> u64 {
    if delay_ms < STEPS {
        return delay_ms;
    }
    let doublings = u64::from(delay_ms.ilog2() - STEPS.ilog2());
    (doublings + 1) * STEPS + (delay_ms >> doublings) - STEPS
}

/// The longest delay of a bucket.
fn upper_end(bucket: u64) -> i64 {
    if bucket < STEPS {
        return bucket.cast_signed();
    }
    let doublings = bucket / STEPS - 1;
    let end = (bucket % STEPS + STEPS + 1).checked_shl(doublings as u32);
    i64::try_from(end.unwrap_or(u64::MAX) - 1).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use dwell_model::testing::position_batch;

    use super::*;

    #[test]
    fn a_delay_is_told_to_a_sixteenth() {
        for delay_ms in [
            0,
            1,
            15,
            16,
            17,
            31,
            32,
            33,
            999,
            60_000,
            86_400_000,
            31_536_000_000,
        ] {
            let told = upper_end(bucket(delay_ms)).unsigned_abs();
            assert!(
                told >= delay_ms && told - delay_ms <= delay_ms / 16,
                "{delay_ms}: {told}"
            );
        }
        let buckets: Vec<u64> = (0..5_000).map(bucket).collect();
        assert!(buckets.is_sorted());
    }

    #[test]
    fn who_was_late_and_how_much_is_counted_whatever_the_order() {
        // Received at 10 000 and 20 000; the former generation was published at 9 000.
        let events = position_batch(&[
            ("a", "t", 1_000, 0.0, 0.0),
            ("a", "t", 2_000, 0.0, 0.0),
            ("b", "t", 3_000, 0.0, 0.0),
            ("c", "t", 4_000, 0.0, 0.0),
        ]);
        let delivery = |received_at, receipt| Delivery {
            received_at,
            receipt: Receipt::from_u128(receipt),
        };
        let first = [
            delivery(10_000, 1),
            delivery(10_000, 1),
            delivery(20_000, 2),
            delivery(9_000, 3),
        ];
        let mut late = Late {
            after: Some(9_000),
            ..Late::default()
        };
        late.see(&events, Some(&[3, 2]), &first);
        late.see(&events, Some(&[1, 0]), &first);
        let found = late.found();
        assert_eq!(
            (found.events, found.earliest_ts, found.receipts),
            (3, Some(1_000), 2)
        );
        let arrivals = found.arrivals;
        assert_eq!(arrivals.received, Some((10_000, 20_000)));
        assert_eq!(arrivals.event_times, Some((1_000, 3_000)));
        // Delays of 8, 9 and 17 s: the middle one is 9 s, told as at most 9.56 s.
        assert_eq!(arrivals.delay_max_ms, Some(17_000));
        let p50 = arrivals.delay_p50_ms.unwrap();
        assert!((9_000..=9_562).contains(&p50), "{p50}");
        let named: Vec<_> = arrivals
            .sensors
            .iter()
            .map(|source| (source.name.as_str(), source.events))
            .collect();
        assert_eq!(named, [("a", 2), ("b", 1)]);
        assert_eq!((arrivals.sensors_all, arrivals.receipts_all), (2, 2));
        assert_eq!(arrivals.receipts[0].name, Receipt::from_u128(1).to_string());
    }

    #[test]
    fn nothing_is_late_without_a_generation_before() {
        let events = position_batch(&[("a", "t", 1_000, 0.0, 0.0)]);
        let mut late = Late::default();
        let receipt = Receipt::from_u128(1);
        late.see(
            &events,
            None,
            &[Delivery {
                received_at: 5,
                receipt,
            }],
        );
        assert_eq!(late.found(), LateEvents::default());
    }
}
