//! A customer calls about last month's figure: late data, what was published when, what changed, a closed period, and
//! the way from a number to its events. Every number is held against the independent computation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Instance, file, json, run};
use crate::oracle::{Days, Tables, compute};
use crate::walkers::{Event, arrival, ndjson, venues, walk, zones};

/// A local day of Europe/Madrid in summer, by hand: 22:00 to 22:00 UTC.
const DAY: (&str, i64, i64) = ("2026-09-16", 1_789_509_600_000, 1_789_596_000_000);
const METRICS: [&str; 4] = ["visits", "visitors", "dwell_ms", "engaged"];

/// (grain, start, zone, metric) → number.
type Numbers = BTreeMap<(String, String, String, String), i64>;

fn path(file: &Path) -> &str {
    file.to_str().expect("a path")
}

fn rfc3339(ts: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ts).expect("a time");
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn oracle(events: &[Event]) -> Tables {
    let days: Days = vec![DAY];
    compute(events, &zones(), &days)
}

/// The oracle's numbers, zeros left out.
fn expected(events: &[Event]) -> Numbers {
    let tables = oracle(events);
    let hours = tables
        .hourly
        .into_iter()
        .map(|((zone, hour), of)| ("hour", rfc3339(hour), zone, of));
    let days = tables
        .daily
        .into_iter()
        .map(|((zone, _), of)| ("day", rfc3339(DAY.1), zone, of));
    let mut numbers = Numbers::new();
    for (grain, start, zone, of) in hours.chain(days) {
        for (metric, value) in METRICS
            .into_iter()
            .zip([of.visits, of.visitors, of.dwell_ms, of.engaged])
        {
            if value != 0 {
                numbers.insert((grain.into(), start.clone(), zone.clone(), metric.into()), value);
            }
        }
    }
    numbers
}

/// What `dwell query` says, zeros left out.
fn queried(data_dir: &Path, as_of: Option<&str>) -> Numbers {
    let mut numbers = Numbers::new();
    for by in ["hour", "day"] {
        let metrics = METRICS.join(",");
        let mut args = vec![
            "query", "--venue", "v1", "--metric", &metrics, "--from", DAY.0, "--to", DAY.0, "--by", by,
        ];
        args.extend(as_of.iter().flat_map(|as_of| ["--as-of", as_of]));
        for bucket in json(&args, data_dir)["buckets"].as_array().expect("buckets") {
            let text = |name: &str| bucket[name].as_str().expect("a text").to_owned();
            if let Some(value) = bucket["value"].as_i64().filter(|value| *value != 0) {
                numbers.insert((by.into(), text("start"), text("subject"), text("metric")), value);
            }
        }
    }
    numbers
}

/// A customer's copy, kept by following the feed.
#[derive(Default)]
struct Warehouse {
    buckets: BTreeMap<(String, String, String, String), Value>,
    since: u64,
}

impl Warehouse {
    /// Reads what is new, an entry per page.
    fn follow(&mut self, instance: &Instance) -> usize {
        let (mut cursor, mut entries) = (String::new(), 0);
        loop {
            let path = format!("/v1/venues/v1/changes?since={}&limit=1{cursor}", self.since);
            let (status, page) = instance.get(&path);
            assert_eq!(status, 200, "{page}");
            for entry in page["changes"].as_array().expect("changes") {
                entries += usize::from(entry["continued"] != true);
                self.apply(entry);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => {
                    self.since = page["next"].as_u64().expect("a number");
                    return entries;
                }
            }
        }
    }

    fn apply(&mut self, entry: &Value) {
        assert_eq!(entry["day"], DAY.0, "{entry}");
        if entry["replaces"] == "day" && entry["continued"] != true {
            self.buckets.clear();
        }
        for bucket in entry["buckets"].as_array().expect("buckets") {
            let text = |name: &str| bucket[name].as_str().expect("a text").to_owned();
            let key = (text("grain"), text("start"), text("family"), text("subject"));
            match &bucket["after"] {
                Value::Null => self.buckets.remove(&key),
                after => self.buckets.insert(key, after.clone()),
            };
        }
    }

    fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::new();
        for ((grain, start, family, subject), values) in &self.buckets {
            for metric in METRICS.into_iter().filter(|_| family == "zone") {
                if let Some(value) = values[metric].as_i64().filter(|value| *value != 0) {
                    let key = (grain.clone(), start.clone(), subject.clone(), metric.to_owned());
                    numbers.insert(key, value);
                }
            }
        }
        numbers
    }
}

fn recompute(data_dir: &Path) -> Value {
    let job = json(&["jobs", "run", "recompute", "--venue", "v1", "--wait"], data_dir);
    assert_eq!(job["state"], "succeeded", "{job}");
    job["report"].clone()
}

fn import(data_dir: &Path, name: &str, events: &[Event]) {
    let file = file(data_dir, name, &ndjson(events));
    let report = json(&["import", path(&file)], data_dir);
    assert_eq!(report["accepted"], events.len(), "{report}");
}

/// Everything behind a bucket, page by page.
fn explained(instance: &Instance, query: &str) -> (Value, Vec<Value>) {
    let (mut cursor, mut events, mut first) = (String::new(), Vec::new(), Value::Null);
    loop {
        let (status, page) = instance.get(&format!("/v1/venues/v1/explain?{query}&limit=500{cursor}"));
        assert_eq!(status, 200, "{page}");
        events.extend(page["events"].as_array().expect("events").clone());
        let next = page["next_cursor"].as_str().map(str::to_owned);
        if first.is_null() {
            first = page;
        }
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (first, events),
        }
    }
}

#[test]
fn a_customer_calls_about_last_months_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    std::fs::create_dir_all(&data_dir).expect("a folder");
    let spec = file(&data_dir, "venues.json", &venues("Europe/Madrid"));
    json(&["venues", "apply", path(&spec)], &data_dir);
    let instance = Instance::start(&data_dir);
    let (from, to) = (DAY.1 + 8 * 3_600_000, DAY.1 + 20 * 3_600_000);
    let in_time = walk("v1", 30, from, to, 3);
    let rename = |mut event: Event, by: &str| {
        event.track = format!("{by}-{}", event.track);
        event
    };
    let late: Vec<Event> = walk("v1", 12, from, to, 5)
        .into_iter()
        .map(|event| rename(event, "late"))
        .collect();
    let later: Vec<Event> = walk("v1", 5, from, to, 7)
        .into_iter()
        .map(|event| rename(event, "later"))
        .collect();
    let with_late = [in_time.clone(), late.clone()].concat();
    let with_all = [with_late.clone(), later.clone()].concat();

    // What the customer was told, and has copied.
    import(&data_dir, "a.ndjson", &arrival(in_time.clone(), 9));
    recompute(&data_dir);
    let told = expected(&in_time);
    assert_eq!(queried(&data_dir, None), told);
    let mut warehouse = Warehouse::default();
    assert_eq!(warehouse.follow(&instance), 1);
    assert_eq!(warehouse.numbers(), told);
    let day = |data_dir: &Path| json(&["days", "--venue", "v1", "--day", DAY.0], data_dir);
    let first = day(&data_dir)["generations"][0].clone();
    let told_at = first["published_at"].as_str().expect("a time").to_owned();

    // Then a sensor sends what it had kept.
    import(&data_dir, "b.ndjson", &arrival(late.clone(), 11));
    recompute(&data_dir);
    let restated = expected(&with_late);
    assert_ne!(restated, told);
    assert_eq!(queried(&data_dir, None), restated);
    assert_eq!(queried(&data_dir, Some(&told_at)), told, "as of then");
    let generation = first["generation"].to_string();
    assert_eq!(queried(&data_dir, Some(&generation)), told, "by its number");
    assert_eq!(warehouse.follow(&instance), 1);
    assert_eq!(warehouse.numbers(), restated);
    let history = day(&data_dir);
    let second = &history["generations"][0];
    assert_eq!(second["before"], first["generation"], "{history}");
    let distinct = |events: &[Event]| -> BTreeSet<(i64, String, String)> {
        let key = |event: &Event| (event.ts, event.sensor.clone(), event.track.clone());
        events.iter().map(key).collect()
    };
    let added = &second["late"]["added"];
    assert_eq!(added["events"], distinct(&late).len(), "{second}");
    assert_eq!(added["receipts_all"], 1, "{second}");

    // The call: where does this hour's number come from? From these events, and no others.
    let hours = oracle(&with_late).hourly;
    let ((zone, hour), of_hour) = hours
        .iter()
        .filter(|((zone, _), _)| zone == "_venue")
        .max_by_key(|(_, of)| of.visits)
        .expect("an hour");
    let start = rfc3339(*hour);
    let (answer, events) = explained(
        &instance,
        &format!("metric=visits&subject={zone}&start={start}&grain=hour"),
    );
    assert_eq!(answer["bucket"]["value"], of_hour.visits, "{}", answer["bucket"]);
    assert_eq!(answer["recomputed"]["equal"], true, "{}", answer["recomputed"]);
    assert_eq!(answer["generation"]["generation"], second["generation"]);
    let shown: BTreeSet<(String, String, String)> = events
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().expect("a text").to_owned();
            (text("ts"), text("sensor"), text("key"))
        })
        .collect();
    let sent: BTreeSet<(String, String, String)> = distinct(&with_late)
        .into_iter()
        .filter(|(ts, _, _)| (*hour..*hour + 3_600_000).contains(ts))
        .map(|(ts, sensor, track)| (rfc3339(ts), sensor, track))
        .collect();
    assert_eq!(shown, sent);
    assert_eq!(answer["sources"]["events"], sent.len());
    let by_command = json(
        &[
            "explain",
            "--venue",
            "v1",
            "--metric",
            "visits",
            "--start",
            &start,
            "--as-of",
            &generation,
        ],
        &data_dir,
    );
    let before = oracle(&in_time).hourly.get(&(zone.clone(), *hour)).cloned();
    assert_eq!(by_command["bucket"]["value"], before.map_or(0, |of| of.visits));
    assert_eq!(by_command["recomputed"]["equal"], true, "from the files of then");

    // The month is closed: what comes now is proposed.
    let close = [
        "periods", "close", "--venue", "v1", "--from", DAY.0, "--to", DAY.0, "--reason", "invoiced",
    ];
    json(&close, &data_dir);
    import(&data_dir, "c.ndjson", &arrival(later, 13));
    let report = recompute(&data_dir);
    assert_eq!(
        (&report["proposed"], &report["computed"]),
        (&1.into(), &0.into()),
        "{report}"
    );
    assert_eq!(queried(&data_dir, None), restated, "nothing has changed");
    assert_eq!(warehouse.follow(&instance), 0);
    let listed = json(&["periods", "list"], &data_dir);
    let proposed = listed["proposals"][0]["generation"].to_string();
    let approve = [
        "periods",
        "approve",
        "--venue",
        "v1",
        "--day",
        DAY.0,
        "--generation",
    ];
    let other = run(&[&approve[..], &["1000000"]].concat(), &data_dir);
    assert!(
        !other.status.success(),
        "another generation than the proposed one"
    );
    let approved = json(&[&approve[..], &[&proposed]].concat(), &data_dir);
    assert_eq!(approved["state"], "succeeded", "{approved}");
    assert_eq!(queried(&data_dir, None), expected(&with_all));
    assert_eq!(queried(&data_dir, Some(&told_at)), told, "as of then, still");
    assert_eq!(warehouse.follow(&instance), 1);
    assert_eq!(warehouse.numbers(), expected(&with_all));
    // Whoever begins to follow now has the same.
    let mut fresh = Warehouse::default();
    assert_eq!(fresh.follow(&instance), 3);
    assert_eq!(fresh.buckets, warehouse.buckets);
    assert!(instance.stop());
}
