//! Whichever road events take, the same numbers come out, and they are those of the independent computation.

use std::path::Path;

use crate::harness::{Instance, eventually, file, json, now_ms, on_engines, raw_writer, run};
use crate::oracle::{Days, Tables, assert_equal, compute, exported};
use crate::walkers::{Event, apply_venues, arrival, ndjson, venues, walk, zones};

/// Two local days of Europe/Madrid over the end of summer time, given by hand: 25 hours on the 25th.
pub(crate) const DST_DAYS: [(&str, i64, i64); 2] = [
    ("2026-10-24", 1_792_792_800_000, 1_792_879_200_000),
    ("2026-10-25", 1_792_879_200_000, 1_792_969_200_000),
];

pub(crate) fn dst_days() -> Days {
    DST_DAYS.to_vec()
}

pub(crate) fn dst_events() -> Vec<Event> {
    let mut events = walk("v1", 60, DST_DAYS[0].1, DST_DAYS[1].2, 11);
    // People in the repeated hour and over midnight.
    events.extend(
        walk(
            "v1",
            20,
            DST_DAYS[1].1 + 7_200_000,
            DST_DAYS[1].1 + 14_400_000,
            12,
        )
        .into_iter()
        .map(rename),
    );
    events.extend(
        walk("v1", 20, DST_DAYS[0].2 - 400_000, DST_DAYS[0].2 + 400_000, 13)
            .into_iter()
            .map(|mut event| {
                event.track = format!("night-{}", event.track);
                event
            }),
    );
    events
}

fn rename(mut event: Event) -> Event {
    event.track = format!("dst-{}", event.track);
    event
}

pub(crate) fn export(data_dir: &Path) -> Tables {
    let out = data_dir.join("out");
    json(&["export", "--out", out.to_str().expect("a path")], data_dir);
    exported(&out)
}

pub(crate) fn recompute(data_dir: &Path) {
    let job = json(
        &["jobs", "run", "recompute", "--venue", "all", "--wait"],
        data_dir,
    );
    assert_eq!(job["state"], "succeeded", "{job}");
    assert!(job["id"].is_string());
}

pub(crate) fn prepare(data_dir: &Path) {
    std::fs::create_dir_all(data_dir).expect("a folder");
    let venues = file(data_dir, "venues.json", &venues("Europe/Madrid"));
    json(&["venues", "apply", venues.to_str().expect("a path")], data_dir);
}

#[test]
fn files_by_the_log_and_by_the_archive_give_the_oracles_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let clean = dst_events();
    let expected = compute(&clean, &zones(), &dst_days());
    let arriving = arrival(clean, 5);
    let (first, second) = arriving.split_at(arriving.len() / 3);
    for (road, flags) in [("log", &[][..]), ("archive", &["--to", "archive"][..])] {
        let data_dir = folder.path().join(road);
        prepare(&data_dir);
        let _raw_writer = raw_writer(&data_dir);
        let a = file(&data_dir, "a.ndjson", &ndjson(first));
        let b = file(&data_dir, "b.ndjson", &ndjson(second));
        let mut args = vec!["import", b.to_str().expect("a path"), a.to_str().expect("a path")];
        args.extend_from_slice(flags);
        let report = json(&args, &data_dir);
        assert_eq!(report["accepted"], arriving.len(), "{report}");
        recompute(&data_dir);
        let once = export(&data_dir);
        assert_equal(&once, &expected);
        // The same file twice changes nothing, nor does a second recompute.
        let again = json(&args, &data_dir);
        assert_eq!(again["files"][0]["state"], "already_imported", "{again}");
        recompute(&data_dir);
        assert_eq!(export(&data_dir), once, "{road}");
    }
}

#[test]
fn a_running_instance_takes_files_by_both_roads_and_gives_tables_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let clean = dst_events();
    let expected = compute(&clean, &zones(), &dst_days());
    let arriving = arrival(clean, 15);
    let (first, second) = arriving.split_at(arriving.len() / 2);
    let data_dir = folder.path().join("d");
    prepare(&data_dir);
    let a = file(&data_dir, "a.ndjson", &ndjson(first));
    let b = file(&data_dir, "b.ndjson", &ndjson(second));
    let instance = Instance::start(&data_dir);
    let into_archive = json(
        &["import", a.to_str().expect("a path"), "--to", "archive"],
        &data_dir,
    );
    assert_eq!(into_archive["accepted"], first.len(), "{into_archive}");
    let through_log = json(&["import", b.to_str().expect("a path")], &data_dir);
    assert_eq!(through_log["accepted"], second.len(), "{through_log}");
    let again = json(
        &["import", a.to_str().expect("a path"), "--to", "archive"],
        &data_dir,
    );
    assert_eq!(again["files"][0]["state"], "already_imported", "{again}");
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &expected);
    assert!(instance.stop(), "an orderly stop ends with 0");
}

#[test]
fn posted_events_give_the_oracles_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    // Yesterday and the day before in a zone without clock changes, so that the age limit does not bind.
    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, "Etc/UTC");
    let now = now_ms();
    let today = now / 86_400_000 * 86_400_000;
    let day = |start: i64| -> &'static str {
        let civil = chrono::DateTime::from_timestamp_millis(start)
            .expect("a time")
            .format("%Y-%m-%d")
            .to_string();
        Box::leak(civil.into_boxed_str())
    };
    let days: Days = [today - 2 * 86_400_000, today - 86_400_000]
        .map(|s| (day(s), s, s + 86_400_000))
        .to_vec();
    let clean = walk("v1", 80, days[0].1, days[1].2, 21);
    let expected = compute(&clean, &zones(), &days);
    for batch in arrival(clean, 6).chunks(500) {
        let (status, answer) = instance.post("/v1/events", "application/x-ndjson", ndjson(batch).as_bytes());
        assert_eq!(
            (status, &answer["accepted"]),
            (202, &batch.len().into()),
            "{answer}"
        );
        assert!(answer["receipt"].is_string() && answer["refused"].as_array().is_some_and(Vec::is_empty));
    }
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &expected);
    assert!(instance.stop(), "an orderly stop ends with 0");
}

#[test]
fn the_live_view_of_today_equals_the_oracle_and_the_batch_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    std::fs::create_dir_all(&data_dir).expect("a folder");
    let now = now_ms();
    // A zone in which it is about noon, so that today has hours behind it and ahead of it.
    let east = 12 - now.rem_euclid(86_400_000) / 3_600_000;
    let tz = format!("Etc/GMT{:+}", -east);
    let midnight = (now + east * 3_600_000).div_euclid(86_400_000) * 86_400_000 - east * 3_600_000;
    let civil = chrono::DateTime::from_timestamp_millis(midnight + east * 3_600_000).expect("a time");
    let today: &'static str = Box::leak(civil.format("%Y-%m-%d").to_string().into_boxed_str());
    let days: Days = vec![(today, midnight, midnight + 86_400_000)];

    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, &tz);
    let mut clean = walk("v1", 60, midnight, now - 60_000, 51);
    clean.sort_by_key(|event| event.ts);
    let expected = compute(&clean, &zones(), &days);
    for batch in clean.chunks(700) {
        // Twice: redeliveries change nothing.
        for _ in 0..2 {
            let (status, _) = instance.post("/v1/events", "application/x-ndjson", ndjson(batch).as_bytes());
            assert_eq!(status, 202);
        }
    }
    let path =
        format!("/v1/venues/v1/metrics?metric=visits,dwell_ms,visitors&from={today}&to={today}&by=hour");
    eventually("the live view equals the oracle", || {
        let (status, answer) = instance.get(&path);
        assert_eq!(status, 200, "{answer}");
        let buckets = answer["buckets"].as_array().expect("buckets");
        let value = |zone: &str, hour: i64, metric: &str| {
            let start = chrono::DateTime::from_timestamp_millis(hour).expect("a time");
            let start = start.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let is = |name: &str, bucket: &serde_json::Value, expected: &str| bucket[name] == expected;
            let found = buckets.iter().find(|bucket| {
                is("subject", bucket, zone) && is("start", bucket, &start) && is("metric", bucket, metric)
            });
            found
                .filter(|bucket| bucket["layer"] == "live")
                .and_then(|bucket| bucket["value"].as_i64())
        };
        expected.hourly.iter().all(|((zone, hour), numbers)| {
            value(zone, *hour, "visits") == Some(numbers.visits)
                && value(zone, *hour, "dwell_ms") == Some(numbers.dwell_ms)
                && value(zone, *hour, "visitors") == Some(numbers.visitors)
        })
    });
    recompute(&data_dir);
    assert_equal(&export(&data_dir), &expected);
    let (_, answer) = instance.get(&format!("/v1/venues/v1/days?from={today}&to={today}"));
    let drift = &answer["days"][0]["drift"];
    assert!(
        drift["buckets"].as_u64() > Some(0) && drift["differing"] == 0,
        "{answer}"
    );
}

#[test]
fn a_lone_event_shows_in_the_live_view_within_a_second_or_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, "Etc/UTC");
    let now = now_ms();
    let event = format!(r#"{{"sensor":"s","track":"t","ts":{now},"x":1.0,"y":1.0}}"#);
    let (status, _) = instance.post("/v1/venues/v1/events", "application/x-ndjson", event.as_bytes());
    assert_eq!(status, 202);
    eventually("the person shows in the zone", || {
        let (_, live) = instance.get("/v1/venues/v1/live");
        let zones = live["zones"].as_array().cloned().unwrap_or_default();
        zones
            .iter()
            .any(|zone| zone["id"] == "left" && zone["occupancy"] == 1)
    });
}

#[test]
fn a_second_process_on_one_folder_says_so_and_stops() {
    if on_engines() {
        // Engines are there to be shared.
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let mut instance = Instance::start(&data_dir);
    let second = run(&["up", "--listen", "127.0.0.1:0"], &data_dir);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        said.contains("in use by process") && said.contains(data_dir.to_str().expect("a path")),
        "{said}"
    );
    assert!(instance.is_running());
}
