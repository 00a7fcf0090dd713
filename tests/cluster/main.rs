//! The roles as processes on real servers, while processes, servers and the network fail.
//!
//! Needs a stack of its own, since its servers are killed: `deploy/local/up DIR`, then
//! `DWELL_TEST_STACK=DIR cargo test -p dwell --test cluster`. Without the variable every test says so and passes. The
//! tests take turns. `chaos` is the longer form, by seed (see docs/faults.md).

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test may panic, print, and wait by the wall clock"
)]

mod chaos;
mod faults;
mod moving;
mod proxy;
mod schedules;
mod shop;
mod stack;
mod three_nodes;

#[path = "../e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod harness;
#[path = "../e2e/oracle.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod oracle;
#[path = "../e2e/walkers.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod walkers;
