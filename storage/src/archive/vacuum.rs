//! Files that no table names: found by listing, held against the table's log, removed.
//!
//! A file's age counts from when it was last needed: from its writing, or from the commit that replaced it, whichever is
//! later, since whoever read the version before may still be reading. When a commit was made is told by its entry in the
//! log, which the store dates; entries stay there for thirty days, longer than any age that is asked for.

use std::collections::HashSet;

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::delta::DeltaArchive;
use super::files::store_failed;
use super::layout::{LOG_FOLDER, TableName};
use super::rewrite::file_name;
use super::table_log::TableLog;
use crate::api::{ArchiveKeeper, TableVersion, UnnamedFile};
use crate::error::Result;

#[async_trait]
impl ArchiveKeeper for DeltaArchive {
    async fn unnamed_files(&self, tenant: &TenantId, older_than: TsMs) -> Result<Vec<UnnamedFile>> {
        let mut unnamed = Vec::new();
        for name in self.tables_of(tenant).await? {
            let (store, archive) = self.location();
            let folder = name.folder(archive);
            // Listed before the log is read: a file that is committed in between was listed, and is named then.
            let listed: Vec<ObjectMeta> = store
                .list(Some(&folder))
                .try_collect()
                .await
                .map_err(|error| store_failed("list", &folder, error))?;
            let table = self.table(&name)?;
            let mut table = table.lock().await;
            table.refresh().await?;
            let mut needed = replaced_since(&table, &listed, older_than).await?;
            needed.extend(table.active_paths().map(str::to_owned));
            let old = listed.iter().filter(|file| is_older(file, older_than));
            unnamed.extend(old.filter_map(|file| {
                let path = data_path(file, &folder)?;
                (!needed.contains(&path)).then_some(UnnamedFile {
                    kind: name.kind,
                    dataset: name.dataset,
                    path,
                    bytes: file.size,
                })
            }));
        }
        unnamed.sort();
        Ok(unnamed)
    }

    async fn remove_unnamed(&self, tenant: &TenantId, files: &[UnnamedFile]) -> Result<Vec<UnnamedFile>> {
        let mut removed = Vec::new();
        for file in files {
            let name = TableName::new(tenant, file.kind, file.dataset);
            let table = self.table(&name)?;
            // Held while the file goes: no commit of this process can name it in between.
            let mut table = table.lock().await;
            table.settle().await?;
            if table.refresh().await? && table.file(&file.path).is_some() {
                continue;
            }
            let (_, archive) = self.location();
            self.data_files()
                .remove(&file_name(archive, &name, &file.path))
                .await?;
            removed.push(file.clone());
        }
        Ok(removed)
    }

    async fn versions(&self, tenant: &TenantId) -> Result<Vec<TableVersion>> {
        let mut names = self.tables_of(tenant).await?;
        // `Events` sorts before `Superseded`, and is committed after it.
        names.sort_by_key(|name| (name.kind, std::cmp::Reverse(name.dataset)));
        let mut versions = Vec::with_capacity(names.len());
        for name in names {
            let table = self.table(&name)?;
            let mut table = table.lock().await;
            table.refresh().await?;
            if let Some((version, files, bytes)) = table.standing() {
                versions.push(TableVersion {
                    kind: name.kind,
                    dataset: name.dataset,
                    version,
                    files,
                    bytes,
                });
            }
        }
        Ok(versions)
    }
}

/// Paths of the files that were replaced at or after a moment.
async fn replaced_since(table: &TableLog, listed: &[ObjectMeta], since: TsMs) -> Result<HashSet<String>> {
    let mut replaced = HashSet::new();
    for entry in listed.iter().filter(|entry| !is_older(entry, since)) {
        if let Some(version) = version_of(entry) {
            replaced.extend(table.removed_by(version).await?);
        }
    }
    Ok(replaced)
}

fn is_older(file: &ObjectMeta, than: TsMs) -> bool {
    file.last_modified.timestamp_millis() < than
}

/// The version of a log's entry; `None` for everything else.
fn version_of(entry: &ObjectMeta) -> Option<u64> {
    let parts: Vec<_> = entry.location.parts().collect();
    let [.., folder, file] = parts.as_slice() else {
        return None;
    };
    let number = file.as_ref().strip_suffix(".json")?;
    (folder.as_ref() == LOG_FOLDER).then(|| number.parse().ok())?
}

/// A data file's path below its table's folder; `None` for everything else.
fn data_path(file: &ObjectMeta, folder: &Path) -> Option<String> {
    let parts = file.location.prefix_match(folder)?;
    let path = parts
        .map(|part| part.as_ref().to_owned())
        .collect::<Vec<_>>()
        .join("/");
    (path.ends_with(".parquet") && !path.starts_with(LOG_FOLDER)).then_some(path)
}
