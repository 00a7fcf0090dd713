//! Imported files: each content once per tenant.

use async_trait::async_trait;
use dwell_model::ids::{Receipt, TenantId};
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A file that was imported, or is being imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportClaim {
    /// Hash of tenant and content.
    pub receipt: Receipt,
    /// Name of the file, for people.
    pub name: String,
    /// The road taken: `log` or `archive`.
    pub road: String,
    /// Start of the import: the time of receipt of its events, kept when it is resumed.
    pub received_at: TsMs,
    /// When all of it was durable.
    pub finished_at: Option<TsMs>,
    /// Events taken.
    pub accepted: u64,
    /// Rows refused.
    pub refused: u64,
}

/// The imports table.
#[async_trait]
pub trait Imports: Send + Sync {
    /// Claims a file by a conditional insert; returns what stands afterwards: the given claim, or the one that was
    /// there before (unfinished: the import goes on with its time; finished: there is nothing to do).
    async fn claim(&self, tenant: &TenantId, claim: &ImportClaim) -> Result<ImportClaim>;

    /// Marks a claim as finished, with its counts.
    async fn finish(
        &self,
        tenant: &TenantId,
        receipt: Receipt,
        now: TsMs,
        accepted: u64,
        refused: u64,
    ) -> Result<()>;

    /// All imports of a tenant, newest first, at most `limit`.
    async fn list(&self, tenant: &TenantId, limit: usize) -> Result<Vec<ImportClaim>>;
}
