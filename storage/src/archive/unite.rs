//! Decides what a day is to hold: its winners, each with its first delivery, and everything else that was delivered.
//!
//! Most events stand in one row and win without a question; repeated deliveries of one payload need their earliest. Those
//! are settled here in one pass over the sorted rows. Where payloads differ, [`resolve`] decides, for all such rows of a
//! piece at once, so that the rule is written in one place.

use dwell_model::event::{
    Checksum, Column, Delivery, EventBatch, Fingerprinter, RawRows, delivery_hash, resolve, sort_by_key,
};

use super::order::{Ordered, SENSOR_BITS, order_rows};
use crate::api::DeliveredRows;

/// What a piece of a day comes to.
#[derive(Debug)]
pub(super) struct United {
    /// What counts, each with its first delivery; sorted.
    pub(super) events: DeliveredRows,
    /// Further deliveries and covered payloads; sorted.
    pub(super) superseded: DeliveredRows,
}

/// Checksums of a dataset's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Over identities and payloads.
    pub(super) events: Checksum,
    /// Over identities, payloads and deliveries.
    pub(super) deliveries: Checksum,
}

impl Sums {
    /// Those of rows.
    pub(super) fn of(rows: &DeliveredRows) -> Self {
        let mut sums = Self::default();
        sums.add(rows);
        sums
    }

    /// Adds those of other rows.
    pub(super) fn merge(&mut self, other: Sums) {
        self.events.merge(other.events);
        self.deliveries.merge(other.deliveries);
    }

    /// Adds rows.
    fn add(&mut self, rows: &DeliveredRows) {
        Fingerprinter::new().event_hashes(&rows.events, |row, hash| {
            self.events.add(hash);
            self.deliveries.add(delivery_hash(hash, &rows.delivery(row)));
        });
    }
}

/// Unites a piece's rows: all rows of each identity must be there. Rows from `superseded_from` on are what the archive
/// holds as superseded; they stay so whatever happens, since superseded rows are committed before events are.
pub(super) fn unite(rows: DeliveredRows, superseded_from: usize) -> United {
    let ordered = order(&rows.events);
    if superseded_from >= rows.len() && is_distinct(&ordered) {
        let kind = rows.events.kind;
        return United {
            events: in_order(rows, &ordered),
            superseded: DeliveredRows::new(kind),
        };
    }
    let mut settling = Settling::new(&rows, superseded_from);
    let mut identity = Vec::new();
    let mut start = 0;
    for &end in &ordered.ends {
        let mut of_key = &ordered.rows[start..end as usize];
        while let Some(&(place, row)) = of_key.first() {
            let same = 1 + of_key[1..].iter().take_while(|other| other.0 == place).count();
            if same == 1 {
                settling.one_row(row);
            } else {
                identity.clear();
                identity.extend(of_key[..same].iter().map(|placed| placed.1));
                settling.rows_of_identity(&identity);
            }
            of_key = &of_key[same..];
        }
        start = end as usize;
    }
    settling.finish()
}

/// The rows in the order (key, ts, sensor); those of a key with equal places are of one identity.
fn order(events: &EventBatch) -> Ordered {
    let ranks = events.strings.ranks();
    let first = events.ts.iter().copied().min().unwrap_or(0);
    let last = events.ts.iter().copied().max().unwrap_or(0);
    let fits = (last - first) < 1 << (64 - SENSOR_BITS) && ranks.len() <= 1 << SENSOR_BITS;
    let key = |row: usize| ranks[events.key[row] as usize];
    if fits {
        let place = |row: usize| {
            let sensor = u64::from(ranks[events.sensor[row] as usize]);
            ((events.ts[row] - first) as u64) << SENSOR_BITS | sensor
        };
        return order_rows(events.len(), ranks.len(), key, place);
    }
    // Decades in one day's rows, or millions of names: places are numbers of identities in the order found the slow way.
    let sorted = sort_by_key(events);
    let mut places = vec![0_u64; sorted.len()];
    for pair in sorted.windows(2) {
        let (before, row) = (pair[0] as usize, pair[1] as usize);
        let is_same = events.ts[before] == events.ts[row] && events.sensor[before] == events.sensor[row];
        places[row] = places[before] + u64::from(!is_same);
    }
    order_rows(events.len(), ranks.len(), key, |row| places[row])
}

fn is_distinct(ordered: &Ordered) -> bool {
    let mut start = 0;
    ordered.ends.iter().all(|&end| {
        let of_key = &ordered.rows[start..end as usize];
        start = end as usize;
        of_key.windows(2).all(|pair| pair[0].0 != pair[1].0)
    })
}

fn in_order(rows: DeliveredRows, ordered: &Ordered) -> DeliveredRows {
    if ordered
        .rows
        .iter()
        .zip(0..)
        .all(|(placed, number)| placed.1 == number)
    {
        return rows;
    }
    let order: Vec<u32> = ordered.rows.iter().map(|placed| placed.1).collect();
    DeliveredRows {
        events: rows.events.take(&order),
        delivery: order.iter().map(|&row| rows.delivery[row as usize]).collect(),
        deliveries: rows.deliveries,
    }
}

/// A row with one of its deliveries, and the group that it belongs to.
#[derive(Debug, Clone, Copy)]
struct Further {
    group: u32,
    row: u32,
    delivery: Delivery,
}

struct Settling<'a> {
    rows: &'a DeliveredRows,
    superseded_from: usize,
    winners: Vec<u32>,
    first: Vec<u32>,
    /// Deliveries of winners that [`resolve`] chose; numbered after those of the rows.
    more_deliveries: Vec<Delivery>,
    superseded: Vec<Further>,
    /// Rows of groups whose payloads differ, and the groups' places among the winners.
    open_rows: Vec<u32>,
    open_groups: Vec<(u32, u32)>,
    scratch: Vec<(Delivery, u32)>,
}

impl<'a> Settling<'a> {
    fn new(rows: &'a DeliveredRows, superseded_from: usize) -> Self {
        Self {
            rows,
            superseded_from,
            winners: Vec::with_capacity(rows.len()),
            first: Vec::with_capacity(rows.len()),
            more_deliveries: Vec::new(),
            superseded: Vec::new(),
            open_rows: Vec::new(),
            open_groups: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes the one row of an identity.
    #[inline]
    fn one_row(&mut self, row: u32) {
        if row as usize >= self.superseded_from {
            self.supersede(row, self.rows.delivery(row as usize));
        }
        self.win(row, self.rows.delivery[row as usize]);
    }

    /// Takes the rows of one identity, two or more.
    fn rows_of_identity(&mut self, rows: &[u32]) {
        let (row, others) = (rows[0], &rows[1..]);
        if !others
            .iter()
            .all(|&other| same_payload(&self.rows.events, row, other))
        {
            self.open_groups
                .push((self.winners.len() as u32, rows.len() as u32));
            self.open_rows.extend_from_slice(rows);
            // Held for the row that `resolve` names.
            return self.win(row, 0);
        }
        let delivery = self.rows.delivery(row as usize);
        if others
            .iter()
            .all(|&other| self.rows.delivery(other as usize) == delivery)
        {
            // The same row again, as from a file read twice; one that is superseded comes last.
            if others.iter().any(|&other| other as usize >= self.superseded_from) {
                self.supersede(row, delivery);
            }
            return self.win(row, self.rows.delivery[row as usize]);
        }
        self.one_payload(rows);
    }

    fn win(&mut self, row: u32, delivery: u32) {
        self.winners.push(row);
        self.first.push(delivery);
    }

    fn supersede(&mut self, row: u32, delivery: Delivery) {
        self.superseded.push(Further {
            group: self.winners.len() as u32,
            row,
            delivery,
        });
    }

    /// One payload, delivered more than once: the earliest counts.
    fn one_payload(&mut self, group: &[u32]) {
        let rows = self.rows;
        let mut deliveries = std::mem::take(&mut self.scratch);
        deliveries.clear();
        deliveries.extend(
            group
                .iter()
                .map(|&row| (rows.delivery(row as usize), rows.delivery[row as usize])),
        );
        deliveries.sort_unstable();
        deliveries.dedup_by_key(|(delivery, _)| *delivery);
        let (first, number) = deliveries[0];
        let was_superseded =
            |&&row: &&u32| row as usize >= self.superseded_from && rows.delivery(row as usize) == first;
        if let Some(&row) = group.iter().find(was_superseded) {
            self.supersede(row, first);
        }
        for &(delivery, _) in &deliveries[1..] {
            self.supersede(group[0], delivery);
        }
        self.win(group[0], number);
        self.scratch = deliveries;
    }

    fn finish(mut self) -> United {
        self.settle_open_groups();
        // Stable: within an identity as they were found.
        self.superseded.sort_by_key(|further| further.group);
        let (rows, further) = (self.rows, &self.superseded);
        let superseded = DeliveredRows {
            events: rows
                .events
                .take(&further.iter().map(|further| further.row).collect::<Vec<_>>()),
            delivery: (0..further.len() as u32).collect(),
            deliveries: further.iter().map(|further| further.delivery).collect(),
        };
        let mut deliveries = rows.deliveries.clone();
        deliveries.extend_from_slice(&self.more_deliveries);
        let events = DeliveredRows {
            events: rows.events.take(&self.winners),
            delivery: self.first,
            deliveries,
        };
        United { events, superseded }
    }

    fn settle_open_groups(&mut self) {
        if self.open_rows.is_empty() {
            return;
        }
        let (rows, open) = (self.rows, std::mem::take(&mut self.open_rows));
        let raw = RawRows {
            events: rows.events.take(&open),
            deliveries: open.iter().map(|&row| rows.delivery(row as usize)).collect(),
            ends: (1..=open.len() as u32).collect(),
        };
        let resolution = resolve(&raw, |_, _| false);
        let groups = std::mem::take(&mut self.open_groups);
        // Groups went in sorted and come out so, one winner each.
        debug_assert_eq!(groups.len(), resolution.winners.len());
        let mut group_of_row = Vec::with_capacity(open.len());
        for (number, &(_, count)) in groups.iter().enumerate() {
            group_of_row.extend((0..count).map(|_| number));
        }
        let mut fingerprinter = Fingerprinter::new();
        let mut start = 0;
        for ((&(place, count), &winner), &first) in
            groups.iter().zip(&resolution.winners).zip(&resolution.first)
        {
            self.winners[place as usize] = open[winner as usize];
            self.first[place as usize] = (rows.deliveries.len() + self.more_deliveries.len()) as u32;
            self.more_deliveries.push(first);
            let members = start..start + count as usize;
            start = members.end;
            let stays = members.clone().find(|&member| {
                open[member] as usize >= self.superseded_from
                    && raw.deliveries[member] == first
                    && fingerprinter
                        .compare_payloads(&raw.events, member, winner as usize)
                        .is_eq()
            });
            if let Some(member) = stays {
                self.superseded.push(Further {
                    group: place,
                    row: open[member],
                    delivery: first,
                });
            }
        }
        for (member, delivery) in resolution.superseded {
            let (place, _) = groups[group_of_row[member as usize]];
            self.superseded.push(Further {
                group: place,
                row: open[member as usize],
                delivery,
            });
        }
    }
}

/// Whether two events have the same payload, bit for bit. Payloads that are equal only by the rule (0 and −0) are left
/// to [`resolve`].
fn same_payload(events: &EventBatch, a: u32, b: u32) -> bool {
    let (a, b) = (a as usize, b as usize);
    events.revision[a] == events.revision[b]
        && events.payload.iter().all(|column| match column {
            Column::F32(values) => values[a].to_bits() == values[b].to_bits(),
            Column::F64(values) => values[a].to_bits() == values[b].to_bits(),
            Column::I64(values) => values[a] == values[b],
            Column::Text(values) => values[a] == values[b],
        })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use dwell_model::event::Kind;
    use dwell_model::ids::Receipt;
    use dwell_model::testing::position_batch;
    use proptest::prelude::*;

    use super::*;

    fn delivery(n: i64) -> Delivery {
        Delivery {
            received_at: n,
            receipt: Receipt::from_u128(n as u128),
        }
    }

    /// Key, time, payload (x), delivery.
    type Row = (String, i64, u32, i64);

    fn plain(rows: &DeliveredRows) -> Vec<Row> {
        rows.check().unwrap();
        let events = &rows.events;
        let row = |i: usize| {
            (
                events.key(i).to_owned(),
                events.ts[i],
                events.f32s(0)[i].to_bits(),
                rows.delivery(i).received_at,
            )
        };
        (0..rows.len()).map(row).collect()
    }

    fn rows(of: &[(u8, i64, f32, i64)]) -> DeliveredRows {
        let mut all = DeliveredRows::new(Kind::Position);
        for &(track, ts, x, received) in of {
            let batch = position_batch(&[("s", &format!("t{track}"), ts, x, 0.0)]);
            all.append(&DeliveredRows::delivered_once(batch, delivery(received)));
        }
        all
    }

    #[test]
    fn a_delivery_that_counts_again_stays_superseded_too() {
        // The archive covered 1.0 (of 10) by 2.0 (of 20); then a copy of 2.0 turns up that came before 1.0 did.
        let all = rows(&[(0, 1, 2.0, 5), (0, 1, 2.0, 20), (0, 1, 1.0, 10)]);
        let united = unite(all, 2);
        assert_eq!(
            plain(&united.events),
            [("t0".to_owned(), 1, 1.0_f32.to_bits(), 10)]
        );
        let superseded: BTreeSet<_> = plain(&united.superseded)
            .into_iter()
            .map(|row| (row.2, row.3))
            .collect();
        assert_eq!(
            superseded,
            [
                (1.0_f32.to_bits(), 10),
                (2.0_f32.to_bits(), 5),
                (2.0_f32.to_bits(), 20)
            ]
            .into()
        );
    }

    #[test]
    fn a_superseded_row_whose_event_was_never_committed_wins_and_stays() {
        let united = unite(rows(&[(0, 1, 2.0, 5)]), 0);
        assert_eq!(plain(&united.events), plain(&united.superseded));
    }

    #[test]
    fn zero_and_minus_zero_are_one_payload() {
        let united = unite(rows(&[(0, 1, -0.0, 5), (0, 1, 0.0, 6)]), usize::MAX);
        assert_eq!((united.events.len(), united.superseded.len()), (1, 1));
        assert_eq!(united.events.delivery(0), delivery(5));
    }

    proptest! {
        /// Against the rule read literally: every delivery is kept once, and of each identity the payload whose first
        /// delivery is latest wins.
        #[test]
        fn every_delivery_is_kept_and_the_rule_decides(
            of in prop::collection::vec((0_u8..3, 0_i64..4, prop_oneof![Just(0.0_f32), Just(1.5), Just(2.5)], 0_i64..6), 0..60),
        ) {
            let united = unite(rows(&of), usize::MAX);
            let (events, superseded) = (plain(&united.events), plain(&united.superseded));
            let mut all: Vec<_> = events.iter().chain(&superseded).cloned().collect();
            all.sort();
            let distinct: BTreeSet<Row> = of.iter().map(|r| (format!("t{}", r.0), r.1, r.2.to_bits(), r.3)).collect();
            prop_assert_eq!(&all, &distinct.iter().cloned().collect::<Vec<_>>());

            let mut first: BTreeMap<(String, i64), BTreeMap<u32, i64>> = BTreeMap::new();
            for (key, ts, x, received) in &distinct {
                let known = first.entry((key.clone(), *ts)).or_default().entry(*x).or_insert(*received);
                *known = (*known).min(*received);
            }
            let expected: Vec<Row> = first
                .into_iter()
                .map(|((key, ts), payloads)| {
                    let (received, x) = payloads.into_iter().map(|(x, received)| (received, x)).max().unwrap();
                    (key, ts, x, received)
                })
                .collect();
            prop_assert_eq!(events, expected);
            prop_assert!(superseded.is_sorted_by_key(|row| (row.0.clone(), row.1)));
        }
    }
}
