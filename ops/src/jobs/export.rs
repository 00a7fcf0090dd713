//! `export`: the published numbers as files at a place, as `dwell export` writes them; made to be a schedule's job.
//!
//! The files lie in the place itself, or with `by=day` in a folder for each day. Beside them lies [`MANIFEST`], written
//! last: it names the generations that the files were made of and each file's bytes and SHA-256. A folder whose manifest
//! names what is published now is left as it is, so an export done twice writes nothing the second time, one that was
//! killed goes on where it was, and who reads can tell whether all files of a folder belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::spec::Venues;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::failpoint;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Generation, Job, Lane, Stores, recuts};
use dwell_storage::file_place::FilePlace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::days::venues_of;
use super::kinds::{JobKind, Outcome, lane_of_range};
use super::{JobWorker, Progress, place_of, spec_of};
use crate::export::{Selection, Table, export};

/// What says of which generations a folder's files were made.
pub(crate) const MANIFEST: &str = "_dwell_export.json";
const FORMAT: u32 = 1;
/// Folders that a report tells one by one.
const FOLDERS_TOLD: usize = 500;
/// Most days that `last_days` may ask for.
const LAST_DAYS_MAX: u32 = 3_660;

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Value,
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    #[serde(default)]
    dry_run: bool,
    /// Where the files go.
    place: String,
    /// Which tables; all when left out.
    tables: Option<Vec<String>>,
    /// A folder for each day, or all days in one.
    by: Option<By>,
    /// Only so many days before today, of each venue.
    last_days: Option<u32>,
    /// Write also what is there already.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Day,
}

/// What lies in a folder. The same for the same input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    tables: Vec<String>,
    /// The published generations that the files were made of.
    generations: BTreeMap<VenueId, BTreeMap<LocalDay, Generation>>,
    files: Vec<ManifestFile>,
}

/// A file of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ManifestFile {
    name: String,
    rows: u64,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Whether it was made of the same as another, whatever its files.
    fn is_of_same_input(&self, other: &Self) -> bool {
        (self.format, &self.tables, &self.generations) == (other.format, &other.tables, &other.generations)
    }
}

pub(super) struct Export;

#[async_trait]
impl JobKind for Export {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "export",
            summary: "Write published numbers as Parquet files to a place; what is there already is left as it is",
            takes_days: true,
            takes_dry_run: true,
            options: &["place", "tables", "by", "last_days", "force"],
            required: &["place"],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |why: String| Err(JobRefusal(why));
        let spec: Spec = match serde_json::from_value(request.to_spec()) {
            Ok(spec) => spec,
            Err(error) => return refuse(format!("the options cannot be read: {error}")),
        };
        place_of(&spec.place).map_err(|error| JobRefusal(format!("{error:#}")))?;
        spec.tables().map_err(|error| JobRefusal(format!("{error:#}")))?;
        match spec.last_days {
            Some(_) if spec.from.is_some() || spec.to.is_some() => {
                refuse("last_days and from, to exclude each other".to_owned())
            }
            Some(days) if !(1..=LAST_DAYS_MAX).contains(&days) => {
                refuse(format!("last_days must be from 1 to {LAST_DAYS_MAX}"))
            }
            _ => Ok(()),
        }
    }

    fn lane(&self, request: &JobRequest) -> Lane {
        lane_of_range(request)
    }

    fn runs_alone(&self) -> bool {
        true
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        // Folders that are done are left as they are.
        Ok(job.spec.clone())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let place = FilePlace::make(&place_of(&spec.place)?, &worker.settings.engines.objects)?;
        let exporting = Exporting {
            stores: &worker.stores,
            clock: &worker.clock,
            tenant: &job.tenant,
            place: &place,
            scratch: worker.settings.scratch.join(format!("export-{}", job.id)),
        };
        let tell = |done, total, doing: &str| progress.set(done, total, doing);
        exporting.run(&spec, &tell, &cancel).await
    }
}

/// What an export works with.
struct Exporting<'a> {
    stores: &'a Stores,
    clock: &'a SharedClock,
    tenant: &'a TenantId,
    place: &'a FilePlace,
    /// Folder for a folder's files on their way.
    scratch: PathBuf,
}

impl Exporting<'_> {
    async fn run(
        &self,
        spec: &Spec,
        tell: &(dyn Fn(u64, u64, &str) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Outcome> {
        let tables = spec.tables()?;
        let folders = self.folders(spec, &tables).await?;
        let mut done = Done::new(spec);
        for (number, (folder, wanted)) in folders.iter().enumerate() {
            if cancel.is_cancelled() {
                return Ok(Outcome::cancelled(done.report()));
            }
            tell(number as u64, folders.len() as u64, folder.trim_end_matches('/'));
            if !spec.force && self.is_there(folder, wanted).await? {
                done.unchanged += 1;
                continue;
            }
            if spec.dry_run {
                done.folder(folder, wanted);
                continue;
            }
            let written = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                written = self.write(folder, wanted, &tables) => Some(written),
            };
            if let Err(error) = std::fs::remove_dir_all(&self.scratch)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot remove an export's folder");
            }
            match written {
                None => return Ok(Outcome::cancelled(done.report())),
                Some(written) => done.folder(folder, &written?),
            }
        }
        tell(folders.len() as u64, folders.len() as u64, "done");
        Ok(Outcome::succeeded(done.report()))
    }

    /// The folders to be written, each with what its files are to be made of.
    async fn folders(&self, spec: &Spec, tables: &[Table]) -> Result<BTreeMap<String, Manifest>> {
        let wanted = venues_of(&spec.venues)?;
        let mut venues = self.stores.registry.venues(self.tenant).await?;
        venues.retain(|stored| match &wanted {
            Venues::All => true,
            Venues::These(ids) => ids.contains(&stored.venue.id),
        });
        let now = self.clock.now_ms();
        let range = |today: LocalDay| {
            let since = spec.last_days.and_then(|days| {
                let days = i32::try_from(days).ok()?;
                LocalDay::from_epoch_days(today.to_epoch_days() - days)
            });
            let (first, last) = LocalDay::first_and_last();
            let to = since.map(|_| today.prev());
            (
                spec.from.or(since).unwrap_or(first),
                spec.to.or(to).unwrap_or(last),
            )
        };
        // One range for all, so that the files of a folder are those of one export.
        let ranges = venues
            .iter()
            .map(|stored| range(stored.venue.calendar.day_of(now)));
        let (from, to) = ranges
            .reduce(|all, of_venue| (all.0.min(of_venue.0), all.1.max(of_venue.1)))
            .unwrap_or_else(LocalDay::first_and_last);
        let mut folders: BTreeMap<String, Manifest> = BTreeMap::new();
        for stored in venues {
            let key = VenueKey::new(self.tenant.clone(), stored.venue.id.clone());
            let days = self.stores.venue_days.as_ref();
            let published = recuts::list_under(days, &key, &stored.venue.calendar, from, to);
            for row in published.await? {
                let Some(info) = row.published else { continue };
                let folder = match spec.by {
                    Some(By::Day) => format!("day={}/", row.day),
                    None => String::new(),
                };
                let of_folder = folders.entry(folder).or_insert_with(|| Manifest {
                    format: FORMAT,
                    tables: tables.iter().map(|table| table.name().to_owned()).collect(),
                    generations: BTreeMap::new(),
                    files: Vec::new(),
                });
                let of_venue = of_folder.generations.entry(stored.venue.id.clone()).or_default();
                of_venue.insert(row.day, info.generation);
            }
        }
        Ok(folders)
    }

    /// Whether a folder holds what it is to hold.
    async fn is_there(&self, folder: &str, wanted: &Manifest) -> Result<bool> {
        let found = self.place.get(&format!("{folder}{MANIFEST}")).await?;
        // One that cannot be read is written anew.
        let found = found.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
        Ok(found.is_some_and(|found| found.is_of_same_input(wanted)))
    }

    /// Writes a folder's files, then its manifest.
    async fn write(&self, folder: &str, wanted: &Manifest, tables: &[Table]) -> Result<Manifest> {
        let days = || wanted.generations.values().flat_map(BTreeMap::keys).copied();
        let selection = Selection {
            tenant: self.tenant.clone(),
            venues: Some(wanted.generations.keys().cloned().collect()),
            from: days().min().context("an export of no day")?,
            to: days().max().context("an export of no day")?,
        };
        let exported = export(self.stores, &selection, tables, &self.scratch).await?;
        failpoint!("export.before_files");
        let mut manifest = Manifest {
            // A day may have been published anew since it was looked up: the files tell of which generations they are.
            generations: exported.generations,
            files: Vec::new(),
            ..wanted.clone()
        };
        for file in exported.files {
            let name = file.path.file_name().and_then(|name| name.to_str());
            let name = name.context("an exported file without a name")?;
            let placed = self
                .place
                .put_file(&format!("{folder}{name}"), &file.path)
                .await?;
            failpoint!("export.after_file");
            manifest.files.push(ManifestFile {
                name: name.to_owned(),
                rows: file.rows,
                bytes: placed.bytes,
                sha256: placed.sha256,
            });
        }
        let text = serde_json::to_vec_pretty(&manifest)?;
        self.place.put(&format!("{folder}{MANIFEST}"), text).await?;
        Ok(manifest)
    }
}

impl Spec {
    fn tables(&self) -> Result<Vec<Table>> {
        let Some(names) = &self.tables else {
            return Ok(Table::ALL.to_vec());
        };
        let known = || Table::ALL.map(Table::name).join(", ");
        let mut tables: Vec<Table> = names
            .iter()
            .map(|name| {
                Table::from_name(name)
                    .with_context(|| format!("there is no table {name:?}; known are {}", known()))
            })
            .collect::<Result<_>>()?;
        tables.sort();
        tables.dedup();
        anyhow::ensure!(!tables.is_empty(), "tables names none");
        Ok(tables)
    }
}

/// What was done so far.
struct Done {
    dry_run: bool,
    place: String,
    unchanged: u64,
    written: u64,
    rows: u64,
    bytes: u64,
    venue_days: BTreeSet<(VenueId, LocalDay)>,
    folders: Vec<Value>,
}

impl Done {
    fn new(spec: &Spec) -> Self {
        Self {
            dry_run: spec.dry_run,
            place: spec.place.clone(),
            unchanged: 0,
            written: 0,
            rows: 0,
            bytes: 0,
            venue_days: BTreeSet::new(),
            folders: Vec::new(),
        }
    }

    fn folder(&mut self, folder: &str, manifest: &Manifest) {
        self.written += 1;
        self.rows += manifest.files.iter().map(|file| file.rows).sum::<u64>();
        self.bytes += manifest.files.iter().map(|file| file.bytes).sum::<u64>();
        for (venue, days) in &manifest.generations {
            self.venue_days
                .extend(days.keys().map(|day| (venue.clone(), *day)));
        }
        if self.folders.len() < FOLDERS_TOLD {
            let days: usize = manifest.generations.values().map(BTreeMap::len).sum();
            self.folders.push(json!({
                "folder": folder, "venue_days": days, "files": manifest.files.len(),
            }));
        }
    }

    fn report(&self) -> Value {
        json!({
            "dry_run": self.dry_run,
            "place": self.place,
            "folders_written": if self.dry_run { 0 } else { self.written },
            "folders_to_write": if self.dry_run { self.written } else { 0 },
            "folders_unchanged": self.unchanged,
            "venue_days": self.venue_days.len(),
            "rows": self.rows,
            "bytes": self.bytes,
            "folders": self.folders,
        })
    }
}

#[cfg(test)]
mod tests {
    use dwell_storage::archive::RemoteArchiveConfig;
    use dwell_storage::resolver::StoreUri;

    use super::*;
    use crate::test_world::{World, day};

    const DAYS: [&str; 2] = ["2026-03-01", "2026-03-02"];

    struct Shop {
        world: World,
        root: tempfile::TempDir,
    }

    impl Shop {
        async fn open() -> Self {
            let root = tempfile::tempdir().unwrap();
            let world =
                World::with_days(&root.path().join("data"), &root.path().join("archive"), &DAYS).await;
            Self { world, root }
        }

        /// Exports with some options; the report.
        async fn export(&self, options: Value) -> Value {
            let uri = StoreUri::Folder(self.root.path().join("place"));
            let place = FilePlace::make(&uri, &RemoteArchiveConfig::default()).unwrap();
            let clock = self.world.clock();
            let exporting = Exporting {
                stores: &self.world.stores,
                clock: &clock,
                tenant: self.world.tenant(),
                place: &place,
                scratch: self.root.path().join("scratch"),
            };
            let mut spec = json!({ "venues": "all", "place": uri.to_string() });
            spec.as_object_mut()
                .unwrap()
                .extend(options.as_object().unwrap().clone());
            let spec = serde_json::from_value(spec).unwrap();
            let outcome = exporting
                .run(&spec, &|_, _, _| {}, &CancellationToken::new())
                .await
                .unwrap();
            assert_eq!(outcome.state, dwell_storage::api::JobState::Succeeded);
            assert!(
                !self.root.path().join("scratch").exists(),
                "nothing is left on the way"
            );
            outcome.report
        }

        /// What lies at the place: each file's content.
        fn files(&self) -> BTreeMap<String, Vec<u8>> {
            fn walk(folder: &std::path::Path, root: &std::path::Path, found: &mut BTreeMap<String, Vec<u8>>) {
                for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                    if entry.path().is_dir() {
                        walk(&entry.path(), root, found);
                    } else {
                        let name = entry
                            .path()
                            .strip_prefix(root)
                            .unwrap()
                            .to_str()
                            .unwrap()
                            .to_owned();
                        found.insert(name, std::fs::read(entry.path()).unwrap());
                    }
                }
            }
            let (root, mut found) = (self.root.path().join("place"), BTreeMap::new());
            walk(&root, &root, &mut found);
            found
        }

        /// The files of `dwell export` for some days.
        async fn by_command(&self, from: &str, to: &str) -> BTreeMap<String, Vec<u8>> {
            let out = self.root.path().join("by-command");
            let selection = Selection {
                tenant: self.world.tenant().clone(),
                venues: None,
                from: day(from),
                to: day(to),
            };
            let report = export(&self.world.stores, &selection, &Table::ALL, &out)
                .await
                .unwrap();
            let read = |path: &PathBuf| {
                (
                    path.file_name().unwrap().to_str().unwrap().to_owned(),
                    std::fs::read(path).unwrap(),
                )
            };
            report.files.iter().map(|file| read(&file.path)).collect()
        }
    }

    #[tokio::test]
    async fn an_export_writes_what_the_command_writes_and_the_second_time_nothing() {
        let shop = Shop::open().await;
        let report = shop.export(json!({ "dry_run": true })).await;
        assert_eq!((&report["folders_to_write"], shop.files().len()), (&json!(1), 0));
        let report = shop.export(json!({})).await;
        assert_eq!(
            (&report["folders_written"], &report["venue_days"]),
            (&json!(1), &json!(2))
        );
        let mut files = shop.files();
        let manifest: Manifest = serde_json::from_slice(&files.remove(MANIFEST).unwrap()).unwrap();
        assert_eq!(files, shop.by_command(DAYS[0], DAYS[1]).await);
        let told: Vec<(String, u64)> = manifest
            .files
            .iter()
            .map(|file| (file.name.clone(), file.bytes))
            .collect();
        let found: Vec<(String, u64)> = files
            .iter()
            .map(|(name, content)| (name.clone(), content.len() as u64))
            .collect();
        assert_eq!(
            {
                let mut told = told;
                told.sort();
                told
            },
            found
        );
        let before = shop.files();
        let report = shop.export(json!({})).await;
        assert_eq!(
            (&report["folders_written"], &report["folders_unchanged"]),
            (&json!(0), &json!(1))
        );
        let report = shop.export(json!({ "force": true })).await;
        assert_eq!(report["folders_written"], 1);
        assert_eq!(shop.files(), before, "the same input gives the same bytes");
    }

    #[tokio::test]
    async fn by_day_only_what_was_published_anew_or_not_finished_is_written_again() {
        let shop = Shop::open().await;
        assert_eq!(shop.export(json!({ "by": "day" })).await["folders_written"], 2);
        let of_day = |files: &BTreeMap<String, Vec<u8>>, of: &str| -> BTreeMap<String, Vec<u8>> {
            let prefix = format!("day={of}/");
            let inside = files.iter().filter_map(|(name, content)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), content.clone()))
            });
            inside.filter(|(name, _)| name != MANIFEST).collect()
        };
        for of in DAYS {
            assert_eq!(of_day(&shop.files(), of), shop.by_command(of, of).await, "{of}");
        }
        let before = shop.files();
        // More events of one day.
        shop.world.events(DAYS[1], 9).await;
        shop.world.recompute().await;
        let report = shop.export(json!({ "by": "day" })).await;
        assert_eq!(
            (&report["folders_written"], &report["folders_unchanged"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(report["folders"][0]["folder"], "day=2026-03-02/");
        assert_ne!(shop.files(), before);
        assert_eq!(
            of_day(&shop.files(), DAYS[1]),
            shop.by_command(DAYS[1], DAYS[1]).await
        );
        // Killed before the manifest: the day is written again, the other one not.
        let whole = shop.files();
        std::fs::remove_file(shop.root.path().join("place/day=2026-03-01").join(MANIFEST)).unwrap();
        assert_eq!(shop.export(json!({ "by": "day" })).await["folders_written"], 1);
        assert_eq!(shop.files(), whole);
        // It is noon of 2026-03-10: only the last eight days, which begin with the second of the month.
        let report = shop
            .export(json!({ "by": "day", "last_days": 8, "force": true }))
            .await;
        assert_eq!(
            (&report["folders_written"], &report["folders"][0]["folder"]),
            (&json!(1), &json!("day=2026-03-02/"))
        );
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        let refused = |options: Value| {
            let request = JobRequest {
                tenant: TenantId::new("acme").unwrap(),
                kind: "export".to_owned(),
                venues: None,
                from: None,
                to: None,
                dry_run: false,
                reason: None,
                lane: None,
                options: options.as_object().unwrap().clone(),
            };
            Export.check(&request).unwrap_err().to_string()
        };
        assert!(refused(json!({ "place": "kafka://h:1/x" })).contains("kafka"));
        assert!(refused(json!({ "place": "file:///x", "tables": ["weekly"] })).contains("weekly"));
        assert!(refused(json!({ "place": "file:///x", "by": "month" })).contains("month"));
        assert!(refused(json!({ "place": "file:///x", "last_days": 0 })).contains("last_days"));
    }
}
