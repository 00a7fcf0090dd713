//! Comparing raw rows with the archive: each row with each of its deliveries is looked for in the files read back.
//!
//! A window of a day's raw rows is held in memory, with a 128-bit hash of each delivery of each; then the archive's
//! files are read from end to end and what is met is ticked off. So memory is bounded by the window, whatever the day
//! or its archive holds, and the rows that are removed afterwards are exactly those that were ticked off.

use std::ops::Range;

use dwell_model::event::{Checksum, Delivery, EventBatch, Fingerprinter, Kind, RawRows, delivery_hash};
use dwell_model::ids::VenueKey;
use dwell_model::time::{SLOT_MS, TsMs, slot_of};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, Projection};
use hashbrown::HashSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Retention;
use crate::error::{Doing, Error, Result};

/// Raw rows of a window, and what of them the archive holds.
#[derive(Debug)]
pub(crate) struct Compared {
    /// The rows, by time.
    pub(crate) rows: RawRows,
    /// For each row whether the archive holds it with each of its deliveries.
    pub(crate) held: Vec<bool>,
    /// Over identities, payloads and deliveries of the rows.
    pub(crate) raw: Checksum,
    /// The same over those of them that the archive holds.
    pub(crate) found: Checksum,
}

/// Where a comparison reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison<'a> {
    pub(crate) retention: &'a Retention,
    pub(crate) venue: &'a VenueKey,
    pub(crate) kind: Kind,
    /// The archived days that the rows may lie in.
    pub(crate) archived: &'a [ArchivedDay],
    pub(crate) cancel: &'a CancellationToken,
}

impl Comparison<'_> {
    /// Cuts a range at slots into windows of about as many rows as may be held.
    pub(crate) async fn windows(&self, range: Range<TsMs>) -> Result<Vec<Range<TsMs>>> {
        let rows_max = self.retention.settings().window_rows.max(1);
        let (mut windows, mut rest) = (Vec::new(), vec![range]);
        while let Some(range) = rest.pop() {
            let rows = self.count(range.clone()).await?;
            match halves(&range) {
                Some((first, second)) if rows > rows_max => rest.extend([second, first]),
                _ if rows > 0 => windows.push(range),
                _ => {}
            }
        }
        Ok(windows)
    }

    /// Compares the rows of a window.
    pub(crate) async fn compare(&self, window: Range<TsMs>) -> Result<Compared> {
        let raw = &self.retention.stores().raw;
        let rows = raw
            .scan(self.venue, self.kind, window)
            .await
            .doing("scan raw events")?;
        let (rows, mut ticks) = blocking("retention.hash", move || {
            let ticks = Ticks::of(&rows);
            (rows, ticks)
        })
        .await?;
        let raw_sum = ticks.raw;
        for day in self.archived.iter().filter(|_| !rows.is_empty()) {
            ticks = self.read(day, ticks).await?;
        }
        let (held, found) = ticks.judge(&rows);
        Ok(Compared {
            rows,
            held,
            raw: raw_sum,
            found,
        })
    }

    /// Reads a day's files and ticks off what they hold.
    async fn read(&self, day: &ArchivedDay, mut ticks: Ticks) -> Result<Ticks> {
        let archive = &self.retention.stores().archive;
        if !day.superseded.is_empty() {
            let rows = archive
                .superseded(self.venue, self.kind, day)
                .await
                .doing("read superseded rows")?;
            ticks = blocking("retention.superseded", move || {
                ticks.tick(&rows.events, |row| rows.deliveries(row));
                ticks
            })
            .await?;
        }
        if day.events.is_empty() {
            return Ok(ticks);
        }
        let mut reader = archive
            .open(self.venue, day, Projection::EventsAndDeliveries)
            .await
            .doing("open an archived day")?;
        let cancel = self.cancel.clone();
        blocking("retention.archived", move || {
            while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                ticks.tick(chunk.events, |row| &chunk.first[row..=row]);
            }
            Ok(ticks)
        })
        .await?
    }

    async fn count(&self, range: Range<TsMs>) -> Result<u64> {
        let counts = self.retention.stores().raw.count(self.venue, range).await;
        let counts = counts.doing("count raw events")?;
        let of_kind = counts.into_iter().find(|(kind, _)| *kind == self.kind);
        Ok(of_kind.map_or(0, |(_, rows)| rows))
    }
}

/// The halves of a range, cut at a slot; `None` for one slot or less.
fn halves(range: &Range<TsMs>) -> Option<(Range<TsMs>, Range<TsMs>)> {
    let (first, last) = (slot_of(range.start), slot_of(range.end - 1));
    let middle = (first + (last - first + 1) / 2) * SLOT_MS;
    (first < last).then_some((range.start..middle, middle..range.end))
}

/// The deliveries of a window's rows, to be ticked off.
struct Ticks {
    fingerprinter: Fingerprinter,
    /// Of each delivery, row after row.
    hashes: Vec<u128>,
    /// The same, ascending.
    sorted: Vec<u128>,
    /// Of `sorted`.
    ticked: Vec<bool>,
    slots: HashSet<i64>,
    raw: Checksum,
}

impl Ticks {
    fn of(rows: &RawRows) -> Self {
        let mut fingerprinter = Fingerprinter::new();
        let mut hashes = Vec::with_capacity(rows.deliveries.len());
        let (mut raw, mut slots) = (Checksum::default(), HashSet::new());
        fingerprinter.event_hashes(&rows.events, |row, event| {
            slots.insert(slot_of(rows.events.ts[row]));
            for delivery in rows.deliveries(row) {
                let hash = delivery_hash(event, delivery);
                raw.add(hash);
                hashes.push(hash);
            }
        });
        let mut sorted = hashes.clone();
        sorted.sort_unstable();
        Self {
            fingerprinter,
            ticked: vec![false; sorted.len()],
            hashes,
            sorted,
            slots,
            raw,
        }
    }

    fn tick<'a>(&mut self, events: &EventBatch, deliveries: impl Fn(usize) -> &'a [Delivery]) {
        // Neighbours mostly lie in one slot.
        let mut last = (i64::MIN, false);
        for row in 0..events.len() {
            let slot = slot_of(events.ts[row]);
            if last.0 != slot {
                last = (slot, self.slots.contains(&slot));
            }
            if !last.1 {
                continue;
            }
            let event = self.fingerprinter.event_hash(events, row);
            for delivery in deliveries(row) {
                if let Ok(place) = self.sorted.binary_search(&delivery_hash(event, delivery)) {
                    self.ticked[place] = true;
                }
            }
        }
    }

    /// For each row whether all of its deliveries were met, and the sum over those that were.
    fn judge(self, rows: &RawRows) -> (Vec<bool>, Checksum) {
        let mut found = Checksum::default();
        let mut start = 0;
        let mut held = Vec::with_capacity(rows.len());
        for &end in &rows.ends {
            let mut all = true;
            for &hash in &self.hashes[start..end as usize] {
                let is_met = self
                    .sorted
                    .binary_search(&hash)
                    .is_ok_and(|place| self.ticked[place]);
                if is_met {
                    found.add(hash);
                }
                all &= is_met;
            }
            held.push(all);
            start = end as usize;
        }
        (held, found)
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::Receipt;
    use dwell_model::testing::position_batch;

    use super::*;

    fn by(received_at: i64) -> Delivery {
        Delivery {
            received_at,
            receipt: Receipt::from_u128(received_at as u128),
        }
    }

    #[test]
    fn a_row_is_held_only_with_each_of_its_deliveries() {
        let batch = position_batch(&[
            ("s", "a", 1, 0.5, 1.0),
            ("s", "b", 2, 0.5, 1.0),
            ("s", "c", SLOT_MS + 1, 0.5, 1.0),
        ]);
        let rows = RawRows {
            events: batch,
            deliveries: vec![by(1), by(2), by(1), by(3)],
            ends: vec![2, 3, 4],
        };
        let mut ticks = Ticks::of(&rows);
        assert_eq!(ticks.raw.rows, 4);
        // The archive numbers names otherwise, and has the same place with another payload.
        let archived = position_batch(&[
            ("s", "c", SLOT_MS + 1, 0.5, 1.0),
            ("s", "b", 2, 0.5, 1.0),
            ("s", "a", 1, 0.5, 1.0),
            ("s", "a", 1, 0.75, 1.0),
        ]);
        let first = [by(4), by(1), by(1), by(2)];
        ticks.tick(&archived, |row| &first[row..=row]);
        let (held, found) = ticks.judge(&rows);
        assert_eq!(held, [false, true, false]);
        assert_eq!(found.rows, 2);

        let mut ticks = Ticks::of(&rows);
        let first = [by(3), by(1), by(1), by(2)];
        ticks.tick(&archived, |row| &first[row..=row]);
        let again = position_batch(&[("s", "a", 1, 0.5, 1.0)]);
        ticks.tick(&again, |_| std::slice::from_ref(&rows.deliveries[1]));
        let raw = ticks.raw;
        let (held, found) = ticks.judge(&rows);
        assert_eq!((held, found), (vec![true; 3], raw));
    }

    #[test]
    fn a_range_is_halved_at_slots_until_it_is_one() {
        let range = 5..3 * SLOT_MS + 7;
        let (first, second) = halves(&range).unwrap();
        assert_eq!((first.start, second.end), (5, 3 * SLOT_MS + 7));
        assert_eq!((first.end, first.end % SLOT_MS), (second.start, 0));
        let (first, second) = halves(&(SLOT_MS - 1..SLOT_MS + 1)).unwrap();
        assert_eq!((first, second), (SLOT_MS - 1..SLOT_MS, SLOT_MS..SLOT_MS + 1));
        assert!(halves(&(SLOT_MS..2 * SLOT_MS)).is_none());
        assert!(halves(&(3..4)).is_none());
    }
}
