//! Dwell's speed layer: live sessions, live occupancy, today's metrics.
//!
//! ```text
//! event log ─▶ shard ─▶ venue: known? late? ─▶ subject folds ─▶ settled day ─┐
//!                │                │ late, corrected, new layout              ├─tick▶ live view ─▶ Handle, table
//! raw events ────┴──▶ rebuild ◀───┘                  open sessions so far ───┘
//! ```
//!
//! - [`Service`] follows the shards of the log that its group gives to this process; [`Handle`] gives their live view,
//!   the lag, and takes requests for rebuilds. [`Deps`] is what it needs, [`Config`] its settings and bounds.
//! - `shard`: the steps for one shard (own, follow, tick, upkeep, checkpoint) and the loop around them; its partitions
//!   are read as one stream, in the order in which they were received.
//! - `live_sessions`: a venue's days. `watermark`: how far its time is settled. `rebuild`: a day from raw and log.
//! - `live_view`: where states are published. `live_table`: the way to the readers in other processes. `checkpoint`: the
//!   little that raw and log do not hold. `health`: what the readiness check says.
//!
//! Invariants: every number is computed by the model, with the fold and the accumulator that the batch layer uses. The
//! live rows of a day are those of its events before the shard's positions, whatever order they came in: at once
//! for what comes in order or within the reorder window, after a rebuild for the rest. The speed layer writes nothing
//! but its checkpoints and the live view, and nothing under a fence that is no longer the highest is seen by anybody.

mod checkpoint;
mod config;
mod error;
mod handle;
mod health;
mod live_sessions;
mod live_table;
mod live_view;
mod log_chunk;
pub mod metrics;
mod rebuild;
mod service;
mod shard;
#[cfg(test)]
mod testing;
mod watermark;

pub use checkpoint::stored_positions;
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use handle::{Handle, LogGap, ShardStatus, Stage};
pub use service::{Deps, GROUP, Service};
