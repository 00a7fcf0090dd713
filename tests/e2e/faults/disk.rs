//! The disk is full: what cannot be stored is refused and said, what is there is shown, and all goes on when there is
//! room, without a restart.

use serde_json::{Value, json};

use super::site::Site;
use super::{archived, is_elsewhere};
use crate::harness::{eventually, json as command};

/// Waits until readiness and the alarm tell of a full folder (or of none), and how.
fn until_told(site: &Site, folder: &str, is_full: bool) -> (u16, String) {
    let series = format!("dwell_folder_trouble{{folder=\"{folder}\",trouble=\"full\"}}");
    let mut said = (0, String::new());
    eventually("it is said whether the disk is full", || {
        let (status, check) = site.readiness("folder");
        said = (status, check["detail"].as_str().unwrap_or_default().to_owned());
        site.metric(&series) == Some(f64::from(is_full)) && said.1.contains("no room left") == is_full
    });
    said
}

#[test]
fn a_full_disk_refuses_and_says_so_and_goes_on_when_there_is_room() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::new(&[2]);
    let batches = site.batches(0, 30, 91, 150);
    let (first, rest) = batches.split_at(batches.len() / 3);
    site.post_all(first);
    let (day, ..) = site.days[0];
    let data_dir = site.data_dir();
    site.machine.fill(&data_dir, 64 << 10);

    // Some are taken while old pages of the log can be written over; then none.
    let mut refused = 0;
    for batch in rest {
        let told = site.try_post(batch).expect("an answer");
        if told.status == 202 {
            continue;
        }
        refused += 1;
        let detail = told.body["detail"].as_str().unwrap_or_default();
        assert_eq!((told.status, &told.body["code"]), (503, &Value::from("full")));
        assert!(detail.contains("disk") && detail.contains("full"), "{told:?}");
        assert_eq!(told.retry_after_s, Some(60));
    }
    assert!(
        refused > 0 && site.machine.refused_writes() > 0,
        "the disk filled"
    );
    let (status, detail) = until_told(&site, "data", true);
    assert_eq!(status, 503);
    assert!(detail.contains(data_dir.to_str().expect("a path")), "{detail}");

    // What is there is shown; what cannot be stored is refused and does not look like done.
    for path in ["/v1/venues", "/v1/venues/v1/live", "/v1/jobs"] {
        assert_eq!(site.instance().get(path).0, 200, "{path}");
    }
    let days = format!("/v1/venues/v1/days?from={day}&to={day}");
    let before = site.instance().get(&days);
    assert_eq!(before.0, 200);
    let asked = json!({"kind": "recompute", "venues": "all"}).to_string();
    let (status, answer) = site
        .instance()
        .post("/v1/jobs", "application/json", asked.as_bytes());
    match status {
        // A page that is free took the job: then it waits for room.
        202 => {
            let id = answer["id"].as_str().expect("an id");
            let state = site.job(id)["state"].clone();
            assert!(state == "queued" || state == "running", "{state}");
        }
        _ => assert_eq!((status, &answer["code"]), (507, &Value::from("full")), "{answer}"),
    }
    let (_, now) = site.instance().get(&days);
    assert_eq!(now["days"][0]["generation"], Value::Null, "nothing half: {now}");

    site.machine.make_room();
    let (status, _) = until_told(&site, "data", false);
    assert_eq!(status, 200, "ready without a restart");
    site.post_all(rest);
    site.check();
}

#[test]
fn a_disk_that_fills_while_a_day_is_archived_publishes_nothing_until_there_is_room() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(
        &[4, 3, 2],
        "[storage]\narchive = \"file://FOLDER/archive\"\n[batch]\nnightly = false\n",
    );
    for day in 0..3 {
        let batches = site.batches(day, 15, 92 + day as u64, 2_000);
        site.post_all(&batches);
    }
    let archive = site.folder().join("archive");
    // No room for a file, for half of one, for all of it but not for the commit that names it.
    for (day, room) in [(0, 0), (1, 9_000), (2, -1)] {
        let (name, ..) = site.days[day];
        let room = match room {
            -1 => {
                // As much as the day before took, and nothing for the log of the table.
                let lengths = archived(&archive)
                    .into_iter()
                    .map(|file| file.metadata().expect("a file").len());
                lengths.max().expect("a file") as i64 + 2_000
            }
            room => room,
        };
        site.machine.fill(&archive, room);
        let id = site.ask_for(&json!({"kind": "recompute", "venues": "all", "from": name, "to": name}));
        let mut said = String::new();
        eventually("the job says why it waits", || {
            let job = site.job(&id);
            said = format!("{} {}", job["error"], job["report"]);
            said.contains("No space left on device") || job["state"] == "succeeded"
        });
        assert!(said.contains("No space left on device"), "day {day}: {said}");
        let (_, days) = site
            .instance()
            .get(&format!("/v1/venues/v1/days?from={name}&to={name}"));
        assert_eq!(days["days"][0]["generation"], Value::Null, "{days}");
        if day == 0 {
            // The archive's disk is another one: events are taken.
            let (status, detail) = until_told(&site, "archive", true);
            assert_eq!(status, 200, "{detail}");
            assert!(detail.contains("archive"), "{detail}");
        }
        site.machine.make_room();
        // A job that gave the day up is asked for again, as an operator or the next night does.
        eventually("the job has ended", || {
            let state = site.job(&id)["state"].clone();
            ["succeeded", "failed"].contains(&state.as_str().unwrap_or_default())
        });
        let again = site.ask_for(&json!({"kind": "recompute", "venues": "all", "from": name, "to": name}));
        site.until_succeeded(&again);
    }
    command(
        &["jobs", "run", "verify", "--venue", "all", "--wait"],
        &site.data_dir(),
    );
    site.check();
}

#[test]
fn a_backup_whose_place_fills_is_none_and_is_whole_once_there_is_room() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::new(&[2]);
    let batches = site.batches(0, 15, 95, 2_000);
    site.post_all(&batches);
    site.check();
    let place = site.folder().join("backups");
    let backups = format!("file://{}", place.to_str().expect("a path"));
    std::fs::create_dir_all(&place).expect("a folder");
    let listed = || {
        let listed = command(&["backups", "--at", &backups], &site.data_dir());
        listed["backups"].as_array().map(Vec::len)
    };
    site.machine.fill(&place, 12_000);
    let id = site.ask_for(&json!({"kind": "backup", "options": {"to": backups, "archive": true}}));
    let mut said = String::new();
    eventually("the job says why it waits", || {
        said = site.job(&id)["error"].to_string();
        said.contains("No space left on device")
    });
    assert!(site.machine.refused_writes() > 0);
    assert_eq!(listed(), Some(0), "half a backup is none");
    site.machine.make_room();
    site.until_succeeded(&id);
    assert_eq!(listed(), Some(1));
    let drilled = site.ask_for(&json!({"kind": "drill", "options": {"from": backups}}));
    let drilled = site.until_succeeded(&drilled);
    assert_eq!(drilled["report"]["differing"], 0, "{drilled}");
}
