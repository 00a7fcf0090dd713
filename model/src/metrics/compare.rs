//! Aggregate rows side by side: the order in which they are stored, and two sets of them walked together.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{AggregateRow, Number, evaluate};
use crate::definitions;

/// The order in which a generation's rows are stored and read: that of their buckets.
pub fn row_order(a: &AggregateRow, b: &AggregateRow) -> Ordering {
    (a.grain, a.start, a.family, a.subject.as_str(), a.slice).cmp(&(
        b.grain,
        b.start,
        b.family,
        b.subject.as_str(),
        b.slice,
    ))
}

/// Calls `visit` for each bucket of either side, in [`row_order`], with the rows that it has.
pub fn walk_rows<'a>(
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
            (Some(a), Some(b)) => row_order(a, b),
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

/// The numbers of a row: every metric that is made of its ingredients alone, by id.
pub fn numbers(row: &AggregateRow) -> BTreeMap<&'static str, Number> {
    let of_family = definitions::ALL
        .iter()
        .filter(|definition| definition.family == row.family);
    of_family
        .filter_map(|definition| Some((definition.id, evaluate(definition.id, &row.value, row.length_ms)?)))
        .collect()
}

fn sorted(rows: &[AggregateRow]) -> Vec<&AggregateRow> {
    let mut sorted: Vec<&AggregateRow> = rows.iter().collect();
    sorted.sort_by(|a, b| row_order(a, b));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Family, Grain, LineValue, Slice, Value};

    fn line(subject: &str, start: i64, inward: i64) -> AggregateRow {
        AggregateRow {
            grain: Grain::Hour,
            start,
            length_ms: 3_600_000,
            family: Family::Line,
            subject: subject.to_owned(),
            slice: Slice::All,
            value: Value::Line(LineValue { inward, outward: 1 }),
        }
    }

    #[test]
    fn buckets_of_either_side_are_met_once_in_order() {
        let left = [line("b", 0, 1), line("a", 3_600_000, 2)];
        let right = [line("c", 0, 3), line("a", 3_600_000, 4)];
        let mut met = Vec::new();
        let inward = |row: Option<&AggregateRow>| row.map(|row| numbers(row)["in"]);
        walk_rows(&left, &right, |l, r| met.push((inward(l), inward(r))));
        let number = |n| Some(Number::Integer(n));
        assert_eq!(
            met,
            [(number(1), None), (None, number(3)), (number(2), number(4))]
        );
    }
}
