//! What the archive costs per event: `cargo bench -p dwell-storage --bench archive`.
//!
//! About a million generated positions of four venue-days go the way of an import: sorted by day, rewritten (united,
//! hashed, written, flushed, read back), committed, read, verified, rewritten again with nothing new. The same rows
//! through the `parquet` crate's Arrow writer and reader stand beside it. Figures are CPU time of all threads where the
//! system tells it (Linux), else wall time; the best of three rounds counts.
//!
//! With `-- --million 100` a hundred million events of twenty venues go that way once instead, in a sorter that holds
//! 512 MiB: for the peak of memory.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a program that prints figures and may stop at any failure"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::datatypes::UInt32Type;
use async_trait::async_trait;
use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_TEXT, sort_by_key};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{
    ArchiveReader, ArchiveWriter, ArchivedDay, DeliveredRows, Projection, Rewrite, StagedDay, StillHeld,
};
use dwell_storage::archive::{BulkSorter, DeltaArchive};
use dwell_storage::error::Result;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

const DAYS: u64 = 4;
const DAY_EVENTS: usize = 250_000;
const ROUNDS: usize = 3;
/// 2026-03-29T00:00:00Z.
const DAY_START: i64 = 1_774_742_400_000;
/// Rows of a piece that an import hands over.
const PIECE_ROWS: usize = 16 << 10;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--million")
        .skip(1);
    if let Some(million) = arguments.next() {
        return large_import(million.parse().expect("a number of million events")).await;
    }
    let days: Vec<EventBatch> = (0..DAYS)
        .map(|day| day_of_positions(DAY_EVENTS, DAY_START + day as i64 * 86_400_000, day))
        .collect();
    let events: usize = days.iter().map(EventBatch::len).sum();
    let mut best = Figures::default();
    for _ in 0..ROUNDS {
        archive_round(&days, events, &mut best).await;
        arrow_round(&days, events, &mut best);
    }
    println!("{events} events in {DAYS} venue-days, best of {ROUNDS}");
    best.print();
}

/// Events of twenty venues, day after day, as they would arrive; days are committed as they come out of the sorter.
async fn large_import(million: usize) {
    const VENUES: usize = 20;
    let one_day = pieces(&day_of_positions(DAY_EVENTS, DAY_START, 1));
    let day_events: usize = one_day.iter().map(DeliveredRows::len).sum();
    let days = (million * 1_000_000).div_ceil(VENUES * day_events);
    let events = days * VENUES * day_events;
    let dir = tempfile::tempdir().unwrap();
    let archive = DeltaArchive::local(dir.path(), SystemClock::shared()).unwrap();
    let watch = CpuWatch::start();
    let mut sorter = BulkSorter::new(&dir.path().join("spill"), 512 << 20).unwrap();
    for day in 0..days {
        for piece in &one_day {
            for number in 0..VENUES {
                let mut piece = piece.clone();
                piece
                    .events
                    .ts
                    .iter_mut()
                    .for_each(|ts| *ts += day as i64 * 86_400_000);
                sorter.push(&numbered_venue(number), date(day), piece).unwrap();
            }
        }
    }
    let spilled = sorter.spilled_rows();
    println!(
        "sorted {events} events, {spilled} of them spilled: {:.1} ns/event",
        watch.elapsed_ns() / events as f64
    );
    let watch = CpuWatch::start();
    let (mut staged, mut bytes) = (Vec::new(), 0);
    for day in sorter.finish() {
        if let Rewrite::Staged(day) = archive
            .rewrite_day(&day.venue, day.kind, day.day, 1, day.rows)
            .await
            .unwrap()
        {
            bytes += day.holds.events.iter().map(|file| file.bytes).sum::<u64>();
            staged.push(day);
        }
        if staged.len() == 128 {
            archive
                .commit(std::mem::take(&mut staged), &AllHeld)
                .await
                .unwrap();
        }
    }
    archive.commit(staged, &AllHeld).await.unwrap();
    println!(
        "written and committed: {:.1} ns/event, {bytes} bytes",
        watch.elapsed_ns() / events as f64
    );
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status
            .lines()
            .filter(|line| line.starts_with("VmHWM"))
            .for_each(|line| println!("{line}"));
    }
}

fn numbered_venue(number: usize) -> VenueKey {
    VenueKey::new(venue().tenant, VenueId::new(&format!("v{number:03}")).unwrap())
}

/// CPU time that this process uses.
#[derive(Clone, Copy)]
struct CpuWatch {
    wall: Stopwatch,
    cpu_ns: Option<f64>,
}

impl CpuWatch {
    fn start() -> Self {
        Self {
            wall: Stopwatch::start(),
            cpu_ns: cpu_ns(),
        }
    }

    fn elapsed_ns(&self) -> f64 {
        match (self.cpu_ns, cpu_ns()) {
            (Some(before), Some(now)) => now - before,
            _ => self.wall.elapsed_seconds() * 1e9,
        }
    }
}

/// Time on a CPU of all threads that live; those of this program live on between its steps.
fn cpu_ns() -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let of_thread = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    Some(threads.flatten().filter_map(of_thread).sum())
}

/// The least value of each figure.
#[derive(Default)]
struct Figures(BTreeMap<(u8, &'static str), (f64, &'static str)>);

impl Figures {
    fn take(&mut self, place: u8, name: &'static str, value: f64, unit: &'static str) {
        let known = self.0.entry((place, name)).or_insert((f64::MAX, unit));
        known.0 = known.0.min(value);
    }

    fn print(&self) {
        for ((_, name), (value, unit)) in &self.0 {
            println!("{name:<48} {value:>9.2} {unit}");
        }
    }
}

async fn archive_round(days: &[EventBatch], events: usize, best: &mut Figures) {
    let dir = tempfile::tempdir().unwrap();
    let archive = DeltaArchive::local(dir.path(), SystemClock::shared()).unwrap();
    let per_event = |watch: CpuWatch| watch.elapsed_ns() / events as f64;

    let pieces: Vec<(LocalDay, Vec<DeliveredRows>)> = days
        .iter()
        .enumerate()
        .map(|(day, batch)| (date(day), pieces(batch)))
        .collect();
    for (budget, place, name) in [
        (1 << 30, 0, "sort by day, in memory"),
        (8 << 20, 1, "sort by day, spilled and merged"),
    ] {
        let given = pieces.clone();
        let watch = CpuWatch::start();
        let mut sorter = BulkSorter::new(&dir.path().join("spill"), budget).unwrap();
        for (day, pieces) in given {
            pieces
                .into_iter()
                .for_each(|piece| sorter.push(&venue(), day, piece).unwrap());
        }
        let mut rows = 0;
        for mut day in sorter.finish() {
            while let Some(part) = day.rows.next_part().unwrap() {
                rows += part.len();
            }
        }
        assert_eq!(rows, events);
        best.take(place, name, per_event(watch), "ns/event");
    }

    let mut sorter = BulkSorter::new(&dir.path().join("spill"), 1 << 30).unwrap();
    for (day, pieces) in pieces {
        pieces
            .into_iter()
            .for_each(|piece| sorter.push(&venue(), day, piece).unwrap());
    }
    let watch = CpuWatch::start();
    let mut staged = Vec::new();
    for day in sorter.finish() {
        match archive
            .rewrite_day(&day.venue, day.kind, day.day, 1, day.rows)
            .await
            .unwrap()
        {
            Rewrite::Staged(day) => staged.push(day),
            Rewrite::Unchanged(_) => panic!("nothing was there"),
        }
    }
    best.take(
        2,
        "rewrite: unite, hash, write, flush, read back",
        per_event(watch),
        "ns/event",
    );
    let watch = CpuWatch::start();
    let held: Vec<ArchivedDay> = staged.iter().map(|day| day.holds.clone()).collect();
    archive.commit(staged, &AllHeld).await.unwrap();
    best.take(
        3,
        "commit of four days, two datasets",
        watch.elapsed_ns() / 1e6,
        "ms",
    );
    let size = |of: fn(&ArchivedDay) -> u64| held.iter().map(of).sum::<u64>() as f64;
    let rows = size(|day| day.events.iter().map(|file| file.rows).sum());
    let bytes = size(|day| day.events.iter().map(|file| file.bytes).sum());
    best.take(4, "events' files", bytes / rows, "bytes/event");
    let further = size(|day| day.superseded.iter().map(|file| file.bytes).sum());
    best.take(5, "superseded rows' files", further / rows, "bytes/event");

    for (projection, place, name) in [
        (Projection::Events, 6, "read events"),
        (Projection::EventsAndDeliveries, 7, "read events and deliveries"),
    ] {
        let watch = CpuWatch::start();
        let mut read = 0;
        for day in &held {
            let mut reader = archive.open(&venue(), day, projection).await.unwrap();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                read += chunk.events.len();
            }
        }
        assert_eq!(read as f64, rows);
        best.take(place, name, per_event(watch), "ns/event");
    }
    let watch = CpuWatch::start();
    for day in &held {
        archive.verify(&venue(), day).await.unwrap();
    }
    best.take(8, "verify", per_event(watch), "ns/event");
    let again: Vec<DeliveredRows> = days
        .iter()
        .map(|batch| DeliveredRows::delivered_once(batch.clone(), delivery(1)))
        .collect();
    let watch = CpuWatch::start();
    for (day, rows) in again.into_iter().enumerate() {
        let rewrite = archive
            .rewrite_day(&venue(), Kind::Position, date(day), 2, Box::new(rows))
            .await
            .unwrap();
        assert!(matches!(rewrite, Rewrite::Unchanged(_)));
    }
    best.take(9, "rewrite with nothing new", per_event(watch), "ns/event");
}

/// The same rows through the `parquet` crate's own Arrow writer and reader, set alike.
fn arrow_round(days: &[EventBatch], events: usize, best: &mut Figures) {
    let sorted: Vec<EventBatch> = days.iter().map(|day| day.take(&sort_by_key(day))).collect();
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for column in ["ts", "x", "y"] {
        let column = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    let properties = properties.build();
    let watch = CpuWatch::start();
    let files: Vec<bytes::Bytes> = sorted
        .iter()
        .map(|day| {
            let batch = arrow_batch(day);
            let mut writer =
                ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.clone())).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap().into()
        })
        .collect();
    let per_event = |watch: CpuWatch| watch.elapsed_ns() / events as f64;
    best.take(
        10,
        "for comparison: Arrow writer, sorted rows",
        per_event(watch),
        "ns/event",
    );
    let bytes: usize = files.iter().map(bytes::Bytes::len).sum();
    best.take(
        11,
        "for comparison: Arrow writer's files",
        bytes as f64 / events as f64,
        "bytes/event",
    );
    let watch = CpuWatch::start();
    let mut rows = 0;
    for file in files {
        let options = ArrowReaderOptions::new();
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
        for batch in builder.with_batch_size(32 << 10).build().unwrap() {
            rows += batch.unwrap().num_rows();
        }
    }
    assert_eq!(rows, events);
    best.take(12, "for comparison: Arrow reader", per_event(watch), "ns/event");
}

fn arrow_batch(day: &EventBatch) -> RecordBatch {
    let names = Arc::new(StringArray::from_iter_values(day.strings.iter()));
    let texts = |ids: &[u32]| -> ArrayRef {
        let numbers = UInt32Array::from(ids.to_vec());
        Arc::new(DictionaryArray::<UInt32Type>::try_new(numbers, Arc::<StringArray>::clone(&names)).unwrap())
    };
    let hundredths = |values: &[f32]| -> ArrayRef {
        let values = values.iter().map(|value| (value * 100.0).round() as i128);
        Arc::new(
            Decimal128Array::from_iter_values(values)
                .with_precision_and_scale(9, 2)
                .unwrap(),
        )
    };
    RecordBatch::try_from_iter([
        ("track", texts(&day.key)),
        ("ts", Arc::new(Int64Array::from(day.ts.clone())) as ArrayRef),
        ("sensor", texts(&day.sensor)),
        ("x", hundredths(day.f32s(0))),
        ("y", hundredths(day.f32s(1))),
    ])
    .unwrap()
}

struct AllHeld;

#[async_trait]
impl StillHeld for AllHeld {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(true)
    }
}

fn venue() -> VenueKey {
    VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("shop").unwrap())
}

fn date(day: usize) -> LocalDay {
    "2026-03-29".parse::<LocalDay>().unwrap().plus(day as u64)
}

fn delivery(number: u128) -> Delivery {
    Delivery {
        received_at: DAY_START,
        receipt: Receipt::from_u128(number),
    }
}

/// Cut in the order of arrival, each piece with a dictionary of its own, as a file's reader hands them over.
fn pieces(day: &EventBatch) -> Vec<DeliveredRows> {
    let rows: Vec<u32> = (0..day.len() as u32).collect();
    rows.chunks(PIECE_ROWS)
        .map(|rows| {
            let mut piece = EventBatch::new(day.kind);
            rows.iter().for_each(|&row| piece.push_from(day, row as usize));
            DeliveredRows::delivered_once(piece, delivery(1))
        })
        .collect()
}

/// A small generator of numbers (SplitMix64), the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal, of deviation 1.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.part()).sum::<f64>() - 6.0
    }
}

const WIDTH: f64 = 42.0;
const DEPTH: f64 = 30.0;

struct Position {
    arrival: i64,
    ts: i64,
    x: f32,
    y: f32,
    sensor: u32,
    track: u32,
}

/// About so many positions in the order of their arrival: people who walk from shelf to shelf and stop, once a second, to
/// the centimetre, with noise, lost samples, sensors of nine-metre cells, late and repeated events.
fn day_of_positions(events: usize, day_start: i64, seed: u64) -> EventBatch {
    let mut chance = Chance(seed);
    let mut rows: Vec<Position> = Vec::with_capacity(events + events / 16);
    let mut track = 0;
    while rows.len() < events {
        walk(&mut chance, day_start, track, &mut rows);
        track += 1;
    }
    rows.sort_by_key(|row| row.arrival);
    let mut batch = EventBatch::new(Kind::Position);
    let mut name = |text: String| batch.strings.intern(&text);
    let sensors: Vec<u32> = (0..20)
        .map(|_| name(format!("xs-{:06x}", chance.next() & 0xff_ffff)))
        .collect();
    let tracks: Vec<u32> = (0..track)
        .map(|_| name(format!("{:012x}", chance.next() & 0xffff_ffff_ffff)))
        .collect();
    batch.ts = rows.iter().map(|row| row.ts).collect();
    batch.sensor = rows.iter().map(|row| sensors[row.sensor as usize]).collect();
    batch.key = rows.iter().map(|row| tracks[row.track as usize]).collect();
    batch.revision = vec![0; rows.len()];
    batch.payload = vec![
        Column::F32(rows.iter().map(|row| row.x).collect()),
        Column::F32(rows.iter().map(|row| row.y).collect()),
        Column::Text(vec![NO_TEXT; rows.len()]),
    ];
    batch
}

/// One person's stay.
fn walk(chance: &mut Chance, day_start: i64, track: u32, rows: &mut Vec<Position>) {
    let stay = (1200.0 * (0.55 * chance.noise()).exp()).clamp(300.0, 3300.0) as i64;
    let arrives = day_start + 8 * 3_600_000 + (chance.part() * 12.0 * 3_600_000.0) as i64;
    let (mut x, mut y) = (3.0_f64, 0.3_f64);
    let (mut goal_x, mut goal_y, mut rest) = (x, y, 0.0);
    for second in 0..stay {
        if rest > 0.0 {
            rest -= 1.0;
        } else if (goal_x - x).abs() > 1.2 {
            x += 1.2 * (goal_x - x).signum();
        } else if (goal_y - y).abs() > 1.2 {
            y += 1.2 * (goal_y - y).signum();
        } else {
            rest = -36.0 * chance.part().max(1e-9).ln();
            (goal_x, goal_y) = (
                1.0 + chance.part() * (WIDTH - 2.0),
                1.0 + chance.part() * (DEPTH - 2.0),
            );
        }
        if chance.part() < 0.006 {
            continue;
        }
        let centimetre = |metres: f64, limit: f64, noise: f64| {
            ((metres + 0.07 * noise) * 100.0)
                .round()
                .clamp(0.0, limit * 100.0 - 1.0) as f32
                / 100.0
        };
        let ts = arrives + second * 1000 + (chance.part() * 81.0) as i64 - 40;
        let (x, y) = (
            centimetre(x, WIDTH, chance.noise()),
            centimetre(y, DEPTH, chance.noise()),
        );
        let sensor = (x / 9.0) as u32 * 4 + (y / 9.0) as u32;
        let late = if chance.part() < 0.01 {
            chance.part() * 600_000.0
        } else {
            0.0
        };
        let arrival = ts + 120 + (chance.part() * 300.0 + late) as i64;
        rows.push(Position {
            arrival,
            ts,
            x,
            y,
            sensor,
            track,
        });
        if chance.part() < 0.02 {
            let arrival = arrival + 1000 + (chance.part() * 119_000.0) as i64;
            rows.push(Position {
                arrival,
                ts,
                x,
                y,
                sensor,
                track,
            });
        }
    }
}
