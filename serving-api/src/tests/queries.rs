//! One question over many venues.

use axum::http::{Method, StatusCode};
use dwell_storage::api::Role;
use serde_json::{Value, json};

use super::harness::{Answer, Api, venue_spec};
use super::metrics::MONDAY;

/// Three venues: `v1` and `v2` in Madrid (tags city), `v3` in Lisbon (tags city, coast). On Monday `v1` has all of
/// [`MONDAY`], `v2` only its first person, `v3` one person at 10:00 local time.
async fn three_venues() -> Api {
    let api = Api::start().await;
    api.put_venue(venue_spec("v2")).await;
    let mut lisbon = venue_spec("v3");
    (lisbon["tz"], lisbon["tags"]) = (json!("Europe/Lisbon"), json!(["city", "coast"]));
    api.put_venue(lisbon).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    api.publish("v2", "2026-10-26", &MONDAY[..4]).await;
    let lisbon = [
        ("s9", "l", "2026-10-26T10:00:00+00:00", 1.0, 1.0),
        ("s9", "l", "2026-10-26T10:00:03+00:00", 1.0, 1.0),
    ];
    api.publish("v3", "2026-10-26", &lisbon).await;
    api
}

impl Api {
    async fn query(&self, mut body: Value) -> Answer {
        (body["from"], body["to"]) = (json!("2026-10-26"), json!("2026-10-26"));
        self.send_json(Method::POST, "/v1/query", Role::Viewer, &body)
            .await
    }
}

/// (group, value) of each row.
fn rows(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let json = answer.json();
    let group = |row: &Value| {
        let named = [&row["venue"], &row["tag"], &row["zone"]]
            .into_iter()
            .find_map(Value::as_str);
        named.unwrap_or("all").to_owned()
    };
    json["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (group(row), row["value"].clone()))
        .collect()
}

fn pairs(rows: &[(&str, i64)]) -> Vec<(String, Value)> {
    rows.iter()
        .map(|(group, value)| ((*group).to_owned(), json!(value)))
        .collect()
}

#[tokio::test]
async fn venues_are_given_one_by_one_by_tag_by_zone_or_altogether() {
    let api = three_venues().await;
    let ask = async |body: Value| rows(&api.query(body).await);
    let visits = || json!({"metrics": ["visits"]});
    assert_eq!(ask(visits()).await, pairs(&[("v1", 2), ("v2", 1), ("v3", 1)]));
    let grouped = |group: &str| json!({"metrics": ["visits"], "group_by": group});
    assert_eq!(ask(grouped("tag")).await, pairs(&[("city", 4), ("coast", 1)]));
    assert_eq!(ask(grouped("none")).await, pairs(&[("_venue", 4)]));
    assert_eq!(ask(grouped("zone")).await, pairs(&[("left", 4), ("right", 2)]));
    let food = json!({"metrics": ["visits"], "group_by": "none", "zone_tags": ["food"]});
    assert_eq!(ask(food).await, pairs(&[("left", 4)]));
    let coast = json!({"metrics": ["visits"], "venue_tags": ["coast"]});
    assert_eq!(ask(coast).await, pairs(&[("v3", 1)]));
    let some = json!({"metrics": ["visits"], "venues": ["v2", "v1"]});
    assert_eq!(ask(some).await, pairs(&[("v1", 2), ("v2", 1)]));
    // Two zones of a venue unite where the metric adds up over zones.
    let zones = json!({"metrics": ["visits"], "venues": "v1", "zones": ["left", "right"]});
    let answer = api.query(zones).await;
    assert_eq!(answer.json()["buckets"][0]["value"], 3);
    assert_eq!(answer.json()["buckets"][0]["subject"], "several");
}

#[tokio::test]
async fn ten_oclock_is_ten_oclock_everywhere() {
    let api = three_venues().await;
    let answer = api
        .query(json!({"metrics": ["visits"], "group_by": "none", "by": "hour"}))
        .await;
    let json = answer.json();
    let buckets = json["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 24);
    let at = |hour: &str| {
        let start = format!("2026-10-26T{hour}:00:00.000+01:00");
        buckets
            .iter()
            .find(|bucket| bucket["start_local"] == start.as_str())
            .unwrap()["value"]
            .clone()
    };
    assert_eq!((at("10"), at("11")), (json!(3), json!(1)));
    let hours = api
        .query(json!({"metrics": ["visits"], "group_by": "none", "hours": "11-13"}))
        .await;
    assert_eq!(rows(&hours), pairs(&[("_venue", 1)]));
}

#[tokio::test]
async fn groups_are_ranked_and_the_first_are_given() {
    let api = three_venues().await;
    let ranked = json!({"metrics": ["dwell_ms", "visits"], "order_by": "dwell_ms", "top": 2});
    // v1: 30 s and 5 s; v2: 30 s; v3: 3 s.
    let expected = pairs(&[("v1", 35_000), ("v1", 2), ("v2", 30_000), ("v2", 1)]);
    assert_eq!(rows(&api.query(ranked).await), expected);
    let smallest = json!({"metrics": ["dwell_ms"], "order_by": "dwell_ms", "descending": false, "top": 1});
    assert_eq!(rows(&api.query(smallest).await), pairs(&[("v3", 3_000)]));
}

#[tokio::test]
async fn lists_of_dwell_times_unite_exactly_over_venues() {
    let api = three_venues().await;
    // Stays in the left zone: 10 s and 5 s (v1), 10 s (v2), 3 s (v3). Nearest rank: the second of four.
    let median = json!({"metrics": ["dwell_p50"], "group_by": "none", "zones": ["left"]});
    assert_eq!(rows(&api.query(median).await), pairs(&[("left", 5_000)]));
}

#[tokio::test]
async fn what_a_metric_does_not_declare_is_refused() {
    let api = three_venues().await;
    for (body, code) in [
        (
            json!({"metrics": ["visitors"], "group_by": "none"}),
            "unmergeable",
        ),
        (
            json!({"metrics": ["visitors"], "venues": "v1", "zones": ["left", "right"]}),
            "unmergeable",
        ),
        (
            json!({"metrics": ["occupancy_max"], "group_by": "tag"}),
            "unmergeable",
        ),
        (json!({"metrics": []}), "bad-parameter"),
        (json!({"metrics": ["vists"]}), "unknown-metric"),
        (
            json!({"metrics": ["visits"], "venues": ["v1", "v9"]}),
            "not-found",
        ),
        (json!({"metrics": ["visits"], "venues": []}), "bad-parameter"),
        (
            json!({"metrics": ["visits"], "venues": {"id": "v1"}}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "venue_tags": ["moon"]}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "zones": ["nowhere"]}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["footfall"], "zones": ["left"]}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["footfall"], "group_by": "zone"}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "group_by": "colour"}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "order_by": "dwell_ms"}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "order_by": "visits", "by": "day"}),
            "bad-parameter",
        ),
        (json!({"metrics": ["visits"], "top": 3}), "bad-parameter"),
        (
            json!({"metrics": ["visits"], "order_by": "visits", "top": 0}),
            "bad-parameter",
        ),
        (
            json!({"metrics": ["visits"], "order_by": "visits", "top": -1}),
            "bad-body",
        ),
        (json!({"metrics": ["visits"], "hours": "now"}), "bad-parameter"),
        (json!({"metrics": ["visits"], "limit": 0}), "bad-parameter"),
        (json!({"metrics": ["visits"], "cursor": "00"}), "bad-cursor"),
        (json!({"metric": ["visits"]}), "bad-body"),
    ] {
        let answer = api.query(body.clone()).await;
        assert_eq!(answer.problem(), code, "{body}: {}", answer.text());
    }
    // Each venue by itself, and a single zone, are fine.
    let single = json!({"metrics": ["visitors"], "zones": ["left"]});
    assert_eq!(
        rows(&api.query(single).await),
        pairs(&[("v1", 2), ("v2", 1), ("v3", 1)])
    );
}

#[tokio::test]
async fn pages_of_a_question_keep_their_generations() {
    let api = three_venues().await;
    let body = json!({"metrics": ["visits", "dwell_ms"], "by": "hour"});
    let whole = rows(&api.query(body.clone()).await);
    assert_eq!(whole.len(), 24 * 2 * 3);
    let (mut paged, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut asked = body.clone();
        (asked["limit"], asked["cursor"]) = (json!(50), cursor);
        let answer = api.query(asked).await;
        paged.extend(rows(&answer));
        if paged.len() == 50 {
            api.publish("v1", "2026-10-26", &MONDAY[..2]).await;
        }
        cursor = answer.json()["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(paged, whole);
}
