//! Data files kept elsewhere, beside a backup, and brought back from there.
//!
//! Only files that count now are kept, not the table's log: a table made of them anew ([`DeltaArchive::adopt`]) holds the
//! same rows and has no history. A file keeps its path, by which `venue_days` names it, and its hash is compared whenever
//! it comes back.

use dwell_model::event::Kind;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::LocalDay;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::copy::copy_file;
use super::day_files::hash_file;
use super::delta::{DeltaArchive, off_runtime};
use super::files::{DataFiles, store_failed};
use super::layout::TableName;
use super::rewrite::file_name;
use super::table_log::{NewFile, Tried};
use crate::api::Dataset;
use crate::error::{ErrorKind, Result, StorageError};

/// Tries of a commit: each means that somebody else's went through.
const COMMIT_TRIES: usize = 20;

/// A data file of the archive that is, or shall be, kept elsewhere too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Kind of its events.
    pub kind: Kind,
    /// Which dataset.
    pub dataset: Dataset,
    /// Whose day.
    pub venue: VenueId,
    /// The day.
    pub day: LocalDay,
    /// Path below the dataset's folder.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// XXH3 of its bytes, hexadecimal.
    pub xxh3: String,
}

impl CopiedFile {
    /// Its path below a folder that keeps files of a tenant.
    pub(crate) fn below(&self, folder: &Path, tenant: &TenantId) -> Path {
        file_name(folder, &self.table(tenant), &self.path)
    }

    fn table(&self, tenant: &TenantId) -> TableName {
        TableName::new(tenant, self.kind, self.dataset)
    }
}

impl DeltaArchive {
    /// The files that count now, superseded ones of a kind before its events as they are committed.
    pub async fn files_now(&self, tenant: &TenantId) -> Result<Vec<CopiedFile>> {
        let mut names = self.tables_of(tenant).await?;
        names.sort_by_key(|name| (name.kind, std::cmp::Reverse(name.dataset)));
        let mut files = Vec::new();
        for name in names {
            let active = {
                let table = self.table(&name)?;
                let mut table = table.lock().await;
                table.refresh().await?;
                table.active_files()
            };
            for (venue, day, file) in active {
                let hash = match file.file_hash {
                    Some(hash) => hash,
                    None => self.facts(&name, &file.path).await?.1,
                };
                files.push(CopiedFile {
                    kind: name.kind,
                    dataset: name.dataset,
                    venue,
                    day,
                    path: file.path,
                    bytes: file.bytes,
                    xxh3: format!("{hash:016x}"),
                });
            }
        }
        Ok(files)
    }

    /// Copies a file to another store, unless one of its size is there; whether it was not.
    pub(crate) async fn keep_elsewhere(
        &self,
        tenant: &TenantId,
        file: &CopiedFile,
        to: &dyn ObjectStore,
        target: &Path,
    ) -> Result<bool> {
        let (from, archive) = self.location();
        let name = file.below(archive, tenant);
        let head = from.head(&name).await;
        let head = head.map_err(|error| store_failed("copy", &name, error))?;
        if head.size != file.bytes {
            let what = format!("archive file {name} has {} bytes, not {}", head.size, file.bytes);
            return Err(StorageError::new(ErrorKind::Damaged, what));
        }
        copy_file(from, &head, to, target).await
    }

    /// Brings a file back to its place, over whatever stands there, and compares its hash. `Damaged` when what is kept
    /// elsewhere is not what was; then nothing is changed.
    pub(crate) async fn bring_back(
        &self,
        tenant: &TenantId,
        file: &CopiedFile,
        from: &std::sync::Arc<dyn ObjectStore>,
        source: &Path,
    ) -> Result<()> {
        check_kept(file, from, source).await?;
        let (to, archive) = self.location();
        let name = file.below(archive, tenant);
        // A damaged file of the right size would pass for the copy.
        self.data_files().remove(&name).await?;
        let kept = ObjectMeta {
            location: source.clone(),
            ..from
                .head(source)
                .await
                .map_err(|error| store_failed("bring back", source, error))?
        };
        copy_file(&**from, &kept, to, &name).await?;
        let (files, runtime) = (self.data_files().clone(), Handle::current());
        let hash = off_runtime("archive hash", move || hash_file(&files, &name, &runtime)).await?;
        check_hash(file, hash)
    }

    /// Takes files that lie at their places into the tables, all of a table in one commit; those that count already are
    /// left. Returns how many were taken.
    pub async fn adopt(&self, tenant: &TenantId, files: &[CopiedFile]) -> Result<u64> {
        let mut adopted = 0;
        let mut names: Vec<TableName> = files.iter().map(|file| file.table(tenant)).collect();
        names.sort_by_key(|name| (name.kind, std::cmp::Reverse(name.dataset)));
        names.dedup();
        for name in names {
            let mut new = Vec::new();
            for file in files.iter().filter(|file| file.table(tenant) == name) {
                let (facts, file_hash) = self.facts(&name, &file.path).await?;
                check_hash(file, file_hash)?;
                new.push(NewFile {
                    venue: file.venue.clone(),
                    day: file.day,
                    path: file.path.clone(),
                    bytes: file.bytes,
                    facts,
                    file_hash,
                });
            }
            adopted += self.adopt_into(&name, new).await?;
        }
        Ok(adopted)
    }

    async fn adopt_into(&self, name: &TableName, files: Vec<NewFile>) -> Result<u64> {
        let table = self.table(name)?;
        for _ in 0..COMMIT_TRIES {
            let mut table = table.lock().await;
            table.create().await?;
            let add: Vec<NewFile> = files
                .iter()
                .filter(|file| table.file(&file.path).is_none())
                .cloned()
                .collect();
            if add.is_empty() || table.try_commit(&[], &add).await? == Tried::Committed {
                return Ok(add.len() as u64);
            }
        }
        let what = format!("archive table {name}: others commit all the time");
        Err(StorageError::new(ErrorKind::Busy, what))
    }
}

/// Reads a kept file whole and compares its hash.
pub(crate) async fn check_kept(
    file: &CopiedFile,
    from: &std::sync::Arc<dyn ObjectStore>,
    source: &Path,
) -> Result<()> {
    let files = DataFiles::new(std::sync::Arc::clone(from), None);
    let (name, runtime) = (source.clone(), Handle::current());
    let hash = off_runtime("kept file hash", move || hash_file(&files, &name, &runtime)).await?;
    check_hash(file, hash)
}

fn check_hash(file: &CopiedFile, hash: u64) -> Result<()> {
    if format!("{hash:016x}") == file.xxh3 {
        return Ok(());
    }
    let what = format!(
        "archive file {} is not what it was: its hash is another",
        file.path
    );
    Err(StorageError::new(ErrorKind::Damaged, what))
}
