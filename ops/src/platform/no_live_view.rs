//! The live view of a process that has none.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_storage::api::{LiveVenue, LiveView};
use dwell_storage::error::Result;
use tokio::sync::watch;

/// Knows of no venue: a command that has opened the folder itself follows nothing live.
#[derive(Debug)]
pub(super) struct NoLiveView;

#[async_trait]
impl LiveView for NoLiveView {
    async fn venue(&self, _: &VenueKey) -> Result<Option<Arc<LiveVenue>>> {
        Ok(None)
    }

    async fn subscribe(&self, _: &VenueKey) -> Result<watch::Receiver<Option<Arc<LiveVenue>>>> {
        Ok(watch::channel(None).1)
    }
}
