//! What is gathered of sessions: visits per zone, transitions, time per cell; and the rows made of it.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::accumulate::{BucketOut, Day};
use super::zone_buckets::{Bucket, Stay, ZoneBuckets, zone_value};
use super::{CellValue, Family, Slice, Transition, Value};
use crate::layout::{Layout, VENUE_ZONE};
use crate::session::{Session, ZoneVisit};

/// Key of a heat map cell: part of the day, column, row.
type CellKey = (u8, i32, i32);
/// Milliseconds by (row, column).
type CellSums = BTreeMap<(i32, i32), u64>;
type Cells = HashMap<CellKey, u64, foldhash::fast::FixedState>;

/// Sessions of a venue-day: of everybody, or of staff only.
#[derive(Debug, Clone)]
pub(super) struct Tracks {
    /// Each zone of the layout, then `_venue`.
    zones: Vec<ZoneBuckets>,
    /// (part of the day, layer, from, to) and how often.
    transitions: BTreeMap<(u8, u8, u16, u16), u64>,
    floors: Vec<(Option<String>, Cells)>,
    /// The cell in which time is being gathered, so that people who stand still cost no look-up.
    pending: Option<(usize, CellKey, u64)>,
}

impl Tracks {
    pub(super) fn new(day: &Day) -> Self {
        Self {
            zones: vec![ZoneBuckets::new(&day.cut); day.layout.zones.len() + 1],
            transitions: BTreeMap::new(),
            floors: Vec::new(),
            pending: None,
        }
    }

    /// The visits of the venue that touch an hour.
    pub(super) fn venue_stays(&self, hour: usize) -> &[Stay] {
        self.zones.last().map_or(&[], |venue| venue.hour(hour))
    }

    pub(super) fn add_session(&mut self, day: &Day, session: &Session) {
        let subject = session.subject.hash();
        let venue = self.zones.len() - 1;
        self.zones[venue].add(
            &day.cut,
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
            self.zones[usize::from(visit.zone)].add(&day.cut, stay);
        }
        self.add_transitions(day, &session.visits);
    }

    /// Adds time to a cell of a floor. Returns whether it is another cell than the one before.
    #[inline]
    pub(super) fn add_time(&mut self, of_floor: Option<&str>, key: CellKey, ms: u64) -> bool {
        match &mut self.pending {
            Some((floor, pending, sum))
                if *pending == key && self.floors[*floor].0.as_deref() == of_floor =>
            {
                *sum += ms;
                false
            }
            _ => {
                self.begin_cell(of_floor, key, ms);
                true
            }
        }
    }

    fn begin_cell(&mut self, of_floor: Option<&str>, key: CellKey, ms: u64) {
        if let Some((floor, key, ms)) = self.pending.take() {
            *self.floors[floor].1.entry(key).or_default() += ms;
        }
        let known = self
            .floors
            .iter()
            .position(|(floor, _)| floor.as_deref() == of_floor);
        let floor = known.unwrap_or_else(|| {
            self.floors.push((of_floor.map(str::to_owned), Cells::default()));
            self.floors.len() - 1
        });
        self.pending = Some((floor, key, ms));
    }

    fn add_transitions(&mut self, day: &Day, visits: &[ZoneVisit]) {
        for layer in 0..day.layers.len() as u8 {
            let mut before: Option<&ZoneVisit> = None;
            for visit in visits
                .iter()
                .filter(|visit| day.layer_of[usize::from(visit.zone)] == layer)
            {
                if let Some(before) = before.filter(|before| before.zone != visit.zone) {
                    let part = day.parts.part_of(&day.cut, visit.enter) as u8;
                    *self
                        .transitions
                        .entry((part, layer, before.zone, visit.zone))
                        .or_default() += 1;
                }
                before = Some(visit);
            }
        }
    }
}

/// The rows of a bucket in some slices, from sessions in several places (settled, and still open).
pub(super) fn rows(day: &Day, tracks: &[&Tracks], slices: &[Slice], out: &mut BucketOut<'_>) {
    zone_rows(day, tracks, slices, out);
    transition_rows(day, tracks, slices, out);
    cell_rows(day, tracks, slices, out);
}

fn zone_rows(day: &Day, tracks: &[&Tracks], slices: &[Slice], out: &mut BucketOut<'_>) {
    let mut stays: Vec<Stay> = Vec::new();
    for index in 0..=day.layout.zones.len() {
        stays.clear();
        for part in tracks {
            match out.hour {
                Some(hour) => stays.extend_from_slice(part.zones[index].hour(hour)),
                None => stays.extend(part.zones[index].day(&day.cut)),
            }
        }
        if stays.is_empty() {
            continue;
        }
        let zone = day.layout.zones.get(index);
        // The pseudo-zone has no threshold of its own: the default one.
        let engaged_after_ms = zone.map_or(10_000, |zone| zone.engaged_after_ms);
        for &slice in slices {
            let bucket = Bucket {
                start: out.start,
                end: out.end,
                day: day.cut.day,
                open: day.parts.open().filter(|_| slice == Slice::Open),
            };
            if let Some(value) = zone_value(&stays, bucket, engaged_after_ms, out.hour.is_none()) {
                let name = zone.map_or(VENUE_ZONE, |zone| &zone.id);
                out.push(slice, Family::Zone, name, Value::Zone(value));
            }
        }
    }
}

fn transition_rows(day: &Day, tracks: &[&Tracks], slices: &[Slice], out: &mut BucketOut<'_>) {
    let mut by_layer: BTreeMap<(Slice, u8), BTreeMap<(u16, u16), u64>> = BTreeMap::new();
    for part in tracks {
        for (&(at, layer, from, to), count) in &part.transitions {
            let taking = |slice: &&Slice| out.takes(day, **slice, usize::from(at));
            for &slice in slices.iter().filter(taking) {
                let counts = by_layer.entry((slice, layer)).or_default();
                *counts.entry((from, to)).or_default() += count;
            }
        }
    }
    for ((slice, layer), counts) in by_layer {
        let transitions = counts.into_iter().map(|((from, to), count)| Transition {
            from: zone_id(&day.layout, from),
            to: zone_id(&day.layout, to),
            count,
        });
        let value = Value::Transition(transitions.collect());
        out.push(slice, Family::Transition, &day.layers[usize::from(layer)], value);
    }
}

fn cell_rows(day: &Day, tracks: &[&Tracks], slices: &[Slice], out: &mut BucketOut<'_>) {
    // One walk over the cells for all slices: there are many cells.
    let mut floors: BTreeMap<&str, Vec<CellSums>> = BTreeMap::new();
    for part in tracks {
        for (index, (floor, cells)) in part.floors.iter().enumerate() {
            let by_slice = floors
                .entry(floor.as_deref().unwrap_or(""))
                .or_insert_with(|| vec![CellSums::new(); slices.len()]);
            let pending = part.pending.as_ref().filter(|(of, _, _)| *of == index);
            for (key, ms) in cells.iter().chain(pending.map(|(_, key, ms)| (key, ms))) {
                for (sums, &slice) in by_slice.iter_mut().zip(slices) {
                    if out.takes(day, slice, usize::from(key.0)) {
                        *sums.entry((key.2, key.1)).or_default() += ms;
                    }
                }
            }
        }
    }
    for (floor, by_slice) in floors {
        for (sums, &slice) in by_slice.into_iter().zip(slices) {
            if sums.is_empty() {
                continue;
            }
            let cells = sums
                .into_iter()
                .map(|((row, column), ms)| (column, row, ms))
                .collect();
            let value = CellValue {
                cell_cm: day.layout.rules.heat_cell_cm,
                cells,
            };
            out.push(slice, Family::Cell, floor, Value::Cell(value));
        }
    }
}

fn zone_id(layout: &Layout, zone: u16) -> String {
    layout.zones[usize::from(zone)].id.clone()
}
