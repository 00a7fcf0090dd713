//! Keys for pseudonyms: one per venue and local day, kept apart from the data, destroyed when its time is over.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};

use crate::error::Result;

/// A key's bytes. Not printable, so that no log shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// What there is for a venue-day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PseudonymKey {
    /// The key of the day.
    Live(SecretKey),
    /// The day's key was destroyed: no more pseudonyms for it, and none can be matched.
    Destroyed,
}

/// A key with the end of its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPseudonymKey {
    /// The key, or that it was destroyed.
    pub key: PseudonymKey,
    /// When its time is, or was, over.
    pub keep_until: TsMs,
}

/// The key store. Stored apart from all other tables.
#[async_trait]
pub trait PseudonymKeys: Send + Sync {
    /// The key of a venue-day; the candidate becomes it by a conditional insert when there is none. Durable before
    /// it returns. `keep_until` is raised to the given time, never lowered.
    async fn get_or_create(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        candidate: SecretKey,
        keep_until: TsMs,
    ) -> Result<PseudonymKey>;

    /// What there is for a venue-day; makes nothing. `None` when no key was ever made.
    async fn look_up(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<StoredPseudonymKey>>;

    /// Destroys all keys whose time is over, leaving a tombstone for each; returns how many. Their bytes are
    /// overwritten in the store's files.
    async fn destroy_expired(&self, now: TsMs) -> Result<u64>;
}
