//! The wall clock is set forward and back, by minutes, hours and a day, while the installation runs.

use serde_json::{Value, json};

use super::is_elsewhere;
use super::site::Site;
use crate::harness::{eventually, json as command, now_ms};
use crate::oracle::utc_day;
use crate::walkers::{Event, walk};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Jobs of a kind that schedules have asked for.
fn scheduled(site: &Site, kind: &str) -> usize {
    let (status, jobs) = site.instance().get("/v1/jobs?limit=200");
    assert_eq!(status, 200, "{jobs}");
    let jobs = jobs["jobs"].as_array().expect("jobs");
    let of_schedules = jobs.iter().filter(|job| {
        let asked_by = job["requested_by"].as_str().unwrap_or_default();
        job["kind"] == kind && asked_by.starts_with("schedule:")
    });
    of_schedules.count()
}

#[test]
fn a_clock_that_jumps_loses_nothing_counts_nothing_twice_and_stalls_nothing() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    let data_dir = site.data_dir();
    // Due in half a day from now, so that of the jumps only those by a day pass it.
    let due = now_ms() + 12 * HOUR;
    let (hour, minute) = (due / HOUR % 24, due / MINUTE % 60);
    let cron = format!("{minute} {hour} * * *");
    command(
        &["schedules", "set", "look", "--kind", "verify", "--cron", &cron],
        &data_dir,
    );
    let batches = site.batches(0, 28, 71, 120);
    let jumps = [0, 5 * MINUTE, -5 * MINUTE, 3 * HOUR, -3 * HOUR, DAY, 0, -DAY, 0];
    let mut asked = 0;
    for (batches, offset) in batches.chunks(batches.len().div_ceil(jumps.len())).zip(jumps) {
        site.machine.set_clock(offset);
        site.post_all(batches);
        let (status, answer) = site.instance().ready();
        assert_eq!(status, 200, "{offset}: {answer}");
        // The live view goes on with every tick, whatever the clock says.
        let as_of = || site.instance().get("/v1/venues/v1/live").1["as_of"].clone();
        let before = as_of();
        eventually("the live view goes on", || as_of() != before);
        // A job is carried out, and a lease that was taken under another clock keeps nobody out.
        let job = site.ask_for(&json!({"kind": "recompute", "venues": "all"}));
        site.until_succeeded(&job);
        if offset == DAY {
            eventually("what was due is asked for", || scheduled(&site, "verify") == 1);
            asked = 1;
        }
    }
    // Neither a second time for the same hour, nor once for each jump.
    assert_eq!(scheduled(&site, "verify"), asked);
    let (_, listed) = site.instance().get("/v1/schedules");
    assert!(!listed.to_string().contains("\"held\""), "{listed}");
    site.check();
}

#[test]
fn a_night_that_came_too_early_is_done_again_for_what_came_after() {
    if is_elsewhere() {
        return;
    }
    // Today, as far as it has gone, in two halves.
    let mut site = Site::configured(&[0], "[batch]\nlook_every = \"500ms\"\n");
    let (today, start, _) = utc_day(0)[0];
    let now = now_ms();
    let middle = start + (now - start) / 2;
    let half = |from, to, seed: u64| -> Vec<Event> {
        let mut events = walk("v1", 10, from, to, seed);
        events
            .iter_mut()
            .for_each(|event| event.track = format!("{seed}-{}", event.track));
        events
    };
    site.post(&half(start, middle, 61));
    let state = |site: &Site| -> Value {
        let path = format!("/v1/venues/v1/days?from={today}&to={today}");
        site.instance().get(&path).1["days"][0].clone()
    };
    // The clock says that today is over: its night comes.
    site.machine.set_clock(DAY);
    eventually("the night has come", || state(&site)["generation"].is_u64());
    let early = state(&site)["generation"].as_u64();
    // It is set right again, and people go on walking in.
    site.machine.set_clock(0);
    site.post(&half(middle, now, 62));
    // What goes on is shown as it goes on, and not as the night that came too early left it.
    eventually("the day is live again", || state(&site)["state"] == "live");
    // The nights are looked at under the right clock as well.
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Then the day really ends.
    site.machine.set_clock(DAY);
    eventually("the night has come again", || {
        state(&site)["generation"].as_u64() > early
    });
    let second = state(&site)["generation"].clone();
    site.check();
    assert_eq!(state(&site)["generation"], second, "the night had done it");
}

#[test]
fn who_dies_with_a_clock_ahead_keeps_nobody_out_when_it_is_set_back() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    let batches = site.batches(0, 8, 72, 2_000);
    site.post_all(&batches);
    site.kill();
    site.machine.set_clock(DAY);
    site.start_with(&[("DWELL_FAILPOINTS", "batch.before_publish=kill")]);
    let job = site.ask_for(&json!({"kind": "recompute", "venues": "all"}));
    site.until_gone();
    // A day ahead of its leases now; nobody waits for that day.
    site.machine.set_clock(0);
    site.start();
    site.until_succeeded(&job);
    site.check();
}

#[test]
fn a_clock_that_is_behind_refuses_what_it_takes_for_the_future_and_says_so() {
    if is_elsewhere() {
        return;
    }
    let site = Site::configured(&[0], "[batch]\nnightly = false\n");
    let event = format!(
        r#"{{"venue":"v1","sensor":"s","track":"t","ts":{},"x":1.0,"y":1.0}}"#,
        now_ms()
    );
    let post = || {
        site.instance()
            .post("/v1/events", "application/x-ndjson", event.as_bytes())
    };
    site.machine.set_clock(-3 * HOUR);
    let (status, answer) = post();
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["refused"][0]["code"], "ts_in_future", "{answer}");
    assert_eq!(answer["refused"][0]["retryable"], true, "{answer}");
    site.machine.set_clock(0);
    let (status, answer) = post();
    assert_eq!((status, &answer["accepted"]), (202, &Value::from(1)));
}
