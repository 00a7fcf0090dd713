//! From sessions and events to a venue-day's rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::other_kinds::OtherKinds;
use super::parts::{CurrentPart, DayParts};
use super::tracks::{self, Tracks};
use super::{AggregateRow, DaySlices, Family, Grain, Slice, Value, row_order, traffic};
use crate::event::{EventBatch, StringId};
use crate::layout::{Layout, StaffTags, open_ms};
use crate::session::{PositionEvent, Session, SessionSink};
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

/// Gathers a venue-day. Takes sessions (as a [`SessionSink`]) and events of the other kinds, in any order and any split,
/// and gives the rows of every slice that the layout declares (see [`Slice`]).
#[derive(Debug, Clone)]
pub struct DayAccumulator {
    day: Day,
    everybody: Tracks,
    /// Where staff tags are declared: the sessions of staff once more.
    staff: Option<Tracks>,
    at: CurrentPart,
    other: OtherKinds,
    changed: HourSet,
}

/// What a day is gathered into: its hours, its layout, its slices.
#[derive(Debug, Clone)]
pub(super) struct Day {
    pub(super) cut: DayCut,
    pub(super) layout: Layout,
    pub(super) parts: DayParts,
    pub(super) staff_tags: StaffTags,
    /// Names of the layers, sorted; and each zone's layer.
    pub(super) layers: Vec<String>,
    pub(super) layer_of: Vec<u8>,
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

impl Day {
    fn new(cut: &DayCut, layout: &Layout) -> Self {
        let mut layers: Vec<String> = layout.zones.iter().map(|zone| zone.layer.clone()).collect();
        layers.sort();
        layers.dedup();
        let number = |layer: &String| layers.binary_search(layer).unwrap_or(0) as u8;
        let layer_of = layout.zones.iter().map(|zone| number(&zone.layer)).collect();
        Self {
            parts: DayParts::new(cut, DaySlices::of(cut, layout).open),
            staff_tags: StaffTags::of(layout),
            cut: cut.clone(),
            layout: layout.clone(),
            layers,
            layer_of,
        }
    }
}

impl DayAccumulator {
    /// An accumulator of a day under the layout in force.
    pub fn new(cut: &DayCut, layout: &Layout) -> Self {
        let day = Day::new(cut, layout);
        Self {
            everybody: Tracks::new(&day),
            staff: (!day.staff_tags.is_empty()).then(|| Tracks::new(&day)),
            at: CurrentPart::default(),
            other: OtherKinds::new(&day),
            changed: HourSet::default(),
            day,
        }
    }

    /// The day.
    pub fn cut(&self) -> &DayCut {
        &self.day.cut
    }

    /// Adds events of any kind: of positions only that their sensors were alive (their sessions come through the
    /// fold). `rows` are those that count, or all.
    pub fn add_events(&mut self, batch: &EventBatch, rows: Option<&[u32]>) {
        self.other.add(&self.day, batch, rows);
        let each = |row: usize| self.day.cut.hour_index(batch.ts[row]);
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
        self.other.observe_alive(&self.day.cut, batch, rows);
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
        let places: Vec<&DayAccumulator> = std::iter::once(self).chain(provisional).collect();
        let everybody: Vec<&Tracks> = places.iter().map(|place| &place.everybody).collect();
        let staff: Vec<&Tracks> = places.iter().filter_map(|place| place.staff.as_ref()).collect();
        let mut rows = Vec::new();
        let hours_wanted = (0..self.day.cut.hours.len()).filter(|&hour| hours.contains(hour));
        for hour in hours_wanted {
            let mut out = BucketOut::of_hour(&self.day, hour, &mut rows);
            self.bucket_rows(&everybody, &staff, &mut out);
        }
        if day {
            let mut out = BucketOut::of_day(&self.day, &mut rows);
            self.bucket_rows(&everybody, &staff, &mut out);
        }
        self.other.rows(&self.day, hours, day, &mut rows);
        self.traffic_rows(&everybody, &staff, (hours, day), &mut rows);
        rows.sort_by(row_order);
        rows
    }

    fn bucket_rows(&self, everybody: &[&Tracks], staff: &[&Tracks], out: &mut BucketOut<'_>) {
        let slices = match out.has(Slice::Open) {
            true => &[Slice::All, Slice::Open][..],
            false => &[Slice::All],
        };
        tracks::rows(&self.day, everybody, slices, out);
        if !staff.is_empty() {
            tracks::rows(&self.day, staff, &[Slice::Staff], out);
        }
    }

    fn traffic_rows(
        &self,
        everybody: &[&Tracks],
        staff: &[&Tracks],
        wanted: (HourSet, bool),
        rows: &mut Vec<AggregateRow>,
    ) {
        let (day, all) = (&self.day, self.other.crossed(&self.day, Slice::All));
        let Some(known) = traffic::known_hours(&all, everybody) else {
            return;
        };
        traffic::rows(day, Slice::All, &all, everybody, &known, wanted, rows);
        if day.parts.open().is_some() {
            let open = self.other.crossed(day, Slice::Open);
            traffic::rows(day, Slice::Open, &open, everybody, &known, wanted, rows);
        }
        if !staff.is_empty() {
            let of_staff = self.other.crossed(day, Slice::Staff);
            traffic::rows(day, Slice::Staff, &of_staff, staff, &known, wanted, rows);
        }
    }
}

impl SessionSink for DayAccumulator {
    fn session(&mut self, session: Session) {
        self.add_session(&session);
    }

    #[inline]
    fn stay(&mut self, at: &PositionEvent<'_>, duration_ms: i64, is_staff: bool) {
        let side_m = f64::from(self.day.layout.rules.heat_cell_cm) / 100.0;
        // Casting cuts at the ends of 32 bits, far outside any building.
        let cell = |metres: f32| {
            let place = f64::from(metres) / side_m;
            let cut = place as i32;
            // The floor by truncation: `f64::floor` is a call where the processor's baseline has no instruction for it.
            cut.saturating_sub(i32::from(f64::from(cut) > place))
        };
        let part = self.at.index_of(&self.day.cut, &self.day.parts, at.ts);
        let cell = (cell(at.x), cell(at.y));
        let ms = duration_ms.max(0);
        // Time after the closing counts in its hour all the same, but not as time of opening.
        let open_ms = ms.min(self.at.closing().saturating_sub(at.ts));
        self.add_time(at.floor, part, cell, open_ms, is_staff);
        if open_ms < ms {
            let closed = self.day.parts.closed_twin(part);
            self.add_time(at.floor, closed, cell, ms - open_ms, is_staff);
        }
    }
}

impl DayAccumulator {
    /// Adds a session (what [`SessionSink::session`] does, without taking it).
    pub fn add_session(&mut self, session: &Session) {
        self.everybody.add_session(&self.day, session);
        if let Some(staff) = &mut self.staff
            && self.day.staff_tags.contains(&session.subject.track)
        {
            staff.add_session(&self.day, session);
        }
        let cut = &self.day.cut;
        for hour in cut.hour_index(session.start)..=cut.hour_index(session.end) {
            self.changed.insert(hour);
        }
    }

    #[inline]
    fn add_time(&mut self, floor: Option<&str>, part: usize, cell: (i32, i32), ms: i64, is_staff: bool) {
        let key = (part as u8, cell.0, cell.1);
        if self.everybody.add_time(floor, key, ms as u64) {
            self.changed.insert(self.day.parts.hour_of(part));
        }
        if is_staff && let Some(staff) = &mut self.staff {
            staff.add_time(floor, key, ms as u64);
        }
    }
}

/// Where the rows of one bucket go.
pub(super) struct BucketOut<'a> {
    grain: Grain,
    pub(super) start: TsMs,
    pub(super) end: TsMs,
    /// The hour; `None` for the day.
    pub(super) hour: Option<usize>,
    /// How much of it lies within opening hours.
    open_ms: i64,
    rows: &'a mut Vec<AggregateRow>,
}

impl<'a> BucketOut<'a> {
    pub(super) fn of_hour(day: &Day, hour: usize, rows: &'a mut Vec<AggregateRow>) -> Self {
        let bucket = &day.cut.hours[hour];
        Self::new(day, Grain::Hour, (bucket.start, bucket.end), Some(hour), rows)
    }

    pub(super) fn of_day(day: &Day, rows: &'a mut Vec<AggregateRow>) -> Self {
        Self::new(day, Grain::Day, (day.cut.start, day.cut.end), None, rows)
    }

    fn new(
        day: &Day,
        grain: Grain,
        (start, end): (TsMs, TsMs),
        hour: Option<usize>,
        rows: &'a mut Vec<AggregateRow>,
    ) -> Self {
        Self {
            grain,
            start,
            end,
            hour,
            open_ms: open_ms(day.parts.open().unwrap_or_default(), start, end),
            rows,
        }
    }

    /// The hours that the bucket covers.
    pub(super) fn hours(&self, day: &Day) -> std::ops::Range<usize> {
        match self.hour {
            Some(hour) => hour..hour + 1,
            None => 0..day.cut.hours.len(),
        }
    }

    /// Whether the bucket has rows of a slice: of `open` only where the venue is open at some time of it.
    pub(super) fn has(&self, slice: Slice) -> bool {
        slice != Slice::Open || self.open_ms > 0
    }

    /// Whether a part of the day counts in the bucket's rows of a slice.
    pub(super) fn takes(&self, day: &Day, slice: Slice, part: usize) -> bool {
        self.hour.is_none_or(|hour| hour == day.parts.hour_of(part)) && day.parts.is_in(part, slice)
    }

    pub(super) fn push(&mut self, slice: Slice, family: Family, subject: &str, value: Value) {
        self.rows.push(AggregateRow {
            grain: self.grain,
            start: self.start,
            length_ms: match slice {
                Slice::Open => self.open_ms,
                Slice::All | Slice::Staff => self.end - self.start,
            },
            family,
            subject: subject.to_owned(),
            slice,
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
