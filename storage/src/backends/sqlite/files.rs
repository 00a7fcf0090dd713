//! The files of a data directory, as bytes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use dwell_runtime::tasks;
use rusqlite::{Connection, OpenFlags};

use super::condition::FileCondition;
use super::connection::Database;
use super::failure::Failure;
use crate::api::{FileTrouble, FileTroubleKind, StoreFiles};
use crate::error::{ErrorKind, Result, StorageError};
use crate::paths::DataPaths;

/// Things wrong with a database that are named.
const FINDINGS_MAX: usize = 20;
/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// The files of one data directory.
#[derive(Debug)]
pub struct SqliteFiles {
    paths: DataPaths,
    data: Database,
    /// Of all databases.
    conditions: Vec<Arc<FileCondition>>,
}

impl SqliteFiles {
    /// `others`: what is known of the databases beside `data`.
    pub(super) fn new(paths: &DataPaths, data: Database, others: [Arc<FileCondition>; 2]) -> Self {
        let conditions = std::iter::once(data.condition()).chain(others).collect();
        Self {
            paths: paths.clone(),
            data,
            conditions,
        }
    }

    /// What is known of a database.
    fn condition_of(&self, path: &Path) -> Option<Arc<FileCondition>> {
        let mut conditions = self.conditions.iter();
        conditions.find(|condition| condition.path() == path).cloned()
    }
}

#[async_trait]
impl StoreFiles for SqliteFiles {
    async fn settle(&self) -> Result<()> {
        self.data.empty_wal("settle the tables").await?;
        let log = self.paths.log_db.clone();
        let condition = self.condition_of(&log);
        off_runtime(move || {
            // The log's writer has a connection of its own; any other may tend the WAL as well.
            let busy = with_connection(&log, condition.as_deref(), |log| {
                log.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
            })?;
            match busy {
                false => Ok(()),
                true => Err(StorageError::new(
                    ErrorKind::Busy,
                    format!("settle {}: it is being read; try again", log.display()),
                )),
            }
        })
        .await
    }

    async fn find(&self, bytes: Vec<u8>) -> Result<Vec<(String, u64)>> {
        let root = self.paths.root.clone();
        off_runtime(move || {
            let mut found = Vec::new();
            let mut folders = vec![root.clone()];
            while let Some(folder) = folders.pop() {
                let entries = fs::read_dir(&folder).map_err(|error| unreadable(&folder, error))?;
                for entry in entries {
                    let path = entry.map_err(|error| unreadable(&folder, error))?.path();
                    if path.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    let count = match count_in(&path, &bytes) {
                        // Side files come and go.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                        counted => counted.map_err(|error| unreadable(&path, error))?,
                    };
                    if count > 0 {
                        let name = path.strip_prefix(&root).unwrap_or(&path);
                        found.push((name.display().to_string(), count));
                    }
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }

    async fn rewrite(&self, file: &str) -> Result<()> {
        let paths = [&self.paths.data_db, &self.paths.log_db];
        let is_of = |path: &&PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| file == name || file == format!("{name}-wal"))
        };
        let Some(path) = paths.into_iter().find(is_of).cloned() else {
            let what = format!("{file} is no database that can be written anew");
            return Err(StorageError::new(ErrorKind::Invalid, what));
        };
        let condition = self.condition_of(&path);
        off_runtime(move || {
            with_connection(&path, condition.as_deref(), |database| {
                database.execute_batch("VACUUM")
            })
        })
        .await?;
        self.settle().await
    }

    async fn inspect(&self) -> Result<Vec<FileTrouble>> {
        let conditions = self.conditions.clone();
        off_runtime(move || {
            let mut troubles = Vec::new();
            for condition in conditions {
                match with_connection(condition.path(), Some(&condition), check_pages) {
                    Ok(found) => troubles.extend(found.into_iter().map(|what| FileTrouble {
                        file: condition.path().to_owned(),
                        kind: FileTroubleKind::Damaged,
                        what,
                    })),
                    Err(error) if error.kind() == ErrorKind::Damaged => troubles.extend(condition.troubles()),
                    Err(error) => return Err(error),
                }
            }
            Ok(troubles)
        })
        .await
    }

    fn troubles(&self) -> Vec<FileTrouble> {
        self.conditions
            .iter()
            .flat_map(|condition| condition.troubles())
            .collect()
    }
}

fn with_connection<T>(
    path: &Path,
    condition: Option<&FileCondition>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    condition.map_or(Ok(()), FileCondition::check)?;
    let run = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        work(&connection)
    };
    let doing = "tend a database file";
    run().map_err(|error| match condition {
        Some(condition) => condition.describe(doing, Failure::Sql(error)),
        None => Failure::Sql(error).into_error(doing, path),
    })
}

/// What SQLite finds wrong with the pages of a database.
fn check_pages(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = database.prepare(&format!("PRAGMA quick_check({FINDINGS_MAX})"))?;
    let found = check.query_map([], |row| row.get::<_, String>(0))?;
    found
        .filter(|line| !line.as_ref().is_ok_and(|line| line == "ok"))
        .collect()
}

/// How often `bytes` stand in a file.
fn count_in(path: &Path, bytes: &[u8]) -> std::io::Result<u64> {
    let Some(overlap) = bytes.len().checked_sub(1) else {
        return Ok(0);
    };
    let mut file = File::open(path)?;
    let (mut held, mut count) = (Vec::with_capacity(BLOCK + overlap), 0);
    loop {
        let before = held.len();
        let read = Read::by_ref(&mut file)
            .take(BLOCK as u64)
            .read_to_end(&mut held)?;
        if read == 0 {
            return Ok(count);
        }
        debug_assert_eq!(held.len(), before + read);
        count += held
            .windows(bytes.len())
            .filter(|window| *window == bytes)
            .count() as u64;
        let keep_from = held.len().saturating_sub(overlap);
        held.drain(..keep_from);
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> StorageError {
    StorageError::with_source(ErrorKind::Unavailable, format!("read {}", path.display()), error)
}

async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tasks::blocking("database files", work)
        .await
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "database files", error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_wherever_a_block_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut content = vec![b'.'; 2 * BLOCK + 10];
        for place in [0, BLOCK - 3, 2 * BLOCK - 1, 2 * BLOCK + 4] {
            content[place..place + 6].copy_from_slice(b"needle");
        }
        fs::write(&path, &content).unwrap();
        assert_eq!(
            count_in(&path, b"needle").unwrap(),
            3,
            "one was written over in part"
        );
        assert_eq!(count_in(&path, b"nothing").unwrap(), 0);
        assert_eq!(count_in(&path, b"").unwrap(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_written_anew_has_none_of_what_its_free_pages_held() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let clock = dwell_runtime::clock::ManualClock::at_ms(0);
        let stores = super::super::SqliteStores::open(&paths, clock.shared())
            .await
            .unwrap();
        // As a version did that left deleted rows' bytes where they were.
        with_connection(&paths.data_db, None, |database| {
            database.execute_batch(
                "PRAGMA secure_delete = OFF;
                 CREATE TABLE scratch (text TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO scratch SELECT 'needle-of-a-free-page' FROM n;
                 DROP TABLE scratch;",
            )
        })
        .unwrap();
        let files = &stores.files;
        files.settle().await.unwrap();
        let found = files.find(b"needle-of-a-free-page".to_vec()).await.unwrap();
        assert_eq!(found.len(), 1, "it is there to be found: {found:?}");
        assert!(files.rewrite("keys.db").await.is_err(), "no file of theirs");
        files.rewrite(&found[0].0).await.unwrap();
        assert_eq!(
            files.find(b"needle-of-a-free-page".to_vec()).await.unwrap(),
            vec![]
        );
    }
}
