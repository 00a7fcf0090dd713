//! Aggregate rows side by side: the order in which they are stored, and two sets of them walked together.

use std::cmp::Ordering;

use dwell_model::metrics::AggregateRow;
use dwell_storage::api::GenerationChange;

/// The order in which a generation's rows are stored and read.
pub(crate) fn order(a: &AggregateRow, b: &AggregateRow) -> Ordering {
    (a.grain, a.start, a.family, a.subject.as_str(), a.slice).cmp(&(
        b.grain,
        b.start,
        b.family,
        b.subject.as_str(),
        b.slice,
    ))
}

/// Calls `visit` for each bucket of either side, in order, with the rows that it has.
pub(crate) fn walk<'a>(
    left: &'a [AggregateRow],
    right: &'a [AggregateRow],
    mut visit: impl FnMut(Option<&'a AggregateRow>, Option<&'a AggregateRow>),
) {
    let (left, right) = (sorted(left), sorted(right));
    let (mut l, mut r) = (left.as_slice(), right.as_slice());
    loop {
        let side = match (l.first(), r.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => order(a, b),
        };
        match side {
            Ordering::Less => visit(l.first().copied(), None),
            Ordering::Greater => visit(None, r.first().copied()),
            Ordering::Equal => visit(l.first().copied(), r.first().copied()),
        }
        l = if side == Ordering::Greater { l } else { &l[1..] };
        r = if side == Ordering::Less { r } else { &r[1..] };
    }
}

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

fn sorted(rows: &[AggregateRow]) -> Vec<&AggregateRow> {
    let mut sorted: Vec<&AggregateRow> = rows.iter().collect();
    sorted.sort_by(|a, b| order(a, b));
    sorted
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
