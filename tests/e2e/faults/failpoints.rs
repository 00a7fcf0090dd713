//! `kill -9` at every named failpoint: each that stands in the sources is one at which some test of the real binary
//! kills it, and those that no other part of the suite passes are swept here. Afterwards the same command ends right,
//! and the numbers are those of the independent computation.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use super::is_elsewhere;
use super::site::Site;
use crate::harness::{DWELL, eventually, place};
use crate::walkers::ndjson;

const DAY: i64 = 86_400_000;

/// Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Names of the failpoints in the crates' sources.
fn named(root: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    for part in [
        "model",
        "storage",
        "ingest",
        "speed-layer",
        "batch-layer",
        "serving-api",
        "retention",
        "ops",
    ] {
        sources(&root.join(part).join("src"), &mut files);
    }
    files.retain(|path| !path.to_string_lossy().contains("/tests"));
    let mut names = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source");
        for call in ["failpoint!(\"", "failpoints::hit(\""] {
            names.extend(
                text.split(call)
                    .skip(1)
                    .filter_map(|rest| rest.split('"').next())
                    .map(str::to_owned),
            );
        }
    }
    names
}

#[test]
fn the_binary_is_killed_at_every_failpoint_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names = named(&root);
    assert!(names.len() > 40, "{names:?}");
    let mut files = Vec::new();
    sources(&root.join("tests/e2e"), &mut files);
    sources(&root.join("tests/cluster"), &mut files);
    let tests: String = files
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a test"))
        .collect();
    let untried: Vec<&String> = names
        .iter()
        .filter(|name| !tests.contains(name.as_str()))
        .collect();
    assert!(
        untried.is_empty(),
        "no test of the real binary passes {untried:?}: add them to the sweep"
    );
}

/// A site that is swept with commands: nothing runs between them, and the clock passes every lease.
struct Swept {
    site: Site,
    clock_ms: i64,
}

impl Swept {
    fn command(&mut self, args: &[&str]) -> Command {
        // Longer than any lease: who was killed keeps nobody waiting.
        self.clock_ms += 15_000;
        self.site.machine.set_clock(self.clock_ms);
        let mut command = Command::new(DWELL);
        command
            .args(args)
            .args(place(&self.site.data_dir()))
            .envs(self.site.machine.env());
        command
    }

    /// A command is killed at a failpoint.
    fn dies(&mut self, point: &str, args: &[&str]) {
        let died = self
            .command(args)
            .env("DWELL_FAILPOINTS", format!("{point}=kill"))
            .output()
            .expect("dwell runs");
        assert!(
            is_killed(died.status),
            "{point} was not passed by {args:?}: {}\n{}",
            String::from_utf8_lossy(&died.stdout),
            String::from_utf8_lossy(&died.stderr)
        );
    }

    /// The same command ends well.
    fn works(&mut self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().expect("dwell runs");
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Killed at each of some points, then done.
    fn swept(&mut self, points: &[&str], args: &[&str]) -> Value {
        points.iter().for_each(|point| self.dies(point, args));
        self.works(args)
    }

    /// Lets the jobs end whose workers were killed: each command leaves one behind, which the next ones take up beside
    /// their own.
    fn settle(&mut self) {
        self.clock_ms += 15_000;
        self.site.machine.set_clock(self.clock_ms);
        self.site.start();
        let instance = self.site.instance();
        eventually("every job has ended", || {
            let (_, jobs) = instance.get("/v1/jobs?limit=200");
            let jobs = jobs["jobs"].as_array().expect("jobs").clone();
            let is_open = |job: &Value| ["queued", "running"].contains(&job["state"].as_str().unwrap_or(""));
            !jobs.iter().any(is_open)
        });
        assert!(self.site.stop());
    }

    /// A file of a day's events, imported or to be imported.
    fn file(&mut self, day: usize, seed: u64) -> String {
        let events = self.site.batches(day, 6, seed, 100_000).concat();
        let path = self.site.folder().join(format!("{seed}.ndjson"));
        std::fs::write(&path, ndjson(&events)).expect("a file");
        self.site.has_got(&events);
        path.to_str().expect("a path").to_owned()
    }
}

/// An import all of whose lines go to the quarantine.
fn assert_refused(mut import: Command, lines: usize) {
    let output = import.output().expect("dwell runs");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert_eq!(report["accepted"], 0, "{report}");
    assert_eq!(report["refused"], lines, "{report}");
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}

const RECOMPUTE: [&str; 6] = ["jobs", "run", "recompute", "--venue", "all", "--wait"];

#[test]
fn whoever_dies_at_a_failpoint_no_other_test_passes_is_followed_by_the_same_numbers() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[5, 4, 3], "[batch]\nnightly = false\n");
    assert!(site.stop());
    let mut swept = Swept { site, clock_ms: 0 };

    // Files, by both roads.
    let by_log = swept.file(0, 41);
    swept.swept(&["import.append"], &["import", &by_log]);
    let by_archive = swept.file(1, 42);
    swept.swept(
        &[
            "import.after_rewrite",
            "import.after_commit",
            "import.before_finish",
        ],
        &["import", &by_archive, "--to", "archive"],
    );

    // What was refused for a vendor's name of a field, and is mended.
    let refused = swept.site.batches(2, 1, 44, 200).swap_remove(0);
    let path = swept.site.folder().join("44.ndjson");
    std::fs::write(&path, ndjson(&refused).replace("\"track\"", "\"id\"")).expect("a file");
    swept.site.has_got(&refused);
    let imported = swept.command(&["import", path.to_str().expect("a path"), "--json"]);
    assert_refused(imported, refused.len());
    swept.swept(
        &["quarantine.replayed"],
        &["quarantine", "replay", "--venue", "v1", "--map", "track=id"],
    );

    // A night. A day whose worker died after publishing has nothing left to do, so it is forced.
    let forced = [&RECOMPUTE[..], &["--force"]].concat();
    swept.swept(
        &[
            "batch.after_lease",
            "batch.before_archive",
            "batch.after_announce",
            "batch.before_listed",
            "batch.after_publish",
        ],
        &forced,
    );
    swept.settle();
    swept.site.check();

    // A closed period, and what comes late for it.
    let day = swept.site.days[0].0;
    swept.works(&[
        "periods", "close", "--venue", "v1", "--from", day, "--to", day, "--reason", "invoiced",
    ]);
    let late = swept.file(0, 43);
    swept.works(&["import", &late]);
    swept.swept(&["batch.before_propose", "batch.after_propose"], &RECOMPUTE);
    swept.settle();
    let listed = swept.works(&["periods", "list"]);
    let proposed = listed["proposals"][0]["generation"].to_string();
    let approve = [
        "periods",
        "approve",
        "--venue",
        "v1",
        "--day",
        day,
        "--generation",
        &proposed,
    ];
    swept.swept(
        &[
            "batch.after_approved_rows",
            "batch.before_approve",
            "batch.after_approve",
        ],
        &approve,
    );
    swept.settle();
    let period = listed["periods"][0]["id"].as_str().expect("an id").to_owned();
    swept.works(&["periods", "open", &period, "--reason", "done"]);
    swept.site.check();

    // A revert is taken back.
    let reverted = swept.works(&[
        "jobs", "run", "revert", "--venue", "v1", "--sensor", "s-c", "--reason", "a trial", "--wait",
    ]);
    let id = reverted["id"].as_str().expect("an id").to_owned();
    swept.dies(
        "undo.before_recompute",
        &["jobs", "run", "undo", "--job", &id, "--reason", "right", "--wait"],
    );
    // The job is taken up by the next worker.
    swept.works(&RECOMPUTE);
    swept.settle();
    swept.site.check();

    // A damaged file is written anew.
    let of_day = format!("position/venue=v1/day={day}/");
    let files = super::archived(&swept.site.data_dir().join("archive"));
    for file in files
        .iter()
        .filter(|file| file.to_string_lossy().contains(&of_day))
    {
        super::flip(file, 0.5);
    }
    let verify = ["jobs", "run", "verify", "--venue", "all", "--wait"];
    swept.swept(
        &["repair.before_commit"],
        &[&verify[..], &["--option", "repair=true"]].concat(),
    );
    swept.works(&verify);

    // A backup that is whole already.
    let backups = format!(
        "file://{}",
        swept.site.folder().join("backups").to_str().expect("a path")
    );
    swept.swept(
        &["backup.after_manifest"],
        &["jobs", "run", "backup", "--to", &backups, "--wait"],
    );

    // What was published, as files.
    let out = format!(
        "place=file://{}",
        swept.site.folder().join("out").to_str().expect("a path")
    );
    swept.swept(
        &["export.before_files", "export.after_file"],
        &["jobs", "run", "export", "--option", &out, "--wait"],
    );

    // Files that others have taken the place of, and then everything old.
    swept.clock_ms += 8 * DAY;
    swept.swept(&["vacuum.after_step"], &["jobs", "run", "vacuum", "--wait"]);
    swept.site.check();
    let later = swept.site.days[2].2 + 500 * DAY;
    let later = chrono::DateTime::from_timestamp_millis(later).expect("a time");
    let later = later.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    swept.swept(
        &[
            "retention.before_proof",
            "retention.before_mark",
            "retention.sweep.begins",
            "retention.sweep.after_sessions",
            "retention.sweep.before_forget",
            "retention.sweep.after_forget",
        ],
        &["jobs", "run", "retention", "--now", &later, "--wait"],
    );
    let (first, last) = (swept.site.days[0].0, swept.site.days[2].0);
    swept.works(&[
        "jobs", "run", "restore", "--venue", "v1", "--from", first, "--to", last, "--wait",
    ]);
    swept.works(&forced);
    swept.site.check();
}

#[test]
fn a_scheduler_that_dies_before_its_job_is_followed_by_one_that_asks_for_it_once() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    crate::harness::json(
        &[
            "schedules",
            "set",
            "often",
            "--kind",
            "verify",
            "--cron",
            "0 * * * *",
        ],
        &site.data_dir(),
    );
    assert!(site.stop());
    // Within the hour it is due once.
    site.machine.set_clock(3_600_000);
    let mut killed = Command::new(DWELL)
        .args(["up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(place(&site.data_dir()))
        .envs(site.machine.env())
        .env("DWELL_FAILPOINTS", "schedule.before_job=kill")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dwell runs");
    let mut status = None;
    eventually("it has died", || {
        status = killed.try_wait().expect("a child");
        status.is_some()
    });
    assert!(status.is_some_and(is_killed), "{status:?}");
    site.start();
    let asked = || {
        let (_, jobs) = site.instance().get("/v1/jobs?limit=50");
        let jobs = jobs["jobs"].as_array().expect("jobs").clone();
        jobs.iter()
            .filter(|job| job["requested_by"] == "schedule:often")
            .count()
    };
    eventually("the job is asked for", || asked() == 1);
    // Two more looks.
    std::thread::sleep(std::time::Duration::from_secs(21));
    assert_eq!(asked(), 1);
}
