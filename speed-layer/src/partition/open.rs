//! The start of a partition: ownership, checkpoint, and the live days built from raw.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{GenerationInfo, Partition as PartitionNumber, VenueDay};

use super::{Due, Partition};
use crate::checkpoint::{self, PartitionState};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::Shared;
use crate::live_sessions::{EventHasher, VenueState};
use crate::metrics::{self, PartitionGauges};
use crate::rebuild::{Sources, Tail};
use crate::service::Deps;

/// How many days back a carry is looked for: first near, then far.
const CARRY_DAYS: [i32; 3] = [8, 300, 30_000];

impl Partition {
    /// Takes ownership, so that a former owner can no longer store, and builds the live days of all venues.
    pub(crate) async fn open(
        number: PartitionNumber,
        deps: Deps,
        config: Arc<Config>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let name = checkpoint::name(deps.log.epoch(), number);
        let fence = deps.checkpoints.take_ownership(&name).await?;
        let stored = load(&deps, &name).await?;
        let held_from = deps.log.bounds(number).await?.start;
        let sources = Sources {
            log: Arc::clone(&deps.log),
            raw: Arc::clone(&deps.raw),
            partition: number,
            log_start: stored
                .as_ref()
                .map_or(held_from, |state| state.position.min(held_from)),
        };
        let raw_position = sources.raw_position().await?;
        let stored_position = stored.as_ref().map_or(raw_position, |state| state.position);
        let registry_version = deps.registry.version().await?;
        let venues = venues_of(&deps, number).await?;

        let live = live_ranges(&venues, deps.clock.now_ms(), &config);
        // Whatever the checkpoint says, everything before the raw writer's position stands in raw.
        let mut position = stored_position.max(raw_position);
        let tail = sources
            .tail(
                raw_position,
                position,
                config.read_bytes,
                config.tail_events_max,
                |venue| live.get(venue).cloned(),
            )
            .await;
        let tail = match tail {
            Err(Error::RawWriterBehind { events }) => {
                tracing::warn!(
                    partition = number,
                    events,
                    "the raw writer is far behind, reading the log again"
                );
                position = raw_position;
                Tail::default()
            }
            tail => tail?,
        };
        let mut partition = Self {
            gauges: PartitionGauges::new(number),
            deps,
            config,
            shared,
            sources,
            fence,
            position,
            counted_before: stored_position,
            venues: HashMap::new(),
            unknown: HashSet::new(),
            registry_version: Some(registry_version),
            hasher: EventHasher::default(),
            is_caught_up: false,
            is_rebuilding: false,
            due: Due::default(),
            stored: None,
        };
        for (key, venue) in venues {
            let known = stored
                .as_ref()
                .and_then(|state| state.venues.iter().find(|known| known.venue == key));
            let mut state = partition.open_venue(key, venue, &tail).await?;
            known.into_iter().for_each(|known| state.restore(known));
            partition.keep_venue(state);
        }
        tracing::info!(
            partition = number,
            fence,
            position,
            venues = partition.venues.len(),
            "live days are built"
        );
        Ok(partition)
    }

    /// Adds a venue that was not known at the start.
    pub(super) async fn add_venue(&mut self, key: VenueKey, venue: Venue) -> Result<()> {
        let live = live_ranges(&[(key.clone(), venue.clone())], self.moment().now, &self.config);
        let from = self.sources.raw_position().await?;
        let (until, bytes, events_max) = (self.position, self.config.read_bytes, self.config.tail_events_max);
        let tail = self
            .sources
            .tail(from, until, bytes, events_max, |venue| live.get(venue).cloned())
            .await?;
        let state = self.open_venue(key, venue, &tail).await?;
        self.keep_venue(state);
        Ok(())
    }

    /// A venue with those of its live days built that have events. Published days are left to their generations.
    async fn open_venue(&self, key: VenueKey, venue: Venue, tail: &Tail) -> Result<VenueState> {
        let at = self.moment();
        let mut state = VenueState::new(key.clone(), venue, Arc::clone(&self.config), at.now);
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
                tail.touches(&range) || !self.deps.raw.marks(&key, range.clone()).await?.0.is_empty();
            if is_awaited && is_touched {
                let plan = state.begin_rebuild(day);
                let built = self
                    .sources
                    .build(plan, Arc::clone(&tail), at.now, &self.config)
                    .await?;
                state.adopt(built.state, built.latest_ts, Duration::ZERO, at);
            }
        }
        Ok(state)
    }

    fn keep_venue(&mut self, state: VenueState) {
        if self.venues.len() >= self.config.venues_max {
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
        let stored = self.deps.venue_days.get(key, day).await?;
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

/// Whether a generation of a closed day answers for it: computed after its end, under the venue's present cut.
fn is_final(info: &GenerationInfo, venue: &Venue) -> bool {
    !info.provisional && info.calendar == venue.calendar
}

/// The venues of a partition.
pub(super) async fn venues_of(deps: &Deps, number: PartitionNumber) -> Result<Vec<(VenueKey, Venue)>> {
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
async fn load(deps: &Deps, name: &str) -> Result<Option<PartitionState>> {
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
