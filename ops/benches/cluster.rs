//! The roles as processes on real servers, stage by stage, with one and with two workers of each.
//!
//! ```text
//! deploy/local/up ./stack
//! DWELL_TEST_CONFIG=$PWD/stack/dwell.toml cargo bench -p dwell --bench cluster -- [--events 400000]
//! ```
//!
//! For one worker and then for two: posts over HTTP until they are durable in Kafka, with nobody reading; then the raw
//! writers over what has piled up, until it is in Cassandra; then the batch workers, until it is archived. CPU is that of
//! the role's processes alone; wall time is shared with the servers and the load generator, all on this machine. Then
//! the whole platform, and single posts until the live view shows them. The two runs are the figure: absolute numbers
//! move with the machine.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test or benchmark may panic and print"
)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "../../tests/e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the end-to-end suite")]
mod harness;

use harness::{Process, admin_key, agent, file, json, on_engines};

const VENUES: u64 = 8;
const CONNECTIONS: u64 = 4;
const EVENTS_PER_POST: u64 = 1_000;
const PROBES: u64 = 60;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let events = words
        .iter()
        .position(|word| word == "--events")
        .map_or(400_000, |at| words[at + 1].parse().expect("--events NUMBER"));
    if !on_engines() {
        println!("skipped: DWELL_TEST_CONFIG names no engines (see deploy/local/up)");
        return;
    }
    for workers in [1, 2] {
        stages(events, workers);
    }
    latency();
}

fn stages(events: u64, workers: usize) {
    println!("{workers} worker(s) of each role, {events} positions of {VENUES} venues");
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = prepare(folder.path());
    let key = admin_key(&data_dir);

    let ingest = start("ingest", workers, &data_dir);
    let (cpu, started) = (cpu_of(&ingest), Instant::now());
    post_all(&ingest, &key, events);
    report("ingest → Kafka", events, started, cpu_of(&ingest) - cpu);

    let raw_writers = start("raw-writer", workers, &data_dir);
    let started = Instant::now();
    until(|| copied(&data_dir) >= events);
    report("Kafka → Cassandra", events, started, cpu_of(&raw_writers));

    let serve = Process::start("serve", &data_dir, &[]);
    let batch = start("batch", workers, &data_dir);
    let cpu = cpu_of(&batch);
    let started = Instant::now();
    // A job per worker, each over half of the venues, as the nights of venues are shared out.
    let jobs: Vec<String> = (0..workers as u64)
        .map(|worker| {
            let share: Vec<String> = (0..VENUES)
                .filter(|venue| venue % workers as u64 == worker)
                .map(|venue| format!("\"v{venue}\""))
                .collect();
            let body = format!(
                r#"{{"kind":"recompute","venues":[{}],"from":"{}","to":"{}"}}"#,
                share.join(","),
                day_before_yesterday().1,
                day_before_yesterday().1
            );
            let mut answer = agent()
                .post(format!("{}/v1/jobs", serve.url))
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", "application/json")
                .send(body)
                .expect("an answer");
            let job: serde_json::Value = answer.body_mut().read_json().expect("JSON");
            job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
        })
        .collect();
    for job in jobs {
        until(|| {
            let mut answer = agent()
                .get(format!("{}/v1/jobs/{job}", serve.url))
                .header("authorization", format!("Bearer {key}"))
                .call()
                .expect("an answer");
            let job: serde_json::Value = answer.body_mut().read_json().expect("JSON");
            assert_ne!(job["state"], "failed", "{job}");
            job["state"] == "succeeded"
        });
    }
    report(
        "Cassandra → archive, generations",
        events,
        started,
        cpu_of(&batch) - cpu,
    );
}

/// Posts one person at a time through the whole platform, and looks until the live view shows them.
fn latency() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = prepare(folder.path());
    let key = admin_key(&data_dir);
    let roles: Vec<Process> = ["ingest", "raw-writer", "speed", "serve"]
        .iter()
        .map(|role| Process::start(role, &data_dir, &[]))
        .collect();
    let (ingest, serve) = (&roles[0].url, &roles[3].url);
    let mut latencies: Vec<f64> = Vec::new();
    for probe in 0..PROBES {
        let event = format!(
            r#"{{"sensor":"probe","track":"probe-{probe}","ts":{},"x":1,"y":1}}"#,
            now_ms()
        );
        let started = Instant::now();
        let answer = agent()
            .post(format!("{ingest}/v1/venues/v0/events"))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/x-ndjson")
            .send(event)
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 202);
        until(|| seen(serve, &key) > probe);
        // The first ones wait for the shards to be shared out.
        if probe >= 10 {
            latencies.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    latencies.sort_by(f64::total_cmp);
    let rank = |percent: usize| latencies[(percent * latencies.len()).div_ceil(100) - 1];
    println!(
        "post to visible in the live view: p50 {:.0} ms, p99 {:.0} ms",
        rank(50),
        rank(99)
    );
}

/// Sessions of today that the live view counts.
fn seen(serve: &str, key: &str) -> u64 {
    let date = chrono::DateTime::from_timestamp_millis(now_ms()).expect("a time");
    let today = date.format("%Y-%m-%d");
    let answer = agent()
        .get(format!(
            "{serve}/v1/venues/v0/metrics?metric=visitors&zone=hall&from={today}&to={today}&by=day"
        ))
        .header("authorization", format!("Bearer {key}"))
        .call();
    let answer: serde_json::Value = answer.expect("an answer").body_mut().read_json().expect("JSON");
    answer["buckets"][0]["value"].as_u64().unwrap_or(0)
}

fn prepare(folder: &Path) -> std::path::PathBuf {
    let data_dir = folder.join("d");
    harness::place(&data_dir);
    let venues: Vec<String> = (0..VENUES)
        .map(|venue| {
            format!(
                r#"{{"id":"v{venue}","tz":"Etc/UTC","zones":[
                    {{"id":"hall","polygon":[[0,0],[20,0],[20,20],[0,20]]}}]}}"#
            )
        })
        .collect();
    let venues = file(&data_dir, "venues.json", &format!("[{}]", venues.join(",")));
    json(&["venues", "apply", venues.to_str().expect("a path")], &data_dir);
    data_dir
}

fn start(role: &str, workers: usize, data_dir: &Path) -> Vec<Process> {
    (0..workers)
        .map(|_| Process::start(role, data_dir, &[]))
        .collect()
}

/// Posts so many events over a few connections, to the processes in turn.
fn post_all(ingest: &[Process], key: &str, events: u64) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (next, url) = (&next, &ingest[connection as usize % ingest.len()].url);
            scope.spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
                loop {
                    let post = next.fetch_add(1, Ordering::Relaxed);
                    if post * EVENTS_PER_POST >= events {
                        return;
                    }
                    let answer = agent
                        .post(format!("{url}/v1/venues/v{}/events", post % VENUES))
                        .header("authorization", format!("Bearer {key}"))
                        .header("content-type", "application/x-ndjson")
                        .send(&body(post)[..])
                        .expect("an answer");
                    assert_eq!(answer.status().as_u16(), 202);
                }
            });
        }
    });
}

/// People of the day before yesterday, every one a step further with each post.
fn body(post: u64) -> Vec<u8> {
    use std::io::Write;
    let start = day_before_yesterday().0 + (post / VENUES) as i64 * 2_500;
    let mut body = Vec::with_capacity(EVENTS_PER_POST as usize * 90);
    for i in 0..EVENTS_PER_POST {
        let track = i % 400;
        let ts = start + (i / 400) as i64 * 1_000;
        let (x, y) = ((track * 37 + post * 7) % 2_000, (track * 53 + post * 3) % 2_000);
        let _ = writeln!(
            body,
            r#"{{"sensor":"xs-{}","track":"{track:08x}","ts":{ts},"x":{}.{:02},"y":{}.{:02}}}"#,
            track % 8,
            x / 100,
            x % 100,
            y / 100,
            y % 100
        );
    }
    body
}

/// Records that the raw writers have copied.
fn copied(data_dir: &Path) -> u64 {
    let partitions = json(&["log", "positions"], data_dir);
    let all = partitions.as_array().expect("partitions");
    all.iter().filter_map(|at| at["copied_to"].as_u64()).sum()
}

fn report(stage: &str, events: u64, started: Instant, cpu_seconds: f64) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "  {stage:<34} {:>9.0} events/s, {:>6.2} µs CPU per event",
        events as f64 / seconds,
        cpu_seconds / events as f64 * 1e6
    );
}

fn until(mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < Duration::from_secs(300), "gave up waiting");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// CPU seconds that processes have taken (user and system, in ticks of a hundredth).
fn cpu_of(processes: &[Process]) -> f64 {
    let of = |process: &Process| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("a process");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split_whitespace()
            .collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    };
    processes.iter().map(of).sum()
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

/// Its first instant and its name.
fn day_before_yesterday() -> (i64, String) {
    const DAY: i64 = 86_400_000;
    let start = now_ms() / DAY * DAY - 2 * DAY;
    let date = chrono::DateTime::from_timestamp_millis(start).expect("a time");
    (start, date.format("%Y-%m-%d").to_string())
}
