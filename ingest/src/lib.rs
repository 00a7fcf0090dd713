//! Dwell's ingest layer: from bytes that strangers send to rows that every other layer can rely on.
//!
//! ```text
//! HTTP ──▶ intake: decode ▶ validate ▶ pseudonymise ─▶ event log ─▶ raw writer ─▶ raw table
//! files ─▶            │ refuse
//!                     └▶ quarantine
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`decode`] | NDJSON, JSON and CSV into columns, with a verdict per event |
//! | [`validate`] | what a value must be to be taken |
//! | [`refusal`] | the codes and places of what is not taken |
//! | [`pseudonymise`] | device identifiers become pseudonyms, before anything durable |
//! | [`quarantine`] | refused events kept with their reason, and played in again |
//! | [`venues`] | which venues there are, cached |
//! | [`intake`] | one message in, one verdict out, whatever brought it |
//! | [`sources`] | what brings messages: HTTP, files |
//! | [`raw_writer`] | copies the log into the raw table, exactly, whatever happens in between |
//! | [`metrics`] | what is counted |
//!
//! # Invariants
//!
//! * Nothing is acknowledged that the log has not made durable.
//! * No device identifier is written in clear, to no store and no log.
//! * Nothing is allocated, cloned or awaited per event on the way into the log.
//! * Everything that strangers can make grow has a bound, and says so when it is reached.

pub mod decode;
pub mod intake;
pub mod metrics;
pub mod pseudonymise;
pub mod quarantine;
pub mod raw_writer;
pub mod refusal;
pub mod sources;
pub mod validate;
pub mod venues;

mod recent;
#[cfg(test)]
mod testing;
