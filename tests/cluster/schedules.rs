//! The schedules that break such systems, each played on purpose.

use std::time::Duration;

use serde_json::json as value;

use crate::harness::{eventually, now_ms};
use crate::oracle::assert_equal;
use crate::shop::Shop;
use crate::stack::Stack;
use crate::walkers::Event;

/// Longer than a lease and a session of a group.
const PAST_EVERY_LEASE: Duration = Duration::from_secs(14);

fn state_of(shop: &Shop, id: &str) -> String {
    let (status, job) = shop.get(&format!("/v1/jobs/{id}"));
    assert_eq!(status, 200, "{job}");
    job["state"].as_str().expect("a state").to_owned()
}

/// A worker stands still past its lease, another does its work, and the first wakes and wants to publish.
#[test]
fn a_worker_that_wakes_after_its_lease_publishes_nothing() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "serve"] {
        shop.start(role);
    }
    for batch in shop.batches(20, 21) {
        shop.post(&batch);
    }
    shop.start_with(
        "batch/slow",
        &[("DWELL_FAILPOINTS", "batch.before_publish=1*pause:4s")],
    );
    let (_, created) = post_job(&shop);
    eventually("the slow worker computes", || {
        state_of(&shop, &created) == "running"
    });
    std::thread::sleep(Duration::from_secs(2));
    shop.process("batch/slow").signal("STOP");
    shop.start("batch/quick");
    std::thread::sleep(PAST_EVERY_LEASE);
    eventually("the quick worker does it", || {
        state_of(&shop, &created) == "succeeded"
    });
    let published = shop.export();
    let days = days(&shop);
    shop.process("batch/slow").signal("CONT");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(shop.export(), published, "the one that woke changed nothing");
    assert_eq!(self::days(&shop), days, "not even the generation");
    assert_equal(&published, &shop.expected());
}

/// Events that arrive after a run has read and before it publishes make the day dirty, and the next run includes them.
#[test]
fn an_event_between_reading_and_publishing_is_not_forgotten() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "serve"] {
        shop.start(role);
    }
    let batches = shop.batches(20, 22);
    let (last, first) = batches.split_last().expect("batches");
    shop.post_all(first);
    shop.start_with(
        "batch",
        &[("DWELL_FAILPOINTS", "batch.before_publish=1*pause:6s")],
    );
    let (_, created) = post_job(&shop);
    eventually("the run computes", || state_of(&shop, &created) == "running");
    std::thread::sleep(Duration::from_secs(3));
    shop.post(last);
    eventually("the first run ends", || state_of(&shop, &created) != "running");
    shop.check();
}

/// Two workers, and a command, on the same venue-day at once; also its first archive.
#[test]
fn two_workers_on_one_venue_day_end_in_one_generation() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "serve", "batch/1", "batch/2"] {
        shop.start(role);
    }
    for batch in shop.batches(20, 23) {
        shop.post(&batch);
    }
    let data_dir = shop.data_dir();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // One of them may find that another has taken the day; the next check decides.
                let _ = crate::harness::run(
                    &["jobs", "run", "recompute", "--venue", "all", "--wait", "--json"],
                    &data_dir,
                );
            });
        }
    });
    shop.check();
}

/// A speed layer stands still past the group's session; others take over its shards, and it wakes.
#[test]
fn a_speed_layer_that_wakes_after_a_rebalance_does_no_harm() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "serve", "speed/1", "speed/2"] {
        shop.start(role);
    }
    let enter = |shop: &mut Shop, person: usize| {
        let event = Event {
            venue: "v1",
            sensor: "s1".to_owned(),
            track: format!("p{person}"),
            ts: now_ms(),
            x_cm: 100,
            y_cm: 100,
        };
        shop.post(&[event]);
    };
    let seen = |shop: &Shop| -> i64 {
        let (today, _) = today(now_ms());
        let path = format!("/v1/venues/v1/metrics?metric=visitors&zone=left&from={today}&to={today}&by=day");
        let (_, answer) = shop.get(&path);
        answer["buckets"][0]["value"].as_i64().unwrap_or(0)
    };
    let mut people = 0;
    for _ in 0..3 {
        people += 1;
        enter(&mut shop, people);
    }
    eventually("three people are seen", || seen(&shop) == 3);
    for paused in ["speed/1", "speed/2"] {
        shop.process(paused).signal("STOP");
        people += 1;
        enter(&mut shop, people);
        let expected = people as i64;
        eventually("whoever goes on sees the next", || seen(&shop) == expected);
        shop.process(paused).signal("CONT");
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(seen(&shop), expected, "the one that woke took nobody back");
        people += 1;
        enter(&mut shop, people);
        let expected = people as i64;
        eventually("and the one after", || seen(&shop) == expected);
    }
}

fn today(now: i64) -> (String, i64) {
    let date = chrono::DateTime::from_timestamp_millis(now).expect("a time");
    (date.format("%Y-%m-%d").to_string(), now)
}

fn days(shop: &Shop) -> serde_json::Value {
    let day = shop.day();
    let (status, answer) = shop.get(&format!("/v1/venues/v1/days?from={day}&to={day}"));
    assert_eq!(status, 200, "{answer}");
    value!({ "generation": answer["days"][0]["generation"], "published_at": answer["days"][0]["published_at"] })
}

/// Asks a serving process for a job, so that a batch worker and not this command does it.
fn post_job(shop: &Shop) -> (u16, String) {
    let url = shop.process("serve").url.clone();
    let mut answer = crate::harness::agent()
        .post(format!("{url}/v1/jobs"))
        .header(
            "authorization",
            format!("Bearer {}", crate::harness::admin_key(&shop.data_dir())),
        )
        .header("content-type", "application/json")
        .send(value!({ "kind": "recompute", "venues": "all" }).to_string())
        .expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a body");
    let created: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let id = created["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{created}"))
        .to_owned();
    (answer.status().as_u16(), id)
}

/// Offsets in the groups are for lag tools only: without them everybody goes on where the tables say.
#[test]
fn offsets_of_the_groups_are_never_needed() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "speed", "serve", "batch"] {
        shop.start(role);
    }
    let batches = shop.batches(20, 25);
    let (first, last) = batches.split_at(batches.len() / 2);
    shop.post_all(first);
    shop.until_ready();
    for role in ["raw-writer", "speed"] {
        shop.kill(role);
    }
    // An empty group can be deleted once its members' sessions are over.
    let prefix = shop.log_prefix();
    for group in ["raw-writer", "speed"] {
        stack.delete_group(&format!("{prefix}.{group}"));
    }
    shop.post_all(last);
    for role in ["raw-writer", "speed"] {
        shop.start(role);
    }
    shop.check();
}

/// Records that the log has deleted before they were copied stop the raw writer at that partition; a command lets it
/// go on, and sending again brings the events.
#[test]
fn a_gap_in_the_log_is_named_and_passed_only_by_command() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "serve", "batch"] {
        shop.start(role);
    }
    let batches = shop.batches(20, 26);
    let third = batches.len() / 3;
    shop.post_all(&batches[..third]);
    shop.until_copied();
    shop.kill("raw-writer");
    shop.post_all(&batches[third..2 * third]);
    // As if the raw writer had been away for longer than the log's retention.
    stack.delete_records(&shop.log_prefix());
    shop.post_all(&batches[2 * third..]);
    shop.start("raw-writer");
    let mut told = String::new();
    eventually("the gap is named", || {
        told = shop.process("raw-writer").ready().1.to_string();
        told.contains("events may be missing")
    });
    let positions = crate::harness::json(&["log", "positions"], &shop.data_dir());
    let lost: Vec<u64> = positions
        .as_array()
        .expect("partitions")
        .iter()
        .filter(|at| at["lost"].as_i64() > Some(0))
        .map(|at| at["partition"].as_u64().expect("a number"))
        .collect();
    assert!(!lost.is_empty(), "{positions}");
    for partition in lost {
        let number = partition.to_string();
        crate::harness::json(&["log", "accept-gap", "--partition", &number], &shop.data_dir());
    }
    shop.kill("raw-writer");
    shop.start("raw-writer");
    // The gateway still has what the log lost.
    shop.post_all(&batches[third..2 * third]);
    shop.check();
}

/// A raw writer stands still, events for an old day come, and meanwhile that day is verified and swept: what it writes
/// when it goes on is there, and the numbers are those of everything.
#[test]
fn a_raw_writer_that_lags_while_a_day_is_verified_and_swept_loses_nothing() {
    const SKEW: Duration = Duration::from_secs(2);
    let Some(stack) = Stack::take() else { return };
    let skew = format!("\n[retention]\nclock_skew = \"{}s\"\n", SKEW.as_secs());
    let mut shop = Shop::open_with(&stack, |config| config + &skew);
    for role in ["ingest", "raw-writer", "serve", "batch"] {
        shop.start(role);
    }
    let batches = shop.batches(20, 28);
    let (first, late) = batches.split_at(2 * batches.len() / 3);
    shop.post_all(first);
    shop.check();
    let rows = |batches: &[Vec<Event>]| {
        let lines: std::collections::BTreeSet<String> = batches.iter().flatten().map(Event::ndjson).collect();
        lines.len() as u64
    };
    // What was written by now is older than what is allowed between clocks.
    std::thread::sleep(SKEW + Duration::from_secs(1));

    shop.process("raw-writer").signal("STOP");
    shop.post_all(late);
    let day = shop.day();
    let data_dir = shop.data_dir();
    let run = |args: &[&str]| {
        let job = crate::harness::json(args, &data_dir);
        assert_eq!(job["state"], "succeeded", "{job}");
        job["report"].clone()
    };
    run(&[
        "jobs", "run", "verify", "--venue", "v1", "--from", day, "--to", day, "--wait",
    ]);
    let later = format!("{}T00:00:00Z", days_after(day, 101));
    let swept = run(&["jobs", "run", "retention", "--now", &later, "--wait"]);
    assert_eq!(swept["removed"]["raw_rows"], rows(first), "{swept}");
    assert_eq!(swept["rows_left"], 0, "{swept}");

    shop.process("raw-writer").signal("CONT");
    shop.until_copied();
    let left = crate::harness::json(&["retention", "plan", "--now", &later], &data_dir);
    let position = &left["venues"][0]["days"][0]["raw"]["position"];
    assert_eq!(
        position["rows"],
        rows(late),
        "raw holds what came late, all of it: {left}"
    );
    shop.check();
    // And all of it comes back beside what came late.
    let restored = run(&[
        "jobs", "run", "restore", "--venue", "v1", "--from", day, "--to", day, "--wait",
    ]);
    assert_eq!(
        restored["days"][0]["kinds"]["position"]["raw_now"],
        rows(&batches),
        "{restored}"
    );
    shop.check();
}

fn days_after(day: &str, days: u64) -> chrono::NaiveDate {
    let date: chrono::NaiveDate = day.parse().expect("a day");
    date + chrono::Days::new(days)
}
