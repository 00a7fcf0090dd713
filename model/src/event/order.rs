//! The order in which a venue-day is archived and folded: by key, time, sensor.

use super::EventBatch;

/// The batch's rows in the order (key, ts, sensor), names compared as bytes; equal rows keep their order.
///
/// A counting sort by the key's rank, then a sort by (ts, sensor) inside each key. Arrival order is nearly time
/// order, so that second sort mostly finds its work done.
pub fn sort_by_key(batch: &EventBatch) -> Vec<u32> {
    let ranks = batch.strings.ranks();
    let mut starts = vec![0_u32; ranks.len() + 1];
    for &key in &batch.key {
        starts[ranks[key as usize] as usize + 1] += 1;
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut rows = vec![0_u32; batch.len()];
    let mut next = starts.clone();
    for (row, &key) in batch.key.iter().enumerate() {
        let place = &mut next[ranks[key as usize] as usize];
        rows[*place as usize] = row as u32;
        *place += 1;
    }
    let order = |&row: &u32| {
        let row = row as usize;
        (batch.ts[row], ranks[batch.sensor[row] as usize])
    };
    for pair in starts.windows(2) {
        let group = &mut rows[pair[0] as usize..pair[1] as usize];
        if !group.is_sorted_by_key(order) {
            group.sort_by_key(order);
        }
    }
    rows
}

/// Whether the batch's rows stand in the order of [`sort_by_key`].
pub fn is_sorted_by_key(batch: &EventBatch) -> bool {
    let ranks = batch.strings.ranks();
    (0..batch.len()).is_sorted_by_key(|row| {
        (
            ranks[batch.key[row] as usize],
            batch.ts[row],
            ranks[batch.sensor[row] as usize],
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::position_batch;

    proptest! {
        #[test]
        fn sorts_like_a_plain_sort_of_texts(
            rows in prop::collection::vec((0_u8..4, 0_u8..5, 0_i64..50), 0..80),
        ) {
            let names = |prefix: &str, n: u8| format!("{prefix}{}", ["b", "", "aa", "a", "é"][n as usize]);
            let named: Vec<_> = rows.iter().map(|&(s, t, ts)| (names("s", s), names("", t) + "t", ts)).collect();
            let refs: Vec<_> = named.iter().map(|(s, t, ts)| (s.as_str(), t.as_str(), *ts, 0.0, 0.0)).collect();
            let batch = position_batch(&refs);
            let mut expected: Vec<(&str, i64, &str, usize)> =
                refs.iter().enumerate().map(|(i, r)| (r.1, r.2, r.0, i)).collect();
            expected.sort();
            let got: Vec<usize> = sort_by_key(&batch).into_iter().map(|row| row as usize).collect();
            prop_assert_eq!(&got, &expected.iter().map(|e| e.3).collect::<Vec<_>>());
            let sorted = batch.take(&sort_by_key(&batch));
            prop_assert!(is_sorted_by_key(&sorted));
        }
    }
}
