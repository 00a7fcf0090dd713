//! The audit: every change by a caller, newest first, page by page, for the tenant's own operators.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use dwell_storage::api::Role;
use serde_json::{Value, json};

use super::harness::{Api, NOW, OTHER_TENANT, venue_spec};

/// (action, about) of all entries, newest first, in pages of two.
async fn audited(api: &Api) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut path = "/v1/audit?limit=2".to_owned();
    loop {
        let page = api
            .send_json(Method::GET, &path, Role::Operator, &Value::Null)
            .await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        let page = page.json();
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 2);
        found.extend(entries.iter().map(|entry| {
            let word = |name: &str| entry[name].as_str().unwrap().to_owned();
            (word("action"), word("about"))
        }));
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/v1/audit?limit=2&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn what_callers_change_is_written_down_with_who_did_it() {
    let api = Api::without_venue(crate::Config::default()).await;
    let file = json!([venue_spec("v1"), venue_spec("v2")]);
    for _ in 0..2 {
        let applied = api.send_json(Method::PUT, "/v1/venues", Role::Admin, &file).await;
        assert_eq!(applied.status, StatusCode::OK);
    }
    api.clock.advance(Duration::from_secs(60));
    let made = api
        .send_json(Method::POST, "/v1/keys", Role::Admin, &json!({"role": "viewer"}))
        .await;
    let key = made.json()["id"].as_str().unwrap().to_owned();
    // Across the end of a month, so that two collections are read.
    api.clock.advance(Duration::from_secs(40 * 24 * 3_600));
    let path = format!("/v1/keys/{key}");
    for _ in 0..2 {
        let revoked = api
            .send_json(Method::DELETE, &path, Role::Admin, &Value::Null)
            .await;
        assert_eq!(revoked.status, StatusCode::OK);
    }
    let expected = [
        ("key.revoked", key.as_str()),
        ("key.made", key.as_str()),
        ("venue.created", "v2"),
        ("venue.created", "v1"),
    ];
    let found = audited(&api).await;
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        found, expected,
        "a change each, and nothing for what changed nothing"
    );

    let page = api
        .send_json(Method::GET, "/v1/audit?limit=50", Role::Operator, &Value::Null)
        .await
        .json();
    let oldest = &page["entries"][3];
    let at = dwell_model::time::parse_ts(oldest["at"].as_str().unwrap()).unwrap();
    assert_eq!(at, dwell_model::time::parse_ts(NOW).unwrap());
    let who = oldest["who"].as_str().unwrap();
    assert!(
        api.key(Role::Admin).contains(who),
        "the public part of the key: {who}"
    );

    let bearer = format!("Bearer {}", api.key_of(OTHER_TENANT, Role::Admin));
    let request = Request::get("/v1/audit").header(header::AUTHORIZATION, bearer);
    let foreign = api.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        foreign.json()["entries"],
        json!([]),
        "no tenant sees another's audit"
    );
}
