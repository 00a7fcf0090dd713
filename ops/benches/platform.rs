//! The real binary under load: batch and HTTP ingest, each figure in CPU per event of all processes together.
//!
//! ```text
//! cargo bench -p dwell --bench platform -- [--events 10000000] [--seconds 10] [--connections 4]
//! ```
//!
//! Batch: Parquet landing files in arrival order → `import --to archive`, `jobs run recompute`, `export`. Ingest: posts of
//! 1,000 positions each over loopback to `dwell up`, load generator included; then single posts, each until the live view
//! shows it. The peer is the machine itself: the same landing files only read (Arrow, 16 k rows a batch) in this process, in
//! the same run, so that ratios hold when the machine's speed does not.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test or benchmark may panic and print"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

mod support;

use support::{DWELL, VENUES, own_cpu, stat, write_landing, write_venues};

const EVENTS_PER_POST: usize = 1_000;

fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir().expect("a folder");
    batch(&options, folder.path());
    ingest(&options, folder.path());
}

struct Options {
    events: usize,
    seconds: u64,
    connections: usize,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            events: 10_000_000,
            seconds: 10,
            connections: 4,
        };
        let words: Vec<String> = std::env::args()
            .skip(1)
            .filter(|word| word != "--bench")
            .collect();
        for pair in words.chunks(2) {
            let value = pair
                .get(1)
                .and_then(|text| text.parse::<u64>().ok())
                .expect("--option NUMBER");
            match pair[0].as_str() {
                "--events" => options.events = value as usize,
                "--seconds" => options.seconds = value,
                "--connections" => options.connections = value as usize,
                other => panic!("{other}: known are --events, --seconds, --connections"),
            }
        }
        options
    }
}

fn batch(options: &Options, folder: &Path) {
    let landing = folder.join("landing");
    let events = write_landing(&landing, options.events);
    let data_dir = folder.join("batch");
    let venues = write_venues(folder);
    run(&["venues", "apply", venues.to_str().expect("a path")], &data_dir);

    let floor = cpu_of(|| read_landing(&landing)) / events as f64;
    println!("batch, {events} events");
    println!(
        "  {:<28} {:>7.3} µs/event   (the peer)",
        "reading the landing files",
        floor * 1e6
    );
    let mut sum = 0.0;
    let landing = landing.to_str().expect("a path").to_owned();
    let out = folder.join("out").to_str().expect("a path").to_owned();
    for (name, args) in [
        ("import --to archive", vec!["import", &landing, "--to", "archive"]),
        (
            "jobs run recompute",
            vec!["jobs", "run", "recompute", "--venue", "all", "--wait"],
        ),
        ("export", vec!["export", "--out", &out]),
    ] {
        let cpu = cpu_of(|| run(&args, &data_dir)) / events as f64;
        sum += cpu;
        println!(
            "  {name:<28} {:>7.3} µs/event   {:.2} × the peer",
            cpu * 1e6,
            cpu / floor
        );
    }
    println!(
        "  {:<28} {:>7.3} µs/event   {:.2} × the peer",
        "all",
        sum * 1e6,
        sum / floor
    );
    println!(
        "  archive                      {:>7.2} bytes/event, lineage included",
        archive_bytes(&data_dir) as f64 / events as f64
    );
}

fn ingest(options: &Options, folder: &Path) {
    let data_dir = folder.join("ingest");
    let venues = write_venues(folder);
    run(&["venues", "apply", venues.to_str().expect("a path")], &data_dir);
    let (mut instance, url) = start(&data_dir);
    let key = std::fs::read_to_string(data_dir.join("admin.key"))
        .expect("a key")
        .trim()
        .to_owned();
    let bearer = Arc::new(format!("Bearer {key}"));

    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (cpu_before, started) = (own_cpu() + cpu_of_process(instance.id()), Instant::now());
    let posters: Vec<_> = (0..options.connections)
        .map(|connection| {
            let (stop, sent, url, bearer) = (
                Arc::clone(&stop),
                Arc::clone(&sent),
                url.clone(),
                Arc::clone(&bearer),
            );
            std::thread::spawn(move || {
                let agent = agent();
                let mut post = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let body = body(connection as u64, post);
                    let venue = connection % VENUES;
                    let response = agent
                        .post(format!("{url}/v1/venues/v{venue}/events"))
                        .header("authorization", &*bearer)
                        .header("content-type", "application/x-ndjson")
                        .send(&body[..])
                        .expect("an answer");
                    assert_eq!(response.status().as_u16(), 202);
                    sent.fetch_add(EVENTS_PER_POST as u64, Ordering::Relaxed);
                    post += 1;
                }
            })
        })
        .collect();
    pause(Duration::from_secs(options.seconds));
    stop.store(true, Ordering::Relaxed);
    posters
        .into_iter()
        .for_each(|poster| poster.join().expect("a poster"));
    let (elapsed, events) = (
        started.elapsed().as_secs_f64(),
        sent.load(Ordering::Relaxed) as f64,
    );
    let cpu = own_cpu() + cpu_of_process(instance.id()) - cpu_before;
    println!(
        "ingest over HTTP, posts of {EVENTS_PER_POST}, {} connections, {elapsed:.1} s",
        options.connections
    );
    println!(
        "  {:>9.0} events/s acknowledged durable, {:.2} µs CPU per event, load generator included",
        events / elapsed,
        cpu / events * 1e6
    );
    let behind = Instant::now();
    run(&["jobs", "run", "archive", "--venue", "v0", "--wait"], &data_dir);
    println!(
        "  raw writer caught up, and the days archived, {:.1} s after the last post",
        behind.elapsed().as_secs_f64()
    );

    let mut latencies: Vec<f64> = (0..50).map(|n| post_to_visible(&url, &bearer, n)).collect();
    latencies.sort_by(f64::total_cmp);
    let rank = |percent: usize| latencies[(percent * latencies.len()).div_ceil(100) - 1];
    println!(
        "  post to visible in the live view: p50 {:.0} ms, p99 {:.0} ms",
        rank(50),
        rank(99)
    );
    instance.kill().expect("kill");
    instance.wait().expect("gone");
}

/// Posts one person and looks until the live view shows them; milliseconds.
fn post_to_visible(url: &str, bearer: &str, n: u64) -> f64 {
    let agent = agent();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    let event = format!(r#"{{"sensor":"probe","track":"probe-{n}","ts":{now},"x":100.5,"y":100.5}}"#);
    let started = Instant::now();
    let live = || {
        let mut response = agent
            .get(format!("{url}/v1/venues/v3/live"))
            .header("authorization", bearer)
            .call()
            .expect("an answer");
        let live: serde_json::Value = response.body_mut().read_json().expect("JSON");
        let zones = live["zones"].as_array().cloned().unwrap_or_default();
        zones
            .iter()
            .find(|zone| zone["id"] == "probe")
            .and_then(|zone| zone["occupancy"].as_u64())
            .unwrap_or(0)
    };
    let before = live();
    let response = agent
        .post(format!("{url}/v1/venues/v3/events"))
        .header("authorization", bearer)
        .header("content-type", "application/x-ndjson")
        .send(event.as_bytes())
        .expect("an answer");
    assert_eq!(response.status().as_u16(), 202);
    while live() <= before {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the live view never showed the person"
        );
        pause(Duration::from_millis(5));
    }
    started.elapsed().as_secs_f64() * 1e3
}

fn read_landing(landing: &Path) {
    for entry in std::fs::read_dir(landing).expect("the folder") {
        let file = std::fs::File::open(entry.expect("an entry").path()).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .expect("Parquet")
            .with_batch_size(16_384);
        let rows: usize = reader
            .build()
            .expect("a reader")
            .map(|batch| batch.expect("a batch").num_rows())
            .sum();
        assert!(rows > 0);
    }
}

fn body(connection: u64, post: u64) -> Vec<u8> {
    use std::io::Write;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    let mut body = Vec::with_capacity(EVENTS_PER_POST * 90);
    for i in 0..EVENTS_PER_POST as u64 {
        let track = connection * 1_000 + (post * 31 + i) % 400;
        let ts = now as u64 - EVENTS_PER_POST as u64 + i;
        let (x, y) = ((track * 37 + post) % 2_000, (track * 53 + post * 3) % 2_000);
        let _ = writeln!(
            body,
            r#"{{"sensor":"xs-{connection}","track":"{track:08x}","ts":{ts},"x":{}.{:02},"y":{}.{:02}}}"#,
            x / 100,
            x % 100,
            y / 100,
            y % 100
        );
    }
    body
}

fn start(data_dir: &Path) -> (Child, String) {
    use std::io::BufRead;
    let mut child = Command::new(DWELL)
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .env("DWELL_LOG__FILTER", "error")
        .stdout(Stdio::piped())
        .spawn()
        .expect("dwell up");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout"))
        .read_line(&mut line)
        .expect("a line");
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .expect("an address")
        .to_owned();
    (child, url)
}

fn run(args: &[&str], data_dir: &Path) {
    let status = Command::new(DWELL)
        .args(args)
        .arg("--json")
        .arg("--data-dir")
        .arg(data_dir)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("dwell").success(), "{args:?}");
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into()
}

fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn archive_bytes(data_dir: &Path) -> u64 {
    let mut sum = 0;
    let mut folders = vec![data_dir.join("archive/default/position")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "parquet") {
                sum += path.metadata().expect("a file").len();
            }
        }
    }
    sum
}

/// CPU seconds, user and system, of what `work` does in this process and in the children that it waits for.
fn cpu_of(work: impl FnOnce()) -> f64 {
    let before = own_cpu();
    work();
    own_cpu() - before
}

fn cpu_of_process(pid: u32) -> f64 {
    stat(&format!("/proc/{pid}/stat"), &[13, 14])
}
