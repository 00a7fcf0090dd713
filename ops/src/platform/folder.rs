//! Looks at the folders of an embedded installation: whether there is room in them, and whether the files are sound.
//!
//! The engines of many machines are looked at from outside. Here the engine is this process, and what can fail is the
//! disk: a full one is found by writing, so that readiness and alarms tell of it before and after anybody posts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use dwell_runtime::admin::CheckHandle;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_runtime::tasks;
use dwell_storage::api::{FileTrouble, FileTroubleKind, StoreFiles};

use crate::metrics;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bytes that there must be room for.
const ROOM_BYTES: usize = 1 << 20;

/// The data folder, in metrics.
const DATA: &str = "data";
/// An archive in a folder of its own, in metrics.
const ARCHIVE: &str = "archive";

/// What is looked at.
pub(super) struct Folders {
    pub(super) files: Arc<dyn StoreFiles>,
    /// File that is written in the data folder to see whether there is room.
    pub(super) room: PathBuf,
    /// The same beside an archive in a folder of its own.
    pub(super) archive_room: Option<PathBuf>,
}

/// Why a folder cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Full,
    Unwritable,
}

/// Looks until shutdown. An error means that a flush to the disk has failed: nothing is written any more, and only a
/// new start knows again what the disk holds.
pub(super) async fn watch(
    folders: Folders,
    clock: SharedClock,
    check: CheckHandle,
    shutdown: ShutdownToken,
) -> Result<()> {
    loop {
        let troubles = folders.files.troubles();
        let refused = [
            (DATA, try_room(Some(&folders.room)).await),
            (ARCHIVE, try_room(folders.archive_room.as_deref()).await),
        ];
        for (folder, refused) in &refused {
            let is = |wanted| refused.as_ref().is_some_and(|(refusal, _)| *refusal == wanted);
            metrics::folder_trouble(folder, "full", is(Refusal::Full));
            metrics::folder_trouble(folder, "unwritable", is(Refusal::Unwritable));
        }
        let of_kind = |kind| troubles.iter().find(|trouble| trouble.kind == kind);
        let (damaged, not_flushed) = (
            of_kind(FileTroubleKind::Damaged),
            of_kind(FileTroubleKind::NotFlushed),
        );
        metrics::folder_trouble(DATA, "damaged", damaged.is_some());
        metrics::folder_trouble(DATA, "not_flushed", not_flushed.is_some());
        let [(_, data), (_, archive)] = refused;
        match (not_flushed, data, archive, damaged) {
            (Some(FileTrouble { file, what, .. }), ..) => {
                let cause = format!(
                    "a flush of {} to the disk has failed ({what}): what was acknowledged is safe; look at the disk, then \
                     start again",
                    file.display()
                );
                check.set_not_ok(cause.clone());
                bail!(cause);
            }
            (None, Some((_, why)), ..) => check.set_not_ok(why),
            (None, None, Some((_, why)), _) => check.set_degraded(why),
            (None, None, None, Some(trouble)) => check.set_degraded(trouble.what.clone()),
            (None, None, None, None) => check.set_ok(),
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = clock.sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whether there is room beside a file: it is written and removed.
async fn try_room(file: Option<&Path>) -> Option<(Refusal, String)> {
    let file = file?.to_owned();
    let tried = tasks::blocking("try room", move || {
        let written = write_some(&file);
        let _ = fs::remove_file(&file);
        written.map_err(|error| {
            let folder = file.parent().unwrap_or(&file).display();
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                    Refusal::Full,
                    format!("there is no room left on the disk of {folder}: make some"),
                ),
                _ => (
                    Refusal::Unwritable,
                    format!("{folder} cannot be written: {error}"),
                ),
            }
        })
    })
    .await;
    tried.ok()?.err()
}

fn write_some(file: &Path) -> io::Result<()> {
    // Nothing that the disk could make smaller.
    let mut bytes = vec![0; ROOM_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    File::create(file)?.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_named_and_nothing_is_left_in_one_that_can() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(try_room(Some(&dir.path().join("room"))).await, None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = dir.path().join("gone");
        let (refusal, why) = try_room(Some(&gone.join("room"))).await.unwrap();
        assert_eq!(refusal, Refusal::Unwritable);
        assert!(why.contains(gone.to_str().unwrap()), "{why}");
        assert_eq!(try_room(None).await, None);
    }
}
