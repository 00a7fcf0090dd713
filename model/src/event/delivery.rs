//! Deliveries, and which payload of an identity counts.
//!
//! Raw keeps each distinct payload of an identity once, with the set of its deliveries. Reading resolves that: per
//! identity, each distinct payload counts from its first delivery that is not excluded, and the payload whose first
//! delivery is latest wins; a higher `revision` decides before that, the larger payload bytes after. So a
//! redelivery or a stale retry changes nothing, and a correction wins whatever the order of reading.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{BatchError, EventBatch, Fingerprinter, sort_by_key};
use crate::ids::Receipt;
use crate::time::TsMs;

/// One arrival of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Delivery {
    /// When the log appended it.
    pub received_at: TsMs,
    /// What brought it.
    pub receipt: Receipt,
}

/// Events of one kind and venue with their deliveries, as raw tables and archives keep them.
///
/// The same identity and payload may stand in several rows (from raw and from the archive, say): [`resolve`] unites
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawRows {
    /// The events.
    pub events: EventBatch,
    /// All deliveries, row after row.
    pub deliveries: Vec<Delivery>,
    /// `ends[i]` is where row `i`'s deliveries end; each row has at least one.
    pub ends: Vec<u32>,
}

/// What [`resolve`] decided about a set of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The rows that count, in the order (key, ts, sensor).
    pub winners: Vec<u32>,
    /// For each winner its first delivery.
    pub first: Vec<Delivery>,
    /// All other deliveries, with their rows: further ones of the winners, and all of the covered payloads.
    pub superseded: Vec<(u32, Delivery)>,
    /// Identities with more than one payload.
    pub conflicts: u64,
    /// Repeated deliveries (a winner's after its first).
    pub redeliveries: u64,
}

impl RawRows {
    /// No rows.
    pub fn new(events: EventBatch) -> Self {
        debug_assert!(events.is_empty());
        Self {
            events,
            deliveries: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// All events of a batch, brought by one delivery.
    pub fn delivered_once(events: EventBatch, delivery: Delivery) -> Self {
        let n = events.len();
        Self {
            events,
            deliveries: vec![delivery; n],
            ends: (1..=n as u32).collect(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of memory held, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.events.memory_bytes() + self.deliveries.len() * size_of::<Delivery>() + self.ends.len() * 4
    }

    /// Deliveries of a row.
    pub fn deliveries(&self, row: usize) -> &[Delivery] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.deliveries[start..self.ends[row] as usize]
    }

    /// Appends rows of the same kind.
    pub fn append(&mut self, other: &RawRows) {
        self.events.append(&other.events);
        let base = self.deliveries.len() as u32;
        self.deliveries.extend_from_slice(&other.deliveries);
        self.ends.extend(other.ends.iter().map(|end| end + base));
    }

    /// Checks the batch and that every row has its deliveries. Called after every read from a store.
    pub fn check(&self) -> Result<(), BatchError> {
        self.events.check()?;
        let grows = self.ends.windows(2).all(|pair| pair[0] < pair[1]);
        let whole = self.ends.last().map_or(0, |&end| end as usize) == self.deliveries.len();
        let starts = self.ends.first().is_none_or(|&end| end > 0);
        if self.ends.len() == self.events.len() && grows && whole && starts {
            Ok(())
        } else {
            Err(self.events.refuse_deliveries())
        }
    }
}

/// Decides which rows count, leaving out the deliveries for which `excluded` says yes.
pub fn resolve(rows: &RawRows, excluded: impl Fn(usize, &Delivery) -> bool) -> Resolution {
    let order = sort_by_key(&rows.events);
    let mut resolver = Resolver {
        rows,
        excluded,
        scratch: Scratch::default(),
        out: Resolution::default(),
    };
    resolver.out.winners.reserve(order.len());
    resolver.out.first.reserve(order.len());
    let mut rest = order.as_slice();
    while let Some(&first) = rest.first() {
        let same = 1 + rest[1..]
            .iter()
            .take_while(|&&row| same_identity(&rows.events, first, row))
            .count();
        let (group, tail) = rest.split_at(same);
        resolver.group(group);
        rest = tail;
    }
    resolver.out
}

fn same_identity(events: &EventBatch, a: u32, b: u32) -> bool {
    let (a, b) = (a as usize, b as usize);
    events.ts[a] == events.ts[b] && events.key[a] == events.key[b] && events.sensor[a] == events.sensor[b]
}

/// One payload of an identity: a row that holds it, and where its deliveries stand in the scratch list.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    row: u32,
    start: usize,
    end: usize,
}

#[derive(Debug, Default)]
struct Scratch {
    fingerprinter: Fingerprinter,
    rows: Vec<u32>,
    deliveries: Vec<Delivery>,
    candidates: Vec<Candidate>,
}

struct Resolver<'a, F> {
    rows: &'a RawRows,
    excluded: F,
    scratch: Scratch,
    out: Resolution,
}

impl<F: Fn(usize, &Delivery) -> bool> Resolver<'_, F> {
    /// Resolves the rows of one identity.
    fn group(&mut self, group: &[u32]) {
        if let [row] = *group
            && let [only] = self.rows.deliveries(row as usize)
        {
            if !(self.excluded)(row as usize, only) {
                self.out.winners.push(row);
                self.out.first.push(*only);
            }
            return;
        }
        self.collect_candidates(group);
        let (events, scratch, out) = (&self.rows.events, &mut self.scratch, &mut self.out);
        let Some(&first) = scratch.candidates.first() else {
            return;
        };
        let mut best = first;
        for &candidate in &scratch.candidates[1..] {
            let newer = scratch.deliveries[candidate.start]
                .received_at
                .cmp(&scratch.deliveries[best.start].received_at);
            let (a, b) = (candidate.row as usize, best.row as usize);
            let order = events.revision[a]
                .cmp(&events.revision[b])
                .then(newer)
                .then_with(|| scratch.fingerprinter.compare_payloads(events, a, b));
            if order == Ordering::Greater {
                best = candidate;
            }
        }
        if scratch.candidates.len() > 1 {
            out.conflicts += 1;
        }
        out.redeliveries += (best.end - best.start - 1) as u64;
        out.winners.push(best.row);
        out.first.push(scratch.deliveries[best.start]);
        for candidate in &scratch.candidates {
            let skip = usize::from(candidate.row == best.row);
            let others = &scratch.deliveries[candidate.start + skip..candidate.end];
            out.superseded
                .extend(others.iter().map(|&delivery| (candidate.row, delivery)));
        }
    }

    /// Unites rows of equal payload, each with its remaining deliveries, first to last, without repetition.
    fn collect_candidates(&mut self, group: &[u32]) {
        let events = &self.rows.events;
        let Scratch {
            fingerprinter,
            rows,
            deliveries,
            candidates,
        } = &mut self.scratch;
        rows.clear();
        rows.extend_from_slice(group);
        rows.sort_unstable_by(|&a, &b| fingerprinter.compare_payloads(events, a as usize, b as usize));
        deliveries.clear();
        candidates.clear();
        let mut rest = rows.as_slice();
        while let Some(&first) = rest.first() {
            let equal = |&&row: &&u32| {
                fingerprinter.compare_payloads(events, first as usize, row as usize) == Ordering::Equal
            };
            let same = 1 + rest[1..].iter().take_while(equal).count();
            let start = deliveries.len();
            for &row in &rest[..same] {
                let kept = self.rows.deliveries(row as usize).iter();
                deliveries.extend(kept.filter(|delivery| !(self.excluded)(row as usize, delivery)));
            }
            deliveries[start..].sort_unstable();
            let mut kept = start;
            for i in start..deliveries.len() {
                if i == start || deliveries[i] != deliveries[kept - 1] {
                    deliveries[kept] = deliveries[i];
                    kept += 1;
                }
            }
            deliveries.truncate(kept);
            if kept > start {
                candidates.push(Candidate {
                    row: first,
                    start,
                    end: kept,
                });
            }
            rest = &rest[same..];
        }
    }
}

#[cfg(test)]
mod tests;
