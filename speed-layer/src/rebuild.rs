//! Building a day's live state from the raw table and the log.
//!
//! A rebuild takes the raw writer's position in each partition of the shard first, then all raw rows of the day, then
//! what the log holds from those positions up to ours (the *tail*). Rows written meanwhile may be in both: the model's `resolve` unites them, so the
//! result is the state of all events before our positions whatever the raw writer does meanwhile. (It may hold later
//! ones as well; they are known then, and dropped when the log brings them.)
//!
//! The day is read in stretches of whole slots, so memory holds one stretch, never the day.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use dwell_model::event::{Delivery, EventBatch, Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{SLOT_MS, TsMs};
use dwell_runtime::tasks;
use dwell_storage::api::{EventLogReader, Partition, Position, RawEventsReader};
use futures::future::try_join_all;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::live_sessions::{DayPlan, DayState, EventHasher};
use crate::log_chunk;

pub(crate) use dwell_storage::api::RAW_WRITER;
/// Rows of a stretch below which the next one is longer, and above which it is shorter.
const STRETCH_ROWS: Range<usize> = 50_000..300_000;
/// Longest stretch, in slots.
const STRETCH_SLOTS_MAX: i64 = 36;

/// What a shard's rebuilds read.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) log: Arc<dyn EventLogReader>,
    pub(crate) raw: Arc<dyn RawEventsReader>,
    /// The partitions, each with where the log began for us: its tail begins there while the raw writer has not come so
    /// far. Not asked anew, so that a log that loses its beginning meanwhile is noticed.
    pub(crate) log_starts: Vec<(Partition, Position)>,
}

/// A stretch of a partition.
pub(crate) type Stretch = (Partition, Range<Position>);

/// Events of the log between the raw writer's positions and ours, by venue.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    venues: HashMap<VenueKey, Arc<VenueTail>>,
}

/// A venue's part of the tail, kind by kind.
#[derive(Debug, Default)]
pub(crate) struct VenueTail {
    kinds: Vec<RawRows>,
}

/// A day that was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) state: DayState,
    /// Its latest event time, if it has events.
    pub(crate) latest_ts: Option<TsMs>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("log_starts", &self.log_starts)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// For each partition the stretch from the position up to which everything is in the raw table, read before any row,
    /// to the given one: what a state up to there takes from the log.
    pub(crate) async fn stretches(&self, until: &[(Partition, Position)]) -> Result<Vec<Stretch>> {
        let mut stretches = Vec::with_capacity(self.log_starts.len());
        for &(partition, log_start) in &self.log_starts {
            let written = self.raw_position(partition).await?.unwrap_or(log_start);
            let until = until.iter().find(|(known, _)| *known == partition);
            let until = until.map_or(log_start, |(_, position)| *position);
            stretches.push((partition, written.max(log_start)..until));
        }
        Ok(stretches)
    }

    /// The raw writer's position in a partition, if it has begun there.
    pub(crate) async fn raw_position(&self, partition: Partition) -> Result<Option<Position>> {
        let epoch = self.log.epoch();
        Ok(self.raw.position(RAW_WRITER, epoch, partition).await?)
    }

    /// What stretches of the log hold of all venues for which `wanted` gives a range of event times. An error when that
    /// is more events than `events_max`.
    pub(crate) async fn tail(
        &self,
        stretches: &[Stretch],
        read_bytes: usize,
        events_max: u64,
        wanted: impl Fn(&VenueKey) -> Option<Range<TsMs>>,
    ) -> Result<Tail> {
        let mut gathered: HashMap<VenueKey, VenueTail> = HashMap::new();
        let mut events = 0_u64;
        for (partition, stretch) in stretches {
            let mut position = stretch.start;
            while position < stretch.end {
                let chunk = log_chunk::read(&*self.log, *partition, position, read_bytes).await?;
                if chunk.next <= position {
                    break;
                }
                for record in chunk
                    .records
                    .iter()
                    .filter(|record| record.position < stretch.end)
                {
                    let Some(range) = wanted(&record.venue) else {
                        continue;
                    };
                    let in_range = |(row, ts): (usize, &TsMs)| range.contains(ts).then_some(row as u32);
                    let rows: Vec<u32> = record.events.ts.iter().enumerate().filter_map(in_range).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    events += rows.len() as u64;
                    if events > events_max {
                        return Err(Error::RawWriterBehind { events });
                    }
                    let delivery = Delivery {
                        received_at: record.received_at,
                        receipt: record.receipt,
                    };
                    let delivered = RawRows::delivered_once(record.events.take(&rows), delivery);
                    gathered.entry(record.venue.clone()).or_default().add(&delivered);
                }
                position = chunk.next;
            }
        }
        Ok(Tail {
            venues: gathered
                .into_iter()
                .map(|(venue, tail)| (venue, Arc::new(tail)))
                .collect(),
        })
    }

    /// Builds a day from raw and its venue's tail. `settle_until` (the time up to which the log was read) and the reorder
    /// window bound what may be settled.
    pub(crate) async fn build(
        &self,
        plan: DayPlan,
        tail: Arc<VenueTail>,
        settle_until: TsMs,
        config: &Arc<Config>,
    ) -> Result<Built> {
        let plan = Arc::new(plan);
        let mut built = Built {
            state: DayState::new(Arc::clone(&plan), config),
            latest_ts: None,
        };
        let (mut start, mut slots) = (plan.cut.start, 1);
        while start < plan.cut.end {
            let boundary = (start.div_euclid(SLOT_MS) + slots) * SLOT_MS;
            let stretch = start..boundary.min(plan.cut.end);
            let scans = Kind::ALL.map(|kind| self.raw.scan(&plan.venue, kind, stretch.clone()));
            let kinds = try_join_all(scans).await?;
            kinds
                .iter()
                .try_for_each(RawRows::check)
                .map_err(|source| Error::Batch {
                    doing: "read raw events",
                    source,
                })?;
            let settle_before = stretch.start.min(settle_until) - config.reorder_window.as_ms();
            let (tail, range) = (Arc::clone(&tail), stretch.clone());
            let fold = move || fold_stretch(built, kinds, &tail, range, settle_before);
            let rows;
            (built, rows) = tasks::blocking("rebuild of a live day", fold).await?;
            start = stretch.end;
            slots = match rows {
                few if few < STRETCH_ROWS.start => (slots * 2).min(STRETCH_SLOTS_MAX),
                many if many > STRETCH_ROWS.end => (slots / 2).max(1),
                _ => slots,
            };
        }
        Ok(built)
    }
}

impl Tail {
    /// A venue's part.
    pub(crate) fn of(&self, venue: &VenueKey) -> Arc<VenueTail> {
        self.venues.get(venue).cloned().unwrap_or_default()
    }
}

impl VenueTail {
    /// Whether any event lies in a range of event times.
    pub(crate) fn touches(&self, range: &Range<TsMs>) -> bool {
        self.kinds
            .iter()
            .any(|rows| rows.events.ts.iter().any(|ts| range.contains(ts)))
    }

    fn add(&mut self, rows: &RawRows) {
        match self
            .kinds
            .iter_mut()
            .find(|known| known.events.kind == rows.events.kind)
        {
            Some(known) => known.append(rows),
            None => self.kinds.push(rows.clone()),
        }
    }

    /// Appends the events of a range to the raw rows of their kind.
    fn append_to(&self, raw: &mut RawRows, range: &Range<TsMs>) {
        let Some(tail) = self.kinds.iter().find(|tail| tail.events.kind == raw.events.kind) else {
            return;
        };
        let in_range = |(row, ts): (usize, &TsMs)| range.contains(ts).then_some(row as u32);
        let rows: Vec<u32> = tail.events.ts.iter().enumerate().filter_map(in_range).collect();
        if rows.is_empty() {
            return;
        }
        let mut part = RawRows::new(EventBatch::new(tail.events.kind));
        part.events = tail.events.take(&rows);
        for &row in &rows {
            part.deliveries.extend_from_slice(tail.deliveries(row as usize));
            part.ends.push(part.deliveries.len() as u32);
        }
        raw.append(&part);
    }
}

/// Takes a stretch of all kinds; returns the number of rows it had.
fn fold_stretch(
    mut built: Built,
    kinds: Vec<RawRows>,
    tail: &VenueTail,
    range: Range<TsMs>,
    settle_before: TsMs,
) -> (Built, usize) {
    let mut hasher = EventHasher::default();
    let mut count = 0;
    for mut rows in kinds {
        tail.append_to(&mut rows, &range);
        if rows.is_empty() {
            continue;
        }
        count += rows.len();
        let latest = built.state.take_raw(&mut hasher, &rows, settle_before);
        built.latest_ts = built.latest_ts.max(latest);
    }
    (built, count)
}
