//! The live view: what happens now, as the speed layer publishes it and the serving API reads it.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::AggregateRow;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::Result;

/// A venue at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveVenue {
    /// Which venue.
    pub venue: VenueKey,
    /// Fence of the speed layer that published it; readers take the highest.
    pub fence: u64,
    /// When it was published.
    pub as_of: TsMs,
    /// Event time up to which the order is settled.
    pub watermark: TsMs,
    /// People present per zone now (zones without anybody with 0), `_venue` included, by zone id.
    pub occupancy: Vec<(String, u64)>,
    /// Sessions that are open.
    pub open_sessions: u64,
    /// Events that came too late for the reorder window, since the day's start.
    pub late_events: u64,
    /// Days that no final generation answers for yet: the open one, and closed ones until theirs is published.
    pub days: Vec<LiveDay>,
}

/// A day in the live view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveDay {
    /// The day.
    pub day: LocalDay,
    /// Fingerprint of the layout used.
    pub layout: u64,
    /// Hour and day rows, sorted like a generation's.
    pub rows: Arc<Vec<AggregateRow>>,
}

/// Reading the live view. Implemented by the speed layer's handle in one process, by a table across machines.
#[async_trait]
pub trait LiveView: Send + Sync {
    /// A venue as last published; `None` when the speed layer has seen nothing of it.
    async fn venue(&self, venue: &VenueKey) -> Result<Option<Arc<LiveVenue>>>;

    /// A channel that always holds the last published state of a venue.
    async fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<Option<Arc<LiveVenue>>>>;
}

/// Showing the live view to other processes.
#[async_trait]
pub trait LiveViewWriter: Send + Sync {
    /// Shows a venue's state instead of the one shown before. A state of a lower fence than one shown before is kept
    /// from readers. Repeatable. States vanish [`LIVE_STATE_KEPT_MS`] after they were last shown.
    async fn show(&self, state: &LiveVenue) -> Result<()>;
}

/// How long a state stays readable that nobody shows again, in milliseconds: a day.
pub const LIVE_STATE_KEPT_MS: i64 = 24 * 3_600_000;

/// The live view as a table between processes.
pub trait LiveViewTable: LiveView + LiveViewWriter {}

impl<T: LiveView + LiveViewWriter> LiveViewTable for T {}
