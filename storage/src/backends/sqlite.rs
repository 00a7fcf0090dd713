//! The embedded stores: SQLite files in one data directory.
//!
//! - `log.db`: the event log. One thread appends, whatever waits shares an fsync.
//! - `data.db`: all tables, among them the raw events with their marks and the raw writer's position, which commit
//!   together.
//! - `keys.db`: keys of pseudonyms, apart so that a copy of the data does not carry them.
//!
//! Everything acknowledged has been fsynced. Who opens the stores holds the data directory's
//! [`DataDirLock`](crate::lock::DataDirLock); other tools may read the files meanwhile.

mod aggregates;
mod checkpoints;
mod condition;
mod connection;
mod documents;
mod event_log;
mod failure;
mod files;
mod imports;
mod jobs;
mod pseudonym_keys;
mod quarantine;
mod raw_events;
mod registry;
mod sessions;
mod values;
mod venue_days;

pub use aggregates::SqliteAggregates;
pub use checkpoints::SqliteCheckpoints;
pub use documents::SqliteDocuments;
pub use event_log::{AppendLimits, SqliteEventLog};
pub use files::SqliteFiles;
pub use imports::SqliteImports;
pub use jobs::SqliteJobs;
pub use pseudonym_keys::SqlitePseudonymKeys;
pub use quarantine::SqliteQuarantine;
pub use raw_events::SqliteRawEvents;
pub use registry::SqliteRegistry;
pub use sessions::SqliteSessions;
pub use venue_days::SqliteVenueDays;

use std::sync::Arc;

use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks;

use self::connection::{Database, DatabaseOptions};
use crate::api::{Archive, Stores};
use crate::error::{ErrorKind, Result, StorageError};
use crate::migrations;
use crate::paths::DataPaths;

const DATA_OPTIONS: DatabaseOptions = DatabaseOptions {
    schema: &migrations::DATA,
    writer_cache_kib: 64 * 1_024,
    reader_cache_kib: 8 * 1_024,
    checkpoint_pages: 8_192,
    readers: 4,
    // What an erasure or a sweep deletes shall not stay readable in the file.
    secure_delete: true,
};

/// The embedded stores of one data directory, all but the archive.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct SqliteStores {
    pub log: Arc<SqliteEventLog>,
    pub raw: Arc<SqliteRawEvents>,
    pub sessions: Arc<SqliteSessions>,
    pub aggregates: Arc<SqliteAggregates>,
    pub venue_days: Arc<SqliteVenueDays>,
    pub checkpoints: Arc<SqliteCheckpoints>,
    pub jobs: Arc<SqliteJobs>,
    pub quarantine: Arc<SqliteQuarantine>,
    pub registry: Arc<SqliteRegistry>,
    pub pseudonym_keys: Arc<SqlitePseudonymKeys>,
    pub imports: Arc<SqliteImports>,
    pub documents: Arc<SqliteDocuments>,
    pub files: Arc<SqliteFiles>,
}

impl SqliteStores {
    /// Opens the stores of a data directory, making what is missing. The caller holds the directory's lock.
    pub async fn open(paths: &DataPaths, clock: SharedClock) -> Result<Self> {
        let paths = paths.clone();
        let opening = tasks::blocking("open stores", move || Self::open_blocking(&paths, clock)).await;
        opening.map_err(|error| StorageError::with_source(ErrorKind::Bug, "open the stores", error))?
    }

    /// [`open`](Self::open) on this thread.
    pub fn open_blocking(paths: &DataPaths, clock: SharedClock) -> Result<Self> {
        paths.create()?;
        let data = Database::open(&paths.data_db, DATA_OPTIONS)?;
        let log = SqliteEventLog::open(&paths.log_db, AppendLimits::default(), SharedClock::clone(&clock))?;
        let keys = SqlitePseudonymKeys::open(&paths.keys_db)?;
        let others = [log.condition(), keys.condition()];
        Ok(Self {
            log: Arc::new(log),
            raw: Arc::new(SqliteRawEvents::new(data.clone(), clock)),
            sessions: Arc::new(SqliteSessions::new(data.clone())),
            aggregates: Arc::new(SqliteAggregates::new(data.clone())),
            venue_days: Arc::new(SqliteVenueDays::new(data.clone())),
            checkpoints: Arc::new(SqliteCheckpoints::new(data.clone())),
            jobs: Arc::new(SqliteJobs::new(data.clone())),
            quarantine: Arc::new(SqliteQuarantine::new(data.clone())),
            registry: Arc::new(SqliteRegistry::new(data.clone())),
            pseudonym_keys: Arc::new(keys),
            imports: Arc::new(SqliteImports::new(data.clone())),
            documents: Arc::new(SqliteDocuments::new(data.clone())),
            files: Arc::new(SqliteFiles::new(paths, data, others)),
        })
    }

    /// These stores and an archive, as the roles get them.
    pub fn with_archive(self, archive: Arc<dyn Archive>) -> Stores {
        Stores {
            log: self.log,
            raw: self.raw,
            sessions: self.sessions,
            aggregates: self.aggregates,
            venue_days: self.venue_days,
            checkpoints: self.checkpoints,
            jobs: self.jobs,
            quarantine: self.quarantine,
            registry: self.registry,
            pseudonym_keys: self.pseudonym_keys,
            imports: self.imports,
            documents: self.documents,
            erasures: archive.erasures(),
            files: Some(self.files),
            archive,
            live: None,
        }
    }
}
