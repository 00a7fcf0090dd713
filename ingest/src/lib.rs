//! Dwell's ingest layer: from bytes that strangers send to rows that every other layer can rely on.
//!
//! | module | does |
//! |---|---|
//! | [`decode`] | NDJSON, JSON and CSV into columns, with a verdict per event |
//! | [`validate`] | what a value must be to be taken |

pub mod decode;
pub mod refusal;
pub mod validate;
