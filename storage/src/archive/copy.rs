//! Moving an archive as it is: every data file, then every table's log, version by version.
//!
//! Paths in a log are relative to its table, so a copy is the same table elsewhere, history included. Data comes before
//! the log that names it, and each log entry is put only where there is none: a copy that was interrupted is gone on
//! with, and an archive that already holds a table with another history is left alone.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};

use super::delta::DeltaArchive;
use super::layout::LOG_FOLDER;
use crate::erasure::ledger::FOLDER as LEDGER_FOLDER;
use crate::error::{ErrorKind, Result, StorageError};

/// Name of the file by which readers find the last checkpoint; the only one of a log that is ever replaced.
const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopiedArchive {
    /// Files copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub known: u64,
}

impl DeltaArchive {
    /// Copies all tables into another archive. Repeatable. `Conflict` when a table of the other archive has a history
    /// of its own. Nothing may be written to this archive meanwhile.
    pub async fn copy_into(&self, other: &DeltaArchive) -> Result<CopiedArchive> {
        let (from, from_folder) = self.location();
        let (to, to_folder) = other.location();
        let listed = from
            .list(Some(from_folder))
            .try_collect::<Vec<ObjectMeta>>()
            .await;
        let mut objects = listed.map_err(|error| failed("list the archive", from_folder, error))?;
        // Data, then logs in the order of their versions, then the pointers to checkpoints.
        objects.sort_by_key(|object| {
            let is_log = object.location.parts().any(|part| part.as_ref() == LOG_FOLDER);
            let is_pointer = object.location.filename() == Some(LAST_CHECKPOINT);
            (is_log, is_pointer, object.location.clone())
        });
        let mut copied = CopiedArchive::default();
        for object in objects {
            let below = object.location.prefix_match(from_folder).into_iter().flatten();
            let target = below.fold(to_folder.clone(), |path, part| path.join(part));
            // The ledger of erasures is a history as well: entries under another key would match nobody.
            let is_log = object
                .location
                .parts()
                .any(|part| [LOG_FOLDER, LEDGER_FOLDER].contains(&part.as_ref()));
            let is_new = match is_log && object.location.filename() != Some(LAST_CHECKPOINT) {
                true => copy_log_entry(from, &object, to, &target).await?,
                false => copy_file(from, &object, to, &target).await?,
            };
            match is_new {
                true => {
                    copied.files += 1;
                    copied.bytes += object.size;
                }
                false => copied.known += 1,
            }
        }
        Ok(copied)
    }
}

/// Copies a file whose name is never used for other bytes; whether it was not there.
pub(super) async fn copy_file(
    from: &dyn ObjectStore,
    object: &ObjectMeta,
    to: &dyn ObjectStore,
    target: &Path,
) -> Result<bool> {
    let is_pointer = object.location.filename() == Some(LAST_CHECKPOINT);
    match to.head(target).await {
        Ok(found) if found.size == object.size && !is_pointer => return Ok(false),
        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(failed("look for", target, error)),
    }
    let read = from.get(&object.location).await;
    let mut chunks = read
        .map_err(|error| failed("read", &object.location, error))?
        .into_stream();
    let upload = to.put_multipart(target).await;
    let mut upload = WriteMultipart::new(upload.map_err(|error| failed("write", target, error))?);
    while let Some(chunk) = chunks
        .try_next()
        .await
        .map_err(|error| failed("read", &object.location, error))?
    {
        upload
            .wait_for_capacity(4)
            .await
            .map_err(|error| failed("write", target, error))?;
        upload.put(chunk);
    }
    upload
        .finish()
        .await
        .map_err(|error| failed("write", target, error))?;
    Ok(true)
}

/// Puts a log entry where there is none; an equal one is fine. Whether it was not there.
async fn copy_log_entry(
    from: &dyn ObjectStore,
    object: &ObjectMeta,
    to: &dyn ObjectStore,
    target: &Path,
) -> Result<bool> {
    let bytes = whole(from, &object.location).await?;
    match to
        .put_opts(target, bytes.clone().into(), PutMode::Create.into())
        .await
    {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            match whole(to, target).await? == bytes {
                true => Ok(false),
                false => Err(StorageError::new(
                    ErrorKind::Conflict,
                    format!(
                        "{target} stands there with other content: the archives have different histories"
                    ),
                )),
            }
        }
        Err(error) => Err(failed("write", target, error)),
    }
}

async fn whole(store: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    let read = async { store.get(path).await?.bytes().await };
    read.await.map_err(|error| failed("read", path, error))
}

fn failed(doing: &str, path: &Path, error: object_store::Error) -> StorageError {
    StorageError::with_source(ErrorKind::Unavailable, format!("{doing} {path}"), error)
}
