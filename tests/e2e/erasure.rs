//! A visitor is erased: nothing of them is left in any place, and the numbers are those of a shop that never had them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{DWELL, Instance, eventually, json, now_ms, on_engines, place};
use crate::oracle::{Row, assert_equal, compute, exported, parquet, utc_day};
use crate::walkers::{Event, apply_venues, arrival, ndjson, walk, zones};

/// Long enough to stand nowhere by chance.
pub(crate) const VISITOR: &str = "visitor-6f1c93ab27";

/// A shop with a day of people two days ago, one of them the visitor.
pub(crate) struct Shop {
    pub(crate) folder: tempfile::TempDir,
    events: Vec<Event>,
    pub(crate) day: (&'static str, i64, i64),
}

impl Shop {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("d");
        apply_venues(&data_dir, "Etc/UTC");
        let day = utc_day(2)[0];
        let mut events = walk("v1", 12, day.1, day.2, 31);
        let somebody = events[0].track.clone();
        events
            .iter_mut()
            .filter(|event| event.track == somebody)
            .for_each(|event| event.track = VISITOR.to_owned());
        Self { folder, events, day }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    pub(crate) fn of_visitor(&self) -> Vec<Event> {
        self.events
            .iter()
            .filter(|event| event.track == VISITOR)
            .cloned()
            .collect()
    }

    fn others(&self) -> Vec<Event> {
        self.events
            .iter()
            .filter(|event| event.track != VISITOR)
            .cloned()
            .collect()
    }

    /// Everything in every place: raw, archive, superseded rows, two generations of sessions, quarantine, log.
    pub(crate) fn fill(&self, instance: &Instance) {
        let post = |body: &str| instance.post("/v1/events", "application/x-ndjson", body.as_bytes());
        for batch in arrival(self.events.clone(), 8).chunks(300) {
            assert_eq!(post(&ndjson(batch)).0, 202);
        }
        self.recompute();
        // A correction of one of the visitor's events, a redelivery of all, and a line that cannot be taken.
        let first = &self.of_visitor()[0];
        let corrected = first.ndjson().replace("\"ts\"", "\"revision\":1,\"ts\"");
        let refused = format!(
            r#"{{"venue":"v1","sensor":"s1","track":"{VISITOR}","ts":{},"x":1.0}}"#,
            first.ts
        );
        let (status, answer) = post(&format!("{corrected}\n{refused}\n"));
        assert_eq!((status, answer["accepted"].as_u64()), (202, Some(1)), "{answer}");
        assert_eq!(post(&ndjson(&self.of_visitor())).0, 202);
        self.recompute();
    }

    pub(crate) fn recompute(&self) {
        let job = json(
            &[
                "jobs",
                "run",
                "recompute",
                "--venue",
                "v1",
                "--from",
                self.day.0,
                "--to",
                self.day.0,
                "--wait",
            ],
            &self.data_dir(),
        );
        assert_eq!(job["state"], "succeeded", "{job}");
    }

    /// What the platform has published of the day, against what the others alone come to.
    pub(crate) fn assert_numbers_are_those_of_the_others(&self) {
        let expected = compute(&self.others(), &zones(), &vec![self.day]);
        let out = tempfile::tempdir().expect("a folder");
        let out_text = out.path().to_str().expect("a path");
        json(
            &[
                "export", "--out", out_text, "--from", self.day.0, "--to", self.day.0,
            ],
            &self.data_dir(),
        );
        assert_equal(&exported(out.path()), &expected);
    }
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

/// Files that hold the bytes of the visitor's name as they are, and archive files with a row that names them.
pub(crate) fn places_of_visitor(data_dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files(data_dir) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if bytes
            .windows(VISITOR.len())
            .any(|window| window == VISITOR.as_bytes())
        {
            found.insert(name.clone());
        }
        if path.extension().is_some_and(|ending| ending == "parquet") && !name.contains("checkpoint") {
            let is_theirs = |row: &Row| row.get("track").is_some_and(|track| track == VISITOR);
            if parquet(&path).iter().any(is_theirs) {
                found.insert(format!("rows of {}", path.display()));
            }
        }
    }
    found
}

pub(crate) fn receipt(data_dir: &Path) -> Value {
    let listed = json(&["erasures"], data_dir);
    listed["erasures"][0].clone()
}

#[test]
fn a_visitor_is_erased_from_every_place_and_the_numbers_are_those_of_the_others() {
    let shop = Shop::new();
    let data_dir = shop.data_dir();
    let instance = Instance::start(&data_dir);
    shop.fill(&instance);
    if !on_engines() {
        let before = places_of_visitor(&data_dir);
        assert!(
            before.iter().any(|place| place.starts_with("rows of")) && before.len() >= 3,
            "the visitor is to be found before: {before:?}"
        );
    }
    let erase = |more: &[&str]| {
        let args = [
            &[
                "jobs", "run", "erase", "--venue", "v1", "--track", VISITOR, "--wait",
            ],
            more,
        ]
        .concat();
        json(&args, &data_dir)
    };

    let dry = erase(&["--dry-run"]);
    assert_eq!(dry["state"], "succeeded", "{dry}");
    let report = &dry["report"];
    let events = shop.of_visitor().len() as u64;
    assert_eq!(report["days"][0]["day"], shop.day.0, "{report}");
    // The corrected event has two payloads, and so two rows of raw; its covered one and every redelivery are superseded.
    assert_eq!(report["places"]["raw"].as_u64(), Some(events + 1), "{report}");
    assert_eq!(report["places"]["archive"].as_u64(), Some(events), "{report}");
    assert!(
        report["places"]["sessions"].as_u64() >= Some(2),
        "two generations: {report}"
    );
    assert_eq!(report["places"]["quarantine"].as_u64(), Some(1), "{report}");
    assert!(
        !dry.to_string().contains(VISITOR),
        "a dry run forgets whom it was asked for"
    );

    let job = erase(&[]);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert!(!job.to_string().contains(VISITOR), "{job}");
    let kept = receipt(&data_dir);
    assert!(kept["proven_at"].is_i64(), "{kept}");
    assert_eq!(kept["days"], serde_json::json!([shop.day.0]));
    assert_eq!(kept["removed"]["raw"].as_u64(), Some(events + 1), "{kept}");
    assert_eq!(kept["removed"]["quarantine"].as_u64(), Some(1), "{kept}");
    assert!(!kept.to_string().contains(VISITOR), "{kept}");
    if !on_engines() {
        assert_eq!(places_of_visitor(&data_dir), BTreeSet::new());
        assert_eq!(kept["bytes_in_files"], serde_json::json!({}), "{kept}");
    }
    shop.assert_numbers_are_those_of_the_others();

    // What is sent once more stays out.
    let late = ndjson(&shop.of_visitor());
    assert_eq!(
        instance
            .post("/v1/events", "application/x-ndjson", late.as_bytes())
            .0,
        202
    );
    shop.recompute();
    shop.assert_numbers_are_those_of_the_others();

    // Whoever comes under the same name after the request is somebody else, and counts.
    let now = now_ms();
    let another = Event {
        ts: now,
        ..shop.of_visitor()[0].clone()
    };
    assert_eq!(
        instance
            .post("/v1/events", "application/x-ndjson", another.ndjson().as_bytes())
            .0,
        202
    );
    let today = utc_day(0)[0].0;
    eventually("the newcomer counts", || {
        let job = json(
            &[
                "jobs",
                "run",
                "recompute",
                "--venue",
                "v1",
                "--from",
                today,
                "--to",
                today,
                "--wait",
            ],
            &data_dir,
        );
        let (status, sessions) = instance.get(&format!("/v1/venues/v1/sessions?from={today}&to={today}"));
        assert_eq!(status, 200, "{sessions} {job}");
        sessions["sessions"]
            .as_array()
            .is_some_and(|sessions| !sessions.is_empty())
    });
    shop.assert_numbers_are_those_of_the_others();
}

#[test]
fn an_erasure_killed_at_any_step_is_finished_by_whoever_comes_next() {
    if on_engines() {
        return;
    }
    let shop = Shop::new();
    let instance = Instance::start(&shop.data_dir());
    shop.fill(&instance);
    assert!(instance.stop());
    let failpoints = [
        "erase.before_ledger",
        "erase.after_ledger",
        "erase.after_notice",
        "erase.after_days",
        "erase.after_log",
        "erase.after_raw",
        "erase.after_recompute",
        "erase.after_purge",
        "erase.after_sessions",
        "erase.after_names",
        "erase.after_scan",
        "erase.after_receipt",
    ];
    // Each mostly waits: for a dead worker's claim, and for a dead reader's registration, to run out.
    for some in failpoints.chunks(4) {
        std::thread::scope(|scope| {
            for failpoint in some {
                let shop = &shop;
                scope.spawn(move || finish_after(shop, failpoint));
            }
        });
    }
}

/// Kills an erasure at a failpoint, in a copy of the shop, and looks at what the next process makes of it.
fn finish_after(shop: &Shop, failpoint: &str) {
    let copy = Shop {
        folder: tempfile::tempdir().expect("a folder"),
        events: shop.events.clone(),
        day: shop.day,
    };
    let data_dir = copy.data_dir();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([shop.data_dir(), data_dir.clone()])
        .status();
    assert!(copied.expect("cp").success());
    let died = std::process::Command::new(DWELL)
        .args([
            "jobs", "run", "erase", "--venue", "v1", "--track", VISITOR, "--wait",
        ])
        .args(place(&data_dir))
        .env("DWELL_FAILPOINTS", format!("{failpoint}=kill"))
        .output()
        .expect("dwell runs");
    assert!(!died.status.success(), "{failpoint} did not kill");
    let instance = Instance::start(&data_dir);
    eventually(failpoint, || {
        let jobs = json(&["jobs", "list"], &data_dir);
        let job = jobs["jobs"]
            .as_array()
            .expect("jobs")
            .iter()
            .find(|job| job["kind"] == "erase")
            .expect("the job");
        assert!(
            !["failed", "partial"].contains(&job["state"].as_str().unwrap_or("")),
            "{failpoint}: {job}"
        );
        job["state"] == "succeeded"
    });
    let kept = receipt(&data_dir);
    assert!(kept["proven_at"].is_i64(), "{failpoint}: {kept}");
    assert_eq!(places_of_visitor(&data_dir), BTreeSet::new(), "{failpoint}");
    copy.assert_numbers_are_those_of_the_others();
    drop(instance);
}

#[test]
fn whoever_is_erased_leaves_the_live_view() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    apply_venues(&data_dir, "Etc/UTC");
    let instance = Instance::start(&data_dir);
    let now = now_ms();
    for track in [VISITOR, "somebody", "somebody-else"] {
        let event = |n: i64| Event {
            venue: "v1",
            sensor: "s-a".to_owned(),
            track: track.to_owned(),
            ts: now - 120_000 + n * 1_000,
            x_cm: 100,
            y_cm: 100,
        };
        let body = ndjson(&(0..20).map(event).collect::<Vec<_>>());
        assert_eq!(
            instance
                .post("/v1/events", "application/x-ndjson", body.as_bytes())
                .0,
            202
        );
    }
    // Two days, in case that one of them has just begun.
    let path = format!(
        "/v1/venues/v1/metrics?metric=visits&zone=_venue&from={}&to={}&by=day",
        utc_day(1)[0].0,
        utc_day(0)[0].0
    );
    let live_visits = || -> i64 {
        let (status, answer) = instance.get(&path);
        assert_eq!(status, 200, "{answer}");
        let buckets = answer["buckets"].as_array().expect("buckets");
        let live = buckets.iter().filter(|bucket| bucket["layer"] == "live");
        live.filter_map(|bucket| bucket["value"].as_i64()).sum()
    };
    eventually("three are seen", || live_visits() == 3);
    let job = json(
        &[
            "jobs", "run", "erase", "--venue", "v1", "--track", VISITOR, "--wait",
        ],
        &data_dir,
    );
    assert_eq!(job["state"], "succeeded", "{job}");
    eventually("two are left", || live_visits() == 2);
}
