//! Uniting ingredients over time, zones or venues.

use super::{
    CellValue, CounterValue, Family, LineValue, PresenceValue, ReadingValue, SketchError, SourceValue,
    SubjectSketch, TrafficValue, TransactionValue, Transition, Value, ZoneValue,
};
use crate::event::CountMode;

/// Why ingredients cannot be united.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Nothing to unite.
    #[error("there is nothing to merge")]
    Nothing,
    /// Different kinds of results.
    #[error("{0:?} and {1:?} cannot be merged")]
    Families(Family, Family),
    /// Heat maps of different cells, footfall of different sources, counters of different modes.
    #[error("{0} differ, so their values cannot be merged")]
    Incompatible(&'static str),
    /// A damaged sketch.
    #[error(transparent)]
    Sketch(#[from] SketchError),
}

/// How far apart the ingredients are that are united.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Within one venue-day: subjects can be told apart, by sketch.
    VenueDay,
    /// Over several venue-days or venues: subjects cannot be told apart; `visitors` is unknown, `visitor_days` adds.
    VenueDays,
}

impl Value {
    /// The kind of result.
    pub fn family(&self) -> Family {
        match self {
            Value::Zone(_) => Family::Zone,
            Value::Line(_) => Family::Line,
            Value::Transition(_) => Family::Transition,
            Value::Cell(_) => Family::Cell,
            Value::Counter(_) => Family::Counter,
            Value::Reading(_) => Family::Reading,
            Value::Transaction(_) => Family::Transaction,
            Value::Presence(_) => Family::Presence,
            Value::Traffic(_) => Family::Traffic,
            Value::Source(_) => Family::Source,
        }
    }
}

/// Unites ingredients of one family, in the order of time. A single one is returned as it is.
///
/// Which *numbers* of the result mean anything is for the metric's definition to say (see
/// [`definitions`](crate::definitions)): peaks over hours are the largest peak, over zones they are not defined.
pub fn merge<'a>(values: impl IntoIterator<Item = &'a Value>, span: Span) -> Result<Value, MergeError> {
    let values: Vec<&Value> = values.into_iter().collect();
    let (first, rest) = values.split_first().ok_or(MergeError::Nothing)?;
    if rest.is_empty() {
        return Ok((*first).clone());
    }
    if let Some(other) = rest.iter().find(|other| other.family() != first.family()) {
        return Err(MergeError::Families(first.family(), other.family()));
    }
    Ok(match first {
        Value::Zone(_) => Value::Zone(merge_zones(
            &pick(&values, |v| if let Value::Zone(z) = v { Some(z) } else { None }),
            span,
        )?),
        Value::Presence(_) => {
            let all = pick(
                &values,
                |v| if let Value::Presence(p) = v { Some(p) } else { None },
            );
            Value::Presence(merge_presence(&all, span)?)
        }
        Value::Transition(_) => Value::Transition(merge_transitions(&values)),
        Value::Cell(_) => Value::Cell(merge_cells(&pick(&values, |v| {
            if let Value::Cell(c) = v { Some(c) } else { None }
        }))?),
        _ => {
            let mut sum = (*first).clone();
            for value in rest {
                add(&mut sum, value)?;
            }
            sum
        }
    })
}

fn pick<'a, T>(values: &[&'a Value], of: impl Fn(&'a Value) -> Option<&'a T>) -> Vec<&'a T> {
    values.iter().filter_map(|&value| of(value)).collect()
}

/// Families whose ingredients simply add up.
fn add(sum: &mut Value, value: &Value) -> Result<(), MergeError> {
    match (sum, value) {
        (Value::Line(sum), Value::Line(value)) => add_lines(sum, value),
        (Value::Transaction(sum), Value::Transaction(value)) => add_transactions(sum, value),
        (Value::Reading(sum), Value::Reading(value)) => add_readings(sum, value),
        (Value::Source(sum), Value::Source(value)) => add_sources(sum, value),
        (Value::Counter(sum), Value::Counter(value)) => {
            if sum.mode != value.mode {
                return Err(MergeError::Incompatible("modes of counters"));
            }
            add_counters(sum, value);
        }
        (Value::Traffic(sum), Value::Traffic(value)) => {
            if sum.source != value.source {
                return Err(MergeError::Incompatible("sources of footfall"));
            }
            add_traffic(sum, value);
        }
        _ => return Err(MergeError::Incompatible("families")),
    }
    Ok(())
}

fn merge_zones(values: &[&ZoneValue], span: Span) -> Result<ZoneValue, MergeError> {
    let mut sum = ZoneValue::default();
    for value in values {
        sum.visits += value.visits;
        sum.dwell_ms += value.dwell_ms;
        sum.occupancy_max = sum.occupancy_max.max(value.occupancy_max);
        sum.engaged += value.engaged;
        sum.dwells_ms.extend_from_slice(&value.dwells_ms);
    }
    sum.dwells_ms.sort_unstable();
    match span {
        Span::VenueDay => sum.sketch = SubjectSketch::union(values.iter().map(|value| &value.sketch))?,
        Span::VenueDays => {
            sum.visitor_days = values.iter().map(|value| value.visitor_days).sum::<Option<u64>>();
        }
    }
    Ok(sum)
}

fn merge_presence(values: &[&PresenceValue], span: Span) -> Result<PresenceValue, MergeError> {
    let sightings = values.iter().map(|value| value.sightings).sum();
    let sketch = match span {
        Span::VenueDay => SubjectSketch::union(values.iter().map(|value| &value.sketch))?,
        Span::VenueDays => SubjectSketch::default(),
    };
    Ok(PresenceValue {
        devices: None,
        sightings,
        sketch,
    })
}

fn merge_transitions(values: &[&Value]) -> Vec<Transition> {
    let mut sums: std::collections::BTreeMap<(&str, &str), u64> = Default::default();
    for value in values {
        if let Value::Transition(transitions) = value {
            for transition in transitions {
                *sums.entry((&transition.from, &transition.to)).or_default() += transition.count;
            }
        }
    }
    sums.into_iter()
        .map(|((from, to), count)| Transition {
            from: from.to_owned(),
            to: to.to_owned(),
            count,
        })
        .collect()
}

fn merge_cells(values: &[&CellValue]) -> Result<CellValue, MergeError> {
    let cell_cm = values.first().map_or(0, |value| value.cell_cm);
    if values.iter().any(|value| value.cell_cm != cell_cm) {
        return Err(MergeError::Incompatible("sizes of heat map cells"));
    }
    let mut sums: std::collections::BTreeMap<(i32, i32), u64> = Default::default();
    for (column, row, ms) in values.iter().flat_map(|value| &value.cells) {
        *sums.entry((*row, *column)).or_default() += ms;
    }
    Ok(CellValue {
        cell_cm,
        cells: sums
            .into_iter()
            .map(|((row, column), ms)| (column, row, ms))
            .collect(),
    })
}

fn add_lines(sum: &mut LineValue, value: &LineValue) {
    sum.inward += value.inward;
    sum.outward += value.outward;
}

pub(super) fn add_transactions(sum: &mut TransactionValue, value: &TransactionValue) {
    sum.sales += value.sales;
    sum.returns += value.returns;
    sum.voids += value.voids;
    sum.amount += value.amount;
}

pub(super) fn add_readings(sum: &mut ReadingValue, value: &ReadingValue) {
    sum.count += value.count;
    sum.min = sum.min.min(value.min);
    sum.max = sum.max.max(value.max);
    sum.sum_nano += value.sum_nano;
    if value.last_ts >= sum.last_ts {
        sum.last = value.last;
        sum.last_ts = value.last_ts;
        sum.unit.clone_from(&value.unit);
    }
}

pub(super) fn add_counters(sum: &mut CounterValue, value: &CounterValue) {
    match sum.mode {
        CountMode::Delta | CountMode::Cumulative => sum.value += value.value,
        CountMode::State if value.last_ts >= sum.last_ts => sum.value = value.value,
        CountMode::State => {}
    }
    sum.samples += value.samples;
    sum.resets += value.resets;
    sum.last_ts = sum.last_ts.max(value.last_ts);
}

/// The occupancy is that of the later one.
fn add_traffic(sum: &mut TrafficValue, value: &TrafficValue) {
    sum.footfall += value.footfall;
    sum.inward += value.inward;
    sum.outward += value.outward;
    sum.occupancy_est = value.occupancy_est;
}

pub(super) fn add_sources(sum: &mut SourceValue, value: &SourceValue) {
    sum.events += value.events;
    sum.statuses += value.statuses;
    for (state, ms) in &value.state_ms {
        *sum.state_ms.entry(*state).or_default() += ms;
    }
    for (sum, value) in [(&mut sum.sent, value.sent), (&mut sum.dropped, value.dropped)] {
        if let Some(value) = value {
            *sum = Some(sum.unwrap_or(0) + value);
        }
    }
    sum.sequence_gaps += value.sequence_gaps;
    if let Some((expected, seen)) = value.intervals {
        let (all, alive) = sum.intervals.unwrap_or((0, 0));
        sum.intervals = Some((all + expected, alive + seen));
    }
    if value.clock_offset_ms.map(i64::abs) > sum.clock_offset_ms.map(i64::abs) {
        sum.clock_offset_ms = value.clock_offset_ms;
    }
}
