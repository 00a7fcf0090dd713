//! Values for the suites.

use dwell_model::event::{Column, Delivery, EventBatch, FieldType, Kind, RawRows};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};

use crate::api::LogRecord;

/// 2026-03-29T00:00:00Z: clocks change in much of Europe that night.
pub const DAY_START: TsMs = 1_774_742_400_000;

/// A tenant's id.
pub fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

/// A venue of a tenant.
pub fn venue(tenant_id: &str, venue_id: &str) -> VenueKey {
    VenueKey::new(tenant(tenant_id), VenueId::new(venue_id).unwrap())
}

/// The venue that most cases use.
pub fn shop() -> VenueKey {
    venue("acme", "shop")
}

/// Venues that must never see anything of [`shop`]: the same name at another tenant, another venue of the tenant, and
/// names that a careless key would run together with it.
pub fn strangers() -> Vec<VenueKey> {
    vec![
        venue("other", "shop"),
        venue("acme", "shop2"),
        venue("acm", "eshop"),
        venue("ACME", "shop"),
    ]
}

/// A day.
pub fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

/// A receipt.
pub fn receipt(number: u128) -> Receipt {
    Receipt::from_u128(number)
}

/// A delivery.
pub fn delivery(received_at: TsMs, receipt_number: u128) -> Delivery {
    Delivery {
        received_at,
        receipt: receipt(receipt_number),
    }
}

/// `n` events of a kind from `first_ts` on, a second apart, with every field set in even rows and the optional ones
/// absent in odd ones. `variant` changes the payloads and nothing else.
pub fn events(kind: Kind, first_ts: TsMs, n: usize, variant: u8) -> EventBatch {
    let mut batch = EventBatch::new(kind);
    for row in 0..n {
        let sensor = batch.strings.intern(["s-1", "Süd 2", "s-1 "][row % 3]);
        let key = match kind {
            Kind::Status => String::new(),
            _ => format!("k{}", row % 5),
        };
        let key = batch.strings.intern(&key);
        batch.ts.push(first_ts + row as i64 * 1_000);
        batch.sensor.push(sensor);
        batch.key.push(key);
        batch.revision.push(if row % 4 == 3 { -7 } else { 0 });
        for (field, column) in kind.fields().iter().zip(&mut batch.payload) {
            if !field.required && row % 2 == 1 {
                column.push_absent();
                continue;
            }
            let number = row as i64 * 3 + i64::from(variant);
            match column {
                Column::F32(values) => values.push(number as f32 * 0.37 - 5.0),
                Column::F64(values) => values.push(number as f64 / 3.0),
                Column::I64(values) => values.push(number - 4),
                Column::Text(values) => {
                    values.push(batch.strings.intern(&format!("{}-{number}", field.name)))
                }
            }
        }
    }
    batch.check().unwrap();
    batch
}

/// One position.
pub fn position(sensor: &str, track: &str, ts: TsMs, x: f32, y: f32) -> EventBatch {
    dwell_model::testing::position_batch(&[(sensor, track, ts, x, y)])
}

/// Rows of one delivery.
pub fn delivered(batch: EventBatch, by: Delivery) -> RawRows {
    RawRows::delivered_once(batch, by)
}

/// A record for the log.
pub fn record(venue: &VenueKey, receipt_number: u128, batch: EventBatch) -> LogRecord {
    LogRecord {
        venue: venue.clone(),
        receipt: receipt(receipt_number),
        events: batch,
        received_at: None,
    }
}

/// An event as a plain text, in which equal payloads are equal: for comparing what came back with what was written,
/// whatever the numbering of names.
pub fn describe(batch: &EventBatch, row: usize) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{} ts={} sensor={:?} key={:?} revision={}",
        batch.kind,
        batch.ts[row],
        batch.sensor(row),
        batch.key(row),
        batch.revision[row]
    );
    for (i, field) in batch.kind.fields().iter().enumerate() {
        let value = match field.ty {
            // Adding zero makes −0 the same payload as 0, as the contract of payload bytes says.
            FieldType::F32 => format!("{:?}", batch.f32s(i)[row] + 0.0),
            FieldType::F64 => format!("{:?}", batch.f64s(i)[row] + 0.0),
            FieldType::I64 => batch.i64s(i)[row].to_string(),
            FieldType::Text => format!("{:?}", batch.text(i, row)),
        };
        write!(text, " {}={value}", field.name).unwrap();
    }
    text
}

/// A small generator of numbers, so that a failing case fails again.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that depend on the seed alone.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    /// Puts a list in another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
