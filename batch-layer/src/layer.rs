//! The batch layer's parts in one handle that is cheap to clone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{LiveView, Stores};
use dwell_storage::erasure::LedgerFollower;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{Config, ConfigError};
use crate::error::{Doing, Error, Result};
use crate::lease::Stop;

/// Computes venue-days. Clones are the same layer; it holds no state but its settings and what is taken of its memory, so
/// any number of layers in any number of processes may work on the same stores.
#[derive(Clone)]
pub struct BatchLayer {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    stores: Stores,
    clock: SharedClock,
    config: Config,
    /// Whom to leave out.
    erasures: Arc<LedgerFollower>,
    live: Option<Arc<dyn LiveView>>,
    name: String,
    /// Shares of `memory`, one for each of `workers`: nights and jobs of a process take them in turn, so that all of
    /// them together stay within it however many there are.
    shares: Arc<Semaphore>,
}

impl BatchLayer {
    /// A layer over stores. `name` says who holds a lease, for people (host, role); it need not be unique.
    pub fn new(stores: Stores, clock: SharedClock, config: Config, name: &str) -> Result<Self, ConfigError> {
        config.validate()?;
        // Two processes of one name must not take each other's leases for their own.
        let name = format!("{name}/{}/{:x}", std::process::id(), clock.now_ms());
        let erasures = LedgerFollower::new(Arc::clone(&stores.erasures));
        let shares = Arc::new(Semaphore::new(config.workers));
        Ok(Self {
            inner: Arc::new(Inner {
                stores,
                clock,
                config,
                erasures: Arc::new(erasures),
                live: None,
                name,
                shares,
            }),
        })
    }

    /// The same layer, comparing what it publishes with a live view.
    #[must_use]
    pub fn with_live_view(self, live: Arc<dyn LiveView>) -> Self {
        self.with(|inner| inner.live = Some(live))
    }

    /// The same layer, taking its leases under a name.
    pub(crate) fn under(&self, name: String) -> Self {
        self.with(|inner| inner.name = name)
    }

    fn with(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.inner);
        change(&mut inner);
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

    /// Waits for a share of the memory for raw rows ([`Config::part_bytes`] times three), first come, first served. It is
    /// taken for the reading of one day, by nobody who has one already.
    pub(crate) async fn memory_share(&self, stop: &Stop) -> Result<SemaphorePermit<'_>> {
        tokio::select! {
            biased;
            () = stop.stopped() => {
                stop.check()?;
                Err(Error::Cancelled)
            }
            // Never closed.
            share = self.inner.shares.acquire() => share.map_err(|_| Error::Cancelled),
        }
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

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::ManualClock;
    use dwell_storage::archive::DeltaArchive;
    use dwell_storage::backends::sqlite::SqliteStores;
    use dwell_storage::paths::DataPaths;
    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn all_who_work_with_a_layer_share_its_memory_and_who_stops_waits_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(folder.path());
        let clock = ManualClock::at_ms(0);
        std::fs::create_dir_all(&paths.archive).unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let tables = SqliteStores::open(&paths, clock.shared()).await.unwrap();
        let config = Config {
            workers: 2,
            ..Config::default()
        };
        let layer = BatchLayer::new(
            tables.with_archive(Arc::new(archive)),
            clock.shared(),
            config,
            "test",
        )
        .unwrap();
        let cancel = CancellationToken::new();
        let stop = Stop::under(&cancel);
        let (nights, job) = (layer.clone(), layer.clone());
        let first = nights.memory_share(&stop).await.unwrap();
        let _second = job.memory_share(&stop).await.unwrap();
        let mut third = Box::pin(layer.memory_share(&stop));
        assert!(
            third.as_mut().now_or_never().is_none(),
            "two workers have two shares"
        );
        drop(first);
        let _third = third.await.unwrap();
        let fourth = layer.memory_share(&stop);
        cancel.cancel();
        assert!(matches!(fourth.await, Err(Error::Cancelled)));
    }
}
