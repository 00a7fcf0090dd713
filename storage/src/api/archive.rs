//! The archive: all events for ever, as Parquet in a Delta table per tenant and kind, partitioned by venue and day.
//!
//! A venue-day's events of one kind are its *winners* (the payloads that count, each with its first delivery) in one
//! dataset and everything else that was delivered in the dataset *superseded*; the union of both is what raw held.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::event::{Checksum, Delivery, EventBatch, Kind, RawRows};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::{Erasures, Generation};
use crate::error::{ErrorKind, Result, StorageError};

/// A data file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArchiveFile {
    /// Kind of its events.
    pub kind: Kind,
    /// Which dataset it belongs to.
    pub dataset: Dataset,
    /// Path below the dataset's folder, as in its Delta log.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// Over identities and payloads (winners), or identities, payloads and deliveries (superseded).
    pub checksum: Checksum,
}

/// The two datasets of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// What counts.
    Events,
    /// Further deliveries and covered payloads, a row each. It only grows (erasure apart), since it is committed
    /// before the events: a covered payload that counts again stays in it too, so readers take the union.
    Superseded,
}

/// What the archive holds of a venue-day's events of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchivedDay {
    /// Files of the winners.
    pub events: Vec<ArchiveFile>,
    /// Files of what was superseded.
    pub superseded: Vec<ArchiveFile>,
    /// Over identities, payloads and deliveries of both datasets; two days with equal ones hold the same. A delivery
    /// that stands in both (see [`Dataset::Superseded`]) counts twice.
    pub deliveries: Checksum,
}

impl ArchivedDay {
    /// Whether nothing is archived.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.superseded.is_empty()
    }

    /// Checksum over the winners.
    pub fn events_checksum(&self) -> Checksum {
        let mut sum = Checksum::default();
        self.events.iter().for_each(|file| sum.merge(file.checksum));
        sum
    }
}

/// Which columns a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// What folds need: identity and payload.
    Events,
    /// That and the deliveries.
    EventsAndDeliveries,
    /// Identities and deliveries, for looking something up: payloads are not read and stand as absent.
    IdentitiesAndDeliveries,
}

impl Projection {
    /// Whether the deliveries are read.
    pub fn has_deliveries(self) -> bool {
        self != Projection::Events
    }
}

/// Reads an archived day's winners chunk by chunk, in the order (key, ts, sensor). Blocking: call it off the runtime.
pub trait DayReader: Send {
    /// The next chunk, some ten thousand events; `None` at the end. All chunks share one growing dictionary, so that a
    /// name keeps its number. `first` is empty under [`Projection::Events`].
    fn next_chunk(&mut self) -> Result<Option<DayChunk<'_>>>;
}

/// A chunk of an archived day.
#[derive(Debug)]
pub struct DayChunk<'a> {
    /// The events; the reader's buffer, filled anew by the next call.
    pub events: &'a EventBatch,
    /// First delivery of each.
    pub first: &'a [Delivery],
}

/// A day written beside the archive, not yet part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedDay {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// Kind of the events.
    pub kind: Kind,
    /// Fence of the lease under which it was written.
    pub fence: Generation,
    /// What the archive held when the day was read: the commit is conditional on it.
    pub replaces: ArchivedDay,
    /// What it is to hold; verified by reading back.
    pub holds: ArchivedDay,
}

/// Outcome of rewriting a day.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Rewrite {
    /// The archive holds all of it already.
    Unchanged(ArchivedDay),
    /// New files are written and verified, waiting for [`ArchiveWriter::commit`].
    Staged(StagedDay),
}

/// What became of a staged day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// It is part of the archive.
    Yes,
    /// Its files were no longer those that were read, or its fence was lost: read and write again.
    Stale,
}

/// Events of one kind and venue on their way into the archive: a row per delivery, which names its delivery by number.
///
/// An event delivered twice stands in two rows. Most rows of a batch share a few deliveries, so this takes 4 bytes
/// a row where [`RawRows`] takes 36.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveredRows {
    /// The events.
    pub events: EventBatch,
    /// For each row the number of its delivery in `deliveries`.
    pub delivery: Vec<u32>,
    /// The deliveries; one may stand here twice.
    pub deliveries: Vec<Delivery>,
}

impl DeliveredRows {
    /// No rows.
    pub fn new(kind: Kind) -> Self {
        Self {
            events: EventBatch::new(kind),
            delivery: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    /// All events of a batch, brought by one delivery.
    pub fn delivered_once(events: EventBatch, delivery: Delivery) -> Self {
        Self {
            delivery: vec![0; events.len()],
            deliveries: vec![delivery],
            events,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.delivery.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.delivery.is_empty()
    }

    /// Delivery of a row.
    pub fn delivery(&self, row: usize) -> Delivery {
        self.deliveries[self.delivery[row] as usize]
    }

    /// Appends rows of the same kind.
    pub fn append(&mut self, other: &DeliveredRows) {
        self.events.append(&other.events);
        let base = self.deliveries.len() as u32;
        self.deliveries.extend_from_slice(&other.deliveries);
        self.delivery
            .extend(other.delivery.iter().map(|number| number + base));
    }

    /// Checks the batch and that every row's delivery is there; `Invalid` when not.
    pub fn check(&self) -> Result<()> {
        let refuse = |source| StorageError::with_source(ErrorKind::Invalid, "rows for the archive", source);
        self.events.check().map_err(refuse)?;
        let known = self.deliveries.len() as u32;
        if self.delivery.len() == self.events.len() && self.delivery.iter().all(|&number| number < known) {
            Ok(())
        } else {
            Err(StorageError::new(
                ErrorKind::Invalid,
                "rows for the archive: rows and deliveries do not match",
            ))
        }
    }
}

/// Rows of a raw table: an event with several deliveries becomes as many rows.
impl From<RawRows> for DeliveredRows {
    fn from(raw: RawRows) -> Self {
        let RawRows {
            events,
            deliveries,
            ends,
        } = raw;
        if ends.len() == deliveries.len() {
            return Self {
                delivery: (0..ends.len() as u32).collect(),
                deliveries,
                events,
            };
        }
        let mut rows = Vec::with_capacity(deliveries.len());
        let mut start = 0;
        for (row, &end) in ends.iter().enumerate() {
            rows.extend((start..end).map(|_| row as u32));
            start = end;
        }
        Self {
            events: events.take(&rows),
            delivery: (0..deliveries.len() as u32).collect(),
            deliveries,
        }
    }
}

/// Rows on their way into a day of the archive; may be larger than memory.
///
/// [`DeliveredRows`] is one for a day that is held in memory; the archive's sorter gives days of any size.
pub trait IncomingDay: Send {
    /// Rows that [`next_part`](Self::next_part) has yet to give.
    fn remaining(&self) -> u64;

    /// The next part, `None` at the end. Each part fits in memory. Parts follow each other in the order (key, ts),
    /// names compared as bytes, and no (key, ts) stands in two of them; within a part any order and any repetition.
    /// Blocking.
    fn next_part(&mut self) -> Result<Option<DeliveredRows>>;
}

/// A day held in memory: one part.
impl IncomingDay for DeliveredRows {
    fn remaining(&self) -> u64 {
        self.len() as u64
    }

    fn next_part(&mut self) -> Result<Option<DeliveredRows>> {
        if self.is_empty() {
            return Ok(None);
        }
        let kind = self.events.kind;
        Ok(Some(std::mem::replace(self, DeliveredRows::new(kind))))
    }
}

/// Writing the archive.
#[async_trait]
pub trait ArchiveWriter: Send + Sync {
    /// Unites rows with what the archive holds of a day, leaves out whom the ledger of erasures names as of this call,
    /// resolves winners (nothing excluded), and writes the result as new files, verified by reading them back; or finds
    /// that nothing changes. Nothing is visible before [`commit`](Self::commit). Called without rows it rewrites what is
    /// archived, where erasures ask for that.
    async fn rewrite_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
    ) -> Result<Rewrite>;

    /// Writes rows as all that a day is to hold: the files that it has are not read, and go with the
    /// [`commit`](Self::commit). For a day that is cut anew from its former neighbours' rows, which need not be there: a
    /// day without rows is to hold nothing. Otherwise as [`rewrite_day`](Self::rewrite_day): whom the ledger of erasures
    /// names is left out, winners are resolved, files are verified by reading back, nothing is visible before the commit.
    async fn replace_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
    ) -> Result<StagedDay>;

    /// Makes staged days of one tenant part of the archive: superseded rows first, then the events of all days of a
    /// kind in one atomic commit. A day whose files are no longer those that were read is left out. `still_held` is
    /// asked before each try which days' fences are still held.
    async fn commit(
        &self,
        staged: Vec<StagedDay>,
        still_held: &(dyn StillHeld + '_),
    ) -> Result<Vec<Committed>>;

    /// Removes the files of staged days that were not committed.
    async fn discard(&self, staged: Vec<StagedDay>) -> Result<()>;

    /// Removes every file of a day that is no part of the archive, at once, whoever may still want it: replaced ones,
    /// and what was staged and never committed. For erasures, under the day's lease; a reader of such a file fails.
    /// Returns how many files of what size.
    async fn purge_day(&self, venue: &VenueKey, kind: Kind, day: LocalDay) -> Result<PurgedFiles>;
}

/// Files that were removed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PurgedFiles {
    /// How many.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// Tells whether a day's fence is still the highest.
#[async_trait]
pub trait StillHeld: Send + Sync {
    /// Whether the staged day may be committed.
    async fn still_held(&self, day: &StagedDay) -> Result<bool>;
}

/// Reading the archive.
#[async_trait]
pub trait ArchiveReader: Send + Sync {
    /// What the archive holds of a day.
    async fn day(&self, venue: &VenueKey, kind: Kind, day: LocalDay) -> Result<ArchivedDay>;

    /// The days of a venue that the archive holds, per kind, ascending by day.
    async fn days(&self, venue: &VenueKey) -> Result<Vec<(LocalDay, Kind)>>;

    /// Opens the winners of a day for reading.
    async fn open(
        &self,
        venue: &VenueKey,
        day: &ArchivedDay,
        projection: Projection,
    ) -> Result<Box<dyn DayReader>>;

    /// The superseded rows of a day, each with its deliveries.
    async fn superseded(&self, venue: &VenueKey, kind: Kind, day: &ArchivedDay) -> Result<RawRows>;

    /// Re-reads a day's files: counts and checksums. `Damaged` names the file.
    async fn verify(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<()>;

    /// The ledger of erasures, which lies beside the tables.
    fn erasures(&self) -> Arc<dyn Erasures>;

    /// Tenants and kinds that have a table.
    async fn tables(&self) -> Result<Vec<(TenantId, Kind)>>;
}

/// A data file that no table names any more, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnnamedFile {
    /// Kind of its events.
    pub kind: Kind,
    /// Which dataset it lies in.
    pub dataset: Dataset,
    /// Path below the dataset's folder, as in [`ArchiveFile::path`].
    pub path: String,
    /// Size.
    pub bytes: u64,
}

/// Where the history of a table stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableVersion {
    /// Kind of its events.
    pub kind: Kind,
    /// Which dataset.
    pub dataset: Dataset,
    /// Number of its last commit.
    pub version: u64,
    /// Files that it names.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// Keeping the archive in bounds.
#[async_trait]
pub trait ArchiveKeeper: Send + Sync {
    /// Data files of a tenant that no table names, that were written before `older_than` and that no table has named
    /// since then: replaced ones, and what was staged but never committed. Ascending.
    async fn unnamed_files(&self, tenant: &TenantId, older_than: TsMs) -> Result<Vec<UnnamedFile>>;

    /// Removes such files for good; one that its table names by now is left. Returns those that are gone, whoever
    /// removed them. A file that is being staged is named by nothing yet: removing it makes its day stale in its commit
    /// or, when another process commits at that moment, name a file that is not there, so take only what
    /// [`unnamed_files`](Self::unnamed_files) gave for an age of days, or what your own commit has replaced.
    async fn remove_unnamed(&self, tenant: &TenantId, files: &[UnnamedFile]) -> Result<Vec<UnnamedFile>>;

    /// Where the tables of a tenant stand. Each is read for itself, in the order in which rows are committed: superseded
    /// ones of a kind before its events.
    async fn versions(&self, tenant: &TenantId) -> Result<Vec<TableVersion>>;
}

/// A file that cannot be read as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenFile {
    /// The file, as the table's log has it.
    pub file: ArchiveFile,
    /// What is wrong with it, its name included.
    pub problem: String,
}

/// Outcome of writing a damaged day anew.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Rebuilt {
    /// New files hold exactly what the broken ones held, waiting for [`ArchiveWriter::commit`].
    Staged(StagedDay),
    /// What there is gives other rows than those recorded. Nothing is staged.
    NotAsRecorded {
        /// Winners as the log has them.
        recorded: Checksum,
        /// Winners as they came out.
        found: Checksum,
    },
}

/// Repairing the archive.
#[async_trait]
pub trait ArchiveRepair: Send + Sync {
    /// Re-reads a day's files; those that are missing, or not what was committed, with what is wrong.
    async fn broken_files(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<Vec<BrokenFile>>;

    /// Unites rows with those of a day's files that are not broken, and writes the result as new files, as
    /// [`ArchiveWriter::rewrite_day`] does; staged only if counts and checksums, over winners and over deliveries, are
    /// those recorded of all its files.
    async fn rebuild_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
        broken: &[BrokenFile],
    ) -> Result<Rebuilt>;
}

/// The archive.
pub trait Archive: ArchiveWriter + ArchiveReader + ArchiveKeeper + ArchiveRepair {}

impl<T: ArchiveWriter + ArchiveReader + ArchiveKeeper + ArchiveRepair> Archive for T {}
