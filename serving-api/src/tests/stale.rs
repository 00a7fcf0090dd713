//! Queries while the tables are away.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_storage::api::Role;
use dwell_storage::error::ErrorKind;

use super::harness::{Api, OTHER_TENANT};
use super::metrics::MONDAY;

const QUESTION: &str = "/v1/venues/v1/metrics?metric=visits&from=2026-10-26&to=2026-10-26&by=day";

#[tokio::test]
async fn what_was_answered_before_is_answered_again_with_its_age() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let fresh = api.get(QUESTION).await;
    assert_eq!(fresh.status, StatusCode::OK);
    assert!(!fresh.headers.contains_key(header::AGE));

    api.faults
        .fail("venue_days.list", ErrorKind::Unavailable, u64::MAX);
    api.faults
        .fail("venue_days.get", ErrorKind::Unavailable, u64::MAX);
    api.clock.advance(Duration::from_secs(37));
    let stale = api.get(QUESTION).await;
    assert_eq!(stale.status, StatusCode::OK, "{}", stale.text());
    assert_eq!(stale.body, fresh.body);
    assert_eq!(stale.headers[header::AGE], "37");
    assert!(
        stale.headers[header::WARNING]
            .to_str()
            .unwrap()
            .starts_with("110 ")
    );

    // What was never asked has no answer, and another tenant never gets this one's.
    let other = QUESTION.replace("visits", "visitors");
    assert_eq!(api.get(&other).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let bearer = format!("Bearer {}", api.key_of(OTHER_TENANT, Role::Viewer));
    let foreign = axum::http::Request::builder()
        .method(Method::GET)
        .uri(QUESTION)
        .header(header::AUTHORIZATION, bearer)
        .body(Body::empty())
        .unwrap();
    assert_eq!(api.send(foreign).await.status, StatusCode::NOT_FOUND);

    api.faults.clear();
    let again = api.get(QUESTION).await;
    assert!(!again.headers.contains_key(header::AGE));
    assert_eq!(again.body, fresh.body);
}

#[tokio::test]
async fn an_answer_older_than_a_day_is_not_given() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    api.get_json(QUESTION).await;
    api.faults
        .fail("venue_days.list", ErrorKind::Unavailable, u64::MAX);
    api.faults
        .fail("venue_days.get", ErrorKind::Unavailable, u64::MAX);
    api.clock.advance(Duration::from_secs(24 * 3_600 + 1));
    assert_eq!(api.get(QUESTION).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
