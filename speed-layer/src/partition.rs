//! One partition of the log, followed into the live state of its venues.
//!
//! A partition is a value with steps: [`open`](Partition::open) takes ownership and builds the live days,
//! [`follow`](Partition::follow) reads on, [`tick`](Partition::tick) publishes, [`upkeep`](Partition::upkeep) looks at
//! the registry and at what was published, [`next_rebuild`](Partition::next_rebuild) and [`adopt`](Partition::adopt)
//! build days anew, [`checkpoint`](Partition::checkpoint) stores. Each can be repeated after a failure. The loop around
//! them is in `run`; tests drive the same steps by hand.

mod open;
mod rebuilds;
mod run;

use rebuilds::RebuildOutcome;
pub(crate) use run::run;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::{Checkpoint, LogLag, LoggedRecord, Partition as PartitionNumber, Position};
use dwell_storage::error::{ErrorKind, StorageError};

use crate::checkpoint::{self, PartitionState};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::{PartitionStatus, Shared, Stage};
use crate::live_sessions::{Counting, EventHasher, Moment, Reason, VenueState};
use crate::live_view::Published;
use crate::metrics::{self, PartitionGauges};
use crate::rebuild::Sources;
use crate::service::Deps;

/// Venues of the log that the registry does not know, remembered so that it is not asked for each of their records.
const UNKNOWN_VENUES_MAX: usize = 10_000;
/// Even an unchanged state is stored after this time, to hear whether the partition was taken over.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(10);

/// A partition and the live state of its venues.
pub(crate) struct Partition {
    deps: Deps,
    config: Arc<Config>,
    shared: Arc<Shared>,
    sources: Sources,
    fence: u64,
    /// The next record to read: the live state holds everything before it.
    position: Position,
    /// Late events before this position were counted before a restart.
    counted_before: Position,
    venues: HashMap<VenueKey, VenueState>,
    unknown: HashSet<VenueKey>,
    registry_version: Option<u64>,
    hasher: EventHasher,
    gauges: PartitionGauges,
    /// The last read found nothing more.
    is_caught_up: bool,
    is_rebuilding: bool,
    due: Due,
    stored: Option<(Duration, Vec<u8>)>,
}

/// When the steps that look at stores are due again.
#[derive(Debug, Default)]
struct Due {
    registry: Duration,
    published: Duration,
    checkpoint: Duration,
}

impl Partition {
    /// Its number.
    pub(crate) fn number(&self) -> PartitionNumber {
        self.sources.partition
    }

    /// Whether the last read found nothing more.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// The clock's reading.
    pub(crate) fn moment(&self) -> Moment {
        self.deps.moment()
    }

    /// Reads the next records of the log and takes them in; false when there were none.
    pub(crate) async fn follow(&mut self) -> Result<bool> {
        let read = self
            .deps
            .log
            .read(self.number(), self.position, self.config.read_bytes)
            .await;
        let chunk = read.map_err(|error| Error::from_log(self.number(), self.position, error))?;
        if chunk.records.is_empty() {
            self.is_caught_up = true;
            self.position = self.position.max(chunk.next);
            return Ok(false);
        }
        self.is_caught_up = false;
        self.meet_venues(&chunk.records).await?;
        let at = self.moment();
        let mut read = [0_u64; Kind::ALL.len()];
        for record in &chunk.records {
            let events = record.events.len() as u64;
            read[record.events.kind as usize] += events;
            let first = record.position >= self.counted_before;
            let counting = if first { Counting::First } else { Counting::Again };
            match self.venues.get_mut(&record.venue) {
                Some(venue) => venue.take(&mut self.hasher, record, at, counting),
                None => metrics::ignored("unknown_venue", events),
            }
        }
        self.position = chunk.next;
        let counted = Kind::ALL.into_iter().zip(read).filter(|(_, events)| *events > 0);
        counted.for_each(|(kind, events)| metrics::events_read(kind, events));
        Ok(true)
    }

    /// Publishes what is new of every venue.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let at = self.moment();
        let (mut open_sessions, mut waiting) = (0, 0);
        let mut is_fenced = false;
        for venue in self.venues.values_mut() {
            if let Some(state) = venue.tick(self.fence, at, self.is_caught_up) {
                match self.shared.board.publish(state) {
                    Published::Shown => {}
                    Published::Fenced => is_fenced = true,
                    Published::Full => metrics::bound_reached("venues_max", 1),
                }
            }
            open_sessions += venue.open_sessions();
            waiting += venue.waiting() as u64;
        }
        self.gauges.state(self.venues.len(), open_sessions, waiting);
        metrics::ticked(stopwatch.elapsed());
        if is_fenced { Err(self.taken_over()) } else { Ok(()) }
    }

    /// Does what is due of the work that looks at stores: lag, registry, published generations, checkpoint.
    pub(crate) async fn upkeep(&mut self) -> Result<()> {
        let at = self.moment().monotonic;
        if at >= self.due.checkpoint {
            self.due.checkpoint = at + self.config.checkpoint_every.as_duration();
            self.report_lag().await?;
            self.checkpoint().await?;
        }
        if at >= self.due.registry {
            self.due.registry = at + self.config.registry_every.as_duration();
            self.look_at_registry().await?;
        }
        if at >= self.due.published {
            self.due.published = at + self.config.published_every.as_duration();
            self.look_at_published().await?;
        }
        let venues = &self.venues;
        let requests = self
            .shared
            .take_rebuild_requests(|venue| venues.contains_key(venue));
        let at = self.moment();
        for (key, day) in requests {
            if let Some(venue) = self.venues.get_mut(&key) {
                venue.want(day, Reason::Request, at);
            }
        }
        Ok(())
    }

    /// Stores where the live state stands, if that changed. `TakenOver` when somebody else owns the partition.
    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let at = self.moment().monotonic;
        let mut venues: Vec<_> = self.venues.values().map(VenueState::checkpoint).collect();
        venues.sort_by(|a, b| a.venue.cmp(&b.venue));
        let state = PartitionState {
            position: self.position,
            venues,
        };
        let bytes = checkpoint::encode(&state)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "encode a checkpoint", error))?;
        let is_known = self.stored.as_ref().is_some_and(|(stored_at, stored)| {
            *stored == bytes && at.saturating_sub(*stored_at) < CHECKPOINT_AGE_MAX
        });
        if is_known {
            return Ok(());
        }
        let name = checkpoint::name(self.deps.log.epoch(), self.number());
        let checkpoint = Checkpoint {
            fence: self.fence,
            bytes: bytes.clone(),
        };
        match self.deps.checkpoints.store(&name, checkpoint).await {
            Ok(()) => {
                self.stored = Some((at, bytes));
                metrics::checkpointed(stopwatch.elapsed());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Err(self.taken_over()),
            Err(error) => Err(error.into()),
        }
    }

    /// How the partition is doing, for the handle.
    pub(crate) fn report(&self, lag: LogLag) {
        self.shared.set_status(PartitionStatus {
            partition: self.number(),
            fence: self.fence,
            position: self.position,
            lag,
            stage: Stage::Following,
        });
    }

    async fn report_lag(&mut self) -> Result<()> {
        let lag = match self.is_caught_up {
            true => LogLag::default(),
            false => self.deps.log.lag(self.number(), self.position).await?,
        };
        let age_ms = lag
            .oldest_received_at
            .map_or(0, |oldest| (self.moment().now - oldest).max(0));
        self.gauges.lag(lag.events, age_ms as f64 / 1_000.0);
        self.report(lag);
        Ok(())
    }

    async fn look_at_registry(&mut self) -> Result<()> {
        let version = self.deps.registry.version().await?;
        if self.registry_version == Some(version) {
            return Ok(());
        }
        self.unknown.clear();
        for (key, venue) in open::venues_of(&self.deps, self.number()).await? {
            let at = self.moment();
            match self.venues.get_mut(&key) {
                Some(known) if *known.venue() == venue => {}
                Some(known) => known.set_venue(venue, at),
                None => self.add_venue(key, venue).await?,
            }
        }
        self.registry_version = Some(version);
        Ok(())
    }

    /// Looks up the venues of records that are not known yet: they may be younger than the last look at the registry.
    async fn meet_venues(&mut self, records: &[LoggedRecord]) -> Result<()> {
        for record in records {
            if self.venues.contains_key(&record.venue) || self.unknown.contains(&record.venue) {
                continue;
            }
            match self.deps.registry.venue(&record.venue).await? {
                Some(stored) => self.add_venue(record.venue.clone(), stored.venue).await?,
                None => {
                    tracing::warn!(venue = %record.venue, "events of a venue that the registry does not know");
                    if self.unknown.len() < UNKNOWN_VENUES_MAX {
                        self.unknown.insert(record.venue.clone());
                    }
                }
            }
        }
        Ok(())
    }

    async fn look_at_published(&mut self) -> Result<()> {
        let closed = |venue: &VenueState| {
            let key = venue.key().clone();
            venue.closed_days().into_iter().map(move |day| (key.clone(), day))
        };
        let awaited: Vec<_> = self.venues.values().flat_map(closed).collect();
        for (key, day) in awaited {
            self.is_published(&key, day).await?;
        }
        Ok(())
    }

    fn taken_over(&self) -> Error {
        Error::TakenOver {
            partition: self.number(),
            fence: self.fence,
        }
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let position = self.position;
        f.debug_struct("Partition")
            .field("number", &self.number())
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
