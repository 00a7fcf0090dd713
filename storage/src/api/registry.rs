//! Registry: tenants, venues with their layouts, access keys.

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

use super::Flip;
use crate::error::Result;

/// What a key may do. Each role may do what the ones before it may, but for gateways, who only post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Posts events of given venues.
    Gateway,
    /// Reads numbers.
    Viewer,
    /// Runs jobs, imports, works the quarantine.
    Operator,
    /// Changes venues and keys.
    Admin,
}

/// An access key. Only its hash is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// Public id, part of the key's text.
    pub id: String,
    /// SHA-256 of the key's secret part, hexadecimal.
    pub hash: String,
    /// Whose key.
    pub tenant: TenantId,
    /// What it may do.
    pub role: Role,
    /// For gateways: the venues that it may post to; `None`: all of the tenant.
    pub venues: Option<Vec<VenueId>>,
    /// For people.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: TsMs,
    /// When it was taken back.
    pub revoked_at: Option<TsMs>,
}

/// A venue with the version of its row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVenue {
    /// The venue.
    pub venue: Venue,
    /// Raised by every change.
    pub version: u64,
}

/// The registry tables.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Makes a tenant; one that is there is left as it is.
    async fn create_tenant(&self, tenant: &TenantId) -> Result<()>;

    /// All tenants.
    async fn tenants(&self) -> Result<Vec<TenantId>>;

    /// Stores a venue, conditional on the version read before (`None`: there was none).
    async fn put_venue(&self, tenant: &TenantId, venue: &Venue, version: Option<u64>) -> Result<Flip>;

    /// A venue.
    async fn venue(&self, key: &VenueKey) -> Result<Option<StoredVenue>>;

    /// All venues of a tenant by id.
    async fn venues(&self, tenant: &TenantId) -> Result<Vec<StoredVenue>>;

    /// A number that changes whenever a venue or key of any tenant changes: caches compare it.
    async fn version(&self) -> Result<u64>;

    /// Stores a key. `Conflict` when the id is taken.
    async fn put_key(&self, key: &AccessKey) -> Result<()>;

    /// A key by its public id, of whichever tenant.
    async fn key(&self, id: &str) -> Result<Option<AccessKey>>;

    /// All keys of a tenant.
    async fn keys(&self, tenant: &TenantId) -> Result<Vec<AccessKey>>;

    /// Takes a key back. `NotFound` when there is none.
    async fn revoke_key(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<()>;
}
