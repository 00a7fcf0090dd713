//! Exclusions as documents: read by whoever computes, written by `revert` and `undo`. Never deleted, only ended.

use dwell_model::exclusion::Exclusion;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::LocalDay;

use super::documents::{self, DocumentKind, Documents};
use crate::error::Result;

/// Collection `exclusions`; the id is that of the job which made it.
impl DocumentKind for Exclusion {
    const COLLECTION: &'static str = "exclusions";
}

/// All exclusions of a tenant, ended ones too, ascending by id.
pub async fn of_tenant(documents: &dyn Documents, tenant: &TenantId) -> Result<Vec<Exclusion>> {
    let stored = documents::all::<Exclusion>(documents, tenant).await?;
    Ok(stored.into_iter().map(|stored| stored.value).collect())
}

/// Those of a venue that are in force.
pub async fn in_force(documents: &dyn Documents, venue: &VenueKey) -> Result<Vec<Exclusion>> {
    let mut found = of_tenant(documents, &venue.tenant).await?;
    found.retain(|exclusion| exclusion.venue == venue.venue && exclusion.is_in_force());
    Ok(found)
}

/// Writes down days that an exclusion has a part in; repeating it changes nothing. `is_searched`: that these, with
/// those found before, are all that there were when it was made.
pub async fn add_days(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    days: &[LocalDay],
    is_searched: bool,
) -> Result<()> {
    documents::update::<Exclusion>(documents, tenant, id, |known| {
        let mut exclusion = known?.clone();
        exclusion.days.extend(days.iter().copied());
        exclusion.is_searched |= is_searched;
        (known != Some(&exclusion)).then_some(exclusion)
    })
    .await
    .map(|_| ())
}
