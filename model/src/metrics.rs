//! Metrics: what is counted per bucket, how it merges, and how a number is made of it.
//!
//! A computation gives [`AggregateRow`]s: for each bucket (hour or day) and subject (a zone, a line, a sensor's counter,
//! …) the *ingredients* of its metrics, not only the finished numbers, so that longer ranges are exact as far as the
//! metric allows. [`DayAccumulator`] makes them from sessions and events; [`merge()`] unites ingredients over time or
//! zones; [`evaluate()`] turns ingredients into a metric's number.

mod accumulate;
mod codec;
mod compare;
mod evaluate;
mod exact;
mod merge;
mod other_kinds;
mod parts;
mod sketch;
pub mod slices;
mod tracks;
mod traffic;
mod zone_buckets;

pub use accumulate::{Carry, CounterSample, DayAccumulator, HourSet};
pub use codec::{CodecError, decode_value, encode_value};
pub use compare::{numbers, row_order, walk_rows};
pub use evaluate::{Number, conversion, evaluate};
pub use exact::{exact_mean, nearest_rank, to_nano};
pub use merge::{MergeError, Span, merge};
pub use sketch::{SketchError, SubjectSketch};
pub use slices::{DaySlices, Slice};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{CountMode, SensorState};
use crate::time::TsMs;

/// Length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Grain {
    /// An hour bucket.
    Hour = 0,
    /// A venue-day.
    Day = 1,
}

/// What kind of result a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Family {
    /// Visits of a zone; the subject is the zone (or `_venue`).
    Zone = 0,
    /// Crossings of a line; the subject is the line.
    Line = 1,
    /// Moves between zones; one row per bucket and layer, the subject is the layer.
    Transition = 2,
    /// Time per heat map cell; one row per bucket and floor, the subject is the floor (empty when none is sent).
    Cell = 3,
    /// A sensor's counter; the subject is `sensor`, U+001F, `counter`, U+001F, mode.
    Counter = 4,
    /// A sensor's measured quantity; the subject is `sensor`, U+001F, `metric`.
    Reading = 5,
    /// Receipts; the subject is the currency.
    Transaction = 6,
    /// Devices heard; the subject is empty.
    Presence = 7,
    /// Footfall and occupancy of the venue; the subject is empty.
    Traffic = 8,
    /// What is known of a sensor's health; the subject is the sensor.
    Source = 9,
}

impl Grain {
    /// The grain as a word.
    pub fn word(self) -> &'static str {
        match self {
            Grain::Hour => "hour",
            Grain::Day => "day",
        }
    }
}

impl Family {
    /// The family as a word.
    pub fn word(self) -> &'static str {
        match self {
            Family::Zone => "zone",
            Family::Line => "line",
            Family::Transition => "transition",
            Family::Cell => "cell",
            Family::Counter => "counter",
            Family::Reading => "reading",
            Family::Transaction => "transaction",
            Family::Presence => "presence",
            Family::Traffic => "traffic",
            Family::Source => "source",
        }
    }

    /// Every family, by its number.
    pub const ALL: [Family; 10] = [
        Family::Zone,
        Family::Line,
        Family::Transition,
        Family::Cell,
        Family::Counter,
        Family::Reading,
        Family::Transaction,
        Family::Presence,
        Family::Traffic,
        Family::Source,
    ];

    /// A family read back from its number, by which stores know it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// One row of a venue-day's aggregates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateRow {
    /// Hour or day.
    pub grain: Grain,
    /// UTC start of the bucket.
    pub start: TsMs,
    /// Length of the bucket; in the slice `open` of what lies within opening hours.
    pub length_ms: i64,
    /// Kind of result.
    pub family: Family,
    /// What it is about (see [`Family`]).
    pub subject: String,
    /// Which part of the events counts.
    pub slice: Slice,
    /// The ingredients.
    pub value: Value,
}

/// The ingredients of a bucket's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// See [`Family::Zone`].
    Zone(ZoneValue),
    /// See [`Family::Line`].
    Line(LineValue),
    /// See [`Family::Transition`]: (from, to) and how often, sorted.
    Transition(Vec<Transition>),
    /// See [`Family::Cell`]: sorted by (row, column).
    Cell(CellValue),
    /// See [`Family::Counter`].
    Counter(CounterValue),
    /// See [`Family::Reading`].
    Reading(ReadingValue),
    /// See [`Family::Transaction`].
    Transaction(TransactionValue),
    /// See [`Family::Presence`].
    Presence(PresenceValue),
    /// See [`Family::Traffic`].
    Traffic(TrafficValue),
    /// See [`Family::Source`].
    Source(SourceValue),
}

/// Ingredients of a zone's metrics. A row exists when someone was present.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ZoneValue {
    /// Visits whose enter is in the bucket.
    pub visits: u64,
    /// Distinct subjects present, exact; `None` once hours have been merged: then `sketch` answers.
    pub visitors: Option<u64>,
    /// Visit time overlapping the bucket.
    pub dwell_ms: u64,
    /// Most distinct subjects at one instant, intervals closed.
    pub occupancy_max: u64,
    /// Visits entered in the bucket that lasted at least the zone's `engaged_after`.
    pub engaged: u64,
    /// Full dwell times of the visits entered in the bucket, sorted.
    pub dwells_ms: Vec<u64>,
    /// Sum over merged buckets of the numbers of distinct subjects per venue-day (the metric `visitor_days`); for a
    /// day's own row equal to `visitors`, absent for hours.
    pub visitor_days: Option<u64>,
    /// Sketch of the venue-day's subjects, for uniting its hours.
    pub sketch: SubjectSketch,
}

/// Ingredients of a line's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineValue {
    /// People who crossed inwards.
    pub inward: i64,
    /// People who crossed outwards.
    pub outward: i64,
}

/// How often a session went from one zone to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transition {
    /// Zone left.
    pub from: String,
    /// Zone entered.
    pub to: String,
    /// How often.
    pub count: u64,
}

/// Time spent per cell of the floor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CellValue {
    /// Side of a cell, in centimetres.
    pub cell_cm: u32,
    /// `(column, row, milliseconds)`, sorted by (row, column); column = floor(x / side).
    pub cells: Vec<(i32, i32, u64)>,
}

/// Ingredients of a counter's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValue {
    /// What `value` means.
    pub mode: CountMode,
    /// Delta: sum. Cumulative: increases, booked at the later sample. State: the last one.
    pub value: i64,
    /// Samples in the bucket.
    pub samples: u64,
    /// Resets seen (cumulative only).
    pub resets: u64,
    /// Time of the last sample.
    pub last_ts: TsMs,
}

/// Ingredients of a measured quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadingValue {
    /// Samples.
    pub count: u64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Sum in billionths, so that grouping cannot change a digit.
    pub sum_nano: i128,
    /// The last one (by time, then sensor bytes).
    pub last: f64,
    /// Its time.
    pub last_ts: TsMs,
    /// Unit of the last one.
    pub unit: String,
}

/// Ingredients of receipts in one currency. Voided receipts count nowhere but in `voids`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransactionValue {
    /// Receipts that are neither returns (negative amount) nor voided.
    pub sales: u64,
    /// Receipts with a negative amount.
    pub returns: u64,
    /// Voided receipts.
    pub voids: u64,
    /// Sum of the amounts of sales and returns, in minor units.
    pub amount: i128,
}

/// Ingredients of devices heard.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PresenceValue {
    /// Distinct devices, exact; `None` once hours have been merged: then `sketch` answers.
    pub devices: Option<u64>,
    /// Events.
    pub sightings: u64,
    /// Sketch of the venue-day's devices, for uniting its hours.
    pub sketch: SubjectSketch,
}

/// Where footfall comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FootfallSource {
    /// Inward crossings of entrance lines.
    Lines,
    /// Visits of `_venue`.
    Sessions,
}

/// Ingredients of the venue's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficValue {
    /// Where `footfall` comes from.
    pub source: FootfallSource,
    /// People who came in.
    pub footfall: u64,
    /// Inward crossings of entrances.
    pub inward: i64,
    /// Outward crossings of entrances.
    pub outward: i64,
    /// In minus out since the day's start, at the bucket's end; may be negative, which is flagged.
    pub occupancy_est: i64,
}

/// What is known of a sensor's health in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceValue {
    /// Events of all kinds but status.
    pub events: u64,
    /// Status events.
    pub statuses: u64,
    /// Time in each state during the bucket, as far as status events tell (a state holds until the next one).
    pub state_ms: BTreeMap<SensorState, i64>,
    /// Events sent, as reported since the previous status.
    pub sent: Option<u64>,
    /// Events dropped, as reported since the previous status.
    pub dropped: Option<u64>,
    /// Status messages missing by their sequence numbers.
    pub sequence_gaps: u64,
    /// Declared intervals in the bucket, and those with at least one event; absent without a declared interval.
    pub intervals: Option<(u64, u64)>,
    /// Largest clock offset reported, by magnitude.
    pub clock_offset_ms: Option<i64>,
}

#[cfg(test)]
mod tests;
