//! A wrong sensor posts a day of rubbish, a wrong file corrects what was right: found, reverted, undone. After each
//! step the numbers are those of the independent computation over what should count.

use std::path::Path;

use serde_json::Value;

use crate::harness::{DWELL, Instance, eventually, file, json, now_ms, place, raw_writer, run};
use crate::oracle::{Days, Tables, assert_equal, compute, exported, utc_day};
use crate::walkers::{Event, apply_venues, ndjson, walk, zones};

const DAY: i64 = 86_400_000;

/// Somebody else's walk, seen by one sensor.
fn seen_by(sensor: &str, prefix: &str, mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        event.sensor = sensor.to_owned();
        event.track = format!("{prefix}{}", event.track);
    }
    // Renaming may make two events of one.
    events.sort_by(|a, b| (&a.track, a.ts).cmp(&(&b.track, b.ts)));
    events.dedup_by(|a, b| a.track == b.track && a.ts == b.ts);
    events
}

fn export(data_dir: &Path) -> Tables {
    let out = data_dir.join("out");
    json(&["export", "--out", out.to_str().expect("a path")], data_dir);
    exported(&out)
}

fn recompute(data_dir: &Path) {
    let job = json(
        &["jobs", "run", "recompute", "--venue", "all", "--wait"],
        data_dir,
    );
    assert_eq!(job["state"], "succeeded", "{job}");
}

/// Runs a job to its end; it must succeed.
fn job(args: &[&str], data_dir: &Path) -> Value {
    let mut all = vec!["jobs", "run"];
    all.extend_from_slice(args);
    all.push("--wait");
    let job = json(&all, data_dir);
    assert_eq!(job["state"], "succeeded", "{job}");
    job
}

/// Asks for a job that cannot be done; returns what is said.
fn refused(args: &[&str], data_dir: &Path) -> String {
    let mut all = vec!["jobs", "run"];
    all.extend_from_slice(args);
    all.push("--wait");
    let output = run(&all, data_dir);
    assert!(!output.status.success(), "{args:?} was done");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn post(instance: &Instance, events: &[Event]) -> String {
    let mut receipt = String::new();
    for batch in events.chunks(500) {
        let (status, answer) = instance.post("/v1/events", "application/x-ndjson", ndjson(batch).as_bytes());
        assert_eq!(
            (status, &answer["accepted"]),
            (202, &batch.len().into()),
            "{answer}"
        );
        receipt = answer["receipt"].as_str().expect("a receipt").to_owned();
    }
    receipt
}

fn prepare(data_dir: &Path, tz: &str) {
    apply_venues(data_dir, tz);
}

#[test]
fn a_wrong_sensor_is_found_reverted_and_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    prepare(&data_dir, "Etc/UTC");
    let instance = Instance::start(&data_dir);
    let mut days: Days = utc_day(2);
    days.extend(utc_day(1));
    let (_, start, _) = days[0];
    let good = walk("v1", 40, start, start + 2 * DAY, 61);
    // Rubbish on the second day only.
    let rubbish = seen_by("s-wrong", "w", walk("v1", 25, start + DAY, start + 2 * DAY, 62));
    let second_day = days[1].0;
    let with = |parts: &[&[Event]]| compute(&parts.concat(), &zones(), &days);
    let (clean, dirty) = (with(&[&good]), with(&[&good, &rubbish]));
    post(&instance, &good);
    post(&instance, &rubbish);
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &dirty);

    // Found: somebody's way that cannot be names the sensor that saw it.
    let (_, listed) = instance.get(&format!("/v1/venues/v1/sessions?day={second_day}"));
    let sessions = listed["sessions"].as_array().expect("sessions");
    let odd = sessions
        .iter()
        .find(|session| {
            session["track"]
                .as_str()
                .is_some_and(|track| track.starts_with('w'))
        })
        .expect("a session of the wrong sensor");
    let odd = odd["id"].as_str().expect("an id");
    let (_, way) = instance.get(&format!("/v1/venues/v1/sessions/{odd}"));
    assert_eq!(way["trajectory"][0]["sensor"], "s-wrong", "{way}");

    // A look first: which days, how many events, what would change. Nothing does.
    let why = "camera of the stockroom was named like one of the floor";
    let revert = ["revert", "--venue", "v1", "--sensor", "s-wrong", "--reason", why];
    let look = job(&[&revert[..], &["--dry-run"]].concat(), &data_dir);
    let report = &look["report"];
    assert_eq!(
        (&report["dry_run"], &report["affected_days"]),
        (&true.into(), &1.into()),
        "{look}"
    );
    assert_eq!(report["events"]["position"], rubbish.len(), "{look}");
    let of_day = &report["days"][second_day];
    let visits = |tables: &Tables| tables.daily[&("_venue".to_owned(), second_day.to_owned())].visits;
    assert_eq!(of_day["before"]["metrics"]["visits"], visits(&dirty), "{look}");
    assert_eq!(of_day["after"]["metrics"]["visits"], visits(&clean), "{look}");
    assert_eq!(of_day["excluded"]["position"], rubbish.len(), "{look}");
    assert!(of_day["buckets"]["changed"].as_u64() > Some(0), "{look}");
    assert_equal(&export(&data_dir), &dirty);
    assert_eq!(
        json(&["exclusions"], &data_dir)["exclusions"],
        Value::Array(vec![])
    );
    let nothing = refused(&["undo", "--job", look["id"].as_str().expect("an id")], &data_dir);
    assert!(nothing.contains("was a dry run"), "{nothing}");

    // Done: the numbers are those of the good events, and what was looked at is what came.
    let done = job(&revert, &data_dir);
    assert_equal(&export(&data_dir), &clean);
    for said in ["before", "after", "excluded", "buckets"] {
        assert_eq!(done["report"]["days"][second_day][said], of_day[said], "{said}");
    }
    let id = done["id"].as_str().expect("an id");
    let listed = json(&["exclusions", "--venue", "v1"], &data_dir);
    let exclusion = &listed["exclusions"][0];
    assert_eq!(
        (
            &exclusion["id"],
            &exclusion["state"],
            &exclusion["sensor"],
            &exclusion["reason"]
        ),
        (&id.into(), &"in_force".into(), &"s-wrong".into(), &why.into())
    );
    assert_eq!(exclusion["days"][0]["first"], second_day);
    let (status, over_http) = instance.get("/v1/exclusions?venue=v1");
    assert_eq!((status, &over_http["exclusions"]), (200, &listed["exclusions"]));
    let reasons = json(&["days", "--venue", "v1"], &data_dir);
    let reasons = reasons["days"].to_string();
    assert!(reasons.contains("exclusions changed"), "{reasons}");

    // The sensor is right now: what it sends from here on counts, for that day too.
    let mended = seen_by("s-wrong", "m", walk("v1", 10, start + DAY, start + 2 * DAY, 63));
    let receipt = post(&instance, &mended);
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &with(&[&good, &mended]));

    // One more that overlaps, by receipt; it covers the last request whole.
    let last_request = &mended[mended.len() - 1 - (mended.len() - 1) % 500..];
    let kept = &mended[..mended.len() - last_request.len()];
    let by_receipt = job(
        &[
            "revert",
            "--venue",
            "v1",
            "--receipt",
            &receipt,
            "--reason",
            "a trial",
        ],
        &data_dir,
    );
    assert_equal(&export(&data_dir), &with(&[&good, kept]));
    let other = by_receipt["id"].as_str().expect("an id");
    job(&["undo", "--job", other], &data_dir);
    assert_equal(&export(&data_dir), &with(&[&good, &mended]));

    // Undone: everything counts again.
    let look = job(&["undo", "--job", id, "--dry-run"], &data_dir);
    let everything = with(&[&good, &rubbish, &mended]);
    let after = &look["report"]["days"][second_day]["after"]["metrics"]["visits"];
    assert_eq!(*after, visits(&everything), "{look}");
    job(
        &["undo", "--job", id, "--reason", "it was right after all"],
        &data_dir,
    );
    assert_equal(&export(&data_dir), &everything);
    let again = refused(&["undo", "--job", id], &data_dir);
    assert!(again.contains("was undone at"), "{again}");
    let listed = json(&["exclusions", "--state", "ended"], &data_dir);
    assert_eq!(listed["exclusions"].as_array().map(Vec::len), Some(2), "{listed}");

    // What cannot be meant is refused at once, and says why.
    let some_job = json(&["jobs", "list", "--limit", "100"], &data_dir);
    let kinds = some_job["jobs"].as_array().expect("jobs");
    let other_kind = kinds
        .iter()
        .find(|job| job["kind"] == "recompute")
        .expect("a recompute");
    let other_kind = other_kind["id"].as_str().expect("an id");
    for (args, said) in [
        (
            &["revert", "--venue", "v1", "--reason", "x"][..],
            "say what to leave out",
        ),
        (&["revert", "--venue", "v1", "--sensor", "s"], "needs a reason"),
        (
            &["revert", "--venue", "all", "--sensor", "s", "--reason", "x"],
            "one venue",
        ),
        (
            &["revert", "--venue", "v1", "--receipt", "abc", "--reason", "x"],
            "is not a receipt",
        ),
        (
            &[
                "revert",
                "--venue",
                "v1",
                "--from-time",
                "2026-03-02T00:00:00Z",
                "--to-time",
                "2026-03-01T00:00:00Z",
                "--reason",
                "x",
            ],
            "must lie after",
        ),
        (
            &[
                "revert",
                "--venue",
                "v1",
                "--option",
                "file=none.csv",
                "--reason",
                "x",
            ],
            "no imported file",
        ),
        (&["undo", "--job", other_kind], "of the kind recompute"),
        (&["undo", "--job", "nobody"], "there is no job"),
        (&["undo"], "job"),
    ] {
        let refusal = refused(args, &data_dir);
        assert!(refusal.contains(said), "{args:?}: {refusal}");
    }
    assert_equal(&export(&data_dir), &everything);
    assert!(instance.stop(), "an orderly stop ends with 0");
}

#[test]
fn a_wrong_file_that_covered_what_was_right_is_reverted_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for (road, flags) in [("log", &[][..]), ("archive", &["--to", "archive"][..])] {
        let data_dir = folder.path().join(road);
        prepare(&data_dir, "Etc/UTC");
        let _raw_writer = raw_writer(&data_dir);
        let days = utc_day(3);
        let (_, start, end) = days[0];
        let good = walk("v1", 30, start, end, 71);
        // The same people, everybody half a metre off: a correction of everything.
        let mut wrong = good.clone();
        wrong.iter_mut().for_each(|event| event.x_cm += 50);
        let (right, covered) = (compute(&good, &zones(), &days), compute(&wrong, &zones(), &days));
        for (name, events) in [("good.ndjson", &good), ("wrong.ndjson", &wrong)] {
            let path = file(&data_dir, name, &ndjson(events));
            let mut args = vec!["import", path.to_str().expect("a path")];
            args.extend_from_slice(flags);
            json(&args, &data_dir);
        }
        recompute(&data_dir);
        assert_equal(&export(&data_dir), &covered);
        let why = ["--option", "file=wrong.ndjson", "--reason", "wrong calibration"];
        let revert = [&["revert", "--venue", "v1"][..], &why].concat();
        let done = job(&revert, &data_dir);
        let of_day = &done["report"]["days"][days[0].0];
        assert_eq!(of_day["restored"], good.len(), "{done}");
        assert_equal(&export(&data_dir), &right);
        // Nor does it come back by being brought again, under another name.
        let again = file(&data_dir, "again.ndjson", &ndjson(&wrong));
        json(&["import", again.to_str().expect("a path")], &data_dir);
        recompute(&data_dir);
        assert_equal(&export(&data_dir), &right);
        job(&["undo", "--job", done["id"].as_str().expect("an id")], &data_dir);
        assert_equal(&export(&data_dir), &covered);
    }
}

#[test]
fn a_revert_killed_at_any_step_is_done_by_the_next_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    prepare(&data_dir, "Etc/UTC");
    let _raw_writer = raw_writer(&data_dir);
    let days = utc_day(2);
    let (_, start, end) = days[0];
    let good = walk("v1", 20, start, end, 81);
    let rubbish = seen_by("s-wrong", "w", walk("v1", 10, start, end, 82));
    let clean = compute(&good, &zones(), &days);
    let dirty = compute(&[good.clone(), rubbish.clone()].concat(), &zones(), &days);
    let path = file(&data_dir, "all.ndjson", &ndjson(&[good, rubbish].concat()));
    json(&["import", path.to_str().expect("a path")], &data_dir);
    recompute(&data_dir);
    for failpoint in [
        "revert.after_store=kill",
        "batch.before_covered_days=kill",
        "revert.before_recompute=kill",
        "batch.before_publish=kill",
    ] {
        let died = std::process::Command::new(DWELL)
            .args(["jobs", "run", "revert", "--venue", "v1", "--sensor", "s-wrong"])
            .args(["--reason", "a drill", "--wait"])
            .args(place(&data_dir))
            .env("DWELL_FAILPOINTS", failpoint)
            .output()
            .expect("dwell runs");
        assert!(!died.status.success(), "{failpoint} did not kill");
        let listed = json(&["jobs", "list", "--limit", "1"], &data_dir);
        let id = listed["jobs"][0]["id"].as_str().expect("an id").to_owned();
        eventually("another worker has done it", || {
            recompute(&data_dir);
            let job = json(&["jobs", "show", &id], &data_dir);
            assert_ne!(job["state"], "failed", "{job}");
            job["state"] == "succeeded"
        });
        assert_equal(&export(&data_dir), &clean);
        let in_force = json(&["exclusions", "--state", "in_force"], &data_dir);
        assert_eq!(
            in_force["exclusions"].as_array().map(Vec::len),
            Some(1),
            "{in_force}"
        );
        job(&["undo", "--job", &id], &data_dir);
        assert_equal(&export(&data_dir), &dirty);
    }
}

#[test]
fn the_live_view_of_today_follows_a_revert_and_its_undo() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let now = now_ms();
    // A zone in which it is about noon, so that today has hours behind it.
    let east = 12 - now.rem_euclid(DAY) / 3_600_000;
    prepare(&data_dir, &format!("Etc/GMT{:+}", -east));
    let midnight = (now + east * 3_600_000).div_euclid(DAY) * DAY - east * 3_600_000;
    let civil = chrono::DateTime::from_timestamp_millis(midnight + east * 3_600_000).expect("a time");
    let today: &'static str = Box::leak(civil.format("%Y-%m-%d").to_string().into_boxed_str());
    let days: Days = vec![(today, midnight, midnight + DAY)];
    let instance = Instance::start(&data_dir);
    let good = walk("v1", 20, midnight, now - 60_000, 91);
    let rubbish = seen_by("s-wrong", "w", walk("v1", 20, midnight, now - 60_000, 92));
    let clean = compute(&good, &zones(), &days);
    let dirty = compute(&[good.clone(), rubbish.clone()].concat(), &zones(), &days);
    post(&instance, &good);
    post(&instance, &rubbish);
    let path = format!("/v1/venues/v1/metrics?metric=visits,dwell_ms&from={today}&to={today}&by=hour");
    let shows = |expected: &Tables| {
        let (status, answer) = instance.get(&path);
        assert_eq!(status, 200, "{answer}");
        let buckets = answer["buckets"].as_array().expect("buckets");
        let value = |zone: &str, hour: i64, metric: &str| {
            let start = chrono::DateTime::from_timestamp_millis(hour).expect("a time");
            let start = start.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let found = buckets.iter().find(|bucket| {
                bucket["subject"] == zone && bucket["start"] == start.as_str() && bucket["metric"] == metric
            });
            let live = found.filter(|bucket| bucket["layer"] == "live");
            live.and_then(|bucket| bucket["value"].as_i64())
        };
        expected.hourly.iter().all(|((zone, hour), numbers)| {
            value(zone, *hour, "visits") == Some(numbers.visits)
                && value(zone, *hour, "dwell_ms") == Some(numbers.dwell_ms)
        })
    };
    eventually("the live view shows everything", || shows(&dirty));
    let done = job(
        &[
            "revert", "--venue", "v1", "--sensor", "s-wrong", "--reason", "rubbish",
        ],
        &data_dir,
    );
    assert_eq!(done["report"]["days"][today]["open"], true, "{done}");
    eventually("the live view shows what is left", || shows(&clean));
    job(&["undo", "--job", done["id"].as_str().expect("an id")], &data_dir);
    eventually("the live view shows everything again", || shows(&dirty));
}
