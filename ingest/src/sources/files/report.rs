//! What an import did, for people and scripts.

use dwell_model::ids::Receipt;
use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// All of it is taken, the refused rows apart.
    Imported,
    /// Its content was imported before: nothing was done.
    AlreadyImported,
    /// It could not be read to its end: what came before stays taken, and the file can be imported again.
    Failed,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// As given, or as found in a folder.
    pub path: String,
    /// What became of it.
    pub state: FileState,
    /// What its events name as their lineage; absent when it could not be read at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
    /// Events accepted, redeliveries included. For a file imported before: then.
    pub accepted: u64,
    /// Rows or events refused.
    pub refused: u64,
    /// Why it failed, and the first refusals as `file:line: reason`.
    pub errors: Vec<String>,
}

/// The whole import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// When it began: the time of receipt of the events of files that were not claimed before.
    pub started_at: TsMs,
    /// The files in the order in which they were read.
    pub files: Vec<FileReport>,
    /// Files of folders whose names tell no format.
    pub skipped: Vec<String>,
    /// Events accepted by this import.
    pub accepted: u64,
    /// Rows or events refused by this import.
    pub refused: u64,
    /// Events that went through the log.
    pub logged: u64,
    /// Venue-days of the archive that were written.
    pub days_changed: u64,
    /// Venue-days that held everything already.
    pub days_unchanged: u64,
}

impl ImportReport {
    /// Whether every file is imported, now or before.
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(|file| file.state != FileState::Failed)
    }

    /// Sums up the files.
    pub(super) fn add_up(&mut self) {
        let new = || {
            self.files
                .iter()
                .filter(|file| file.state != FileState::AlreadyImported)
        };
        self.accepted = new().map(|file| file.accepted).sum();
        self.refused = new().map(|file| file.refused).sum();
    }
}
