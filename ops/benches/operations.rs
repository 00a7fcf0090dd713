//! What operators run, on the real binary with embedded stores: time, CPU and memory per million events.
//!
//! ```text
//! cargo bench -p dwell --bench operations -- [--events 2000000]
//! ```
//!
//! Walkers in four venues, 2 % of their events delivered twice, imported over the log into raw; then each job in a process of
//! its own that opens the folder, does it and ends. The peer is the first recompute: what computing the same events costs
//! anyway, in the same run, so that ratios hold when the machine's speed does not.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test or benchmark may panic and print"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod support;

use support::{DWELL, own_cpu, write_landing, write_venues};

/// How often a process's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After every age of the default policy has passed for the events.
const LATER: &str = "2027-06-01T00:00:00Z";

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let events = words
        .iter()
        .position(|word| word == "--events")
        .map_or(2_000_000, |at| words[at + 1].parse().expect("--events NUMBER"));
    let folder = tempfile::tempdir().expect("a folder");
    let landing = folder.path().join("landing");
    let events = write_landing(&landing, events);
    let data_dir = folder.path().join("data");
    let venues = text(&write_venues(folder.path()));
    run(&["venues", "apply", &venues], &data_dir);
    run(&["import", &text(&landing)], &data_dir);
    let backups = format!("file://{}", text(&folder.path().join("backups")));

    println!("{events} events, each figure per million");
    println!(
        "{:<52} {:>8} {:>8} {:>9} {:>8}",
        "job", "wall s", "CPU s", "peak MB", "× first"
    );
    let mut steps = Steps {
        events,
        first_cpu: None,
    };
    let all = ["--venue", "all"];
    let again = ["recompute", "--venue", "all", "--force"];
    steps.job(
        "recompute: archive and compute, from raw",
        &[&["recompute"], &all[..]].concat(),
        &data_dir,
    );
    steps.job("recompute --force, raw and archive", &again, &data_dir);
    steps.job("verify", &[&["verify"], &all[..]].concat(), &data_dir);
    steps.job("backup", &["backup", "--to", &backups], &data_dir);
    steps.job("drill", &["drill"], &data_dir);
    steps.job(
        "retention: compare with the archive, mark, sweep",
        &["retention", "--now", LATER],
        &data_dir,
    );
    steps.job("recompute --force, from the archive alone", &again, &data_dir);
    steps.job(
        "restore: archive to raw",
        &[&["restore"], &all[..]].concat(),
        &data_dir,
    );
    steps.job(
        "retention again, after the restore",
        &["retention", "--now", LATER],
        &data_dir,
    );
    let new = folder.path().join("new");
    steps.job(
        "restore-backup, into an empty folder",
        &["restore-backup", "--from", &backups],
        &new,
    );
}

struct Steps {
    events: usize,
    first_cpu: Option<f64>,
}

impl Steps {
    /// Runs a job in a process of its own and prints what it took.
    fn job(&mut self, name: &str, args: &[&str], data_dir: &Path) {
        let (cpu_before, started) = (own_cpu(), Instant::now());
        let args = [&["jobs", "run"], args, &["--wait"]].concat();
        let peak_kb = run(&args, data_dir);
        let millions = self.events as f64 / 1e6;
        let (cpu, wall) = (own_cpu() - cpu_before, started.elapsed().as_secs_f64());
        let first = *self.first_cpu.get_or_insert(cpu);
        println!(
            "{name:<52} {:>8.2} {:>8.2} {:>9} {:>8.2}",
            wall / millions,
            cpu / millions,
            peak_kb / 1_024,
            cpu / first
        );
    }
}

/// Runs a command that must succeed; the most memory that it held, in KiB.
fn run(args: &[&str], data_dir: &Path) -> u64 {
    let mut child = Command::new(DWELL)
        .args(args)
        .args(["--json", "--data-dir"])
        .arg(data_dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("dwell");
    let mut peak_kb = 0;
    loop {
        peak_kb = peak_kb.max(peak_of(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{args:?}");
            return peak_kb;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The kernel's own high-water mark; `None` once the process is gone.
fn peak_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path").to_owned()
}
