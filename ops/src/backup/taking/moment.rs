//! A moment that a backup can show.

use std::time::Duration;

use anyhow::Result;
use dwell_model::ids::TenantId;
use dwell_storage::api::documents;
use dwell_storage::api::recuts::Recut;

use crate::backup::Side;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often, before going on all the same. What is being published takes seconds, unless a store fails.
const LOOKS_MAX: u32 = 60;

/// Waits until nothing that is decided is half published: another time zone or day start of a venue. Brought back from
/// such a moment it would go on with files that the archive may not have any more.
pub(super) async fn until_nothing_is_half_published(side: &Side<'_>, tenant: &TenantId) -> Result<()> {
    for _ in 0..LOOKS_MAX {
        let recuts = documents::all::<Recut>(side.stores.documents.as_ref(), tenant).await?;
        let Some(decided) = recuts.iter().find(|recut| recut.value.is_decided()) else {
            return Ok(());
        };
        tracing::debug!(%tenant, venue = decided.id, "the backup waits for a recut to be published");
        side.check_cancel()?;
        side.clock.sleep(LOOK_EVERY).await;
    }
    tracing::warn!(%tenant, "backed up while a recut is being published, which takes long: see dwell jobs list");
    Ok(())
}
