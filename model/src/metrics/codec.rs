//! How ingredients are stored: a version byte, then postcard of a form in which sorted lists are differences.

use serde::{Deserialize, Serialize};

use super::{
    CellValue, CounterValue, LineValue, PresenceValue, ReadingValue, SourceValue, SubjectSketch,
    TrafficValue, TransactionValue, Transition, Value, ZoneValue,
};

const VERSION: u8 = 1;

/// Bytes that are no ingredients: damaged, or of another version of Dwell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing, or a version that this build does not know.
    #[error("aggregate of version {0:?}; this build reads version {VERSION}")]
    Version(Option<u8>),
    /// Not what was written.
    #[error("damaged aggregate: {0}")]
    Damaged(String),
}

/// The stored form. Its variants and fields keep their order for ever; a change is a new version.
#[derive(Serialize, Deserialize)]
enum Stored {
    Zone(StoredZone),
    Line(LineValue),
    Transition(Vec<Transition>),
    Cell {
        cell_cm: u32,
        cells: Vec<(i32, i32, u64)>,
    },
    Counter(CounterValue),
    Reading(ReadingValue),
    Transaction(TransactionValue),
    Presence(PresenceValue),
    Traffic(TrafficValue),
    Source(SourceValue),
}

#[derive(Serialize, Deserialize)]
struct StoredZone {
    visits: u64,
    visitors: Option<u64>,
    dwell_ms: u64,
    occupancy_max: u64,
    engaged: u64,
    /// The first dwell time, then the steps to the next ones.
    dwell_steps: Vec<u64>,
    visitor_days: Option<u64>,
    sketch: SubjectSketch,
}

/// Writes ingredients.
pub fn encode_value(value: &Value) -> Vec<u8> {
    // Plain data into memory: serialising cannot fail.
    postcard::to_extend(&Stored::from(value.clone()), vec![VERSION]).unwrap_or_default()
}

/// Reads ingredients.
pub fn decode_value(bytes: &[u8]) -> Result<Value, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            let (stored, rest) = postcard::take_from_bytes::<Stored>(body)
                .map_err(|error| CodecError::Damaged(error.to_string()))?;
            if rest.is_empty() {
                Ok(stored.into())
            } else {
                Err(CodecError::Damaged("bytes are left over".into()))
            }
        }
        other => Err(CodecError::Version(other.map(|(version, _)| *version))),
    }
}

impl From<Value> for Stored {
    fn from(value: Value) -> Self {
        match value {
            Value::Zone(zone) => Stored::Zone(StoredZone {
                visits: zone.visits,
                visitors: zone.visitors,
                dwell_ms: zone.dwell_ms,
                occupancy_max: zone.occupancy_max,
                engaged: zone.engaged,
                dwell_steps: steps(&zone.dwells_ms),
                visitor_days: zone.visitor_days,
                sketch: zone.sketch,
            }),
            Value::Line(line) => Stored::Line(line),
            Value::Transition(transitions) => Stored::Transition(transitions),
            Value::Cell(cell) => {
                let mut before = (0_i32, 0_i32);
                let step = |(column, row, ms): (i32, i32, u64)| {
                    let step = (column.wrapping_sub(before.0), row.wrapping_sub(before.1), ms);
                    before = (column, row);
                    step
                };
                Stored::Cell {
                    cell_cm: cell.cell_cm,
                    cells: cell.cells.into_iter().map(step).collect(),
                }
            }
            Value::Counter(counter) => Stored::Counter(counter),
            Value::Reading(reading) => Stored::Reading(reading),
            Value::Transaction(transaction) => Stored::Transaction(transaction),
            Value::Presence(presence) => Stored::Presence(presence),
            Value::Traffic(traffic) => Stored::Traffic(traffic),
            Value::Source(source) => Stored::Source(source),
        }
    }
}

impl From<Stored> for Value {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Zone(zone) => Value::Zone(ZoneValue {
                visits: zone.visits,
                visitors: zone.visitors,
                dwell_ms: zone.dwell_ms,
                occupancy_max: zone.occupancy_max,
                engaged: zone.engaged,
                dwells_ms: sums(&zone.dwell_steps),
                visitor_days: zone.visitor_days,
                sketch: zone.sketch,
            }),
            Stored::Line(line) => Value::Line(line),
            Stored::Transition(transitions) => Value::Transition(transitions),
            Stored::Cell { cell_cm, cells } => {
                let mut at = (0_i32, 0_i32);
                let sum = |(column, row, ms): (i32, i32, u64)| {
                    at = (at.0.wrapping_add(column), at.1.wrapping_add(row));
                    (at.0, at.1, ms)
                };
                Value::Cell(CellValue {
                    cell_cm,
                    cells: cells.into_iter().map(sum).collect(),
                })
            }
            Stored::Counter(counter) => Value::Counter(counter),
            Stored::Reading(reading) => Value::Reading(reading),
            Stored::Transaction(transaction) => Value::Transaction(transaction),
            Stored::Presence(presence) => Value::Presence(presence),
            Stored::Traffic(traffic) => Value::Traffic(traffic),
            Stored::Source(source) => Value::Source(source),
        }
    }
}

fn steps(sorted: &[u64]) -> Vec<u64> {
    let mut before = 0;
    sorted
        .iter()
        .map(|&value| {
            let step = value.wrapping_sub(before);
            before = value;
            step
        })
        .collect()
}

fn sums(steps: &[u64]) -> Vec<u64> {
    let mut at = 0_u64;
    steps
        .iter()
        .map(|&step| {
            at = at.wrapping_add(step);
            at
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CountMode;

    fn examples() -> Vec<Value> {
        vec![
            Value::Zone(ZoneValue {
                visits: 3,
                visitors: Some(2),
                dwell_ms: 70_000,
                occupancy_max: 2,
                engaged: 1,
                dwells_ms: vec![0, 5_000, 65_000],
                visitor_days: None,
                sketch: SubjectSketch::default(),
            }),
            Value::Cell(CellValue {
                cell_cm: 50,
                cells: vec![(3, -1, 10), (-2, 0, 20), (7, 0, 30)],
            }),
            Value::Counter(CounterValue {
                mode: CountMode::State,
                value: -4,
                samples: 2,
                resets: 0,
                last_ts: 9,
            }),
            Value::Transition(vec![Transition {
                from: "a".into(),
                to: "b".into(),
                count: 2,
            }]),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for value in examples() {
            assert_eq!(decode_value(&encode_value(&value)).unwrap(), value);
        }
    }

    #[test]
    fn bytes_of_version_1_stay_readable() {
        let bytes = hex::decode("0100030102f0a204020103008827e0d4030000").unwrap();
        assert_eq!(decode_value(&bytes).unwrap(), examples()[0]);
    }

    #[test]
    fn damage_and_other_versions_are_refused() {
        let good = encode_value(&examples()[0]);
        assert!(matches!(decode_value(&[]), Err(CodecError::Version(None))));
        assert!(matches!(
            decode_value(&[9, 1, 2]),
            Err(CodecError::Version(Some(9)))
        ));
        assert!(matches!(
            decode_value(&good[..good.len() - 1]),
            Err(CodecError::Damaged(_))
        ));
        let mut longer = good.clone();
        longer.push(0);
        assert!(matches!(decode_value(&longer), Err(CodecError::Damaged(_))));
    }
}
