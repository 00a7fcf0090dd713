//! Backups of an installation: taken, brought back, tried out.
//!
//! - [`state`]: what the installation remembers of its backups: who it is, when the last one was taken and tried.
//! - [`taking`]: tables become objects at a place; a manifest, written last, makes them a backup.
//! - [`restoring`]: a backup becomes tables again, under fences that nothing of the former life has.
//! - [`forgetting`]: whom the ledger of erasures names, left out of what is brought back.
//! - [`drill`]: a restore into a scratch folder, compared with what there is.
//! - [`pruning`]: backups that are no longer kept, and what only they named.
//!
//! What is not in a backup: the event log, raw rows, checkpoints (made anew from log, raw and archive), jobs, the live
//! view. The archive lies elsewhere, or beside the backup where that is asked for.

pub(crate) mod drill;
mod forgetting;
pub(crate) mod metrics;
pub(crate) mod pruning;
pub(crate) mod restoring;
pub(crate) mod state;
pub(crate) mod taking;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use anyhow::Result;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, MAX_TS, MIN_TS, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::Stores;
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backup::BackupPlace;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

/// The tenant under whose name the installation itself keeps documents, and the only one whose operators may ask for
/// backups: they hold all tenants' data.
pub(crate) const INSTALLATION_TENANT: &str = "default";
/// Venue under whose name the quarantine keeps its keys.
const QUARANTINE_KEYS: &str = "_quarantine";
/// Days of a venue that are worked on at a time.
const DAYS_AT_ONCE: usize = 8;

/// An installation, and a place for its backups.
pub(crate) struct Side<'a> {
    pub(crate) stores: &'a Stores,
    /// The archive of the stores once more, as the thing it is: for its files.
    pub(crate) archive: Option<&'a DeltaArchive>,
    /// Where the archive is, for people.
    pub(crate) archive_name: &'a str,
    pub(crate) place: &'a BackupPlace,
    pub(crate) clock: &'a SharedClock,
    /// The job, for pins, leases and marks.
    pub(crate) job: &'a str,
    /// How long after a restore erasures are carried out again each night.
    pub(crate) repeat_erasures_ms: i64,
    pub(crate) tell: &'a (dyn Fn(u64, u64, &str) + Send + Sync),
    pub(crate) cancel: &'a CancellationToken,
}

impl Side<'_> {
    /// An error when somebody asked to stop.
    fn check_cancel(&self) -> Result<()> {
        match self.cancel.is_cancelled() {
            true => Err(Cancelled.into()),
            false => Ok(()),
        }
    }
}

/// Somebody asked to stop.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl std::fmt::Display for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Whether an error means that somebody asked to stop.
pub(crate) fn is_cancelled(error: &anyhow::Error) -> bool {
    error.is::<Cancelled>()
}

/// Does several things at a time, answers in order. Taken as a list: closures over borrowed things would keep a job from
/// being sent between threads.
async fn several<T>(work: impl IntoIterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let work: Vec<_> = work.into_iter().collect();
    futures::stream::iter(work)
        .buffered(DAYS_AT_ONCE)
        .try_collect()
        .await
}

/// The first and the last day that events can fall on.
fn whole_calendar() -> RangeInclusive<LocalDay> {
    let day = |ts: TsMs| LocalDay::from_epoch_days(ts.div_euclid(DAY_MS) as i32);
    let first = day(MIN_TS).unwrap_or_else(|| LocalDay::new(Default::default()));
    first.prev()..=day(MAX_TS).unwrap_or(first)
}

/// The UTC day of a moment.
fn utc_day(at: TsMs) -> LocalDay {
    LocalDay::from_epoch_days(at.div_euclid(DAY_MS) as i32)
        .unwrap_or_else(|| LocalDay::new(Default::default()))
}

/// Where the quarantine's keys stand.
fn quarantine_keys(tenant: &TenantId) -> Result<VenueKey> {
    Ok(VenueKey::new(tenant.clone(), VenueId::new(QUARANTINE_KEYS)?))
}
