use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;
use crate::clock::{ManualClock, SystemClock, timeout};
use crate::shutdown::{Phase, ShutdownController};
use crate::telemetry::testing::{recorder, subscriber_of};

struct Admin {
    controller: ShutdownController,
    readiness: Readiness,
    router: Router,
}

fn admin() -> Admin {
    let controller = ShutdownController::default();
    let readiness = Readiness::new(&controller);
    let (recorder, handle) = recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        metrics::gauge!("dwell_test_admin_lag_events").set(4.0)
    });
    let state = AdminState {
        readiness: readiness.clone(),
        metrics: handle,
        log: None,
    };
    Admin {
        controller,
        readiness,
        router: router(state),
    }
}

impl Admin {
    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn readyz(&self) -> (StatusCode, Value) {
        let (status, body) = self.get("/readyz").await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn health_is_live_even_when_nothing_is_ready() {
    let admin = admin();
    let _check = admin.readiness.register("raw writer");
    assert_eq!(
        admin.get("/healthz").await,
        (StatusCode::OK, r#"{"status":"live"}"#.to_owned())
    );
}

#[tokio::test]
async fn ready_only_when_every_check_is_ok_and_each_is_named_with_its_reason() {
    let admin = admin();
    let log = admin.readiness.register("event log");
    let writer = admin.readiness.register("raw writer");
    log.set_ok();
    assert_eq!(
        admin.readyz().await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"ready": false, "checks": [
                {"name": "event log", "ok": true, "detail": null},
                {"name": "raw writer", "ok": false, "detail": "starting"},
            ]})
        )
    );
    writer.set_ok();
    assert_eq!(admin.readyz().await.0, StatusCode::OK);
    writer.set_not_ok("4200 events behind");
    let (status, body) = admin.readyz().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"][1]["detail"], "4200 events behind");
}

#[tokio::test]
async fn a_part_that_is_gone_is_not_ready_until_it_is_started_anew() {
    let admin = admin();
    let check = admin.readiness.register("speed layer");
    let clone = check.clone();
    check.set_ok();
    drop(check);
    assert_eq!(
        admin.readyz().await.0,
        StatusCode::OK,
        "a clone still speaks for it"
    );
    let new = {
        let old = clone;
        let new = admin.readiness.register("speed layer");
        new.set_ok();
        drop(old);
        new
    };
    assert_eq!(
        admin.readyz().await.0,
        StatusCode::OK,
        "the old one's end does not touch the new one"
    );
    drop(new);
    let (status, body) = admin.readyz().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body["checks"],
        json!([{"name": "speed layer", "ok": false, "detail": "stopped"}])
    );
}

#[tokio::test]
async fn a_shutdown_makes_it_not_ready_first_of_all() {
    let admin = admin();
    let check = admin.readiness.register("event log");
    check.set_ok();
    assert_eq!(admin.readyz().await.0, StatusCode::OK);

    let clock = ManualClock::at_ms(0);
    let held = admin.controller.register(Phase::NotReady, "load balancer delay");
    let mut run = std::pin::pin!(admin.controller.run_to_completion(Duration::from_secs(5), &clock));
    assert!(futures::poll!(&mut run).is_pending());
    let (status, body) = admin.readyz().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body["checks"][0],
        json!({"name": "shutdown", "ok": false, "detail": "the process is shutting down"})
    );
    drop(held);
}

#[tokio::test]
async fn metrics_are_rendered_as_prometheus_text() {
    let admin = admin();
    let response = admin
        .router
        .clone()
        .oneshot(Request::get("/metrics").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("dwell_test_admin_lag_events 4"), "{text}");
}

#[tokio::test]
async fn the_log_filter_is_read_replaced_and_a_bad_one_refused() {
    let without = admin();
    assert_eq!(without.get("/log-filter").await.0, StatusCode::NOT_FOUND);

    let (_subscriber, log) = subscriber_of("warn");
    let state = AdminState {
        readiness: without.readiness.clone(),
        metrics: recorder().unwrap().1,
        log: Some(log),
    };
    let admin = Admin {
        router: router(state),
        ..without
    };
    let put = |filter: &str| {
        Request::put("/log-filter")
            .body(Body::from(filter.to_owned()))
            .unwrap()
    };
    assert_eq!(
        admin.get("/log-filter").await,
        (StatusCode::OK, "warn".to_owned())
    );
    assert_eq!(
        admin.send(put("debug\n")).await,
        (StatusCode::OK, "debug".to_owned())
    );
    let (status, message) = admin.send(put("info,dwell=loud")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message.contains("info,dwell=loud"), "{message}");
    assert_eq!(
        admin.send(put(&"x".repeat(5_000))).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(
        admin.get("/log-filter").await,
        (StatusCode::OK, "debug".to_owned())
    );
}

#[tokio::test]
async fn the_port_serves_until_the_admin_phase_and_then_closes_idle_connections() {
    let admin = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AdminState {
        readiness: admin.readiness.clone(),
        metrics: recorder().unwrap().1,
        log: None,
    };
    let token = admin.controller.register(Phase::Admin, "admin port");
    let clock = SystemClock::new();

    let client = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200 OK");
        // The connection stays open: it must not hold the shutdown up.
        let report = admin
            .controller
            .run_to_completion(Duration::from_secs(5), &clock)
            .await;
        (report, stream)
    };
    let both = async { tokio::join!(serve(listener, state, token), client) };
    let (served, (report, _stream)) = timeout(&clock, Duration::from_secs(20), both).await.unwrap();
    served.unwrap();
    assert!(report.is_clean(), "{report}");
}
