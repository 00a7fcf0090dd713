//! The leases that an import holds, kept alive while it works.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_storage::api::{Flip, Lease, StagedDay, StillHeld, VenueDays};
use dwell_storage::error::Result;

use crate::sources::files::error::ImportError;
use crate::sources::files::reading::Import;

/// Distance between two tries for a lease that somebody else holds.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Leases taken under one holder's name.
pub(super) struct Leases<'a> {
    import: &'a Import<'a>,
    holder: &'a str,
    held: Mutex<BTreeMap<(VenueKey, LocalDay), Lease>>,
}

impl<'a> Leases<'a> {
    /// No leases yet.
    pub(super) fn new(import: &'a Import<'a>, holder: &'a str) -> Self {
        Self {
            import,
            holder,
            held: Mutex::default(),
        }
    }

    /// Takes a day's lease; waits while somebody else holds it, up to the import's limit.
    pub(super) async fn take(
        &self,
        venue: &VenueKey,
        day: LocalDay,
    ) -> std::result::Result<Lease, ImportError> {
        let clock = &self.import.deps.clock;
        let deadline = clock.monotonic() + self.import.options.lease_wait_max;
        loop {
            if let Some(lease) = self.try_take(venue, day).await? {
                return Ok(lease);
            }
            if clock.monotonic() >= deadline {
                let row = self.store().get(venue, day).await?;
                let holder = row
                    .and_then(|row| row.lease)
                    .map_or_else(|| "somebody".to_owned(), |(holder, _)| holder);
                return Err(ImportError::DayHeld {
                    venue: venue.to_string(),
                    day: day.to_string(),
                    holder,
                });
            }
            clock.sleep(TRY_AGAIN).await;
        }
    }

    /// Takes a day's lease if nobody else holds it.
    pub(super) async fn try_take(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<Lease>> {
        let (now, ttl_ms) = (self.import.deps.clock.now_ms(), self.import.options.lease_ttl_ms);
        let lease = self.store().acquire(venue, day, self.holder, now, ttl_ms).await?;
        if let Some(lease) = &lease {
            self.held().insert((venue.clone(), day), lease.clone());
        }
        Ok(lease)
    }

    /// Gives all leases back. One that cannot be given back expires.
    pub(super) async fn release_all(&self) {
        let leases = std::mem::take(&mut *self.held());
        for lease in leases.into_values() {
            if let Err(error) = self.store().release(&lease).await {
                tracing::warn!(venue = %lease.venue, day = %lease.day, %error, "lease not given back, it will expire");
            }
        }
    }

    /// Renews the leases again and again, for ever: to be run beside the work.
    pub(super) async fn keep(&self) {
        let clock = &self.import.deps.clock;
        let ttl_ms = self.import.options.lease_ttl_ms;
        loop {
            clock
                .sleep(Duration::from_millis(
                    u64::try_from(ttl_ms / 3).unwrap_or(0).max(1),
                ))
                .await;
            let leases: Vec<Lease> = self.held().values().cloned().collect();
            for lease in leases {
                match self.store().renew(&lease, clock.now_ms(), ttl_ms).await {
                    Ok(Flip::Done) => {}
                    // The commit finds out by the fence; there is nothing left to keep.
                    Ok(Flip::Lost) => {
                        self.held().remove(&(lease.venue.clone(), lease.day));
                    }
                    Err(error) => {
                        tracing::warn!(venue = %lease.venue, day = %lease.day, %error, "lease not renewed");
                    }
                }
            }
        }
    }

    fn store(&self) -> &dyn VenueDays {
        &*self.import.deps.stores.venue_days
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(VenueKey, LocalDay), Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StillHeld for Leases<'_> {
    async fn still_held(&self, day: &StagedDay) -> Result<bool> {
        let row = self.store().get(&day.venue, day.day).await?;
        Ok(row.is_some_and(|row| row.fence == day.fence))
    }
}
