//! Jobs and the quarantine.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_storage::api::permits::{self, HistoricalPermit};
use dwell_storage::api::{
    Job, JobState, Jobs, Lane, Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineState, Role,
};
use serde_json::{Value, json};

use super::harness::{Answer, Api, OTHER_TENANT, TENANT};

impl Api {
    async fn operator_get(&self, path: &str) -> Answer {
        self.send(
            self.request(Method::GET, path, Role::Operator)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    async fn operator_post(&self, path: &str, body: Value) -> Answer {
        self.send_json(Method::POST, path, Role::Operator, &body).await
    }
}

#[tokio::test]
async fn a_job_is_stored_as_asked_and_can_be_watched_and_stopped() {
    let api = Api::start().await;
    let asked = json!({
        "kind": "recompute", "venues": ["v1"], "from": "2026-10-25", "to": "2026-10-26", "reason": "clock fixed",
        "dry_run": true, "options": {"force": true},
    });
    let created = api.operator_post("/v1/jobs", asked).await;
    assert_eq!(created.status, StatusCode::ACCEPTED, "{}", created.text());
    let job = created.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(
        created.headers[header::LOCATION],
        format!("/v1/jobs/{id}").as_str()
    );
    let spec =
        json!({"venues": ["v1"], "from": "2026-10-25", "to": "2026-10-26", "dry_run": true, "force": true});
    assert_eq!(
        (&job["spec"], &job["state"], &job["reason"]),
        (&spec, &json!("queued"), &json!("clock fixed"))
    );
    assert_eq!(job["created_at"], "2026-10-27T11:00:00.000Z");

    let stores = &api.stores.jobs;
    let mut claimed = stores.claim(0, 1_000).await.unwrap().unwrap();
    assert_eq!(claimed.id, id);
    (claimed.progress.done, claimed.progress.total) = (1, 2);
    let _ = stores.update(&claimed).await.unwrap();
    let seen = api.operator_get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(
        (&seen["state"], &seen["progress"]["done"]),
        (&json!("running"), &json!(1))
    );
    let stopped = api
        .operator_post(&format!("/v1/jobs/{id}/cancel"), json!(null))
        .await;
    assert_eq!(
        (stopped.status, &stopped.json()["cancel_requested"]),
        (StatusCode::ACCEPTED, &json!(true))
    );
    claimed.state = JobState::Succeeded;
    let _ = stores.update(&claimed).await.unwrap();
    assert_eq!(
        api.operator_post(&format!("/v1/jobs/{id}/cancel"), json!(null))
            .await
            .problem(),
        "conflict"
    );
}

#[tokio::test]
async fn a_denied_tenant_is_refused_what_reaches_back_by_its_venues_local_today() {
    let api = Api::start().await;
    // It is 2026-10-27 12:00 in Madrid, and already past midnight on the 28th in Kiritimati.
    api.put_venue(json!({"id": "early", "tz": "Pacific/Kiritimati"}))
        .await;
    let tenant = TenantId::new(TENANT).unwrap();
    let permit = HistoricalPermit {
        allowed: false,
        reason: "no premium contract".to_owned(),
        contact: None,
        recent_days: None,
        set_by: "x".to_owned(),
        set_at: 0,
    };
    permits::set_historical(&*api.stores.documents, &tenant, &permit)
        .await
        .unwrap();
    // 31 days before the 27th is the 26th of September.
    for (venues, from, refused) in [
        (json!(["v1"]), json!("2026-09-26"), false),
        (json!(["v1"]), json!("2026-09-25"), true),
        (json!(["v1"]), json!(null), true),
        (json!(["early"]), json!("2026-09-27"), false),
        (json!("all"), json!("2026-09-26"), true),
    ] {
        let asked = json!({"kind": "recompute", "venues": venues, "from": from, "dry_run": true});
        let answer = api.operator_post("/v1/jobs", asked).await;
        match refused {
            false => assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text()),
            true => {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{venues} {from}");
                assert_eq!(answer.problem(), "not-permitted");
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains("no premium contract"), "{detail}");
                assert!(detail.contains("the operators of this installation"), "{detail}");
            }
        }
    }
    let replay = json!({"kind": "replay", "options": {"entries": ["x"]}});
    assert_eq!(
        api.operator_post("/v1/jobs", replay).await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages() {
    let api = Api::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        api.clock.advance(std::time::Duration::from_millis(1));
        let created = api
            .operator_post("/v1/jobs", json!({"kind": "recompute", "venues": "all"}))
            .await
            .json();
        assert_eq!(created["spec"]["venues"], "all");
        ids.insert(0, created["id"].clone());
    }
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api
            .operator_get(&format!("/v1/jobs?limit=2{cursor}"))
            .await
            .json();
        listed.extend(
            page["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].clone()),
        );
        assert_eq!(page["kinds"].as_array().unwrap().len(), 4);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn a_job_waits_in_the_lane_that_it_names_and_the_list_shows_what_waits() {
    let api = Api::start().await;
    let lane_of = async |body: Value| api.operator_post("/v1/jobs", body).await.json()["lane"].clone();
    assert_eq!(lane_of(json!({"kind": "recompute"})).await, "demand");
    api.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(
        lane_of(json!({"kind": "recompute", "lane": "backfill"})).await,
        "backfill"
    );
    assert_eq!(
        lane_of(json!({"kind": "recompute", "lane": "backfill"})).await,
        "backfill"
    );
    let refused = api
        .operator_post("/v1/jobs", json!({"kind": "recompute", "lane": "fast"}))
        .await;
    assert_eq!(refused.problem(), "bad-body");
    // Another tenant's job is nobody else's business.
    let foreign = Job::queued(
        "x".to_owned(),
        TenantId::new(OTHER_TENANT).unwrap(),
        "recompute",
        Value::Null,
        "me".to_owned(),
        None,
        0,
    );
    api.stores
        .jobs
        .create(&foreign.in_lane(Lane::Nightly))
        .await
        .unwrap();
    let oldest = api.stores.jobs.claim(0, 1_000_000).await.unwrap().unwrap();
    assert_eq!(oldest.lane, Lane::Demand);
    let lanes = api.operator_get("/v1/jobs?limit=1").await.json()["lanes"].clone();
    assert_eq!(
        lanes,
        json!([
            {"lane": "nightly", "queued": 0, "running": 0, "oldest_queued": null},
            {"lane": "demand", "queued": 0, "running": 1, "oldest_queued": null},
            {"lane": "backfill", "queued": 2, "running": 0, "oldest_queued": "2026-10-27T11:00:01.000Z"},
        ])
    );
}

#[tokio::test]
async fn what_asks_for_an_admin_is_refused_to_an_operator() {
    let api = Api::start().await;
    let body = json!({"kind": "seal"});
    let refused = api
        .send_json(Method::POST, "/v1/jobs", Role::Operator, &body)
        .await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::FORBIDDEN, "forbidden")
    );
    let taken = api.send_json(Method::POST, "/v1/jobs", Role::Admin, &body).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.text());
}

#[tokio::test]
async fn what_a_job_could_not_do_is_asked_for_again_once_it_has_ended() {
    let api = Api::start().await;
    let body = json!({"kind": "recompute", "lane": "backfill", "reason": "late events"});
    let id = api.operator_post("/v1/jobs", body).await.json()["id"].clone();
    let path = format!("/v1/jobs/{}/retry", id.as_str().unwrap());
    assert_eq!(
        api.operator_post(&path, Value::Null).await.problem(),
        "conflict",
        "it waits"
    );
    let mut job = api.stores.jobs.claim(0, 1_000).await.unwrap().unwrap();
    assert_eq!(
        api.operator_post(&path, Value::Null).await.problem(),
        "conflict",
        "it runs"
    );
    job.state = JobState::Partial;
    job.report = Some(json!(["the failed day"]));
    let _ = api.stores.jobs.update(&job).await.unwrap();
    let again = api.operator_post(&path, Value::Null).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.text());
    let again = again.json();
    assert_ne!(again["id"], id);
    assert_eq!(
        (&again["kind"], &again["lane"], &again["reason"], &again["spec"]),
        (
            &json!("recompute"),
            &json!("backfill"),
            &json!("late events"),
            &json!({"only": ["the failed day"]})
        )
    );
    // What has succeeded has left nothing.
    let mut job = api.stores.jobs.claim(0, 1_000).await.unwrap().unwrap();
    job.state = JobState::Succeeded;
    let _ = api.stores.jobs.update(&job).await.unwrap();
    let path = format!("/v1/jobs/{}/retry", job.id);
    assert_eq!(api.operator_post(&path, Value::Null).await.problem(), "conflict");
    assert_eq!(
        api.operator_post("/v1/jobs/none/retry", Value::Null)
            .await
            .problem(),
        "not-found"
    );
}

#[tokio::test]
async fn too_many_unfinished_jobs_of_a_tenant_are_refused_until_some_end() {
    let api = Api::start().await;
    for n in 0..500 {
        let tenant = TenantId::new(TENANT).unwrap();
        let job = Job::queued(
            format!("{n:03}"),
            tenant,
            "recompute",
            Value::Null,
            "me".into(),
            None,
            0,
        );
        api.stores.jobs.create(&job).await.unwrap();
    }
    let refused = api.operator_post("/v1/jobs", json!({"kind": "recompute"})).await;
    assert_eq!(refused.problem(), "too-many-requests");
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    api.stores
        .jobs
        .request_cancel(&TenantId::new(TENANT).unwrap(), "000", 1)
        .await
        .unwrap();
    let taken = api.operator_post("/v1/jobs", json!({"kind": "recompute"})).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_job_that_makes_no_sense_is_refused_before_it_is_stored() {
    let api = Api::start().await;
    for (body, code) in [
        (json!({"kind": "fly"}), "bad-body"),
        (json!({"kind": "recompute", "venues": ["v9"]}), "not-found"),
        (json!({"kind": "recompute", "venues": []}), "bad-body"),
        (json!({"kind": "recompute", "venues": 7}), "bad-body"),
        (
            json!({"kind": "recompute", "from": "2026-10-26", "to": "2026-10-25"}),
            "bad-range",
        ),
        (json!({"kind": "recompute", "from": "yesterday"}), "bad-body"),
        (json!({"kind": "recompute", "options": {"speed": 9}}), "bad-body"),
        (json!({"kind": "replay"}), "bad-body"),
        (json!({"kind": "recompute", "when": "now"}), "bad-body"),
        (
            json!({"kind": "recompute", "reason": "x".repeat(2_000)}),
            "bad-body",
        ),
        (json!({}), "bad-body"),
        (json!([]), "bad-body"),
    ] {
        let answer = api.operator_post("/v1/jobs", body.clone()).await;
        assert_eq!(answer.problem(), code, "{body}: {}", answer.text());
    }
    assert_eq!(api.operator_get("/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(api.operator_get("/v1/jobs/nothing").await.problem(), "not-found");
}

fn entry(id: &str, code: &str, bytes: &[u8], encoding: QuarantineEncoding) -> QuarantineEntry {
    QuarantineEntry {
        id: id.to_owned(),
        tenant: TenantId::new(TENANT).unwrap(),
        venue: Some(VenueId::new("v1").unwrap()),
        received_at: 1_000,
        receipt: Receipt::derive(b"a", b"b"),
        source: "http".to_owned(),
        sensor: None,
        index: 3,
        code: code.to_owned(),
        message: "ts lies in the future".to_owned(),
        format: "ndjson".to_owned(),
        encoding,
        bytes: bytes.to_vec(),
        state: QuarantineState::Open,
    }
}

#[tokio::test]
async fn what_was_refused_is_listed_shown_and_dropped() {
    let api = Api::start().await;
    let entries = vec![
        entry("1", "future", b"{\"ts\":9}", QuarantineEncoding::Plain),
        entry("2", "not_json", b"\xff\x00", QuarantineEncoding::Plain),
        entry("3", "not_json", b"sealed", QuarantineEncoding::Encrypted),
    ];
    api.stores.quarantine.add(entries, 100).await.unwrap();
    let list = async |query: &str| {
        let page = api.operator_get(&format!("/v1/quarantine{query}")).await.json();
        let entries = page["entries"].as_array().unwrap().clone();
        (
            entries
                .iter()
                .map(|e| e["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
            page,
        )
    };
    assert_eq!(list("").await.0, ["3", "2", "1"]);
    assert_eq!(
        list("?code=not_json&venue=v1&source=http&state=open").await.0,
        ["3", "2"]
    );
    let (first, page) = list("?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(
        (first, list(&format!("?limit=2&cursor={cursor}")).await.0),
        (vec!["3".into(), "2".into()], vec!["1".into()])
    );
    assert!(!page.to_string().contains("sealed"));
    let show = async |id: &str| api.operator_get(&format!("/v1/quarantine/{id}")).await.json();
    assert_eq!(show("1").await["text"], "{\"ts\":9}");
    assert_eq!(
        (&show("2").await["text"], &show("2").await["hex"]),
        (&Value::Null, &json!("ff00"))
    );
    let sealed = show("3").await;
    assert_eq!(
        (&sealed["text"], &sealed["hex"], &sealed["bytes_len"]),
        (&Value::Null, &Value::Null, &json!(6))
    );
    for _ in 0..2 {
        let dropped = api.operator_post("/v1/quarantine/1/drop", json!(null)).await;
        assert_eq!(
            (dropped.status, &dropped.json()["state"]),
            (StatusCode::OK, &json!("dropped"))
        );
    }
    assert_eq!(list("").await.0, ["3", "2"]);
    assert_eq!(list("?state=all").await.0, ["3", "2", "1"]);
    let tenant = TenantId::new(TENANT).unwrap();
    api.stores
        .quarantine
        .set_state(&tenant, "2", QuarantineState::Replayed)
        .await
        .unwrap();
    assert_eq!(
        api.operator_post("/v1/quarantine/2/drop", json!(null))
            .await
            .problem(),
        "conflict"
    );
    for path in [
        "/v1/quarantine?state=lost",
        "/v1/quarantine?limit=0",
        "/v1/quarantine?colour=red",
    ] {
        assert_eq!(api.operator_get(path).await.problem(), "bad-parameter", "{path}");
    }
}
