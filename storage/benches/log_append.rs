//! What the embedded event log costs: CPU per event and bytes per event, and how many appends share an fsync.
//!
//! `cargo bench -p dwell-storage --bench log_append [-- CALLS]` (default 2,000). Calls of 1,000 positions and of one, by
//! one caller and by 32 at once, then reading all of it back. CPU is that of all threads (Linux).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails loudly and prints its figures"
)]

use dwell_model::event::EventBatch;
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::testing::position_batch;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{EventLog, EventLogWriter, LogRecord};
use dwell_storage::backends::sqlite::{AppendLimits, SqliteEventLog};

const FIRST_TS: i64 = 1_774_742_400_000;

fn main() {
    let calls = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(2_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (events, callers) in [(1_000, 1), (1_000, 32), (1, 1), (1, 32), (1, 256)] {
            measure(calls, events, callers).await;
        }
    });
}

async fn measure(calls: usize, events: usize, callers: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let log = SqliteEventLog::open(&path, AppendLimits::default(), SystemClock::shared()).unwrap();
    let record = record(events);

    let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
    let call_all = |n: usize| {
        let (log, record) = (&log, &record);
        async move {
            for _ in 0..n {
                log.append(vec![record.clone()]).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..callers).map(|_| call_all(calls / callers))).await;
    let (wall, cpu) = (stopwatch.elapsed_seconds(), cpu_seconds() - cpu);
    let calls = calls / callers * callers;
    let per_event = |seconds: f64| seconds * 1e6 / (calls * events) as f64;
    println!(
        "append: {callers} callers, {events} events a call: {:.0} calls/s, {:.3} µs CPU per event",
        calls as f64 / wall,
        per_event(cpu)
    );

    let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
    let read = read_all(&log).await;
    assert_eq!(read, calls * events);
    let bytes = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT sum(length(batch)) FROM records", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap();
    println!(
        "  read back: {:.3} µs wall, {:.3} µs CPU per event; {:.1} bytes per event",
        per_event(stopwatch.elapsed_seconds()),
        per_event(cpu_seconds() - cpu),
        bytes as f64 / read as f64
    );
}

async fn read_all(log: &dyn EventLog) -> usize {
    let (mut from, mut events) = (0, 0);
    loop {
        let chunk = log.read(0, from, 1 << 20).await.unwrap();
        if chunk.records.is_empty() {
            return events;
        }
        from = chunk.next;
        events += chunk
            .records
            .iter()
            .map(|logged| logged.events.len())
            .sum::<usize>();
    }
}

fn record(events: usize) -> LogRecord {
    let names: Vec<(String, String)> = (0..events)
        .map(|n| (format!("cam-{:02}", n % 12), format!("t-{:08x}", n * 7 % 150)))
        .collect();
    let rows: Vec<(&str, &str, i64, f32, f32)> = names
        .iter()
        .enumerate()
        .map(|(n, (sensor, track))| {
            let place = n as f32;
            (
                sensor.as_str(),
                track.as_str(),
                FIRST_TS + n as i64,
                place * 0.07,
                place * 0.03,
            )
        })
        .collect();
    let batch: EventBatch = position_batch(&rows);
    let venue = VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("v001").unwrap());
    LogRecord {
        venue,
        receipt: Receipt::from_u128(7),
        events: batch,
        received_at: None,
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
