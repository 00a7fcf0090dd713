//! The contract of the live view's table in memory: what readers in other processes see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_storage::api::{LiveVenue, LiveViewWriter};
use dwell_storage::error::{ErrorKind, Result, StorageError};

/// Keeps a state per venue and hides those of lower fences. Away while told so.
#[derive(Debug, Default)]
pub(crate) struct MemoryLiveTable {
    rows: Mutex<HashMap<VenueKey, LiveVenue>>,
    calls: Mutex<u64>,
    is_away: Mutex<bool>,
    /// Each call waits for a permit, where there are any to wait for.
    pub(crate) gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl MemoryLiveTable {
    /// A table whose calls wait until permits are added.
    pub(crate) fn gated() -> Self {
        Self {
            gate: Some(Arc::new(tokio::sync::Semaphore::new(0))),
            ..Self::default()
        }
    }

    /// What a reader sees of a venue.
    pub(crate) fn row(&self, venue: &VenueKey) -> Option<LiveVenue> {
        self.rows.lock().unwrap().get(venue).cloned()
    }

    /// Calls so far, those that failed included.
    pub(crate) fn calls(&self) -> u64 {
        *self.calls.lock().unwrap()
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        *self.is_away.lock().unwrap() = is_away;
    }
}

#[async_trait]
impl LiveViewWriter for MemoryLiveTable {
    async fn show(&self, state: &LiveVenue) -> Result<()> {
        *self.calls.lock().unwrap() += 1;
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if *self.is_away.lock().unwrap() {
            return Err(StorageError::new(ErrorKind::Unavailable, "the table is away"));
        }
        let mut rows = self.rows.lock().unwrap();
        let row = rows.entry(state.venue.clone()).or_insert_with(|| state.clone());
        if row.fence <= state.fence {
            *row = state.clone();
        }
        Ok(())
    }
}
