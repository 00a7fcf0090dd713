//! Numbers as they were published once, checked against what can be counted by hand.

use axum::http::{Method, StatusCode};
use dwell_model::time::{HOUR_MS, parse_ts};
use dwell_storage::api::{AggregatesWriter, Flip, Role, SessionsWriter, VenueDaysWriter};
use serde_json::{Value, json};

use super::harness::{Api, NOW, venue_key, venue_spec};
use super::metrics::{MONDAY, SUNDAY};

const METRICS: &str = "/v1/venues/v1/metrics?metric=visits&zone=_venue";
/// Half an hour after the first publication of Monday, half an hour before the second.
const BETWEEN: &str = "2026-10-27T11:30:00Z";

/// Monday with one visitor at 12:00, with both an hour later; it is 14:00.
async fn restated() -> Api {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| info.published_at += HOUR_MS)
        .await;
    api.clock.set_ms(parse_ts(NOW).unwrap() + 2 * HOUR_MS);
    api
}

fn first(answer: &Value) -> (Value, Value) {
    let bucket = &answer["buckets"][0];
    (bucket["value"].clone(), bucket["generation"].clone())
}

#[tokio::test]
async fn a_generation_is_asked_for_by_its_number_for_one_day() {
    let api = restated().await;
    let day = format!("{METRICS}&from=2026-10-26&to=2026-10-26");
    for (as_of, visits, generation) in [("1", 1, 1), ("2", 2, 2)] {
        let answer = api.get_json(&format!("{day}&as_of={as_of}")).await;
        assert_eq!(first(&answer), (json!(visits), json!(generation)));
        let body = json!({"metrics": ["visits"], "from": "2026-10-26", "to": "2026-10-26", "as_of": as_of});
        let answer = api
            .send_json(Method::POST, "/v1/query", Role::Viewer, &body)
            .await
            .json();
        assert_eq!(first(&answer).0, json!(visits));
    }
    let unknown = api.get(&format!("{day}&as_of=3")).await;
    assert_eq!(
        (unknown.status, unknown.problem()),
        (StatusCode::NOT_FOUND, "not-found".into())
    );
    let two_days = api
        .get(&format!("{METRICS}&from=2026-10-25&to=2026-10-26&as_of=1"))
        .await;
    assert_eq!(two_days.problem(), "bad-parameter");
    api.put_venue(venue_spec("v2")).await;
    let body = json!({"metrics": ["visits"], "from": "2026-10-26", "to": "2026-10-26", "as_of": "1"});
    let two_venues = api
        .send_json(Method::POST, "/v1/query", Role::Viewer, &body)
        .await;
    assert_eq!(two_venues.problem(), "bad-parameter");
}

#[tokio::test]
async fn what_was_not_published_then_stays_so_on_every_page() {
    let api = restated().await;
    // Published only now, an hour and a half after the instant asked for.
    api.publish_with("v1", "2026-10-25", SUNDAY, |info| {
        info.published_at += 2 * HOUR_MS
    })
    .await;
    let path = format!("{METRICS}&by=hour&from=2026-10-25&to=2026-10-26&as_of={BETWEEN}");
    let whole = api.get_json(&path).await["buckets"].clone();
    assert_eq!(whole.as_array().unwrap().len(), 25 + 24);
    let mut paged = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        let answer = api.get_json(&format!("{path}&limit=20{cursor}")).await;
        paged.extend(answer["buckets"].as_array().unwrap().clone());
        if page == 0 {
            // Restated while the pages are read.
            api.publish("v1", "2026-10-26", &MONDAY[..2]).await;
            api.publish("v1", "2026-10-25", &SUNDAY[..2]).await;
        }
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(Value::Array(paged.clone()), whole);
    let visits: i64 = paged.iter().filter_map(|bucket| bucket["value"].as_i64()).sum();
    assert_eq!(visits, 1, "Monday's first generation, and nothing of Sunday");
    assert!(
        paged[..25]
            .iter()
            .all(|bucket| bucket["state"] == "pending" && bucket["value"].is_null())
    );
}

#[tokio::test]
async fn equal_publications_have_equal_etags() {
    let api = restated().await;
    let ask = async |as_of: &str| {
        let path = format!("{METRICS}&from=2026-10-26&to=2026-10-26&as_of={as_of}");
        api.get(&path).await.headers["etag"].clone()
    };
    assert_eq!(ask(BETWEEN).await, ask("1").await);
    assert_ne!(ask("1").await, ask("2").await);
}

#[tokio::test]
async fn numbers_that_retention_took_are_gone_and_not_zero() {
    let api = restated().await;
    let asked = [
        format!("{METRICS}&from=2026-10-26&to=2026-10-26"),
        "/v1/venues/v1/transitions?from=2026-10-26&to=2026-10-26".to_owned(),
        "/v1/venues/v1/heatmap?from=2026-10-26&to=2026-10-26".to_owned(),
        "/v1/venues/v1/sessions?day=2026-10-26".to_owned(),
    ];
    for path in &asked {
        // Read before it is taken: nothing may be remembered of it.
        api.get_json(&format!("{path}&as_of=1")).await;
    }
    let (key, day) = (venue_key("v1"), "2026-10-26".parse().unwrap());
    api.stores.aggregates.delete(&key, day, 1).await.unwrap();
    api.stores.sessions.delete(&key, day, 1).await.unwrap();
    for path in &asked {
        for as_of in ["1", BETWEEN] {
            let answer = api.get(&format!("{path}&as_of={as_of}")).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (StatusCode::GONE, "generation-gone".into()),
                "{path}"
            );
        }
        api.get_json(&format!("{path}&as_of=2")).await;
    }
}

#[tokio::test]
async fn sessions_and_floors_can_be_asked_for_as_they_were() {
    let api = restated().await;
    let range = "from=2026-10-26&to=2026-10-26";
    let sessions = async |as_of: &str| {
        let answer = api
            .get_json(&format!("/v1/venues/v1/sessions?{range}&as_of={as_of}"))
            .await;
        answer["sessions"].as_array().unwrap().clone()
    };
    assert_eq!(
        (
            sessions("1").await.len(),
            sessions(BETWEEN).await.len(),
            sessions("2").await.len()
        ),
        (1, 1, 2)
    );
    // The second visitor's session is of the second generation only.
    let second = sessions("2").await[1]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/venues/v1/sessions/{second}");
    assert_eq!(
        api.get(&format!("{path}?as_of=1")).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(api.get_json(&format!("{path}?as_of=2")).await["generation"], 2);
    // 10 s left, 20 s right; the second visitor stays 5 s.
    let dwell_ms = async |as_of: &str| {
        let answer = api
            .get_json(&format!("/v1/venues/v1/heatmap?{range}&as_of={as_of}"))
            .await;
        let cells = answer["floors"][0]["cells"].as_array().unwrap().clone();
        cells
            .iter()
            .map(|cell| cell["dwell_ms"].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!((dwell_ms("1").await, dwell_ms("2").await), (30_000, 35_000));
    let moves = api
        .get_json(&format!("/v1/venues/v1/transitions?{range}&as_of={BETWEEN}"))
        .await;
    assert_eq!(
        moves["layers"][0]["transitions"],
        json!([{"from": "left", "to": "right", "count": 1}])
    );
    assert_eq!(moves["days"][0]["generation"], 1);
}

#[tokio::test]
async fn a_time_whose_generation_was_forgotten_is_gone_and_one_before_the_first_is_pending() {
    let api = restated().await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| {
        info.published_at += 2 * HOUR_MS;
        info.changed = Some(Default::default());
    })
    .await;
    let (key, day) = (venue_key("v1"), "2026-10-26".parse().unwrap());
    let ask = async |as_of: &str| {
        let path = format!("{METRICS}&from=2026-10-26&to=2026-10-26&as_of={as_of}");
        api.get(&path).await
    };
    let before_all = "2026-10-27T10:00:00Z";
    assert_eq!(ask(before_all).await.json()["buckets"][0]["state"], "pending");
    let days = &api.stores.venue_days;
    let lease = days
        .acquire(&key, day, "retention", parse_ts(NOW).unwrap(), 1_000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(days.forget(&lease, &[1, 2]).await.unwrap(), Flip::Done);
    for as_of in [before_all, BETWEEN] {
        assert_eq!(ask(as_of).await.problem(), "generation-gone", "{as_of}");
    }
    assert_eq!(ask("1").await.problem(), "not-found");
    assert_eq!(first(&ask("2026-10-27T13:00:00Z").await.json()).1, json!(3));
}
