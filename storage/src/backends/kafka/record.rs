//! The value of a Kafka record: one event as a flat JSON object (`docs/kafka.md`, `docs/kafka-record.schema.json`).
//!
//! Writing goes from columns to text and reading from text to columns. Every finite number comes back to the last bit:
//! floats are written as the shortest text that gives the same float of their own width again, and read as that width.

mod decode;
mod encode;

pub(super) use decode::{Decoder, Runs};
pub(super) use encode::EncodedCall;

/// Version of the format, in every record as `v`.
const VERSION: u32 = 1;

/// The text field that stands in the record as the JSON array that it is.
const ITEMS: &str = "items";

/// Whether an integer field means yes and no, and stands in the record as `true` and `false`.
fn is_flag(name: &str) -> bool {
    matches!(name, "void" | "weak")
}

#[cfg(test)]
mod tests;
