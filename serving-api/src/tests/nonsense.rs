//! Nonsense of every kind gets a clear refusal, and bounds push back.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use dwell_storage::api::Role;
use serde_json::json;

use super::harness::{A_WHILE, Api};
use crate::{Access, Config, ROUTES};

#[tokio::test]
async fn nonsense_in_parameters_is_refused_with_what_to_do() {
    let api = Api::start().await;
    let metrics = "/v1/venues/v1/metrics";
    for (path, code) in [
        (metrics.to_string(), "bad-parameter"),
        (format!("{metrics}?metric="), "bad-parameter"),
        (format!("{metrics}?metric=vists"), "unknown-metric"),
        (
            format!("{metrics}?metric=visits&metric=dwell_ms"),
            "bad-parameter",
        ),
        (format!("{metrics}?metric=visits&colour=red"), "bad-parameter"),
        (format!("{metrics}?metric=visits&zone=nowhere"), "bad-parameter"),
        (format!("{metrics}?metric=in&zone=left"), "bad-parameter"),
        (format!("{metrics}?metric=visits&from=tomorrow"), "bad-parameter"),
        (
            format!("{metrics}?metric=visits&from=2026-02-30"),
            "bad-parameter",
        ),
        (
            format!("{metrics}?metric=visits&from=0000-00-00&to=9999-99-99"),
            "bad-parameter",
        ),
        (
            format!("{metrics}?metric=visits&from=2026-10-26&to=2026-10-25"),
            "bad-range",
        ),
        (
            format!("{metrics}?metric=visits&from=1970-01-01&to=2199-12-31&by=hour"),
            "bad-range",
        ),
        (
            format!("{metrics}?metric=visits&from=1970-01-01&to=2199-12-31&by=total"),
            "bad-range",
        ),
        (format!("{metrics}?metric=visits&by=minute"), "bad-parameter"),
        (format!("{metrics}?metric=visits&hours=25"), "bad-parameter"),
        (format!("{metrics}?metric=visits&limit=1000000"), "bad-parameter"),
        (format!("{metrics}?metric=visits&limit=-1"), "bad-parameter"),
        (
            format!("{metrics}?metric=visits&as_of=2099-01-01T00:00:00Z"),
            "bad-parameter",
        ),
        (format!("{metrics}?metric=visits&cursor=%00"), "bad-cursor"),
        (
            format!("{metrics}?metric={}", "a,".repeat(2_000)),
            "bad-parameter",
        ),
        ("/v1/venues/v9/metrics?metric=visits".to_owned(), "not-found"),
        (
            "/v1/venues/..%2f..%2fetc/metrics?metric=visits".to_owned(),
            "not-found",
        ),
        ("/v1/venues/%F0%9F%92%A3/live".to_owned(), "not-found"),
        ("/v1/venues/%ff/live".to_owned(), "bad-parameter"),
        ("/v1/venues/v1/live/stream/x".to_owned(), "not-found"),
        (
            "/v1/venues/v1/sessions?day=2026-10-26&from=2026-10-26".to_owned(),
            "bad-parameter",
        ),
        (
            "/v1/venues/v1/sessions?day=26.10.2026".to_owned(),
            "bad-parameter",
        ),
        ("/v1/venues/v1/sessions?zone=nowhere".to_owned(), "bad-parameter"),
        (
            "/v1/venues/v1/sessions?from=1970-01-01&to=2199-01-01".to_owned(),
            "bad-range",
        ),
        ("/v1/venues/v1/sessions/nonsense".to_owned(), "not-found"),
        (
            "/v1/venues/v1/sessions/%F0%9F%92%A3%F0%9F%92%A3%F0%9F%92%A3".to_owned(),
            "not-found",
        ),
        (
            "/v1/venues/v1/transitions?layer=nowhere".to_owned(),
            "bad-parameter",
        ),
        (
            "/v1/venues/v1/transitions?from=1970-01-01&to=2199-01-01".to_owned(),
            "bad-range",
        ),
        ("/v1/venues/v1/heatmap?from=x".to_owned(), "bad-parameter"),
        (
            "/v1/venues/v1/days?from=1970-01-01&to=2199-01-01".to_owned(),
            "bad-range",
        ),
        ("/v2/venues".to_owned(), "not-found"),
        ("/".to_owned(), "not-found"),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(answer.problem(), code, "{path}: {}", answer.text());
        assert!(answer.status.is_client_error());
        assert!(
            answer.body.len() < 2_500,
            "{path}: nothing is echoed at length: {}",
            answer.body.len()
        );
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let refused = api
        .get(&format!(
            "{metrics}?metric=visits&from=2016-01-01&to=2026-01-01&by=hour"
        ))
        .await;
    assert!(
        refused.text().contains("10000"),
        "the limit is named: {}",
        refused.text()
    );
}

#[tokio::test]
async fn nonsense_in_bodies_is_refused_on_every_route_that_takes_one() {
    let api = Api::start().await;
    let taking = ROUTES
        .iter()
        .filter(|route| route.method == Method::PUT || route.method == Method::POST);
    let bodies: [(&str, &[u8]); 8] = [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe\x00"),
        ("application/json", b"null"),
        ("application/json", b"[[[[[[[[[[[["),
        ("application/json", br#"{"kind": 7, "metrics": {}, "role": []}"#),
        ("text/plain", b"{}"),
        ("application/x-www-form-urlencoded", b"a=b"),
    ];
    for route in taking.filter(|route| !route.path.contains('{')) {
        for (content_type, body) in bodies {
            let request = api.request(route.method.clone(), route.path, Role::Admin);
            let request = request
                .header(header::CONTENT_TYPE, content_type)
                .body(Body::from(body))
                .unwrap();
            let answer = api.send(request).await;
            let expected = if content_type == "application/json" {
                "bad-body"
            } else {
                "unsupported-media-type"
            };
            assert_eq!(
                answer.problem(),
                expected,
                "{} {body:?}: {}",
                route.path,
                answer.text()
            );
        }
        let gzip = api
            .request(route.method.clone(), route.path, Role::Admin)
            .header(header::CONTENT_ENCODING, "gzip");
        assert_eq!(
            api.send(gzip.body(Body::empty()).unwrap()).await.problem(),
            "unsupported-media-type"
        );
    }
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let api = Api::start().await;
    for route in ROUTES {
        let path = route.path.replace(['{', '}'], "");
        let answer = api
            .send(
                api.request(Method::PATCH, &path, Role::Admin)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.problem(), "method-not-allowed", "{path}");
        let allowed = answer.headers[header::ALLOW].to_str().unwrap();
        assert!(allowed.contains(route.method.as_str()), "{path}: {allowed}");
    }
}

#[tokio::test]
async fn a_format_that_cannot_be_given_is_refused() {
    let api = Api::start().await;
    for accept in ["image/png", "text/html", "application/json;q=0"] {
        let request = api.request(Method::GET, "/v1/venues/v1/metrics?metric=visits", Role::Viewer);
        let answer = api
            .send(
                request
                    .header(header::ACCEPT, accept)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.problem(), "not-acceptable");
        assert!(answer.text().contains("text/csv"));
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let api = Api::start_with(Config {
        body_max: dwell_runtime::limits::ByteSize::kib(1),
        ..Config::default()
    })
    .await;
    let long = json!({"metrics": ["visits"], "from": "x".repeat(2_000)});
    let answer = api
        .send_json(Method::POST, "/v1/query", Role::Viewer, &long)
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too-large")
    );
    assert!(answer.text().contains("1024"));
}

#[tokio::test]
async fn a_key_has_its_rate_and_is_told_what_is_left() {
    let api = Api::start_with(Config {
        rate_per_second: 1,
        rate_burst: 3,
        ..Config::default()
    })
    .await;
    for left in ["2", "1", "0"] {
        let answer = api.get("/v1/definitions").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["ratelimit-limit"], "3");
        assert_eq!(answer.headers["ratelimit-remaining"], left);
    }
    let refused = api.get("/v1/definitions").await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "too-many-requests")
    );
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    assert_eq!(refused.headers["ratelimit-reset"], "3");
    let admin = api
        .request(Method::GET, "/v1/definitions", Role::Admin)
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        api.send(admin).await.status,
        StatusCode::OK,
        "another key has its own"
    );
    api.clock.advance(A_WHILE);
    assert_eq!(api.get("/v1/definitions").await.status, StatusCode::OK);
}

#[tokio::test]
async fn more_requests_at_once_than_allowed_are_sent_away() {
    let api = Api::without_venue(Config {
        requests_at_once_max: 0,
        ..Config::default()
    })
    .await;
    let answer = api
        .send(Request::get("/openapi.json").body(Body::empty()).unwrap())
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "busy")
    );
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn the_document_and_its_page_are_there_for_everybody_and_load_nothing_from_elsewhere() {
    let api = Api::start().await;
    for route in ROUTES.iter().filter(|route| route.access == Access::Public) {
        let answer = api
            .send(Request::get(route.path).body(Body::empty()).unwrap())
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", route.path);
        assert!(answer.headers.contains_key(header::ETAG));
    }
    let page = api.send(Request::get("/docs").body(Body::empty()).unwrap()).await;
    assert!(
        page.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
    let text = page.text();
    for elsewhere in ["http://", "https://", "//cdn", "@import"] {
        assert!(!text.contains(elsewhere), "{elsewhere}");
    }
    assert!(text.contains("openapi.json"));
}
