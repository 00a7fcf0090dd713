//! Raw events: each event once, with the set of its deliveries, by venue and time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

use super::{EventLogReader, Partition, Position};
use crate::error::Result;

/// What touched a slot: a log partition (`log:<epoch>/<partition>`) or a job (`job:<id>`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MarkSource(String);

impl MarkSource {
    /// The source of a log partition.
    pub fn log(epoch: u64, partition: Partition) -> Self {
        Self(format!("log:{epoch}/{partition}"))
    }

    /// The source of a job; it marks with a number that grows over its attempts.
    pub fn job(id: &str) -> Self {
        Self(format!("job:{id}"))
    }

    /// The source as text, for stores.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A source read back from a store.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

/// A slot was touched by a source, up to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose slot.
    pub venue: VenueKey,
    /// Ten-minute slot of the event time (see [`dwell_model::time::slot_of`]).
    pub slot: i64,
    /// What touched it.
    pub source: MarkSource,
    /// Highest position that did.
    pub position: i64,
}

/// For each source the highest position that touched a venue-day. Marks are never cleared and never fall.
///
/// Within a source positions only grow, so the highest one over a day's slots tells whether anything came after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(pub BTreeMap<MarkSource, i64>);

impl Marks {
    /// Raises a source's mark; a lower position changes nothing.
    pub fn raise(&mut self, source: &MarkSource, position: i64) {
        match self.0.get_mut(source) {
            Some(mark) => *mark = (*mark).max(position),
            None => {
                self.0.insert(source.clone(), position);
            }
        }
    }

    /// Whether any mark is missing from, or above, the published ones: then the day is dirty.
    pub fn exceed(&self, published: &Marks) -> bool {
        self.0
            .iter()
            .any(|(source, mark)| published.0.get(source).is_none_or(|known| known < mark))
    }

    /// Raises all marks of another set.
    pub fn merge(&mut self, other: &Marks) {
        other
            .0
            .iter()
            .for_each(|(source, &mark)| self.raise(source, mark));
    }
}

/// The name under which the raw writer stores its position: others ask by it how far raw is.
pub const RAW_WRITER: &str = "raw-writer";

/// Where a reader of the log stands, to be stored together with what it made of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerPosition {
    /// The reader (for example `raw-writer`).
    pub consumer: &'static str,
    /// Epoch of the log.
    pub epoch: u64,
    /// Partition read.
    pub partition: Partition,
    /// Next record to read.
    pub position: Position,
}

/// One step of the raw writer.
#[derive(Debug, Clone, Default)]
pub struct RawWrite {
    /// Rows to add, by venue; several entries of a venue and kind are fine.
    pub rows: Vec<(VenueKey, RawRows)>,
    /// Slots that the rows touch.
    pub marks: Vec<Mark>,
    /// How far the log has been read.
    pub position: Option<ConsumerPosition>,
}

/// What a step of the raw writer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawApplied {
    /// Rows (identity and payload) that were not there; all of them where the store does not tell repeats
    /// ([`RawEventsWriter::tells_repeats`]).
    pub new_rows: u64,
    /// Deliveries added to rows that were there, or already known.
    pub repeated_rows: u64,
}

/// Says of a name whether it is meant.
pub type NameTest = Arc<dyn Fn(&str) -> bool + Send + Sync>;
/// All rows of one kind that a slot of a venue held when they were compared with the archive: each of them was found
/// there with each of its deliveries, so they may go.
#[derive(Debug, Clone)]
pub struct ComparedSlot {
    /// Whose slot.
    pub venue: VenueKey,
    /// Ten-minute slot of the event time (see [`dwell_model::time::slot_of`]).
    pub slot: i64,
    /// What a scan of the whole slot gave.
    pub rows: RawRows,
    /// Nothing that was written at or after this instant is touched where a store deletes by time: an hour (or whatever
    /// is allowed between clocks, and for a write on its way) before the comparison began, by the store's clock
    /// ([`RawEventsReader::now_ms`]). The scan came after that.
    pub written_before: TsMs,
}

/// Writing raw events.
#[async_trait]
pub trait RawEventsWriter: Send + Sync {
    /// Adds rows, then raises marks, then stores the position. A row that is there gains the deliveries that it
    /// lacks and nothing else. Embedded all three commit together; elsewhere they are durable in that order. Any
    /// repetition and any order of writes ends in the same rows. The slots of marks remember when they were marked, by
    /// the store's clock ([`RawEventsReader::marked_at`]).
    async fn apply(&self, write: RawWrite) -> Result<RawApplied>;

    /// Removes rows for good: those with the identity and payload of a row given, with all their deliveries, whenever
    /// they came; returns how many rows were named. What is not there is fine. Marks stay. Embedded the bytes are
    /// overwritten; elsewhere a deletion of ordinary time stands over them until the store compacts.
    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64>;

    /// Forgets names that the store keeps apart from its rows, those that `is_forgotten` says yes to and that no row
    /// uses any more; returns how many. A store that keeps names in rows only has nothing to forget.
    async fn forget_names(&self, venue: &VenueKey, is_forgotten: NameTest) -> Result<u64> {
        let _ = (venue, is_forgotten);
        Ok(0)
    }

    /// Removes rows that the archive was seen to hold. What was written since stays and can be read: a row that gained a
    /// delivery keeps the row and that delivery, and what is written afterwards (late, or restored, the same rows
    /// again) is there like any other. Marks, positions and the lists of dates and slots are never touched. Repeating
    /// it, or removing what is not there, changes nothing.
    ///
    /// Embedded exactly the rows given go, with exactly the deliveries given, in transactions of bounded size. Elsewhere
    /// a slot goes as a whole, in one deletion dated just before `written_before`: so the rows given must be all that
    /// the slot had, and those written later than that stay for another time. `Invalid` when a row lies outside the slot.
    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()>;

    /// Whether [`apply`](Self::apply) tells rows that were there from new ones. A store that writes without reading
    /// does not.
    fn tells_repeats(&self) -> bool {
        true
    }
}

/// Reading raw events.
#[async_trait]
pub trait RawEventsReader: Send + Sync {
    /// All rows of a kind with event times in a range, sorted by (ts, sensor, key, payload hash), names compared as
    /// the store likes. The caller keeps the range short (a slot or a few): the answer is held in memory.
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows>;

    /// Number of rows of each kind with event times in a range, kinds without rows left out.
    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>>;

    /// The marks of all slots that overlap a range.
    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks>;

    /// The marks of a venue slot by slot, ascending, for planning.
    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>>;

    /// When each slot of a venue was last marked, ascending by slot: every mark counts, one that did not rise too. Slots
    /// last marked by a Dwell that did not write this down are left out.
    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>>;

    /// What time it is by the clock that dates this store's writes and marks: on a cluster the nodes' clock, which this
    /// process's may be far from.
    async fn now_ms(&self) -> Result<TsMs>;

    /// Where a reader of the log stands; `None` when it never stored a position of this epoch.
    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>>;
}

/// The next record of a partition that the raw writers will copy: where they stand, or the log's start when they have
/// copied nothing of this log's life.
pub async fn raw_copied_to(
    log: &dyn EventLogReader,
    raw: &dyn RawEventsReader,
    partition: Partition,
) -> Result<Position> {
    match raw.position(RAW_WRITER, log.epoch(), partition).await? {
        Some(position) => Ok(position),
        None => Ok(log.bounds(partition).await?.start),
    }
}

/// The raw table.
pub trait RawEvents: RawEventsWriter + RawEventsReader {}

impl<T: RawEventsWriter + RawEventsReader> RawEvents for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_dirty_while_any_mark_is_missing_from_or_above_the_published_ones() {
        let (log, job) = (MarkSource::log(1, 0), MarkSource::job("a"));
        let mut marks = Marks::default();
        assert!(!marks.exceed(&Marks::default()));
        marks.raise(&log, 5);
        assert!(marks.exceed(&Marks::default()));
        let published = marks.clone();
        assert!(!marks.exceed(&published));
        marks.raise(&log, 3);
        assert!(!marks.exceed(&published), "marks never fall");
        marks.raise(&job, 1);
        assert!(marks.exceed(&published));
    }
}
