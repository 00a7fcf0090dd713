//! What the raw table in Cassandra costs: rows per second and this process's CPU per row, and bytes on disk per row.
//!
//! `DWELL_TEST_CASSANDRA=127.0.0.1:9042 cargo bench -p dwell-storage --bench cassandra_raw [-- ROWS]` (default 500,000).
//! Rows come as the raw writer writes them ([`raw_posts`]): 10,000 per call. `DWELL_BENCH_NODETOOL` names the command of
//! the servers' own tool (`deploy/local/nodetool DIR 1`); with it, the table is flushed, compacted and weighed. The
//! keyspace is made for the run and dropped after it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark fails loudly and prints its figures"
)]

mod raw_posts;

use dwell_model::event::Kind;
use dwell_model::time::{DAY_MS, HOUR_MS};
use dwell_runtime::clock::SystemClock;
use dwell_storage::api::{RawEventsReader, RawEventsWriter, RawWrite};
use dwell_storage::backends::cassandra::{
    CassandraConfig, CassandraRawEvents, CassandraStores, WireCompression, contact_points, migrate,
};
use futures::stream::{self, StreamExt};
use scylla::client::session_builder::SessionBuilder;

use self::raw_posts::{Cost, FIRST_TS, POSTS_PER_WRITE, ROWS_PER_POST, Source};

fn main() {
    let Ok(points) = std::env::var("DWELL_TEST_CASSANDRA") else {
        println!("skipped: DWELL_TEST_CASSANDRA names no server");
        return;
    };
    let rows = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(500_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&points, rows));
}

async fn run(points: &str, rows: usize) {
    let config = CassandraConfig {
        contact_points: contact_points(points).unwrap(),
        keyspace: format!("dwell_bench_{}", std::process::id()),
        replication: 1,
        single_node: true,
        ..CassandraConfig::default()
    };
    let mut source = Source::new();
    for compression in [WireCompression::None, WireCompression::Lz4] {
        let config = CassandraConfig {
            compression,
            ..config.clone()
        };
        migrate(&config, SystemClock::shared()).await.unwrap();
        let stores = CassandraStores::open(&config, SystemClock::shared())
            .await
            .unwrap();
        println!("frames compressed: {compression:?}");
        apply(&mut source, &stores.raw, rows / 2).await;
    }
    let stores = CassandraStores::open(&config, SystemClock::shared())
        .await
        .unwrap();
    scan(&source, &stores.raw).await;
    weigh(&config.keyspace, rows / 2 * 2);

    let session = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .build()
        .await
        .unwrap();
    session
        .query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ())
        .await
        .unwrap();
}

/// Half of the writes one after the other, half of them four at a time, as four shards would.
async fn apply(source: &mut Source, raw: &CassandraRawEvents, rows: usize) {
    let writes: Vec<RawWrite> = (0..rows / (ROWS_PER_POST * POSTS_PER_WRITE))
        .map(|n| source.write(n as i64))
        .collect();
    let (first, second) = writes.split_at(writes.len() / 2);
    for (what, writes, at_once) in [("apply", first, 1), ("apply, four at a time", second, 4)] {
        let (writes, rows) = (writes.to_vec(), writes.len() * ROWS_PER_POST * POSTS_PER_WRITE);
        let mut cost = Cost::default();
        if at_once == 1 {
            for write in writes {
                cost.of(raw.apply(write)).await.unwrap();
            }
        } else {
            // All of it counts as one call: those at the same time share the CPU's time.
            let all = stream::iter(writes)
                .map(|write| raw.apply(write))
                .buffer_unordered(at_once);
            cost.of(all.for_each(async |applied| assert!(applied.is_ok())))
                .await;
        }
        cost.report(what, rows as u64);
    }
    let again = source.repeat_last(writes.len() as i64);
    let mut cost = Cost::default();
    for _ in 0..10 {
        cost.of(raw.apply(again.clone())).await.unwrap();
    }
    let rows = 10 * ROWS_PER_POST * POSTS_PER_WRITE;
    cost.report(
        "apply what is there, by a new delivery and then by known ones",
        rows as u64,
    );
}

async fn scan(source: &Source, raw: &CassandraRawEvents) {
    for (what, step_ms) in [("scan a day at once", DAY_MS), ("scan hour by hour", HOUR_MS)] {
        let mut cost = Cost::default();
        let mut rows = 0;
        for venue in &source.venues {
            for hour in 0..DAY_MS / step_ms {
                let start = FIRST_TS + hour * step_ms;
                let range = start..start + step_ms;
                rows += cost
                    .of(raw.scan(venue, Kind::Position, range))
                    .await
                    .unwrap()
                    .len();
            }
        }
        cost.report(what, rows as u64);
    }
    let mut cost = Cost::default();
    let mut rows = 0;
    for venue in &source.venues {
        let counts = cost
            .of(raw.count(venue, FIRST_TS..FIRST_TS + DAY_MS))
            .await
            .unwrap();
        rows += counts.iter().map(|(_, rows)| rows).sum::<u64>();
    }
    cost.report("count", rows);
}

/// Bytes on disk per row written, after a flush and a compaction.
fn weigh(keyspace: &str, rows: usize) {
    let Ok(nodetool) = std::env::var("DWELL_BENCH_NODETOOL") else {
        println!("DWELL_BENCH_NODETOOL names no command: not weighed");
        return;
    };
    let mut words = nodetool.split_whitespace();
    let (program, before): (_, Vec<&str>) = (words.next().unwrap(), words.collect());
    let nodetool = |after: &[&str]| {
        let output = std::process::Command::new(program)
            .args(&before)
            .args(after)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    nodetool(&["flush", keyspace]);
    nodetool(&["compact", keyspace]);
    let stats = nodetool(&["tablestats", &format!("{keyspace}.raw_position")]);
    let live = stats
        .lines()
        .find_map(|line| line.trim().strip_prefix("Space used (live): "))
        .unwrap();
    let bytes: f64 = live.trim().parse().unwrap();
    println!(
        "{:.1} bytes on disk per row written, one copy",
        bytes / rows as f64
    );
}
