//! Puts rows in the archive's order (key, ts, sensor).
//!
//! A counting sort by the key's rank lays the rows of each key side by side, each with its time and sensor in one number,
//! so that what is left to compare stands in sequence in memory. Arrival order is nearly time order, so most keys need
//! nothing more than a look.

/// Bits of a place that hold the sensor's rank.
pub(super) const SENSOR_BITS: u32 = 24;

/// A row's time and sensor within its key, and its number.
pub(super) type Placed = (u64, u32);

/// Rows in order, with the end of each key's rows, by the key's rank.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) rows: Vec<Placed>,
    pub(super) ends: Vec<u32>,
}

/// Orders `count` rows. `key_rank` gives a row's key, below `keys`, `place` what orders the rows of a key: (time, sensor) as
/// one number. Equal rows keep their order.
pub(super) fn order_rows(
    count: usize,
    keys: usize,
    key_rank: impl Fn(usize) -> u32,
    place: impl Fn(usize) -> u64,
) -> Ordered {
    let mut next = vec![0_u32; keys + 1];
    for row in 0..count {
        next[key_rank(row) as usize + 1] += 1;
    }
    for rank in 1..next.len() {
        next[rank] += next[rank - 1];
    }
    let mut rows: Vec<Placed> = vec![(0, 0); count];
    for row in 0..count {
        let slot = &mut next[key_rank(row) as usize];
        rows[*slot as usize] = (place(row), row as u32);
        *slot += 1;
    }
    // Each key's slot has moved to its end.
    next.truncate(keys);
    let mut start = 0;
    for &end in &next {
        let of_key = &mut rows[start..end as usize];
        if !of_key.is_sorted_by_key(|row| row.0) {
            // Stable, since the row's number decides between equals.
            of_key.sort_unstable();
        }
        start = end as usize;
    }
    Ordered { rows, ends: next }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn orders_like_a_plain_stable_sort(of in prop::collection::vec((0_u32..5, 0_u64..40), 0..200)) {
            let ordered = order_rows(of.len(), 6, |row| of[row].0, |row| of[row].1);
            let mut expected: Vec<usize> = (0..of.len()).collect();
            expected.sort_by_key(|&row| of[row]);
            prop_assert_eq!(ordered.rows.iter().map(|row| row.1 as usize).collect::<Vec<_>>(), expected);
            for (rank, &end) in (0..).zip(&ordered.ends) {
                prop_assert_eq!(end as usize, of.iter().filter(|row| row.0 <= rank).count());
            }
        }
    }
}
