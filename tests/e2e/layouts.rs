//! Floor plans and time zones change, also for days long past, and the numbers follow; and come back when the change is
//! taken back.

use std::path::Path;

use serde_json::Value;

use crate::harness::{file, json, raw_writer, run};
use crate::oracle::{Tables, assert_equal, compute};
use crate::roads::{DST_DAYS, dst_days, dst_events, export, prepare, recompute};
use crate::walkers::{arrival, ndjson, venues, zones};

/// The floor with the left zone two metres narrower, as of a day.
fn redrawn(valid_from: &str) -> String {
    venues("Europe/Madrid")
        .replace("[[0,0],[5,0],[5,8],[0,8]]", "[[0,0],[3,0],[3,8],[0,8]]")
        .replace(r#""tz":"#, &format!(r#""valid_from":"{valid_from}","tz":"#))
}

fn apply(data_dir: &Path, spec: &str, dry_run: bool) -> Value {
    let path = file(data_dir, "change.json", spec);
    let mut args = vec!["venues", "apply", path.to_str().expect("a path")];
    if dry_run {
        args.push("--dry-run");
    }
    let applied = json(&args, data_dir);
    applied["venues"][0].clone()
}

/// The numbers of both days, each under its own zones.
fn expected(second: &[(&str, Vec<(f64, f64)>)]) -> Tables {
    let (days, events) = (dst_days(), dst_events());
    let mut tables = compute(&events, &zones(), &days[..1].to_vec());
    let of_second = compute(&events, second, &days[1..].to_vec());
    tables.sessions.extend(of_second.sessions);
    tables.hourly.extend(of_second.hourly);
    tables.daily.extend(of_second.daily);
    tables
}

#[test]
fn a_zone_that_is_redrawn_in_the_past_restates_its_days_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    prepare(&data_dir);
    let _raw_writer = raw_writer(&data_dir);
    let events = file(&data_dir, "a.ndjson", &ndjson(&arrival(dst_events(), 7)));
    json(&["import", events.to_str().expect("a path")], &data_dir);
    recompute(&data_dir);
    let before = export(&data_dir);
    assert_equal(&before, &expected(&zones()));

    let from = DST_DAYS[1].0;
    let planned = apply(&data_dir, &redrawn(from), true);
    assert_eq!(planned["affected"]["count"], 1, "{planned}");
    assert_eq!(planned["affected"]["first"], from, "{planned}");
    recompute(&data_dir);
    assert_eq!(export(&data_dir), before, "a dry run changes nothing");

    assert_eq!(
        apply(&data_dir, &redrawn(from), false)["affected"],
        planned["affected"]
    );
    recompute(&data_dir);
    let mut narrower = zones();
    narrower[0].1 = vec![(0.0, 0.0), (3.0, 0.0), (3.0, 8.0), (0.0, 8.0)];
    let restated = export(&data_dir);
    assert_equal(&restated, &expected(&narrower));
    assert_ne!(restated, before);

    // As it was, from the same day on.
    let as_it_was = redrawn(from).replace("[[0,0],[3,0],[3,8],[0,8]]", "[[0,0],[5,0],[5,8],[0,8]]");
    let file = file(&data_dir, "as-it-was.json", &as_it_was);
    let waited = json(
        &["venues", "apply", file.to_str().expect("a path"), "--wait"],
        &data_dir,
    );
    let affected = &waited["venues"][0]["affected"]["count"];
    assert_eq!(
        (&waited["recompute"]["state"], &waited["recompute"]["computed"]),
        (&Value::from("succeeded"), affected)
    );
    assert_eq!(export(&data_dir), before, "the former numbers come back exactly");
}

#[test]
fn a_corrected_time_zone_cuts_all_days_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    std::fs::create_dir_all(&data_dir).expect("a folder");
    apply(&data_dir, &venues("America/New_York"), false);
    let _raw_writer = raw_writer(&data_dir);
    let events = file(&data_dir, "a.ndjson", &ndjson(&arrival(dst_events(), 8)));
    json(&["import", events.to_str().expect("a path")], &data_dir);
    recompute(&data_dir);
    // Seen from New York the events begin in the evening before.
    let wrong = export(&data_dir);
    assert!(
        wrong.daily.keys().any(|(_, day)| day == "2026-10-23"),
        "{:?}",
        wrong.daily.keys()
    );
    let madrid = file(&data_dir, "madrid.json", &venues("Europe/Madrid"));
    let applied = json(
        &["venues", "apply", madrid.to_str().expect("a path"), "--wait"],
        &data_dir,
    );
    let applied = &applied["venues"][0];
    assert_eq!(
        (&applied["recomputes_all"], &applied["affected"]["count"]),
        (&Value::Bool(true), &Value::from(3))
    );
    assert_equal(&export(&data_dir), &expected(&zones()));
}

/// A stay in the venue: who, from, until.
type Stay = (String, i64, i64);

/// Visits, milliseconds and people within opening hours [from, to), by the definition.
fn within(stays: &[Stay], (from, to): (i64, i64)) -> [i64; 3] {
    let visits = stays.iter().filter(|stay| from <= stay.1 && stay.1 < to).count();
    let time = stays
        .iter()
        .map(|stay| (stay.2.min(to) - stay.1.max(from)).max(0))
        .sum();
    let present = stays.iter().filter(|stay| stay.1 < to && stay.2 >= from);
    let people: std::collections::BTreeSet<&str> = present.map(|stay| stay.0.as_str()).collect();
    [visits as i64, time, people.len() as i64]
}

/// What `dwell query` says of the venue by day: visits, milliseconds and people of each day.
fn queried(data_dir: &Path, slice: &str) -> Vec<[i64; 3]> {
    let answer = json(
        &[
            "query",
            "--venue",
            "v1",
            "--metric",
            "visits,dwell_ms,visitors",
            "--zone",
            "_venue",
            "--from",
            DST_DAYS[0].0,
            "--to",
            DST_DAYS[1].0,
            "--slice",
            slice,
        ],
        data_dir,
    );
    assert_eq!(answer["slice"], slice, "{answer}");
    let value = |bucket: &Value| {
        assert_eq!(bucket["state"], "ok", "{bucket}");
        bucket["value"].as_i64().expect("a number")
    };
    let values: Vec<i64> = answer["buckets"]
        .as_array()
        .expect("buckets")
        .iter()
        .map(value)
        .collect();
    values
        .chunks(3)
        .map(|of_day| [of_day[0], of_day[1], of_day[2]])
        .collect()
}

#[test]
fn opening_hours_that_are_changed_in_the_past_restate_open_and_leave_all_as_it_was() {
    const HOUR: i64 = 3_600_000;
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    std::fs::create_dir_all(&data_dir).expect("a folder");
    let open = |from: i64, to: i64| {
        venues("Europe/Madrid").replace(
            r#""open":0,"close":24"#,
            &format!(r#""open":{from},"close":{to}"#),
        )
    };
    apply(&data_dir, &open(10, 20), false);
    let _raw_writer = raw_writer(&data_dir);
    let events = file(&data_dir, "a.ndjson", &ndjson(&arrival(dst_events(), 9)));
    json(&["import", events.to_str().expect("a path")], &data_dir);
    recompute(&data_dir);
    let all = export(&data_dir);
    assert_equal(&all, &expected(&zones()));

    // The stays of each day as the independent computation has them, and the hours by hand: at 10:00 of the second day
    // eleven hours have gone, since one of them came twice.
    let stays: Vec<Vec<Stay>> = dst_days()
        .into_iter()
        .map(|day| {
            let tables = compute(&dst_events(), &zones(), &vec![day]);
            let stay = |(track, start, end, _): (String, i64, i64, i64)| (track, start, end);
            tables.sessions.into_iter().map(stay).collect()
        })
        .collect();
    let hours = |day: usize, from: i64, to: i64| {
        let clock_change = if day == 1 { HOUR } else { 0 };
        let start = DST_DAYS[day].1 + clock_change;
        within(&stays[day], (start + from * HOUR, start + to * HOUR))
    };
    let before = [hours(0, 10, 20), hours(1, 10, 20)];
    assert_eq!(queried(&data_dir, "open"), before);

    let tagged = stays[1][0].0.clone();
    let changed = open(12, 14).replace(
        r#""tz":"#,
        &format!(
            r#""valid_from":"{}","staff_tags":["{tagged}"],"tz":"#,
            DST_DAYS[1].0
        ),
    );
    let planned = apply(&data_dir, &changed, true);
    assert_eq!(
        (&planned["affected"]["count"], &planned["affected"]["first"]),
        (&1.into(), &DST_DAYS[1].0.into())
    );
    apply(&data_dir, &changed, false);
    assert_eq!(
        queried(&data_dir, "open"),
        before,
        "until it is computed, what is published"
    );
    recompute(&data_dir);
    assert_eq!(export(&data_dir), all, "all is as it was");
    let after = queried(&data_dir, "open");
    assert_eq!(after, [before[0], hours(1, 12, 14)]);
    assert_ne!(after[1], before[1]);
    // The first day has no staff tags, the second one has.
    let answer = json(
        &[
            "query",
            "--venue",
            "v1",
            "--metric",
            "visits",
            "--zone",
            "_venue",
            "--from",
            DST_DAYS[0].0,
            "--to",
            DST_DAYS[1].0,
            "--slice",
            "staff",
        ],
        &data_dir,
    );
    let of_staff = stays[1].iter().filter(|stay| stay.0 == tagged).count();
    let told: Vec<(&Value, &Value)> = answer["buckets"]
        .as_array()
        .expect("buckets")
        .iter()
        .map(|bucket| (&bucket["value"], &bucket["state"]))
        .collect();
    assert_eq!(
        told,
        [
            (&Value::Null, &"no-staff-tags".into()),
            (&of_staff.into(), &"ok".into())
        ]
    );
    // Any other slice is refused.
    let refused = run(
        &[
            "query",
            "--venue",
            "v1",
            "--metric",
            "visits",
            "--from",
            DST_DAYS[0].0,
            "--to",
            DST_DAYS[0].0,
            "--slice",
            "night",
        ],
        &data_dir,
    );
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("no slice"),
        "{refused:?}"
    );
}
