//! Drift: how far the live view was from the batch result of the same day. Pure.
//!
//! Both layers run the same fold, so every difference has a cause worth knowing: events that were too late for the
//! live view, a layout change that it has not caught up with, or a mistake.

use std::fmt::Debug;

use dwell_model::metrics::{AggregateRow, Grain, Slice, Value};
use dwell_model::time::format_rfc3339;
use dwell_storage::api::Drift;

use crate::rows;

/// Most examples that are kept.
const EXAMPLES_MAX: usize = 8;
/// Longest number shown in an example, in characters.
const SHOWN_MAX: usize = 40;

/// Compares a day of the live view with the batch result, bucket by bucket. Sketches are left out: they say nothing
/// that the exact numbers of a bucket do not.
pub fn drift(live: &[AggregateRow], batch: &[AggregateRow]) -> Drift {
    let mut drift = Drift::default();
    rows::walk(live, batch, |live, batch| {
        drift.buckets += 1;
        let difference = match (live, batch) {
            (Some(live), Some(batch)) => difference(&live.value, &batch.value),
            (Some(_), None) => Some("only live".to_owned()),
            (None, _) => Some("not live".to_owned()),
        };
        let (Some(difference), Some(row)) = (difference, batch.or(live)) else {
            return;
        };
        drift.differing += 1;
        if drift.examples.len() < EXAMPLES_MAX {
            drift.examples.push(format!("{} {difference}", bucket(row)));
        }
    });
    drift
}

/// A bucket's name for people: `zone/aisle-01@2026-10-24T10:00:00.000Z`, with its slice if it is not of all events.
fn bucket(row: &AggregateRow) -> String {
    let family = row.family.word();
    let day = if row.grain == Grain::Day { " (day)" } else { "" };
    let slice = match row.slice {
        Slice::All => String::new(),
        slice => format!(" ({})", slice.word()),
    };
    // Composite subjects are joined with a control character, which people should not meet.
    let subject = row.subject.replace('\u{1f}', "/");
    format!("{family}/{subject}@{}{day}{slice}", format_rfc3339(row.start))
}

/// The first field in which two values differ, as `name live≠batch`.
fn difference(live: &Value, batch: &Value) -> Option<String> {
    macro_rules! first {
        ($a:expr, $b:expr, $($field:ident),+) => {{
            $(if $a.$field != $b.$field {
                return Some(unequal(stringify!($field), &$a.$field, &$b.$field));
            })+
            None
        }};
    }
    match (live, batch) {
        (Value::Zone(a), Value::Zone(b)) => first!(
            a,
            b,
            visits,
            visitors,
            visitor_days,
            dwell_ms,
            occupancy_max,
            engaged,
            dwells_ms
        ),
        (Value::Line(a), Value::Line(b)) => first!(a, b, inward, outward),
        (Value::Transition(a), Value::Transition(b)) => (a != b).then(|| unequal("moves", a, b)),
        (Value::Cell(a), Value::Cell(b)) => first!(a, b, cell_cm, cells),
        (Value::Counter(a), Value::Counter(b)) => first!(a, b, mode, value, samples, resets, last_ts),
        (Value::Reading(a), Value::Reading(b)) => {
            first!(a, b, count, min, max, sum_nano, last, last_ts, unit)
        }
        (Value::Transaction(a), Value::Transaction(b)) => first!(a, b, sales, returns, voids, amount),
        (Value::Presence(a), Value::Presence(b)) => first!(a, b, devices, sightings),
        (Value::Traffic(a), Value::Traffic(b)) => {
            first!(a, b, source, footfall, inward, outward, occupancy_est)
        }
        (Value::Source(a), Value::Source(b)) => (a != b).then(|| unequal("health", a, b)),
        (a, b) => Some(unequal("kind", a, b)),
    }
}

fn unequal(name: &str, live: &impl Debug, batch: &impl Debug) -> String {
    format!("{name} {}≠{}", shown(live), shown(batch))
}

fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let text = text
        .strip_prefix("Some(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(&text);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::line_row;

    #[test]
    fn equal_days_do_not_drift() {
        let rows = [line_row("a", 0, 1, 2), line_row("b", 0, 3, 4)];
        assert_eq!(
            drift(&rows, &rows),
            Drift {
                buckets: 2,
                differing: 0,
                examples: vec![]
            }
        );
    }

    #[test]
    fn each_difference_is_counted_and_the_first_few_are_named() {
        let live = [
            line_row("a\u{1f}in", 0, 5, 2),
            line_row("b", 0, 3, 4),
            line_row("c", 3_600_000, 1, 1),
        ];
        let batch = [
            line_row("a\u{1f}in", 0, 4, 2),
            line_row("b", 0, 3, 4),
            line_row("d", 3_600_000, 1, 1),
        ];
        let found = drift(&live, &batch);
        assert_eq!((found.buckets, found.differing), (4, 3));
        assert_eq!(
            found.examples,
            [
                "line/a/in@1970-01-01T00:00:00.000Z inward 5≠4",
                "line/c@1970-01-01T01:00:00.000Z only live",
                "line/d@1970-01-01T01:00:00.000Z not live",
            ]
        );
        let open = AggregateRow {
            slice: Slice::Open,
            ..line_row("a", 0, 5, 2)
        };
        assert_eq!(
            drift(&[open], &[]).examples,
            ["line/a@1970-01-01T00:00:00.000Z (open) only live"]
        );
        let many: Vec<_> = (0..100)
            .map(|i| line_row(&format!("line-{i:03}"), 0, 1, 1))
            .collect();
        let found = drift(&[], &many);
        assert_eq!((found.differing, found.examples.len()), (100, EXAMPLES_MAX));
    }
}
