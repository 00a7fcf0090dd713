//! Floor plans and time zones change, also for days long past, and the numbers follow; and come back when the change is
//! taken back.

use std::path::Path;

use serde_json::Value;

use crate::harness::{file, json, raw_writer};
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
    apply(&data_dir, &as_it_was, false);
    recompute(&data_dir);
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
