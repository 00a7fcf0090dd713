//! The parts that all steps share, in one handle that is cheap to clone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{HOUR_MS, LocalDay, SECOND_MS, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{Generation, Stores};
use dwell_storage::error::Result as StorageResult;

use crate::error::{Doing, Result};

/// How steps are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a day's lease lasts without renewal, milliseconds. Default 30 s.
    pub lease_ttl_ms: i64,
    /// How long to wait for a day that another worker holds, milliseconds: longer than the lease of one that died. Default
    /// 0.
    pub held_wait_ms: i64,
    /// What is allowed between the clocks of processes, together with the longest that a write may be on its way,
    /// milliseconds. A store that deletes by time spares what was written in so long before a comparison. Default 1 h.
    pub clock_skew_ms: i64,
    /// Raw rows that one comparison holds in memory, some 150 bytes each. Default 1,000,000.
    pub window_rows: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 30 * SECOND_MS,
            held_wait_ms: 0,
            clock_skew_ms: HOUR_MS,
            window_rows: 1_000_000,
        }
    }
}

/// Says which generations somebody needs, whatever their age: a backup that is being made, a closed period.
#[async_trait]
pub trait GenerationGuard: Send + Sync + fmt::Debug {
    /// The generations of a venue's day, among those given, that must stay at `now`.
    async fn needed(
        &self,
        tenant: &TenantId,
        venue: &VenueId,
        day: LocalDay,
        generations: &[Generation],
        now: TsMs,
    ) -> StorageResult<Vec<Generation>>;
}

/// Nobody needs any.
#[derive(Debug, Clone, Copy)]
pub struct NoGuard;

#[async_trait]
impl GenerationGuard for NoGuard {
    async fn needed(
        &self,
        _: &TenantId,
        _: &VenueId,
        _: LocalDay,
        _: &[Generation],
        _: TsMs,
    ) -> StorageResult<Vec<Generation>> {
        Ok(Vec::new())
    }
}

/// Retention over stores. Clones are the same; it holds no state but its settings, so any number of them in any number
/// of processes may work on the same stores.
#[derive(Clone)]
pub struct Retention {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    clock: SharedClock,
    settings: Settings,
    guard: Arc<dyn GenerationGuard>,
    name: String,
}

impl Retention {
    /// Retention over stores. `name` says who holds a lease, for people; two processes must not share one.
    pub fn new(
        stores: Stores,
        clock: SharedClock,
        settings: Settings,
        guard: Arc<dyn GenerationGuard>,
        name: &str,
    ) -> Self {
        let name = name.to_owned();
        Self {
            inner: Arc::new(Inner {
                stores,
                clock,
                settings,
                guard,
                name,
            }),
        }
    }

    /// The stores.
    pub fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    pub(crate) fn now_ms(&self) -> TsMs {
        self.inner.clock.now_ms()
    }

    /// The time by the clock that dates raw rows and marks.
    pub(crate) async fn raw_now_ms(&self) -> Result<TsMs> {
        let now_ms = self.stores().raw.now_ms().await;
        now_ms.doing("ask the raw store for its time")
    }

    pub(crate) fn guard(&self) -> &dyn GenerationGuard {
        &*self.inner.guard
    }

    /// A holder's name that no other lease of any process has.
    pub(crate) fn new_holder(&self) -> String {
        static LEASES: AtomicU64 = AtomicU64::new(0);
        let number = LEASES.fetch_add(1, Ordering::Relaxed);
        format!("{}/retention/{number}", self.inner.name)
    }
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention")
            .field("name", &self.inner.name)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}
