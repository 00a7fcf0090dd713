//! What `dwell import --to archive` costs per event: CPU of all threads, from files to committed venue-days.
//!
//! `cargo bench -p dwell-ingest --bench import` makes a million positions itself. `DWELL_BENCH_EVENTS` sets their number;
//! `DWELL_BENCH_FILES` and `DWELL_BENCH_VENUES` (a folder of Parquet, a JSON array of `{id, tz}`) take others instead.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may fail"
)]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use dwell_ingest::sources::files::{ImportDeps, ImportOptions, NoProgress, Road, import};
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::layout::{Layout, Venue};
use dwell_model::time::VenueCalendar;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use parquet::arrow::ArrowWriter;

const ROWS_PER_FILE: usize = 250_000;
/// 2026-10-24T00:00Z, long enough ago wherever this runs: the future is let in.
const FIRST_TS: i64 = 1_792_800_000_000;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    let events = match std::env::args().any(|argument| argument == "--bench") {
        true => std::env::var("DWELL_BENCH_EVENTS").map_or(1_000_000, |n| n.parse().unwrap()),
        false => 10_000,
    };
    let folder = tempfile::tempdir().unwrap();
    let landing = folder.path().join("landing");
    let given = std::env::var_os("DWELL_BENCH_FILES").map(PathBuf::from);
    let venues = match std::env::var_os("DWELL_BENCH_VENUES") {
        Some(path) => read_venues(Path::new(&path)),
        None => (0..8)
            .map(|n| (format!("v{n}"), "Europe/Madrid".to_owned()))
            .collect(),
    };
    if given.is_none() {
        write_landing(&landing, events, venues.len());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(
        given.unwrap_or(landing),
        &folder.path().join("data"),
        &venues,
    ));
}

async fn measure(landing: PathBuf, data: &Path, venues: &[(String, String)]) {
    let (paths, clock) = (DataPaths::new(data), SystemClock::shared());
    let stores = SqliteStores::open(&paths, Arc::clone(&clock)).await.unwrap();
    let archive = DeltaArchive::local(&paths.archive, Arc::clone(&clock)).unwrap();
    let stores = stores.with_archive(Arc::new(archive));
    let tenant = TenantId::new("bench").unwrap();
    stores.registry.create_tenant(&tenant).await.unwrap();
    for (id, tz) in venues {
        let venue = Venue {
            id: VenueId::new(id).unwrap(),
            name: None,
            calendar: VenueCalendar::from_names(tz, 0).unwrap(),
            tags: Vec::new(),
            layouts: vec![Layout::empty()],
        };
        let _ = stores.registry.put_venue(&tenant, &venue, None).await.unwrap();
    }
    let mut options = ImportOptions::new(tenant, paths.spill.clone());
    options.road = Road::Archive;
    // The events may lie in the future of this machine; then their days are open, and the road would be the log.
    let deps = ImportDeps {
        stores,
        clock: Arc::new(dwell_runtime::clock::ManualClock::at_ms(4_000_000_000_000)),
    };
    let (stopwatch, cpu_before) = (Stopwatch::start(), cpu_seconds());
    let report = import(vec![landing], &options, &deps, Arc::new(NoProgress))
        .await
        .unwrap();
    let (wall, cpu) = (stopwatch.elapsed_seconds(), cpu_seconds() - cpu_before);
    let bytes = folder_bytes(&paths.archive);
    let per_event = |total: f64| total / report.accepted.max(1) as f64;
    println!(
        "import --to archive: {} events, {} refused, {} days; {:.3} µs of CPU per event ({cpu:.2} s, {wall:.2} s of wall); \
         {:.2} bytes per event in the archive; peak {} MiB",
        report.accepted,
        report.refused,
        report.days_changed,
        per_event(cpu * 1e6),
        per_event(bytes as f64),
        peak_memory_mib(),
    );
}

fn read_venues(path: &Path) -> Vec<(String, String)> {
    let venues: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |venue: &serde_json::Value, field: &str| venue[field].as_str().unwrap().to_owned();
    venues
        .as_array()
        .unwrap()
        .iter()
        .map(|venue| (text(venue, "id"), text(venue, "tz")))
        .collect()
}

/// People walking about, one position a second each, in order of arrival.
fn write_landing(folder: &Path, events: usize, venues: usize) {
    std::fs::create_dir_all(folder).unwrap();
    let walkers = 100 * venues;
    for (file, start) in (0..events).step_by(ROWS_PER_FILE).enumerate() {
        let rows = start..(start + ROWS_PER_FILE).min(events);
        let walker = |row: usize| row % walkers;
        let second = |row: usize| (row / walkers) as i64;
        let text = |make: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.clone().map(make)))
        };
        let metres = |phase: f64| -> ArrayRef {
            let centimetres = |row: usize| {
                (1_000.0 * (1.0 + (second(row) as f64 / 60.0 + phase * walker(row) as f64).sin())).round()
            };
            Arc::new(Float32Array::from_iter_values(
                rows.clone().map(|row| (centimetres(row) / 100.0) as f32),
            ))
        };
        // A new track every twenty minutes.
        let track = |row: usize| format!("{:012x}", (second(row) / 1_200) as usize * walkers + walker(row));
        let jitter = |row: usize| (row * 7_919 % 80) as i64;
        let batch = RecordBatch::try_from_iter([
            ("venue", text(&|row| format!("v{}", walker(row) % venues))),
            ("sensor", text(&|row| format!("s{}", walker(row) % 24))),
            ("track", text(&track)),
            (
                "ts",
                Arc::new(Int64Array::from_iter_values(
                    rows.clone()
                        .map(|row| FIRST_TS + 1_000 * second(row) + jitter(row)),
                )) as ArrayRef,
            ),
            ("x", metres(1.0)),
            ("y", metres(2.0)),
        ]);
        let batch = batch.unwrap();
        let out = std::fs::File::create(folder.join(format!("part-{file:05}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(out, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

/// User and system time of this process so far, from /proc (clock ticks are hundredths of a second on Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| {
        fields
            .get(field)
            .and_then(|ticks| ticks.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1_024
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) if entry.path().extension().is_some_and(|ending| ending == "parquet") => {
                metadata.len()
            }
            _ => 0,
        })
        .sum()
}
