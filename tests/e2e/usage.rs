//! What operators of an installation do beside the numbers: permits, the quarantine worked, and usage across restarts.

use serde_json::{Value, json as value};

use crate::harness::{Instance, json, now_ms, on_engines, run};
use crate::walkers::apply_venues;

/// Posts a body to a venue that takes `taken` and refuses `refused` of it.
fn post(instance: &Instance, lines: &[String], taken: u64, refused: usize) {
    let body = lines.join("\n");
    let (status, answer) = instance.post("/v1/venues/v1/events", "application/x-ndjson", body.as_bytes());
    let accepted = answer["accepted"].as_u64().unwrap_or(0);
    let listed = answer["refused"].as_array().map_or(0, Vec::len);
    assert_eq!((accepted, listed), (taken, refused), "{status} {answer}");
}

#[test]
fn permits_quarantine_and_usage_as_an_operator_meets_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, "Etc/UTC");

    // Permits: an operator of a denied tenant is told why; who runs the installation goes on.
    let made = json(&["keys", "create", "--role", "operator"], &data_dir);
    let operator = format!("Bearer {}", made["key"].as_str().expect("a key"));
    let ask = |instance: &Instance| {
        let headers = [
            ("authorization", operator.as_str()),
            ("content-type", "application/json"),
        ];
        let body = value!({"kind": "recompute", "from": "2020-01-01", "to": "2020-01-02"}).to_string();
        instance.raw("POST", "/v1/jobs", &headers, body.as_bytes())
    };
    assert_eq!(ask(&instance).0, 202);
    json(
        &[
            "permits",
            "deny",
            "--tenant",
            "default",
            "--reason",
            "no contract",
        ],
        &data_dir,
    );
    let (status, refused) = ask(&instance);
    assert_eq!((status, &refused["code"]), (403, &value!("not-permitted")));
    assert!(
        refused["detail"].as_str().expect("words").contains("no contract"),
        "{refused}"
    );
    json(
        &[
            "jobs",
            "run",
            "recompute",
            "--venue",
            "all",
            "--from",
            "2020-01-01",
            "--to",
            "2020-01-02",
            "--wait",
        ],
        &data_dir,
    );
    let permits = json(&["permits", "list"], &data_dir);
    assert_eq!(permits["permits"][0]["historical"], "denied");

    // The quarantine: a vendor's name for the track, and one line that nobody can mend.
    let ts = now_ms() - 60_000;
    let wrong = |n: i64| format!(r#"{{"sensor":"s","id":"t{n}","ts":{},"x":1,"y":1}}"#, ts + n);
    let good = |n: i64| format!(r#"{{"sensor":"s","track":"g{n}","ts":{},"x":1,"y":1}}"#, ts + n);
    post(
        &instance,
        &[
            good(1),
            wrong(1),
            wrong(2),
            r#"{"sensor":"s","track":"t","ts":"soon","x":1,"y":1}"#.to_owned(),
        ],
        1,
        3,
    );
    let listed = json(&["quarantine", "list", "--code", "unknown_field"], &data_dir);
    let entries = listed["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2, "{listed}");
    let id = entries[0]["id"].as_str().expect("an id");
    let sealed = json(&["quarantine", "show", id], &data_dir);
    assert_eq!(
        (&sealed["sealed"], &sealed["text"]),
        (&value!(true), &Value::Null)
    );
    let opened = json(&["quarantine", "show", id, "--open"], &data_dir);
    assert_eq!(
        (&opened["mark"]["field"], &opened["mark"]["text"]),
        (&value!("id"), &value!("\"t2\""))
    );
    let shown = run(&["quarantine", "show", id, "--open"], &data_dir);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("^^^^"),
        "underlined"
    );
    let replay = |extra: &[&str]| {
        let mut args = vec!["quarantine", "replay", "--venue", "v1", "--map", "track=id"];
        args.extend(extra);
        json(&args, &data_dir)["report"].clone()
    };
    let tried = replay(&["--dry-run"]);
    assert_eq!(
        (&tried["accepted"], &tried["looked_at"]),
        (&value!(2), &value!(3)),
        "{tried}"
    );
    assert_eq!(tried["refused_by_code"], value!({"ts_unreadable": 1}), "{tried}");
    assert_eq!(replay(&[])["accepted"], 2);
    assert_eq!(replay(&[])["accepted"], 0, "what was taken is not taken again");
    assert!(
        !run(&["quarantine", "drop", "--venue", "v1"], &data_dir)
            .status
            .success(),
        "say why"
    );
    let dropped = json(
        &["quarantine", "drop", "--venue", "v1", "--reason", "a test rig"],
        &data_dir,
    );
    assert_eq!(dropped["report"]["dropped"], 1, "{dropped}");
    assert_eq!(json(&["quarantine", "list"], &data_dir)["entries"], value!([]));
    let audit = json(&["audit"], &data_dir);
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .collect();
    for action in [
        "permit.set",
        "quarantine.opened",
        "job.replay",
        "job.drop-refused",
    ] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }

    // Usage outlives the process that counted it, and the next one adds to it.
    assert!(instance.stop());
    let usage = || {
        let told = json(&["usage", "--tenant", "default"], &data_dir);
        told["tenants"][0]["total"].clone()
    };
    let instance = Instance::start(&data_dir);
    let first = usage();
    assert_eq!(first["modules"]["events"]["requests"], 1, "{first}");
    assert_eq!(
        first["events"]["http"],
        value!({"taken": 1, "refused": 3}),
        "{first}"
    );
    assert_eq!(
        first["events"]["replay"],
        value!({"taken": 2, "refused": 0}),
        "{first}"
    );
    // On engines a command asks its own process, which is no request.
    if !on_engines() {
        let listed = first["modules"]["quarantine"]["rows"].as_u64().expect("a number");
        assert_eq!(listed, 2, "rows of two lists: two and none");
    }
    post(&instance, &[good(2), good(3)], 2, 0);
    assert!(instance.stop());
    let instance = Instance::start(&data_dir);
    let second = usage();
    assert_eq!(second["modules"]["events"]["requests"], 2, "{second}");
    assert_eq!(
        second["events"]["http"],
        value!({"taken": 3, "refused": 3}),
        "{second}"
    );
    let of_venue = json(&["usage", "--venue", "v1"], &data_dir);
    assert_eq!(
        of_venue["tenants"][0]["total"]["events"]["replay"]["taken"], 2,
        "{of_venue}"
    );
    let (status, _) = instance.get("/v1/usage?venue=nowhere");
    assert_eq!(status, 404);
    assert!(instance.stop());
}
