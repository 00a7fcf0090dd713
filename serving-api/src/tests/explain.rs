//! From a number to its events, checked against what can be counted by hand.

use axum::http::StatusCode;
use dwell_model::event::Kind;
use dwell_model::exclusion::{Ended, Scope, fingerprint};
use dwell_model::time::parse_ts;
use dwell_storage::api::{AppliedExclusions, ArchiveFile, ArchiveReader};
use serde_json::{Value, json};

use super::exclusions::exclusion;
use super::harness::{Api, Point, venue_key};
use super::metrics::MONDAY;

const DAY: &str = "2026-10-26";
const LEFT_AT_TEN: &str =
    "/v1/venues/v1/explain?metric=visits&subject=left&start=2026-10-26T10:30:00%2B01:00";

/// Archives positions and publishes what another set of them comes to, as if it were made of those files.
async fn published(archived: &[Point<'_>], computed: &[Point<'_>]) -> (Api, Vec<ArchiveFile>) {
    let api = Api::start().await;
    api.archive("v1", DAY, archived, "monday", 1_000).await;
    let held = api
        .archive
        .day(&venue_key("v1"), Kind::Position, DAY.parse().unwrap())
        .await
        .unwrap();
    let files = held.events.clone();
    api.publish_with("v1", DAY, computed, |info| info.files = held.events)
        .await;
    (api, files)
}

#[tokio::test]
async fn a_bucket_is_explained_down_to_its_events() {
    let (api, files) = published(MONDAY, MONDAY).await;
    let answer = api.get_json(LEFT_AT_TEN).await;
    let bucket = &answer["bucket"];
    assert_eq!(
        (
            &bucket["value"],
            &bucket["unit"],
            &bucket["grain"],
            &bucket["start_local"]
        ),
        (
            &json!(1),
            &json!("visits"),
            &json!("hour"),
            &json!("2026-10-26T10:00:00.000+01:00")
        )
    );
    assert_eq!(bucket["ingredients"]["Zone"]["dwells_ms"], json!([10_000]));
    assert_eq!(answer["definition"]["version"], 1);
    let generation = &answer["generation"];
    assert_eq!(
        (
            &generation["generation"],
            &generation["before"],
            &generation["reason"]
        ),
        (&json!(1), &Value::Null, &json!("first computation"))
    );
    let inputs = &answer["inputs"];
    assert_eq!(
        (&inputs["subject"]["id"], &inputs["layout_known"]),
        (&json!("left"), &json!(true))
    );
    assert_eq!(inputs["files"][0]["path"], files[0].path);
    assert_eq!(
        answer["recomputed"],
        json!({"equal": true, "value": 1, "why_not": null})
    );
    // `a` is left at 10:00:00 and 10:00:10; what is right, or an hour later, is not behind this bucket.
    let seen: Vec<_> = answer["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            (
                event["ts"].as_str().unwrap(),
                event["key"].as_str().unwrap(),
                event["x"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("2026-10-26T09:00:00.000Z", "a", 2.0),
            ("2026-10-26T09:00:10.000Z", "a", 3.0)
        ]
    );
    assert_eq!(answer["sources"]["events"], 2);
    assert_eq!(answer["sources"]["sensors"], json!([{"name": "s1", "events": 2}]));
    let receipt = &answer["sources"]["receipts"][0];
    assert_eq!(
        (&receipt["events"], &receipt["name"]),
        (&json!(2), &answer["events"][0]["receipt"])
    );
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &sessions[0]["track"]), (1, &json!("a")));
    // The whole venue in the whole day: all events, both stays.
    let day = api
        .get_json("/v1/venues/v1/explain?metric=dwell_ms&start=2026-10-26")
        .await;
    assert_eq!(
        (&day["bucket"]["value"], &day["bucket"]["grain"]),
        (&json!(35_000), &json!("day"))
    );
    assert_eq!(
        (&day["sources"]["events"], &day["recomputed"]["equal"]),
        (&json!(6), &json!(true))
    );
    assert_eq!(day["sessions"].as_array().unwrap().len(), 2);
    // Footfall of a venue without entrances is that of its sessions.
    let footfall = api
        .get_json("/v1/venues/v1/explain?metric=footfall&start=2026-10-26")
        .await;
    assert_eq!(
        (&footfall["bucket"]["value"], &footfall["sources"]["events"]),
        (&json!(2), &json!(6))
    );
}

#[tokio::test]
async fn events_come_in_pages_of_the_generation_that_was_asked_for() {
    let (api, _) = published(MONDAY, MONDAY).await;
    let path = "/v1/venues/v1/explain?metric=visits&start=2026-10-26&limit=4";
    let first = api.get_json(path).await;
    api.publish("v1", DAY, &MONDAY[..2]).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = api.get_json(&format!("{path}&cursor={cursor}")).await;
    assert_eq!(second["generation"]["generation"], 1);
    let count = |page: &Value| page["events"].as_array().unwrap().len();
    assert_eq!(
        (count(&first), count(&second), &second["next_cursor"]),
        (4, 2, &Value::Null)
    );
    assert_eq!(second["events"][1]["ts"], "2026-10-26T10:30:05.000Z");
    let old = api
        .get_json("/v1/venues/v1/explain?metric=visits&start=2026-10-26&as_of=1")
        .await;
    assert_eq!(old["bucket"]["value"], 2);
}

#[tokio::test]
async fn a_number_that_its_events_do_not_give_is_told() {
    // Published as if `b` had never been.
    let (api, _) = published(MONDAY, &MONDAY[..4]).await;
    let eleven = "/v1/venues/v1/explain?metric=visits&subject=left&start=2026-10-26T11:30:00%2B01:00";
    let answer = api.get_json(eleven).await;
    assert_eq!(answer["bucket"]["value"], Value::Null);
    assert_eq!(
        answer["recomputed"],
        json!({"equal": false, "value": 1, "why_not": null})
    );
    let ten = api.get_json(LEFT_AT_TEN).await;
    assert_eq!(
        ten["recomputed"]["equal"], true,
        "the hour before is right all the same"
    );
}

#[tokio::test]
async fn a_generation_with_exclusions_is_folded_with_them_ended_or_not() {
    // `b` is archived like everything, and was taken out of the numbers.
    let (api, _) = published(MONDAY, MONDAY).await;
    let at = |text: &str| Some(parse_ts(text).unwrap());
    let scope = Scope {
        from: at("2026-10-26T11:30:00+01:00"),
        to: at("2026-10-26T11:30:10+01:00"),
        ..Scope::default()
    };
    let mut rule = exclusion("job-1", "v1", scope);
    let held = api
        .archive
        .day(&venue_key("v1"), Kind::Position, DAY.parse().unwrap())
        .await
        .unwrap();
    let applied = AppliedExclusions {
        fingerprint: fingerprint([&rule]),
        jobs: vec![rule.id.clone()],
        ..AppliedExclusions::default()
    };
    api.publish_with("v1", DAY, &MONDAY[..4], |info| {
        info.files = held.events.clone();
        info.exclusions = applied.clone();
    })
    .await;
    let day = "/v1/venues/v1/explain?metric=visits&start=2026-10-26";
    let answer = api.get_json(day).await;
    let why = answer["recomputed"]["why_not"].as_str().unwrap();
    assert!(
        why.contains("no longer known"),
        "nobody made such an exclusion: {why}"
    );
    rule.ended = Some(Ended {
        at: rule.made_at + 1,
        job: "job-2".to_owned(),
        by: "k1".to_owned(),
        reason: None,
    });
    api.put_exclusion("acme", &rule).await;
    let answer = api.get_json(day).await;
    assert_eq!(
        (&answer["bucket"]["value"], &answer["recomputed"]["equal"]),
        (&json!(1), &json!(true)),
        "{answer}"
    );
    assert_eq!(
        answer["sources"]["events"], 4,
        "what was taken out stands behind nothing"
    );
}

#[tokio::test]
async fn what_cannot_be_folded_once_more_says_why() {
    let (api, mut files) = published(MONDAY, MONDAY).await;
    files[0].path = "events/venue=v1/gone.parquet".into();
    api.publish_with("v1", DAY, MONDAY, |info| info.files = files)
        .await;
    let answer = api.get_json(LEFT_AT_TEN).await;
    assert_eq!(
        (&answer["bucket"]["value"], &answer["recomputed"]["equal"]),
        (&json!(1), &Value::Null)
    );
    let why = answer["recomputed"]["why_not"].as_str().unwrap();
    assert!(why.contains("no longer kept"), "{why}");
    api.publish_with("v1", DAY, MONDAY, |info| info.provisional = true)
        .await;
    let answer = api.get_json(LEFT_AT_TEN).await;
    assert!(
        answer["recomputed"]["why_not"].as_str().unwrap().contains("open"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_no_bucket_is_refused() {
    let (api, _) = published(MONDAY, MONDAY).await;
    let explain = "/v1/venues/v1/explain";
    for (query, code) in [
        ("start=2026-10-26", "bad-parameter"),
        ("metric=visits", "bad-parameter"),
        ("metric=visits,visitors&start=2026-10-26", "bad-parameter"),
        ("metric=vists&start=2026-10-26", "unknown-metric"),
        ("metric=visits&start=soon", "bad-parameter"),
        ("metric=visits&start=2026-10-26&grain=week", "bad-parameter"),
        ("metric=sales&subject=EUR&start=2026-10-26", "bad-parameter"),
        ("metric=visits&start=2026-10-20", "not-found"),
    ] {
        let answer = api.get(&format!("{explain}?{query}")).await;
        assert_eq!(answer.problem(), code, "{query}");
        assert_ne!(answer.status, StatusCode::OK);
    }
}
