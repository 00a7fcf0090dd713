//! Lines, counters, presence, receipts, readings and the sensors' health: what is gathered per venue-day, in any order.

mod counters;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use self::counters::Counters;
use self::sources::Sources;
use super::accumulate::{BucketOut, Carry, Day, HourSet};
use super::parts::CurrentPart;
use super::traffic::Crossed;
use super::{
    AggregateRow, Family, LineValue, PresenceValue, ReadingValue, Slice, SubjectSketch, TransactionValue,
    Value, to_nano,
};
use crate::event::{Direction, EventBatch, Kind, NO_I64, field};
use crate::layout::LineRole;
use crate::time::{DayCut, LocalDay};

/// Separates the parts of a composite subject; names hold no control character.
pub(super) const PART_SEPARATOR: char = '\u{1f}';

/// Everything of a venue-day that is not made of sessions.
#[derive(Debug, Clone)]
pub(super) struct OtherKinds {
    /// Parts of the day's hours.
    parts: usize,
    /// By line: (in, out) per part.
    lines: BTreeMap<String, Vec<(i64, i64)>>,
    /// By line, where staff tags are declared: (in, out) of staff per hour; `None` where no crossing names a track.
    staff_lines: BTreeMap<String, Vec<Option<(i64, i64)>>>,
    counters: Counters,
    /// Per part: hashes of the devices, and sightings.
    presence: Vec<(BTreeSet<u64>, u64)>,
    /// By currency, per part.
    transactions: BTreeMap<String, Vec<TransactionValue>>,
    /// By (sensor, metric), per part.
    readings: BTreeMap<(String, String), Vec<Option<ReadingValue>>>,
    sources: Sources,
    pub(super) carry_in: Carry,
}

impl OtherKinds {
    pub(super) fn new(day: &Day) -> Self {
        let parts = day.parts.len();
        Self {
            parts,
            lines: BTreeMap::new(),
            staff_lines: BTreeMap::new(),
            counters: Counters::default(),
            presence: vec![Default::default(); parts],
            transactions: BTreeMap::new(),
            readings: BTreeMap::new(),
            sources: Sources::new(day.cut.hours.len(), &day.layout),
            carry_in: Carry::default(),
        }
    }

    pub(super) fn add(&mut self, day: &Day, batch: &EventBatch, rows: Option<&[u32]>) {
        let mut at = CurrentPart::default();
        let mut add = |row: usize| {
            let part = at.index_of(&day.cut, &day.parts, batch.ts[row]);
            match batch.kind {
                Kind::Position => {}
                Kind::Crossing => self.add_crossing(day, batch, row, part),
                Kind::Count => self.counters.add(batch, row),
                Kind::Presence => {
                    let (devices, sightings) = &mut self.presence[part];
                    devices.insert(xxh3_64(batch.key(row).as_bytes()));
                    *sightings += 1;
                }
                Kind::Transaction => self.add_transaction(batch, row, part),
                Kind::Reading => self.add_reading(batch, row, part),
                Kind::Status => self.sources.add_status(batch, row),
            }
        };
        match rows {
            Some(rows) => rows.iter().for_each(|&row| add(row as usize)),
            None => (0..batch.len()).for_each(add),
        }
        self.observe_alive(&day.cut, batch, rows);
    }

    pub(super) fn observe_alive(&mut self, cut: &DayCut, batch: &EventBatch, rows: Option<&[u32]>) {
        self.sources.observe(cut, batch, rows);
    }

    pub(super) fn carry_out(&self) -> Carry {
        self.counters.carry_out(&self.carry_in)
    }

    /// Appends the rows of each slice.
    pub(super) fn rows(&self, day: &Day, hours: HourSet, with_day: bool, rows: &mut Vec<AggregateRow>) {
        let counters = self.counters.per_part(day, &self.carry_in);
        let sources = self.sources.per_hour(&day.cut, &day.layout);
        let bucket = |mut out: BucketOut<'_>| {
            let of_day = out.hours(day);
            for slice in [Slice::All, Slice::Open] {
                if out.has(slice) {
                    let parts = day.parts.of(slice, of_day.clone());
                    self.bucket_rows(slice, parts.clone(), day.cut.day, &mut out);
                    counters.rows(slice, parts, &mut out);
                }
            }
            self.staff_line_rows(of_day.clone(), &mut out);
            sources.rows(of_day, &mut out);
        };
        for hour in (0..day.cut.hours.len()).filter(|&hour| hours.contains(hour)) {
            bucket(BucketOut::of_hour(day, hour, rows));
        }
        if with_day {
            bucket(BucketOut::of_day(day, rows));
        }
    }

    /// What is known of the day's entrances in a slice.
    pub(super) fn crossed(&self, day: &Day, slice: Slice) -> Crossed {
        let hours = day.cut.hours.len();
        let (mut entrances, mut known) = (vec![(0, 0); hours], vec![false; hours]);
        let is_entrance = |line: &str| day.layout.line_role(line) == LineRole::Entrance;
        if slice == Slice::Staff {
            for (_, counts) in self.staff_lines.iter().filter(|(line, _)| is_entrance(line)) {
                for (hour, count) in counts.iter().enumerate() {
                    if let Some((inward, outward)) = count {
                        known[hour] = true;
                        entrances[hour].0 += inward;
                        entrances[hour].1 += outward;
                    }
                }
            }
            return Crossed { entrances, known };
        }
        for (line, counts) in &self.lines {
            let is_entrance = is_entrance(line);
            for part in day.parts.of(slice, 0..hours) {
                let (inward, outward) = counts[part];
                let hour = day.parts.hour_of(part);
                known[hour] |= (inward, outward) != (0, 0);
                if is_entrance {
                    entrances[hour].0 += inward;
                    entrances[hour].1 += outward;
                }
            }
        }
        Crossed { entrances, known }
    }

    /// Rows of lines, presence, receipts and readings over some parts of the day. Their ingredients are sums of integers
    /// (and minima, maxima, latest), so a day is exactly its parts.
    fn bucket_rows(
        &self,
        slice: Slice,
        parts: impl Iterator<Item = usize> + Clone,
        day: LocalDay,
        out: &mut BucketOut<'_>,
    ) {
        for (line, counts) in &self.lines {
            let mut sum = LineValue::default();
            for part in parts.clone() {
                sum.inward += counts[part].0;
                sum.outward += counts[part].1;
            }
            if sum != LineValue::default() {
                out.push(slice, Family::Line, line, Value::Line(sum));
            }
        }
        let mut devices: BTreeSet<u64> = BTreeSet::new();
        let mut sightings = 0;
        for (heard, times) in parts.clone().map(|part| &self.presence[part]) {
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
            out.push(slice, Family::Presence, "", Value::Presence(value));
        }
        for (currency, values) in &self.transactions {
            let mut sum = TransactionValue::default();
            parts
                .clone()
                .for_each(|part| super::merge::add_transactions(&mut sum, &values[part]));
            if sum != TransactionValue::default() {
                out.push(slice, Family::Transaction, currency, Value::Transaction(sum));
            }
        }
        for ((sensor, metric), values) in &self.readings {
            let mut sum: Option<ReadingValue> = None;
            for value in parts.clone().filter_map(|part| values[part].as_ref()) {
                match &mut sum {
                    None => sum = Some(value.clone()),
                    Some(sum) => super::merge::add_readings(sum, value),
                }
            }
            if let Some(sum) = sum {
                let subject = format!("{sensor}{PART_SEPARATOR}{metric}");
                out.push(slice, Family::Reading, &subject, Value::Reading(sum));
            }
        }
    }

    fn staff_line_rows(&self, hours: std::ops::Range<usize>, out: &mut BucketOut<'_>) {
        for (line, counts) in &self.staff_lines {
            let mut known = counts[hours.clone()].iter().flatten().peekable();
            if known.peek().is_none() {
                continue;
            }
            let mut sum = LineValue::default();
            for (inward, outward) in known {
                sum.inward += inward;
                sum.outward += outward;
            }
            out.push(Slice::Staff, Family::Line, line, Value::Line(sum));
        }
    }

    fn add_crossing(&mut self, day: &Day, batch: &EventBatch, row: usize, part: usize) {
        let line = batch.text(field::crossing::LINE, row).unwrap_or("");
        let count = batch.i64s(field::crossing::COUNT)[row];
        let (inward, outward) = match batch
            .text(field::crossing::DIRECTION, row)
            .and_then(Direction::from_word)
        {
            Some(Direction::In) => (count, 0),
            Some(Direction::Out) => (0, count),
            None => (0, 0),
        };
        let counts = &mut entry(&mut self.lines, line, || vec![(0, 0); self.parts])[part];
        *counts = (counts.0 + inward, counts.1 + outward);
        if day.staff_tags.is_empty() {
            return;
        }
        if let Some(track) = batch.text(field::crossing::TRACK, row) {
            let hours = entry(&mut self.staff_lines, line, || vec![None; day.cut.hours.len()]);
            let counts = hours[day.parts.hour_of(part)].get_or_insert((0, 0));
            if day.staff_tags.contains(track) {
                *counts = (counts.0 + inward, counts.1 + outward);
            }
        }
    }

    fn add_transaction(&mut self, batch: &EventBatch, row: usize, part: usize) {
        let currency = batch.text(field::transaction::CURRENCY, row).unwrap_or("");
        let values = entry(&mut self.transactions, currency, || {
            vec![TransactionValue::default(); self.parts]
        });
        let value = &mut values[part];
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

    fn add_reading(&mut self, batch: &EventBatch, row: usize, part: usize) {
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
        let values = self.readings.entry(key).or_insert_with(|| vec![None; self.parts]);
        match &mut values[part] {
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
