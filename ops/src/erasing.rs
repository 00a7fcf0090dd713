//! Erasing a visitor everywhere, and proving it.
//!
//! ```text
//! whom (sealed in the job) ─▶ ledger ─▶ every writer has taken notice ─▶ log, raw rows, marks ─▶ days computed anew,
//! their archive written anew ─▶ replaced files, sessions of all generations, quarantine, names, free pages ─▶ scan ─▶ receipt
//! ```
//!
//! - [`whom`]: who is meant, and how that is kept while the job runs.
//! - [`places`]: where somebody can be, each place looked at without changing it.
//! - [`deletion`]: the steps, each repeatable: a worker may die between any two.
//! - [`receipt`]: what is kept of it all.
//!
//! Invariant: whom a job erases is named in clear in no store once its first step has begun.

pub(crate) mod deletion;
pub(crate) mod places;
pub(crate) mod receipt;
pub(crate) mod whom;

#[cfg(test)]
pub(crate) mod tests;

use dwell_batch_layer::BatchLayer;
use dwell_model::time::DAY_MS;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::Stores;
use dwell_storage::erasure::ErasureWatch;

/// What erasing works with.
#[derive(Clone)]
pub(crate) struct Eraser {
    /// The stores as they are: nothing is left out of what they give.
    pub(crate) bare: Stores,
    pub(crate) watch: ErasureWatch,
    pub(crate) batch: BatchLayer,
    pub(crate) clock: SharedClock,
    /// How long the event log keeps its records.
    pub(crate) log_retention_ms: i64,
    /// How long after a day's end presence is taken for it.
    pub(crate) presence_late_ms: i64,
}

impl Eraser {
    /// For how long an erasure is carried out again each night: until the log has forgotten, and nothing late is taken.
    pub(crate) fn repeats_ms(&self) -> i64 {
        self.log_retention_ms.max(self.presence_late_ms) + DAY_MS
    }
}
