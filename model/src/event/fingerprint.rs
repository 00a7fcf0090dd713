//! Payload bytes, payload hashes and checksums of whole sets of events.

use std::cmp::Ordering;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{Column, Delivery, EventBatch, NO_I64, NO_TEXT};

/// Sum of the 128-bit hashes of identities and payloads, modulo 2^128, with the number of events: the same for any
/// order of the events, different when one is missing, changed or there twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Checksum {
    /// Number of events.
    pub rows: u64,
    /// Sum of their hashes.
    pub sum: u128,
}

impl Checksum {
    /// Adds one event's hash.
    pub fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Adds another set's checksum.
    pub fn merge(&mut self, other: Checksum) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Writes the canonical bytes of events into a buffer that it keeps, and hashes them.
///
/// Canonical bytes of a payload: the kind's fields in their order, then the revision; each as a 4-byte big-endian
/// length and its bytes (numbers big-endian, −0 as 0, texts as UTF-8, absent as length 0). Of an identity: time,
/// sensor and key in the same form, before the payload.
#[derive(Debug, Default)]
pub struct Fingerprinter {
    buffer: Vec<u8>,
    other: Vec<u8>,
}

impl Fingerprinter {
    /// A fingerprinter with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hash of an event's payload: tells payloads of one identity apart.
    pub fn payload_hash(&mut self, batch: &EventBatch, row: usize) -> i64 {
        self.buffer.clear();
        write_payload(&mut self.buffer, batch, row);
        xxh3_64(&self.buffer) as i64
    }

    /// Hash of an event's identity and payload, for a [`Checksum`].
    pub fn event_hash(&mut self, batch: &EventBatch, row: usize) -> u128 {
        self.buffer.clear();
        write_identity(&mut self.buffer, batch, row);
        write_payload(&mut self.buffer, batch, row);
        xxh3_128(&self.buffer)
    }

    /// Checksum of a whole batch.
    pub fn checksum(&mut self, batch: &EventBatch) -> Checksum {
        let mut sum = Checksum::default();
        self.event_hashes(batch, |_, hash| sum.add(hash));
        sum
    }

    /// Gives [`event_hash`](Self::event_hash) of each row, in order. Faster than asking row by row where neighbours have
    /// the same sensor and key, as in a sorted batch: their bytes are written once.
    pub fn event_hashes(&mut self, batch: &EventBatch, mut each: impl FnMut(usize, u128)) {
        const TS: std::ops::Range<usize> = 5..13;
        let mut names = None;
        let mut identity_bytes = 0;
        for row in 0..batch.len() {
            let these = Some((batch.sensor[row], batch.key[row]));
            if names == these {
                self.buffer.truncate(identity_bytes);
                self.buffer[TS].copy_from_slice(&batch.ts[row].to_be_bytes());
            } else {
                names = these;
                self.buffer.clear();
                write_identity(&mut self.buffer, batch, row);
                identity_bytes = self.buffer.len();
            }
            write_payload(&mut self.buffer, batch, row);
            each(row, xxh3_128(&self.buffer));
        }
    }

    /// Compares two payloads of one kind as the winner rule does when all else ties: revision first, then bytes,
    /// unsigned.
    pub fn compare_payloads(&mut self, batch: &EventBatch, a: usize, b: usize) -> Ordering {
        batch.revision[a].cmp(&batch.revision[b]).then_with(|| {
            self.buffer.clear();
            self.other.clear();
            write_payload(&mut self.buffer, batch, a);
            write_payload(&mut self.other, batch, b);
            self.buffer.cmp(&self.other)
        })
    }
}

/// Hash of one delivery of an event: of the event's hash, `received_at` and the receipt, 16, 8 and 16 bytes, big-endian.
pub fn delivery_hash(event_hash: u128, delivery: &Delivery) -> u128 {
    let mut bytes = [0_u8; 40];
    bytes[..16].copy_from_slice(&event_hash.to_be_bytes());
    bytes[16..24].copy_from_slice(&delivery.received_at.to_be_bytes());
    bytes[24..].copy_from_slice(&delivery.receipt.to_u128().to_be_bytes());
    xxh3_128(&bytes)
}

fn write_identity(out: &mut Vec<u8>, batch: &EventBatch, row: usize) {
    out.push(batch.kind as u8);
    write_8_bytes(out, batch.ts[row].to_be_bytes());
    write_field(out, batch.sensor(row).as_bytes());
    write_field(out, batch.key(row).as_bytes());
}

fn write_field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[inline]
fn write_payload(out: &mut Vec<u8>, batch: &EventBatch, row: usize) {
    for column in &batch.payload {
        match column {
            // Adding +0 turns −0 into 0 and leaves every other value alone.
            Column::F32(values) if !values[row].is_nan() => {
                write_4_bytes(out, (values[row] + 0.0).to_be_bytes())
            }
            Column::F64(values) if !values[row].is_nan() => {
                write_8_bytes(out, (values[row] + 0.0).to_be_bytes())
            }
            Column::I64(values) if values[row] != NO_I64 => write_8_bytes(out, values[row].to_be_bytes()),
            Column::Text(values) if values[row] != NO_TEXT => {
                write_field(out, batch.strings.get(values[row]).as_bytes());
            }
            _ => out.extend_from_slice(&[0; 4]),
        }
    }
    write_8_bytes(out, batch.revision[row].to_be_bytes());
}

/// A number's field: length and bytes go out together, since this is done for every event.
#[inline]
fn write_4_bytes(out: &mut Vec<u8>, bytes: [u8; 4]) {
    let [a, b, c, d] = bytes;
    out.extend_from_slice(&[0, 0, 0, 4, a, b, c, d]);
}

/// See [`write_4_bytes`].
#[inline]
fn write_8_bytes(out: &mut Vec<u8>, bytes: [u8; 8]) {
    let [a, b, c, d, e, f, g, h] = bytes;
    out.extend_from_slice(&[0, 0, 0, 8, a, b, c, d, e, f, g, h]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::position_batch;

    #[test]
    fn payload_bytes_are_length_prefixed_and_big_endian() {
        let batch = position_batch(&[("s", "t", 1, 1.0, -0.0)]);
        let mut out = Vec::new();
        write_payload(&mut out, &batch, 0);
        let mut expected = vec![0, 0, 0, 4, 0x3f, 0x80, 0, 0]; // x = 1.0
        expected.extend([0, 0, 0, 4, 0, 0, 0, 0]); // y = −0 as 0
        expected.extend([0, 0, 0, 0]); // no floor
        expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]); // revision 0
        assert_eq!(out, expected);
    }

    #[test]
    fn a_checksum_knows_no_order_and_sees_every_change() {
        let rows = [
            ("s", "t", 1, 1.0, 2.0),
            ("s", "t", 2, 3.0, 4.0),
            ("s2", "u", 1, 1.0, 2.0),
        ];
        let mut reversed = rows;
        reversed.reverse();
        let mut f = Fingerprinter::new();
        let sum = f.checksum(&position_batch(&rows));
        assert_eq!(sum, f.checksum(&position_batch(&reversed)));
        assert_ne!(sum, f.checksum(&position_batch(&rows[..2])));
        assert_ne!(
            sum.sum,
            f.checksum(&position_batch(&[rows[0], rows[1], rows[1]])).sum
        );
        let mut moved = rows;
        moved[2].3 = 1.01;
        assert_ne!(sum.sum, f.checksum(&position_batch(&moved)).sum);
    }

    #[test]
    fn hashes_of_a_batch_are_those_of_its_rows() {
        let batch = position_batch(&[
            ("s", "t", 1, 1.0, 2.0),
            ("s", "t", 2, 3.0, 4.0),
            ("sensor", "t", 2, 3.0, 4.0),
            ("sensor", "u", 2, 3.0, 4.0),
            ("sensor", "u", 3, f32::NAN, 4.0),
            ("sensor", "u", 4, 3.0, 4.0),
        ]);
        let (mut f, mut by_row) = (Fingerprinter::new(), Fingerprinter::new());
        let mut rows = 0;
        f.event_hashes(&batch, |row, hash| {
            assert_eq!(hash, by_row.event_hash(&batch, row));
            rows += 1;
        });
        assert_eq!(rows, batch.len());
    }

    #[test]
    fn a_delivery_is_told_by_event_time_and_receipt() {
        use crate::ids::Receipt;
        let delivery = |at, receipt| Delivery {
            received_at: at,
            receipt: Receipt::from_u128(receipt),
        };
        let hash = delivery_hash(1, &delivery(2, 3));
        assert_eq!(hash, delivery_hash(1, &delivery(2, 3)));
        for other in [
            delivery_hash(2, &delivery(2, 3)),
            delivery_hash(1, &delivery(3, 3)),
            delivery_hash(1, &delivery(2, 4)),
        ] {
            assert_ne!(hash, other);
        }
    }

    #[test]
    fn a_higher_revision_beats_larger_bytes() {
        let mut batch = position_batch(&[("s", "t", 1, 9.0, 9.0), ("s", "t", 1, 1.0, 1.0)]);
        let mut f = Fingerprinter::new();
        assert_eq!(f.compare_payloads(&batch, 0, 1), Ordering::Greater);
        batch.revision[1] = 1;
        assert_eq!(f.compare_payloads(&batch, 0, 1), Ordering::Less);
    }
}
