//! Periods as operators close and open them, and what a day's history tells.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_storage::api::periods::{self, Proposal, ProposalState};
use dwell_storage::api::{Role, VenueDaysReader};
use serde_json::{Value, json};

use super::harness::{Api, NOW, OTHER_TENANT, venue_key, venue_spec};
use super::metrics::MONDAY;

const DAY: &str = "2026-10-26";

impl Api {
    async fn close(&self, body: &Value) -> super::harness::Answer {
        self.send_json(Method::POST, "/v1/periods", Role::Operator, body)
            .await
    }

    async fn periods(&self) -> Value {
        let request = self.request(Method::GET, "/v1/periods", Role::Operator);
        let answer = self.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    async fn monday(&self) -> Value {
        let path = format!("/v1/venues/v1/days?from={DAY}&to={DAY}");
        self.get_json(&path).await["days"][0].clone()
    }
}

#[tokio::test]
async fn a_period_is_closed_and_opened_again_by_somebody_for_a_reason() {
    let api = Api::start().await;
    api.put_venue(venue_spec("v2")).await;
    let body = json!({"venues": ["v1"], "from": "2026-10-01", "to": DAY, "reason": "  invoiced  "});
    let closed = api.close(&body).await;
    assert_eq!(closed.status, StatusCode::CREATED, "{}", closed.text());
    let closed = closed.json();
    let by = closed["closed_by"].as_str().unwrap();
    assert!(
        api.key(Role::Operator).contains(by),
        "the public part of the key: {by}"
    );
    let expected = json!({
        "id": closed["id"], "venues": ["v1"], "from": "2026-10-01", "to": DAY, "reason": "invoiced",
        "closed_by": by, "closed_at": "2026-10-27T11:00:00.000Z", "state": "closed",
        "opened_by": null, "opened_at": null, "opened_reason": null,
    });
    assert_eq!(closed, expected);
    assert_eq!(
        api.periods().await,
        json!({"periods": [expected], "proposals": []})
    );
    assert_eq!(api.monday().await["closed"], true);
    let other = api
        .get_json(&format!("/v1/venues/v2/days?from={DAY}&to={DAY}"))
        .await;
    assert_eq!(other["days"][0]["closed"], false, "another venue's day");

    let path = format!("/v1/periods/{}/open", closed["id"].as_str().unwrap());
    for (later, reason) in [(60, "a sensor was wrong"), (120, "again")] {
        api.clock.advance(Duration::from_secs(later));
        let body = json!({ "reason": reason });
        let opened = api.send_json(Method::POST, &path, Role::Operator, &body).await;
        assert_eq!(opened.status, StatusCode::OK, "{}", opened.text());
        let opened = opened.json();
        let told = (&opened["state"], &opened["opened_at"], &opened["opened_reason"]);
        let first = (
            json!("open"),
            json!("2026-10-27T11:01:00.000Z"),
            json!("a sensor was wrong"),
        );
        assert_eq!(told, (&first.0, &first.1, &first.2), "the second changes nothing");
    }
    assert_eq!(api.monday().await["closed"], false);
    let audit = api
        .send_json(Method::GET, "/v1/audit", Role::Operator, &Value::Null)
        .await
        .json();
    let told: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["reason"].as_str()))
        .take(2)
        .collect();
    assert_eq!(
        told,
        [
            ("period.open", Some("a sensor was wrong")),
            ("period.close", Some("invoiced"))
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_closed_is_refused_and_nothing_is() {
    let api = Api::start().await;
    // It is noon on the 27th.
    let refused = [
        (
            json!({"from": "2026-10-27", "to": "2026-10-27", "reason": "r"}),
            400,
            "bad-range",
            "to",
        ),
        (
            json!({"from": "2026-10-26", "to": "2026-10-25", "reason": "r"}),
            400,
            "bad-range",
            "from",
        ),
        (
            json!({"venues": ["v9"], "from": DAY, "to": DAY, "reason": "r"}),
            404,
            "not-found",
            "venues",
        ),
        (
            json!({"venues": [], "from": DAY, "to": DAY, "reason": "r"}),
            400,
            "bad-parameter",
            "venues",
        ),
        (
            json!({"from": DAY, "to": DAY, "reason": "  "}),
            400,
            "bad-parameter",
            "reason",
        ),
        (
            json!({"from": DAY, "to": DAY, "reason": "r".repeat(1_001)}),
            400,
            "bad-parameter",
            "reason",
        ),
    ];
    for (body, status, code, about) in refused {
        let answer = api.close(&body).await;
        let told = (answer.status.as_u16(), answer.problem());
        assert_eq!(told, (status, code.to_owned()), "{body}");
        assert_eq!(answer.json()["parameter"], about, "{body}: {}", answer.text());
    }
    let body = json!({"from": DAY, "to": DAY, "reason": "r"});
    let viewer = api
        .send_json(Method::POST, "/v1/periods", Role::Viewer, &body)
        .await;
    assert_eq!(viewer.problem(), "forbidden");
    assert_eq!(api.periods().await["periods"], json!([]));

    let why = json!({"reason": "r"});
    let nobodys = api
        .send_json(Method::POST, "/v1/periods/none/open", Role::Operator, &why)
        .await;
    assert_eq!(nobodys.problem(), "not-found");
    let ours = api.close(&body).await.json();
    let path = format!("/v1/periods/{}/open", ours["id"].as_str().unwrap());
    let bearer = format!("Bearer {}", api.key_of(OTHER_TENANT, Role::Operator));
    let request = axum::http::Request::post(&path)
        .header(header::AUTHORIZATION, bearer)
        .header(header::CONTENT_TYPE, "application/json");
    let foreign = api
        .send(request.body(Body::from(r#"{"reason":"r"}"#)).unwrap())
        .await;
    assert_eq!(foreign.problem(), "not-found", "another tenant's period");
    assert_eq!(api.periods().await["periods"][0]["state"], "closed");
}

#[tokio::test]
async fn a_proposal_for_a_closed_day_is_listed_with_what_it_would_change() {
    let api = Api::start().await;
    let first = api.publish("v1", DAY, &MONDAY[..4]).await;
    let closed = api
        .close(&json!({"from": DAY, "to": DAY, "reason": "invoiced"}))
        .await;
    assert_eq!(closed.status, StatusCode::CREATED);
    let (venue, day) = (venue_key("v1"), DAY.parse().unwrap());
    let row = api.stores.venue_days.get(&venue, day).await.unwrap().unwrap();
    let mut info = row.published.unwrap();
    (info.generation, info.reason) = (first + 1, "events came late".to_owned());
    let proposal = Proposal {
        day,
        state: ProposalState::Pending,
        base: first,
        info,
    };
    let documents = api.stores.documents.as_ref();
    periods::propose(documents, &venue, &proposal).await.unwrap();
    let expected = json!({
        "venue": "v1", "day": DAY, "generation": first + 1, "replaces": first, "state": "pending",
        "approved_as": null, "proposed_at": "2026-10-27T11:00:00.000Z", "reason": "events came late",
        "events": 4, "changed": null,
    });
    assert_eq!(api.periods().await["proposals"], json!([expected]));
    assert_eq!(api.monday().await["proposed"], expected);
    let history = api.get_json(&format!("/v1/venues/v1/days/{DAY}")).await;
    assert_eq!(history["proposed"], expected);
    assert_eq!(history["generation"], first, "what answers is the published one");
}

#[tokio::test]
async fn a_days_history_names_every_generation_and_what_each_replaced() {
    let api = Api::start().await;
    let empty = api.get_json("/v1/venues/v1/days/2026-10-20").await;
    assert_eq!(
        (&empty["generation"], &empty["generations"]),
        (&Value::Null, &json!([]))
    );
    let first = api.publish("v1", DAY, &MONDAY[..4]).await;
    let second = api
        .publish_with("v1", DAY, MONDAY, |info| {
            info.reason = "events came late".to_owned()
        })
        .await;
    let history = api.get_json(&format!("/v1/venues/v1/days/{DAY}")).await;
    let told: Vec<Value> = history["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            json!([
                of["generation"],
                of["before"],
                of["reason"],
                of["events"],
                of["published_at"]
            ])
        })
        .collect();
    let at = "2026-10-27T11:00:00.000Z";
    assert_eq!(
        told,
        [
            json!([second, first, "events came late", 6, at]),
            json!([first, null, "first computation", 4, at]),
        ],
        "newest first, at {NOW}"
    );
    assert_eq!(
        (&history["generation"], &history["tz"], &history["day"]),
        (&json!(second), &json!("Europe/Madrid"), &json!(DAY))
    );
    let bad = api.get("/v1/venues/v1/days/yesterday").await;
    assert_eq!(
        (bad.status.as_u16(), bad.problem()),
        (400, "bad-parameter".to_owned())
    );
    assert_eq!(
        api.get("/v1/venues/v9/days/2026-10-26").await.problem(),
        "not-found"
    );
}
