//! Damaged files: which they are, and writing them anew from rows that somebody still has.
//!
//! What a file held is known without reading it: the table's log keeps its counts and checksums. So a day rebuilt from
//! raw rows and from those of its files that can be read either comes out as just that, or is not taken.

use async_trait::async_trait;
use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use tokio::runtime::Handle;

use super::day_files::{hash_file, read_sums};
use super::delta::{DeltaArchive, off_runtime};
use super::files::DataFiles;
use super::layout::TableName;
use super::rewrite::file_name;
use crate::api::{
    ArchiveFile, ArchiveReader, ArchiveRepair, ArchiveWriter, ArchivedDay, BrokenFile, Dataset, Generation,
    IncomingDay, Rebuilt, Rewrite, StagedDay,
};
use crate::error::{ErrorKind, Result, StorageError};

#[async_trait]
impl ArchiveRepair for DeltaArchive {
    async fn broken_files(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<Vec<BrokenFile>> {
        let mut broken = Vec::new();
        for file in day.events.iter().chain(&day.superseded) {
            let table = TableName::new(&venue.tenant, file.kind, file.dataset);
            let hash = self.logged_hash(&table, &file.path).await?;
            let (_, archive) = self.location();
            let name = file_name(archive, &table, &file.path);
            let (files, runtime, wanted) = (self.data_files().clone(), Handle::current(), file.clone());
            let checked = off_runtime("archive check", move || {
                check(&files, &name, &wanted, hash, &runtime)
            })
            .await;
            match checked {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    broken.push(BrokenFile {
                        file: file.clone(),
                        problem: error.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(broken)
    }

    async fn rebuild_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
        broken: &[BrokenFile],
    ) -> Result<Rebuilt> {
        let archived = self.day(venue, kind, day).await?;
        let readable = without_broken(&archived, broken);
        let rewrite = self
            .rewrite_over(venue, kind, day, fence, incoming, readable)
            .await?;
        let holds = match &rewrite {
            Rewrite::Unchanged(holds) => holds.clone(),
            Rewrite::Staged(staged) => staged.holds.clone(),
        };
        let is_whole = holds.events_checksum() == archived.events_checksum()
            && superseded(&holds) == superseded(&archived)
            && holds.deliveries == archived.deliveries;
        match rewrite {
            Rewrite::Staged(staged) if is_whole => Ok(Rebuilt::Staged(StagedDay {
                replaces: archived,
                ..staged
            })),
            rewrite => {
                if let Rewrite::Staged(staged) = rewrite {
                    self.discard(vec![staged]).await?;
                }
                Ok(Rebuilt::NotAsRecorded {
                    recorded: archived.events_checksum(),
                    found: holds.events_checksum(),
                })
            }
        }
    }
}

/// Reads a file whole: its rows' checksum over deliveries; `Damaged` or `NotFound` when it is not what was committed.
pub(super) fn check(
    files: &DataFiles,
    name: &object_store::path::Path,
    file: &ArchiveFile,
    hash: Option<u64>,
    runtime: &Handle,
) -> Result<Checksum> {
    if let Some(hash) = hash
        && hash != hash_file(files, name, runtime)?
    {
        let what = format!("archive file {name} was changed since it was committed");
        return Err(StorageError::new(ErrorKind::Damaged, what));
    }
    let sums = read_sums(files, name, file.kind, runtime)?;
    let checksum = match file.dataset {
        Dataset::Events => sums.events,
        Dataset::Superseded => sums.deliveries,
    };
    if checksum != file.checksum || checksum.rows != file.rows {
        let what = format!(
            "archive file {name} holds {} rows with checksum {:032x}, not {} with {:032x}",
            checksum.rows, checksum.sum, file.rows, file.checksum.sum
        );
        return Err(StorageError::new(ErrorKind::Damaged, what));
    }
    Ok(sums.deliveries)
}

/// What can be read of a day. A dataset of which a file is broken counts as a whole for not readable: Dwell writes one
/// file for each.
fn without_broken(archived: &ArchivedDay, broken: &[BrokenFile]) -> ArchivedDay {
    let is_broken = |dataset| broken.iter().any(|broken| broken.file.dataset == dataset);
    let of_superseded = superseded(archived);
    let mut readable = ArchivedDay::default();
    if !is_broken(Dataset::Superseded) {
        readable.superseded = archived.superseded.clone();
        readable.deliveries.merge(of_superseded);
    }
    if !is_broken(Dataset::Events) {
        readable.events = archived.events.clone();
        readable
            .deliveries
            .merge(super::rewrite::without(archived.deliveries, of_superseded));
    }
    readable
}

fn superseded(day: &ArchivedDay) -> Checksum {
    let mut sum = Checksum::default();
    day.superseded.iter().for_each(|file| sum.merge(file.checksum));
    sum
}
