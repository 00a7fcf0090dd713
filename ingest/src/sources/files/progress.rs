//! How far an import is, for a progress bar.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::expansion::BytesRead;

/// What an import is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImportPhase {
    /// Looking at the files.
    #[default]
    Hashing,
    /// Reading rows.
    Reading,
    /// Writing venue-days of the archive.
    Writing,
    /// Nothing any more.
    Done,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportState {
    /// What it is doing.
    pub phase: ImportPhase,
    /// Bytes of the files read in this phase.
    pub bytes_done: u64,
    /// Bytes to read in this phase.
    pub bytes_total: u64,
    /// Events found so far, refused ones included.
    pub rows: u64,
    /// Venue-days written or found unchanged.
    pub days_done: u64,
    /// Venue-days to write.
    pub days_total: u64,
}

/// Is told how far an import is: often, from any thread, never twice at once. It should return quickly.
pub trait ImportProgress: Send + Sync {
    /// The state now.
    fn update(&self, state: &ImportState);
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ImportProgress for NoProgress {
    fn update(&self, _: &ImportState) {}
}

/// Keeps the state and tells it.
pub(super) struct Tracker {
    progress: Arc<dyn ImportProgress>,
    state: Mutex<ImportState>,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Tracker {
    /// Nothing done yet.
    pub(super) fn new(progress: Arc<dyn ImportProgress>) -> Self {
        Self {
            progress,
            state: Mutex::default(),
        }
    }

    /// Begins a phase of so many bytes or days.
    pub(super) fn begin(&self, phase: ImportPhase, bytes_total: u64, days_total: u64) {
        self.change(|state| {
            let rows = state.rows;
            *state = ImportState {
                phase,
                bytes_total,
                days_total,
                rows,
                ..ImportState::default()
            };
        });
    }

    /// Bytes were read.
    pub(super) fn bytes(&self, bytes: u64) {
        self.change(|state| state.bytes_done += bytes);
    }

    /// A venue-day was dealt with.
    pub(super) fn day(&self) {
        self.change(|state| state.days_done += 1);
    }

    /// The end.
    pub(super) fn done(&self) {
        self.change(|state| state.phase = ImportPhase::Done);
    }

    fn change(&self, change: impl FnOnce(&mut ImportState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.progress.update(&state);
    }
}

/// Progress within one file.
#[derive(Debug)]
pub(super) struct FileProgress<'a> {
    tracker: &'a Tracker,
    read: BytesRead,
    file_bytes: u64,
    bytes_told: u64,
    rows_told: u64,
}

impl<'a> FileProgress<'a> {
    /// At the beginning of a file whose reads are counted in `read`.
    pub(super) fn new(tracker: &'a Tracker, read: BytesRead, file_bytes: u64) -> Self {
        Self {
            tracker,
            read,
            file_bytes,
            bytes_told: 0,
            rows_told: 0,
        }
    }

    /// So many events were found by now; what was read of the file tells how far it is.
    pub(super) fn read(&mut self, rows: u64) {
        self.tell(self.read.get(), rows);
    }

    /// The same where rows tell how far the file is read.
    pub(super) fn read_share(&mut self, rows_done: u64, rows_total: u64, rows: u64) {
        let share = rows_done as f64 / rows_total.max(1) as f64;
        self.tell((self.file_bytes as f64 * share) as u64, rows);
    }

    /// The file is done with.
    pub(super) fn end(&mut self) {
        self.tell(self.file_bytes, self.rows_told);
    }

    fn tell(&mut self, bytes: u64, rows: u64) {
        // Headers and trailers may be read twice.
        let bytes = bytes.clamp(self.bytes_told, self.file_bytes.max(self.bytes_told));
        let (more_bytes, more_rows) = (bytes - self.bytes_told, rows - self.rows_told);
        (self.bytes_told, self.rows_told) = (bytes, rows);
        self.tracker.change(|state| {
            state.bytes_done += more_bytes;
            state.rows += more_rows;
        });
    }
}
