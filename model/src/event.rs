//! Events: the kinds, their columns, their identity, and which payload of an identity wins.
//!
//! Events live in columns ([`EventBatch`]): one kind, one venue, a column per field, names interned. All layers
//! pass these batches on; nothing is allocated per event.

mod batch;
mod delivery;
mod fingerprint;
mod kind;
mod order;
mod strings;

pub use batch::{BatchError, Column, EventBatch, NO_I64, NO_TEXT};
pub use delivery::{Delivery, RawRows, Resolution, resolve};
pub use fingerprint::{Checksum, Fingerprinter, delivery_hash};
pub use kind::{CountMode, Direction, Field, FieldType, Kind, SensorState, field};
pub use order::{is_sorted_by_key, sort_by_key};
pub use strings::{StringId, Strings};
