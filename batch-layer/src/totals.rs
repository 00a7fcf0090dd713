//! A day's numbers in a few lines: what people compare before and after a change.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind};
use dwell_model::layout::VENUE_ZONE;
use dwell_model::metrics::{AggregateRow, Family, Grain, Number, Slice, evaluate};
use serde::{Deserialize, Serialize};

/// Metrics of a day that are told, as far as the venue has them.
const TOLD: [(&str, Family); 13] = [
    ("visits", Family::Zone),
    ("visitors", Family::Zone),
    ("dwell_ms", Family::Zone),
    ("in", Family::Line),
    ("out", Family::Line),
    ("footfall", Family::Traffic),
    ("counter_value", Family::Counter),
    ("reading_count", Family::Reading),
    ("sales", Family::Transaction),
    ("returns", Family::Transaction),
    ("transaction_amount", Family::Transaction),
    ("devices", Family::Presence),
    ("sightings", Family::Presence),
];

/// A day's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DayTotals {
    /// Aggregate rows.
    pub buckets: u64,
    /// Sessions.
    pub sessions: u64,
    /// Events that count, per kind.
    pub events: BTreeMap<Kind, u64>,
    /// Metrics of the whole day by their ids: of the whole venue; of lines, counters, quantities and currencies the sum.
    pub metrics: BTreeMap<String, i64>,
}

/// Sums a day's rows up.
pub(crate) fn totals(rows: &[AggregateRow], sessions: u64, events: &BTreeMap<Kind, Checksum>) -> DayTotals {
    let mut metrics: BTreeMap<String, i64> = BTreeMap::new();
    let of_day = rows
        .iter()
        .filter(|row| row.grain == Grain::Day && row.slice == Slice::All)
        .filter(|row| row.family != Family::Zone || row.subject == VENUE_ZONE);
    for row in of_day {
        for (metric, _) in TOLD.iter().filter(|(_, family)| *family == row.family) {
            if let Some(Number::Integer(number)) = evaluate(metric, &row.value, row.length_ms) {
                let sum = metrics.entry((*metric).to_owned()).or_default();
                *sum = sum.saturating_add(number);
            }
        }
    }
    DayTotals {
        buckets: rows.len() as u64,
        sessions,
        events: events.iter().map(|(kind, sum)| (*kind, sum.rows)).collect(),
        metrics,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::line_row;

    #[test]
    fn days_are_told_and_hours_are_not() {
        let day = |subject: &str, inward, outward| AggregateRow {
            grain: Grain::Day,
            ..line_row(subject, 0, inward, outward)
        };
        let open = AggregateRow {
            slice: Slice::Open,
            ..day("a", 9, 3)
        };
        let rows = [line_row("a", 0, 7, 7), day("a", 10, 4), open, day("b", 5, 6)];
        let events = BTreeMap::from([(Kind::Crossing, Checksum { rows: 25, sum: 1 })]);
        let told = totals(&rows, 2, &events);
        assert_eq!(
            (told.buckets, told.sessions, told.events[&Kind::Crossing]),
            (4, 2, 25)
        );
        let expected = [("in".to_owned(), 15), ("out".to_owned(), 10)];
        assert_eq!(told.metrics, expected.into());
    }
}
