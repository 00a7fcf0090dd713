//! What the benchmarks of the real binary share: the same shops, walkers in landing files, and the kernel's accounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use dwell_model::event::EventBatch;
use dwell_model::testing::walkers;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

pub(crate) const DWELL: &str = env!("CARGO_BIN_EXE_dwell");
pub(crate) const VENUES: usize = 4;
const DAY_MS: i64 = 86_400_000;
/// 2026-09-01, a Tuesday.
const FIRST_DAY: i64 = 1_788_220_800_000;
const EVENTS_PER_DAY: usize = 250_000;

/// A file of the venues, each with the same zones.
pub(crate) fn write_venues(folder: &Path) -> PathBuf {
    let zones: Vec<String> = (0..12)
        .map(|i| {
            let (x, y) = (f64::from(i % 4) * 5.0, f64::from(i / 4) * 6.0);
            format!(
                r#"{{"id":"zone-{i:02}","polygon":[[{x},{y}],[{},{y}],[{},{}],[{x},{}]]}}"#,
                x + 4.5,
                x + 4.5,
                y + 5.0,
                y + 5.0
            )
        })
        .chain([
            r#"{"id":"star","polygon":[[10.1,9.9],[12.4,8.7],[14.9,10.2],[13.2,12.8],[10.9,12.1]]}"#
                .to_owned(),
        ])
        .chain([r#"{"id":"probe","polygon":[[100,100],[101,100],[101,101],[100,101]]}"#.to_owned()])
        .collect();
    let venues: Vec<String> = (0..VENUES)
        .map(|v| format!(r#"{{"id":"v{v}","tz":"Etc/UTC","zones":[{}]}}"#, zones.join(",")))
        .collect();
    let path = folder.join("venues.json");
    std::fs::write(&path, format!("[{}]", venues.join(","))).expect("a file");
    path
}

/// Landing files of a million rows in arrival order, 2 % delivered twice; returns the rows.
pub(crate) fn write_landing(landing: &Path, events: usize) -> usize {
    std::fs::create_dir_all(landing).expect("a folder");
    let days = events.div_ceil(EVENTS_PER_DAY * VENUES);
    let mut rows = 0;
    for day in 0..days {
        let start = FIRST_DAY + day as i64 * DAY_MS;
        let per_venue = EVENTS_PER_DAY.min(events / VENUES);
        let batches: Vec<EventBatch> = (0..VENUES)
            .map(|v| walkers(per_venue, start, start + DAY_MS, (day * VENUES + v) as u64))
            .collect();
        let mut order: Vec<(i64, usize, usize)> = Vec::new();
        for (venue, batch) in batches.iter().enumerate() {
            for row in 0..batch.len() {
                let late = (row * 7_919) as i64 % 300;
                order.push((batch.ts[row] + late, venue, row));
                if row % 50 == 0 {
                    order.push((batch.ts[row] + 60_000, venue, row));
                }
            }
        }
        order.sort_unstable();
        rows += order.len();
        let text = |pick: &dyn Fn(usize, usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(
                order.iter().map(|&(_, venue, row)| pick(venue, row)),
            ))
        };
        let floats = |column: usize| -> ArrayRef {
            Arc::new(Float32Array::from_iter_values(
                order.iter().map(|&(_, v, row)| batches[v].f32s(column)[row]),
            ))
        };
        let ts: ArrayRef = Arc::new(Int64Array::from_iter_values(
            order.iter().map(|&(_, v, row)| batches[v].ts[row]),
        ));
        let batch = RecordBatch::try_from_iter([
            ("venue", text(&|venue, _| format!("v{venue}"))),
            (
                "sensor",
                text(&|venue, row| batches[venue].sensor(row).to_owned()),
            ),
            ("track", text(&|venue, row| batches[venue].key(row).to_owned())),
            ("ts", ts),
            ("x", floats(0)),
            ("y", floats(1)),
        ])
        .expect("a batch");
        let file = std::fs::File::create(landing.join(format!("part-{day:05}.parquet"))).expect("a file");
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    }
    rows
}

/// CPU seconds of this process and of the children that it waited for.
pub(crate) fn own_cpu() -> f64 {
    // utime, stime, and those of children that were waited for.
    stat("/proc/self/stat", &[13, 14, 15, 16])
}

/// The sum of fields of a process's statistics, in seconds.
pub(crate) fn stat(path: &str, fields: &[usize]) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(path).expect("Linux's process statistics");
    let after_name = text.rsplit_once(") ").expect("a name in brackets").1;
    let values: Vec<&str> = after_name.split(' ').collect();
    fields
        .iter()
        .map(|&field| values[field - 2].parse::<f64>().expect("a number"))
        .sum::<f64>()
        / TICKS_PER_SECOND
}
