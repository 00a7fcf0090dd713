//! The leases of the days that a step works on, kept alive while it does.
//!
//! A step looks before each thing that it removes whether its leases still stand. That they do is known until they
//! would have run out: a process that stood still for longer than that finds out before it goes on.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_storage::api::{Flip, Lease};
use tokio_util::sync::CancellationToken;

use crate::engine::Retention;
use crate::error::{Doing, Error, Result};

/// Distance between two tries for a lease that somebody else holds.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Leases of days of one venue.
#[derive(Debug)]
pub(crate) struct Held {
    retention: Retention,
    leases: Vec<Lease>,
    cancel: CancellationToken,
    /// By the monotonic clock: until when the leases are known to stand.
    good_until: Mutex<Duration>,
}

/// Does `work` under the leases of some days, and gives them back; `None` when somebody else holds one of them.
pub(crate) async fn under_leases<T>(
    retention: &Retention,
    venue: &VenueKey,
    days: &[LocalDay],
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&Held) -> Result<T>,
) -> Result<Option<T>> {
    let Some(held) = wait_for(retention, venue, days, cancel).await? else {
        return Ok(None);
    };
    let outcome = tokio::select! {
        biased;
        outcome = work(&held) => outcome,
        never = held.renew_for_ever() => match never {},
    };
    // An injected failure stands for a crash, and leaves everything as it is.
    if !matches!(outcome, Err(Error::Injected(_))) {
        held.release().await;
    }
    outcome.map(Some)
}

/// Takes the leases, waiting for a while where somebody else holds one.
async fn wait_for(
    retention: &Retention,
    venue: &VenueKey,
    days: &[LocalDay],
    cancel: &CancellationToken,
) -> Result<Option<Held>> {
    let wait = Duration::from_millis(u64::try_from(retention.settings().held_wait_ms).unwrap_or(0));
    let deadline = retention.clock().monotonic() + wait;
    loop {
        let held = Held::take(retention, venue, days, cancel).await?;
        if held.is_some() || retention.clock().monotonic() >= deadline {
            return Ok(held);
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Cancelled),
            () = retention.clock().sleep(TRY_AGAIN) => {}
        }
    }
}

impl Held {
    async fn take(
        retention: &Retention,
        venue: &VenueKey,
        days: &[LocalDay],
        cancel: &CancellationToken,
    ) -> Result<Option<Self>> {
        let ttl_ms = retention.settings().lease_ttl_ms;
        let holder = retention.new_holder();
        let mut held = Self {
            retention: retention.clone(),
            leases: Vec::with_capacity(days.len()),
            cancel: cancel.clone(),
            good_until: Mutex::new(held_for(retention, ttl_ms)),
        };
        for &day in days {
            let store = &retention.stores().venue_days;
            let taken = store
                .acquire(venue, day, &holder, retention.now_ms(), ttl_ms)
                .await
                .doing("take the lease");
            match taken {
                Ok(Some(lease)) => held.leases.push(lease),
                Ok(None) => {
                    held.release().await;
                    return Ok(None);
                }
                Err(error) => {
                    held.release().await;
                    return Err(error);
                }
            }
        }
        Ok(Some(held))
    }

    /// An error when the work should stop: cancelled, or a lease that may have run out. Cheap.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let good_until = *self.good_until.lock().unwrap_or_else(PoisonError::into_inner);
        match self.leases.first() {
            Some(lease) if self.retention.clock().monotonic() >= good_until => Err(lost(lease)),
            _ => Ok(()),
        }
    }

    /// The lease of a day.
    pub(crate) fn of(&self, day: LocalDay) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.day == day)
    }

    async fn renew_for_ever(&self) -> Infallible {
        let ttl_ms = self.retention.settings().lease_ttl_ms;
        let pause = Duration::from_millis(u64::try_from(ttl_ms / 3).unwrap_or(1).max(1));
        loop {
            self.retention.clock().sleep(pause).await;
            let until = held_for(&self.retention, ttl_ms);
            match self.renew(ttl_ms).await {
                Ok(Flip::Done) => {
                    *self.good_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                }
                Ok(Flip::Lost) => {
                    *self.good_until.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
                }
                // What is known to be good so long stays so.
                Err(error) => tracing::warn!(%error, "leases not renewed"),
            }
        }
    }

    async fn renew(&self, ttl_ms: i64) -> Result<Flip> {
        for lease in &self.leases {
            let store = &self.retention.stores().venue_days;
            let flip = store.renew(lease, self.retention.now_ms(), ttl_ms).await;
            if flip.doing("renew a lease")? == Flip::Lost {
                tracing::warn!(venue = %lease.venue, day = %lease.day, fence = lease.fence, "lease lost");
                return Ok(Flip::Lost);
            }
        }
        Ok(Flip::Done)
    }

    /// Gives the leases back. A failure only means that others wait for their end.
    async fn release(&self) {
        for lease in &self.leases {
            if let Err(error) = self.retention.stores().venue_days.release(lease).await {
                tracing::warn!(venue = %lease.venue, day = %lease.day, %error, "lease not given back");
            }
        }
    }
}

/// The lease stands until then at least, when it was asked for now.
fn held_for(retention: &Retention, ttl_ms: i64) -> Duration {
    retention.clock().monotonic() + Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(0))
}

pub(crate) fn lost(lease: &Lease) -> Error {
    Error::LeaseLost {
        venue: lease.venue.clone(),
        day: lease.day,
    }
}
