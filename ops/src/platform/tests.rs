//! The whole of it on an empty folder, asked through its router.

use std::time::Duration;

use axum::http::Method;
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::layout::VenueSpec;
use dwell_model::time::{DAY_MS, LocalDay};
use serde_json::{Value, json};

use super::*;

/// An opened platform, and clients with an admin's and an operator's key.
struct Opened {
    platform: Platform,
    admin: Client,
    operator: Client,
    _folder: tempfile::TempDir,
}

async fn open() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: folder.path().join("data"),
        ..Config::default()
    };
    let platform = Platform::open_for_command(config).await.unwrap();
    let now = platform.clock().now_ms();
    let (key, text) = access::issue(platform.tenant().clone(), KeyRole::Operator, None, None, now).unwrap();
    platform.stores().registry.put_key(&key).await.unwrap();
    Opened {
        admin: platform.client(platform.admin_key()),
        operator: platform.client(text.reveal()),
        platform,
        _folder: folder,
    }
}

async fn status(client: &Client, method: Method, path: &str, body: &Value) -> u16 {
    client.send(method, path, Some(body)).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_asked_for_and_scheduled_by_admins_only() {
    let opened = open().await;
    for kind in ["backup", "restore-backup", "drill"] {
        let place = if kind == "backup" { "to" } else { "from" };
        // Nobody can take this one: there is no such folder.
        let options = json!({ place: "file:///proc/none" });
        let job = json!({ "kind": kind, "options": options });
        let schedule = json!({ "kind": kind, "cron": "0 3 * * *", "options": options });
        let path = format!("/v1/schedules/my-{kind}");
        assert_eq!(
            status(&opened.operator, Method::POST, "/v1/jobs", &job).await,
            403,
            "{kind}"
        );
        assert_eq!(
            status(&opened.operator, Method::PUT, &path, &schedule).await,
            403,
            "{kind}"
        );
        assert_eq!(
            status(&opened.admin, Method::PUT, &path, &schedule).await,
            200,
            "{kind}"
        );
        assert_eq!(
            status(&opened.admin, Method::POST, "/v1/jobs", &job).await,
            202,
            "{kind}"
        );
    }
    let verify = json!({ "kind": "verify" });
    assert_eq!(
        status(&opened.operator, Method::POST, "/v1/jobs", &verify).await,
        202
    );
    opened.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_on_the_same_days_at_the_same_time_wait_for_each_other_and_all_succeed() {
    let opened = open().await;
    let spec: VenueSpec = serde_json::from_value(json!({"id": "shop", "tz": "UTC"})).unwrap();
    let (stores, tenant) = (opened.platform.stores(), opened.platform.tenant());
    let put = stores
        .registry
        .put_venue(tenant, &spec.to_venue(None).unwrap(), None)
        .await;
    assert_eq!(put.unwrap(), dwell_storage::api::Flip::Done);
    let today = opened.platform.clock().now_ms().div_euclid(DAY_MS) * DAY_MS;
    let events: String = (1..=6)
        .flat_map(|days_ago| (0..200).map(move |n| today - days_ago * DAY_MS + n * 1_000))
        .map(|ts| format!("{{\"sensor\":\"s\",\"track\":\"t\",\"ts\":{ts},\"x\":1.0,\"y\":2.0}}\n"))
        .collect();
    let posted = opened
        .admin
        .send_bytes(
            Method::POST,
            "/v1/venues/shop/events",
            Some("application/x-ndjson"),
            events.into(),
        )
        .await
        .unwrap();
    assert_eq!(posted.status, 202, "{}", String::from_utf8_lossy(&posted.body));

    let mut ids = Vec::new();
    for lane in ["nightly", "demand", "backfill", "demand"] {
        let job = json!({ "kind": "recompute", "lane": lane, "options": { "force": true } });
        let answer: Value = opened
            .operator
            .json(Method::POST, "/v1/jobs", Some(&job))
            .await
            .unwrap();
        ids.push(answer["id"].as_str().unwrap().to_owned());
    }
    let clock = opened.platform.clock();
    for id in &ids {
        opened.operator.awaits(id);
        let job = loop {
            let job: Value = opened.operator.get(&format!("/v1/jobs/{id}")).await.unwrap();
            if job["finished_at"].is_string() {
                break job;
            }
            clock.sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(
            (&job["report"]["computed"], &job["report"]["dirty_left"]),
            (&json!(6), &json!(0)),
            "{job}"
        );
    }
    // Each of the four published each of the six days.
    let venue = VenueKey::new(tenant.clone(), VenueId::new("shop").unwrap());
    for days_ago in 1..=6 {
        let day = LocalDay::of_utc(today - days_ago * DAY_MS);
        let history = stores.venue_days.history(&venue, day).await.unwrap();
        assert_eq!(history.len(), 4, "{day}");
    }
    opened.platform.close().await.unwrap();
}
