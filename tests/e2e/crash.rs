//! `kill -9` in the middle: what was acknowledged is there, what was not is sent again, and no number changes.

use crate::harness::{Instance, eventually, json, place, raw_writer};
use crate::oracle::{Days, assert_equal, compute, exported, utc_day};
use crate::walkers::{Dice, apply_venues, arrival, ndjson, walk, zones};

#[test]
fn kill_9_at_random_moments_loses_nothing_acknowledged_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    apply_venues(&data_dir, "Etc/UTC");
    let days = utc_day(2);
    let (_, start, end) = days[0];
    let clean = walk("v1", 60, start, end, 31);
    let expected = compute(&clean, &zones(), &days);

    let mut dice = Dice(77);
    let mut instance = Instance::start(&data_dir);
    for batch in arrival(clean, 8).chunks(200) {
        let body = ndjson(batch);
        if dice.below(6) == 0 {
            // Posted and killed before anybody looked at the answer: it is sent again below, as a gateway would.
            let _ = instance.try_post("/v1/events", body.as_bytes());
            instance.kill();
            instance = Instance::start(&data_dir);
        }
        assert!(instance.try_post("/v1/events", body.as_bytes()));
    }
    instance.kill();

    let _raw_writer = raw_writer(&data_dir);
    let failpoints = [
        "batch.after_archive=kill",
        "batch.after_rows=kill",
        "batch.before_publish=kill",
    ];
    for failpoint in failpoints {
        let died = std::process::Command::new(crate::harness::DWELL)
            .args(["jobs", "run", "recompute", "--venue", "all", "--wait"])
            .args(place(&data_dir))
            .env("DWELL_FAILPOINTS", failpoint)
            .output()
            .expect("dwell runs");
        assert!(!died.status.success(), "{failpoint} did not kill");
    }
    let job = json(
        &["jobs", "run", "recompute", "--venue", "all", "--wait"],
        &data_dir,
    );
    assert_eq!(job["state"], "succeeded", "{job}");
    let out = data_dir.join("out");
    json(&["export", "--out", out.to_str().expect("a path")], &data_dir);
    assert_equal(&exported(&out), &expected);
}

/// A new version is rolled out while a job runs, as often as one likes: it goes on at once, and no attempt is lost.
#[test]
fn what_a_process_that_is_stopped_was_at_goes_on_with_the_next_one() {
    // In the midst of its days, and while it waits for what is not copied yet.
    for slowly in ["batch.after_lease=1*pause:1s", "raw_writer.before_apply=error"] {
        stopped_while(slowly);
    }
}

fn stopped_while(slowly: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    apply_venues(&data_dir, "Etc/UTC");
    let days: Days = [4, 3, 2].into_iter().flat_map(utc_day).collect();
    let (start, end) = (days[0].1, days[2].2);
    let clean = walk("v1", 40, start, end, 51);
    let expected = compute(&clean, &zones(), &days);
    let instance = Instance::start_with(&data_dir, &[("DWELL_FAILPOINTS", slowly)]);
    for batch in clean.chunks(500) {
        assert!(instance.try_post("/v1/events", ndjson(batch).as_bytes()));
    }
    let (status, asked) = instance.post(
        "/v1/jobs",
        "application/json",
        br#"{"kind":"recompute","venues":"all"}"#,
    );
    assert!((200..300).contains(&status), "{asked}");
    let id = asked["id"].as_str().expect("an id");
    let job = || json(&["jobs", "show", id], &data_dir);
    eventually("somebody is at the job", || {
        instance.get(&format!("/v1/jobs/{id}")).1["state"] == "running"
    });
    assert!(instance.stop(), "in order");
    let left = job();
    assert_eq!(
        (&left["state"], &left["attempts"]),
        (&"running".into(), &0.into()),
        "{slowly}: {left}"
    );
    let _instance = Instance::start(&data_dir);
    eventually("the next one has done it", || job()["state"] != "running");
    let done = job();
    assert_eq!(
        (&done["state"], &done["attempts"]),
        (&"succeeded".into(), &1.into()),
        "{slowly}: {done}"
    );
    let out = data_dir.join("out");
    json(&["export", "--out", out.to_str().expect("a path")], &data_dir);
    assert_equal(&exported(&out), &expected);
}

#[test]
fn a_raw_writer_killed_around_its_commit_is_exact_afterwards() {
    for failpoint in [
        "raw_writer.before_apply=2*off->kill",
        "raw_writer.after_apply=2*off->kill",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("d");
        apply_venues(&data_dir, "Etc/UTC");
        let days = utc_day(1);
        let (_, start, end) = days[0];
        let clean = walk("v1", 20, start, end, 41);
        let expected = compute(&clean, &zones(), &days);
        let batches: Vec<String> = arrival(clean, 9).chunks(100).map(ndjson).collect();

        let mut instance = Instance::start_with(&data_dir, &[("DWELL_FAILPOINTS", failpoint)]);
        for body in &batches {
            if !instance.try_post("/v1/events", body.as_bytes()) || !instance.is_running() {
                // Dead by its failpoint: a fresh one takes the rest, and this batch again.
                instance.kill();
                instance = Instance::start(&data_dir);
                assert!(instance.try_post("/v1/events", body.as_bytes()));
            }
        }
        if !instance.is_running() {
            instance.kill();
            instance = Instance::start(&data_dir);
        }
        let job = json(
            &["jobs", "run", "recompute", "--venue", "all", "--wait"],
            &data_dir,
        );
        assert_eq!(job["state"], "succeeded", "{job}");
        let out = data_dir.join("out");
        json(&["export", "--out", out.to_str().expect("a path")], &data_dir);
        assert_equal(&exported(&out), &expected);
        drop(instance);
    }
}
