//! Everything is lost but the archive and a backup, or but a backup alone, and comes back; numbers are those of the
//! independent computation, answers those of the instance before.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{DWELL, Instance, file, json, on_engines, place, raw_writer, run};
use crate::oracle::{Days, assert_equal, compute, exported, utc_day};
use crate::walkers::{Event, arrival, ndjson, venues, walk, zones};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn uri(path: &Path) -> String {
    format!("file://{}", text(path))
}

fn prepare(data_dir: &Path) {
    std::fs::create_dir_all(data_dir).expect("a folder");
    let venues = file(data_dir, "venues.json", &venues("Etc/UTC"));
    json(&["venues", "apply", text(&venues)], data_dir);
}

fn import(data_dir: &Path, name: &str, events: &[Event]) {
    let lines = file(data_dir, name, &ndjson(events));
    let report = json(&["import", text(&lines)], data_dir);
    assert_eq!(report["accepted"], events.len(), "{report}");
}

/// Runs a job that must succeed; its report.
fn job(args: &[&str], data_dir: &Path) -> Value {
    let mut all = vec!["jobs", "run"];
    all.extend_from_slice(args);
    all.push("--wait");
    let job = json(&all, data_dir);
    assert_eq!(job["state"], "succeeded", "{job}");
    job["report"].clone()
}

fn recompute(data_dir: &Path) {
    job(&["recompute", "--venue", "all"], data_dir);
}

fn assert_numbers(data_dir: &Path, events: &[Event], days: &Days) {
    let out = data_dir.join("out");
    json(&["export", "--out", text(&out)], data_dir);
    assert_equal(&exported(&out), &compute(events, &zones(), days));
}

/// Three days gone by, one after the other, and their events.
fn three_days() -> (Days, Vec<Event>, Vec<Event>) {
    let days: Days = [4, 3, 2].into_iter().flat_map(utc_day).collect();
    // Until the backup: two days, but for some events of the first that come late.
    let mut early = walk("v1", 40, days[0].1, days[1].2, 51);
    let late: Vec<Event> = early.iter().filter(|event| event.ts % 7 == 0).cloned().collect();
    early.retain(|event| event.ts % 7 != 0);
    let mut after = walk("v1", 30, days[2].1, days[2].2, 52);
    after
        .iter_mut()
        .for_each(|event| event.track = format!("later-{}", event.track));
    after.extend(late);
    (days, early, after)
}

/// Lets an embedded installation keep its archive apart from its data folder; on engines it does so anyway.
fn archive_apart(data_dir: &Path, archive: &Path) {
    if on_engines() {
        return;
    }
    std::fs::create_dir_all(archive).expect("a folder");
    std::fs::create_dir_all(data_dir).expect("a folder");
    let config = format!("[storage]\narchive = \"{}\"\n", uri(archive));
    file(data_dir, "dwell.toml", &config);
}

/// Lets a new installation, made by its first mention, use the archive of an older one. On engines it has a keyspace and
/// topics of its own.
fn take_over_archive(old: &Path, new: &Path) {
    if !on_engines() {
        return;
    }
    let _ = place(new);
    let archive_of = |config: &Path| {
        let text = std::fs::read_to_string(config).expect("a configuration");
        let line = text.lines().find(|line| line.trim_start().starts_with("archive"));
        line.expect("an archive").to_owned()
    };
    let config = new.join("dwell.toml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let changed = text.replace(&archive_of(&config), &archive_of(&old.join("dwell.toml")));
    std::fs::write(&config, changed).expect("a configuration");
}

#[test]
fn the_data_directory_is_lost_and_comes_back_from_archive_and_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, archive) = (folder.path().join("d"), folder.path().join("archive"));
    archive_apart(&data_dir, &archive);
    let (days, early, after) = three_days();
    let backups = uri(&folder.path().join("backups"));
    prepare(&data_dir);
    let writer = raw_writer(&data_dir);
    import(&data_dir, "early.ndjson", &arrival(early.clone(), 5));
    recompute(&data_dir);
    let report = job(&["backup", "--to", &backups], &data_dir);
    assert_eq!(report["days"], 2, "{report}");
    // After the backup: late events, and another day; archived, and then all is lost but the archive.
    import(&data_dir, "after.ndjson", &arrival(after.clone(), 6));
    recompute(&data_dir);
    let all: Vec<Event> = early.iter().chain(&after).cloned().collect();
    assert_numbers(&data_dir, &all, &days);
    let drill = job(&["drill"], &data_dir);
    assert_eq!(drill["differing"], 0, "{drill}");
    drop(writer);

    let new = folder.path().join("new");
    take_over_archive(&data_dir, &new);
    if !on_engines() {
        std::fs::remove_dir_all(&data_dir).expect("lost");
        archive_apart(&new, &archive);
    }
    let _writer = raw_writer(&new);
    let listed = json_without_installation(&["backups", "--at", &backups]);
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(1), "{listed}");
    let dry = job(&["restore-backup", "--from", &backups, "--dry-run"], &new);
    assert_eq!(
        (&dry["dry_run"], &dry["venues"]),
        (&Value::from(true), &Value::from(0)),
        "{dry}"
    );
    let restored = job(&["restore-backup", "--from", &backups], &new);
    assert_eq!(
        (&restored["venues"], &restored["days"]),
        (&Value::from(1), &Value::from(2)),
        "{restored}"
    );
    assert!(restored["dirty_days"].as_u64() >= Some(2), "{restored}");
    recompute(&new);
    assert_numbers(&new, &all, &days);
    // It is no longer empty, and goes on at the same place.
    let again = run(
        &["jobs", "run", "restore-backup", "--from", &backups, "--wait"],
        &new,
    );
    assert!(!again.status.success());
    job(&["backup", "--to", &backups], &new);
    let drill = job(&["drill"], &new);
    assert_eq!(drill["differing"], 0, "{drill}");
    assert!(drill["days_recomputed"].as_u64() >= Some(1), "{drill}");
}

fn json_without_installation(args: &[&str]) -> Value {
    let output = Command::new(DWELL)
        .args(args)
        .arg("--json")
        .output()
        .expect("dwell runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Answers on everything that was.
fn answers(instance: &Instance, days: &Days) -> Vec<(String, Value)> {
    let (from, to) = (days[0].0, days[days.len() - 1].0);
    let range = format!("from={from}&to={to}");
    let paths = [
        "/v1/venues".to_owned(),
        "/v1/venues/v1".to_owned(),
        format!("/v1/venues/v1/metrics?metric=visits,visitors,dwell_ms,dwell_p50,engaged&{range}&by=hour"),
        format!("/v1/venues/v1/metrics?metric=visits,dwell_p90,occupancy_max&{range}&by=day"),
        format!("/v1/venues/v1/sessions?{range}"),
        format!("/v1/venues/v1/transitions?{range}"),
        format!("/v1/venues/v1/heatmap?{range}"),
        format!("/v1/venues/v1/days?{range}"),
    ];
    paths
        .into_iter()
        .map(|path| {
            let (status, answer) = instance.get(&path);
            assert_eq!(status, 200, "{path}: {answer}");
            (path, answer)
        })
        .collect()
}

#[test]
fn a_backup_with_the_archive_alone_gives_every_answer_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, new) = (folder.path().join("d"), folder.path().join("new"));
    let backups = uri(&folder.path().join("backups"));
    let (days, early, after) = three_days();
    prepare(&data_dir);
    let instance = Instance::start(&data_dir);
    import(&data_dir, "early.ndjson", &arrival(early.clone(), 5));
    recompute(&data_dir);
    import(&data_dir, "after.ndjson", &arrival(after.clone(), 6));
    recompute(&data_dir);
    let before = answers(&instance, &days);
    let report = job(
        &["backup", "--to", &backups, "--option", "archive=true"],
        &data_dir,
    );
    assert_eq!(report["archive_files"], 3, "{report}");
    instance.kill();
    if !on_engines() {
        std::fs::remove_dir_all(&data_dir).expect("lost");
    }

    let restored = {
        let _writer = raw_writer(&new);
        job(&["restore-backup", "--from", &backups], &new)
    };
    assert_eq!(
        (&restored["archive_files"], &restored["dirty_days"]),
        (&Value::from(3), &Value::from(0)),
        "{restored}"
    );
    let instance = Instance::start(&new);
    for ((path, before), (_, after)) in before.iter().zip(answers(&instance, &days)) {
        assert_eq!(&after, before, "{path}");
    }
    job(&["verify", "--venue", "all"], &new);
    job(&["recompute", "--venue", "all", "--force"], &new);
    let all: Vec<Event> = early.into_iter().chain(after).collect();
    assert_numbers(&new, &all, &days);
    assert!(instance.stop());
}

#[test]
fn a_backup_killed_at_any_point_is_none_or_whole_and_is_done_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, new) = (folder.path().join("d"), folder.path().join("new"));
    let backups = uri(&folder.path().join("backups"));
    let days: Days = utc_day(2);
    let clean = walk("v1", 20, days[0].1, days[0].2, 61);
    prepare(&data_dir);
    let writer = raw_writer(&data_dir);
    import(&data_dir, "a.ndjson", &arrival(clean.clone(), 5));
    recompute(&data_dir);
    let killed = |args: &[&str], data_dir: &Path, point: &str| {
        let died = Command::new(DWELL)
            .args(["jobs", "run"])
            .args(args)
            .arg("--wait")
            .args(place(data_dir))
            .env("DWELL_FAILPOINTS", format!("{point}=kill"))
            .output()
            .expect("dwell runs");
        assert!(!died.status.success(), "{point} did not kill");
    };
    let count = || {
        let listed = json_without_installation(&["backups", "--at", &backups]);
        listed["backups"].as_array().map_or(0, Vec::len)
    };
    let take = ["backup", "--to", backups.as_str()];
    let with_archive = ["backup", "--to", backups.as_str(), "--option", "archive=true"];
    for point in ["backup.after_pin", "backup.before_manifest"] {
        // A worker of the next command takes the job up again when its claim has run out: each has a folder of its own.
        let place_of_its_own = uri(&folder.path().join(point));
        killed(&["backup", "--to", &place_of_its_own], &data_dir, point);
        // The second comes after the first, which dies once more: then there is not even a folder.
        if folder.path().join(point).exists() {
            let listed = json_without_installation(&["backups", "--at", &place_of_its_own]);
            assert_eq!(
                listed["backups"].as_array().map(Vec::len),
                Some(0),
                "{point}: {listed}"
            );
        }
    }
    job(&take, &data_dir);
    job(&with_archive, &data_dir);
    assert_eq!(count(), 2);
    drop(writer);
    if !on_engines() {
        std::fs::remove_dir_all(&data_dir).expect("lost");
    }

    let _writer = raw_writer(&new);
    let bring_back = ["restore-backup", "--from", backups.as_str()];
    for point in [
        "restore_backup.before_adopt",
        "restore_backup.before_tables",
        "restore_backup.after_month",
        "restore_backup.after_tables",
    ] {
        killed(&bring_back, &new, point);
    }
    // The first of them is taken up again, and brings everything back; whoever asks after that finds something there.
    let last = run(
        &[&["jobs", "run"], &bring_back[..], &["--wait", "--json"]].concat(),
        &new,
    );
    let listed = json(&["jobs", "list"], &new);
    let is_done = |job: &&Value| job["kind"] == "restore-backup" && job["state"] == "succeeded";
    let jobs = listed["jobs"].as_array().expect("jobs");
    assert_eq!(
        jobs.iter().filter(is_done).count(),
        1,
        "{}\n{listed}",
        String::from_utf8_lossy(&last.stdout)
    );
    recompute(&new);
    assert_numbers(&new, &clean, &days);
}

/// The only archived file of a folder.
fn archived_file(data_dir: &Path) -> PathBuf {
    let mut folders = vec![data_dir.join("archive/default/position")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "_delta_log") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "parquet") {
                return path;
            }
        }
    }
    panic!("no file");
}

#[test]
fn a_damaged_archive_file_is_named_and_repaired_from_raw_or_from_a_backup() {
    if on_engines() {
        println!("skipped: its files are not in a folder");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let days: Days = utc_day(2);
    let clean = walk("v1", 20, days[0].1, days[0].2, 71);
    prepare(&data_dir);
    import(&data_dir, "a.ndjson", &arrival(clean.clone(), 5));
    recompute(&data_dir);
    let backups = uri(&folder.path().join("backups"));
    job(&["verify", "--venue", "all"], &data_dir);

    let damage = |data_dir: &Path| {
        let path = archived_file(data_dir);
        let mut bytes = std::fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        std::fs::write(&path, bytes).expect("a file");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.to_owned()
    };
    let damaged = damage(&data_dir);
    let found = run(&["jobs", "run", "verify", "--venue", "all", "--wait"], &data_dir);
    assert!(!found.status.success());
    assert!(
        String::from_utf8_lossy(&found.stderr).contains(&damaged),
        "the file is named"
    );
    let repaired = job(
        &["verify", "--venue", "all", "--option", "repair=true"],
        &data_dir,
    );
    assert_eq!(
        repaired["files"][0]["repaired"], "written anew from raw",
        "{repaired}"
    );
    job(&["verify", "--venue", "all"], &data_dir);
    assert_numbers(&data_dir, &clean, &days);

    // Without raw rows: a new installation from the backup has none.
    job(
        &["backup", "--to", &backups, "--option", "archive=true"],
        &data_dir,
    );
    let new = folder.path().join("new");
    job(&["restore-backup", "--from", &backups], &new);
    let damaged = damage(&new);
    let repair = ["verify", "--venue", "all", "--option", "repair=true"];
    let mut without = vec!["jobs", "run"];
    without.extend(repair);
    without.push("--wait");
    let refused = run(&without, &new);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains(&damaged),
        "what cannot be recovered is named"
    );
    let from = format!("from_backup={backups}");
    let mut with_backup = repair.to_vec();
    with_backup.extend(["--option", from.as_str()]);
    let repaired = job(&with_backup, &new);
    let how = repaired["files"][0]["repaired"].as_str().expect("repaired");
    assert!(how.starts_with("brought back from file://"), "{repaired}");
    job(&["verify", "--venue", "all"], &new);
    job(&["recompute", "--venue", "all", "--force"], &new);
    assert_numbers(&new, &clean, &days);
}
