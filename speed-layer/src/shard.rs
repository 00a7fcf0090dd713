//! One shard of the log, followed into the live state of its venues.
//!
//! A shard is a value with steps: [`open`](Shard::open) takes ownership and builds the live days,
//! [`follow`](Shard::follow) reads on, [`tick`](Shard::tick) publishes, [`upkeep`](Shard::upkeep) looks at the
//! registry, at the exclusions and at what was published, [`next_rebuild`](Shard::next_rebuild) and [`adopt`](Shard::adopt) build days anew,
//! [`checkpoint`](Shard::checkpoint) stores. Each can be repeated after a failure. The loop around them is in
//! `follower`; tests drive the same steps by hand. `reader` makes one stream of the shard's partitions.

mod follower;
mod open;
mod reader;
mod rebuilds;

pub(crate) use follower::{Ended, Stop, chain, follow_until_left};
use rebuilds::RebuildOutcome;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::exclusion::Exclusion;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::{Checkpoint, GroupMember, LogLag, Shard as ShardNumber};
use dwell_storage::error::{ErrorKind, StorageError};

use self::reader::ShardReader;
use crate::checkpoint::{self, ShardState};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::{LogGap, ShardStatus, Shared, Stage};
use crate::live_sessions::{Counting, EventHasher, Moment, Reason, VenueState};
use crate::live_view::Published;
use crate::metrics::{self, ShardGauges};
use crate::rebuild::Sources;
use crate::service::Deps;

/// Venues of the log that the registry does not know, remembered so that it is not asked for each of their records.
const UNKNOWN_VENUES_MAX: usize = 10_000;
/// Even an unchanged state is stored after this time, to hear whether the shard was taken over.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(10);

/// What the shards that a process follows have in common.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) deps: Deps,
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    /// The place in the group that shares out the shards.
    pub(crate) member: Arc<dyn GroupMember>,
}

/// A shard and the live state of its venues.
pub(crate) struct Shard {
    number: ShardNumber,
    context: Context,
    sources: Sources,
    fence: u64,
    /// The live state holds everything before its positions.
    reader: ShardReader,
    /// What the log had lost; those that raw did not hold either come first.
    gaps: Vec<LogGap>,
    venues: HashMap<VenueKey, VenueState>,
    unknown: HashSet<VenueKey>,
    registry_version: Option<u64>,
    /// Number of the last erasure that the live days were built without.
    erasures_known: u64,
    /// Of each tenant with venues here, those in force.
    exclusions: HashMap<TenantId, Vec<Exclusion>>,
    /// The changes in this process that were looked at.
    exclusion_changes: u64,
    hasher: EventHasher,
    gauges: ShardGauges,
    is_rebuilding: bool,
    due: Due,
    stored: Option<(Duration, Vec<u8>)>,
}

/// When the steps that look at stores are due again.
#[derive(Debug, Default)]
struct Due {
    registry: Duration,
    exclusions: Duration,
    published: Duration,
    checkpoint: Duration,
}

impl Shard {
    /// Its number.
    pub(crate) fn number(&self) -> ShardNumber {
        self.number
    }

    /// Whether the last reads found nothing more.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.reader.is_caught_up()
    }

    /// The clocks' readings, and how far the log has been read.
    pub(crate) fn moment(&self) -> Moment {
        self.context.deps.moment(self.reader.log_time())
    }

    /// Reads the next records of the log and takes them in; false when there were none.
    pub(crate) async fn follow(&mut self) -> Result<bool> {
        let at = self.context.deps.clock.monotonic();
        if !self.reader.fill(at).await? {
            return Ok(false);
        }
        let mut taken = [0_u64; Kind::ALL.len()];
        let result = self.take_known(&mut taken).await;
        let counted = Kind::ALL.into_iter().zip(taken).filter(|(_, events)| *events > 0);
        counted.for_each(|(kind, events)| metrics::events_read(kind, events));
        result.map(|()| true)
    }

    /// Waits for new records at the ends of all partitions, at most for `timeout`; for [`heard`](Self::heard).
    pub(crate) async fn wait(&self, timeout: Duration) -> Result<Vec<usize>> {
        self.reader.wait(timeout).await
    }

    /// Takes note of what a wait has found, nothing if it was given up.
    pub(crate) fn heard(&mut self, found: &[usize]) {
        self.reader.heard(found, self.context.deps.clock.monotonic());
    }

    /// Takes in what was read ahead, as far as its order is known.
    async fn take_known(&mut self, counts: &mut [u64; Kind::ALL.len()]) -> Result<()> {
        while let Some(next) = self.reader.peek() {
            if !self.venues.contains_key(&next.venue) && !self.unknown.contains(&next.venue) {
                let key = next.venue.clone();
                self.meet_venue(key).await?;
            }
            let at = self.moment();
            let Some(mut taken) = self.reader.take() else {
                break;
            };
            if let Some(watch) = &self.context.deps.erasures {
                // It may have been read ahead before an erasure was heard of.
                let filter = watch.filter();
                if let Some(kept) = filter.kept(&taken.record.venue, &taken.record.events) {
                    taken.record.events = taken.record.events.take(&kept);
                }
            }
            let record = &taken.record;
            if record.events.is_empty() {
                continue;
            }
            let events = record.events.len() as u64;
            counts[record.events.kind as usize] += events;
            let counting = if taken.is_counted {
                Counting::Again
            } else {
                Counting::First
            };
            match self.venues.get_mut(&record.venue) {
                Some(venue) => venue.take(&mut self.hasher, record, at, counting),
                None => metrics::ignored("unknown_venue", events),
            }
        }
        Ok(())
    }

    /// Publishes what is new of every venue.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let (at, is_caught_up) = (self.moment(), self.is_caught_up());
        let (mut open_sessions, mut waiting) = (0, 0);
        let mut is_fenced = false;
        for venue in self.venues.values_mut() {
            if let Some(showing) = venue.tick(self.fence, at, is_caught_up) {
                match self.context.shared.publish(showing, at.monotonic) {
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

    /// Does what is due of the work that looks at stores: lag, checkpoint, registry, published generations, gaps. What
    /// fails is due again at once and keeps nothing else from being done.
    pub(crate) async fn upkeep(&mut self) -> Result<()> {
        let (at, config) = (self.moment().monotonic, Arc::clone(&self.context.config));
        let mut result = Ok(());
        if at >= self.due.checkpoint {
            let reported = self.report_lag().await;
            let stored = self.checkpoint().await;
            if reported.is_ok() && stored.is_ok() {
                self.due.checkpoint = at + config.checkpoint_every.as_duration();
            }
            result = graver(graver(result, reported), stored);
        }
        if at >= self.due.registry {
            let looked = self.look_at_registry().await;
            if looked.is_ok() {
                self.due.registry = at + config.registry_every.as_duration();
            }
            result = graver(result, looked);
        }
        let changes = self.context.shared.exclusion_changes();
        if at >= self.due.exclusions || changes != self.exclusion_changes {
            let looked = self.look_at_exclusions().await;
            if looked.is_ok() {
                self.due.exclusions = at + config.exclusions_every.as_duration();
                self.exclusion_changes = changes;
            }
            result = graver(result, looked);
        }
        if at >= self.due.published {
            let looked = graver(self.look_at_published().await, self.look_at_gaps().await);
            if looked.is_ok() {
                self.due.published = at + config.published_every.as_duration();
            }
            result = graver(result, looked);
        }
        self.honour_erasures();
        self.take_requests();
        result
    }

    /// Has the live days built anew that hold somebody who is to be forgotten.
    fn honour_erasures(&mut self) {
        let Some(watch) = &self.context.deps.erasures else {
            return;
        };
        let filter = watch.filter();
        if filter.number() == self.erasures_known {
            return;
        }
        self.erasures_known = filter.number();
        let at = self.moment();
        for (key, venue) in &mut self.venues {
            if filter.names_anybody(key) {
                venue.want_all(Reason::Request, at);
            }
        }
    }

    fn take_requests(&mut self) {
        let (log, number) = (&self.context.deps.log, self.number);
        let requests = self
            .context
            .shared
            .take_rebuild_requests(|venue| log.shard_of(venue) == number);
        let at = self.moment();
        for (key, day) in requests {
            if let Some(venue) = self.venues.get_mut(&key) {
                venue.want(day, Reason::Request, at);
            }
        }
    }

    /// Stores where the live state stands, if that changed. `TakenOver` when somebody else owns the shard.
    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let at = self.moment().monotonic;
        let mut venues: Vec<_> = self.venues.values().map(VenueState::checkpoint).collect();
        venues.sort_by(|a, b| a.venue.cmp(&b.venue));
        let positions = self.reader.positions();
        let state = ShardState {
            positions: positions.clone(),
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
        let deps = &self.context.deps;
        let name = checkpoint::name(deps.log.epoch(), self.number);
        let checkpoint = Checkpoint {
            fence: self.fence,
            bytes: bytes.clone(),
        };
        match deps.checkpoints.store(&name, checkpoint).await {
            Ok(()) => {
                self.stored = Some((at, bytes));
                metrics::checkpointed(stopwatch.elapsed());
                let mirror = |(partition, position)| self.context.member.mirror(partition, position);
                positions.into_iter().for_each(mirror);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Err(self.taken_over()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes leave of a shard that another process follows from now on: nothing of it is shown here any more.
    pub(crate) fn withdraw(self) {
        self.venues
            .keys()
            .for_each(|venue| self.context.shared.withdraw(venue, self.fence));
    }

    /// How the shard is doing, for the handle.
    pub(crate) fn report(&self, lag: LogLag) {
        self.context.shared.set_status(ShardStatus {
            shard: self.number,
            fence: self.fence,
            positions: self.reader.positions(),
            lag,
            stage: Stage::Following,
            gaps: self.gaps.clone(),
        });
    }

    /// What is worth knowing of a shard that works.
    pub(crate) fn remark(&self) -> Option<String> {
        let gap = self.gaps.iter().find(|gap| !gap.is_complete)?;
        Some(format!(
            "the event log lost {} records of partition {} (positions {} to {}) that the raw table lacks too: live \
             numbers may be too low",
            gap.records(),
            gap.partition,
            gap.from,
            gap.to
        ))
    }

    async fn report_lag(&mut self) -> Result<()> {
        let lag = self.reader.lag().await?;
        let age_ms = lag
            .oldest_received_at
            .map_or(0, |oldest| (self.moment().now - oldest).max(0));
        self.gauges.lag(lag.events, age_ms as f64 / 1_000.0);
        self.report(lag);
        Ok(())
    }

    async fn look_at_registry(&mut self) -> Result<()> {
        let version = self.context.deps.registry.version().await?;
        if self.registry_version == Some(version) {
            return Ok(());
        }
        self.unknown.clear();
        for (key, venue) in open::venues_of(&self.context.deps, self.number).await? {
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

    /// Looks which exclusions are in force; live days on which others bear now are built anew.
    async fn look_at_exclusions(&mut self) -> Result<()> {
        let tenants: HashSet<TenantId> = self.venues.keys().map(|key| key.tenant.clone()).collect();
        for tenant in tenants {
            let in_force = open::exclusions_of(&self.context.deps, &tenant).await?;
            if self.exclusions.get(&tenant) == Some(&in_force) {
                continue;
            }
            self.exclusions.insert(tenant.clone(), in_force);
            let at = self.moment();
            for venue in self.venues.values_mut() {
                if venue.key().tenant == tenant {
                    venue.set_exclusions(of_venue(&self.exclusions, venue.key()), at);
                }
            }
        }
        Ok(())
    }

    /// Looks up the venue of a record that is not known yet: it may be younger than the last look at the registry.
    async fn meet_venue(&mut self, key: VenueKey) -> Result<()> {
        match self.context.deps.registry.venue(&key).await? {
            Some(stored) => self.add_venue(key, stored.venue).await,
            None => {
                tracing::warn!(venue = %key, "events of a venue that the registry does not know");
                if self.unknown.len() < UNKNOWN_VENUES_MAX {
                    self.unknown.insert(key);
                }
                Ok(())
            }
        }
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

    /// Looks whether the raw writer has passed what the log had lost before we read it. Then raw holds all that is known
    /// of it, and the days are built anew.
    async fn look_at_gaps(&mut self) -> Result<()> {
        let mut is_filled = false;
        for at in 0..self.gaps.len() {
            let gap = self.gaps[at];
            if gap.is_complete {
                continue;
            }
            let written = self.sources.raw_position(gap.partition).await?;
            if written.is_some_and(|written| written >= gap.to) {
                self.gaps[at].is_complete = true;
                is_filled = true;
                tracing::info!(
                    shard = self.number,
                    partition = gap.partition,
                    "the raw writer has passed the gap"
                );
            }
        }
        if is_filled {
            let at = self.moment();
            self.venues
                .values_mut()
                .for_each(|venue| venue.want_all(Reason::Gap, at));
        }
        Ok(())
    }

    fn taken_over(&self) -> Error {
        Error::TakenOver {
            shard: self.number,
            fence: self.fence,
        }
    }
}

/// The exclusions in force of a venue, as far as they are known.
fn of_venue(known: &HashMap<TenantId, Vec<Exclusion>>, key: &VenueKey) -> Vec<Exclusion> {
    let of_tenant = known.get(&key.tenant).map(Vec::as_slice).unwrap_or_default();
    let mine = of_tenant.iter().filter(|exclusion| exclusion.venue == key.venue);
    mine.cloned().collect()
}

/// Of two results the one that says more: a failure that does not pass over one that may, and that over none.
fn graver(a: Result<()>, b: Result<()>) -> Result<()> {
    match (&a, &b) {
        (Ok(()), _) => b,
        (Err(passing), Err(error)) if passing.is_retryable() && !error.is_retryable() => b,
        _ => a,
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("number", &self.number)
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
