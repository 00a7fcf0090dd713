//! Counting conflicts of an archived day: identities of which more than one payload was delivered.
//!
//! The winners stand in one dataset and everything else in another, both sortable by (key, ts, sensor). The superseded
//! rows are few, so they are sorted in memory and looked up in the winners' chunks as these pass by.

use std::cmp::Ordering;

use dwell_model::event::{EventBatch, Fingerprinter, RawRows, sort_by_key};

/// The superseded rows of a kind, to be compared with the winners that pass by.
pub(super) struct Conflicts {
    superseded: EventBatch,
    next: usize,
    fingerprinter: Fingerprinter,
    found: u64,
    /// The last row that was found in conflict: further payloads of its identity are no further conflict.
    last: Option<usize>,
}

impl Conflicts {
    pub(super) fn new(superseded: RawRows) -> Self {
        let order = sort_by_key(&superseded.events);
        let superseded = superseded.events.take(&order);
        Self {
            superseded,
            next: 0,
            fingerprinter: Fingerprinter::new(),
            found: 0,
            last: None,
        }
    }

    /// Compares the next chunk of winners, sorted by (key, ts, sensor).
    pub(super) fn compare(&mut self, winners: &EventBatch) {
        let Some(last) = winners.len().checked_sub(1) else {
            return;
        };
        let mut from = 0;
        while self.next < self.superseded.len() && self.order(winners, last).is_ge() {
            from += partition_point(winners.len() - from, |row| {
                self.order(winners, from + row).is_lt()
            });
            if from < winners.len() && self.order(winners, from).is_eq() {
                self.look_at(winners, from);
            }
            self.next += 1;
        }
    }

    /// Identities with more than one payload.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    fn look_at(&mut self, winners: &EventBatch, winner: usize) {
        let counted = self.last.is_some_and(|last| self.same_identity(last, self.next));
        let covered = self.fingerprinter.payload_hash(&self.superseded, self.next);
        if !counted && covered != self.fingerprinter.payload_hash(winners, winner) {
            self.found += 1;
            self.last = Some(self.next);
        }
    }

    /// How a winner stands to the next superseded row.
    fn order(&self, winners: &EventBatch, row: usize) -> Ordering {
        let (theirs, next) = (&self.superseded, self.next);
        winners
            .key(row)
            .as_bytes()
            .cmp(theirs.key(next).as_bytes())
            .then_with(|| winners.ts[row].cmp(&theirs.ts[next]))
            .then_with(|| winners.sensor(row).as_bytes().cmp(theirs.sensor(next).as_bytes()))
    }

    fn same_identity(&self, a: usize, b: usize) -> bool {
        let rows = &self.superseded;
        (rows.key[a], rows.ts[a], rows.sensor[a]) == (rows.key[b], rows.ts[b], rows.sensor[b])
    }
}

/// The first of `n` rows for which `before` does not hold. Looks near the beginning first: the next one is seldom far.
fn partition_point(n: usize, before: impl Fn(usize) -> bool) -> usize {
    let mut reach = 1;
    while reach < n && before(reach) {
        reach *= 2;
    }
    let (mut low, mut high) = (0, (reach + 1).min(n));
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use dwell_model::event::Delivery;
    use dwell_model::ids::Receipt;
    use dwell_model::testing::position_batch;

    use super::*;

    type Position<'a> = (&'a str, &'a str, i64, f32, f32);

    fn found(winners: &[&[Position<'_>]], superseded: &[Position<'_>]) -> u64 {
        let delivery = Delivery {
            received_at: 1,
            receipt: Receipt::from_u128(1),
        };
        let mut conflicts = Conflicts::new(RawRows::delivered_once(position_batch(superseded), delivery));
        winners
            .iter()
            .for_each(|chunk| conflicts.compare(&position_batch(chunk)));
        conflicts.found()
    }

    #[test]
    fn a_redelivery_is_no_conflict_and_two_covered_payloads_are_one() {
        let winners: &[&[_]] = &[
            &[("s", "a", 1, 1.0, 1.0), ("s", "a", 2, 1.0, 1.0)],
            &[("s", "b", 1, 1.0, 1.0), ("t", "b", 1, 1.0, 1.0)],
        ];
        assert_eq!(
            found(winners, &[("s", "a", 2, 1.0, 1.0)]),
            0,
            "the same payload again"
        );
        assert_eq!(
            found(winners, &[("s", "a", 2, 2.0, 1.0), ("s", "a", 2, 3.0, 1.0)]),
            1
        );
        assert_eq!(
            found(winners, &[("t", "b", 1, 2.0, 1.0), ("s", "a", 1, 2.0, 1.0)]),
            2
        );
        assert_eq!(
            found(winners, &[("t", "b", 1, 1.0, 1.0), ("t", "b", 1, 5.0, 1.0)]),
            1
        );
    }

    #[test]
    fn every_row_is_found_wherever_the_chunks_are_cut() {
        let names: Vec<String> = (0..10).map(|t| format!("t{t}")).collect();
        let all: Vec<_> = names
            .iter()
            .flat_map(|t| (0..50).map(move |ts| ("s", t.as_str(), ts, 1.0_f32, 1.0_f32)))
            .collect();
        let covered: Vec<_> = all
            .iter()
            .step_by(7)
            .map(|row| (row.0, row.1, row.2, 9.0, 9.0))
            .collect();
        for size in [1, 3, 64, 500] {
            let chunks: Vec<&[_]> = all.chunks(size).collect();
            assert_eq!(found(&chunks, &covered), covered.len() as u64, "chunks of {size}");
        }
    }
}
