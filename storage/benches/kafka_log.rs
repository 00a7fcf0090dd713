//! What the event log on Kafka costs this process: CPU per event for appending and for reading, events per second with
//! the broker on the same machine, and bytes per event in the topics.
//!
//! `DWELL_TEST_KAFKA=host:port cargo bench -p dwell-storage --bench kafka_log [-- EVENTS]` (default 1,000,000). Calls of
//! 1,000 positions (8 people walking, five positions a second each) by 8 callers at once, with several compressions
//! (`DWELL_BENCH_COMPRESSIONS`); then reading all of it. CPU is that of all threads of this process (Linux); the
//! broker's is not in it. Bytes are those of the log segments in `DWELL_BENCH_KAFKA_DIR`, the broker's `log.dirs`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails loudly and prints its figures"
)]

use std::collections::BTreeMap;
use std::path::Path;

use dwell_model::event::Kind;
use dwell_model::ids::Receipt;
use dwell_model::testing::position_batch;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{EventLogReader, EventLogWriter, LogRecord, Partition};
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use dwell_storage::conformance::samples::{Dice, venue};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

const FIRST_TS: i64 = 1_774_742_400_000;
const EVENTS_PER_CALL: usize = 1_000;
const CALLERS: usize = 8;
const SHARDS: u32 = 4;

fn main() {
    let Ok(bootstrap) = std::env::var("DWELL_TEST_KAFKA") else {
        println!("DWELL_TEST_KAFKA names no broker: nothing is measured");
        return;
    };
    let events = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let compressions =
        std::env::var("DWELL_BENCH_COMPRESSIONS").unwrap_or_else(|_| "none,lz4,zstd,gzip".to_owned());
    for compression in compressions.split(',') {
        runtime.block_on(measure(&bootstrap, compression, events / EVENTS_PER_CALL));
    }
}

async fn measure(bootstrap: &str, compression: &str, calls: usize) {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    let mut properties = properties();
    properties.insert("compression.type".to_owned(), compression.to_owned());
    let config = KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        prefix: format!("dwellbench-{}", hex::encode(random)),
        shards: SHARDS,
        single_node: true,
        properties,
        ..KafkaConfig::default()
    };
    KafkaLogAdmin::create(&config, &SystemClock::new()).await.unwrap();
    let log = KafkaEventLog::open(&config, SystemClock::shared()).await.unwrap();
    let records: Vec<Vec<LogRecord>> = (0..CALLERS)
        .map(|caller| (0..calls / CALLERS).map(|call| record(caller, call)).collect())
        .collect();
    let events = CALLERS * (calls / CALLERS) * EVENTS_PER_CALL;
    let per_event = |seconds: f64| seconds * 1e6 / events as f64;

    let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
    let append_all = async |records: Vec<LogRecord>| {
        for record in records {
            log.append(vec![record]).await.unwrap();
        }
    };
    futures::future::join_all(records.into_iter().map(append_all)).await;
    let (wall, cpu) = (stopwatch.elapsed_seconds(), cpu_seconds() - cpu);
    println!(
        "append, {compression}: {:.0} events/s, {:.2} µs CPU per event",
        events as f64 / wall,
        per_event(cpu)
    );
    if let Ok(dir) = std::env::var("DWELL_BENCH_KAFKA_DIR") {
        let bytes = segment_bytes(Path::new(&dir), &config.prefix);
        println!(
            "  {:.1} bytes per event in the topic",
            bytes as f64 / events as f64
        );
    }

    let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
    let read_all = |partition: Partition| {
        let log = &log;
        async move {
            let (mut next, mut events) = (0, 0);
            loop {
                let chunk = log.read(partition, next, 4 << 20).await.unwrap();
                events += chunk
                    .records
                    .iter()
                    .map(|record| record.events.len())
                    .sum::<usize>();
                if chunk.next == next {
                    return events;
                }
                next = chunk.next;
            }
        }
    };
    let partitions = (0..SHARDS).map(|shard| shard * Kind::ALL.len() as u32 + Kind::Position as u32);
    let read: usize = futures::future::join_all(partitions.map(read_all))
        .await
        .iter()
        .sum();
    let (wall, cpu) = (stopwatch.elapsed_seconds(), cpu_seconds() - cpu);
    assert_eq!(read, events);
    println!(
        "  read: {:.0} events/s, {:.2} µs CPU per event",
        events as f64 / wall,
        per_event(cpu)
    );

    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let mut topics: Vec<String> = Kind::ALL.map(|kind| format!("{}.{kind}", config.prefix)).to_vec();
    topics.push(format!("{}.log", config.prefix));
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
}

/// Further settings of librdkafka: `DWELL_BENCH_PROPERTIES`, as `name=value,name=value`.
fn properties() -> BTreeMap<String, String> {
    let text = std::env::var("DWELL_BENCH_PROPERTIES").unwrap_or_default();
    text.split(',')
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a gateway sends every 25 seconds: eight people, five positions a second each.
fn record(caller: usize, call: usize) -> LogRecord {
    let mut dice = Dice::new((caller << 32 | call) as u64);
    let mut step = || dice.below(161) as f32 / 100.0 - 0.8;
    let people: Vec<String> = (0..8)
        .map(|person| format!("{:012x}", (call / 40 * 8 + person) * 7_919_003 + caller))
        .collect();
    let mut places = [(10.0_f32, 10.0_f32); 8];
    let mut rows = Vec::with_capacity(EVENTS_PER_CALL);
    for n in 0..EVENTS_PER_CALL {
        let (person, place) = (&people[n % 8], &mut places[n % 8]);
        *place = (place.0 + step(), place.1 + step());
        // Whole centimetres.
        let metres = |value: f32| (value * 100.0).round() / 100.0;
        let ts = FIRST_TS + (call * EVENTS_PER_CALL + n) as i64 * 25;
        rows.push(("xs-1", person.as_str(), ts, metres(place.0), metres(place.1)));
    }
    LogRecord {
        venue: venue("acme", &format!("store-{caller}")),
        receipt: Receipt::derive(b"bench", format!("{caller}/{call}").as_bytes()),
        events: position_batch(&rows),
        received_at: None,
    }
}

/// Bytes of the segments of a prefix's topics.
fn segment_bytes(dir: &Path, prefix: &str) -> u64 {
    let mut bytes = 0;
    for partition in std::fs::read_dir(dir).unwrap().flatten() {
        if !partition
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{prefix}.position"))
        {
            continue;
        }
        for file in std::fs::read_dir(partition.path()).unwrap().flatten() {
            if file
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                bytes += file.metadata().unwrap().len();
            }
        }
    }
    bytes
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
