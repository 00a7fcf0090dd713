//! Who may do what on the routes that the binary puts together: each role's key against posting, importing, exporting and
//! administering.

use serde_json::json;

use crate::harness::{Instance, json as run_json, now_ms};
use crate::walkers::apply_venues;

#[test]
fn each_role_may_do_its_own_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, "Etc/UTC");
    let key = |role: &str, more: &[&str]| {
        let args: Vec<&str> = ["keys", "create", "--role", role]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let made = run_json(&args, &data_dir);
        made["key"].as_str().expect("a key").to_owned()
    };
    let keys = [
        ("gateway", key("gateway", &["--venue", "v1"])),
        ("viewer", key("viewer", &[])),
        ("operator", key("operator", &[])),
        ("admin", instance.key.clone()),
    ];
    let now = now_ms();
    let event = format!(r#"{{"sensor":"s","track":"t","ts":{now},"x":1,"y":1}}"#);
    let new_key = json!({ "role": "viewer" }).to_string();
    // (method, path, body, who may)
    let routes = [
        (
            "POST",
            "/v1/venues/v1/events",
            event.as_str(),
            "gateway operator admin",
        ),
        ("GET", "/v1/venues", "", "viewer operator admin"),
        ("GET", "/v1/venues/v1/live", "", "viewer operator admin"),
        ("GET", "/v1/export/hourly", "", "viewer operator admin"),
        ("POST", "/v1/uploads", "", "operator admin"),
        ("POST", "/v1/imports", "{}", "operator admin"),
        (
            "PUT",
            "/v1/uploads/000000000000000000000000/a.csv",
            "",
            "operator admin",
        ),
        ("GET", "/v1/quarantine", "", "operator admin"),
        ("POST", "/v1/keys", new_key.as_str(), "admin"),
        ("GET", "/v1/keys", "", "admin"),
    ];
    for (method, path, body, allowed) in routes {
        for (role, key) in &keys {
            let bearer = format!("Bearer {key}");
            let kind = if path.ends_with("/events") {
                "application/x-ndjson"
            } else {
                "application/json"
            };
            let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
            let (status, answer) = instance.raw(method, path, &headers, body.as_bytes());
            let may = allowed.split(' ').any(|allowed| allowed == *role);
            assert_eq!(status != 403, may, "{role} {method} {path}: {status} {answer}");
            assert_ne!(status, 401, "{role} {method} {path}: {answer}");
        }
    }
    let (_, gateway) = &keys[0];
    run_json(
        &["keys", "revoke", gateway.split('_').nth(1).expect("an id")],
        &data_dir,
    );
    let bearer = format!("Bearer {gateway}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/x-ndjson"),
    ];
    crate::harness::eventually("the revoked key opens nothing", || {
        instance
            .raw("POST", "/v1/venues/v1/events", &headers, event.as_bytes())
            .0
            == 401
    });
}
