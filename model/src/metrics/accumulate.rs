//! From sessions and events to a venue-day's rows.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::other_kinds::OtherKinds;
use super::zone_buckets::{Bucket, Stay, ZoneBuckets, zone_value};
use super::{
    AggregateRow, CellValue, Family, FootfallSource, Grain, Slice, TrafficValue, Transition, Value, row_order,
};
use crate::event::{EventBatch, StringId};
use crate::layout::{Layout, LineRole, VENUE_ZONE};
use crate::session::{PositionEvent, Session, SessionSink, ZoneVisit};
use crate::time::{DayCut, TsMs};

/// The last samples of cumulative counters, carried into the next day. By the counter's subject (see
/// [`Family::Counter`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Carry(pub BTreeMap<String, CounterSample>);

/// A counter's value at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CounterSample {
    /// When.
    pub ts: TsMs,
    /// What it showed.
    pub value: i64,
}

/// Some hours of a venue-day, by their indexes in [`DayCut::hours`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HourSet(u64);

impl HourSet {
    /// All hours of a day.
    pub fn all() -> Self {
        Self(u64::MAX)
    }

    /// Adds an hour.
    pub fn insert(&mut self, hour: usize) {
        self.0 |= 1 << hour.min(63);
    }

    /// Whether an hour is in the set.
    pub fn contains(&self, hour: usize) -> bool {
        self.0 >> hour.min(63) & 1 == 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Adds the hours of another set.
    pub fn merge(&mut self, other: HourSet) {
        self.0 |= other.0;
    }
}

/// Key of a heat map cell: hour, column, row.
type CellKey = (u8, i32, i32);
type Cells = HashMap<CellKey, u64, foldhash::fast::FixedState>;

/// Gathers a venue-day. Takes sessions (as a [`SessionSink`]) and events of the other kinds, in any order and any split.
#[derive(Debug, Clone)]
pub struct DayAccumulator {
    cut: DayCut,
    layout: Layout,
    /// Each zone of the layout, then `_venue`.
    zones: Vec<ZoneBuckets>,
    /// Names of the layers, sorted; and each zone's layer.
    layers: Vec<String>,
    layer_of: Vec<u8>,
    /// (hour, layer, from, to) and how often.
    transitions: BTreeMap<(u8, u8, u16, u16), u64>,
    floors: Vec<(Option<String>, Cells)>,
    /// The cell in which time is being gathered, so that people who stand still cost no look-up.
    pending: Option<(usize, CellKey, u64)>,
    hour: CurrentHour,
    other: OtherKinds,
    changed: HourSet,
}

/// The hour of the last instant asked for: most instants lie in the same hour as the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CurrentHour {
    start: TsMs,
    end: TsMs,
    index: usize,
}

impl CurrentHour {
    #[inline]
    pub(super) fn index_of(&mut self, cut: &DayCut, ts: TsMs) -> usize {
        if !(self.start..self.end).contains(&ts) {
            let index = cut.hour_index(ts);
            if let Some(hour) = cut.hours.get(index) {
                *self = Self {
                    start: hour.start,
                    end: hour.end,
                    index,
                };
            }
        }
        self.index
    }
}

impl DayAccumulator {
    /// An accumulator of a day under the layout in force.
    pub fn new(cut: &DayCut, layout: &Layout) -> Self {
        let mut layers: Vec<String> = layout.zones.iter().map(|zone| zone.layer.clone()).collect();
        layers.sort();
        layers.dedup();
        let number = |layer: &String| layers.binary_search(layer).unwrap_or(0) as u8;
        let layer_of = layout.zones.iter().map(|zone| number(&zone.layer)).collect();
        Self {
            cut: cut.clone(),
            layout: layout.clone(),
            zones: vec![ZoneBuckets::new(cut); layout.zones.len() + 1],
            layers,
            layer_of,
            transitions: BTreeMap::new(),
            floors: Vec::new(),
            pending: None,
            hour: CurrentHour::default(),
            other: OtherKinds::new(cut.hours.len(), layout),
            changed: HourSet::default(),
        }
    }

    /// The day.
    pub fn cut(&self) -> &DayCut {
        &self.cut
    }

    /// Adds events of any kind: of positions only that their sensors were alive (their sessions come through the
    /// fold). `rows` are those that count, or all.
    pub fn add_events(&mut self, batch: &EventBatch, rows: Option<&[u32]>) {
        self.other.add(&self.cut, batch, rows);
        let each = |row: usize| self.cut.hour_index(batch.ts[row]);
        let mut changed = HourSet::default();
        match rows {
            Some(rows) => rows.iter().for_each(|&row| changed.insert(each(row as usize))),
            None if batch.kind == crate::event::Kind::Position => {}
            None => (0..batch.len()).for_each(|row| changed.insert(each(row))),
        }
        self.changed.merge(changed);
    }

    /// Counts positions as signs of life of their sensors. All chunks of a day share one growing dictionary.
    pub fn observe_positions(&mut self, batch: &EventBatch, rows: Option<&[u32]>) {
        self.other.observe_alive(&self.cut, batch, rows);
    }

    /// The last samples of cumulative counters before the day.
    pub fn set_carry(&mut self, carry: Carry) {
        self.other.carry_in = carry;
    }

    /// The last samples of cumulative counters at the day's end, those carried in included.
    pub fn carry_out(&self) -> Carry {
        self.other.carry_out()
    }

    /// Hours that changed since this was last asked.
    pub fn take_changed(&mut self) -> HourSet {
        std::mem::take(&mut self.changed)
    }

    /// All rows of the day, sorted.
    pub fn rows(&self) -> Vec<AggregateRow> {
        self.rows_with(None, HourSet::all(), true)
    }

    /// Rows of some hours, and of the day if asked for, with what a provisional accumulator of the same day and layout
    /// holds beside (sessions that are still open). Sorted by (grain, start, family, subject, slice).
    pub fn rows_with(
        &self,
        provisional: Option<&DayAccumulator>,
        hours: HourSet,
        day: bool,
    ) -> Vec<AggregateRow> {
        let parts: Vec<&DayAccumulator> = std::iter::once(self).chain(provisional).collect();
        let mut rows = Vec::new();
        for index in (0..self.cut.hours.len()).filter(|&index| hours.contains(index)) {
            let hour = self.cut.hours[index];
            let out = Out {
                grain: Grain::Hour,
                start: hour.start,
                length_ms: hour.length_ms(),
                rows: &mut rows,
            };
            self.zone_rows(&parts, Some(index), out);
        }
        if day {
            let length_ms = self.cut.end - self.cut.start;
            let out = Out {
                grain: Grain::Day,
                start: self.cut.start,
                length_ms,
                rows: &mut rows,
            };
            self.zone_rows(&parts, None, out);
        }
        let line_totals = self.other.rows(&self.cut, &self.layout, hours, day, &mut rows);
        self.traffic_rows(&parts, &line_totals, hours, day, &mut rows);
        rows.sort_by(row_order);
        rows
    }

    fn zone_rows(&self, parts: &[&DayAccumulator], hour: Option<usize>, mut out: Out<'_>) {
        let bucket = Bucket {
            start: out.start,
            end: out.start + out.length_ms,
            day: self.cut.day,
        };
        let mut stays: Vec<Stay> = Vec::new();
        for index in 0..self.zones.len() {
            stays.clear();
            for part in parts {
                match hour {
                    Some(hour) => stays.extend_from_slice(part.zones[index].hour(hour)),
                    None => stays.extend(part.zones[index].day(&self.cut)),
                }
            }
            let zone = self.layout.zones.get(index);
            // The pseudo-zone has no threshold of its own: the default one.
            let engaged_after_ms = zone.map_or(10_000, |zone| zone.engaged_after_ms);
            if let Some(value) = zone_value(&stays, bucket, engaged_after_ms, hour.is_none()) {
                out.push(
                    Family::Zone,
                    zone.map_or(VENUE_ZONE, |zone| &zone.id),
                    Value::Zone(value),
                );
            }
        }
        self.transition_rows(parts, hour, &mut out);
        self.cell_rows(parts, hour, &mut out);
    }

    fn transition_rows(&self, parts: &[&DayAccumulator], hour: Option<usize>, out: &mut Out<'_>) {
        let mut by_layer: BTreeMap<u8, BTreeMap<(u16, u16), u64>> = BTreeMap::new();
        for part in parts {
            for (&(at, layer, from, to), count) in &part.transitions {
                if hour.is_none_or(|hour| hour == usize::from(at)) {
                    *by_layer.entry(layer).or_default().entry((from, to)).or_default() += count;
                }
            }
        }
        for (layer, counts) in by_layer {
            let name = |zone: u16| self.layout.zones[usize::from(zone)].id.clone();
            let transitions = counts
                .into_iter()
                .map(|((from, to), count)| Transition {
                    from: name(from),
                    to: name(to),
                    count,
                })
                .collect();
            out.push(
                Family::Transition,
                &self.layers[usize::from(layer)],
                Value::Transition(transitions),
            );
        }
    }

    fn cell_rows(&self, parts: &[&DayAccumulator], hour: Option<usize>, out: &mut Out<'_>) {
        let mut floors: BTreeMap<&str, BTreeMap<(i32, i32), u64>> = BTreeMap::new();
        let wanted = |key: &CellKey| hour.is_none_or(|hour| hour == usize::from(key.0));
        for part in parts {
            for (floor, cells) in &part.floors {
                let sums = floors.entry(floor.as_deref().unwrap_or("")).or_default();
                for (key, ms) in cells.iter().filter(|(key, _)| wanted(key)) {
                    *sums.entry((key.2, key.1)).or_default() += ms;
                }
            }
            if let Some((floor, key, ms)) = part.pending.filter(|(_, key, _)| wanted(key)) {
                let sums = floors
                    .entry(part.floors[floor].0.as_deref().unwrap_or(""))
                    .or_default();
                *sums.entry((key.2, key.1)).or_default() += ms;
            }
        }
        for (floor, sums) in floors.into_iter().filter(|(_, sums)| !sums.is_empty()) {
            let cells = sums
                .into_iter()
                .map(|((row, column), ms)| (column, row, ms))
                .collect();
            let value = CellValue {
                cell_cm: self.layout.rules.heat_cell_cm,
                cells,
            };
            out.push(Family::Cell, floor, Value::Cell(value));
        }
    }

    /// Footfall and occupancy: for every hour from the first to the last of which anything is known, and for the day.
    fn traffic_rows(
        &self,
        parts: &[&DayAccumulator],
        lines: &BTreeMap<String, Vec<(i64, i64)>>,
        hours: HourSet,
        day: bool,
        rows: &mut Vec<AggregateRow>,
    ) {
        let n = self.cut.hours.len();
        let source = if self.layout.has_entrance() {
            FootfallSource::Lines
        } else {
            FootfallSource::Sessions
        };
        let mut crossed = vec![(0_i64, 0_i64); n];
        let mut known: Vec<bool> = vec![false; n];
        for (line, counts) in lines {
            for (hour, &(inward, outward)) in counts.iter().enumerate() {
                known[hour] |= (inward, outward) != (0, 0);
                if self.layout.line_role(line) == LineRole::Entrance {
                    crossed[hour].0 += inward;
                    crossed[hour].1 += outward;
                }
            }
        }
        let venue = self.zones.len() - 1;
        let mut entered = vec![0_u64; n];
        for part in parts {
            for (hour, cut) in self.cut.hours.iter().enumerate() {
                let stays = part.zones[venue].hour(hour);
                known[hour] |= !stays.is_empty();
                let is_entered = |stay: &&Stay| (cut.start..cut.end).contains(&stay.enter);
                entered[hour] += stays.iter().filter(is_entered).count() as u64;
            }
        }
        let (Some(first), Some(last)) = (known.iter().position(|&k| k), known.iter().rposition(|&k| k))
        else {
            return;
        };
        let value = |inward: i64, outward: i64, entered: u64, occupancy_est: i64| {
            let footfall = match source {
                FootfallSource::Lines => inward.max(0) as u64,
                FootfallSource::Sessions => entered,
            };
            Value::Traffic(TrafficValue {
                source,
                footfall,
                inward,
                outward,
                occupancy_est,
            })
        };
        let mut occupancy = 0;
        for hour in first..=last {
            let (inward, outward) = crossed[hour];
            occupancy += inward - outward;
            if hours.contains(hour) {
                let cut = self.cut.hours[hour];
                let mut out = Out {
                    grain: Grain::Hour,
                    start: cut.start,
                    length_ms: cut.length_ms(),
                    rows,
                };
                out.push(
                    Family::Traffic,
                    "",
                    value(inward, outward, entered[hour], occupancy),
                );
            }
        }
        if day {
            let sum = |pick: fn(&(i64, i64)) -> i64| crossed.iter().map(pick).sum::<i64>();
            let (inward, outward) = (sum(|c| c.0), sum(|c| c.1));
            let length_ms = self.cut.end - self.cut.start;
            let mut out = Out {
                grain: Grain::Day,
                start: self.cut.start,
                length_ms,
                rows,
            };
            out.push(
                Family::Traffic,
                "",
                value(inward, outward, entered.iter().sum(), occupancy),
            );
        }
    }

    fn flush_pending(&mut self) {
        if let Some((floor, key, ms)) = self.pending.take() {
            *self.floors[floor].1.entry(key).or_default() += ms;
        }
    }

    fn add_transitions(&mut self, visits: &[ZoneVisit]) {
        for layer in 0..self.layers.len() as u8 {
            let mut before: Option<&ZoneVisit> = None;
            for visit in visits
                .iter()
                .filter(|visit| self.layer_of[usize::from(visit.zone)] == layer)
            {
                if let Some(before) = before.filter(|before| before.zone != visit.zone) {
                    let hour = self.cut.hour_index(visit.enter) as u8;
                    *self
                        .transitions
                        .entry((hour, layer, before.zone, visit.zone))
                        .or_default() += 1;
                }
                before = Some(visit);
            }
        }
    }
}

impl SessionSink for DayAccumulator {
    fn session(&mut self, session: Session) {
        self.add_session(&session);
    }

    #[inline]
    fn stay(&mut self, at: &PositionEvent<'_>, duration_ms: i64) {
        let side_m = f64::from(self.layout.rules.heat_cell_cm) / 100.0;
        // Casting cuts at the ends of 32 bits, far outside any building.
        let cell = |metres: f32| {
            let place = f64::from(metres) / side_m;
            let cut = place as i32;
            // The floor by truncation: `f64::floor` is a call where the processor's baseline has no instruction for it.
            cut.saturating_sub(i32::from(f64::from(cut) > place))
        };
        let hour = self.hour.index_of(&self.cut, at.ts);
        let key = (hour as u8, cell(at.x), cell(at.y));
        let ms = duration_ms.max(0) as u64;
        let same_floor = |floor: usize| self.floors[floor].0.as_deref() == at.floor;
        match &mut self.pending {
            Some((floor, pending, sum)) if *pending == key && same_floor(*floor) => *sum += ms,
            _ => {
                self.flush_pending();
                let known = self
                    .floors
                    .iter()
                    .position(|(floor, _)| floor.as_deref() == at.floor);
                let floor = known.unwrap_or_else(|| {
                    self.floors.push((at.floor.map(str::to_owned), Cells::default()));
                    self.floors.len() - 1
                });
                self.pending = Some((floor, key, ms));
                self.changed.insert(hour);
            }
        }
    }
}

impl DayAccumulator {
    /// Adds a session (what [`SessionSink::session`] does, without taking it).
    pub fn add_session(&mut self, session: &Session) {
        let subject = session.subject.hash();
        let venue = self.zones.len() - 1;
        self.zones[venue].add(
            &self.cut,
            Stay {
                enter: session.start,
                exit: session.end,
                subject,
            },
        );
        for visit in &session.visits {
            let stay = Stay {
                enter: visit.enter,
                exit: visit.exit,
                subject,
            };
            self.zones[usize::from(visit.zone)].add(&self.cut, stay);
        }
        self.add_transitions(&session.visits);
        for hour in self.cut.hour_index(session.start)..=self.cut.hour_index(session.end) {
            self.changed.insert(hour);
        }
    }
}

/// Where the rows of one bucket go.
pub(super) struct Out<'a> {
    pub(super) grain: Grain,
    pub(super) start: TsMs,
    pub(super) length_ms: i64,
    pub(super) rows: &'a mut Vec<AggregateRow>,
}

impl Out<'_> {
    pub(super) fn push(&mut self, family: Family, subject: &str, value: Value) {
        self.rows.push(AggregateRow {
            grain: self.grain,
            start: self.start,
            length_ms: self.length_ms,
            family,
            subject: subject.to_owned(),
            slice: Slice::All,
            value,
        });
    }
}

/// Sensors' numbers in a dictionary, by string number, for loops over batches.
#[derive(Debug, Default)]
pub(super) struct IdTable {
    slots: Vec<u32>,
}

impl IdTable {
    /// The slot of a string number; `make` gives it at first sight.
    #[inline]
    pub(super) fn slot(&mut self, id: StringId, make: impl FnOnce() -> usize) -> usize {
        let id = id as usize;
        if id >= self.slots.len() {
            self.slots.resize(id + 1, u32::MAX);
        }
        if self.slots[id] == u32::MAX {
            self.slots[id] = make() as u32;
        }
        self.slots[id] as usize
    }
}
