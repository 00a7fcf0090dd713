//! What the embedded raw table costs: CPU per row and bytes on disk per row, for positions in arrival order.
//!
//! `cargo bench -p dwell-storage --bench raw_apply [-- ROWS]` (default 1,000,000). Rows come as the raw writer writes
//! them ([`raw_posts`]): 10,000 per transaction.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails loudly and prints its figures"
)]

mod raw_posts;

use std::path::Path;

use dwell_model::event::Kind;
use dwell_model::time::DAY_MS;
use dwell_runtime::clock::SystemClock;
use dwell_storage::api::{RawEventsReader, RawEventsWriter};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;

use self::raw_posts::{Cost, FIRST_TS, POSTS_PER_WRITE, ROWS_PER_POST, Source};

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
