//! The embedded stores: the conformance suite, and what it cannot ask of every backend: crashes, reopening, damage,
//! full queues, keys that leave no trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking"
)]

mod conformance;
mod crash;
mod decorators;
mod event_log;
mod files;
mod keys;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_runtime::clock::ManualClock;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::conformance::samples::DAY_START;
use dwell_storage::paths::DataPaths;
use tempfile::TempDir;

/// Fresh data directories, gone with it.
struct Directories {
    root: TempDir,
    made: AtomicUsize,
}

impl Directories {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            made: AtomicUsize::new(0),
        }
    }

    fn fresh(&self) -> PathBuf {
        self.root
            .path()
            .join(self.made.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Stores in a fresh directory, with their clock.
    async fn fresh_stores(&self) -> (SqliteStores, ManualClock) {
        let clock = ManualClock::at_ms(DAY_START);
        let stores = SqliteStores::open(&DataPaths::new(self.fresh()), clock.shared())
            .await
            .unwrap();
        (stores, clock)
    }
}

async fn open(dir: &Path) -> SqliteStores {
    SqliteStores::open(&DataPaths::new(dir), ManualClock::at_ms(DAY_START).shared())
        .await
        .unwrap()
}
