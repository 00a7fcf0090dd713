//! The second half of `verify` with `repair`: the days that failed, one by one, and whether they are whole then.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use dwell_batch_layer::repair::{Copies, NoCopies, RepairedFile};
use dwell_batch_layer::report::{Outcome as DayOutcome, RunReport};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_storage::api::{ArchiveFile, Job, JobState};
use dwell_storage::archive::{CopiedFile, DeltaArchive};
use dwell_storage::backup::BackupPlace;
use dwell_storage::error::{ErrorKind, Result as StorageResult};
use dwell_storage::resolver;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kinds::Outcome;
use super::{JobWorker, Progress, place_of};
use crate::backup::{INSTALLATION_TENANT, pruning, state};

/// Repairs the days that a verification found broken, and verifies them again.
pub(super) async fn repair(
    worker: &JobWorker,
    job: &Job,
    report: RunReport,
    from_backup: Option<&str>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let copies = copies(worker, job, from_backup).await?;
    let broken: Vec<(VenueKey, LocalDay)> = report
        .days
        .iter()
        .filter(|day| day.outcome == DayOutcome::Failed)
        .map(|day| (day.venue.clone(), day.day))
        .collect();
    let total = broken.len() as u64;
    let (mut repaired, mut still): (Vec<RepairedFile>, Vec<String>) = (Vec::new(), Vec::new());
    for (done, (venue, day)) in broken.iter().enumerate() {
        if cancel.is_cancelled() {
            return Ok(Outcome::cancelled(
                json!({ "verified": report, "files": repaired }),
            ));
        }
        progress.set(done as u64, total, &format!("repairing {venue} {day}"));
        match worker
            .batch
            .repair_day(venue, *day, copies.as_ref(), cancel)
            .await
        {
            Ok(files) => repaired.extend(files),
            Err(dwell_batch_layer::Error::Cancelled) => {
                return Ok(Outcome::cancelled(
                    json!({ "verified": report, "files": repaired }),
                ));
            }
            Err(error) => {
                still.push(format!("{venue} {day}: {error}"));
                continue;
            }
        }
        let again = worker.batch.verify_day(venue, *day).await;
        if again.outcome == DayOutcome::Failed {
            let cannot = repaired
                .iter()
                .filter(|file| file.venue == *venue && file.day == *day)
                .find_map(|file| Some(format!("{}: {}", file.path, file.cannot.as_deref()?)));
            still.push(format!("{venue} {day}: {}", cannot.unwrap_or(again.reason)));
        }
    }
    let result = json!({ "verified": report, "files": repaired, "not_repaired": still });
    let Some(first) = still.first() else {
        return Ok(Outcome::succeeded(result));
    };
    let error = format!(
        "{} of {total} broken days are not repaired; the first: {first}",
        still.len()
    );
    let some_are = (still.len() as u64) < total || report.verified > 0;
    let state = match some_are {
        true => JobState::Partial,
        false => JobState::Failed,
    };
    Ok(Outcome::troubled(state, result, error))
}

/// Copies of the archive's files: in the backups at a place that is named, or at the one that was used last.
async fn copies(worker: &JobWorker, job: &Job, from: Option<&str>) -> Result<Box<dyn Copies>> {
    let known = state::load(worker.stores.documents.as_ref()).await?.place;
    // Another tenant's operator may not name places to read from.
    let named = from.filter(|_| job.tenant.as_str() == INSTALLATION_TENANT);
    let Some(place) = named.or_else(|| (!known.is_empty()).then_some(known.as_str())) else {
        return Ok(Box::new(NoCopies));
    };
    let engines = &worker.settings.engines;
    let place = BackupPlace::open(&place_of(place)?, &engines.objects)?;
    let mut files: BTreeMap<String, CopiedFile> = BTreeMap::new();
    // Newest last, so that the newest knowledge of a path stands.
    for id in place.backups().await? {
        match place.backup(&id).await {
            Ok(manifest) => {
                for (tenant, kept) in pruning::kept_files(&place, &manifest).await? {
                    if tenant == job.tenant {
                        files.extend(kept.into_iter().map(|file| (file.path.clone(), file)));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(backup = id, %error, "copies in a backup cannot be looked for");
            }
        }
    }
    Ok(Box::new(CopiesAtPlace {
        archive: resolver::open_archive(engines, &worker.clock)?,
        tenant: job.tenant.clone(),
        place,
        files,
    }))
}

/// Copies beside backups.
struct CopiesAtPlace {
    archive: DeltaArchive,
    tenant: TenantId,
    place: BackupPlace,
    files: BTreeMap<String, CopiedFile>,
}

#[async_trait]
impl Copies for CopiesAtPlace {
    async fn bring_back(
        &self,
        _: &VenueKey,
        _: LocalDay,
        file: &ArchiveFile,
    ) -> StorageResult<Option<String>> {
        let Some(copy) = self.files.get(&file.path) else {
            return Ok(None);
        };
        match self.place.bring_back(&self.archive, &self.tenant, copy).await {
            Ok(()) => Ok(Some(format!("brought back from {}", self.place.name()))),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                tracing::warn!(file = file.path, %error, "the copy of an archive file is no good");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
