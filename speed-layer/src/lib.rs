//! Dwell's speed layer: live sessions, live occupancy, today's metrics.
//!
//! ```text
//! event log ─▶ partition ─▶ venue: known? late? ─▶ subject folds ─▶ settled day ─┐
//!                 │                  │ late, corrected, new layout                ├─tick▶ live view ─▶ Handle
//! raw events ─────┴──▶ rebuild ◀─────┘                    open sessions so far ───┘
//! ```
//!
//! - [`Service`] follows every partition of the log; [`Handle`] gives the live view, the lag, and takes requests for
//!   rebuilds. [`Deps`] is what it needs, [`Config`] its settings and bounds.
//! - `partition`: the steps for one partition (own, follow, tick, upkeep, checkpoint) and the loop around them.
//! - `live_sessions`: a venue's days. `watermark`: how far its time is settled. `rebuild`: a day from raw and log.
//! - `live_view`: where states are published. `checkpoint`: the little that raw and log do not hold.
//!
//! Invariants: every number is computed by the model, with the fold and the accumulator that the batch layer uses. The
//! live rows of a day are those of its events before the partition's position, whatever order they came in: at once
//! for what comes in order or within the reorder window, after a rebuild for the rest. The speed layer writes nothing
//! but its checkpoints, and publishes nothing under a fence that is no longer the highest.

mod checkpoint;
mod config;
mod error;
mod handle;
mod live_sessions;
mod live_view;
pub mod metrics;
mod partition;
mod rebuild;
mod service;
#[cfg(test)]
mod testing;
mod watermark;

pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use handle::{Handle, PartitionStatus, Stage};
pub use service::{Deps, Service};
