//! What the embedded raw table costs: CPU per row and bytes on disk per row, for positions in arrival order.
//!
//! `cargo bench -p dwell-storage --bench raw_apply [-- ROWS]` (default 1,000,000). Rows come as the raw writer writes
//! them: 10,000 per transaction, from ten posts of different venues, event times within a few seconds of each other,
//! one row in twenty delivered twice. CPU is that of all threads, and of user and system, from the operating system's
//! books (Linux; elsewhere only wall time is shown).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails loudly and prints its figures"
)]

use std::path::Path;

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_TEXT, RawRows};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, slot_of};
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{ConsumerPosition, Mark, MarkSource, RawEventsReader, RawEventsWriter, RawWrite};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;

const FIRST_TS: i64 = 1_774_742_400_000;
const VENUES: usize = 20;
const TRACKS_AT_ONCE: u64 = 150;
const ROWS_PER_POST: usize = 1_000;
const POSTS_PER_WRITE: usize = 10;

fn main() {
    let rows = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(run(dir.path(), rows));
}

async fn run(dir: &Path, rows: usize) {
    let paths = DataPaths::new(dir);
    let stores = SqliteStores::open(&paths, SystemClock::shared()).await.unwrap();
    let mut source = Source::new();
    let writes = rows / (ROWS_PER_POST * POSTS_PER_WRITE);

    let mut cost = Cost::default();
    let (mut written, mut repeated) = (0, 0);
    for number in 0..writes {
        let write = source.write(number as i64);
        let applied = cost.of(stores.raw.apply(write)).await.unwrap();
        written += applied.new_rows;
        repeated += applied.repeated_rows;
    }
    cost.report("apply", written + repeated);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    rusqlite::Connection::open(&paths.data_db)
        .unwrap()
        .query_row(checkpoint, [], |_| Ok(()))
        .unwrap();
    let bytes = std::fs::metadata(&paths.data_db).unwrap().len();
    println!(
        "{written} rows, {repeated} redeliveries, {:.1} bytes on disk per row",
        bytes as f64 / written as f64
    );

    let mut cost = Cost::default();
    let again = source.repeat_last(writes as i64);
    let rows_again: usize = again.rows.iter().map(|(_, rows)| rows.len()).sum();
    for _ in 0..10 {
        cost.of(stores.raw.apply(again.clone())).await.unwrap();
    }
    cost.report(
        "apply what is there, by a new delivery and then by known ones",
        10 * rows_again as u64,
    );

    let mut cost = Cost::default();
    let mut scanned = 0;
    for venue in &source.venues {
        let range = FIRST_TS..FIRST_TS + DAY_MS;
        scanned += cost
            .of(stores.raw.scan(venue, Kind::Position, range))
            .await
            .unwrap()
            .len();
    }
    cost.report("scan", scanned as u64);
}

/// Posts in arrival order.
struct Source {
    venues: Vec<VenueKey>,
    seed: u64,
    posts: u64,
    last: Vec<(VenueKey, EventBatch)>,
}

impl Source {
    fn new() -> Self {
        let venue = |n| {
            VenueKey::new(
                TenantId::new("acme").unwrap(),
                VenueId::new(&format!("v{n:03}")).unwrap(),
            )
        };
        Self {
            venues: (0..VENUES).map(venue).collect(),
            seed: 7,
            posts: 0,
            last: Vec::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % limit
    }

    fn write(&mut self, position: i64) -> RawWrite {
        let posts: Vec<(VenueKey, EventBatch)> = (0..POSTS_PER_WRITE)
            .map(|_| {
                let post = self.posts;
                self.posts += 1;
                let venue = self.venues[post as usize % VENUES].clone();
                // A post covers a second and a half of a venue's 700 positions a second.
                let ts = FIRST_TS + (post / VENUES as u64) as i64 * 1_500;
                let batch = self.post(ts, post / VENUES as u64);
                (venue, batch)
            })
            .collect();
        let write = delivered(&posts, position);
        self.last = posts;
        write
    }

    fn post(&mut self, first_ts: i64, step: u64) -> EventBatch {
        let mut batch = EventBatch::new(Kind::Position);
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for row in 0..ROWS_PER_POST as u64 {
            if row % 20 == 19 {
                // A gateway that sends an event twice.
                let before = batch.ts.len() - 1;
                batch.ts.push(batch.ts[before]);
                batch.sensor.push(batch.sensor[before]);
                batch.key.push(batch.key[before]);
                xs.push(xs[before]);
                ys.push(ys[before]);
            } else {
                let track = step / 40 * TRACKS_AT_ONCE / 4 + self.below(TRACKS_AT_ONCE);
                let sensor = format!("cam-{:02}", track % 12);
                let (sensor, track) = (
                    batch.strings.intern(&sensor),
                    batch.strings.intern(&format!("t-{track:08x}")),
                );
                batch.ts.push(first_ts + self.below(3_500) as i64);
                batch.sensor.push(sensor);
                batch.key.push(track);
                xs.push(self.below(6_000) as f32 / 100.0);
                ys.push(self.below(4_000) as f32 / 100.0);
            }
            batch.revision.push(0);
        }
        batch.payload = vec![
            Column::F32(xs),
            Column::F32(ys),
            Column::Text(vec![NO_TEXT; ROWS_PER_POST]),
        ];
        batch.check().unwrap();
        batch
    }

    fn repeat_last(&self, position: i64) -> RawWrite {
        delivered(&self.last, position)
    }
}

fn delivered(posts: &[(VenueKey, EventBatch)], position: i64) -> RawWrite {
    let mut write = RawWrite::default();
    for (i, (venue, batch)) in posts.iter().enumerate() {
        let receipt = Receipt::derive(
            b"gateway",
            &[position.to_be_bytes(), (i as i64).to_be_bytes()].concat(),
        );
        let by = Delivery {
            received_at: FIRST_TS + position,
            receipt,
        };
        let mut slots: Vec<i64> = batch.ts.iter().map(|&ts| slot_of(ts)).collect();
        slots.dedup();
        let mark = |slot| Mark {
            venue: venue.clone(),
            slot,
            source: MarkSource::log(1, 0),
            position,
        };
        write.marks.extend(slots.into_iter().map(mark));
        write
            .rows
            .push((venue.clone(), RawRows::delivered_once(batch.clone(), by)));
    }
    write.position = Some(ConsumerPosition {
        consumer: "raw-writer",
        epoch: 1,
        partition: 0,
        position,
    });
    write
}

/// Time spent in some calls, everything around them left out.
#[derive(Default)]
struct Cost {
    wall_seconds: f64,
    slowest_seconds: f64,
    cpu_seconds: f64,
}

impl Cost {
    async fn of<T>(&mut self, call: impl Future<Output = T>) -> T {
        let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
        let outcome = call.await;
        let took = stopwatch.elapsed_seconds();
        self.wall_seconds += took;
        self.slowest_seconds = self.slowest_seconds.max(took);
        self.cpu_seconds += cpu_seconds() - cpu;
        outcome
    }

    fn report(&self, what: &str, rows: u64) {
        let per_row = |seconds: f64| seconds * 1e6 / rows as f64;
        let (wall, cpu) = (per_row(self.wall_seconds), per_row(self.cpu_seconds));
        let slowest_ms = self.slowest_seconds * 1e3;
        println!(
            "{what}: {rows} rows, {wall:.3} µs wall, {cpu:.3} µs CPU per row, slowest call {slowest_ms:.0} ms"
        );
    }
}

/// CPU time of all threads of this process.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanoseconds: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}
