//! One database file: a writer connection behind an asynchronous lock, a few reading connections.
//!
//! SQLite allows one writer at a time, so there is one and callers queue for it in order, without holding a thread.
//! The work itself runs on threads meant for blocking. Readers see the last commit (WAL) and never wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dwell_runtime::tasks;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use super::condition::{FileCondition, flush_left_over};
use super::failure::{Failure, damaged, describe_sql};
use crate::error::{ErrorKind, Result, StorageError};
use crate::migrations::{self, MigrationError, Schema};

/// How long a statement waits for a lock of another process, a backup tool's say.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept per connection; there are fewer different ones than this.
const STATEMENTS_KEPT: usize = 128;

/// How a database file is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatabaseOptions {
    pub(super) schema: &'static Schema,
    /// Page cache of the writer, in KiB.
    pub(super) writer_cache_kib: i64,
    /// Page cache of each reader, in KiB.
    pub(super) reader_cache_kib: i64,
    /// The WAL is copied into the database after so many pages. Each page is copied once, however often it was written
    /// since, so a larger number saves writes and costs disk.
    pub(super) checkpoint_pages: i64,
    /// Readers at a time; further ones wait.
    pub(super) readers: usize,
    /// Overwrite what is deleted.
    pub(super) secure_delete: bool,
}

/// Bytes of a page. Larger than the default: rows are written and read in runs.
const PAGE_BYTES: i64 = 8_192;

/// An open database file. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Database {
    writer: Arc<tokio::sync::Mutex<Connection>>,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    condition: Arc<FileCondition>,
    options: DatabaseOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens a database file, making it or bringing its schema up to date first. Blocking.
    pub(super) fn open(path: &Path, options: DatabaseOptions) -> Result<Self> {
        flush_left_over(path)?;
        let condition = FileCondition::new(path);
        let writer = open_writer(path, &options, &condition)?;
        Ok(Self {
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            readers: Readers::new(condition, options),
        })
    }

    /// What is known of the file.
    pub(super) fn condition(&self) -> Arc<FileCondition> {
        Arc::clone(&self.readers.condition)
    }

    /// Runs `work` in a transaction that is durable when this returns; an error undoes all of it. A caller that goes
    /// away in the meantime does not stop it.
    pub(super) async fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let readers = Arc::clone(&self.readers);
        run_blocking(doing, move || {
            let condition = &readers.condition;
            condition.check()?;
            in_transaction(&writer, TransactionBehavior::Immediate, work)
                .map_err(|failure| condition.describe(doing, failure))
        })
        .await
    }

    /// Runs `work` on one consistent state of the database.
    pub(super) async fn read<T, F>(&self, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        Arc::clone(&self.readers).read(doing, work).await
    }

    /// Copies the WAL into the database and empties it, so that no older state of a page is left on disk.
    pub(super) async fn empty_wal(&self, doing: &'static str) -> Result<()> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let readers = Arc::clone(&self.readers);
        run_blocking(doing, move || {
            let busy: Result<bool, _> =
                writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
            match busy {
                Ok(false) => Ok(()),
                Ok(true) => Err(StorageError::new(
                    ErrorKind::Busy,
                    format!(
                        "{doing}: {} is being read by another process; try again",
                        readers.path.display()
                    ),
                )),
                Err(error) => Err(readers.condition.describe(doing, Failure::Sql(error))),
            }
        })
        .await
    }
}

/// Reading connections alone, for a file whose writer lives elsewhere.
#[derive(Debug, Clone)]
pub(super) struct ReadOnly(Arc<Readers>);

impl ReadOnly {
    /// Readers of a file that [`open_writer`] has opened.
    pub(super) fn new(condition: Arc<FileCondition>, options: DatabaseOptions) -> Self {
        Self(Readers::new(condition, options))
    }

    /// What is known of the file.
    pub(super) fn condition(&self) -> Arc<FileCondition> {
        Arc::clone(&self.0.condition)
    }

    /// See [`Database::read`].
    pub(super) async fn read<T, F>(&self, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        Arc::clone(&self.0).read(doing, work).await
    }
}

impl Readers {
    fn new(condition: Arc<FileCondition>, options: DatabaseOptions) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(options.readers));
        Arc::new(Self {
            path: condition.path().to_owned(),
            condition,
            options,
            permits,
            idle: Mutex::new(Vec::new()),
        })
    }

    async fn read<T, F>(self: Arc<Self>, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|closed| StorageError::with_source(ErrorKind::Bug, doing, closed))?;
        run_blocking(doing, move || {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => open_reader(&self.path, &self.options)?,
            };
            let outcome = in_transaction(&connection, TransactionBehavior::Deferred, work);
            // Not reached by a panic: a connection in an unknown state is closed.
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            drop(permit);
            outcome.map_err(|failure| self.condition.describe(doing, failure))
        })
        .await
    }
}

/// Opens a file for writing, making it or bringing its schema up to date first. Blocking.
pub(super) fn open_writer(
    path: &Path,
    options: &DatabaseOptions,
    condition: &Arc<FileCondition>,
) -> Result<Connection> {
    let doing = format!("open the {} {}", options.schema.name, path.display());
    create_private(path).map_err(|error| {
        let doing = format!("{doing}: check the path and its permissions");
        StorageError::with_source(ErrorKind::Unavailable, doing, error)
    })?;
    let sql_failure = |error| describe_sql(error, &doing);
    let mut connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql_failure)?;
    let mut prepare = || -> rusqlite::Result<()> {
        // Only a new file takes its page size from here.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -options.writer_cache_kib)?;
        checkpoint_after(&mut connection, options.checkpoint_pages, Arc::clone(condition))?;
        // A WAL that had to grow beside a long read is cut back to this afterwards.
        let wal_bytes = options.checkpoint_pages * PAGE_BYTES * 2;
        connection.pragma_update_and_check(None, "journal_size_limit", wal_bytes, |_| Ok(()))?;
        let secure = if options.secure_delete { "ON" } else { "OFF" };
        connection.pragma_update_and_check(None, "secure_delete", secure, |_| Ok(()))
    };
    prepare().map_err(sql_failure)?;
    migrations::migrate(&mut connection, options.schema).map_err(|error| match error {
        MigrationError::Sql(error) => describe_sql(error, &doing),
        refused => damaged(&doing, refused),
    })?;
    Ok(connection)
}

/// Copies the WAL into the database whenever a commit leaves it longer than so many pages: SQLite's own way of doing so
/// keeps to itself that a flush has failed. Any other failure is made good by a later checkpoint.
fn checkpoint_after(
    connection: &mut Connection,
    pages_max: i64,
    condition: Arc<FileCondition>,
) -> rusqlite::Result<()> {
    let checkpoint = move |wal: &mut Wal, pages: std::ffi::c_int| {
        if i64::from(pages) >= pages_max
            && condition.check().is_ok()
            && let Err(error) = wal.checkpoint()
        {
            condition.note(&error);
            tracing::debug!(file = %condition.path().display(), %error, "the WAL was not copied into the database");
        }
        // What was committed is: it lies flushed in the WAL.
        Ok(())
    };
    connection.wal_hook(Some(checkpoint))
}

fn open_reader(path: &Path, options: &DatabaseOptions) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        // Not read-only: the last reader of a WAL database must be able to tend its shared memory file.
        let connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -options.reader_cache_kib)?;
        Ok(connection)
    };
    open().map_err(|error| describe_sql(error, &format!("open {} for reading", path.display())))
}

fn open_connection(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // No mutex inside SQLite: a connection is only ever used by one thread at a time here.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read; SQLite gives its side files the same permissions.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn in_transaction<T>(
    connection: &Connection,
    behavior: TransactionBehavior,
    work: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // Rolled back when it is dropped without having been committed.
    let transaction = Transaction::new_unchecked(connection, behavior)?;
    let outcome = work(&transaction)?;
    transaction.commit()?;
    Ok(outcome)
}

async fn run_blocking<T, F>(doing: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tasks::blocking(doing, work).await {
        Ok(outcome) => outcome,
        Err(error @ tasks::BlockingError::Panicked { .. }) => {
            Err(StorageError::with_source(ErrorKind::Bug, doing, error))
        }
        Err(error @ tasks::BlockingError::Cancelled { .. }) => {
            Err(StorageError::with_source(ErrorKind::Unavailable, doing, error))
        }
    }
}
