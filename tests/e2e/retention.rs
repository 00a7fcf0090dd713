//! Retention and restore by the command line, as an operator runs them: what goes, what stays and why, what comes back.
//! Times are acted as if (`--now`), since no test waits for ninety days.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

#[cfg(target_os = "linux")]
use crate::faults::machine::Machine;
use crate::harness::{Instance, eventually, json, on_engines, place, raw_writer, run, run_with};
use crate::oracle::{Days, Tables, assert_equal, compute, exported, utc_day};
use crate::walkers::{Event, apply_venues, arrival, ndjson, walk, zones};

/// On engines a sweep spares what was written so shortly before it.
const SKEW: Duration = Duration::from_secs(1);

/// An installation with a venue.
struct Place {
    _folder: tempfile::TempDir,
    data_dir: PathBuf,
    days: Days,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("d");
        std::fs::create_dir_all(&data_dir).expect("a folder");
        if on_engines() {
            // An hour is allowed between clocks; here there is one clock, and nobody waits for an hour. Nor for the lease
            // of who was killed.
            place(&data_dir);
            let config = data_dir.join("dwell.toml");
            let mut text = std::fs::read_to_string(&config).expect("a configuration");
            text.push_str(&format!("\n[retention]\nclock_skew = \"{}s\"\n", SKEW.as_secs()));
            text.push_str("\n[batch]\nlease_ttl = \"6s\"\n");
            std::fs::write(config, text).expect("a configuration");
        }
        apply_venues(&data_dir, "Etc/UTC");
        Self {
            _folder: folder,
            data_dir,
            days: utc_day(2),
        }
    }

    fn json(&self, args: &[&str]) -> Value {
        json(args, &self.data_dir)
    }

    /// A hundred days later than the day's end.
    fn later(&self) -> String {
        let at = self.days[0].2 + 100 * 86_400_000;
        chrono::DateTime::from_timestamp_millis(at)
            .expect("a time")
            .format("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    }

    fn recompute(&self, force: bool) -> Value {
        let mut args = vec!["jobs", "run", "recompute", "--venue", "all", "--wait"];
        args.extend(force.then_some("--force"));
        self.json(&args)
    }

    fn export(&self) -> Tables {
        let out = self.data_dir.join("out");
        let _ = std::fs::remove_dir_all(&out);
        self.json(&["export", "--out", out.to_str().expect("a path")]);
        exported(&out)
    }

    /// Sweeps as if it were later; what was written until now may go.
    fn sweep(&self) -> Value {
        self.settle();
        let later = self.later();
        self.json(&["jobs", "run", "retention", "--now", &later, "--wait"])
    }

    fn settle(&self) {
        if on_engines() {
            std::thread::sleep(SKEW + Duration::from_millis(500));
        }
    }

    /// The days of the plan, as if it were later.
    fn plan(&self) -> Vec<Value> {
        let plan = self.json(&["retention", "plan", "--now", &self.later()]);
        plan["venues"][0]["days"].as_array().expect("days").clone()
    }

    fn restore(&self, dry_run: bool) -> Value {
        let day = self.days[0].0;
        let mut args = vec![
            "jobs", "run", "restore", "--venue", "v1", "--from", day, "--to", day, "--wait",
        ];
        args.extend(dry_run.then_some("--dry-run"));
        self.json(&args)["report"].clone()
    }
}

/// Payloads and deliveries that raw must hold of batches: each distinct line, and each line of each body.
fn counted(batches: &[Vec<Event>]) -> (u64, u64) {
    let payloads: HashSet<String> = batches.iter().flatten().map(Event::ndjson).collect();
    (
        payloads.len() as u64,
        batches.iter().map(|batch| batch.len() as u64).sum(),
    )
}

fn batches(days: &Days, people: u64, seed: u64) -> (Vec<Event>, Vec<Vec<Event>>) {
    let (_, start, end) = days[0];
    let mut clean = walk("v1", people, start, end, seed);
    // People of another seed are other people.
    clean
        .iter_mut()
        .for_each(|event| event.track = format!("{seed}-{}", event.track));
    let arriving = arrival(clean.clone(), seed ^ 0x33);
    // No body has a line twice: whether that is one delivery or two is left to the log (docs/kafka.md).
    let body = |lines: &[Event]| {
        let mut met = HashSet::new();
        let mut body = lines.to_vec();
        body.retain(|event| met.insert(event.ndjson()));
        body
    };
    (clean, arriving.chunks(200).map(body).collect())
}

fn post(instance: &Instance, batches: &[Vec<Event>]) {
    for batch in batches {
        assert!(instance.try_post("/v1/events", ndjson(batch).as_bytes()));
    }
}

#[test]
fn what_is_proven_goes_and_comes_back_row_by_row() {
    let place = Place::new();
    let (mut events, posted) = batches(&place.days, 40, 51);
    let instance = Instance::start(&place.data_dir);
    post(&instance, &posted);
    place.recompute(false);
    let expected = compute(&events, &zones(), &place.days);
    assert_equal(&place.export(), &expected);
    let (payloads, deliveries) = counted(&posted);

    // Nothing is old; as if it were later, the day waits for a comparison.
    let today = place.json(&["retention", "plan"]);
    assert_eq!(
        today["venues"][0]["days"].as_array().map(Vec::len),
        Some(0),
        "{today}"
    );
    let days = place.plan();
    assert_eq!(days.len(), 1);
    assert_eq!(days[0]["raw"]["position"]["verdict"], "compare");
    assert_eq!(days[0]["raw"]["position"]["rows"], payloads);
    let later = place.later();
    let dry = place.json(&["jobs", "run", "retention", "--now", &later, "--dry-run"]);
    assert_eq!(dry["report"]["planned"]["raw_rows"], payloads, "{dry}");
    assert_eq!(place.plan(), days, "a dry run changes nothing");

    let job = place.sweep();
    assert_eq!(job["report"]["removed"]["raw_rows"], payloads, "{job}");
    assert_eq!(job["report"]["rows_left"], 0);
    assert_eq!(job["report"]["removed"]["sessions"], expected.sessions.len());
    assert_eq!(place.plan(), Vec::<Value>::new());
    let marks = place.json(&["retention", "marks", "--venue", "v1"]);
    assert_eq!(marks["marks"][0]["days_done"], 1, "{marks}");
    // Numbers need no raw events, not even to be computed anew. (Sessions come back with that.)
    assert_eq!(place.recompute(true)["state"], "succeeded");
    assert_equal(&place.export(), &expected);

    let dry = place.restore(true);
    assert_eq!(dry["days"][0]["kinds"]["position"]["raw_now"], 0, "{dry}");
    for _ in 0..2 {
        let report = place.restore(false);
        let positions = &report["days"][0]["kinds"]["position"];
        assert_eq!(positions["raw_now"], payloads, "{report}");
        assert_eq!(positions["deliveries"], deliveries, "{report}");
    }
    let job = place.recompute(false);
    assert_eq!(
        job["report"]["computed"], 0,
        "unchanged input publishes nothing: {job}"
    );
    assert_equal(&place.export(), &expected);

    // What comes late after a sweep is counted with all that only the archive has; raw holds only it.
    place.sweep();
    let (late, posted) = batches(&place.days, 8, 52);
    post(&instance, &posted);
    place.recompute(false);
    events.extend(late);
    assert_equal(&place.export(), &compute(&events, &zones(), &place.days));
    let (late_payloads, _) = counted(&posted);
    assert_eq!(place.plan()[0]["raw"]["position"]["rows"], late_payloads);
    let job = place.sweep();
    assert_eq!(job["report"]["removed"]["raw_rows"], late_payloads, "{job}");
    drop(instance);
}

/// In Cassandra rows go, and stay, by the times of writes: those of machines whose clocks are wrong must not count.
#[cfg(target_os = "linux")]
#[test]
fn what_comes_late_is_there_whatever_the_clocks_of_sweeper_and_writer_say() {
    // S3 refuses who is a quarter of an hour off.
    const WRONG_MS: i64 = 10 * 60_000;
    let place = Place::new();
    let (mut events, posted) = batches(&place.days, 10, 91);
    let instance = Instance::start(&place.data_dir);
    post(&instance, &posted);
    place.recompute(false);
    instance.kill();
    let machine = Machine::new();

    // The sweeper's is ahead.
    place.settle();
    let raw_writer = raw_writer(&place.data_dir);
    machine.set_clock(WRONG_MS);
    let later = place.later();
    let sweep = ["jobs", "run", "retention", "--now", &later, "--wait", "--json"];
    let swept = run_with(&sweep, &place.data_dir, &machine.env());
    let said = String::from_utf8_lossy(&swept.stderr).into_owned();
    assert!(swept.status.success(), "{said}");
    let job: Value = serde_json::from_slice(&swept.stdout).expect("a job");
    assert_eq!(job["report"]["removed"]["raw_rows"], counted(&posted).0, "{job}");
    drop(raw_writer);
    let late = |instance: Instance, seed: u64, events: &mut Vec<Event>| {
        let (late, posted) = batches(&place.days, 6, seed);
        post(&instance, &posted);
        place.recompute(false);
        events.extend(late);
        assert_equal(&place.export(), &compute(events, &zones(), &place.days));
        assert_eq!(place.plan()[0]["raw"]["position"]["rows"], counted(&posted).0);
    };
    late(Instance::start(&place.data_dir), 92, &mut events);

    // The writer's is behind.
    let job = place.sweep();
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(place.plan(), Vec::<Value>::new());
    machine.set_clock(-WRONG_MS);
    late(
        Instance::start_with(&place.data_dir, &machine.env()),
        93,
        &mut events,
    );
}

#[test]
fn kill_9_in_a_sweep_or_a_restore_loses_nothing() {
    let place = Place::new();
    let (events, posted) = batches(&place.days, 30, 61);
    let instance = Instance::start(&place.data_dir);
    post(&instance, &posted);
    place.recompute(false);
    instance.kill();
    let _raw_writer = raw_writer(&place.data_dir);
    let expected = compute(&events, &zones(), &place.days);
    let (payloads, deliveries) = counted(&posted);
    let later = place.later();
    place.settle();
    let sweep = ["jobs", "run", "retention", "--now", &later, "--wait"];
    let day = place.days[0].0;
    let restore = [
        "jobs", "run", "restore", "--venue", "v1", "--from", day, "--to", day, "--wait",
    ];

    for failpoint in [
        "retention.after_mark=kill",
        "retention.sweep.before_slot=2*off->kill",
        "retention.sweep.after_slot=4*off->kill",
        "retention.sweep.after_raw=kill",
    ] {
        dies(&place.data_dir, &sweep, failpoint);
    }
    succeeds(&place.data_dir, &sweep);
    assert_eq!(place.plan(), Vec::<Value>::new());
    for failpoint in [
        "restore.after_mark=kill",
        "restore.after_write=kill",
        "restore.after_rows=kill",
    ] {
        dies(&place.data_dir, &restore, failpoint);
    }
    let job = succeeds(&place.data_dir, &restore);
    let positions = &job["report"]["days"][0]["kinds"]["position"];
    assert_eq!(
        (&positions["raw_now"], &positions["deliveries"]),
        (&payloads.into(), &deliveries.into()),
        "{job}"
    );
    assert_eq!(place.recompute(true)["state"], "succeeded");
    assert_equal(&place.export(), &expected);
}

/// Killed after its mark was made; then a day is held by law, and the job is killed again after it has left that day
/// alone. Whoever takes it up a third time knows of none of that but what is stored.
#[test]
fn a_job_that_is_taken_up_again_says_all_that_it_did_and_what_stayed() {
    if on_engines() {
        // There jobs run in a process of their own.
        return;
    }
    let mut place = Place::new();
    place.days = [4, 3, 2].into_iter().flat_map(utc_day).collect();
    let instance = Instance::start(&place.data_dir);
    let mut payloads = Vec::new();
    for (seed, day) in (81..).zip(&place.days) {
        let (_, posted) = batches(&vec![*day], 10, seed);
        post(&instance, &posted);
        payloads.push(counted(&posted).0);
    }
    place.recompute(false);
    instance.kill();

    let killed_at = |failpoint: &str, meanwhile: &dyn Fn()| {
        let mut instance = Instance::start_with(&place.data_dir, &[("DWELL_FAILPOINTS", failpoint)]);
        meanwhile();
        eventually(failpoint, || !instance.is_running());
    };
    killed_at("retention.after_mark=kill", &|| {
        // Its answer may be lost with the process.
        run(
            &["jobs", "run", "retention", "--now", &place.later()],
            &place.data_dir,
        );
    });
    let held = place.days[1].0;
    place.json(&[
        "retention",
        "hold",
        "add",
        "--venue",
        "v1",
        "--from",
        held,
        "--to",
        held,
        "--reason",
        "case 7",
    ]);
    killed_at("retention.sweep.begins=2*off->kill", &|| {});

    let _instance = Instance::start(&place.data_dir);
    let mut job = Value::Null;
    eventually("the job has ended", || {
        let listed = place.json(&["jobs", "list"]);
        let jobs = listed["jobs"].as_array().expect("jobs");
        let retention = jobs.iter().find(|job| job["kind"] == "retention");
        job = retention.expect("the job").clone();
        !["queued", "running"].contains(&job["state"].as_str().expect("a state"))
    });
    assert_eq!(job["state"], "partial", "{job}");
    let error = job["error"].as_str().expect("an error");
    assert!(error.contains(held) && error.contains("case 7"), "{job}");
    let id = job["id"].as_str().expect("an id");
    let report = place.json(&["jobs", "show", id])["report"].clone();
    assert_eq!(
        report["removed"]["raw_rows"],
        payloads[0] + payloads[2],
        "{report}"
    );
    assert_eq!(report["planned"]["raw_rows"], payloads.iter().sum::<u64>());
}

fn dies(data_dir: &Path, args: &[&str], failpoint: &str) {
    let died = run_with(args, data_dir, &[("DWELL_FAILPOINTS", failpoint)]);
    assert!(!died.status.success(), "{failpoint} did not kill");
    let said = String::from_utf8_lossy(&died.stderr).into_owned();
    assert!(!said.contains("ended as"), "{failpoint} did not kill: {said}");
}

/// Runs a job until it succeeds: leases of those that died end by themselves.
fn succeeds(data_dir: &Path, args: &[&str]) -> Value {
    let mut done = Value::Null;
    let mut args = args.to_vec();
    args.push("--json");
    eventually("the job succeeds", || {
        let output = run(&args, data_dir);
        done = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        output.status.success()
    });
    done
}

#[test]
fn a_damaged_archive_file_keeps_its_day_and_is_named() {
    if on_engines() {
        // There the archive's files are out of the test's reach.
        return;
    }
    let place = Place::new();
    let (_, posted) = batches(&place.days, 10, 71);
    let instance = Instance::start(&place.data_dir);
    post(&instance, &posted);
    place.recompute(false);
    let (payloads, _) = counted(&posted);
    let damaged = data_files(&place.data_dir.join("archive"))
        .pop()
        .expect("a data file");
    let sound = std::fs::read(&damaged).expect("a file");
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(&damaged, bytes).expect("a file");

    let later = place.later();
    let name = damaged
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let args = ["jobs", "run", "retention", "--now", &later, "--wait", "--json"];
    let output = run(&args, &place.data_dir);
    assert!(!output.status.success(), "an operator hears of it");
    let job: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(job["state"], "partial", "{job}");
    assert!(
        job["error"].as_str().is_some_and(|error| error.contains(name)),
        "{job}"
    );
    assert_eq!(job["report"]["removed"]["raw_rows"], 0);
    let kept = &place.plan()[0]["raw"]["position"];
    assert_eq!(
        (&kept["verdict"], &kept["rows"]),
        (&"keep".into(), &payloads.into())
    );
    assert!(kept["reasons"].to_string().contains(name), "{kept}");

    std::fs::write(&damaged, sound).expect("a file");
    let job = place.sweep();
    assert_eq!(job["report"]["removed"]["raw_rows"], payloads, "{job}");
    drop(instance);
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path());
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(data_files(&path));
        } else if path.extension().is_some_and(|end| end == "parquet") {
            files.push(path);
        }
    }
    files
}

#[test]
fn policy_and_holds_are_set_shown_and_obeyed() {
    let place = Place::new();
    let (_, posted) = batches(&place.days, 5, 81);
    let instance = Instance::start(&place.data_dir);
    post(&instance, &posted);
    place.recompute(false);
    let (payloads, _) = counted(&posted);
    let set = [
        "retention",
        "policy",
        "set",
        "--raw",
        "120d",
        "--kind",
        "presence=30d",
        "--reason",
        "contract",
    ];
    let policy = place.json(&set);
    assert_eq!(policy["policy"]["raw"], "120d", "{policy}");
    assert_eq!(policy["policy"]["kinds"]["presence"], "30d");
    // A hundred days are too few now.
    let later = place.later();
    let job = place.json(&["jobs", "run", "retention", "--now", &later, "--wait"]);
    assert_eq!(job["report"]["removed"]["raw_rows"], 0, "{job}");
    place.json(&[
        "retention",
        "policy",
        "set",
        "--raw",
        "90d",
        "--kind",
        "presence=default",
    ]);
    let shown = place.json(&["retention", "policy", "show"]);
    assert_eq!(shown["policy"]["kinds"], serde_json::json!({}));
    let refused = run(&["retention", "policy", "set", "--raw", "5m"], &place.data_dir);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("one day"));

    let day = place.days[0].0;
    let hold = place.json(&[
        "retention",
        "hold",
        "add",
        "--venue",
        "v1",
        "--from",
        day,
        "--to",
        day,
        "--reason",
        "case 12",
    ]);
    let id = hold["id"].as_str().expect("an id").to_owned();
    let job = place.sweep();
    assert_eq!(job["report"]["removed"]["raw_rows"], 0, "{job}");
    assert_eq!(job["report"]["kept"][0]["reasons"][0]["because"], "case 12");
    let (status, problem) = instance.post(
        "/v1/retention/holds/nothing/lift",
        "application/json",
        br#"{"reason":"x"}"#,
    );
    assert_eq!(
        (status, &problem["code"]),
        (404, &"not-found".into()),
        "{problem}"
    );
    let lifted = place.json(&["retention", "hold", "lift", &id, "--reason", "settled"]);
    assert_eq!(lifted["in_force"], false, "{lifted}");
    let holds = place.json(&["retention", "hold", "list"]);
    assert_eq!(holds["holds"][0]["lifted"]["reason"], "settled", "{holds}");
    assert_eq!(place.sweep()["report"]["removed"]["raw_rows"], payloads);
}
