//! Repairing a day's archive: damaged files written anew from raw, or fetched from where somebody keeps a copy.
//!
//! Under the day's lease each kind's files are read back. A kind with a broken one is rebuilt from raw and from what can
//! be read, and taken only where that gives exactly the rows recorded; else its files are asked for one by one
//! ([`Copies`]). Nothing is published: the rows are the same, so every number is.

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_runtime::failpoint;
use dwell_storage::api::{ArchiveFile, ArchivedDay, BrokenFile, Committed, Projection, Rebuilt};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive_day;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::while_renewing;
use crate::parts::DaySources;
use crate::run::{Begun, DayRequest, DayRun};

/// Where copies of the archive's files may be had.
#[async_trait]
pub trait Copies: Send + Sync {
    /// Puts a file back at its place as it was, from a copy whose hash was compared; tells where it came from, or `None`
    /// when there is no good copy.
    async fn bring_back(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        file: &ArchiveFile,
    ) -> dwell_storage::error::Result<Option<String>>;
}

/// There are no copies.
#[derive(Debug, Clone, Copy)]
pub struct NoCopies;

#[async_trait]
impl Copies for NoCopies {
    async fn bring_back(
        &self,
        _: &VenueKey,
        _: LocalDay,
        _: &ArchiveFile,
    ) -> dwell_storage::error::Result<Option<String>> {
        Ok(None)
    }
}

/// What became of a broken file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedFile {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// Kind of its events.
    pub kind: Kind,
    /// Its path below its dataset's folder.
    pub path: String,
    /// What was wrong.
    pub problem: String,
    /// How it was repaired; `None` when it was not.
    pub repaired: Option<String>,
    /// Why it could not be.
    pub cannot: Option<String>,
}

impl BatchLayer {
    /// Repairs what is broken in the archive of a day; the files that were broken, none where all is well. An error when
    /// the day is held by another worker, or a store fails.
    pub async fn repair_day(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        copies: &dyn Copies,
        cancel: &CancellationToken,
    ) -> Result<Vec<RepairedFile>> {
        let request = DayRequest {
            archive_only: true,
            ..DayRequest::recompute(day)
        };
        let run = match DayRun::begin(self, venue, request, cancel).await? {
            Begun::Run(run) => run,
            Begun::Skip(report) if report.retryable => return Err(Error::LeaseLost),
            Begun::Skip(_) => return Ok(Vec::new()),
        };
        let lease = vec![(run.lease.clone(), run.stop.clone())];
        let repaired = while_renewing(self, lease, repair(self, &run, copies)).await;
        match &repaired {
            Ok(_) => run.release(self).await,
            Err(error) => run.end(self, error).await,
        }
        repaired
    }
}

async fn repair(layer: &BatchLayer, day: &DayRun, copies: &dyn Copies) -> Result<Vec<RepairedFile>> {
    let mut repaired = Vec::new();
    let archive = &layer.stores().archive;
    for kind in Kind::ALL {
        day.stop.check()?;
        let held = archive.day(&day.venue, kind, day.request.day).await;
        let held = held.doing("look a day up in the archive")?;
        let broken = archive.broken_files(&day.venue, &held).await;
        let broken = broken.doing("read archived files back")?;
        if broken.is_empty() {
            continue;
        }
        repaired.extend(repair_kind(layer, day, kind, &held, broken, copies).await?);
    }
    Ok(repaired)
}

async fn repair_kind(
    layer: &BatchLayer,
    day: &DayRun,
    kind: Kind,
    held: &ArchivedDay,
    broken: Vec<BrokenFile>,
    copies: &dyn Copies,
) -> Result<Vec<RepairedFile>> {
    let told = |broken: &BrokenFile, repaired: Option<String>, cannot: Option<String>| RepairedFile {
        venue: day.venue.clone(),
        day: day.request.day,
        kind,
        path: broken.file.path.clone(),
        problem: broken.problem.clone(),
        repaired,
        cannot,
    };
    let cannot = match from_raw(layer, day, kind, &broken).await? {
        None => {
            let how = "written anew from raw".to_owned();
            return Ok(broken
                .iter()
                .map(|file| told(file, Some(how.clone()), None))
                .collect());
        }
        Some(why) => why,
    };
    let mut repaired = Vec::new();
    for file in &broken {
        day.stop.check()?;
        let brought = copies
            .bring_back(&day.venue, day.request.day, &file.file)
            .await
            .doing("look for a copy of a file")?;
        repaired.push(match brought {
            Some(from) => told(file, Some(from), None),
            None => told(
                file,
                None,
                Some(format!("{cannot}; no backup has a copy of the file")),
            ),
        });
    }
    // A copy that is not what the table's log says would be no repair.
    let still = layer.stores().archive.broken_files(&day.venue, held).await;
    for left in still.doing("read archived files back")? {
        for file in repaired.iter_mut().filter(|file| file.path == left.file.path) {
            if file.repaired.take().is_some() {
                file.cannot = Some(left.problem.clone());
            }
        }
    }
    Ok(repaired)
}

/// Rebuilds a kind from raw and what can be read; why that cannot be done, if it cannot.
async fn from_raw(
    layer: &BatchLayer,
    day: &DayRun,
    kind: Kind,
    broken: &[BrokenFile],
) -> Result<Option<String>> {
    let counted = layer
        .stores()
        .raw
        .count(&day.venue, day.range())
        .await
        .doing("count raw events")?;
    let raw_rows = counted
        .iter()
        .find(|(counted, _)| *counted == kind)
        .map_or(0, |(_, rows)| *rows);
    let sources = DaySources {
        layer,
        venue: &day.venue,
        day: day.request.day,
        kind,
        range: day.range(),
        raw_rows,
        archived: day.neighbours(layer, kind).await?,
        projection: Projection::EventsAndDeliveries,
        erasures: &day.erasures,
    };
    let staged = match archive_day::rebuild(day, &sources, broken).await? {
        Rebuilt::Staged(staged) => staged,
        Rebuilt::NotAsRecorded { recorded, found } => {
            return Ok(Some(format!(
                "raw and what can be read give {} {kind} events that are not the {} recorded",
                found.rows, recorded.rows
            )));
        }
    };
    failpoint!("repair.before_commit");
    let committed = archive_day::commit(layer, vec![staged.clone()]).await?;
    if committed == [Committed::Yes] {
        return Ok(None);
    }
    archive_day::discard(layer, vec![staged]).await;
    Err(Error::LeaseLost)
}
