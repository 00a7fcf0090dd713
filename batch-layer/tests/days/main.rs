//! Days computed on the embedded stores.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod closed;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod exclusions;
mod generations;
mod roads;
mod runs;
mod slices;
mod what_if;
