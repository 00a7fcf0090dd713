//! Lines, counters, presence, receipts, readings and the sensors' health: what is gathered per venue-day, in any order.

mod counters;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use self::counters::Counters;
use self::sources::Sources;
use super::accumulate::{Carry, CurrentHour, HourSet, Out};
use super::{
    AggregateRow, Family, Grain, LineValue, PresenceValue, ReadingValue, SubjectSketch, TransactionValue,
    Value, to_nano,
};
use crate::event::{Direction, EventBatch, Kind, NO_I64, field};
use crate::layout::Layout;
use crate::time::{DayCut, LocalDay};

/// Separates the parts of a composite subject; names hold no control character.
pub(super) const PART_SEPARATOR: char = '\u{1f}';

/// Everything of a venue-day that is not made of sessions.
#[derive(Debug, Clone)]
pub(super) struct OtherKinds {
    hours: usize,
    /// By line: (in, out) per hour.
    lines: BTreeMap<String, Vec<(i64, i64)>>,
    counters: Counters,
    /// Per hour: hashes of the devices, and sightings.
    presence: Vec<(BTreeSet<u64>, u64)>,
    /// By currency, per hour.
    transactions: BTreeMap<String, Vec<TransactionValue>>,
    /// By (sensor, metric), per hour.
    readings: BTreeMap<(String, String), Vec<Option<ReadingValue>>>,
    sources: Sources,
    pub(super) carry_in: Carry,
}

impl OtherKinds {
    pub(super) fn new(hours: usize, layout: &Layout) -> Self {
        Self {
            hours,
            lines: BTreeMap::new(),
            counters: Counters::default(),
            presence: vec![Default::default(); hours],
            transactions: BTreeMap::new(),
            readings: BTreeMap::new(),
            sources: Sources::new(hours, layout),
            carry_in: Carry::default(),
        }
    }

    pub(super) fn add(&mut self, cut: &DayCut, batch: &EventBatch, rows: Option<&[u32]>) {
        let mut hour = CurrentHour::default();
        let mut add = |row: usize| {
            let hour = hour.index_of(cut, batch.ts[row]);
            match batch.kind {
                Kind::Position => {}
                Kind::Crossing => self.add_crossing(batch, row, hour),
                Kind::Count => self.counters.add(batch, row),
                Kind::Presence => {
                    let (devices, sightings) = &mut self.presence[hour];
                    devices.insert(xxh3_64(batch.key(row).as_bytes()));
                    *sightings += 1;
                }
                Kind::Transaction => self.add_transaction(batch, row, hour),
                Kind::Reading => self.add_reading(batch, row, hour),
                Kind::Status => self.sources.add_status(batch, row),
            }
        };
        match rows {
            Some(rows) => rows.iter().for_each(|&row| add(row as usize)),
            None => (0..batch.len()).for_each(add),
        }
        self.observe_alive(cut, batch, rows);
    }

    pub(super) fn observe_alive(&mut self, cut: &DayCut, batch: &EventBatch, rows: Option<&[u32]>) {
        self.sources.observe(cut, batch, rows);
    }

    pub(super) fn carry_out(&self) -> Carry {
        self.counters.carry_out(&self.carry_in)
    }

    /// Appends the rows; returns the crossings per line and hour, from which traffic is made.
    pub(super) fn rows(
        &self,
        cut: &DayCut,
        layout: &Layout,
        hours: HourSet,
        day: bool,
        rows: &mut Vec<AggregateRow>,
    ) -> BTreeMap<String, Vec<(i64, i64)>> {
        let counters = self.counters.per_hour(cut, layout, &self.carry_in);
        let sources = self.sources.per_hour(cut, layout);
        for index in (0..self.hours).filter(|&index| hours.contains(index)) {
            let hour = cut.hours[index];
            let mut out = Out {
                grain: Grain::Hour,
                start: hour.start,
                length_ms: hour.length_ms(),
                rows,
            };
            self.bucket_rows(index..index + 1, cut.day, &mut out);
            counters.rows(index..index + 1, &mut out);
            sources.rows(index..index + 1, &mut out);
        }
        if day {
            let mut out = Out {
                grain: Grain::Day,
                start: cut.start,
                length_ms: cut.end - cut.start,
                rows,
            };
            self.bucket_rows(0..self.hours, cut.day, &mut out);
            counters.rows(0..self.hours, &mut out);
            sources.rows(0..self.hours, &mut out);
        }
        self.lines.clone()
    }

    /// Rows of lines, presence, receipts and readings over some hours. Their ingredients are sums of integers (and
    /// minima, maxima, latest), so a day is exactly its hours.
    fn bucket_rows(&self, hours: std::ops::Range<usize>, day: LocalDay, out: &mut Out<'_>) {
        for (line, counts) in &self.lines {
            let mut sum = LineValue::default();
            for (inward, outward) in &counts[hours.clone()] {
                sum.inward += inward;
                sum.outward += outward;
            }
            if sum != LineValue::default() {
                out.push(Family::Line, line, Value::Line(sum));
            }
        }
        let mut devices: BTreeSet<u64> = BTreeSet::new();
        let mut sightings = 0;
        for (heard, times) in &self.presence[hours.clone()] {
            devices.extend(heard);
            sightings += times;
        }
        if sightings > 0 {
            let hashes: Vec<u64> = devices.into_iter().collect();
            let sketch = SubjectSketch::of_sorted(day, &hashes);
            let value = PresenceValue {
                devices: Some(hashes.len() as u64),
                sightings,
                sketch,
            };
            out.push(Family::Presence, "", Value::Presence(value));
        }
        for (currency, values) in &self.transactions {
            let mut sum = TransactionValue::default();
            values[hours.clone()]
                .iter()
                .for_each(|value| super::merge::add_transactions(&mut sum, value));
            if sum != TransactionValue::default() {
                out.push(Family::Transaction, currency, Value::Transaction(sum));
            }
        }
        for ((sensor, metric), values) in &self.readings {
            let mut sum: Option<ReadingValue> = None;
            for value in values[hours.clone()].iter().flatten() {
                match &mut sum {
                    None => sum = Some(value.clone()),
                    Some(sum) => super::merge::add_readings(sum, value),
                }
            }
            if let Some(sum) = sum {
                out.push(
                    Family::Reading,
                    &format!("{sensor}{PART_SEPARATOR}{metric}"),
                    Value::Reading(sum),
                );
            }
        }
    }

    fn add_crossing(&mut self, batch: &EventBatch, row: usize, hour: usize) {
        let line = batch.text(field::crossing::LINE, row).unwrap_or("");
        let count = batch.i64s(field::crossing::COUNT)[row];
        let counts = entry(&mut self.lines, line, || vec![(0, 0); self.hours]);
        match batch
            .text(field::crossing::DIRECTION, row)
            .and_then(Direction::from_word)
        {
            Some(Direction::In) => counts[hour].0 += count,
            Some(Direction::Out) => counts[hour].1 += count,
            None => {}
        }
    }

    fn add_transaction(&mut self, batch: &EventBatch, row: usize, hour: usize) {
        let currency = batch.text(field::transaction::CURRENCY, row).unwrap_or("");
        let values = entry(&mut self.transactions, currency, || {
            vec![TransactionValue::default(); self.hours]
        });
        let value = &mut values[hour];
        let void = batch.i64s(field::transaction::VOID)[row];
        let amount = batch.i64s(field::transaction::AMOUNT)[row];
        if void != NO_I64 && void != 0 {
            value.voids += 1;
            return;
        }
        value.amount += i128::from(amount);
        if amount < 0 {
            value.returns += 1;
        } else {
            value.sales += 1;
        }
    }

    fn add_reading(&mut self, batch: &EventBatch, row: usize, hour: usize) {
        let (sensor, metric) = (batch.sensor(row), batch.key(row));
        let reading = batch.f64s(field::reading::VALUE)[row] + 0.0;
        let one = ReadingValue {
            count: 1,
            min: reading,
            max: reading,
            sum_nano: to_nano(reading),
            last: reading,
            last_ts: batch.ts[row],
            unit: batch.text(field::reading::UNIT, row).unwrap_or("").to_owned(),
        };
        let key = (sensor.to_owned(), metric.to_owned());
        let values = self.readings.entry(key).or_insert_with(|| vec![None; self.hours]);
        match &mut values[hour] {
            Some(value) => super::merge::add_readings(value, &one),
            empty => *empty = Some(one),
        }
    }
}

/// The entry of a key, made at first sight, without a copy of the key otherwise.
fn entry<'a, V>(map: &'a mut BTreeMap<String, V>, key: &str, make: impl FnOnce() -> V) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), make());
    }
    match map.get_mut(key) {
        Some(value) => value,
        None => unreachable!("the entry was made just now"),
    }
}
