//! From records of the log to one write of the raw table.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use dwell_model::event::{Delivery, Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::slot_of;
use dwell_storage::api::{ConsumerPosition, LoggedRecord, Mark, MarkSource, RawWrite};

/// Unites records by venue and kind, and finds the slots that they touch.
#[derive(Debug, Default)]
pub(super) struct WriteBuilder {
    rows: Vec<(VenueKey, RawRows)>,
    by_venue: HashMap<(VenueKey, Kind), usize>,
    /// For each venue (by the number of its first rows) and slot the highest position.
    slots: HashMap<(usize, i64), i64>,
}

impl WriteBuilder {
    /// Adds a record. Positions must not fall.
    pub(super) fn add(&mut self, record: LoggedRecord) {
        let LoggedRecord {
            position,
            received_at,
            venue,
            receipt,
            events,
        } = record;
        let rows = RawRows::delivered_once(events, Delivery { received_at, receipt });
        let number = match self.by_venue.entry((venue, rows.events.kind)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let number = self.rows.len();
                let kind = entry.key().1;
                self.rows.push((
                    entry.key().0.clone(),
                    RawRows::new(dwell_model::event::EventBatch::new(kind)),
                ));
                *entry.insert(number)
            }
        };
        let mut before = None;
        for &ts in &rows.events.ts {
            let slot = slot_of(ts);
            if before != Some(slot) {
                self.slots.insert((number, slot), position);
                before = Some(slot);
            }
        }
        let united = &mut self.rows[number].1;
        // The first record's columns are taken as they are.
        if united.is_empty() {
            *united = rows
        } else {
            united.append(&rows)
        }
    }

    /// The write, with the position behind the last record.
    pub(super) fn build(self, source: &MarkSource, position: ConsumerPosition) -> RawWrite {
        let mut marks: HashMap<(&VenueKey, i64), i64> = HashMap::with_capacity(self.slots.len());
        for (&(number, slot), &position) in &self.slots {
            let mark = marks.entry((&self.rows[number].0, slot)).or_insert(position);
            *mark = position.max(*mark);
        }
        let mut marks: Vec<Mark> = marks
            .into_iter()
            .map(|((venue, slot), position)| Mark {
                venue: venue.clone(),
                slot,
                source: source.clone(),
                position,
            })
            .collect();
        marks.sort_unstable_by(|a, b| (&a.venue, a.slot).cmp(&(&b.venue, b.slot)));
        RawWrite {
            rows: self.rows,
            marks,
            position: Some(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{Receipt, TenantId, VenueId};
    use dwell_model::testing::position_batch;

    use super::*;

    #[test]
    fn records_of_one_venue_become_one_set_of_rows_and_a_mark_per_slot() {
        let venue = |id| VenueKey::new(TenantId::new("t").unwrap(), VenueId::new(id).unwrap());
        let record = |position, id, ts: &[i64]| LoggedRecord {
            position,
            received_at: 1_000 + position,
            venue: venue(id),
            receipt: Receipt::from_u128(position as u128),
            events: position_batch(&ts.iter().map(|&ts| ("s", "t", ts, 1.0, 2.0)).collect::<Vec<_>>()),
        };
        let mut builder = WriteBuilder::default();
        builder.add(record(7, "a", &[0, 599_999, 600_000]));
        builder.add(record(8, "b", &[5]));
        builder.add(record(9, "a", &[600_001, 1]));
        let source = MarkSource::log(3, 0);
        let position = ConsumerPosition {
            consumer: "raw-writer",
            epoch: 3,
            partition: 0,
            position: 10,
        };
        let write = builder.build(&source, position.clone());
        let marks: Vec<_> = write
            .marks
            .iter()
            .map(|mark| (mark.venue.venue.as_str(), mark.slot, mark.position))
            .collect();
        assert_eq!(marks, [("a", 0, 9), ("a", 1, 9), ("b", 0, 8)]);
        assert!(write.marks.iter().all(|mark| mark.source == source));
        assert_eq!(write.position, Some(position));
        let rows: Vec<_> = write
            .rows
            .iter()
            .map(|(venue, rows)| (venue.venue.as_str(), rows.len()))
            .collect();
        assert_eq!(rows, [("a", 5), ("b", 1)]);
        let a = &write.rows[0].1;
        a.check().unwrap();
        assert_eq!(
            (a.deliveries(0)[0].received_at, a.deliveries(4)[0].received_at),
            (1_007, 1_009)
        );
    }
}
