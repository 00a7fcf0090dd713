//! What has gone wrong with a database file since this process opened it, and what must not be done to it any more.
//!
//! Two things are remembered until the file is opened anew:
//!
//! - **A flush has failed.** The system may take pages for written then that are on no disk, and a later flush of the
//!   same pages succeeds without writing them. So nothing more is written to the file, and nothing acknowledged:
//!   [`FileCondition::check`] refuses. What was acknowledged before had been flushed. The next start writes what is left
//!   in the write-ahead log once more ([`flush_left_over`]) before anything rests on it.
//! - **Bytes are damaged.** What can be read is read on; whoever runs the installation is told until it is mended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Error as SqlError, ffi};

use super::failure::Failure;
use crate::api::{FileTrouble, FileTroubleKind};
use crate::error::{ErrorKind, Result, StorageError};

/// Bytes of a write-ahead log that are written anew at a time.
const BLOCK: usize = 1 << 20;

/// A database file, as this process knows it.
#[derive(Debug)]
pub(super) struct FileCondition {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// The first of each kind: what follows comes of it.
#[derive(Debug, Default)]
struct Seen {
    not_flushed: Option<String>,
    damaged: Option<String>,
}

impl FileCondition {
    /// A file of which nothing bad is known.
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            seen: Mutex::default(),
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses once a flush has failed. To be asked before every write.
    pub(super) fn check(&self) -> Result<()> {
        match &self.lock().not_flushed {
            None => Ok(()),
            Some(cause) => Err(StorageError::new(
                ErrorKind::Unavailable,
                format!(
                    "nothing more is written to {} since a flush of it to the disk has failed ({cause}): look at the \
                     disk, then start again",
                    self.path.display()
                ),
            )),
        }
    }

    /// The error for a caller, remembered if it says something of the file.
    pub(super) fn describe(&self, doing: &str, failure: Failure) -> StorageError {
        if let Failure::Sql(error) = &failure {
            self.note(error);
        }
        let error = failure.into_error(doing, &self.path);
        if error.kind() == ErrorKind::Damaged {
            let mut seen = self.lock();
            if seen.damaged.is_none() {
                tracing::error!(file = %self.path.display(), %error, "a database file is damaged (see docs/faults.md)");
                seen.damaged = Some(error.to_string());
            }
        }
        error
    }

    /// Remembers an error of SQLite if it is a flush that failed.
    pub(super) fn note(&self, error: &SqlError) {
        let SqlError::SqliteFailure(failure, _) = error else {
            return;
        };
        if ![ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&failure.extended_code) {
            return;
        }
        let mut seen = self.lock();
        if seen.not_flushed.is_none() {
            tracing::error!(file = %self.path.display(), %error, "a flush to the disk has failed");
            seen.not_flushed = Some(error.to_string());
        }
    }

    /// What is wrong with the file.
    pub(super) fn troubles(&self) -> Vec<FileTrouble> {
        let seen = self.lock();
        let found = [
            (FileTroubleKind::NotFlushed, &seen.not_flushed),
            (FileTroubleKind::Damaged, &seen.damaged),
        ];
        found
            .into_iter()
            .filter_map(|(kind, what)| {
                Some(FileTrouble {
                    file: self.path.clone(),
                    kind,
                    what: what.clone()?,
                })
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the bytes that a process which is gone left in a database's write-ahead log once more, in place, and flushes
/// them; an error means that the disk does not keep them. To be called before the file is opened, by whoever has it
/// alone.
///
/// Had a flush failed before that process ended, the log in memory may hold more than the disk: complete transactions,
/// never acknowledged, that SQLite finds valid and appends to. The next power cut would take them, and all that came
/// after.
pub(super) fn flush_left_over(database: &Path) -> Result<()> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    match write_anew(Path::new(&wal)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
                _ => ErrorKind::Unavailable,
            };
            let doing = format!(
                "bring {} onto the disk: look at the disk, then start again",
                Path::new(&wal).display()
            );
            Err(StorageError::with_source(kind, doing, error))
        }
        _ => Ok(()),
    }
}

fn write_anew(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let (mut block, mut at) = (vec![0; BLOCK], 0);
    loop {
        file.seek(SeekFrom::Start(at))?;
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&block[..read])?;
        at += read as u64;
    }
    if at == 0 {
        return Ok(());
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(code: i32) -> Failure {
        Failure::Sql(SqlError::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_flush_that_failed_ends_all_writing_and_is_told() {
        let condition = FileCondition::new(Path::new("/data/log.db"));
        condition.describe("append", sql(ffi::SQLITE_IOERR_WRITE));
        condition.describe("append", sql(ffi::SQLITE_FULL));
        assert!(condition.check().is_ok(), "another try may succeed");
        assert_eq!(condition.troubles(), []);
        condition.describe("append", sql(ffi::SQLITE_IOERR_FSYNC));
        let refused = condition.check().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("/data/log.db"), "{refused}");
        let troubles = condition.troubles();
        assert_eq!(troubles.len(), 1);
        assert_eq!(troubles[0].kind, FileTroubleKind::NotFlushed);
    }

    #[test]
    fn damage_is_told_and_does_not_end_writing() {
        let condition = FileCondition::new(Path::new("/data/data.db"));
        condition.describe("read a day", sql(ffi::SQLITE_CORRUPT));
        condition.describe("read another", Failure::damaged_row("no such kind"));
        assert!(condition.check().is_ok());
        let troubles = condition.troubles();
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(
            troubles[0].what.starts_with("read a day in /data/data.db"),
            "{troubles:?}"
        );
    }

    #[test]
    fn what_is_left_over_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("log.db");
        flush_left_over(&database).unwrap();
        let wal = dir.path().join("log.db-wal");
        let bytes: Vec<u8> = (0..2 * BLOCK + 7).map(|i| (i % 251) as u8).collect();
        std::fs::write(&wal, &bytes).unwrap();
        flush_left_over(&database).unwrap();
        assert!(std::fs::read(&wal).unwrap() == bytes);
    }
}
