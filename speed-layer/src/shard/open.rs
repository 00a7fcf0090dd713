//! The start of a shard: ownership, checkpoint, and the live days built from raw.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::exclusion::{DaySet, Exclusion};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{
    EventLog, GenerationInfo, LogBounds, Partition, Position, Shard as ShardNumber, VenueDay, exclusions,
};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::reader::{ShardReader, Start};
use super::rebuilds::settle_until;
use super::{Context, Due, Shard, of_venue};
use crate::checkpoint::{self, ShardState, VenueCheckpoint};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::LogGap;
use crate::live_sessions::{EventHasher, VenueState};
use crate::metrics::{self, ShardGauges};
use crate::rebuild::{Sources, Tail};
use crate::service::Deps;

/// How many days back a carry is looked for: first near, then far.
const CARRY_DAYS: [i32; 3] = [8, 300, 30_000];

/// Venues whose days are built at the same time.
const VENUES_AT_ONCE: usize = 4;

impl Shard {
    /// Takes ownership, so that a former owner can no longer store, and builds the live days of all venues.
    pub(crate) async fn open(number: ShardNumber, context: Context) -> Result<Self> {
        let (deps, config) = (&context.deps, &context.config);
        let name = checkpoint::name(deps.log.epoch(), number);
        let fence = deps.checkpoints.take_ownership(&name).await?;
        let stored = load(deps, &name).await?;
        let mut sources = Sources {
            log: Arc::<dyn EventLog>::clone(&deps.log),
            raw: Arc::clone(&deps.raw),
            log_starts: Vec::new(),
        };
        let mut begins = Vec::new();
        for partition in deps.log.partitions_of(number) {
            let bounds = deps.log.bounds(partition).await?;
            let written = sources.raw_position(partition).await?;
            let known = stored.as_ref().and_then(|state| state.position(partition));
            sources.log_starts.push((partition, bounds.start));
            begins.push(Begin::new(partition, bounds, written, known));
        }
        let gaps: Vec<LogGap> = begins
            .iter()
            .filter_map(|begin| begin.gap(deps.clock.now_ms()))
            .collect();
        gaps.iter().for_each(|gap| report_gap(number, gap));
        let registry_version = deps.registry.version().await?;
        let venues = venues_of(deps, number).await?;

        // Before any row: what is excluded later makes the day be built anew.
        let exclusion_changes = context.shared.exclusion_changes();
        let mut exclusions = HashMap::new();
        for (key, _) in &venues {
            if !exclusions.contains_key(&key.tenant) {
                let in_force = exclusions_of(deps, &key.tenant).await?;
                exclusions.insert(key.tenant.clone(), in_force);
            }
        }
        let live = live_ranges(&venues, deps.clock.now_ms(), config);
        let until: Vec<_> = begins
            .iter()
            .map(|begin| (begin.partition, begin.position))
            .collect();
        let stretches = sources.stretches(&until).await?;
        let (bytes, events_max) = (config.read_bytes, config.tail_events_max);
        let tail = sources
            .tail(&stretches, bytes, events_max, |venue| live.get(venue).cloned())
            .await;
        let tail = match tail {
            Err(Error::RawWriterBehind { events }) => {
                tracing::warn!(
                    shard = number,
                    events,
                    "the raw writer is far behind, reading the log again"
                );
                begins
                    .iter_mut()
                    .zip(&stretches)
                    .for_each(|(begin, (_, stretch))| begin.position = begin.position.min(stretch.start));
                Tail::default()
            }
            tail => tail?,
        };
        let mut starts = Vec::with_capacity(begins.len());
        for begin in begins {
            let lag = deps.log.lag(begin.partition, begin.position).await?;
            let received_at = lag.oldest_received_at.unwrap_or_else(|| deps.clock.now_ms());
            starts.push(begin.into_start(received_at));
        }
        let log = Arc::<dyn EventLog>::clone(&deps.log);
        let erasures_known = deps.erasures.as_ref().map_or(0, |watch| watch.filter().number());
        let mut shard = Self {
            number,
            sources,
            fence,
            reader: ShardReader::new(log, starts, config.read_bytes),
            gaps,
            venues: HashMap::new(),
            unknown: HashSet::new(),
            registry_version: Some(registry_version),
            erasures_known,
            exclusions,
            exclusion_changes,
            hasher: EventHasher::default(),
            gauges: ShardGauges::new(number),
            is_rebuilding: false,
            due: Due::default(),
            stored: None,
            context,
        };
        let known: HashMap<&VenueKey, &VenueCheckpoint> = stored
            .iter()
            .flat_map(|state| &state.venues)
            .map(|known| (&known.venue, known))
            .collect();
        let opening = venues
            .into_iter()
            .map(|(key, venue)| shard.open_venue(key, venue, &tail).boxed());
        let opening: Vec<_> = opening.collect();
        let opened: Vec<VenueState> = stream::iter(opening)
            .buffered(VENUES_AT_ONCE)
            .try_collect()
            .await?;
        for mut state in opened {
            if let Some(known) = known.get(state.key()) {
                state.restore(known);
            }
            shard.keep_venue(state);
        }
        tracing::info!(
            shard = number,
            fence,
            positions = ?shard.reader.positions(),
            venues = shard.venues.len(),
            "live days are built"
        );
        Ok(shard)
    }

    /// Adds a venue that was not known at the start.
    pub(super) async fn add_venue(&mut self, key: VenueKey, venue: Venue) -> Result<()> {
        if !self.exclusions.contains_key(&key.tenant) {
            let in_force = exclusions_of(&self.context.deps, &key.tenant).await?;
            self.exclusions.insert(key.tenant.clone(), in_force);
        }
        let config = Arc::clone(&self.context.config);
        let live = live_ranges(&[(key.clone(), venue.clone())], self.moment().now, &config);
        let stretches = self.sources.stretches(&self.reader.positions()).await?;
        let (bytes, events_max) = (config.read_bytes, config.tail_events_max);
        let tail = self
            .sources
            .tail(&stretches, bytes, events_max, |venue| live.get(venue).cloned())
            .await?;
        let state = self.open_venue(key, venue, &tail).await?;
        self.keep_venue(state);
        Ok(())
    }

    /// A venue with those of its live days built that have events. Published days are left to their generations.
    async fn open_venue(&self, key: VenueKey, venue: Venue, tail: &Tail) -> Result<VenueState> {
        let at = self.moment();
        let config = &self.context.config;
        let mut state = VenueState::new(key.clone(), venue, Arc::clone(config), at.now);
        state.set_exclusions(of_venue(&self.exclusions, &key), at);
        let settle_until = settle_until(&*self.context.deps.log, &self.reader, &key, at);
        let live = state.live_days();
        let today = state.today();
        let first = live.first().map_or(today, |(day, _, _)| *day);
        for stored in self.published_before(&key, first, today).await? {
            if let Some(info) = stored.published {
                match stored.day >= first && is_final(&info, state.venue()) {
                    true => state.set_published(stored.day, info.carry),
                    false => state.set_carry(stored.day, info.carry),
                }
            }
        }
        let tail = tail.of(&key);
        for (day, start, end) in live {
            let range = start..end;
            let is_awaited = day >= today || !state.is_published(day);
            let is_touched =
                tail.touches(&range) || !self.sources.raw.marks(&key, range.clone()).await?.0.is_empty();
            if is_awaited && is_touched {
                let plan = state.begin_rebuild(day);
                let built = self
                    .sources
                    .build(plan, Arc::clone(&tail), settle_until, config)
                    .await?;
                state.adopt(built.state, built.latest_ts, Duration::ZERO, at);
            }
        }
        Ok(state)
    }

    fn keep_venue(&mut self, state: VenueState) {
        if self.venues.len() >= self.context.config.venues_max {
            metrics::bound_reached("venues_max", 1);
            tracing::warn!(venue = %state.key(), "too many venues: this one gets no live view");
            return;
        }
        self.venues.insert(state.key().clone(), state);
    }

    /// Days before today with a published generation, ascending: those from `first` on, and at least the latest one
    /// before today, wherever it lies.
    async fn published_before(
        &self,
        key: &VenueKey,
        first: LocalDay,
        today: LocalDay,
    ) -> Result<Vec<VenueDay>> {
        let mut listed = Vec::new();
        for back in CARRY_DAYS {
            let from = LocalDay::from_epoch_days(today.to_epoch_days().saturating_sub(back)).unwrap_or(first);
            listed = self
                .context
                .deps
                .venue_days
                .list(key, from.min(first), today.prev())
                .await?;
            listed.retain(|day| day.published.is_some());
            if !listed.is_empty() {
                break;
            }
        }
        Ok(listed)
    }

    /// Whether the final generation of a closed day is published; if so, the live view no longer answers for it.
    pub(super) async fn is_published(&mut self, key: &VenueKey, day: LocalDay) -> Result<bool> {
        let stored = self.context.deps.venue_days.get(key, day).await?;
        let Some(venue) = self.venues.get_mut(key) else {
            return Ok(false);
        };
        let published = stored.and_then(|stored| stored.published);
        let Some(info) = published.filter(|info| is_final(info, venue.venue())) else {
            return Ok(false);
        };
        venue.set_published(day, info.carry);
        Ok(true)
    }
}

/// Where the following of a partition begins.
#[derive(Debug, Clone, Copy)]
struct Begin {
    partition: Partition,
    bounds: LogBounds,
    /// The raw writer's position.
    written: Option<Position>,
    /// The checkpoint's position.
    known: Option<Position>,
    /// The next record to take; what comes before is built from raw and log.
    position: Position,
}

impl Begin {
    /// Whatever the checkpoint says, everything before the raw writer's position stands in raw; and what the log does
    /// not hold cannot be read.
    fn new(
        partition: Partition,
        bounds: LogBounds,
        written: Option<Position>,
        known: Option<Position>,
    ) -> Self {
        let wanted = known.max(written).unwrap_or(bounds.start);
        Self {
            partition,
            bounds,
            written,
            known,
            position: wanted.max(bounds.start).min(bounds.end),
        }
    }

    /// What lies between what we, or the raw writer, have read and what the log holds.
    fn gap(&self, now: TsMs) -> Option<LogGap> {
        let LogBounds { start, end } = self.bounds;
        let gap = |from, to, is_complete| {
            Some(LogGap {
                partition: self.partition,
                from,
                to,
                noticed_at: now,
                is_complete,
            })
        };
        match (self.written, self.known) {
            // Neither raw nor log holds it.
            (Some(written), _) if written < start => gap(written, start, false),
            (None, Some(known)) if known < start => gap(known, start, false),
            // We were away for longer than the log keeps its records, the raw writer was not.
            (Some(_), Some(known)) if known < start => gap(known, start, true),
            // The log has lost its end.
            (written, Some(known)) if known > end => gap(end, known, written >= Some(known)),
            _ => None,
        }
    }

    fn into_start(self, received_at: TsMs) -> Start {
        Start {
            partition: self.partition,
            position: self.position,
            received_at,
            counted_before: self.known.or(self.written).unwrap_or(self.bounds.start),
        }
    }
}

fn report_gap(shard: ShardNumber, gap: &LogGap) {
    metrics::gap_met(gap.is_complete, gap.records());
    let (partition, from, to, records) = (gap.partition, gap.from, gap.to, gap.records());
    if gap.is_complete {
        tracing::warn!(
            shard,
            partition,
            from,
            to,
            records,
            "the event log no longer holds what was to be read next; the raw table does, and the live days are built from it"
        );
    } else {
        tracing::error!(
            shard,
            partition,
            from,
            to,
            records,
            "the event log no longer holds what was to be read next, and the raw writer has not copied it: live numbers \
             may be too low"
        );
    }
}

/// Whether a generation of a closed day answers for it: computed after its end, under the venue's present cut.
fn is_final(info: &GenerationInfo, venue: &Venue) -> bool {
    !info.provisional && info.calendar == venue.calendar
}

/// The venues of a shard.
pub(super) async fn venues_of(deps: &Deps, number: ShardNumber) -> Result<Vec<(VenueKey, Venue)>> {
    let mut venues = Vec::new();
    for tenant in deps.registry.tenants().await? {
        for stored in deps.registry.venues(&tenant).await? {
            let key = VenueKey::new(tenant.clone(), stored.venue.id.clone());
            if deps.log.shard_of(&key) == number {
                venues.push((key, stored.venue));
            }
        }
    }
    Ok(venues)
}

/// The exclusions of a tenant that are in force. What was found about them since changes nothing here.
pub(super) async fn exclusions_of(deps: &Deps, tenant: &TenantId) -> Result<Vec<Exclusion>> {
    let mut all = exclusions::of_tenant(&*deps.documents, tenant).await?;
    all.retain(Exclusion::is_in_force);
    for exclusion in &mut all {
        exclusion.days = DaySet::default();
        exclusion.is_searched = false;
    }
    Ok(all)
}

/// For each venue the range of event times of its live days.
fn live_ranges(
    venues: &[(VenueKey, Venue)],
    now: TsMs,
    config: &Arc<Config>,
) -> HashMap<VenueKey, Range<TsMs>> {
    let range = |(key, venue): &(VenueKey, Venue)| {
        let live = VenueState::new(key.clone(), venue.clone(), Arc::clone(config), now).live_days();
        let start = live.first().map_or(now, |(_, start, _)| *start);
        let end = live.last().map_or(now, |(_, _, end)| *end);
        (key.clone(), start..end)
    };
    venues.iter().map(range).collect()
}

/// The stored state; one that does not read back is left aside, since raw and log hold all of it but the count of late
/// events.
async fn load(deps: &Deps, name: &str) -> Result<Option<ShardState>> {
    let Some(stored) = deps.checkpoints.load(name).await? else {
        return Ok(None);
    };
    match checkpoint::decode(&stored.bytes) {
        Ok(state) => Ok(Some(state)),
        Err(error) => {
            tracing::warn!(name, %error, "the checkpoint is of no use, starting from the raw events");
            Ok(None)
        }
    }
}
