//! Bytes to columns: what gateways and files send, decoded into a batch per venue and kind, with a verdict per event.
//!
//! | step | where |
//! |---|---|
//! | a [`Decoder`] finds the events of a [`Format`] (NDJSON, a JSON array or object, CSV) | `ndjson`, `json_array`, `csv` |
//! | each becomes a [`WireEvent`]: a borrowed [`Value`] per [`WireField`], nothing decided | `json_object`, `wire`, `value` |
//! | [`Batches`] decides: kind, venue, time, values ([`crate::validate`]); appends to columns or keeps a [`Refusal`](crate::refusal::Refusal) | `batches` |
//!
//! Nothing is allocated per event that is taken: texts are borrowed until they are interned.
//!
//! **What is understood.** The fields of `design.md` §3, by their names. A field that is not known, or that belongs to
//! another kind and has a value, makes its event be refused as `unknown_field`, by name, unless it is listed in
//! [`FieldNames`]: a misspelt optional field would otherwise be lost in silence. `null` and an empty cell mean absent.
//! `kind` defaults to `position`. `ts` is integer milliseconds or RFC 3339 with an offset. `collected_at` is checked and
//! not kept: it is neither identity nor payload. `revision` may stand on every kind. Names may be given as integers.
//! A byte order mark, CRLF and empty lines are skipped; a JSON body may be one object instead of an array.
//!
//! A decoder can be fed a message in pieces; it says how many bytes of a piece it has used:
//!
//! ```
//! use std::sync::Arc;
//! use dwell_ingest::decode::{Batches, DecodeRules, Decoder, Format, VenueVerdict};
//!
//! let rules = Arc::new(DecodeRules::default());
//! let mut batches = Batches::new(Arc::clone(&rules), Arc::new(|_: &_| VenueVerdict::Known));
//! let mut decoder = Decoder::new(Format::Ndjson, rules);
//! let body = br#"{"venue":"v1","sensor":"s1","track":"t1","ts":1700000000000,"x":1.5,"y":2}
//! {"venue":"v1","sensor":"s1","track":"t1","ts":"soon","x":1.5,"y":2}
//! "#;
//! decoder.decode(body, true, &mut batches).unwrap();
//! assert_eq!(batches.accepted(), 1);
//! assert_eq!(batches.refused()[0].code.as_str(), "ts_unreadable");
//! let taken = batches.take();
//! assert_eq!((taken[0].venue.as_str(), taken[0].events.len()), ("v1", 1));
//! ```

mod batches;
mod csv;
mod decoder;
mod fields;
mod json_array;
mod json_object;
mod lines;
mod ndjson;
mod rules;
mod value;
mod wire;

pub use batches::{Batches, VenueBatch, VenueLookup, VenueVerdict};
pub use decoder::{Decoder, Format};
pub use fields::{FieldNames, FieldSet, Target, WireField};
pub use rules::{DecodeRules, TimeRules};
pub use value::Value;
pub use wire::WireEvent;

pub(crate) use batches::Ordinals;
pub(crate) use value::wrong_type;

#[cfg(test)]
mod tests;
