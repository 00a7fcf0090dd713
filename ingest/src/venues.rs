//! Which venues a tenant has, and how each cuts time: the registry, cached.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::VenueCalendar;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{Registry, StoredVenue};
use dwell_storage::error::Result;
use hashbrown::{HashMap, HashSet};

use crate::recent::Recent;

/// How old an answer may be before the registry is asked for its version again, in milliseconds. An unknown venue makes
/// it be asked at once.
const REFRESH_MS: u64 = 1_000;

/// How long events are taken for the venues as last known while the registry is away, in milliseconds: a day.
const REGISTRY_AWAY_MAX_MS: u64 = 24 * 3_600_000;

/// The venues of a tenant as they were at one version of the registry.
#[derive(Debug, PartialEq)]
pub struct TenantVenues {
    version: u64,
    calendars: HashMap<VenueId, VenueCalendar>,
    /// The sensors that layouts name.
    sensors: HashMap<VenueId, HashSet<String>>,
}

impl TenantVenues {
    /// Whether a layout of a venue, of whatever time, names a sensor.
    pub fn names_sensor(&self, venue: &VenueId, sensor: &str) -> bool {
        self.sensors
            .get(venue)
            .is_some_and(|sensors| sensors.contains(sensor))
    }

    /// How a venue cuts time; `None` when there is no such venue.
    pub fn calendar(&self, venue: &VenueId) -> Option<VenueCalendar> {
        self.calendars.get(venue).copied()
    }

    /// Whether there is such a venue.
    pub fn contains(&self, venue: &VenueId) -> bool {
        self.calendars.contains_key(venue)
    }
}

/// Answers which venues there are, from memory as far as the registry has not changed. Clones share the cache.
#[derive(Clone)]
pub struct VenueDirectory {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<dyn Registry>,
    clock: SharedClock,
    cache: Mutex<Recent<TenantId, Cached>>,
}

#[derive(Debug, Clone)]
struct Cached {
    venues: Arc<TenantVenues>,
    /// When the registry last confirmed them.
    checked_at_ms: u64,
    /// When it was last asked, whatever came of it.
    asked_at_ms: u64,
}

impl fmt::Debug for VenueDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VenueDirectory").finish_non_exhaustive()
    }
}

impl VenueDirectory {
    /// A directory that remembers at most `tenants_max` tenants.
    pub fn new(registry: Arc<dyn Registry>, clock: SharedClock, tenants_max: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry,
                clock,
                cache: Mutex::new(Recent::new(tenants_max)),
            }),
        }
    }

    /// The venues of a tenant, as asked for at most a second ago; while the registry is away, as last known.
    pub async fn venues(&self, tenant: &TenantId) -> Result<Arc<TenantVenues>> {
        let now_ms = self.now_ms();
        let cached = self.inner.cache().get(tenant);
        match cached {
            Some(cached) if now_ms.saturating_sub(cached.asked_at_ms) < REFRESH_MS => Ok(cached.venues),
            None => self.check(tenant, None).await,
            Some(mut cached) => {
                // One asks, the others go on meanwhile with what is known: a registry that hangs stalls nobody.
                cached.asked_at_ms = now_ms;
                self.inner.cache().insert(tenant.clone(), cached.clone());
                match self.check(tenant, Some(Arc::clone(&cached.venues))).await {
                    Err(error) if error.kind().is_retryable() && self.may_go_on(&cached) => {
                        tracing::debug!(%error, "the registry is away; venues are taken as last known");
                        Ok(cached.venues)
                    }
                    checked => checked,
                }
            }
        }
    }

    /// Whether venues that were known once may stand in for a registry that is away, so that events are still taken.
    fn may_go_on(&self, cached: &Cached) -> bool {
        self.now_ms().saturating_sub(cached.checked_at_ms) < REGISTRY_AWAY_MAX_MS
    }

    /// The venues of a tenant as they are now, when they are others than those in hand: for whoever misses one that may
    /// just have been made.
    pub async fn newer(
        &self,
        tenant: &TenantId,
        in_hand: &Arc<TenantVenues>,
    ) -> Result<Option<Arc<TenantVenues>>> {
        let now = match self.check(tenant, Some(Arc::clone(in_hand))).await {
            Err(error) if error.kind().is_retryable() => return Ok(None),
            checked => checked?,
        };
        Ok((now.version != in_hand.version).then_some(now))
    }

    async fn check(&self, tenant: &TenantId, known: Option<Arc<TenantVenues>>) -> Result<Arc<TenantVenues>> {
        // The version before the venues: a change in between is found by the next check.
        let version = self.inner.registry.version().await?;
        let venues = match known {
            Some(known) if known.version == version => known,
            _ => {
                let stored = self.inner.registry.venues(tenant).await?;
                let sensors_of = |stored: &StoredVenue| {
                    let layouts = stored.venue.layouts.iter();
                    let sensors = layouts.flat_map(|layout| &layout.sensors);
                    sensors.map(|sensor| sensor.id.clone()).collect()
                };
                let sensors = stored
                    .iter()
                    .map(|stored| (stored.venue.id.clone(), sensors_of(stored)))
                    .collect();
                let calendars = stored
                    .into_iter()
                    .map(|stored| (stored.venue.id, stored.venue.calendar))
                    .collect();
                Arc::new(TenantVenues {
                    version,
                    calendars,
                    sensors,
                })
            }
        };
        let cached = Cached {
            venues: Arc::clone(&venues),
            checked_at_ms: self.now_ms(),
            asked_at_ms: self.now_ms(),
        };
        self.inner.cache().insert(tenant.clone(), cached);
        Ok(venues)
    }

    fn now_ms(&self) -> u64 {
        self.inner.clock.monotonic().as_millis() as u64
    }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Recent<TenantId, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
