//! What other parts hold of the speed layer: the live view, how far it is, and a way to ask for a rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{LiveVenue, LiveView, LogLag, Partition, Position, Shard};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use tokio::sync::watch;

use crate::config::Config;
use crate::live_sessions::Showing;
use crate::live_table::TableQueue;
use crate::live_view::{LiveBoard, Published};

/// Requests for rebuilds that may wait.
const REBUILD_REQUESTS_MAX: usize = 10_000;

/// A cheap, cloneable way to the speed layer. Clones speak of the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// How a shard is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Its number.
    pub shard: Shard,
    /// Fence under which it is followed; 0 before it is owned.
    pub fence: u64,
    /// For each of its partitions the next record to take in.
    pub positions: Vec<(Partition, Position)>,
    /// How far it is behind, all partitions together, as of its last checkpoint.
    pub lag: LogLag,
    /// What it is doing.
    pub stage: Stage,
    /// What the log had lost when this process came to read it; the latest ones.
    pub gaps: Vec<LogGap>,
}

/// Records that the log no longer held when they were to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGap {
    /// The partition.
    pub partition: Partition,
    /// The first one that is missing.
    pub from: Position,
    /// The first one after them.
    pub to: Position,
    /// When it was noticed, epoch milliseconds.
    pub noticed_at: TsMs,
    /// Whether the raw writer has passed them, so that the live view, which is then built from the raw table, holds all
    /// that is known of them. While it has not, numbers of the live days may be too low.
    pub is_complete: bool,
}

impl LogGap {
    /// Number of records that are missing. On Kafka a record is an event.
    pub fn records(&self) -> u64 {
        self.to.abs_diff(self.from)
    }
}

/// What a shard is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Taking ownership, building the open days from raw.
    Starting,
    /// Following the log.
    Following,
    /// Another process has taken it over although the group gives it to this one; tried again after a while.
    TakenOver,
    /// Not following any more, for this reason; somebody has to look.
    Stopped(String),
}

/// What the handle and the shards share.
pub(crate) struct Shared {
    pub(crate) board: LiveBoard,
    /// The way to the table between processes, where there is one.
    pub(crate) table: Option<TableQueue>,
    shards: Mutex<BTreeMap<Shard, ShardStatus>>,
    rebuild_requests: Mutex<BTreeSet<(VenueKey, LocalDay)>>,
    /// How often somebody in this process has changed exclusions.
    exclusions_changed: AtomicU64,
}

impl Handle {
    pub(crate) fn new(config: &Config, has_table: bool) -> Self {
        let shared = Shared {
            board: LiveBoard::new(config.venues_max, config.subscribers_max),
            table: has_table.then(|| TableQueue::new(config)),
            shards: Mutex::default(),
            rebuild_requests: Mutex::default(),
            exclusions_changed: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How each shard that this process follows is doing, by number.
    pub fn shards(&self) -> Vec<ShardStatus> {
        lock(&self.shared.shards).values().cloned().collect()
    }

    /// How far the layer is behind the log: events of all shards that this process follows, and the age of the oldest.
    pub fn lag(&self) -> LogLag {
        sum_of_lags(lock(&self.shared.shards).values().map(|status| status.lag))
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

    /// Says that an exclusion was made or ended, so that it is looked for at once and not when it is due.
    pub fn exclusions_changed(&self) {
        self.shared.exclusions_changed.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("shards", &self.shards()).finish()
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
    /// Shows a venue's state to the readers in this process, and to those of others.
    pub(crate) fn publish(&self, showing: Showing, at: Duration) -> Published {
        let Showing { state, is_news } = showing;
        let published = self.board.publish(Arc::clone(&state));
        if let (Published::Shown, Some(table)) = (published, &self.table) {
            table.offer(state, is_news, at);
        }
        published
    }

    /// Shows nothing of a venue any more that another process follows now. What the table holds is the other's to
    /// replace.
    pub(crate) fn withdraw(&self, venue: &VenueKey, fence: u64) {
        self.board.withdraw(venue, fence);
        if let Some(table) = &self.table {
            table.forget(venue, fence);
        }
    }

    /// A number that grows with every change of exclusions in this process.
    pub(crate) fn exclusion_changes(&self) -> u64 {
        self.exclusions_changed.load(Ordering::Acquire)
    }

    pub(crate) fn set_status(&self, status: ShardStatus) {
        lock(&self.shards).insert(status.shard, status);
    }

    pub(crate) fn set_stage(&self, shard: Shard, stage: Stage) {
        if let Some(status) = lock(&self.shards).get_mut(&shard) {
            status.stage = stage;
        }
    }

    pub(crate) fn forget_shard(&self, shard: Shard) {
        lock(&self.shards).remove(&shard);
    }

    /// The requests for venues of a shard, which are then done with.
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

/// All events, and the oldest time of receipt.
pub(crate) fn sum_of_lags(lags: impl Iterator<Item = LogLag>) -> LogLag {
    lags.fold(LogLag::default(), |sum, lag| LogLag {
        events: sum.events + lag.events,
        oldest_received_at: match (sum.oldest_received_at, lag.oldest_received_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
