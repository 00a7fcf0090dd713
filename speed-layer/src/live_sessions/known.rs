//! Which events of a day are known: tells a redelivery from a correction and from a new event.
//!
//! Per event 12 bytes in an open table: 64 bits of its identity, 32 of its payload. Two identities that share their 64
//! bits look like a correction and cost a rebuild, no more; only a correction whose payload also shares 32 bits with
//! the one before would be missed until the nightly run.

use dwell_model::event::{Column, EventBatch, NO_I64, NO_TEXT};
use hashbrown::HashTable;

/// What an event is, given what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Its identity was not known.
    New,
    /// The same identity and payload were known. `contested`: with other payloads beside it, so that the time of this
    /// delivery may decide which of them counts.
    Redelivery { contested: bool },
    /// Its identity was known, with another payload.
    Correction,
}

/// The known events of a venue-day.
#[derive(Debug, Default)]
pub(crate) struct KnownEvents {
    table: HashTable<KnownEvent>,
    events_max: usize,
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
struct KnownEvent {
    /// Two halves, so that an entry takes 12 bytes and not 16.
    identity: [u32; 2],
    payload: u32,
}

impl KnownEvent {
    fn identity(&self) -> u64 {
        u64::from(self.identity[0]) << 32 | u64::from(self.identity[1])
    }
}

impl KnownEvents {
    /// Remembers at most `events_max` events; those beyond are taken for new each time.
    pub(crate) fn new(events_max: usize) -> Self {
        Self {
            table: HashTable::new(),
            events_max,
            forgotten: 0,
        }
    }

    /// What an event is; it is known from now on.
    pub(crate) fn note(&mut self, identity: u64, payload: u32) -> Seen {
        let (mut same, mut others) = (false, false);
        for known in self.table.iter_hash(identity) {
            if known.identity() == identity {
                if known.payload == payload {
                    same = true;
                } else {
                    others = true;
                }
            }
        }
        if same {
            return Seen::Redelivery { contested: others };
        }
        if self.table.len() < self.events_max {
            let entry = KnownEvent {
                identity: [(identity >> 32) as u32, identity as u32],
                payload,
            };
            self.table.insert_unique(identity, entry, KnownEvent::identity);
        } else {
            self.forgotten += 1;
        }
        if others { Seen::Correction } else { Seen::New }
    }

    /// Number of events that did not fit since this was last asked.
    pub(crate) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}

/// Hashes events of one batch after another: each name of a batch once, then a few multiplications per event.
#[derive(Debug, Default)]
pub(crate) struct EventHasher {
    texts: Vec<u64>,
    hasher: foldhash::quality::FixedState,
}

impl EventHasher {
    /// Prepares for the events of a batch. Their hashes do not depend on the batch that they come in.
    pub(crate) fn prepare(&mut self, batch: &EventBatch) {
        use std::hash::BuildHasher;
        self.texts.clear();
        self.texts
            .extend(batch.strings.iter().map(|text| self.hasher.hash_one(text)));
    }

    /// Hash of an event's identity: kind, time, sensor, key.
    pub(crate) fn identity(&self, batch: &EventBatch, row: usize) -> u64 {
        let names = mix(
            self.texts[batch.sensor[row] as usize],
            self.texts[batch.key[row] as usize],
        );
        mix(names ^ batch.kind as u64, batch.ts[row] as u64)
    }

    /// Hash of an event's payload, revision included.
    pub(crate) fn payload(&self, batch: &EventBatch, row: usize) -> u32 {
        let mut hash = batch.revision[row] as u64;
        for column in &batch.payload {
            // As the model's payload bytes have it: −0 is 0, and absent is like no value.
            let value = match column {
                Column::F32(values) if values[row].is_nan() => ABSENT,
                Column::F32(values) => u64::from((values[row] + 0.0).to_bits()),
                Column::F64(values) if values[row].is_nan() => ABSENT,
                Column::F64(values) => (values[row] + 0.0).to_bits(),
                Column::I64(values) if values[row] == NO_I64 => ABSENT,
                Column::I64(values) => values[row] as u64,
                Column::Text(values) if values[row] == NO_TEXT => ABSENT,
                Column::Text(values) => self.texts[values[row] as usize],
            };
            hash = mix(hash, value);
        }
        (hash ^ (hash >> 32)) as u32
    }

    /// Hash of a name of the prepared batch.
    pub(crate) fn text(&self, id: u32) -> u64 {
        self.texts[id as usize]
    }
}

const ABSENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds the 128-bit product of two disturbed numbers: every bit of both reaches every bit of the result.
fn mix(a: u64, b: u64) -> u64 {
    let a = a.wrapping_add(0x2d35_8dcc_aa6c_78a5) ^ b.rotate_left(32);
    let product = u128::from(a) * u128::from(b ^ 0x8bb8_4b93_962e_acc9);
    let folded = (product as u64) ^ ((product >> 64) as u64);
    (folded ^ (folded >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dwell_model::testing::position_batch;

    use super::*;

    fn hashes(batch: &EventBatch, row: usize) -> (u64, u32) {
        let mut hasher = EventHasher::default();
        hasher.prepare(batch);
        (hasher.identity(batch, row), hasher.payload(batch, row))
    }

    #[test]
    fn a_redelivery_a_correction_and_a_new_event_are_told_apart() {
        let batch = position_batch(&[
            ("s", "t", 1, 1.0, 2.0),
            ("s", "t", 1, 1.0, 2.5),
            ("s", "t", 2, 1.0, 2.0),
            ("t", "s", 1, 1.0, 2.0),
        ]);
        let mut known = KnownEvents::new(100);
        let mut seen = |row| {
            let (identity, payload) = hashes(&batch, row);
            known.note(identity, payload)
        };
        assert_eq!(seen(0), Seen::New);
        assert_eq!(seen(0), Seen::Redelivery { contested: false });
        assert_eq!(seen(1), Seen::Correction);
        assert_eq!(seen(0), Seen::Redelivery { contested: true });
        assert_eq!(seen(2), Seen::New);
        assert_eq!(seen(3), Seen::New, "sensor and track are not interchangeable");
    }

    #[test]
    fn hashes_do_not_depend_on_the_batch_that_brings_the_event() {
        let alone = position_batch(&[("s", "t", 7, -0.0, 2.0)]);
        let among = position_batch(&[("x", "y", 1, 0.0, 0.0), ("s", "t", 7, 0.0, 2.0)]);
        assert_eq!(hashes(&alone, 0), hashes(&among, 1));
        let mut revised = alone.clone();
        revised.revision[0] = 1;
        assert_ne!(hashes(&alone, 0).1, hashes(&revised, 0).1);
    }

    #[test]
    fn neighbouring_identities_and_payloads_do_not_collide() {
        let names: Vec<String> = (0..100).map(|i| format!("track-{i}")).collect();
        let rows: Vec<_> = (0..100_000)
            .map(|i| {
                (
                    "s",
                    names[i % 100].as_str(),
                    (i / 100) as i64 * 100,
                    i as f32 * 0.01,
                    1.0,
                )
            })
            .collect();
        let batch = position_batch(&rows);
        let mut hasher = EventHasher::default();
        hasher.prepare(&batch);
        let identities: HashSet<u64> = (0..batch.len()).map(|row| hasher.identity(&batch, row)).collect();
        assert_eq!(identities.len(), batch.len());
        let payloads: HashSet<u32> = (0..batch.len()).map(|row| hasher.payload(&batch, row)).collect();
        // 100,000 of 2^32 evenly drawn numbers share about one.
        assert!(payloads.len() > batch.len() - 15, "{}", payloads.len());
    }

    #[test]
    fn a_full_memory_takes_what_it_forgot_for_new() {
        let mut known = KnownEvents::new(1);
        assert_eq!(known.note(1, 1), Seen::New);
        assert_eq!(known.note(2, 1), Seen::New);
        assert_eq!(known.note(2, 1), Seen::New);
        assert_eq!(known.note(1, 1), Seen::Redelivery { contested: false });
        assert_eq!((known.take_forgotten(), known.take_forgotten()), (2, 0));
    }
}
