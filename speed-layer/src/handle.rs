//! What other parts hold of the speed layer: the live view, how far it is, and a way to ask for a rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_storage::api::{LiveVenue, LiveView, LogLag, Partition, Position};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use tokio::sync::watch;

use crate::config::Config;
use crate::live_view::LiveBoard;

/// Requests for rebuilds that may wait.
const REBUILD_REQUESTS_MAX: usize = 10_000;

/// A cheap, cloneable way to the speed layer. Clones speak of the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// How a partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: Partition,
    /// Fence under which it is followed; 0 before it is owned.
    pub fence: u64,
    /// The next record to read.
    pub position: Position,
    /// How far it is behind, as of its last tick.
    pub lag: LogLag,
    /// What it is doing.
    pub stage: Stage,
}

/// What a partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Taking ownership, building the open days from raw.
    Starting,
    /// Following the log.
    Following,
    /// Not following any more, for this reason; a restart is needed.
    Stopped(String),
}

/// What the handle and the partitions share.
pub(crate) struct Shared {
    pub(crate) board: LiveBoard,
    partitions: Mutex<BTreeMap<Partition, PartitionStatus>>,
    rebuild_requests: Mutex<BTreeSet<(VenueKey, LocalDay)>>,
}

impl Handle {
    pub(crate) fn new(config: &Config) -> Self {
        let shared = Shared {
            board: LiveBoard::new(config.venues_max, config.subscribers_max),
            partitions: Mutex::default(),
            rebuild_requests: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How each partition is doing, by number.
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        lock(&self.shared.partitions).values().cloned().collect()
    }

    /// How far the layer is behind the log: events of all partitions, and the age of the oldest.
    pub fn lag(&self) -> LogLag {
        lock(&self.shared.partitions)
            .values()
            .fold(LogLag::default(), |sum, status| LogLag {
                events: sum.events + status.lag.events,
                oldest_received_at: match (sum.oldest_received_at, status.lag.oldest_received_at) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                },
            })
    }

    /// Asks for a live day to be built anew from raw and log, for what the layer cannot see itself (an exclusion, an
    /// erasure). Done within a minute; days without live state are left alone. `Busy` when too many requests wait.
    pub fn request_rebuild(&self, venue: &VenueKey, day: LocalDay) -> Result<()> {
        let mut requests = lock(&self.shared.rebuild_requests);
        if requests.len() >= REBUILD_REQUESTS_MAX {
            return Err(StorageError::new(
                ErrorKind::Busy,
                "too many rebuilds of live days are waiting",
            ));
        }
        requests.insert((venue.clone(), day));
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("partitions", &self.partitions())
            .finish()
    }
}

#[async_trait]
impl LiveView for Handle {
    async fn venue(&self, venue: &VenueKey) -> Result<Option<Arc<LiveVenue>>> {
        Ok(self.shared.board.venue(venue))
    }

    async fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<Option<Arc<LiveVenue>>>> {
        self.shared.board.subscribe(venue)
    }
}

impl Shared {
    pub(crate) fn set_status(&self, status: PartitionStatus) {
        lock(&self.partitions).insert(status.partition, status);
    }

    pub(crate) fn set_stage(&self, partition: Partition, stage: Stage) {
        if let Some(status) = lock(&self.partitions).get_mut(&partition) {
            status.stage = stage;
        }
    }

    /// The requests for venues of a partition, which are then done with.
    pub(crate) fn take_rebuild_requests(
        &self,
        mine: impl Fn(&VenueKey) -> bool,
    ) -> Vec<(VenueKey, LocalDay)> {
        let mut requests = lock(&self.rebuild_requests);
        if requests.is_empty() {
            return Vec::new();
        }
        let all = std::mem::take(&mut *requests);
        let (taken, left): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(|(venue, _)| mine(venue));
        *requests = left;
        taken.into_iter().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
