//! The live view, once and as a stream.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_storage::api::Role;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::harness::{Api, Point, venue_key};
use crate::Config;

const TODAY: &[Point<'static>] = &[
    ("s1", "c", "2026-10-27T11:00:00+01:00", 1.0, 1.0),
    ("s1", "c", "2026-10-27T11:00:09+01:00", 1.0, 1.0),
];

#[tokio::test]
async fn zones_have_their_occupancy_and_today_its_hours_so_far() {
    let api = Api::start().await;
    let unseen = api.get_json("/v1/venues/v1/live").await;
    assert_eq!(unseen["as_of"], Value::Null);
    let ids: Vec<_> = unseen["zones"]
        .as_array()
        .unwrap()
        .iter()
        .map(|zone| zone["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["left", "right", "_venue"]);
    assert!(
        unseen["zones"]
            .as_array()
            .unwrap()
            .iter()
            .all(|zone| zone["occupancy"].is_null()),
        "unknown is not 0"
    );

    api.show_live("v1", "2026-10-27", TODAY).await;
    let answer = api.get("/v1/venues/v1/live").await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let live = answer.json();
    let zone = |id: &str| {
        live["zones"]
            .as_array()
            .unwrap()
            .iter()
            .find(|zone| zone["id"] == id)
            .unwrap()
            .clone()
    };
    assert_eq!(zone("left")["occupancy"], 1);
    assert_eq!(zone("right")["occupancy"], 0);
    assert_eq!(
        (&live["occupancy"], &live["open_sessions"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (&live["as_of"], &live["watermark"]),
        (
            &json!("2026-10-27T11:00:00.000Z"),
            &json!("2026-10-27T10:59:58.000Z")
        )
    );
    let hours = live["today"]["hours"].as_array().unwrap();
    assert_eq!(
        (live["today"]["day"].as_str(), hours.len()),
        (Some("2026-10-27"), 13),
        "00:00 to 12:00 have begun"
    );
    assert_eq!(hours[12]["running"], true);
    let eleven = &hours[11];
    assert_eq!(eleven["start_local"], "2026-10-27T11:00:00.000+01:00");
    let left = eleven["zones"]
        .as_array()
        .unwrap()
        .iter()
        .find(|zone| zone["id"] == "left")
        .unwrap();
    assert_eq!(
        (&left["visits"], &left["visitors"], &left["dwell_ms"]),
        (&json!(1), &json!(1), &json!(9_000))
    );
}

/// The next event of a stream as (name, data).
async fn event(body: &mut Body) -> Option<(String, Value)> {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame())
            .await
            .expect("an event in time")?;
        let text = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
        if text.starts_with(':') {
            continue;
        }
        let mut lines = text.lines();
        let name = lines.next().unwrap().strip_prefix("event: ").unwrap().to_owned();
        let data = lines.next().unwrap().strip_prefix("data: ").unwrap();
        return Some((name, serde_json::from_str(data).unwrap()));
    }
}

async fn open(api: &Api) -> axum::response::Response {
    let request = api
        .request(Method::GET, "/v1/venues/v1/live/stream", Role::Viewer)
        .body(Body::empty())
        .unwrap();
    api.router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_stream_begins_with_what_is_follows_changes_and_ends_with_the_process() {
    let api = Api::start().await;
    api.show_live("v1", "2026-10-27", &TODAY[..1]).await;
    let response = open(&api).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body();
    let (name, first) = event(&mut body).await.unwrap();
    assert_eq!(
        (name.as_str(), first["open_sessions"].as_u64()),
        ("live", Some(2))
    );
    api.show_live("v1", "2026-10-27", TODAY).await;
    let (_, second) = event(&mut body).await.unwrap();
    let dwell = |live: &Value| {
        let zones = live["today"]["hours"][11]["zones"].as_array().unwrap().clone();
        zones.iter().find(|zone| zone["id"] == "left").unwrap()["dwell_ms"].clone()
    };
    assert_eq!((dwell(&first), dwell(&second)), (json!(0), json!(9_000)));
    let shutting_down = api.shutdown.run_to_completion(Duration::from_secs(5), &api.clock);
    let (ended, _report) = futures::join!(event(&mut body), shutting_down);
    assert_eq!(ended, None, "the stream ends");
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let api = Api::start_with(Config {
        streams_max: 1,
        ..Config::default()
    })
    .await;
    let first = open(&api).await;
    let second = open(&api).await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.headers()[header::RETRY_AFTER], "10");
    assert_eq!(api.live.subscribers(&venue_key("v1")), 1);
    drop(first);
    assert_eq!(
        api.live.subscribers(&venue_key("v1")),
        0,
        "whoever leaves is forgotten"
    );
    assert_eq!(open(&api).await.status(), StatusCode::OK);
}
