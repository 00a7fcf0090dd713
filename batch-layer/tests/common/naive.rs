//! A day computed without the batch layer: the winners picked row by row by the rule as it is written, and given to the
//! model in one piece.

use std::collections::BTreeMap;

use dwell_model::event::{Delivery, EventBatch, Fingerprinter, Kind};
use dwell_model::layout::Layout;
use dwell_model::metrics::{AggregateRow, Carry, DayAccumulator};
use dwell_model::session::{FoldContext, fold_day};
use dwell_model::time::{DayCut, TsMs};

/// Key, time, sensor.
type Identity = (String, TsMs, String);
type PayloadHash = i64;
/// A row with the payload, and its first delivery.
type Candidate = (usize, TsMs);

/// The winners of what was delivered, one batch per kind.
pub(crate) fn winners(delivered: &[(EventBatch, Delivery)]) -> BTreeMap<Kind, EventBatch> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        let mut all = EventBatch::new(kind);
        let mut received: Vec<TsMs> = Vec::new();
        for (events, delivery) in delivered.iter().filter(|(events, _)| events.kind == kind) {
            all.append(events);
            received.extend((0..events.len()).map(|_| delivery.received_at));
        }
        let mut fingerprinter = Fingerprinter::new();
        let mut identities: BTreeMap<Identity, BTreeMap<PayloadHash, Candidate>> = BTreeMap::new();
        for (row, received_at) in received.into_iter().enumerate() {
            let identity = (all.key(row).to_owned(), all.ts[row], all.sensor(row).to_owned());
            let hash = fingerprinter.payload_hash(&all, row);
            let payloads = identities.entry(identity).or_default();
            let first = payloads.entry(hash).or_insert((row, received_at));
            if received_at < first.1 {
                *first = (row, received_at);
            }
        }
        let rows: Vec<u32> = identities
            .into_values()
            .filter_map(|payloads| {
                let latest = payloads.into_values().reduce(|a, b| {
                    let larger = fingerprinter.compare_payloads(&all, b.0, a.0).is_gt();
                    if b.1 > a.1 || (b.1 == a.1 && larger) { b } else { a }
                })?;
                Some(latest.0 as u32)
            })
            .collect();
        if !rows.is_empty() {
            found.insert(kind, all.take(&rows));
        }
    }
    found
}

/// A day's rows from its winners; the events of other days are left out.
pub(crate) fn fold(
    cut: &DayCut,
    layout: &Layout,
    winners: &BTreeMap<Kind, EventBatch>,
    carry: Carry,
) -> Vec<AggregateRow> {
    let context = FoldContext::new(cut, layout);
    let mut accumulator = DayAccumulator::new(cut, layout);
    accumulator.set_carry(carry);
    for (kind, events) in winners {
        let rows: Vec<u32> = (0..events.len() as u32)
            .filter(|&row| cut.contains(events.ts[row as usize]))
            .collect();
        if *kind == Kind::Position {
            accumulator.observe_positions(events, Some(&rows));
            // BTreeMap gave them in the order (key, ts, sensor) already.
            fold_day(&context, events, &rows, &mut accumulator);
        } else {
            accumulator.add_events(events, Some(&rows));
        }
    }
    accumulator.rows()
}
