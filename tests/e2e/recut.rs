//! A time zone is corrected while people look: former numbers until the flip, the new ones after it, both equal to the
//! independent computation; killed at every step; taken back.

use std::path::Path;

use serde_json::Value;

use crate::harness::{DWELL, Instance, eventually, file, json, on_engines, place, raw_writer};
use crate::oracle::{Days, Tables, assert_equal, compute};
use crate::roads::{DST_DAYS, dst_days, dst_events, export, recompute};
use crate::walkers::{Event, arrival, ndjson, venues, walk, zones};

/// New York's days by hand: UTC−4 until November, so they begin at 04:00 UTC.
const NEW_YORK: [(&str, i64, i64); 3] = [
    ("2026-10-23", 1_792_728_000_000, 1_792_814_400_000),
    ("2026-10-24", 1_792_814_400_000, 1_792_900_800_000),
    ("2026-10-25", 1_792_900_800_000, 1_792_987_200_000),
];

fn in_new_york(events: &[Event]) -> Tables {
    let days: Days = NEW_YORK.to_vec();
    compute(events, &zones(), &days)
}

fn in_madrid(events: &[Event]) -> Tables {
    compute(events, &zones(), &dst_days())
}

/// Applies a time zone; the answer's venue.
fn apply(data_dir: &Path, tz: &str, flags: &[&str]) -> Value {
    let path = file(data_dir, "venues.json", &venues(tz));
    let mut args = vec!["venues", "apply", path.to_str().expect("a path")];
    args.extend(flags);
    json(&args, data_dir)["venues"][0].clone()
}

fn import(data_dir: &Path, name: &str, events: &[Event]) {
    let path = file(data_dir, name, &ndjson(events));
    json(&["import", path.to_str().expect("a path")], data_dir);
}

/// What `dwell query` says of the days: (day's start, zone) → visits, zeros left out.
fn visits(data_dir: &Path, as_of: Option<&str>) -> Vec<(String, String, i64)> {
    let mut args = vec![
        "query",
        "--venue",
        "v1",
        "--metric",
        "visits",
        "--from",
        "2026-10-22",
        "--to",
        "2026-10-27",
        "--by",
        "day",
    ];
    args.extend(as_of.iter().flat_map(|as_of| ["--as-of", as_of]));
    let answer = json(&args, data_dir);
    let mut found: Vec<_> = answer["buckets"]
        .as_array()
        .expect("buckets")
        .iter()
        .filter_map(|bucket| {
            let text = |name: &str| bucket[name].as_str().expect("a text").to_owned();
            Some((
                text("start"),
                text("subject"),
                bucket["value"].as_i64().filter(|value| *value != 0)?,
            ))
        })
        .collect();
    found.sort();
    found
}

/// The same from the oracle's tables.
fn expected_visits(tables: &Tables, days: &[(&str, i64, i64)]) -> Vec<(String, String, i64)> {
    let mut expected: Vec<_> = tables
        .daily
        .iter()
        .filter(|(_, numbers)| numbers.visits != 0)
        .map(|((zone, day), numbers)| {
            let (_, start, _) = days.iter().find(|(name, _, _)| name == day).expect("a day");
            let start = chrono::DateTime::from_timestamp_millis(*start).expect("a time");
            let start = start.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            (start, zone.clone(), numbers.visits)
        })
        .collect();
    expected.sort();
    expected
}

fn job(instance: &Instance, id: &str) -> Value {
    let (status, job) = instance.get(&format!("/v1/jobs/{id}"));
    assert_eq!(status, 200, "{job}");
    job
}

/// A venue believed to be in New York, with its days computed.
fn shop(data_dir: &Path, events: &[Event]) {
    std::fs::create_dir_all(data_dir).expect("a folder");
    assert_eq!(
        apply(data_dir, "America/New_York", &[])["recut"],
        Value::Null,
        "there is nothing to cut"
    );
    let _raw_writer = raw_writer(data_dir);
    import(data_dir, "a.ndjson", &arrival(events.to_vec(), 8));
    recompute(data_dir);
    assert_equal(&export(data_dir), &in_new_york(events));
}

#[test]
fn readers_see_the_former_days_until_the_flip_and_then_the_new_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let events = dst_events();
    shop(&data_dir, &events);
    let wrong = export(&data_dir);
    let (before, after) = (
        expected_visits(&in_new_york(&events), &NEW_YORK),
        expected_visits(&in_madrid(&events), &DST_DAYS),
    );
    let instance = Instance::start_with(
        &data_dir,
        &[(
            "DWELL_FAILPOINTS",
            "recut.before_decision=1*pause:6s;recut.after_flip=1*pause:2s",
        )],
    );
    let planned = apply(&data_dir, "Europe/Madrid", &["--dry-run"]);
    assert_eq!(planned["recut"]["tz"], "Europe/Madrid", "{planned}");
    assert_eq!(planned["recut"]["job"], Value::Null);
    let applied = apply(&data_dir, "Europe/Madrid", &[]);
    let id = applied["recut"]["job"].as_str().expect("a job").to_owned();
    let again = apply(&data_dir, "Europe/Madrid", &[]);
    assert_eq!(
        again["recut"]["job"],
        Value::from(id.clone()),
        "one job, however often it is asked for"
    );
    let (_, venue) = instance.get("/v1/venues/v1");
    assert_eq!(
        (&venue["tz"], &venue["recut"]["tz"]),
        (&Value::from("America/New_York"), &Value::from("Europe/Madrid"))
    );

    // Meanwhile somebody late comes, and people look.
    let late: Vec<Event> = walk("v1", 3, DST_DAYS[0].1 + 3_600_000, DST_DAYS[0].1 + 7_200_000, 21)
        .into_iter()
        .map(|mut event| {
            event.track = format!("late-{}", event.track);
            event
        })
        .collect();
    let asked = std::time::Instant::now();
    eventually("the days are staged", || {
        let doing = job(&instance, &id)["progress"]["doing"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        // What pauses may pause before it has told.
        doing == "proving" || asked.elapsed() > std::time::Duration::from_secs(3)
    });
    assert!(instance.try_post("/v1/events", ndjson(&late).as_bytes()));
    // Where staging takes long they come in time, and are in the new days; else their day is dirty after the flip.
    let all = [events.clone(), late].concat();
    let with_late = expected_visits(&in_madrid(&all), &DST_DAYS);
    let (mut seen_before, mut seen_after, mut is_late) = (0, 0, false);
    eventually("the job ends", || {
        let seen = visits(&data_dir, None);
        if seen == before {
            assert_eq!(seen_after, 0, "there is no way back");
            seen_before += 1;
        } else {
            assert!(
                seen == after || seen == with_late,
                "neither the former days nor the new ones: {seen:?}"
            );
            is_late = seen == after;
            seen_after += 1;
        }
        job(&instance, &id)["state"] == "succeeded"
    });
    assert!(seen_before > 0 && seen_after > 0, "{seen_before} {seen_after}");
    let report = job(&instance, &id)["report"].clone();
    assert_eq!(report["outcome"], "flipped", "{report}");
    let distinct = |events: &[Event]| {
        let identities = events.iter().map(|event| (event.ts, &event.sensor, &event.track));
        identities.collect::<std::collections::BTreeSet<_>>().len() as u64
    };
    let proven = report["events"].as_u64().expect("a number");
    assert!(
        proven == distinct(&events) || (!is_late && proven == distinct(&all)),
        "{report}"
    );

    // The late ones are in the next run.
    eventually("the late events are in raw", || {
        recompute(&data_dir);
        let days = json(&["days", "--venue", "v1"], &data_dir);
        let days = days["days"].as_array().expect("days");
        let has_late = |day: &&Value| day["day"] == "2026-10-24" && day["late"]["events"].as_i64() > Some(0);
        !is_late || days.iter().any(|day| has_late(&day))
    });
    assert_equal(&export(&data_dir), &in_madrid(&all));
    // Before the flip another cut was published, and as of then it answers.
    let flipped = json(&["days", "--venue", "v1", "--day", "2026-10-25"], &data_dir);
    let flipped_at = flipped["generations"][0]["published_at"]
        .as_str()
        .expect("a time");
    let at = chrono::DateTime::parse_from_rfc3339(flipped_at)
        .expect("a time")
        .timestamp_millis();
    assert_eq!(visits(&data_dir, Some(&(at - 1).to_string())), before);
    let told_at_the_flip = if is_late { after } else { with_late };
    assert_eq!(visits(&data_dir, Some(&at.to_string())), told_at_the_flip);
    let verified = json(&["jobs", "run", "verify", "--venue", "v1", "--wait"], &data_dir);
    assert_eq!(verified["state"], "succeeded", "{verified}");

    // And the way back, without those who came late since they are known now.
    apply(&data_dir, "America/New_York", &["--wait"]);
    assert_equal(&export(&data_dir), &in_new_york(&all));
    assert_ne!(export(&data_dir), wrong);
    assert!(instance.stop());
}

#[test]
fn a_decided_recut_goes_through_whatever_it_fails_of_and_though_it_is_cancelled() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let events = dst_events();
    shop(&data_dir, &events);
    // Not a failure of the kind that passes by itself.
    let failpoints = ("DWELL_FAILPOINTS", "recut.after_flip=2*error:away");
    let instance = Instance::start_with(&data_dir, &[failpoints]);
    let applied = apply(&data_dir, "Europe/Madrid", &[]);
    let id = applied["recut"]["job"].as_str().expect("a job").to_owned();
    eventually("it has failed once", || {
        let doing = job(&instance, &id)["progress"]["doing"].clone();
        doing
            .as_str()
            .is_some_and(|doing| doing.starts_with("tries again"))
    });
    json(&["jobs", "cancel", &id], &data_dir);
    eventually("it ends", || {
        let job = job(&instance, &id);
        assert_ne!(job["state"], "failed", "{job}");
        job["state"] == "succeeded"
    });
    assert_equal(&export(&data_dir), &in_madrid(&events));
    // Nobody is kept from the days any more.
    import(&data_dir, "b.ndjson", &arrival(events.clone(), 9));
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &in_madrid(&events));
    assert!(instance.stop());
}

#[test]
fn a_correction_taken_back_gives_the_former_numbers_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let events = dst_events();
    shop(&data_dir, &events);
    let wrong = export(&data_dir);
    apply(&data_dir, "Europe/Madrid", &["--wait"]);
    assert_equal(&export(&data_dir), &in_madrid(&events));
    apply(&data_dir, "America/New_York", &["--wait"]);
    assert_eq!(export(&data_dir), wrong);
}

#[test]
fn a_recut_killed_at_any_step_is_finished_by_whoever_comes_next() {
    if on_engines() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let events = dst_events();
    shop(&data_dir, &events);
    let points = [
        "recut.after_fences",
        "recut.after_archive",
        "recut.after_files",
        "recut.before_generation",
        "recut.after_rows",
        "recut.after_day",
        "recut.before_decision",
        "recut.after_decision",
        "recut.before_flip",
        "recut.after_flip",
        "recut.after_announce",
        "recut.after_commit",
        "recut.after_pointer",
        "recut.before_done",
    ];
    // Each mostly waits: for a dead worker's claim and leases to run out.
    for some in points.chunks(5) {
        std::thread::scope(|scope| {
            for point in some {
                let (data_dir, events) = (&data_dir, &events);
                scope.spawn(move || finish_after(data_dir, events, point));
            }
        });
    }
}

/// Kills a recut at a failpoint, in a copy of the shop, and looks at what readers see and what the next process makes of
/// it.
fn finish_after(shop: &Path, events: &[Event], point: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([shop, &data_dir])
        .status();
    assert!(copied.expect("cp").success());
    let path = file(&data_dir, "venues.json", &venues("Europe/Madrid"));
    let died = std::process::Command::new(DWELL)
        .args(["venues", "apply", path.to_str().expect("a path"), "--wait"])
        .args(place(&data_dir))
        .env("DWELL_FAILPOINTS", format!("{point}=kill"))
        .env("DWELL_BATCH__LEASE_TTL", "3s")
        .output()
        .expect("dwell runs");
    assert!(!died.status.success(), "{point} did not kill");
    let is_flipped = [
        "recut.after_flip",
        "recut.after_announce",
        "recut.after_commit",
        "recut.after_pointer",
        "recut.before_done",
    ]
    .contains(&point);
    let seen = export(&data_dir);
    match is_flipped {
        true => assert_equal(&seen, &in_madrid(events)),
        false => assert_equal(&seen, &in_new_york(events)),
    }
    let instance = Instance::start_with(&data_dir, &[("DWELL_BATCH__LEASE_TTL", "3s")]);
    let applied = apply(&data_dir, "Europe/Madrid", &["--wait"]);
    eventually(point, || {
        let (_, venue) = instance.get("/v1/venues/v1");
        venue["tz"] == "Europe/Madrid" && venue["recut"].is_null()
    });
    assert_equal(&export(&data_dir), &in_madrid(events));
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &in_madrid(events));
    let verified = json(&["jobs", "run", "verify", "--venue", "v1", "--wait"], &data_dir);
    assert_eq!(verified["state"], "succeeded", "{point} {applied}: {verified}");
    assert!(instance.stop());
}
