//! `vacuum`: removes files of the archive that nothing needs any more.
//!
//! A replaced file goes when no table has named it for `older_than` (seven days by default), no generation that is kept
//! names it, and no pin holds it; so does a file that was staged so long ago and never committed. The work goes in steps
//! of some files, before each of which pins and history are asked again. Whatever moment it is stopped at, the next run
//! finds what is left.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

use anyhow::Result;
use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::failpoint;
use dwell_runtime::limits::HumanDuration;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, Lane, Stores, UnnamedFile, VenueDaysReader, pins};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};

/// Files between two looks at pins and history.
const STEP: usize = 100;
/// Files that a report lists.
const LISTED_MAX: usize = 200;
/// What was staged lately may be named by a commit at any moment; and the log of a table tells for thirty days when a
/// file was replaced.
pub(crate) const REPLACED_FILES_KEPT: RangeInclusive<HumanDuration> =
    HumanDuration::days(1)..=HumanDuration::days(29);
const OLDER_THAN: &str = "older_than";

/// What to remove.
#[derive(Debug, Clone, Default)]
pub(crate) struct VacuumRequest {
    /// How long nothing must have named a file, milliseconds.
    pub(crate) older_than_ms: i64,
    /// Paths of files that go at once, over age, history and pins: what an erasure has replaced. One that its table
    /// still names stays.
    pub(crate) must_go: BTreeSet<String>,
    /// Only find them.
    pub(crate) dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Vacuumed {
    pub(crate) dry_run: bool,
    /// Files removed, or to be removed.
    pub(crate) removed: u64,
    pub(crate) bytes: u64,
    /// Files left because a generation that is kept was made of them.
    pub(crate) kept_for_history: u64,
    /// Files left because a pin holds them.
    pub(crate) kept_for_pins: u64,
    /// Stopped before the end.
    pub(crate) cancelled: bool,
    /// Paths of the first few.
    pub(crate) files: Vec<String>,
}

/// Removes files of a tenant's archive that nothing needs.
pub(crate) async fn vacuum(
    stores: &Stores,
    clock: &SharedClock,
    tenant: &TenantId,
    request: &VacuumRequest,
    tell: &(dyn Fn(u64, u64) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vacuumed> {
    let cutoff = clock.now_ms() - request.older_than_ms;
    let mut candidates = stores.archive.unnamed_files(tenant, cutoff).await?;
    if !request.must_go.is_empty() {
        let all = stores.archive.unnamed_files(tenant, i64::MAX).await?;
        candidates.extend(
            all.into_iter()
                .filter(|file| request.must_go.contains(&file.path)),
        );
        candidates.sort();
        candidates.dedup();
    }
    let total = candidates.len() as u64;
    let mut vacuumed = Vacuumed {
        dry_run: request.dry_run,
        ..Vacuumed::default()
    };
    for (step, files) in candidates.chunks(STEP).enumerate() {
        if cancel.is_cancelled() {
            vacuumed.cancelled = true;
            break;
        }
        tell((step * STEP) as u64, total);
        let free = free_of(stores, clock, tenant, request, files, &mut vacuumed).await?;
        let removed = match request.dry_run {
            true => free,
            false => stores.archive.remove_unnamed(tenant, &free).await?,
        };
        for file in removed {
            vacuumed.removed += 1;
            vacuumed.bytes += file.bytes;
            if vacuumed.files.len() < LISTED_MAX {
                vacuumed.files.push(file.path);
            }
        }
        failpoint!("vacuum.after_step");
    }
    Ok(vacuumed)
}

/// Those of some files that nothing needs.
async fn free_of(
    stores: &Stores,
    clock: &SharedClock,
    tenant: &TenantId,
    request: &VacuumRequest,
    files: &[UnnamedFile],
    vacuumed: &mut Vacuumed,
) -> Result<Vec<UnnamedFile>> {
    let held = pins::held(stores.documents.as_ref(), tenant, clock.now_ms()).await?;
    let mut histories: HashMap<(VenueId, LocalDay), HashSet<String>> = HashMap::new();
    let mut free = Vec::new();
    for file in files {
        if request.must_go.contains(&file.path) {
            free.push(file.clone());
            continue;
        }
        if held.holds_file(&file.path) {
            vacuumed.kept_for_pins += 1;
            continue;
        }
        if let Some(place) = day_of(&file.path) {
            if !histories.contains_key(&place) {
                let venue = VenueKey::new(tenant.clone(), place.0.clone());
                let named = named_by_history(stores.venue_days.as_ref(), &venue, place.1).await?;
                histories.insert(place.clone(), named);
            }
            if histories
                .get(&place)
                .is_some_and(|named| named.contains(&file.path))
            {
                vacuumed.kept_for_history += 1;
                continue;
            }
        }
        free.push(file.clone());
    }
    Ok(free)
}

async fn named_by_history(
    days: &dyn dwell_storage::api::VenueDays,
    venue: &VenueKey,
    day: LocalDay,
) -> Result<HashSet<String>> {
    let history = VenueDaysReader::history(days, venue, day).await?;
    let files = history.into_iter().flat_map(|info| info.files);
    Ok(files.map(|file| file.path).collect())
}

/// Whose day a file is of: `venue=<venue>/day=<day>/…`.
fn day_of(path: &str) -> Option<(VenueId, LocalDay)> {
    let mut parts = path.split('/');
    let venue = parts.next()?.strip_prefix("venue=")?;
    let day = parts.next()?.strip_prefix("day=")?;
    Some((VenueId::new(venue).ok()?, day.parse().ok()?))
}

#[derive(Debug, Deserialize)]
struct Spec {
    older_than: Option<HumanDuration>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) struct Vacuum;

#[async_trait]
impl JobKind for Vacuum {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "vacuum",
            summary: "Remove replaced files of the archive that nothing needs any more",
            takes_days: false,
            takes_dry_run: true,
            options: &[OLDER_THAN],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let Some(older_than) = request.options.get(OLDER_THAN) else {
            return Ok(());
        };
        let age = serde_json::from_value::<HumanDuration>(older_than.clone());
        match age {
            Ok(age) if REPLACED_FILES_KEPT.contains(&age) => Ok(()),
            _ => Err(JobRefusal(format!(
                "{OLDER_THAN} must be a duration of {} to {}, like 7d",
                REPLACED_FILES_KEPT.start(),
                REPLACED_FILES_KEPT.end()
            ))),
        }
    }

    fn lane(&self, _: &JobRequest) -> Lane {
        Lane::Backfill
    }

    fn runs_alone(&self) -> bool {
        true
    }

    fn retry(&self, job: &Job) -> Result<serde_json::Value, JobRefusal> {
        Ok(job.spec.clone())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let age = spec.older_than.unwrap_or(worker.settings.replaced_files_kept);
        let request = VacuumRequest {
            older_than_ms: age.as_ms(),
            dry_run: spec.dry_run,
            ..VacuumRequest::default()
        };
        let tell = |done, total| progress.set(done, total, "looking at replaced files");
        let done = vacuum(
            &worker.stores,
            &worker.clock,
            &job.tenant,
            &request,
            &tell,
            &cancel,
        )
        .await?;
        let report = serde_json::to_value(&done)?;
        Ok(match done.cancelled {
            true => Outcome::cancelled(report),
            false => Outcome::succeeded(report),
        })
    }
}

#[cfg(test)]
mod tests;
