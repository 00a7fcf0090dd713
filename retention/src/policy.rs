//! A tenant's retention policy, as operators set it.

use dwell_model::ids::TenantId;
use dwell_storage::api::Documents;
use dwell_storage::api::documents::{self, DocumentKind};
use dwell_storage::error::{ErrorKind, Result, StorageError};

use crate::facts::Policy;

/// There is one of each tenant.
const ID: &str = "policy";

impl DocumentKind for Policy {
    const COLLECTION: &'static str = "retention-policy";
}

/// The policy that a tenant's operators have set; `None` while the installation's default holds.
pub async fn stored(documents: &dyn Documents, tenant: &TenantId) -> Result<Option<Policy>> {
    let found = documents::load::<Policy>(documents, tenant, ID).await?;
    Ok(found.map(|stored| stored.value))
}

/// The policy in force for a tenant, where the installation's is `default`.
pub async fn in_force(documents: &dyn Documents, tenant: &TenantId, default: &Policy) -> Result<Policy> {
    Ok(stored(documents, tenant)
        .await?
        .unwrap_or_else(|| default.clone()))
}

/// Sets the policy: `change` makes the new one of the one in force. Returns both.
pub async fn change(
    documents: &dyn Documents,
    tenant: &TenantId,
    default: &Policy,
    mut change: impl FnMut(&mut Policy),
) -> Result<(Policy, Policy)> {
    let mut before = default.clone();
    let mut refused = None;
    let stands = documents::update::<Policy>(documents, tenant, ID, |known| {
        before = known.unwrap_or(default).clone();
        let mut policy = before.clone();
        change(&mut policy);
        refused = policy.check().err();
        (refused.is_none() && policy != before).then_some(policy)
    })
    .await?;
    if let Some(error) = refused {
        return Err(StorageError::with_source(
            ErrorKind::Invalid,
            "set the retention policy",
            error,
        ));
    }
    let after = stands.map_or_else(|| before.clone(), |stored| stored.value);
    Ok((before, after))
}
