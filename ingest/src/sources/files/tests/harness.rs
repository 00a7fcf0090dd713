//! A small installation in a temporary folder, and ways to look into it that share nothing with the import.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwell_model::event::{Column, Delivery, EventBatch, NO_I64, NO_TEXT};
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::layout::{Layout, Venue};
use dwell_model::time::{TsMs, VenueCalendar};
use dwell_runtime::clock::ManualClock;
use dwell_storage::api::{Archive, QuarantineEntry, QuarantineFilter};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use tempfile::TempDir;

use crate::sources::files::{
    ImportDeps, ImportError, ImportOptions, ImportReport, MappingSpec, NoProgress, Road, import,
};

/// 2026-03-10T12:00Z: the time at which imports run unless a test moves the clock.
pub(super) const NOW: TsMs = 1_773_144_000_000;

pub(super) struct Shop {
    pub(super) folder: TempDir,
    pub(super) clock: ManualClock,
    pub(super) deps: ImportDeps,
    pub(super) options: ImportOptions,
}

/// An event as a test compares it: everything but its lineage, as text.
pub(super) type Row = String;

impl Shop {
    /// Two venues, `zurich` and `kolkata`, and no archive to speak of.
    pub(super) async fn open() -> Self {
        Self::with_archive(|_| Arc::new(super::no_archive::NoArchive)).await
    }

    pub(super) async fn with_archive(archive: impl FnOnce(&DataPaths) -> Arc<dyn Archive>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(folder.path().join("data"));
        let clock = ManualClock::at_ms(NOW);
        let stores = SqliteStores::open(&paths, clock.shared())
            .await
            .unwrap()
            .with_archive(archive(&paths));
        let tenant = TenantId::new("acme").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        for (id, tz) in [("zurich", "Europe/Zurich"), ("kolkata", "Asia/Kolkata")] {
            let venue = Venue {
                id: VenueId::new(id).unwrap(),
                name: None,
                calendar: VenueCalendar::from_names(tz, 0).unwrap(),
                tags: Vec::new(),
                layouts: vec![Layout::empty()],
            };
            let _ = stores.registry.put_venue(&tenant, &venue, None).await.unwrap();
        }
        let options = ImportOptions::new(tenant, paths.spill.clone());
        Self {
            folder,
            deps: ImportDeps {
                stores,
                clock: clock.shared(),
            },
            clock,
            options,
        }
    }

    pub(super) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn map(&mut self, toml: &str) {
        self.options.mapping = MappingSpec::from_toml("test.toml", toml).unwrap();
    }

    pub(super) async fn try_import(&self, paths: &[&Path]) -> Result<ImportReport, ImportError> {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        import(paths, &self.options, &self.deps, Arc::new(NoProgress)).await
    }

    pub(super) async fn import(&self, paths: &[&Path]) -> ImportReport {
        self.try_import(paths).await.unwrap()
    }

    pub(super) async fn import_to_archive(&mut self, paths: &[&Path]) -> ImportReport {
        self.options.road = Road::Archive;
        self.import(paths).await
    }

    /// Everything in the log, sorted.
    pub(super) async fn logged(&self) -> Vec<(Row, Delivery)> {
        let log = &self.deps.stores.log;
        let (mut rows, mut next) = (Vec::new(), 0);
        loop {
            let chunk = log.read(0, next, 1 << 20).await.unwrap();
            if chunk.records.is_empty() {
                rows.sort();
                return rows;
            }
            next = chunk.next;
            for record in chunk.records {
                let delivery = Delivery {
                    received_at: record.received_at,
                    receipt: record.receipt,
                };
                rows.extend(texts(record.venue.venue.as_str(), &record.events).map(|row| (row, delivery)));
            }
        }
    }

    /// The events in the log, sorted, without their lineage.
    pub(super) async fn logged_rows(&self) -> Vec<Row> {
        self.logged().await.into_iter().map(|(row, _)| row).collect()
    }

    /// What is quarantined, as (file below the folder, line, code), sorted.
    pub(super) async fn quarantined(&self) -> Vec<(String, u64, String)> {
        let prefix = format!("{}/", self.folder.path().display());
        let mut seen: Vec<_> = self
            .quarantine_entries()
            .await
            .into_iter()
            .map(|entry| (entry.source.replace(&prefix, ""), entry.index, entry.code))
            .collect();
        seen.sort();
        seen
    }

    pub(super) async fn quarantine_entries(&self) -> Vec<QuarantineEntry> {
        let filter = QuarantineFilter::default();
        self.deps
            .stores
            .quarantine
            .list(&self.options.tenant, &filter, None, 10_000)
            .await
            .unwrap()
    }
}

/// The events of a batch as text: venue, kind, time, sensor, key, revision, payload.
pub(super) fn texts<'a>(venue: &'a str, events: &'a EventBatch) -> impl Iterator<Item = Row> + 'a {
    (0..events.len()).map(move |row| {
        let payload: Vec<String> = events
            .payload
            .iter()
            .map(|column| match column {
                Column::F32(v) if v[row].is_nan() => "-".to_owned(),
                Column::F32(v) => v[row].to_string(),
                Column::F64(v) if v[row].is_nan() => "-".to_owned(),
                Column::F64(v) => v[row].to_string(),
                Column::I64(v) if v[row] == NO_I64 => "-".to_owned(),
                Column::I64(v) => v[row].to_string(),
                Column::Text(v) if v[row] == NO_TEXT => "-".to_owned(),
                Column::Text(v) => events.strings.get(v[row]).to_owned(),
            })
            .collect();
        let (sensor, key) = (events.sensor(row), events.key(row).replace('\u{1f}', "/"));
        let (kind, ts, revision) = (events.kind, events.ts[row], events.revision[row]);
        format!(
            "{venue} {kind} {ts} {sensor} {key} {revision} {}",
            payload.join(" ")
        )
    })
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
