//! Leases that keep away from a venue whose days are being cut anew.
//!
//! While a recut works on a venue, and from its decision until all of it is published, nobody else gets the lease of any
//! of its days: every other lease would be one of the former cut. Whoever asks is told what he is told of a day that
//! another worker holds. The recut is looked for after the lease was taken, too: either the recut then sees the lease, or
//! this sees the recut.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};

use crate::api::{
    Documents, Flip, Generation, GenerationInfo, Lease, Marks, RestoredDay, Stores, VenueDay, VenueDays,
    VenueDaysReader, VenueDaysWriter, recuts,
};
use crate::error::Result;

/// The stores as everybody uses them, whoever cuts anew included.
pub fn honour_recuts(stores: Stores) -> Stores {
    let venue_days = RecuttingVenueDays::new(stores.venue_days, Arc::clone(&stores.documents));
    Stores {
        venue_days: Arc::new(venue_days),
        ..stores
    }
}

/// Venue-days of which those that are being cut anew are held.
pub struct RecuttingVenueDays {
    inner: Arc<dyn VenueDays>,
    documents: Arc<dyn Documents>,
}

impl std::fmt::Debug for RecuttingVenueDays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecuttingVenueDays").finish_non_exhaustive()
    }
}

impl RecuttingVenueDays {
    /// Venue-days, and the documents that say what is being cut anew.
    pub fn new(inner: Arc<dyn VenueDays>, documents: Arc<dyn Documents>) -> Self {
        Self { inner, documents }
    }

    async fn is_kept_from(&self, venue: &VenueKey, holder: &str, now: TsMs) -> Result<bool> {
        let recut = recuts::load(self.documents.as_ref(), venue).await?;
        Ok(recut.is_some_and(|recut| recut.value.keeps_away(holder, now)))
    }
}

#[async_trait]
impl VenueDaysWriter for RecuttingVenueDays {
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> Result<Option<Lease>> {
        if self.is_kept_from(venue, holder, now).await? {
            return Ok(None);
        }
        let Some(lease) = self.inner.acquire(venue, day, holder, now, ttl_ms).await? else {
            return Ok(None);
        };
        if self.is_kept_from(venue, holder, now).await? {
            self.inner.release(&lease).await?;
            return Ok(None);
        }
        Ok(Some(lease))
    }

    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> Result<Flip> {
        self.inner.renew(lease, now, ttl_ms).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.inner.release(lease).await
    }

    async fn publish(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        info: GenerationInfo,
    ) -> Result<Flip> {
        self.inner.publish(lease, published_before, info).await
    }

    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> Result<Flip> {
        self.inner.stage(lease, info).await
    }

    async fn promote(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        staged: Generation,
        published_at: TsMs,
    ) -> Result<Flip> {
        self.inner
            .promote(lease, published_before, staged, published_at)
            .await
    }

    async fn raise_marks(
        &self,
        lease: &Lease,
        published: Generation,
        marks: &Marks,
        provisional: bool,
    ) -> Result<Flip> {
        self.inner.raise_marks(lease, published, marks, provisional).await
    }

    async fn forget(&self, lease: &Lease, generations: &[Generation]) -> Result<Flip> {
        self.inner.forget(lease, generations).await
    }

    async fn restore(&self, venue: &VenueKey, day: RestoredDay) -> Result<Flip> {
        self.inner.restore(venue, day).await
    }
}

#[async_trait]
impl VenueDaysReader for RecuttingVenueDays {
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<VenueDay>> {
        self.inner.get(venue, day).await
    }

    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>> {
        self.inner.list(venue, from, to).await
    }

    async fn history(&self, venue: &VenueKey, day: LocalDay) -> Result<Vec<GenerationInfo>> {
        self.inner.history(venue, day).await
    }
}
