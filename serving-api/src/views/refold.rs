//! A venue-day computed once more from the archive, and which events stand behind one bucket of it.
//!
//! The day's files are those that the generation names, and the exclusions those that it applied, so that the same events
//! are folded as then; the folds are the model's. Runs on a blocking thread, one chunk in memory at a time, and what the
//! day's sessions and buckets take; a kind that exclusions may bear on is held whole, since a covered payload may come
//! back in place of an excluded one. Of the events behind a bucket only a page is kept.

use std::collections::BTreeMap;

use dwell_model::event::{Delivery, EventBatch, Kind, RawRows, field, resolve};
use dwell_model::exclusion::DayExclusions;
use dwell_model::ids::{Receipt, VenueKey};
use dwell_model::layout::{Layout, VENUE_ZONE, Zone};
use dwell_model::metrics::{
    AggregateRow, Carry, DayAccumulator, Family, FootfallSource, Slice, TrafficValue, Value,
};
use dwell_model::session::{DayFold, FoldContext, PositionEvent, Session, SessionSink};
use dwell_model::time::{DayCut, TsMs};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, Dataset, DayReader, GenerationInfo, Projection};

use super::series::Subject;
use crate::problem::Problem;
use crate::state::AppState;

/// Most sensors, and most receipts, that are told apart.
const SOURCES_MAX: usize = 1_000;

/// A bucket whose events are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// What kind of result it is.
    pub(crate) family: Family,
    /// What it is about.
    pub(crate) subject: Subject,
    /// First instant.
    pub(crate) start: TsMs,
    /// First instant after it.
    pub(crate) end: TsMs,
    /// Where the footfall comes from, for traffic.
    pub(crate) footfall: Option<FootfallSource>,
    /// Events to pass over.
    pub(crate) skip: u64,
    /// Events to keep.
    pub(crate) limit: usize,
}

/// An event behind a bucket.
#[derive(Debug, Clone)]
pub(crate) struct EventBehind {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its time.
    pub(crate) ts: TsMs,
    /// Who sent it.
    pub(crate) sensor: String,
    /// Its key: track, line, counter, number, quantity. Of a device nothing is told.
    pub(crate) key: Option<String>,
    /// Where it was, in metres.
    pub(crate) position: Option<(f32, f32)>,
    /// What brought it first.
    pub(crate) delivery: Delivery,
}

/// What the day comes to, and what stands behind the bucket.
#[derive(Debug, Default)]
pub(crate) struct Refolded {
    /// The rows of the day, of all events.
    pub(crate) rows: Vec<AggregateRow>,
    /// Events of the bucket in all.
    pub(crate) events: u64,
    /// Those of the page, in the archive's order: by key, then time.
    pub(crate) page: Vec<EventBehind>,
    /// Events of the bucket by sensor.
    pub(crate) sensors: BTreeMap<String, u64>,
    /// Events of the bucket by receipt.
    pub(crate) receipts: BTreeMap<Receipt, u64>,
}

/// Folds the day of a generation from the files that it names, with the layout and the exclusions that it was computed
/// with. `NotFound` as a store's error when a file is gone.
pub(crate) async fn refold(
    state: &AppState,
    venue: &VenueKey,
    info: &GenerationInfo,
    cut: DayCut,
    layout: Layout,
    exclusions: DayExclusions,
    wanted: Wanted,
) -> Result<Refolded, Problem> {
    let archive = &state.stores().archive;
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let files = |dataset: Dataset| -> Vec<_> {
            let of_kind = info.files.iter().filter(|file| file.kind == kind);
            of_kind.filter(|file| file.dataset == dataset).cloned().collect()
        };
        let held = ArchivedDay {
            events: files(Dataset::Events),
            superseded: files(Dataset::Superseded),
            ..ArchivedDay::default()
        };
        if held.events.is_empty() {
            continue;
        }
        let winners = archive.open(venue, &held, Projection::EventsAndDeliveries);
        let winners = winners.await?;
        let superseded = match exclusions.is_empty() || held.superseded.is_empty() {
            true => RawRows::new(EventBatch::new(kind)),
            false => archive.superseded(venue, kind, &held).await?,
        };
        kinds.push(KindRows { winners, superseded });
    }
    let carry = info.carry_in.clone();
    let folding = blocking("explain", move || {
        fold(kinds, &cut, &layout, carry, &exclusions, &wanted)
    });
    let folded = folding.await;
    folded.map_err(|error| Problem::internal(error.to_string()))?
}

/// A kind of the day's events.
struct KindRows {
    winners: Box<dyn DayReader>,
    /// Read only where exclusions may bring a covered payload back.
    superseded: RawRows,
}

fn fold(
    kinds: Vec<KindRows>,
    cut: &DayCut,
    layout: &Layout,
    carry: Carry,
    exclusions: &DayExclusions,
    wanted: &Wanted,
) -> Result<Refolded, Problem> {
    let context = FoldContext::new(cut, layout);
    let mut fold = DayFold::new(&context);
    let mut buckets = Buckets(DayAccumulator::new(cut, layout));
    buckets.0.set_carry(carry);
    let mut found = Refolded::default();
    let zone = match &wanted.subject {
        Subject::Zone(id) => layout.zones.iter().find(|zone| zone.id == *id),
        _ => None,
    };
    // Rows that count, in the order (key, ts), each with its first delivery.
    let mut take = |events: &EventBatch, counting: &mut dyn Iterator<Item = (u32, Delivery)>| {
        let (inside, first): (Vec<u32>, Vec<Delivery>) = counting
            .filter(|(row, _)| (cut.start..cut.end).contains(&events.ts[*row as usize]))
            .unzip();
        if events.kind == Kind::Position {
            buckets.0.observe_positions(events, Some(&inside));
            fold.push_chunk(events, Some(&inside), &mut buckets);
        } else {
            buckets.0.add_events(events, Some(&inside));
        }
        for (row, delivery) in inside.into_iter().zip(first) {
            if is_behind(wanted, zone, events, row as usize) {
                found.see(wanted, events, row as usize, delivery);
            }
        }
    };
    for mut kind in kinds {
        let mut all = kind.superseded;
        while let Some(chunk) = kind.winners.next_chunk()? {
            let mut rows = (0..).zip(chunk.first.iter().copied());
            if exclusions.is_empty() {
                take(chunk.events, &mut rows);
                continue;
            }
            for (row, delivery) in rows {
                all.events.push_from(chunk.events, row as usize);
                all.deliveries.push(delivery);
                all.ends.push(all.deliveries.len() as u32);
            }
        }
        let on = exclusions.on(&all.events);
        let left = resolve(&all, |row, delivery| on.covers(&all.events, row, delivery));
        take(&all.events, &mut left.winners.into_iter().zip(left.first));
    }
    fold.finish(&mut buckets);
    found.rows = buckets.0.rows();
    found.rows.retain(|row| row.slice == Slice::All);
    Ok(found)
}

/// Whether an event is one of those that the bucket was made of: of its time, and of its subject.
fn is_behind(wanted: &Wanted, zone: Option<&Zone>, events: &EventBatch, row: usize) -> bool {
    if !(wanted.start..wanted.end).contains(&events.ts[row]) {
        return false;
    }
    let is_kind = |kind: Kind| events.kind == kind;
    match (wanted.family, &wanted.subject) {
        (Family::Zone, Subject::Zone(id)) if id == VENUE_ZONE => is_kind(Kind::Position),
        (Family::Zone, _) => is_kind(Kind::Position) && zone.is_some_and(|zone| is_in(zone, events, row)),
        (Family::Line, Subject::Line(line)) => {
            is_kind(Kind::Crossing) && events.text(field::crossing::LINE, row) == Some(line.as_str())
        }
        (Family::Traffic, _) => match wanted.footfall {
            Some(FootfallSource::Lines) => is_kind(Kind::Crossing),
            _ => is_kind(Kind::Position),
        },
        (Family::Transaction, Subject::Currency(currency)) => {
            is_kind(Kind::Transaction)
                && events.text(field::transaction::CURRENCY, row) == Some(currency.as_str())
        }
        (Family::Counter, Subject::Counter { sensor, counter, .. }) => {
            is_kind(Kind::Count) && events.sensor(row) == sensor && events.key(row) == counter
        }
        (Family::Reading, Subject::Reading { sensor, reading }) => {
            is_kind(Kind::Reading) && events.sensor(row) == sensor && events.key(row) == reading
        }
        (Family::Presence, _) => is_kind(Kind::Presence),
        _ => false,
    }
}

fn is_in(zone: &Zone, events: &EventBatch, row: usize) -> bool {
    let at = |field: usize| events.f32s(field).get(row).copied();
    let (Some(x), Some(y)) = (at(field::position::X), at(field::position::Y)) else {
        return false;
    };
    let floor = events.text(field::position::FLOOR, row);
    zone.floor.as_deref().is_none_or(|wanted| floor == Some(wanted)) && zone.polygon.contains(x, y)
}

impl Refolded {
    fn see(&mut self, wanted: &Wanted, events: &EventBatch, row: usize, delivery: Delivery) {
        let sensor = events.sensor(row);
        if self.sensors.contains_key(sensor) || self.sensors.len() < SOURCES_MAX {
            *self.sensors.entry(sensor.to_owned()).or_default() += 1;
        }
        if self.receipts.contains_key(&delivery.receipt) || self.receipts.len() < SOURCES_MAX {
            *self.receipts.entry(delivery.receipt).or_default() += 1;
        }
        if self.events >= wanted.skip && self.page.len() < wanted.limit {
            let at = |field: usize| events.f32s(field).get(row).copied();
            let is_position = events.kind == Kind::Position;
            let position = is_position.then(|| at(field::position::X).zip(at(field::position::Y)));
            self.page.push(EventBehind {
                kind: events.kind,
                ts: events.ts[row],
                sensor: sensor.to_owned(),
                key: (events.kind != Kind::Presence).then(|| events.key(row).replace('\u{1f}', "/")),
                position: position.flatten(),
                delivery,
            });
        }
        self.events += 1;
    }
}

/// The footfall source of a traffic row.
pub(crate) fn footfall_source(value: &Value) -> Option<FootfallSource> {
    match value {
        Value::Traffic(TrafficValue { source, .. }) => Some(*source),
        _ => None,
    }
}

/// Sessions go into the buckets only.
struct Buckets(DayAccumulator);

impl SessionSink for Buckets {
    fn session(&mut self, session: Session) {
        self.0.add_session(&session);
    }

    fn stay(&mut self, at: &PositionEvent<'_>, duration_ms: i64, is_staff: bool) {
        self.0.stay(at, duration_ms, is_staff);
    }
}
