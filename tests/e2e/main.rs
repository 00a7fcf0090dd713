//! The real binary, end to end, as its users meet it: started, posted to, killed, asked.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test or benchmark may panic and print"
)]

mod crash;
mod erasure;
mod erasure_kept;
#[cfg(target_os = "linux")]
mod faults;
#[allow(dead_code, reason = "shared with the suite of the cluster")]
mod harness;
mod layouts;
mod loss;
mod nonsense;
mod oracle;
mod recut;
mod restatement;
mod retention;
mod reverts;
mod roads;
mod roles;
mod usage;
mod walkers;
