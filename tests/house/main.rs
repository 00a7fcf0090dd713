//! House rules that a machine can hold: who may depend on whom, and which papers must be there.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test or benchmark may panic and print"
)]

mod dependencies;
mod papers;
