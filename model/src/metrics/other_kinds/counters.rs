//! Counters by mode: delta, cumulative with reset and wrap, state.

use std::collections::BTreeMap;

use super::PART_SEPARATOR;
use crate::event::{CountMode, EventBatch, field};
use crate::metrics::accumulate::{BucketOut, Carry, CounterSample, Day};
use crate::metrics::{CounterValue, Family, Slice, Value};

/// Samples of a day by counter and mode.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    samples: BTreeMap<CounterKey, Vec<CounterSample>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct CounterKey {
    sensor: String,
    counter: String,
    mode: CountMode,
}

impl CounterKey {
    /// The subject of its rows and of its carry.
    fn subject(&self) -> String {
        format!(
            "{}{PART_SEPARATOR}{}{PART_SEPARATOR}{}",
            self.sensor,
            self.counter,
            self.mode.word()
        )
    }
}

/// Ingredients of each counter in each part of the day.
pub(super) struct CountersPerPart {
    values: Vec<(String, Vec<Option<CounterValue>>)>,
}

impl Counters {
    pub(super) fn add(&mut self, batch: &EventBatch, row: usize) {
        let mode = batch.text(field::count::MODE, row).and_then(CountMode::from_word);
        let key = CounterKey {
            sensor: batch.sensor(row).to_owned(),
            counter: batch.key(row).to_owned(),
            // Decoders let no other word through.
            mode: mode.unwrap_or(CountMode::Delta),
        };
        let sample = CounterSample {
            ts: batch.ts[row],
            value: batch.i64s(field::count::VALUE)[row],
        };
        self.samples.entry(key).or_default().push(sample);
    }

    pub(super) fn carry_out(&self, carry_in: &Carry) -> Carry {
        let mut carry = carry_in.clone();
        for (key, samples) in self
            .samples
            .iter()
            .filter(|(key, _)| key.mode == CountMode::Cumulative)
        {
            if let Some(last) = samples.iter().max() {
                carry.0.insert(key.subject(), *last);
            }
        }
        carry
    }

    pub(super) fn per_part(&self, day: &Day, carry_in: &Carry) -> CountersPerPart {
        let values = self
            .samples
            .iter()
            .map(|(key, samples)| {
                let subject = key.subject();
                let before = carry_in.0.get(&subject).copied();
                let sensor = day.layout.sensor(&key.sensor);
                let wrap = sensor.and_then(|sensor| sensor.counter_wrap);
                let mut sorted = samples.clone();
                sorted.sort_unstable();
                let parts = fold(day, key.mode, &sorted, before, wrap);
                (subject, parts)
            })
            .collect();
        CountersPerPart { values }
    }
}

/// Folds a counter's samples, sorted by time, into the parts of the day.
fn fold(
    day: &Day,
    mode: CountMode,
    samples: &[CounterSample],
    before: Option<CounterSample>,
    wrap: Option<i64>,
) -> Vec<Option<CounterValue>> {
    let mut parts: Vec<Option<CounterValue>> = vec![None; day.parts.len()];
    let mut previous = before.map(|sample| sample.value);
    for sample in samples {
        let value = parts[day.parts.part_of(&day.cut, sample.ts)].get_or_insert(CounterValue {
            mode,
            value: 0,
            samples: 0,
            resets: 0,
            last_ts: sample.ts,
        });
        value.samples += 1;
        value.last_ts = sample.ts;
        match mode {
            CountMode::Delta => value.value += sample.value,
            CountMode::State => value.value = sample.value,
            CountMode::Cumulative => {
                let (increase, is_reset) = increase(previous, sample.value, wrap);
                value.value += increase;
                value.resets += u64::from(is_reset);
                previous = Some(sample.value);
            }
        }
    }
    parts
}

/// How much a cumulative counter rose, and whether it was reset. Of the first sample ever nothing is known.
fn increase(previous: Option<i64>, value: i64, wrap: Option<i64>) -> (i64, bool) {
    match (previous, wrap) {
        (None, _) => (0, false),
        (Some(previous), _) if value >= previous => (value - previous, false),
        (Some(previous), Some(wrap)) if previous < wrap => (wrap - previous + value, false),
        // It began again at 0.
        (Some(_), _) => (value.max(0), true),
    }
}

impl CountersPerPart {
    /// Rows over some parts: what adds up is added, of states the last one holds.
    pub(super) fn rows(
        &self,
        slice: Slice,
        parts: impl Iterator<Item = usize> + Clone,
        out: &mut BucketOut<'_>,
    ) {
        for (subject, values) in &self.values {
            let mut sum: Option<CounterValue> = None;
            for value in parts.clone().filter_map(|part| values[part].as_ref()) {
                match &mut sum {
                    None => sum = Some(value.clone()),
                    Some(sum) => crate::metrics::merge::add_counters(sum, value),
                }
            }
            if let Some(sum) = sum {
                out.push(slice, Family::Counter, subject, Value::Counter(sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_a_reset_unless_a_wrap_is_declared() {
        for (previous, value, wrap, expected) in [
            (None, 500, None, (0, false)),
            (Some(500), 520, None, (20, false)),
            (Some(500), 7, None, (7, true)),
            (Some(65_530), 4, Some(65_536), (10, false)),
            (Some(70_000), 4, Some(65_536), (4, true)),
        ] {
            assert_eq!(
                increase(previous, value, wrap),
                expected,
                "{previous:?} {value} {wrap:?}"
            );
        }
    }
}
