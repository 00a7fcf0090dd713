//! The archive as Delta tables: the implementation of the archive's traits.

use std::collections::{HashMap, HashSet};
use std::path::Path as LocalPath;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dwell_model::event::{Checksum, Kind, RawRows};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks::{BlockingError, blocking};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use super::day_files::{FileRows, FooterFacts, hash_file, read_footer};
use super::day_reader::ArchivedDayReader;
use super::durable::DurableLocal;
use super::files::{DataFiles, store_failed};
use super::layout::{TableName, day_folder};
use super::rebuild::check;
use super::rewrite::{DayRewrite, file_name};
use super::table_log::{ActiveFile, NewFile, TableLog, Tried};
use crate::api::{
    ArchiveFile, ArchiveReader, ArchiveWriter, ArchivedDay, Committed, Dataset, DayReader, DeliveredRows,
    Erasures, Generation, IncomingDay, Projection, PurgedFiles, Rewrite, StagedDay, StillHeld,
};
use crate::erasure::LedgerFollower;
use crate::erasure::ledger::ObjectLedger;
use crate::error::{ErrorKind, Result, StorageError};

/// Rows of one source that a rewrite holds at once; a day of up to twice as many is united in one go.
const STRETCH_ROWS: usize = 1 << 20;
/// Tries of a commit before giving up: each means that somebody else's commit went through.
const COMMIT_TRIES: usize = 100;
/// Files that a commit looks at beside each other.
const LOOKS: usize = 16;

/// The archive on an object store: a Delta table per tenant, kind and dataset.
#[derive(Debug, Clone)]
pub struct DeltaArchive {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    files: DataFiles,
    /// The archive's folder on the store.
    folder: Path,
    clock: SharedClock,
    tables: Mutex<HashMap<TableName, Table>>,
    stretch_rows: usize,
    /// Whom to forget; lies beside the tables.
    erasures: LedgerFollower,
}

pub(super) type Table = Arc<tokio::sync::Mutex<TableLog>>;

impl DeltaArchive {
    /// The archive in a local folder, which must be there. Writes survive a power cut.
    pub fn local(folder: &LocalPath, clock: SharedClock) -> Result<Self> {
        let store = DurableLocal::new(folder).map_err(|error| {
            StorageError::with_source(
                ErrorKind::Unavailable,
                format!("open the archive {}", folder.display()),
                error,
            )
        })?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let files = DataFiles::new(Arc::clone(&store), Some(folder.to_owned()));
        Ok(Self::with_files(store, files, Path::default(), clock))
    }

    /// The archive below `folder` of any store that has conditional puts.
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path, clock: SharedClock) -> Self {
        let files = DataFiles::new(Arc::clone(&store), None);
        Self::with_files(store, files, folder, clock)
    }

    /// Its data files.
    pub(super) fn data_files(&self) -> &DataFiles {
        &self.inner.files
    }

    /// The store, and the archive's folder in it.
    pub(super) fn location(&self) -> (&dyn ObjectStore, &Path) {
        (&*self.inner.store, &self.inner.folder)
    }

    fn with_files(store: Arc<dyn ObjectStore>, files: DataFiles, folder: Path, clock: SharedClock) -> Self {
        let tables = Mutex::default();
        let erasures = follow_ledger(&store, &folder);
        Self {
            inner: Arc::new(Inner {
                store,
                files,
                folder,
                clock,
                tables,
                stretch_rows: STRETCH_ROWS,
                erasures,
            }),
        }
    }

    /// The same archive, holding fewer rows at once: for tests of what days larger than memory go through.
    #[doc(hidden)]
    pub fn with_stretch_rows(&self, stretch_rows: usize) -> Self {
        let Inner {
            store,
            files,
            folder,
            clock,
            ..
        } = &*self.inner;
        let inner = Inner {
            store: Arc::clone(store),
            files: files.clone(),
            folder: folder.clone(),
            clock: Arc::clone(clock),
            tables: Mutex::default(),
            stretch_rows,
            erasures: follow_ledger(store, folder),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn table(&self, name: &TableName) -> Result<Table> {
        let mut tables = self.inner.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(Arc::clone(table));
        }
        let Inner {
            store, folder, clock, ..
        } = &*self.inner;
        let log = TableLog::new(name.clone(), store, folder, Arc::clone(clock))?;
        let table = Arc::new(tokio::sync::Mutex::new(log));
        tables.insert(name.clone(), Arc::clone(&table));
        Ok(table)
    }

    pub(super) async fn tables_of(&self, tenant: &TenantId) -> Result<Vec<TableName>> {
        let folder = self.inner.folder.clone().join(tenant.as_str());
        let mut tables = Vec::new();
        for name in self.folders(&folder).await? {
            if let Some(table) = TableName::from_folder(tenant, &name)
                && self.table(&table)?.lock().await.refresh().await?
            {
                tables.push(table);
            }
        }
        Ok(tables)
    }

    /// Names of the folders below a folder, sorted.
    async fn folders(&self, folder: &Path) -> Result<Vec<String>> {
        let listed = self.inner.store.list_with_delimiter(Some(folder)).await;
        let listed = match listed {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(|error| store_failed("list", folder, error))?,
        };
        let mut names: Vec<_> = listed
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The active files of a day in one dataset, with their checksums and that over their deliveries.
    async fn files_of(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        dataset: Dataset,
    ) -> Result<(Vec<ArchiveFile>, Checksum)> {
        let name = TableName::new(&venue.tenant, kind, dataset);
        let active = {
            let table = self.table(&name)?;
            let mut table = table.lock().await;
            if table.refresh().await? {
                table.day(&venue.venue, day)
            } else {
                Vec::new()
            }
        };
        let mut files = Vec::with_capacity(active.len());
        let mut deliveries = Checksum::default();
        for file in active {
            let ActiveFile {
                path, bytes, rows, ..
            } = &file;
            let (in_events, in_deliveries) = match (file.events, file.deliveries) {
                (Some(events), Some(deliveries)) => (events, deliveries),
                _ => {
                    let sums = self.footer(&name, path).await?.sums;
                    (sums.events, sums.deliveries)
                }
            };
            deliveries.merge(in_deliveries);
            let checksum = match dataset {
                Dataset::Events => in_events,
                Dataset::Superseded => in_deliveries,
            };
            files.push(ArchiveFile {
                kind,
                dataset,
                path: path.clone(),
                rows: *rows,
                bytes: *bytes,
                checksum,
            });
        }
        Ok((files, deliveries))
    }

    async fn footer(&self, table: &TableName, path: &str) -> Result<FooterFacts> {
        let inner = Arc::clone(&self.inner);
        let (kind, name) = (table.kind, file_name(&inner.folder, table, path));
        let runtime = Handle::current();
        off_runtime("archive footer", move || {
            read_footer(&inner.files, &name, kind, &runtime)
        })
        .await
    }

    /// What the log is to tell of a new file.
    pub(super) async fn facts(&self, table: &TableName, path: &str) -> Result<(FooterFacts, u64)> {
        let inner = Arc::clone(&self.inner);
        let (kind, name) = (table.kind, file_name(&inner.folder, table, path));
        let runtime = Handle::current();
        off_runtime("archive file facts", move || {
            let facts = read_footer(&inner.files, &name, kind, &runtime)?;
            Ok((facts, hash_file(&inner.files, &name, &runtime)?))
        })
        .await
    }

    /// Unites rows with files of a day, which are all that it holds or those that can be read.
    pub(super) async fn rewrite_over(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
        archived: ArchivedDay,
    ) -> Result<Rewrite> {
        // Read after the day's lease was taken: whoever erases takes it after having appended to the ledger.
        let erasures = self.inner.erasures.read_on().await?;
        let (inner, venue, runtime) = (Arc::clone(&self.inner), venue.clone(), Handle::current());
        off_runtime("archive rewrite", move || {
            let rewrite = DayRewrite {
                files: &inner.files,
                archive: &inner.folder,
                runtime: &runtime,
                venue: &venue,
                kind,
                day,
                fence,
                archived,
                stretch_rows: inner.stretch_rows,
                erasures: &erasures,
            };
            rewrite.run(incoming)
        })
        .await
    }

    /// The hash of a file's bytes, as the log tells it of active files.
    pub(super) async fn logged_hash(&self, table: &TableName, path: &str) -> Result<Option<u64>> {
        let table = self.table(table)?;
        let mut table = table.lock().await;
        table.refresh().await?;
        Ok(table.file(path).and_then(|file| file.file_hash))
    }

    /// Those of some files that are not there.
    async fn missing(&self, table: &TableName, paths: Vec<String>) -> Result<HashSet<String>> {
        let looks = paths.into_iter().map(|path| {
            let name = file_name(&self.inner.folder, table, &path);
            let store = Arc::clone(&self.inner.store);
            async move {
                match store.head(&name).await {
                    Ok(_) => Ok(None),
                    Err(object_store::Error::NotFound { .. }) => Ok(Some(path)),
                    Err(error) => Err(store_failed("look for", &name, error)),
                }
            }
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(LOOKS);
        let mut missing = HashSet::new();
        while let Some(found) = looks.try_next().await? {
            missing.extend(found);
        }
        Ok(missing)
    }

    /// Commits the files of one dataset: each day's new file replaces those that were read. Days that are no longer as
    /// they were read, whose fence is lost, or whose new file is gone, are left out and marked so in `stale`.
    async fn commit_dataset(
        &self,
        name: &TableName,
        staged: &[StagedDay],
        days: &[usize],
        stale: &mut [bool],
        still_held: &(dyn StillHeld + '_),
    ) -> Result<()> {
        let mut facts = HashMap::new();
        for &number in days {
            for file in new_files(&staged[number], name.dataset) {
                match self.facts(name, &file.path).await {
                    Ok(found) => drop(facts.insert(file.path.clone(), found)),
                    Err(error) if error.kind() == ErrorKind::NotFound => stale[number] = true,
                    Err(error) => return Err(error),
                }
            }
        }
        let table = self.table(name)?;
        for _ in 0..COMMIT_TRIES {
            for &number in days {
                if !stale[number] && !still_held.still_held(&staged[number]).await? {
                    stale[number] = true;
                }
            }
            let mut table = table.lock().await;
            if facts.is_empty() {
                table.refresh().await?;
            } else {
                table.create().await?;
            }
            // Until the commit names them nothing keeps staged files from a vacuum: they are looked for under the lock that
            // it takes too, and right before the commit on behalf of those of other processes.
            let missing = self.missing(name, facts.keys().cloned().collect()).await?;
            let (mut remove, mut add) = (Vec::new(), Vec::new());
            for &number in days {
                if stale[number] {
                    continue;
                }
                let day = &staged[number];
                let active = table.day(&day.venue.venue, day.day);
                let (read, to_be) = datasets(day, name.dataset);
                if is_same(&active, to_be) {
                    // Nothing to do, or done by a try whose outcome was unknown.
                    continue;
                }
                let is_gone = |file: &ArchiveFile| missing.contains(&file.path);
                if !is_same(&active, read) || new_files(day, name.dataset).any(is_gone) {
                    stale[number] = true;
                    continue;
                }
                remove.extend(
                    active
                        .into_iter()
                        .filter(|file| to_be.iter().all(|kept| kept.path != file.path)),
                );
                add.extend(new_files(day, name.dataset).filter_map(|file| {
                    let (facts, file_hash) = *facts.get(&file.path)?;
                    let (venue, path) = (day.venue.venue.clone(), file.path.clone());
                    Some(NewFile {
                        venue,
                        day: day.day,
                        path,
                        bytes: file.bytes,
                        facts,
                        file_hash,
                    })
                }));
            }
            if add.is_empty() && remove.is_empty() {
                return Ok(());
            }
            if table.try_commit(&remove, &add).await? == Tried::Committed {
                return Ok(());
            }
        }
        Err(StorageError::new(
            ErrorKind::Busy,
            format!("archive table {name}: others commit all the time"),
        ))
    }
}

#[async_trait]
impl ArchiveWriter for DeltaArchive {
    async fn rewrite_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
    ) -> Result<Rewrite> {
        let archived = self.day(venue, kind, day).await?;
        self.rewrite_over(venue, kind, day, fence, incoming, archived)
            .await
    }

    async fn replace_day(
        &self,
        venue: &VenueKey,
        kind: Kind,
        day: LocalDay,
        fence: Generation,
        incoming: Box<dyn IncomingDay>,
    ) -> Result<StagedDay> {
        let replaces = self.day(venue, kind, day).await?;
        let nothing = ArchivedDay::default();
        let written = self
            .rewrite_over(venue, kind, day, fence, incoming, nothing)
            .await?;
        Ok(match written {
            Rewrite::Staged(staged) => StagedDay { replaces, ..staged },
            Rewrite::Unchanged(holds) => StagedDay {
                venue: venue.clone(),
                day,
                kind,
                fence,
                replaces,
                holds,
            },
        })
    }

    async fn commit(
        &self,
        staged: Vec<StagedDay>,
        still_held: &(dyn StillHeld + '_),
    ) -> Result<Vec<Committed>> {
        let mut stale = vec![false; staged.len()];
        let Some(tenant) = staged.first().map(|day| day.venue.tenant.clone()) else {
            return Ok(Vec::new());
        };
        if staged.iter().any(|day| day.venue.tenant != tenant) {
            return Err(StorageError::new(
                ErrorKind::Bug,
                "staged days of several tenants in one commit",
            ));
        }
        for kind in Kind::ALL {
            let days: Vec<usize> = (0..staged.len())
                .filter(|&number| staged[number].kind == kind)
                .collect();
            if days.is_empty() {
                continue;
            }
            for dataset in [Dataset::Superseded, Dataset::Events] {
                let name = TableName::new(&tenant, kind, dataset);
                self.commit_dataset(&name, &staged, &days, &mut stale, still_held)
                    .await?;
            }
        }
        Ok(stale
            .into_iter()
            .map(|stale| if stale { Committed::Stale } else { Committed::Yes })
            .collect())
    }

    async fn purge_day(&self, venue: &VenueKey, kind: Kind, day: LocalDay) -> Result<PurgedFiles> {
        let mut purged = PurgedFiles::default();
        for dataset in [Dataset::Events, Dataset::Superseded] {
            let name = TableName::new(&venue.tenant, kind, dataset);
            let folder = name.folder(&self.inner.folder);
            let place = file_name(&self.inner.folder, &name, &day_folder(venue, day));
            let listed: Vec<_> = self
                .inner
                .store
                .list(Some(&place))
                .try_collect()
                .await
                .map_err(|error| store_failed("list", &place, error))?;
            let table = self.table(&name)?;
            let mut table = table.lock().await;
            // A commit that is still on its way must not name what is removed here.
            table.settle().await?;
            let active = match table.refresh().await? {
                true => table.day(&venue.venue, day),
                false => Vec::new(),
            };
            for file in listed {
                let is_active =
                    |kept: &ActiveFile| file_name(&self.inner.folder, &name, &kept.path) == file.location;
                debug_assert!(file.location.prefix_matches(&folder));
                if !active.iter().any(is_active) {
                    self.inner.files.remove(&file.location).await?;
                    purged.files += 1;
                    purged.bytes += file.size;
                }
            }
        }
        Ok(purged)
    }

    async fn discard(&self, staged: Vec<StagedDay>) -> Result<()> {
        for day in &staged {
            for dataset in [Dataset::Events, Dataset::Superseded] {
                let name = TableName::new(&day.venue.tenant, day.kind, dataset);
                let table = self.table(&name)?;
                let mut table = table.lock().await;
                // A day that was partly committed, or whose commit's outcome was unknown, keeps what is in the log; and
                // a commit that is still on its way must not name what is removed here.
                table.settle().await?;
                let active = if table.refresh().await? {
                    table.day(&day.venue.venue, day.day)
                } else {
                    Vec::new()
                };
                for file in
                    new_files(day, dataset).filter(|file| active.iter().all(|kept| kept.path != file.path))
                {
                    self.inner
                        .files
                        .remove(&file_name(&self.inner.folder, &name, &file.path))
                        .await?;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ArchiveReader for DeltaArchive {
    async fn day(&self, venue: &VenueKey, kind: Kind, day: LocalDay) -> Result<ArchivedDay> {
        // Events first: superseded rows are committed before their events, so what these have lost by then is among them.
        let (events, mut deliveries) = self.files_of(venue, kind, day, Dataset::Events).await?;
        let (superseded, more) = self.files_of(venue, kind, day, Dataset::Superseded).await?;
        deliveries.merge(more);
        Ok(ArchivedDay {
            events,
            superseded,
            deliveries,
        })
    }

    async fn days(&self, venue: &VenueKey) -> Result<Vec<(LocalDay, Kind)>> {
        let mut days = Vec::new();
        for kind in Kind::ALL {
            let table = self.table(&TableName::new(&venue.tenant, kind, Dataset::Events))?;
            let mut table = table.lock().await;
            if table.refresh().await? {
                days.extend(table.days(&venue.venue).into_iter().map(|day| (day, kind)));
            }
        }
        days.sort();
        Ok(days)
    }

    async fn open(
        &self,
        venue: &VenueKey,
        day: &ArchivedDay,
        projection: Projection,
    ) -> Result<Box<dyn DayReader>> {
        let file = match day.events.as_slice() {
            [] => return Ok(Box::new(ArchivedDayReader::empty())),
            [file] => file,
            files => {
                let what = format!(
                    "an archived day of {venue} stands in {} files: not written by Dwell",
                    files.len()
                );
                return Err(StorageError::new(ErrorKind::Damaged, what));
            }
        };
        let table = TableName::new(&venue.tenant, file.kind, Dataset::Events);
        let name = file_name(&self.inner.folder, &table, &file.path);
        let (inner, kind, runtime) = (Arc::clone(&self.inner), file.kind, Handle::current());
        let open = move || ArchivedDayReader::open(inner.files.open(&name, &runtime)?, kind, projection);
        Ok(Box::new(off_runtime("archive open", open).await?))
    }

    async fn superseded(&self, venue: &VenueKey, kind: Kind, day: &ArchivedDay) -> Result<RawRows> {
        let table = TableName::new(&venue.tenant, kind, Dataset::Superseded);
        let names: Vec<Path> = day
            .superseded
            .iter()
            .map(|file| file_name(&self.inner.folder, &table, &file.path))
            .collect();
        let (inner, runtime) = (Arc::clone(&self.inner), Handle::current());
        off_runtime("archive superseded", move || {
            let mut all = DeliveredRows::new(kind);
            for name in names {
                let mut rows = FileRows::open(&inner.files, &name, kind, &runtime)?;
                while let Some(more) = rows.next(usize::MAX)? {
                    all.append(&more);
                }
            }
            let deliveries = (0..all.len()).map(|row| all.delivery(row)).collect();
            let ends = (1..=all.len() as u32).collect();
            Ok(RawRows {
                events: all.events,
                deliveries,
                ends,
            })
        })
        .await
    }

    async fn verify(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<()> {
        let mut files = Vec::new();
        for file in day.events.iter().chain(&day.superseded) {
            let table = TableName::new(&venue.tenant, file.kind, file.dataset);
            let hash = self.logged_hash(&table, &file.path).await?;
            files.push((
                file.clone(),
                file_name(&self.inner.folder, &table, &file.path),
                hash,
            ));
        }
        let (inner, venue, day, runtime) = (
            Arc::clone(&self.inner),
            venue.clone(),
            day.clone(),
            Handle::current(),
        );
        off_runtime("archive verify", move || {
            let mut deliveries = Checksum::default();
            for (file, name, hash) in files {
                deliveries.merge(check(&inner.files, &name, &file, hash, &runtime)?);
            }
            if deliveries == day.deliveries {
                return Ok(());
            }
            let files: Vec<&str> = day
                .events
                .iter()
                .chain(&day.superseded)
                .map(|file| file.path.as_str())
                .collect();
            let what = format!(
                "deliveries in archive files {} of {venue} are not as recorded",
                files.join(", ")
            );
            Err(StorageError::new(ErrorKind::Damaged, what))
        })
        .await
    }

    fn erasures(&self) -> Arc<dyn Erasures> {
        Arc::clone(self.inner.erasures.ledger())
    }

    async fn tables(&self) -> Result<Vec<(TenantId, Kind)>> {
        let mut tables = Vec::new();
        for folder in self.folders(&self.inner.folder).await? {
            let Ok(tenant) = TenantId::new(&folder) else {
                continue;
            };
            let names = self.tables_of(&tenant).await?;
            let events = names.into_iter().filter(|name| name.dataset == Dataset::Events);
            tables.extend(events.map(|name| (tenant.clone(), name.kind)));
        }
        tables.sort();
        Ok(tables)
    }
}

fn follow_ledger(store: &Arc<dyn ObjectStore>, folder: &Path) -> LedgerFollower {
    LedgerFollower::new(Arc::new(ObjectLedger::new(Arc::clone(store), folder)))
}

/// What a staged day read and what it is to hold, in one dataset.
fn datasets(day: &StagedDay, dataset: Dataset) -> (&[ArchiveFile], &[ArchiveFile]) {
    match dataset {
        Dataset::Events => (&day.replaces.events, &day.holds.events),
        Dataset::Superseded => (&day.replaces.superseded, &day.holds.superseded),
    }
}

/// The files that a staged day adds to a dataset.
fn new_files(day: &StagedDay, dataset: Dataset) -> impl Iterator<Item = &ArchiveFile> {
    let (read, to_be) = datasets(day, dataset);
    to_be
        .iter()
        .filter(move |file| read.iter().all(|known| known.path != file.path))
}

fn is_same(active: &[ActiveFile], files: &[ArchiveFile]) -> bool {
    active.len() == files.len()
        && files
            .iter()
            .all(|file| active.iter().any(|other| other.path == file.path))
}

/// Runs what blocks on a thread for that.
pub(super) async fn off_runtime<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    blocking(name, work).await.map_err(|error| {
        let kind = match &error {
            BlockingError::Panicked { .. } => ErrorKind::Bug,
            BlockingError::Cancelled { .. } => ErrorKind::Unavailable,
        };
        StorageError::with_source(kind, "archive", error)
    })?
}
