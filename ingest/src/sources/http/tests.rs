use std::io::Write;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::{Extension, Router};
use dwell_model::time::DAY_MS;
use dwell_runtime::limits::RateLimit;
use dwell_storage::access::{self, KeyVerifier, Principal};
use dwell_storage::api::{Registry, Role};
use futures::stream;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::raw_writer::RawLag;
use crate::testing::{NOW, World, principal, tenant, venue};

const EVENTS: &str = "/v1/venues/v1/events";

fn small() -> HttpConfig {
    HttpConfig {
        body_bytes_max: 64 * 1024,
        decompressed_bytes_max: 2 << 20,
        compression_ratio_max: 20,
        refused_listed_max: 2,
        ..HttpConfig::default()
    }
}

fn router_as(world: &World, config: HttpConfig, principal: Arc<Principal>) -> Router {
    let state = HttpState::new(config, world.intake(), None, world.clock.shared());
    router(state).layer(Extension(principal))
}

fn app(world: &World) -> Router {
    router_as(world, small(), principal(Role::Gateway, None))
}

fn event(track: &str) -> String {
    format!(r#"{{"sensor":"s1","track":"{track}","ts":{NOW},"x":1.5,"y":2}}"#)
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path);
    let request = if headers.iter().any(|(name, _)| *name == "content-type") {
        request
    } else {
        request.header("content-type", "application/x-ndjson")
    };
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(body.into())
        .unwrap()
}

/// Status, headers and JSON of an answer.
async fn send(app: &Router, request: Request<Body>) -> (StatusCode, Response<()>, Value) {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (parts.status, Response::from_parts(parts, ()), json)
}

/// Status and code of a problem.
async fn problem(app: &Router, request: Request<Body>) -> (u16, String) {
    let (status, response, json) = send(app, request).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{json}"
    );
    assert_eq!(json["status"], status.as_u16());
    assert!(json["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    let code = json["code"].as_str().unwrap().to_owned();
    assert_eq!(json["type"], format!("urn:dwell:problem:{code}"));
    (status.as_u16(), code)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

#[tokio::test]
async fn events_are_taken_in_every_format_and_encoding() {
    let world = World::new().await;
    let app = app(&world);
    let array = format!("[{},{}]", event("a"), event("b"));
    let lines = format!("{}\n{}", event("a"), event("b"));
    let csv = format!("sensor,track,ts,x,y\ns1,a,{NOW},1.5,2\ns1,b,{NOW},1.5,2\n");
    for (media, body) in [
        ("application/json", &array),
        ("application/x-ndjson", &lines),
        ("text/csv; charset=utf-8", &csv),
    ] {
        for (encoding, bytes) in [
            ("identity", body.clone().into_bytes()),
            ("gzip", gzip(body.as_bytes())),
            ("zstd", zstd(body.as_bytes())),
        ] {
            let request = post(
                EVENTS,
                &[("content-type", media), ("content-encoding", encoding)],
                bytes,
            );
            let (status, _, json) = send(&app, request).await;
            assert_eq!(
                (status, &json["accepted"]),
                (StatusCode::ACCEPTED, &Value::from(2)),
                "{media} {encoding} {json}"
            );
            assert_eq!(
                (&json["refused"], &json["refused_total"]),
                (&Value::Array(vec![]), &Value::from(0))
            );
        }
    }
    let records = world.logged().await;
    assert_eq!(records.len(), 9);
    let first = &records[0].events;
    assert!(
        records
            .iter()
            .all(|record| record.events.ts == first.ts && record.events.f32s(0) == first.f32s(0))
    );
}

#[tokio::test]
async fn a_mixed_message_is_taken_as_far_as_it_can_be() {
    let world = World::new().await;
    let app = app(&world);
    let body = [
        event("a"),
        "x".into(),
        event("b").replace("1.5", "1e99"),
        event("c").replace(&NOW.to_string(), &(NOW + DAY_MS).to_string()),
        event("d"),
    ]
    .join("\n");
    let (status, _, json) = send(&app, post(EVENTS, &[], body)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        (&json["accepted"], &json["refused_total"]),
        (&Value::from(2), &Value::from(3))
    );
    let refused = json["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "the list is cut at its limit");
    assert_eq!(
        (
            &refused[0]["index"],
            &refused[0]["code"],
            &refused[0]["retryable"]
        ),
        (&Value::from(1), &Value::from("json_syntax"), &Value::from(false))
    );
    assert_eq!(refused[1]["code"], "coordinate_out_of_range");
    assert_eq!(world.quarantined().await.len(), 3);
}

#[tokio::test]
async fn when_every_event_is_refused_the_answer_is_422_with_the_reasons() {
    let world = World::new().await;
    let app = app(&world);
    let future = event("a").replace(&NOW.to_string(), &(NOW + DAY_MS).to_string());
    let (status, _, json) = send(&app, post(EVENTS, &[], future)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        (
            &json["accepted"],
            &json["refused"][0]["code"],
            &json["refused"][0]["retryable"]
        ),
        (&Value::from(0), &Value::from("ts_in_future"), &Value::from(true))
    );
}

#[tokio::test]
async fn a_retry_has_the_receipt_of_the_first_try_and_a_stranger_has_not() {
    let world = World::new().await;
    let app = app(&world);
    let receipt = async |app: &Router, path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let (status, _, json) = send(app, post(path, headers, body)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{json}");
        json["receipt"].as_str().unwrap().to_owned()
    };
    let body = event("a").into_bytes();
    let first = receipt(&app, EVENTS, &[], body.clone()).await;
    assert_eq!(receipt(&app, EVENTS, &[], body.clone()).await, first);
    // However it is compressed.
    assert_eq!(
        receipt(&app, EVENTS, &[("content-encoding", "gzip")], gzip(&body)).await,
        first
    );
    assert_ne!(
        receipt(&app, "/v1/venues/v2/events", &[], body.clone()).await,
        first
    );
    assert_ne!(receipt(&app, EVENTS, &[], event("b").into_bytes()).await, first);
    let named = receipt(&app, EVENTS, &[("idempotency-key", "k1")], body.clone()).await;
    assert_ne!(named, first);
    assert_eq!(
        receipt(
            &app,
            EVENTS,
            &[("idempotency-key", "k1")],
            event("c").into_bytes()
        )
        .await,
        named
    );
    let other = Principal {
        key_id: "key2".to_owned(),
        ..Principal::clone(&principal(Role::Operator, None))
    };
    let other = router_as(&world, small(), Arc::new(other));
    assert_ne!(receipt(&other, EVENTS, &[], body).await, first);
}

#[tokio::test]
async fn a_dry_run_says_so_and_stores_nothing() {
    let world = World::new().await;
    let (status, _, json) = send(
        &app(&world),
        post(
            "/v1/venues/v1/events?dry_run=true",
            &[],
            format!("{}\nx", event("a")),
        ),
    )
    .await;
    assert_eq!(
        (
            status,
            &json["dry_run"],
            &json["accepted"],
            &json["refused_total"]
        ),
        (
            StatusCode::OK,
            &Value::from(true),
            &Value::from(1),
            &Value::from(1)
        )
    );
    assert!(world.logged().await.is_empty() && world.quarantined().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_as_a_whole_with_a_clear_problem() {
    let world = World::new().await;
    let app = app(&world);
    let json = [("content-type", "application/json")];
    let csv = [("content-type", "text/csv")];
    let gz = [("content-encoding", "gzip")];
    let body = event("a").into_bytes();
    let good_gzip = gzip(&body);
    let truncated = good_gzip[..good_gzip.len() - 9].to_vec();
    let mut damaged = good_gzip.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let bomb = gzip(&vec![b' '; 1_900_000]);
    let larger_bomb = zstd(&vec![b' '; 3 << 20]);
    let cases: Vec<(Request<Body>, u16, &str)> = vec![
        (post(EVENTS, &[], ""), 400, "empty-body"),
        (post(EVENTS, &[], "\n\r\n"), 400, "empty-body"),
        (post(EVENTS, &json, "[]"), 400, "empty-body"),
        (post(EVENTS, &csv, "ts,x\n"), 400, "empty-body"),
        (post(EVENTS, &json, "[{]"), 400, "json-syntax"),
        (post(EVENTS, &json, vec![b'[', 0xff]), 400, "invalid-utf8"),
        (post(EVENTS, &csv, "ts,mac\n1,2\n"), 400, "csv-header"),
        (post(EVENTS, &gz, truncated), 400, "compressed-body-damaged"),
        (post(EVENTS, &gz, damaged), 400, "compressed-body-damaged"),
        (
            post(EVENTS, &gz, "not compressed"),
            400,
            "compressed-body-damaged",
        ),
        (
            post(EVENTS, &[("content-encoding", "zstd")], "not compressed"),
            400,
            "compressed-body-damaged",
        ),
        (post(EVENTS, &gz, bomb), 413, "compression-ratio"),
        (
            post(EVENTS, &[("content-encoding", "zstd")], larger_bomb),
            413,
            "compression-ratio",
        ),
        (post(EVENTS, &[], vec![b' '; 65 * 1024]), 413, "body-too-large"),
        (
            post(EVENTS, &[("content-length", "999999999")], ""),
            413,
            "body-too-large",
        ),
        (
            post(EVENTS, &[("content-encoding", "br")], ""),
            415,
            "unsupported-encoding",
        ),
        (
            post(EVENTS, &[("content-type", "image/png")], ""),
            415,
            "unsupported-media-type",
        ),
        (
            post(EVENTS, &[("content-type", "text/csv; charset=utf-16")], ""),
            415,
            "unsupported-charset",
        ),
        (
            post("/v1/venues/v1/events?dry-run=true", &[], body.clone()),
            400,
            "bad-parameter",
        ),
        (
            post(EVENTS, &[("x-sent-at", "noon")], body.clone()),
            400,
            "bad-parameter",
        ),
        (
            post(EVENTS, &[("idempotency-key", "")], body.clone()),
            400,
            "bad-idempotency-key",
        ),
        (
            post("/v1/venues/v9/events", &[], body.clone()),
            404,
            "unknown-venue",
        ),
        (
            post("/v1/venues/..%2f/events", &[], body.clone()),
            404,
            "unknown-venue",
        ),
        (post("/v1/venues/%ff/events", &[], body), 404, "unknown-venue"),
    ];
    for (request, status, code) in cases {
        let asked = format!("{} {:?}", request.uri(), request.headers());
        assert_eq!(problem(&app, request).await, (status, code.to_owned()), "{asked}");
    }
    assert!(world.logged().await.is_empty());
    let get = Request::get(EVENTS).body(Body::empty()).unwrap();
    let (status, response, _) = send(&app, get).await;
    assert_eq!(
        (status, response.headers()["allow"].to_str().unwrap()),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
}

#[tokio::test]
async fn bodies_in_pieces_are_read_and_bounded_all_the_same() {
    let world = World::new().await;
    let app = app(&world);
    let pieces = |count: usize, piece: String| {
        let piece = move |_| Ok::<_, std::io::Error>(piece.clone());
        Body::from_stream(stream::iter((0..count).map(piece)))
    };
    let (status, _, json) = send(&app, post(EVENTS, &[], pieces(50, format!("{}\n", event("a"))))).await;
    assert_eq!(
        (status, &json["accepted"]),
        (StatusCode::ACCEPTED, &Value::from(50))
    );
    let endless = pieces(1_000_000, " ".repeat(1_000));
    assert_eq!(
        problem(&app, post(EVENTS, &[], endless)).await,
        (413, "body-too-large".to_owned())
    );
    let broken = Body::from_stream(stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]));
    assert_eq!(
        problem(&app, post(EVENTS, &[], broken)).await,
        (400, "body-broken-off".to_owned())
    );
    let silent = Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
    let waiting = problem(&app, post(EVENTS, &[], silent));
    let moving = async {
        world.clock.sleepers_reach(1).await;
        world.clock.advance(Duration::from_secs(31));
    };
    let (answer, ()) = futures::join!(waiting, moving);
    assert_eq!(answer, (408, "body-timeout".to_owned()));
}

#[tokio::test]
async fn who_may_post_where() {
    let world = World::new().await;
    let status = async |role, venues: Option<&[&str]>, path: &str| {
        let app = router_as(&world, small(), principal(role, venues));
        let body = event("a").replace('{', r#"{"venue":"v1","#);
        send(&app, post(path, &[], body)).await.0.as_u16()
    };
    assert_eq!(status(Role::Gateway, None, EVENTS).await, 202);
    assert_eq!(status(Role::Gateway, Some(&["v1"]), EVENTS).await, 202);
    assert_eq!(status(Role::Gateway, Some(&["v2"]), EVENTS).await, 403);
    // That a venue does not exist is nothing that a gateway of another learns.
    assert_eq!(
        status(Role::Gateway, Some(&["v2"]), "/v1/venues/v9/events").await,
        403
    );
    assert_eq!(status(Role::Gateway, Some(&["v2"]), "/v1/events").await, 422);
    assert_eq!(status(Role::Gateway, Some(&["v1"]), "/v1/events").await, 202);
    assert_eq!(status(Role::Viewer, None, EVENTS).await, 403);
    assert_eq!(status(Role::Operator, None, EVENTS).await, 202);
    assert_eq!(status(Role::Admin, None, "/v1/events").await, 202);
    let open = router(HttpState::new(
        small(),
        world.intake(),
        None,
        world.clock.shared(),
    ));
    assert_eq!(
        problem(&open, post(EVENTS, &[], event("a"))).await,
        (401, "unauthenticated".to_owned())
    );
}

#[tokio::test]
async fn keys_open_the_routes_of_their_own_tenant() {
    let world = World::new().await;
    let (key, text) = access::issue(tenant(), Role::Gateway, Some(vec![venue("v1")]), None, NOW).unwrap();
    world.stores.registry.put_key(&key).await.unwrap();
    let verifier = KeyVerifier::new(Arc::clone(&world.stores.registry) as _, world.clock.shared(), 100);
    let state = HttpState::new(small(), world.intake(), None, world.clock.shared());
    let app = authenticated_router(state, Arc::new(verifier));
    let bearer = format!("Bearer {}", text.reveal());
    let (status, _, json) = send(&app, post(EVENTS, &[("authorization", &bearer)], event("a"))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{json}");
    assert_eq!(world.logged().await[0].venue.tenant, tenant());
    for wrong in [
        "",
        "Bearer",
        "Basic x",
        "Bearer dwk_x_y",
        &bearer[..bearer.len() - 2],
    ] {
        let (status, response, _) = send(&app, post(EVENTS, &[("authorization", wrong)], event("a"))).await;
        assert_eq!(
            (status, response.headers().contains_key("www-authenticate")),
            (StatusCode::UNAUTHORIZED, true),
            "{wrong}"
        );
    }
    let twice = post(
        EVENTS,
        &[("authorization", &bearer), ("authorization", &bearer)],
        event("a"),
    );
    assert_eq!(problem(&app, twice).await.0, 401);
}

#[tokio::test]
async fn a_key_that_sends_too_fast_is_told_when_to_come_back() {
    let world = World::new().await;
    let config = HttpConfig {
        rate: Some(RateLimit {
            per_second: 1,
            burst: 2,
        }),
        ..small()
    };
    let app = router_as(&world, config, principal(Role::Gateway, None));
    for remaining in ["1", "0"] {
        let (status, response, _) = send(&app, post(EVENTS, &[], event("a"))).await;
        assert_eq!(
            (status, &response.headers()["ratelimit-remaining"]),
            (StatusCode::ACCEPTED, &remaining.parse().unwrap())
        );
        assert_eq!(response.headers()["ratelimit-limit"], "2");
    }
    let (status, response, json) = send(&app, post(EVENTS, &[], event("a"))).await;
    assert_eq!(
        (status, &json["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &Value::from("too-many-requests"))
    );
    assert_eq!(
        (
            &response.headers()["retry-after"],
            &response.headers()["ratelimit-reset"]
        ),
        (&"1".parse().unwrap(), &"2".parse().unwrap())
    );
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        send(&app, post(EVENTS, &[], event("a"))).await.0,
        StatusCode::ACCEPTED
    );
}

#[derive(Debug)]
struct Behind(RawLag);

impl LagSource for Behind {
    fn lag(&self) -> RawLag {
        self.0
    }
}

#[tokio::test]
async fn when_the_raw_writer_is_far_behind_senders_are_held_back() {
    let world = World::new().await;
    let limits = small();
    for (events, ms, taken) in [
        (limits.raw_lag_events_max, limits.raw_lag_ms_max, true),
        (limits.raw_lag_events_max + 1, 0, false),
        (1, limits.raw_lag_ms_max + 1, false),
    ] {
        let lag: Arc<dyn LagSource> = Arc::new(Behind(RawLag { events, ms }));
        let state = HttpState::new(small(), world.intake(), Some(lag), world.clock.shared());
        let app = router(state).layer(Extension(principal(Role::Gateway, None)));
        let (status, response, json) = send(&app, post(EVENTS, &[], event("a"))).await;
        assert_eq!(status == StatusCode::ACCEPTED, taken);
        if !taken {
            assert_eq!(
                (status, &json["code"]),
                (StatusCode::SERVICE_UNAVAILABLE, &Value::from("lagging"))
            );
            assert_eq!(response.headers()["retry-after"], "30");
        }
    }
}

#[tokio::test]
async fn requests_and_bytes_in_flight_are_bounded_and_given_back() {
    let world = World::new().await;
    let one = HttpConfig {
        requests_in_flight_max: 1,
        ..small()
    };
    let app = router_as(&world, one, principal(Role::Gateway, None));
    let silent = || Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
    {
        let mut waiting = Box::pin(send(&app, post(EVENTS, &[], silent())));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let (status, response, json) = send(&app, post(EVENTS, &[], event("a"))).await;
        assert_eq!(
            (status, &json["code"], &response.headers()["retry-after"]),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                &Value::from("busy"),
                &"1".parse().unwrap()
            )
        );
    }
    // A client that went away gives its place back.
    assert_eq!(
        send(&app, post(EVENTS, &[], event("a"))).await.0,
        StatusCode::ACCEPTED
    );

    // Room for one body of full length, compressed and decompressed.
    let bytes = HttpConfig {
        bytes_in_flight_max: 0,
        decompressed_bytes_max: 64 * 1024,
        ..small()
    };
    let app = router_as(&world, bytes, principal(Role::Gateway, None));
    // Now the venues are known, and the next requests wait for their bodies only.
    assert_eq!(
        send(&app, post(EVENTS, &[], event("a"))).await.0,
        StatusCode::ACCEPTED
    );
    {
        let announced = [("content-length", "65536")];
        let mut waiting: Vec<_> = (0..2)
            .map(|_| Box::pin(send(&app, post(EVENTS, &announced, silent()))))
            .collect();
        for request in &mut waiting {
            assert!(futures::poll!(request.as_mut()).is_pending());
        }
        let (status, _, json) = send(&app, post(EVENTS, &[], event("a"))).await;
        assert_eq!(
            (status, &json["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &Value::from("busy"))
        );
    }
    assert_eq!(
        send(&app, post(EVENTS, &[], event("a"))).await.0,
        StatusCode::ACCEPTED
    );
}
