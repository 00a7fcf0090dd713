//! The sensors' health: signs of life per hour, and what they say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{EventBatch, Kind, NO_I64, SensorState, field};
use crate::layout::Layout;
use crate::metrics::accumulate::{BucketOut, CurrentHour, IdTable};
use crate::metrics::{Family, Slice, SourceValue, Value};
use crate::time::{DayCut, TsMs};

/// Smallest declared interval that is watched; a finer one would need too many marks, and says no more.
const INTERVAL_MIN_MS: i64 = 1_000;

/// Signs of life of a day.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    hours: usize,
    /// Sensors with a declared interval: only of them the seconds are marked.
    declared: BTreeSet<String>,
    sensors: BTreeMap<String, Source>,
}

#[derive(Debug, Clone, Default)]
struct Source {
    /// Events per hour, status left out.
    events: Vec<u64>,
    statuses: Vec<StatusSample>,
    /// Seconds since the day's start in which there was an event, a bit each; empty where no interval is declared.
    alive_seconds: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StatusSample {
    ts: TsMs,
    state: SensorState,
    sent: Option<i64>,
    dropped: Option<i64>,
    sequence: Option<i64>,
    clock_offset_ms: Option<i64>,
}

pub(super) struct SourcesPerHour {
    values: Vec<(String, Vec<SourceValue>)>,
}

impl Sources {
    pub(super) fn new(hours: usize, layout: &Layout) -> Self {
        let declared = layout
            .sensors
            .iter()
            .filter(|sensor| sensor.interval_ms.is_some());
        Self {
            hours,
            declared: declared.map(|sensor| sensor.id.clone()).collect(),
            sensors: BTreeMap::new(),
        }
    }

    /// Counts events as signs of life of their sensors.
    pub(super) fn observe(&mut self, cut: &DayCut, batch: &EventBatch, rows: Option<&[u32]>) {
        if batch.kind == Kind::Status {
            return;
        }
        // Counted in a table by sensor number first: names are looked at once per batch.
        let (mut table, mut names, mut counts) = (IdTable::default(), Vec::new(), Vec::<SensorCounts>::new());
        let seconds_words = ((cut.end - cut.start) / INTERVAL_MIN_MS) as usize / 64 + 1;
        let mut hour = CurrentHour::default();
        let mut observe = |row: usize| {
            let (ts, sensor) = (batch.ts[row], batch.sensor[row]);
            let slot = table.slot(sensor, || {
                let is_declared = self.declared.contains(batch.strings.get(sensor));
                let words = if is_declared { seconds_words } else { 0 };
                names.push(sensor);
                counts.push(SensorCounts {
                    events: vec![0; self.hours],
                    seconds: vec![0; words],
                });
                names.len() - 1
            });
            let counts = &mut counts[slot];
            counts.events[hour.index_of(cut, ts)] += 1;
            let second = ((ts - cut.start) / INTERVAL_MIN_MS) as usize;
            if let Some(word) = counts.seconds.get_mut(second / 64) {
                *word |= 1 << (second % 64);
            }
        };
        match rows {
            Some(rows) => rows.iter().for_each(|&row| observe(row as usize)),
            None => (0..batch.len()).for_each(observe),
        }
        for (sensor, counts) in names.into_iter().zip(counts) {
            let source = self.source(batch.strings.get(sensor));
            source
                .events
                .iter_mut()
                .zip(counts.events)
                .for_each(|(sum, n)| *sum += n);
            source.alive_seconds.resize(counts.seconds.len(), 0);
            source
                .alive_seconds
                .iter_mut()
                .zip(counts.seconds)
                .for_each(|(all, word)| *all |= word);
        }
    }

    pub(super) fn add_status(&mut self, batch: &EventBatch, row: usize) {
        let optional = |column: usize| Some(batch.i64s(column)[row]).filter(|&value| value != NO_I64);
        let word = batch
            .text(field::status::STATE, row)
            .and_then(SensorState::from_word);
        let sample = StatusSample {
            ts: batch.ts[row],
            // Decoders let no other word through.
            state: word.unwrap_or(SensorState::Ok),
            sent: optional(field::status::SENT),
            dropped: optional(field::status::DROPPED),
            sequence: optional(field::status::SEQUENCE),
            clock_offset_ms: optional(field::status::CLOCK_OFFSET_MS),
        };
        self.source(batch.sensor(row)).statuses.push(sample);
    }

    fn source(&mut self, sensor: &str) -> &mut Source {
        let hours = self.hours;
        super::entry(&mut self.sensors, sensor, || Source {
            events: vec![0; hours],
            ..Source::default()
        })
    }

    pub(super) fn per_hour(&self, cut: &DayCut, layout: &Layout) -> SourcesPerHour {
        let values = self
            .sensors
            .iter()
            .map(|(sensor, source)| {
                let interval_ms = layout.sensor(sensor).and_then(|sensor| sensor.interval_ms);
                (sensor.clone(), source.per_hour(cut, interval_ms))
            })
            .collect();
        SourcesPerHour { values }
    }
}

impl Source {
    fn per_hour(&self, cut: &DayCut, interval_ms: Option<i64>) -> Vec<SourceValue> {
        let mut values: Vec<SourceValue> = self
            .events
            .iter()
            .map(|&events| SourceValue {
                events,
                ..SourceValue::default()
            })
            .collect();
        let mut statuses = self.statuses.clone();
        statuses.sort_unstable();
        for (i, status) in statuses.iter().enumerate() {
            let value = &mut values[cut.hour_index(status.ts)];
            value.statuses += 1;
            add_optional(&mut value.sent, status.sent);
            add_optional(&mut value.dropped, status.dropped);
            if let Some(offset) = status.clock_offset_ms {
                let larger = value
                    .clock_offset_ms
                    .is_none_or(|known| known.abs() < offset.abs());
                value.clock_offset_ms = if larger {
                    Some(offset)
                } else {
                    value.clock_offset_ms
                };
            }
            if let (Some(sequence), Some(before)) = (
                status.sequence,
                i.checked_sub(1).and_then(|b| statuses[b].sequence),
            ) {
                // A smaller number is a restart, not a gap.
                value.sequence_gaps += u64::try_from(sequence - before - 1).unwrap_or(0);
            }
            let until = statuses.get(i + 1).map_or(cut.end, |next| next.ts);
            for (hour, value) in cut.hours.iter().zip(&mut values) {
                let part = until.min(hour.end) - status.ts.max(hour.start);
                if part > 0 {
                    *value.state_ms.entry(status.state).or_default() += part;
                }
            }
        }
        if let Some(interval_ms) = interval_ms {
            let interval_s = (interval_ms.max(INTERVAL_MIN_MS) / INTERVAL_MIN_MS) as u32;
            let alive = self.alive_intervals(interval_s);
            for (hour, value) in cut.hours.iter().zip(&mut values) {
                // An interval belongs to the hour in which it begins.
                let step = i64::from(interval_s) * INTERVAL_MIN_MS;
                let number = |ts: TsMs| ((ts - cut.start) as u64).div_ceil(step as u64) as u32;
                let (first, end) = (number(hour.start), number(hour.end));
                value.intervals = Some((u64::from(end - first), alive.range(first..end).count() as u64));
            }
        }
        values
    }
}

impl Source {
    /// Numbers of the intervals since the day's start in which there was an event.
    fn alive_intervals(&self, interval_s: u32) -> BTreeSet<u32> {
        let seconds = (0..self.alive_seconds.len() as u32 * 64)
            .filter(|second| self.alive_seconds[*second as usize / 64] >> (second % 64) & 1 == 1);
        seconds.map(|second| second / interval_s).collect()
    }
}

/// What a batch tells of a sensor.
struct SensorCounts {
    events: Vec<u64>,
    seconds: Vec<u64>,
}

fn add_optional(sum: &mut Option<u64>, value: Option<i64>) {
    if let Some(value) = value.and_then(|value| u64::try_from(value).ok()) {
        *sum = Some(sum.unwrap_or(0) + value);
    }
}

impl SourcesPerHour {
    pub(super) fn rows(&self, hours: std::ops::Range<usize>, out: &mut BucketOut<'_>) {
        for (sensor, values) in &self.values {
            let mut sum = SourceValue::default();
            values[hours.clone()]
                .iter()
                .for_each(|value| crate::metrics::merge::add_sources(&mut sum, value));
            let heard =
                sum.events > 0 || sum.statuses > 0 || !sum.state_ms.is_empty() || sum.intervals.is_some();
            if heard {
                out.push(Slice::All, Family::Source, sensor, Value::Source(sum));
            }
        }
    }
}
