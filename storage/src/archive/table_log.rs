//! The Delta log of one table: which files are active, kept in memory, followed and committed to.
//!
//! Opening a table replays its log with the Delta library; from then on new commits are read one by one and applied. A
//! commit is one conditional put of the next version, never retried here: who loses gets to know what has changed since
//! and decides anew ([`delta`](super::delta)). Over a network the answer to a put can be lost, and the put itself can
//! arrive after its sender has given it up. Trying again is safe, whatever became of it, since a version is given out
//! once; who wants to rely on its not having arrived [settles](TableLog::settle) that first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{
    Action, Add, DataType, PrimitiveType, Remove, StructField, StructType, new_metadata,
};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError, checkpoints};
use dwell_model::event::Checksum;
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SharedClock;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::{Value, json};
use url::Url;

use super::day_files::{FooterFacts, footer, parse_sum, sum_text};
use super::layout::{PARTITION_COLUMNS, TableName, partition};
use super::parquet_schema::{FileSchema, Stored};
use crate::error::{ErrorKind, Result, StorageError, is_full};

/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u64 = 100;
/// After so long without news the log is listed: commits that were missed may have been cleaned away by then.
const LIST_AFTER: Duration = Duration::from_secs(3600);

/// An active file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ActiveFile {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Sums over events and over deliveries, where the log tells them.
    pub(super) events: Option<Checksum>,
    pub(super) deliveries: Option<Checksum>,
    /// Hash of its bytes, where the log tells it.
    pub(super) file_hash: Option<u64>,
    venue: VenueId,
    day: LocalDay,
}

/// A file to be added by a commit.
#[derive(Debug, Clone)]
pub(super) struct NewFile {
    pub(super) venue: VenueId,
    pub(super) day: LocalDay,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) facts: FooterFacts,
    pub(super) file_hash: u64,
}

/// Outcome of trying to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// The commit is the table's newest version.
    Committed,
    /// Somebody else's commit took the version: refresh and look again.
    Overtaken,
}

/// A table's log.
#[derive(Debug)]
pub(super) struct TableLog {
    name: TableName,
    log: LogStoreRef,
    clock: SharedClock,
    state: Option<State>,
    /// Highest version for which a commit was sent off without its outcome being known.
    unsettled: Option<u64>,
}

#[derive(Debug)]
struct State {
    version: u64,
    files: HashMap<String, ActiveFile>,
    days: BTreeMap<(VenueId, LocalDay), Vec<String>>,
    followed_at: Duration,
}

impl TableLog {
    /// The log of a table, which need not exist.
    pub(super) fn new(
        name: TableName,
        store: &Arc<dyn ObjectStore>,
        archive: &Path,
        clock: SharedClock,
    ) -> Result<Self> {
        let folder = name.folder(archive);
        // The scheme only has to be none that the library treats in its own way: all access goes through the store.
        let location = Url::parse(&format!("archive:///{folder}/")).map_err(|error| {
            StorageError::with_source(
                ErrorKind::Invalid,
                format!("archive table {name}: its location"),
                error,
            )
        })?;
        let table_store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(store), folder));
        let log = default_logstore(
            table_store,
            Arc::clone(store),
            &location,
            &StorageConfig::default(),
        );
        Ok(Self {
            name,
            log,
            clock,
            state: None,
            unsettled: None,
        })
    }

    /// Brings the state up to the newest version; whether the table exists.
    pub(super) async fn refresh(&mut self) -> Result<bool> {
        let Some(state) = &mut self.state else {
            return self.load().await;
        };
        let now = self.clock.monotonic();
        loop {
            let next = state.version + 1;
            let commit = self
                .log
                .read_commit_entry(next)
                .await
                .map_err(|error| failed(&self.name, error))?;
            let Some(commit) = commit else { break };
            let actions = get_actions(next, &commit).map_err(|error| failed(&self.name, error))?;
            if !state.apply(&self.name, actions)? {
                return self.load().await;
            }
            state.version = next;
            state.followed_at = now;
        }
        if now.saturating_sub(state.followed_at) > LIST_AFTER {
            state.followed_at = now;
            let latest = self
                .log
                .get_latest_version(state.version)
                .await
                .map_err(|error| failed(&self.name, error))?;
            if latest > state.version {
                return self.load().await;
            }
        }
        Ok(true)
    }

    /// Makes the table if it is not there.
    pub(super) async fn create(&mut self) -> Result<()> {
        if self.refresh().await? {
            return Ok(());
        }
        let schema = StructType::try_new(table_fields(&self.name)?).map_err(|error| {
            StorageError::with_source(ErrorKind::Bug, "the columns form no schema", error)
        })?;
        let metadata = new_metadata(&schema, PARTITION_COLUMNS, HashMap::<String, String>::new())
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "the table's metadata", error))?;
        let protocol = serde_json::from_value(json!({ "minReaderVersion": 1, "minWriterVersion": 2 }))
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "the table's protocol", error))?;
        let actions = vec![Action::Protocol(protocol), Action::Metadata(metadata)];
        // Whoever makes it first, it is there then.
        let _: Tried = self.put(0, actions).await?;
        if self.refresh().await? {
            Ok(())
        } else {
            Err(StorageError::new(
                ErrorKind::Unavailable,
                format!("archive table {} was not made", self.name),
            ))
        }
    }

    /// The active files of a day, as of the last refresh.
    pub(super) fn day(&self, venue: &VenueId, day: LocalDay) -> Vec<ActiveFile> {
        let Some(state) = &self.state else {
            return Vec::new();
        };
        let paths = state
            .days
            .get(&(venue.clone(), day))
            .map_or(&[][..], Vec::as_slice);
        let mut files: Vec<_> = paths
            .iter()
            .filter_map(|path| state.files.get(path))
            .cloned()
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// An active file, as of the last refresh.
    pub(super) fn file(&self, path: &str) -> Option<&ActiveFile> {
        self.state.as_ref()?.files.get(path)
    }

    /// The days of a venue with active files, ascending.
    pub(super) fn days(&self, venue: &VenueId) -> Vec<LocalDay> {
        let Some(state) = &self.state else {
            return Vec::new();
        };
        let from = (venue.clone(), LocalDay::new(chrono::NaiveDate::MIN));
        let of_venue = state
            .days
            .range(from..)
            .take_while(|((other, _), _)| other == venue);
        of_venue.map(|((_, day), _)| *day).collect()
    }

    /// Paths of all active files.
    pub(super) fn active_paths(&self) -> impl Iterator<Item = &str> {
        self.state
            .iter()
            .flat_map(|state| state.files.keys().map(String::as_str))
    }

    /// The version last seen, how many files are active in it, and their size.
    pub(super) fn standing(&self) -> Option<(u64, u64, u64)> {
        let state = self.state.as_ref()?;
        let bytes = state.files.values().map(|file| file.bytes).sum();
        Some((state.version, state.files.len() as u64, bytes))
    }

    /// All active files with venue and day, by path.
    pub(super) fn active_files(&self) -> Vec<(VenueId, LocalDay, ActiveFile)> {
        let Some(state) = &self.state else {
            return Vec::new();
        };
        let files = state.files.values().cloned();
        let mut files: Vec<_> = files.map(|file| (file.venue.clone(), file.day, file)).collect();
        files.sort_by(|a, b| a.2.path.cmp(&b.2.path));
        files
    }

    /// Paths of the files that a commit of the log takes away; none when the log no longer has it.
    pub(super) async fn removed_by(&self, version: u64) -> Result<Vec<String>> {
        let commit = self.log.read_commit_entry(version).await;
        let Some(commit) = commit.map_err(|error| failed(&self.name, error))? else {
            return Ok(Vec::new());
        };
        let actions = get_actions(version, &commit).map_err(|error| failed(&self.name, error))?;
        let removed = actions.into_iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove.path),
            _ => None,
        });
        Ok(removed.collect())
    }

    /// Tries to make a commit on top of the version last seen: removes and adds files at once.
    pub(super) async fn try_commit(&mut self, remove: &[ActiveFile], add: &[NewFile]) -> Result<Tried> {
        let Some(state) = &self.state else {
            return Err(StorageError::new(
                ErrorKind::Bug,
                format!("commit to {} before it was read", self.name),
            ));
        };
        let next = state.version + 1;
        let now_ms = self.clock.now_ms();
        let removes = remove.iter().map(|file| Action::Remove(file.to_remove(now_ms)));
        let adds = add.iter().map(|file| Action::Add(file.to_add(now_ms)));
        let tried = self.put(next, removes.chain(adds).collect()).await?;
        if tried == Tried::Committed {
            self.refresh().await?;
            if next % CHECKPOINT_EVERY == 0 {
                self.checkpoint().await;
            }
        }
        Ok(tried)
    }

    /// Makes sure that no commit of ours is still on its way: its version is in the log, as ours, as somebody else's, or
    /// as an empty one that takes the place.
    pub(super) async fn settle(&mut self) -> Result<()> {
        while let Some(unsettled) = self.unsettled {
            let exists = self.refresh().await?;
            match self.state.as_ref().map(|state| state.version) {
                Some(version) if version < unsettled => {
                    let _: Tried = self.put(version + 1, Vec::new()).await?;
                }
                _ if exists || unsettled == 0 => self.unsettled = None,
                _ => {
                    let what = format!("archive table {} is gone", self.name);
                    return Err(StorageError::new(ErrorKind::Damaged, what));
                }
            }
        }
        Ok(())
    }

    async fn put(&mut self, version: u64, actions: Vec<Action>) -> Result<Tried> {
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: Some(PARTITION_COLUMNS.map(str::to_owned).into()),
            predicate: None,
        };
        let commit: Bytes = CommitData::new(actions, operation, HashMap::new(), Vec::new())
            .get_bytes()
            .map_err(|error| failed(&self.name, error.into()))?;
        let put = self
            .log
            .write_commit_entry(version, CommitOrBytes::LogBytes(commit), Default::default())
            .await;
        match put {
            Ok(()) => Ok(Tried::Committed),
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(Tried::Overtaken),
            Err(error) => {
                self.unsettled = self.unsettled.max(Some(version));
                Err(failed(&self.name, error.into()))
            }
        }
    }

    /// Replays the whole log.
    async fn load(&mut self) -> Result<bool> {
        self.state = None;
        let name = &self.name;
        if !self
            .log
            .is_delta_table_location()
            .await
            .map_err(|error| failed(name, error))?
        {
            return Ok(false);
        }
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        table.load().await.map_err(|error| failed(name, error))?;
        let snapshot = table.snapshot().map_err(|error| failed(name, error))?;
        let protocol = snapshot.protocol();
        if protocol.min_reader_version() > 1 || protocol.min_writer_version() > 2 {
            let what = format!("archive table {name} was changed to a protocol that Dwell does not know");
            return Err(StorageError::new(ErrorKind::Damaged, what));
        }
        let mut state = State {
            version: snapshot.version(),
            files: HashMap::new(),
            days: BTreeMap::new(),
            followed_at: self.clock.monotonic(),
        };
        for file in snapshot.log_data().iter() {
            #[expect(
                deprecated,
                reason = "the only way to an active file's tags that does not need Arrow"
            )]
            state.add(name, file.add_action())?;
        }
        self.state = Some(state);
        Ok(true)
    }

    /// Writes a checkpoint and lets go of log entries past their retention. A failure only makes opening slower.
    async fn checkpoint(&self) {
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        let checkpointed = async {
            table.load().await?;
            checkpoints::create_checkpoint(&table, None).await?;
            checkpoints::cleanup_metadata(&table, None).await
        };
        if let Err(error) = checkpointed.await {
            tracing::warn!(table = %self.name, %error, "the archive's log was not checkpointed");
        }
    }
}

impl State {
    /// Applies a commit; `false` when it changes more than files and the log must be replayed.
    fn apply(&mut self, name: &TableName, actions: Vec<Action>) -> Result<bool> {
        for action in actions {
            match action {
                Action::Add(add) => self.add(name, add)?,
                Action::Remove(remove) => self.remove(&remove.path),
                Action::Protocol(_) | Action::Metadata(_) => return Ok(false),
                _ => {}
            }
        }
        Ok(true)
    }

    fn add(&mut self, name: &TableName, add: Add) -> Result<()> {
        let file = ActiveFile::from_add(add).ok_or_else(|| {
            StorageError::new(
                ErrorKind::Damaged,
                format!("archive table {name} names a file of no venue-day"),
            )
        })?;
        self.remove(&file.path);
        self.days
            .entry((file.venue.clone(), file.day))
            .or_default()
            .push(file.path.clone());
        self.files.insert(file.path.clone(), file);
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        let Some(file) = self.files.remove(path) else {
            return;
        };
        let place = (file.venue, file.day);
        if let Some(paths) = self.days.get_mut(&place) {
            paths.retain(|other| other != path);
            if paths.is_empty() {
                self.days.remove(&place);
            }
        }
    }
}

impl ActiveFile {
    fn from_add(add: Add) -> Option<Self> {
        let value = |column: &str| add.partition_values.get(column).and_then(Option::as_deref);
        let (venue, day) = partition(value("venue"), value("day"))?;
        let stats: Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
        let rows = stats.get("numRecords")?.as_u64()?;
        let tag = |name: &str| add.tags.as_ref()?.get(name)?.as_deref();
        let sum = |name: &str| parse_sum(rows, tag(name)?);
        Some(Self {
            bytes: u64::try_from(add.size).ok()?,
            rows,
            events: sum(footer::EVENTS_SUM),
            deliveries: sum(footer::DELIVERIES_SUM),
            file_hash: tag(footer::FILE_XXH3).and_then(|text| u64::from_str_radix(text, 16).ok()),
            venue,
            day,
            path: add.path,
        })
    }

    fn to_remove(&self, now_ms: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change: true,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(partition_values(&self.venue, self.day)),
            size: i64::try_from(self.bytes).ok(),
            ..Remove::default()
        }
    }
}

impl NewFile {
    fn to_add(&self, now_ms: i64) -> Add {
        let sums = self.facts.sums;
        let mut stats = json!({ "numRecords": sums.events.rows });
        if let Some((least, most)) = self.facts.ts_range {
            stats["minValues"] = json!({ "ts": least });
            stats["maxValues"] = json!({ "ts": most });
            stats["nullCount"] = json!({ "ts": 0 });
        }
        let tags = [
            (footer::EVENTS_SUM, sum_text(sums.events)),
            (footer::DELIVERIES_SUM, sum_text(sums.deliveries)),
            (footer::FILE_XXH3, format!("{:016x}", self.file_hash)),
        ];
        Add {
            path: self.path.clone(),
            partition_values: partition_values(&self.venue, self.day),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            modification_time: now_ms,
            data_change: true,
            stats: Some(stats.to_string()),
            tags: Some(
                tags.into_iter()
                    .map(|(key, text)| (key.to_owned(), Some(text)))
                    .collect(),
            ),
            ..Add::default()
        }
    }
}

fn partition_values(venue: &VenueId, day: LocalDay) -> HashMap<String, Option<String>> {
    let [venue_column, day_column] = PARTITION_COLUMNS.map(str::to_owned);
    [
        (venue_column, Some(venue.to_string())),
        (day_column, Some(day.to_string())),
    ]
    .into()
}

/// The table's columns, the partition's last.
fn table_fields(name: &TableName) -> Result<Vec<StructField>> {
    let mut fields = Vec::new();
    for column in &FileSchema::of(name.kind).columns {
        let ty = match column.stored {
            Stored::Text => DataType::STRING,
            Stored::Integer => DataType::LONG,
            Stored::Hundredths => PrimitiveType::decimal(9, 2)
                .map(DataType::Primitive)
                .map_err(|error| {
                    StorageError::with_source(ErrorKind::Bug, "the type of hundredths", error)
                })?,
            Stored::Float => DataType::FLOAT,
            Stored::Double => DataType::DOUBLE,
        };
        fields.push(StructField::new(column.name.clone(), ty, !column.required));
    }
    let [venue, day] = PARTITION_COLUMNS;
    fields.push(StructField::new(venue, DataType::STRING, false));
    fields.push(StructField::new(day, DataType::DATE, false));
    Ok(fields)
}

fn failed(name: &TableName, error: DeltaTableError) -> StorageError {
    let kind = match &error {
        DeltaTableError::InvalidJsonLog { .. } | DeltaTableError::InvalidStatsJson { .. } => {
            ErrorKind::Damaged
        }
        other if is_full(other) => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("archive table {name}"), error)
}
