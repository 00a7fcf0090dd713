//! The feed of publications: followed page by page and applied to a copy, it gives the published numbers.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use dwell_model::time::{HOUR_MS, parse_ts};
use dwell_storage::api::AggregatesWriter;
use serde_json::{Value, json};

use super::harness::{Api, NOW, venue_key};
use super::metrics::{MONDAY, SUNDAY};
use crate::Config;

const CHANGES: &str = "/v1/venues/v1/changes";

/// A customer's copy: a bucket's numbers by (grain, start, family, subject), each of a day.
#[derive(Default)]
struct Copy {
    buckets: BTreeMap<(String, String, String, String), (String, Value)>,
    last: u64,
}

impl Copy {
    /// Does what the entries of a page say, by the letter of the documentation.
    fn apply(&mut self, page: &Value) {
        for entry in page["changes"].as_array().unwrap() {
            let number = entry["number"].as_u64().unwrap();
            let continued = entry["continued"] == true;
            assert!(
                number > self.last || (continued && number == self.last),
                "{entry}"
            );
            self.last = number;
            let day = entry["day"].as_str().unwrap();
            if entry["replaces"] == "day" && !continued {
                self.buckets.retain(|_, (of, _)| of != day);
            }
            for bucket in entry["buckets"].as_array().unwrap() {
                let text = |name: &str| bucket[name].as_str().unwrap().to_owned();
                let key = (text("grain"), text("start"), text("family"), text("subject"));
                if bucket["after"].is_null() {
                    self.buckets.remove(&key);
                } else {
                    self.buckets
                        .insert(key, (day.to_owned(), bucket["after"].clone()));
                }
            }
        }
    }

    /// Reads everything that is new, page by page, from where it was left; returns how many pages that took.
    async fn follow(&mut self, api: &Api, since: u64, limit: usize) -> (u64, usize) {
        let mut cursor = String::new();
        for pages in 1.. {
            let page = api
                .get_json(&format!("{CHANGES}?since={since}&limit={limit}{cursor}"))
                .await;
            self.apply(&page);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (page["next"].as_u64().unwrap(), pages),
            }
        }
        unreachable!()
    }

    fn value(&self, grain: &str, start: &str, subject: &str, metric: &str) -> Value {
        let key = [grain, start, "zone", subject].map(str::to_owned);
        let [grain, start, family, subject] = key;
        let known = self.buckets.get(&(grain, start, family, subject));
        known.map_or(Value::Null, |(_, numbers)| numbers[metric].clone())
    }
}

/// Every number of zones that is published, as the copy has it.
async fn assert_copied(api: &Api, copy: &Copy) {
    let mut compared = 0;
    for by in ["hour", "day"] {
        let path = format!(
            "/v1/venues/v1/metrics?metric=visits,dwell_ms,dwell_p50,occupancy_max,visitors&by={by}&from=2026-10-25&to=2026-10-26&limit=5000"
        );
        let answer = api.get_json(&path).await;
        for bucket in answer["buckets"].as_array().unwrap() {
            let text = |name: &str| bucket[name].as_str().unwrap();
            let copied = copy.value(by, text("start"), text("subject"), text("metric"));
            // Where nobody was, there is no bucket; the answer has a zero, or nothing.
            let expected = match &bucket["value"] {
                zero if *zero == json!(0) && copied.is_null() => Value::Null,
                value => value.clone(),
            };
            assert_eq!(copied, expected, "{bucket}");
            compared += usize::from(!copied.is_null());
        }
    }
    assert!(compared > 10, "{compared}");
}

#[tokio::test]
async fn a_copy_that_follows_has_the_published_numbers() {
    // Pages of few buckets, so that entries are cut.
    let config = Config {
        page_rows_default: 5,
        ..Config::default()
    };
    let api = Api::start_with(config).await;
    let mut copy = Copy::default();
    api.publish("v1", "2026-10-26", MONDAY).await;
    let (next, pages) = copy.follow(&api, 0, 10).await;
    assert!(pages > 2, "{pages}");
    assert_eq!(next, 1);
    // The second visitor is gone, another day comes, then the visitor is back: only the last counts.
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    let (next, _) = copy.follow(&api, next, 1).await;
    assert_eq!(next, 3);
    assert_eq!(
        copy.value("hour", "2026-10-26T10:00:00.000Z", "left", "visits"),
        Value::Null
    );
    api.publish("v1", "2026-10-26", &MONDAY[2..]).await;
    let (next, _) = copy.follow(&api, next, 10).await;
    assert_eq!(next, 4);
    assert_eq!(
        copy.value("hour", "2026-10-26T10:00:00.000Z", "left", "visits"),
        json!(1)
    );
    assert_copied(&api, &copy).await;
    let mut fresh = Copy::default();
    fresh.follow(&api, 0, 2).await;
    assert_eq!(fresh.buckets, copy.buckets, "whoever begins later has the same");
    let after_all = api.get_json(&format!("{CHANGES}?since={next}")).await;
    assert_eq!(after_all["changes"], json!([]));
    assert_eq!((&after_all["next"], &after_all["last"]), (&json!(4), &json!(4)));
}

#[tokio::test]
async fn what_an_entry_restated_is_told_before_and_after() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| {
        info.reason = "late events".into();
        info.published_at += HOUR_MS;
    })
    .await;
    let page = api.get_json(&format!("{CHANGES}?since=1")).await;
    let entry = &page["changes"][0];
    assert_eq!(
        (
            &entry["number"],
            &entry["generation"],
            &entry["before"],
            &entry["reason"],
            &entry["replaces"]
        ),
        (
            &json!(2),
            &json!(2),
            &json!(1),
            &json!("late events"),
            &json!("buckets")
        )
    );
    let buckets = entry["buckets"].as_array().unwrap();
    let find = |grain: &str, subject: &str| {
        let is_it = |bucket: &&Value| bucket["grain"] == grain && bucket["subject"] == subject;
        buckets.iter().find(is_it).cloned().unwrap_or_default()
    };
    // The hour of 11:00 has its first visitor, of 5 s; the day goes from one visit of the zone to two.
    let hour = find("hour", "left");
    assert_eq!(
        (
            &hour["start_local"],
            &hour["before"],
            &hour["after"]["visits"],
            &hour["after"]["dwell_ms"]
        ),
        (
            &json!("2026-10-26T11:00:00.000+01:00"),
            &Value::Null,
            &json!(1),
            &json!(5_000)
        )
    );
    let day = find("day", "left");
    assert_eq!(
        (&day["before"]["visits"], &day["after"]["visits"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (&day["before"]["dwell_ms"], &day["after"]["dwell_ms"]),
        (&json!(10_000), &json!(15_000))
    );
    assert_eq!(find("day", "right"), Value::Null, "nothing of it has changed");
    let bare = api.get_json(&format!("{CHANGES}?without_buckets=true")).await;
    assert_eq!(bare["changes"].as_array().unwrap().len(), 2);
    assert_eq!(bare["changes"][1]["buckets"], json!([]));
    // By time: from when an entry was listed on.
    api.clock.set_ms(parse_ts(NOW).unwrap() + 2 * HOUR_MS);
    for (since, numbers) in [
        ("2026-10-27T10:59:59Z", vec![1, 2]),
        ("2026-10-27T11:00:00Z", vec![1, 2]),
        ("2026-10-27T11:00:01Z", vec![2]),
        ("2026-10-27T12:00:01Z", vec![]),
    ] {
        let page = api.get_json(&format!("{CHANGES}?since={since}")).await;
        let got: Vec<i64> = page["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["number"].as_i64().unwrap())
            .collect();
        assert_eq!(got, numbers, "{since}");
    }
    for refused in ["tomorrow", "-1", "2099-01-01T00:00:00Z"] {
        let answer = api.get(&format!("{CHANGES}?since={refused}")).await;
        assert_eq!(answer.problem(), "bad-parameter", "{refused}");
    }
}

#[tokio::test]
async fn where_retention_took_the_generation_before_the_whole_day_is_told() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    let (key, day) = (venue_key("v1"), "2026-10-26".parse().unwrap());
    api.stores.aggregates.delete(&key, day, 1).await.unwrap();
    let page = api.get_json(CHANGES).await;
    let told: Vec<_> = page["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["replaces"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["nothing", "day", "day"]);
    let mut copy = Copy::default();
    copy.follow(&api, 0, 10).await;
    assert_copied(&api, &copy).await;
    // Also for one who had the first generation.
    let mut copy = Copy::default();
    let key = ["hour", "2026-10-26T10:00:00.000Z", "zone", "left"].map(str::to_owned);
    let [grain, start, family, subject] = key;
    copy.buckets.insert(
        (grain, start, family, subject),
        ("2026-10-26".to_owned(), json!({"visits": 1})),
    );
    copy.last = 1;
    copy.follow(&api, 1, 10).await;
    assert_copied(&api, &copy).await;
}

#[tokio::test]
async fn the_feed_of_a_venue_without_publications_is_empty() {
    let api = Api::start().await;
    let page = api.get_json(CHANGES).await;
    assert_eq!((&page["changes"], &page["last"]), (&json!([]), &json!(0)));
    let unknown = api.get("/v1/venues/v9/changes").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}
