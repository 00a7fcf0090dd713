//! `kill -9` in the middle: what was acknowledged is there, what was not is sent again, and no number changes.

use crate::harness::{Instance, json, place, raw_writer};
use crate::oracle::{assert_equal, compute, exported, utc_day};
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
