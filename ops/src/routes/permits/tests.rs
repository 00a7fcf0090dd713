//! Permits and usage through the whole router of an installation with several tenants.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use dwell_model::ids::TenantId;
use dwell_storage::access;
use dwell_storage::api::{Role, Stores};
use dwell_storage::usage::{Amounts, UsageCounter, UsageWriter};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::config::Config;
use crate::platform::Platform;

/// An installation and keys of two tenants.
struct World {
    platform: Platform,
    _folder: tempfile::TempDir,
}

async fn key(stores: &Stores, tenant: &str, role: Role) -> String {
    let tenant = TenantId::new(tenant).unwrap();
    stores.registry.create_tenant(&tenant).await.unwrap();
    let (key, text) = access::issue(tenant, role, None, None, 0).unwrap();
    stores.registry.put_key(&key).await.unwrap();
    text.reveal().to_owned()
}

async fn send(router: &Router, key: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

impl World {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: folder.path().join("d"),
            ..Config::default()
        };
        Self {
            platform: Platform::open_for_command(config).await.unwrap(),
            _folder: folder,
        }
    }

    async fn key(&self, tenant: &str, role: Role) -> String {
        key(self.platform.stores(), tenant, role).await
    }

    async fn put(&self, key: &str, path: &str, body: Value) -> (StatusCode, Value) {
        send(&self.platform.router(), key, Method::PUT, path, body).await
    }

    async fn get(&self, key: &str, path: &str) -> Value {
        let (status, answer) = send(&self.platform.router(), key, Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    async fn job(&self, key: &str, body: Value) -> (StatusCode, Value) {
        send(&self.platform.router(), key, Method::POST, "/v1/jobs", body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tenant_is_told_why_and_everybody_else_goes_on() {
    let world = World::open().await;
    let owner = world.platform.admin_key().to_owned();
    let (acme, acme_operator) = (
        world.key("acme", Role::Admin).await,
        world.key("acme", Role::Operator).await,
    );
    let other = world.key("other", Role::Operator).await;
    let deny = json!({"historical": "denied", "reason": "no premium contract", "contact": "sales@example.test", "recent_days": 7});

    // Whoever is not of the installation sets nothing, not even for itself.
    for key in [&acme, &acme_operator, &other] {
        let (status, answer) = world.put(key, "/v1/permits/acme", deny.clone()).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::FORBIDDEN, &json!("forbidden"))
        );
    }
    for (path, body, code) in [
        ("/v1/permits/nobody", deny.clone(), "not-found"),
        ("/v1/permits/acme", json!({"historical": "denied"}), "bad-body"),
        (
            "/v1/permits/acme",
            json!({"historical": "perhaps", "reason": "x"}),
            "bad-body",
        ),
        (
            "/v1/permits/acme",
            json!({"historical": "denied", "reason": "  "}),
            "bad-body",
        ),
    ] {
        let (_, answer) = world.put(&owner, path, body).await;
        assert_eq!(answer["code"], code, "{path}: {answer}");
    }

    let old = json!({"kind": "recompute", "from": "2020-01-01", "to": "2020-01-02"});
    let since_ever = json!({"kind": "restore"});
    let schedule = json!({"kind": "recompute", "cron": "0 3 * * *"});
    assert_eq!(
        world.job(&acme_operator, old.clone()).await.0,
        StatusCode::ACCEPTED,
        "allowed by default"
    );
    let (status, set) = world.put(&owner, "/v1/permits/acme", deny).await;
    assert_eq!(
        (status, &set["historical"]),
        (StatusCode::OK, &json!("denied")),
        "{set}"
    );

    for key in [&acme, &acme_operator] {
        for asked in [&old, &since_ever] {
            let (status, answer) = world.job(key, asked.clone()).await;
            assert_eq!(
                (status, &answer["code"]),
                (StatusCode::FORBIDDEN, &json!("not-permitted")),
                "{answer}"
            );
            let detail = answer["detail"].as_str().unwrap();
            for said in ["no premium contract", "sales@example.test"] {
                assert!(detail.contains(said), "{detail}");
            }
        }
    }
    let (status, answer) = world.put(&acme, "/v1/schedules/nightly", schedule.clone()).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::FORBIDDEN, &json!("not-permitted")),
        "{answer}"
    );
    // What is recent, what is no recompute, other tenants, and who runs the installation.
    let recent = json!({"kind": "recompute", "from": dwell_model::time::LocalDay::of_utc(world.platform.clock().now_ms())});
    assert_eq!(world.job(&acme_operator, recent).await.0, StatusCode::ACCEPTED);
    let verify = json!({"kind": "verify", "from": "2020-01-01", "to": "2020-01-02"});
    assert_eq!(world.job(&acme_operator, verify).await.0, StatusCode::ACCEPTED);
    assert_eq!(world.job(&other, old.clone()).await.0, StatusCode::ACCEPTED);
    assert_eq!(world.job(&owner, old.clone()).await.0, StatusCode::ACCEPTED);

    // Each sees its own; who runs the installation sees all.
    let own = world.get(&acme_operator, "/v1/permits").await;
    assert_eq!(own["permits"].as_array().unwrap().len(), 1);
    assert_eq!(own["permits"][0]["recent_days"], 7);
    let all = world.get(&owner, "/v1/permits").await;
    let words: Vec<_> = all["permits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|permit| {
            (
                permit["tenant"].as_str().unwrap(),
                permit["historical"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        words,
        [("acme", "denied"), ("default", "allowed"), ("other", "allowed")]
    );
    for key in [&acme, &owner] {
        let audit = world.get(key, "/v1/audit").await;
        let entries = audit["entries"].as_array().unwrap();
        let set = entries
            .iter()
            .find(|entry| entry["action"] == "permit.set")
            .unwrap();
        assert_eq!(
            (&set["about"], &set["reason"]),
            (&json!("acme"), &json!("no premium contract"))
        );
    }

    // Allowed again: at once. A schedule made then is reported when the permit goes.
    let allow = json!({"historical": "allowed", "reason": "contract signed"});
    assert_eq!(
        world.put(&owner, "/v1/permits/acme", allow).await.0,
        StatusCode::OK
    );
    assert_eq!(
        world.job(&acme_operator, since_ever).await.0,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        world.put(&acme, "/v1/schedules/nightly", schedule).await.0,
        StatusCode::OK
    );
    let deny = json!({"historical": "denied", "reason": "contract ended"});
    assert_eq!(
        world.put(&owner, "/v1/permits/acme", deny).await.0,
        StatusCode::OK
    );
    let schedules = world.get(&acme, "/v1/schedules").await;
    let next = &schedules["schedules"][0]["next"];
    assert_eq!(next["state"], "denied", "{next}");
    assert!(
        next["because"].as_str().unwrap().contains("contract ended"),
        "{next}"
    );
    world.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_usage_and_who_runs_the_installation_sees_all() {
    let world = World::open().await;
    let stores = world.platform.stores().clone();
    let owner = world.platform.admin_key().to_owned();
    let (acme, other) = (
        world.key("acme", Role::Operator).await,
        world.key("other", Role::Operator).await,
    );
    let viewer = world.key("acme", Role::Viewer).await;
    let counter = UsageCounter::default();
    let clock = std::sync::Arc::clone(world.platform.clock());
    let mut writer = UsageWriter::new(counter.clone(), stores.documents, clock, "life");
    for (tenant, rows) in [("acme", 7), ("other", 11)] {
        let tenant = TenantId::new(tenant).unwrap();
        counter.count(&tenant, None, "query", "", Amounts::request(rows));
        counter.count(&tenant, None, "events", "http", Amounts::events(rows * 10, 1));
    }
    writer.write().await.unwrap();
    // Tenant, rows of queries, events taken.
    let seen = async |key: &str, query: &str| -> Vec<(String, u64, u64)> {
        let usage = world.get(key, &format!("/v1/usage{query}")).await;
        let tenants = usage["tenants"].as_array().unwrap().iter();
        tenants
            .map(|of| {
                let total = &of["total"];
                let rows = total["modules"]["query"]["rows"].as_u64().unwrap_or(0);
                let taken = total["events"]["http"]["taken"].as_u64().unwrap_or(0);
                (of["tenant"].as_str().unwrap().to_owned(), rows, taken)
            })
            .collect()
    };
    let row = |tenant: &str, rows, taken| (tenant.to_owned(), rows, taken);
    assert_eq!(seen(&acme, "").await, [row("acme", 7, 70)]);
    assert_eq!(seen(&other, "?tenant=other").await, [row("other", 11, 110)]);
    let all = [row("acme", 7, 70), row("default", 0, 0), row("other", 11, 110)];
    assert_eq!(seen(&owner, "").await, all);
    assert_eq!(seen(&owner, "?tenant=acme").await, all[..1]);
    for (key, query, status, code) in [
        (&acme, "?tenant=other", StatusCode::NOT_FOUND, "not-found"),
        (&acme, "?venue=v1", StatusCode::NOT_FOUND, "not-found"),
        (&owner, "?venue=v1", StatusCode::NOT_FOUND, "not-found"),
        (
            &acme,
            "?from=2026-01-02&to=2026-01-01",
            StatusCode::BAD_REQUEST,
            "bad-range",
        ),
        (
            &acme,
            "?from=2020-01-01&to=2026-01-01",
            StatusCode::BAD_REQUEST,
            "bad-range",
        ),
        (&acme, "?from=yesterday", StatusCode::BAD_REQUEST, "bad-parameter"),
        (&acme, "?colour=red", StatusCode::BAD_REQUEST, "bad-parameter"),
        (&viewer, "", StatusCode::FORBIDDEN, "forbidden"),
    ] {
        let path = format!("/v1/usage{query}");
        let (found, answer) = send(&world.platform.router(), key, Method::GET, &path, Value::Null).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{query}");
    }
    world.platform.close().await.unwrap();
}
