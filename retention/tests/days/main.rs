//! Retention on whole venues: archived and published by the batch layer, proven, swept, restored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking"
)]

mod changes;
#[path = "../../../batch-layer/tests/common/mod.rs"]
mod common;
mod doubts;
mod generations;
mod harness;
mod restores;
mod sweeps;
