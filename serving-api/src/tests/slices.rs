//! The slices `open` and `staff`, checked against what can be counted by hand.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_storage::api::Role;
use serde_json::{Value, json};

use super::harness::{Api, venue_spec};
use super::metrics::MONDAY;

const DAY: &str = "from=2026-10-26&to=2026-10-26";

/// The venue, open from ten to half past eleven: when `b` of [`MONDAY`] comes, it has just closed.
fn with_hours() -> Value {
    let mut spec = venue_spec("v1");
    spec["open"] = json!(10);
    spec["close"] = json!(11.5);
    spec
}

/// (local hour, value, state) of an answer's buckets.
fn by_hour(answer: &Value) -> Vec<(String, Value, String)> {
    let of = |bucket: &Value| {
        let start = bucket["start_local"].as_str().unwrap();
        let state = bucket["state"].as_str().unwrap().to_owned();
        (start[11..13].to_owned(), bucket["value"].clone(), state)
    };
    answer["buckets"].as_array().unwrap().iter().map(of).collect()
}

fn only(answer: &Value) -> &Value {
    let buckets = answer["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 1, "{answer}");
    &buckets[0]
}

async fn day_of(api: &Api, metric: &str, rest: &str) -> Value {
    let path = format!("/v1/venues/v1/metrics?metric={metric}&{DAY}&by=day{rest}");
    only(&api.get_json(&path).await).clone()
}

#[tokio::test]
async fn open_counts_within_opening_hours_and_is_closed_outside_of_them() {
    let api = Api::start().await;
    api.put_venue(with_hours()).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let path = format!("/v1/venues/v1/metrics?metric=visits&zone=left&{DAY}&by=hour&slice=open");
    let answer = api.get_json(&path).await;
    assert_eq!(
        (&answer["slice"], &answer["days"][0]["slice"]),
        (&json!("open"), &json!("computed"))
    );
    for (hour, value, state) in by_hour(&answer) {
        let expected = match hour.as_str() {
            "10" => (json!(1), "ok"),
            // Open for half an hour, and somebody came when it was over.
            "11" => (json!(0), "ok"),
            _ => (Value::Null, "closed"),
        };
        assert_eq!((value, state.as_str()), expected, "{hour}");
    }
    assert_eq!(answer["buckets"][11]["length_ms"], 1_800_000);
    let slices = |all: f64, open: f64| (json!(all), json!(open));
    for (metric, all, open) in [
        ("visits", 2.0, 1.0),
        ("visitors", 2.0, 1.0),
        ("dwell_ms", 15_000.0, 10_000.0),
        ("dwell_p90", 10_000.0, 10_000.0),
        ("engaged", 1.0, 1.0),
        ("occupancy_avg", 15.0 / 86_400.0, 10.0 / 5_400.0),
    ] {
        let all_day = day_of(&api, metric, "&zone=left").await;
        let opened = day_of(&api, metric, "&zone=left&slice=open").await;
        let numbers = (
            all_day["value"].as_f64().unwrap(),
            opened["value"].as_f64().unwrap(),
        );
        assert_eq!(
            (json!(numbers.0), json!(numbers.1)),
            slices(all, open),
            "{metric}"
        );
        assert_eq!(opened["slice"], "open");
        assert_eq!(opened["length_ms"], 5_400_000);
        assert_eq!(
            (all_day["slice"].clone(), &all_day["length_ms"]),
            (Value::Null, &json!(86_400_000))
        );
    }
    // A week: the days that have not come are none of it.
    let path = "/v1/venues/v1/metrics?metric=footfall&from=2026-10-26&to=2026-10-26&by=total&slice=open";
    assert_eq!(only(&api.get_json(path).await)["value"], 1);
}

#[tokio::test]
async fn staff_counts_tracks_that_are_tagged() {
    let api = Api::start().await;
    let mut spec = venue_spec("v1");
    spec["staff_tags"] = json!(["b", "c"]);
    api.put_venue(spec).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    for (metric, zone, staff) in [
        ("visits", "left", 1),
        ("dwell_ms", "left", 5_000),
        ("visitors", "_venue", 1),
        ("visits", "right", 0),
    ] {
        let bucket = day_of(&api, metric, &format!("&zone={zone}&slice=staff")).await;
        assert_eq!(
            (&bucket["value"], &bucket["state"]),
            (&json!(staff), &json!("ok")),
            "{metric} {zone}"
        );
    }
    assert_eq!(day_of(&api, "footfall", "&slice=staff").await["value"], 1);
    assert_eq!(
        day_of(&api, "footfall", "").await["value"],
        2,
        "all has staff in it"
    );
    // Its other faces.
    let of = |path: String| {
        let api = &api;
        async move { api.get_json(&path).await }
    };
    let heat = of(format!("/v1/venues/v1/heatmap?{DAY}&slice=staff")).await;
    let dwell: Vec<&Value> = heat["floors"][0]["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| &cell["dwell_ms"])
        .collect();
    assert_eq!((dwell, &heat["slice"]), (vec![&json!(5_000)], &json!("staff")));
    let moved = of(format!("/v1/venues/v1/transitions?{DAY}")).await;
    assert_eq!(moved["layers"][0]["transitions"][0]["count"], 1);
    let moved = of(format!("/v1/venues/v1/transitions?{DAY}&slice=staff")).await;
    assert_eq!(
        (&moved["layers"], &moved["days"][0]["slice"]),
        (&json!([]), &json!("computed"))
    );
    let feed = of("/v1/venues/v1/changes?slice=staff".to_owned()).await;
    let visits: Vec<&Value> = feed["changes"][0]["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|bucket| bucket["grain"] == "day" && bucket["subject"] == "left")
        .map(|bucket| &bucket["after"]["visits"])
        .collect();
    assert_eq!(visits, [&json!(1)]);
    let question = json!({"metrics": ["visits"], "zones": ["left"], "from": "2026-10-26", "to": "2026-10-26", "slice": "staff"});
    let answer = api
        .send_json(Method::POST, "/v1/query", Role::Viewer, &question)
        .await
        .json();
    assert_eq!(
        (&only(&answer)["value"], &answer["slice"]),
        (&json!(1), &json!("staff"))
    );
    // Where the layout has entrances, footfall is of crossings; none named a track, so nothing is known.
    let mut spec = venue_spec("v1");
    spec["staff_tags"] = json!(["b"]);
    spec["lines"] = json!([{"id": "door"}]);
    api.put_venue(spec).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let bucket = day_of(&api, "footfall", "&slice=staff").await;
    assert_eq!((&bucket["value"], &bucket["state"]), (&Value::Null, &json!("ok")));
}

#[tokio::test]
async fn what_is_not_declared_or_not_computed_is_said_and_is_no_zero() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    for (slice, state) in [("open", "no-opening-hours"), ("staff", "no-staff-tags")] {
        let path = format!("/v1/venues/v1/metrics?metric=visits&zone=right&{DAY}&by=hour&slice={slice}");
        let answer = api.get_json(&path).await;
        assert_eq!(answer["days"][0]["slice"], state);
        assert!(
            by_hour(&answer)
                .iter()
                .all(|bucket| (&bucket.1, bucket.2.as_str()) == (&Value::Null, state))
        );
    }
    // Computed before there were slices, by a layout that declares hours.
    api.put_venue(with_hours()).await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| info.slices = None)
        .await;
    let answer = api
        .get_json(&format!(
            "/v1/venues/v1/metrics?metric=visits&zone=right&{DAY}&by=hour&slice=open"
        ))
        .await;
    assert_eq!(answer["days"][0]["slice"], "pending");
    for (hour, value, state) in by_hour(&answer) {
        let expected = if hour == "10" || hour == "11" {
            "pending"
        } else {
            "closed"
        };
        assert_eq!((value, state.as_str()), (Value::Null, expected), "{hour}");
    }
    assert_eq!(
        day_of(&api, "visits", "&zone=left").await["value"],
        2,
        "all is as it was"
    );
}

#[tokio::test]
async fn a_generation_is_cut_by_the_hours_that_it_was_computed_with() {
    let api = Api::start().await;
    api.put_venue(with_hours()).await;
    let first = api.publish("v1", "2026-10-26", MONDAY).await;
    let mut later = with_hours();
    later["close"] = json!(12);
    api.put_venue(later).await;
    let bucket = day_of(&api, "visits", "&zone=left&slice=open").await;
    assert_eq!(
        (&bucket["value"], &bucket["length_ms"]),
        (&json!(1), &json!(5_400_000))
    );
    api.publish("v1", "2026-10-26", MONDAY).await;
    let bucket = day_of(&api, "visits", "&zone=left&slice=open").await;
    assert_eq!(
        (&bucket["value"], &bucket["length_ms"]),
        (&json!(2), &json!(7_200_000))
    );
    let bucket = day_of(&api, "visits", &format!("&zone=left&slice=open&as_of={first}")).await;
    assert_eq!(
        (&bucket["value"], &bucket["length_ms"]),
        (&json!(1), &json!(5_400_000))
    );
    // What the change restated: nothing of all, one visit more while open.
    let changed = |feed: Value| -> Vec<(Value, Value)> {
        let buckets = feed["changes"][1]["buckets"].as_array().unwrap().clone();
        let of_day = buckets
            .into_iter()
            .filter(|bucket| bucket["grain"] == "day" && bucket["subject"] == "left");
        of_day
            .map(|bucket| {
                (
                    bucket["before"]["visits"].clone(),
                    bucket["after"]["visits"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(changed(api.get_json("/v1/venues/v1/changes").await), []);
    assert_eq!(
        changed(api.get_json("/v1/venues/v1/changes?slice=open").await),
        [(json!(1), json!(2))]
    );
}

#[tokio::test]
async fn other_slices_are_refused_by_name_and_without_one_answers_are_as_before() {
    let api = Api::start().await;
    api.put_venue(with_hours()).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    for path in [
        format!("/v1/venues/v1/metrics?metric=visits&{DAY}&slice=customers"),
        format!("/v1/venues/v1/metrics?metric=visits,sales&{DAY}&slice=staff"),
        format!("/v1/venues/v1/heatmap?{DAY}&slice=customers"),
        format!("/v1/venues/v1/transitions?{DAY}&slice=customers"),
        "/v1/venues/v1/changes?slice=customers".to_owned(),
        "/v1/venues/v1/live?slice=customers".to_owned(),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::BAD_REQUEST, "bad-parameter"),
            "{path}"
        );
        assert_eq!(answer.json()["parameter"], "slice", "{}", answer.text());
    }
    let path = format!("/v1/venues/v1/metrics?metric=visits,footfall&{DAY}&by=hour");
    let (without, mut with) = (
        api.get_json(&path).await,
        api.get_json(&format!("{path}&slice=all")).await,
    );
    assert!(!without.to_string().contains("slice"), "{without}");
    assert_eq!(with["slice"], "all");
    with.as_object_mut().unwrap().remove("slice");
    for part in ["buckets", "days"] {
        for row in with[part].as_array_mut().unwrap() {
            assert!(row.as_object_mut().unwrap().remove("slice").is_some());
        }
    }
    assert_eq!(with, without);
    // As a table: one column more, and only where a slice is named.
    for (rest, ends) in [
        ("", "definition_version"),
        ("&slice=open", "definition_version,slice"),
    ] {
        let request = api
            .request(Method::GET, &format!("{path}{rest}"), Role::Viewer)
            .header(header::ACCEPT, "text/csv")
            .body(Body::empty())
            .unwrap();
        let csv = api.send(request).await.text();
        assert!(csv.lines().next().unwrap().ends_with(ends), "{csv}");
    }
}

#[tokio::test]
async fn the_open_day_has_its_slices_too() {
    let api = Api::start().await;
    let mut spec = with_hours();
    spec["staff_tags"] = json!(["d"]);
    api.put_venue(spec).await;
    let today = &[
        ("s1", "c", "2026-10-27T11:29:50+01:00", 1.0, 1.0),
        ("s1", "c", "2026-10-27T11:30:09+01:00", 1.0, 1.0),
        ("s1", "d", "2026-10-27T11:40:00+01:00", 1.0, 1.0),
    ];
    api.show_live("v1", "2026-10-27", today).await;
    let visits = |slice: &str| {
        let path =
            format!("/v1/venues/v1/metrics?metric=visits,dwell_ms&zone=left&from=2026-10-27&by=day{slice}");
        let api = &api;
        async move {
            let answer = api.get_json(&path).await;
            let of = |n: usize| answer["buckets"][n]["value"].clone();
            assert_eq!(answer["buckets"][0]["layer"], "live");
            (of(0), of(1))
        }
    };
    assert_eq!(visits("").await, (json!(2), json!(19_000)));
    assert_eq!(visits("&slice=open").await, (json!(1), json!(10_000)));
    assert_eq!(visits("&slice=staff").await, (json!(1), json!(0)));
    let eleven = |live: Value| {
        let hour = &live["today"]["hours"][11];
        let left = hour["zones"]
            .as_array()
            .unwrap()
            .iter()
            .find(|zone| zone["id"] == "left")
            .cloned();
        (
            left.map(|zone| zone["visits"].clone()),
            hour["length_ms"].clone(),
            live["today"]["slice"].clone(),
        )
    };
    assert_eq!(
        eleven(api.get_json("/v1/venues/v1/live").await),
        (Some(json!(2)), json!(3_600_000), Value::Null)
    );
    let of_open = json!({"slice": "open", "state": "computed"});
    assert_eq!(
        eleven(api.get_json("/v1/venues/v1/live?slice=open").await),
        (Some(json!(1)), json!(1_800_000), of_open)
    );
}
