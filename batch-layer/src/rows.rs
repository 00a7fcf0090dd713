//! Two generations' rows side by side.

use dwell_model::metrics::AggregateRow;
pub(crate) use dwell_model::metrics::walk_rows as walk;
use dwell_storage::api::GenerationChange;

/// What a generation changed against the one before.
pub(crate) fn change(before: &[AggregateRow], after: &[AggregateRow]) -> GenerationChange {
    let mut change = GenerationChange::default();
    walk(before, after, |before, after| match (before, after) {
        (None, _) => change.added += 1,
        (_, None) => change.removed += 1,
        (Some(before), Some(after)) => change.changed += u64::from(before != after),
    });
    change
}

#[cfg(test)]
pub(crate) mod tests {
    use dwell_model::metrics::{Family, Grain, LineValue, Slice, Value};

    use super::*;

    /// A line's hour with people inward and outward.
    pub(crate) fn line_row(subject: &str, start: i64, inward: i64, outward: i64) -> AggregateRow {
        AggregateRow {
            grain: Grain::Hour,
            start,
            length_ms: 3_600_000,
            family: Family::Line,
            subject: subject.to_owned(),
            slice: Slice::All,
            value: Value::Line(LineValue { inward, outward }),
        }
    }

    #[test]
    fn a_change_counts_new_gone_and_different_buckets_whatever_the_order() {
        let before = [
            line_row("a", 0, 1, 0),
            line_row("b", 0, 2, 0),
            line_row("a", 3_600_000, 3, 0),
        ];
        let after = [
            line_row("c", 0, 9, 9),
            line_row("a", 3_600_000, 3, 1),
            line_row("a", 0, 1, 0),
        ];
        assert_eq!(
            change(&before, &after),
            GenerationChange {
                added: 1,
                removed: 1,
                changed: 1
            }
        );
        assert_eq!(change(&before, &before), GenerationChange::default());
        assert_eq!(change(&[], &after).added, 3);
    }
}
