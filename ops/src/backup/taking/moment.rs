//! A moment that a backup can show: none in the midst of publishing another time zone or day start of a venue. Brought
//! back from there, it would go on with files that the archive may not have any more.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use dwell_model::ids::TenantId;
use dwell_storage::api::documents;
use dwell_storage::api::recuts::Recut;
use dwell_storage::error::{ErrorKind, StorageError};

use crate::backup::Side;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often, before going on all the same. What is being published takes seconds, unless a store fails.
const LOOKS_MAX: u32 = 60;

/// How the days of venues were cut at a moment: of each that was ever cut anew, how often, and whether one more is decided.
pub(in crate::backup) type Cuts = BTreeMap<String, (usize, bool)>;

/// Waits until nothing is half published; how the days are cut then.
pub(in crate::backup) async fn settled(side: &Side<'_>, tenant: &TenantId) -> Result<Cuts> {
    for _ in 0..LOOKS_MAX {
        let cuts = cuts(side, tenant).await?;
        let Some(venue) = half_published(&cuts) else {
            return Ok(cuts);
        };
        tracing::debug!(%tenant, venue, "the backup waits for a recut to be published");
        side.check_cancel()?;
        side.clock.sleep(LOOK_EVERY).await;
    }
    tracing::warn!(%tenant, "backed up while a recut is being published, which takes long: see dwell jobs list");
    cuts(side, tenant).await
}

/// An error, to begin anew, when days were cut anew since they were `cut` like this.
pub(in crate::backup) async fn check_unchanged(side: &Side<'_>, tenant: &TenantId, cut: &Cuts) -> Result<()> {
    if cuts(side, tenant).await? == *cut {
        return Ok(());
    }
    let why = "a time zone was corrected while the backup was taken; it is begun anew";
    Err(StorageError::new(ErrorKind::Busy, why).into())
}

async fn cuts(side: &Side<'_>, tenant: &TenantId) -> Result<Cuts> {
    let recuts = documents::all::<Recut>(side.stores.documents.as_ref(), tenant).await?;
    let of_venue = |recut: Recut| (recut.former.len(), recut.is_decided());
    Ok(recuts
        .into_iter()
        .map(|recut| (recut.id, of_venue(recut.value)))
        .filter(|(_, cut)| *cut != (0, false))
        .collect())
}

fn half_published(cuts: &Cuts) -> Option<&str> {
    cuts.iter()
        .find(|(_, (_, is_decided))| *is_decided)
        .map(|(venue, _)| venue.as_str())
}
