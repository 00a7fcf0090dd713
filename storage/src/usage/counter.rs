//! Counting in memory.
//!
//! A fixed table of places, found by hashing and looked for from there on. A place is taken once, for as long as the
//! process lives, and counts by atomics, so counting takes no lock. When there is no place left the amounts are counted
//! as left out, and the metrics say so.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dwell_model::ids::{TenantId, VenueId};

use super::Amounts;
use crate::metrics;

/// Places; a multiple of two.
const PLACES: usize = 1 << 14;
/// Places looked at before one is given up.
const PROBES: usize = 64;
/// Tenants that metrics name; others are one.
const LABELS_MAX: usize = 100;
const OTHER: &str = "other";

/// Counts usage. Clones are the same counter.
#[derive(Clone)]
pub struct UsageCounter {
    inner: Arc<Inner>,
}

struct Inner {
    hasher: RandomState,
    places: Box<[OnceLock<Box<Place>>]>,
    /// Tenants that metrics name; looked at when a place is taken, never when something is counted.
    labels: Mutex<BTreeSet<TenantId>>,
}

/// One tenant, venue, module and source.
struct Place {
    tenant: TenantId,
    venue: Option<VenueId>,
    module: &'static str,
    source: &'static str,
    /// Requests, rows, events taken, events refused.
    amounts: [AtomicU64; 4],
    /// The same for the metrics.
    metrics: [::metrics::Counter; 4],
}

/// What was counted of one tenant, venue, module and source since the process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whose.
    pub tenant: TenantId,
    /// The venue, where the request or event named one that exists.
    pub venue: Option<VenueId>,
    /// The part of the API.
    pub module: &'static str,
    /// How events came: `http`, `file`, `replay`; empty for requests.
    pub source: &'static str,
    /// How much.
    pub amounts: Amounts,
}

impl std::fmt::Debug for UsageCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageCounter").finish_non_exhaustive()
    }
}

impl Default for UsageCounter {
    fn default() -> Self {
        Self::with_places(PLACES)
    }
}

impl UsageCounter {
    pub(crate) fn with_places(places: usize) -> Self {
        let places = places.next_power_of_two();
        Self {
            inner: Arc::new(Inner {
                hasher: RandomState::new(),
                places: (0..places).map(|_| OnceLock::new()).collect(),
                labels: Mutex::default(),
            }),
        }
    }

    /// Counts. Venues must exist: names that strangers make up would fill the table.
    pub fn count(
        &self,
        tenant: &TenantId,
        venue: Option<&VenueId>,
        module: &'static str,
        source: &'static str,
        amounts: Amounts,
    ) {
        if amounts.is_zero() {
            return;
        }
        let Some(place) = self.inner.place(tenant, venue, module, source) else {
            metrics::usage_left_out();
            return;
        };
        let amounts = [amounts.requests, amounts.rows, amounts.taken, amounts.refused];
        for ((counter, metric), amount) in place.amounts.iter().zip(&place.metrics).zip(amounts) {
            if amount > 0 {
                counter.fetch_add(amount, Ordering::Relaxed);
                metric.increment(amount);
            }
        }
    }

    /// Everything that was counted since the process began.
    pub fn counted(&self) -> Vec<Counted> {
        let places = self.inner.places.iter().filter_map(OnceLock::get);
        places.map(|place| place.counted()).collect()
    }
}

impl Inner {
    fn place(
        &self,
        tenant: &TenantId,
        venue: Option<&VenueId>,
        module: &'static str,
        source: &'static str,
    ) -> Option<&Place> {
        let name = (tenant.as_str(), venue.map(VenueId::as_str), module, source);
        let first = self.hasher.hash_one(name) as usize;
        for probe in 0..PROBES.min(self.places.len()) {
            let place = self.places[(first + probe) & (self.places.len() - 1)].get_or_init(|| {
                Box::new(Place {
                    tenant: tenant.clone(),
                    venue: venue.cloned(),
                    module,
                    source,
                    amounts: Default::default(),
                    metrics: metrics::usage(self.label(tenant), module),
                })
            });
            let is_it = (
                place.tenant.as_str(),
                place.venue.as_ref().map(VenueId::as_str),
                place.module,
                place.source,
            ) == name;
            if is_it {
                return Some(place);
            }
        }
        None
    }
}

impl Inner {
    /// The tenant as the metrics name it: one of a bounded number. Asked once per place.
    fn label<'a>(&self, tenant: &'a TenantId) -> &'a str {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.len() < LABELS_MAX {
            labels.insert(tenant.clone());
        }
        match labels.contains(tenant) {
            true => tenant.as_str(),
            false => OTHER,
        }
    }
}

impl Place {
    fn counted(&self) -> Counted {
        let [requests, rows, taken, refused] =
            std::array::from_fn(|number| self.amounts[number].load(Ordering::Relaxed));
        Counted {
            tenant: self.tenant.clone(),
            venue: self.venue.clone(),
            module: self.module,
            source: self.source,
            amounts: Amounts {
                requests,
                rows,
                taken,
                refused,
            },
        }
    }
}
