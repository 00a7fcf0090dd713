//! The batch layer's parts in one handle that is cheap to clone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{LiveView, Stores};
use dwell_storage::erasure::LedgerFollower;

use crate::config::{Config, ConfigError};
use crate::error::{Doing, Error, Result};

/// Computes venue-days. Clones are the same layer; it holds no state but its settings, so any number of layers in any
/// number of processes may work on the same stores.
#[derive(Clone)]
pub struct BatchLayer {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    clock: SharedClock,
    config: Config,
    /// Whom to leave out.
    erasures: Arc<LedgerFollower>,
    live: Option<Arc<dyn LiveView>>,
    name: String,
}

impl BatchLayer {
    /// A layer over stores. `name` says who holds a lease, for people (host, role); it need not be unique.
    pub fn new(stores: Stores, clock: SharedClock, config: Config, name: &str) -> Result<Self, ConfigError> {
        config.validate()?;
        // Two processes of one name must not take each other's leases for their own.
        let name = format!("{name}/{}/{:x}", std::process::id(), clock.now_ms());
        let erasures = LedgerFollower::new(Arc::clone(&stores.erasures));
        Ok(Self {
            inner: Arc::new(Inner {
                stores,
                clock,
                config,
                erasures: Arc::new(erasures),
                live: None,
                name,
            }),
        })
    }

    /// The same layer, comparing what it publishes with a live view.
    #[must_use]
    pub fn with_live_view(self, live: Arc<dyn LiveView>) -> Self {
        let inner = Inner {
            stores: self.inner.stores.clone(),
            clock: SharedClock::clone(&self.inner.clock),
            config: self.inner.config.clone(),
            erasures: Arc::clone(&self.inner.erasures),
            live: Some(live),
            name: self.inner.name.clone(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same layer, taking its leases under a name.
    pub(crate) fn under(&self, name: String) -> Self {
        let inner = Inner {
            stores: self.inner.stores.clone(),
            clock: SharedClock::clone(&self.inner.clock),
            config: self.inner.config.clone(),
            erasures: Arc::clone(&self.inner.erasures),
            live: self.inner.live.clone(),
            name,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The stores.
    pub fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    pub(crate) fn erasures(&self) -> &LedgerFollower {
        &self.inner.erasures
    }

    pub(crate) fn live(&self) -> Option<&Arc<dyn LiveView>> {
        self.inner.live.as_ref()
    }

    /// A holder's name that no other lease of any process has.
    pub(crate) fn new_holder(&self) -> String {
        static LEASES: AtomicU64 = AtomicU64::new(0);
        format!("{}/{}", self.inner.name, LEASES.fetch_add(1, Ordering::Relaxed))
    }

    /// A venue as the registry has it now.
    pub(crate) async fn venue(&self, key: &VenueKey) -> Result<Venue> {
        let stored = self.stores().registry.venue(key).await.doing("read the venue")?;
        stored
            .map(|stored| stored.venue)
            .ok_or_else(|| Error::UnknownVenue(key.clone()))
    }
}

impl fmt::Debug for BatchLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLayer")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}
