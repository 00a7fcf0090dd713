//! An erasure holds: a backup from before it brings nobody back, a closed period hides nobody, and a device goes by
//! whatever spelling of its address.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::erasure::{Shop, VISITOR, files, places_of_visitor, receipt};
use crate::harness::{Instance, eventually, json, on_engines};
use crate::oracle::{parquet, utc_day};

/// Runs a job that must succeed; its report.
fn job(args: &[&str], data_dir: &Path) -> Value {
    let args = [&["jobs", "run"], args, &["--wait"]].concat();
    let job = json(&args, data_dir);
    assert_eq!(job["state"], "succeeded", "{job}");
    job["report"].clone()
}

fn erase_visitor(data_dir: &Path) -> Value {
    job(&["erase", "--venue", "v1", "--track", VISITOR], data_dir)
}

fn places_left(data_dir: &Path) -> Value {
    let dry = ["erase", "--venue", "v1", "--track", VISITOR, "--dry-run"];
    job(&dry, data_dir)["places"].clone()
}

#[test]
fn a_backup_from_before_an_erasure_brings_nobody_back() {
    let shop = Shop::new();
    let data_dir = shop.data_dir();
    let backups = format!("file://{}", shop.folder.path().join("backups").display());
    {
        let instance = Instance::start(&data_dir);
        shop.fill(&instance);
        let taken = job(&["backup", "--to", &backups], &data_dir);
        assert_eq!(taken["days"], 1, "{taken}");
        erase_visitor(&data_dir);
        // What a drill brings back of it is not what an erased visitor left out.
        let drilled = job(&["drill"], &data_dir);
        assert!(drilled["days_compared"].as_u64().is_some(), "{drilled}");
        // One taken since is good, and its day is that of the others.
        let since = format!("{backups}-since");
        job(&["backup", "--to", &since], &data_dir);
        let option = format!("from={since}");
        let drilled = job(&["drill", "--option", &option], &data_dir);
        assert_eq!(
            (&drilled["days_recomputed"], &drilled["differing"]),
            (&1.into(), &0.into()),
            "{drilled}"
        );
    }
    // On engines the backup is brought back over what is there, with the proven receipt: what the backup holds of the
    // visitor is left out, and that is all. Here the tables are gone; the archive is left, and the ledger beside it.
    let (over, repeated): (&[&str], u64) = match on_engines() {
        true => (&["--option", "force=true"], 0),
        false => {
            lose_databases(&data_dir);
            (&[], 1)
        }
    };
    let restored = job(
        &[&["restore-backup", "--from", &backups], over].concat(),
        &data_dir,
    );
    assert_eq!(
        restored["erasures_repeated"].as_u64(),
        Some(repeated),
        "{restored}"
    );
    let instance = Instance::start(&data_dir);
    eventually("the erasure is proven again", || {
        receipt(&data_dir)["proven_at"].is_i64()
    });
    let left = places_left(&data_dir);
    for place in ["raw", "archive", "archive_superseded", "sessions", "quarantine"] {
        assert_eq!(left[place].as_u64().unwrap_or(0), 0, "{place}: {left}");
    }
    shop.recompute();
    shop.assert_numbers_are_those_of_the_others();
    assert!(instance.stop());
    if !on_engines() {
        assert_eq!(places_of_visitor(&data_dir), BTreeSet::new());
    }
}

fn lose_databases(data_dir: &Path) {
    for path in files(data_dir) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.contains(".db") {
            std::fs::remove_file(&path).expect("lost");
        }
    }
}

#[test]
fn a_closed_day_keeps_its_numbers_and_forgets_the_visitor() {
    let shop = Shop::new();
    let data_dir = shop.data_dir();
    let instance = Instance::start(&data_dir);
    shop.fill(&instance);
    let day = shop.day.0;
    let visits = || {
        let path = format!("/v1/venues/v1/metrics?metric=visits&zone=_venue&from={day}&to={day}&by=day");
        let (status, answer) = instance.get(&path);
        assert_eq!(status, 200, "{answer}");
        answer["buckets"][0]["value"].as_i64().expect("a number")
    };
    let with_visitor = visits();
    let close = [
        "periods", "close", "--venue", "v1", "--from", day, "--to", day, "--reason", "invoiced",
    ];
    json(&close, &data_dir);
    erase_visitor(&data_dir);
    assert_eq!(
        visits(),
        with_visitor,
        "what was invoiced stays, and names nobody"
    );
    assert_eq!(places_left(&data_dir)["sessions"].as_u64().unwrap_or(0), 0);
    if !on_engines() {
        assert_eq!(places_of_visitor(&data_dir), BTreeSet::new());
    }
    let listed = json(&["periods", "list"], &data_dir);
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
    let approved = json(&approve, &data_dir);
    assert_eq!(approved["state"], "succeeded", "{approved}");
    assert!(visits() < with_visitor);
    shop.assert_numbers_are_those_of_the_others();
}

#[test]
fn a_device_is_erased_by_any_spelling_of_its_address() {
    let shop = Shop::new();
    let data_dir = shop.data_dir();
    let instance = Instance::start(&data_dir);
    let (day, start, _) = utc_day(1)[0];
    let heard = |device: &str, n: i64| {
        let ts = start + 36_000_000 + n * 60_000;
        format!(
            r#"{{"venue":"v1","sensor":"wifi","kind":"presence","device":"{device}","ts":{ts},"rssi":-60}}"#
        )
    };
    let lines: Vec<String> = (0..20)
        .map(|n| heard("AA:BB:CC:00:11:22", n))
        .chain((0..30).map(|n| heard("AA:BB:CC:00:11:23", n)))
        .collect();
    let (status, answer) = instance.post("/v1/events", "application/x-ndjson", lines.join("\n").as_bytes());
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(50)), "{answer}");
    let recompute = ["recompute", "--venue", "v1", "--from", day, "--to", day];
    job(&recompute, &data_dir);
    let presence_rows = || -> usize {
        let of_presence = |path: &&std::path::PathBuf| {
            let text = path.to_string_lossy();
            text.contains("presence") && text.ends_with(".parquet") && !text.contains("checkpoint")
        };
        let files = files(&data_dir);
        files
            .iter()
            .filter(of_presence)
            .map(|path| parquet(path).len())
            .sum()
    };
    if !on_engines() {
        assert_eq!(presence_rows(), 50);
    }
    let device = ["erase", "--venue", "v1", "--device", "aa-bb-cc-00-11-22"];
    let report = job(&device, &data_dir);
    assert_eq!(report["removed"]["raw"], 20, "{report}");
    assert_eq!(report["removed"]["archive"], 20, "{report}");
    assert_eq!(report["not_findable"], serde_json::json!([]), "{report}");
    assert!(report["proven_at"].is_i64(), "{report}");
    if !on_engines() {
        assert_eq!(presence_rows(), 30, "the other device stays");
    }
    // Sent once more, it stays out, and the other is not counted twice.
    assert_eq!(
        instance
            .post("/v1/events", "application/x-ndjson", lines.join("\n").as_bytes())
            .0,
        202
    );
    job(&recompute, &data_dir);
    let left = job(&[&device[..], &["--dry-run"]].concat(), &data_dir);
    assert_eq!(left["places"]["raw"].as_u64().unwrap_or(0), 0, "{left}");
    let other = ["erase", "--venue", "v1", "--device", "AABBCC001123", "--dry-run"];
    assert_eq!(job(&other, &data_dir)["places"]["raw"], 30);
}
