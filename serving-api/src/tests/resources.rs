//! Venues, sessions with their trajectories, transitions, heat maps, days, definitions.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_model::time::{HOUR_MS, parse_ts};
use dwell_storage::api::{Drift, LateArrivals, LateLedger, LateSource, MarkSource, Marks, Role};
use serde_json::{Value, json};

use super::harness::{Api, NOW, venue_spec};
use super::metrics::{MONDAY, SUNDAY};

#[tokio::test]
async fn venues_are_applied_shown_and_dated() {
    let api = Api::start().await;
    let apply = async |body: Value, dry_run: bool| {
        let answer = api
            .send_json(
                Method::PUT,
                &format!("/v1/venues?dry_run={dry_run}"),
                Role::Admin,
                &body,
            )
            .await;
        (answer.status, answer.json())
    };
    let mut later = venue_spec("v1");
    later["valid_from"] = json!("2026-11-01");
    later["zones"].as_array_mut().unwrap().truncate(1);
    let file = json!([later, venue_spec("v2")]);
    let (status, dry) = apply(file.clone(), true).await;
    assert_eq!((status, &dry["dry_run"]), (StatusCode::OK, &json!(true)));
    assert_eq!(
        (&dry["venues"][0]["change"], &dry["venues"][1]["change"]),
        (&json!("changed"), &json!("created"))
    );
    assert_eq!(
        api.get("/v1/venues/v2").await.problem(),
        "not-found",
        "a dry run stores nothing"
    );
    let (_, done) = apply(file.clone(), false).await;
    assert_eq!(done["venues"][0]["recomputes_from"], "2026-11-01");
    let (_, again) = apply(file, false).await;
    assert_eq!(
        (&again["venues"][0]["change"], &again["venues"][1]["change"]),
        (&json!("unchanged"), &json!("unchanged"))
    );

    let list = api.get_json("/v1/venues").await;
    assert_eq!(list["venues"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&list["venues"][0]["tz"], &list["venues"][0]["zones"]),
        (&json!("Europe/Madrid"), &json!(["left", "right"]))
    );
    let detail = api.get_json("/v1/venues/v1").await;
    assert_eq!(
        detail["layout"]["zones"][0]["polygon"],
        json!([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
    );
    assert_eq!(
        (&detail["today"], &detail["tags"]),
        (&json!("2026-10-27"), &json!(["city"]))
    );
    assert_eq!(detail["layouts_valid_from"], json!([null, "2026-11-01"]));
    api.clock.set_ms(parse_ts("2026-11-02T12:00:00Z").unwrap());
    assert_eq!(
        api.get_json("/v1/venues/v1").await["layout"]["zones"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // Two layouts of one venue in one file.
    let mut first = venue_spec("v3");
    let second = json!({"id": "v3", "tz": "Europe/Madrid", "valid_from": "2026-05-01"});
    first["name"] = Value::Null;
    let (status, both) = apply(json!([first, second]), false).await;
    assert_eq!(
        (status, &both["venues"][1]["change"]),
        (StatusCode::OK, &json!("changed"))
    );
    assert_eq!(
        api.get_json("/v1/venues/v3").await["layouts_valid_from"],
        json!([null, "2026-05-01"])
    );
}

#[tokio::test]
async fn nothing_of_a_file_with_a_mistake_is_stored() {
    let api = Api::start().await;
    let crooked = json!({"id": "v3", "tz": "Mars/Olympus"});
    let answer = api
        .send_json(
            Method::PUT,
            "/v1/venues",
            Role::Admin,
            &json!([venue_spec("v2"), crooked]),
        )
        .await;
    assert_eq!(answer.problem(), "bad-body");
    assert!(
        answer.text().contains("v3") && answer.text().contains("Mars/Olympus"),
        "{}",
        answer.text()
    );
    assert_eq!(api.get("/v1/venues/v2").await.problem(), "not-found");
}

#[tokio::test]
async fn sessions_have_visits_and_the_way_that_was_taken() {
    let api = Api::start().await;
    api.write_raw("v1", MONDAY, "first", 1_000).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let page = api.get_json("/v1/venues/v1/sessions?day=2026-10-26").await;
    let sessions = page["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let a = &sessions[0];
    assert_eq!(
        (&a["track"], &a["points"], &a["dwell_ms"]),
        (&json!("a"), &json!(4), &json!(30_000))
    );
    assert_eq!(a["path_m"], 10.0, "1 m, then 9 m");
    assert_eq!(
        a["visits"][0],
        json!({
            "zone": "left", "enter": "2026-10-26T09:00:00.000Z", "exit": "2026-10-26T09:00:10.000Z", "dwell_ms": 10_000
        })
    );
    assert_eq!(a["visits"][1]["zone"], "right");
    let right = api
        .get_json("/v1/venues/v1/sessions?day=2026-10-26&zone=right")
        .await;
    assert_eq!(right["sessions"].as_array().unwrap().len(), 1);
    let late = "/v1/venues/v1/sessions?from=2026-10-26T11:00:00%2B01:00&to=2026-10-26T12:00:00%2B01:00";
    assert_eq!(api.get_json(late).await["sessions"][0]["track"], "b");
    let waiting = api
        .get_json("/v1/venues/v1/sessions?from=2026-10-26&to=2026-10-27")
        .await;
    assert_eq!(
        (&waiting["days"][0]["state"], &waiting["days"][1]["state"]),
        (&json!("published"), &json!("pending"))
    );

    let id = a["id"].as_str().unwrap();
    let path = format!("/v1/venues/v1/sessions/{id}");
    let detail = api.get_json(&path).await;
    assert_eq!(
        (
            &detail["id"],
            &detail["generation"],
            &detail["trajectory_thinned"]
        ),
        (&json!(id), &json!(1), &json!(false))
    );
    let way = |detail: &Value| -> Vec<(i64, f64)> {
        let points = detail["trajectory"].as_array().unwrap();
        points
            .iter()
            .map(|point| (point["ts"].as_i64().unwrap(), point["x"].as_f64().unwrap()))
            .collect()
    };
    let at = |seconds: i64| parse_ts("2026-10-26T09:00:00Z").unwrap() + seconds * 1_000;
    assert_eq!(
        way(&detail),
        [(at(0), 2.0), (at(10), 3.0), (at(20), 12.0), (at(30), 12.0)]
    );

    // A correction came later: it wins, whether it is in the archive or in raw.
    let corrected = [("s1", "a", "2026-10-26T10:00:10+01:00", 4.5, 2.0)];
    api.write_raw("v1", &corrected, "second", 2_000).await;
    assert_eq!(way(&api.get_json(&path).await)[1], (at(10), 4.5));
    let rest = [
        ("s1", "a", "2026-10-26T10:00:20+01:00", 13.0, 2.0),
        ("s1", "z", "2026-10-26T10:00:20+01:00", 1.0, 1.0),
    ];
    api.archive("v1", "2026-10-26", &rest, "third", 3_000).await;
    assert_eq!(way(&api.get_json(&path).await)[2], (at(20), 13.0));
    let foreign = api
        .get("/v1/venues/v1/sessions/2026-10-26-0000000000000000")
        .await;
    assert_eq!(foreign.problem(), "not-found");
}

#[tokio::test]
async fn a_long_trajectory_is_thinned_evenly_and_says_so() {
    let config = crate::Config {
        trajectory_points_max: 3,
        ..crate::Config::default()
    };
    let api = Api::start_with(config).await;
    api.write_raw("v1", MONDAY, "first", 1_000).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let id = api.get_json("/v1/venues/v1/sessions?day=2026-10-26").await["sessions"][0]["id"].clone();
    let detail = api
        .get_json(&format!("/v1/venues/v1/sessions/{}", id.as_str().unwrap()))
        .await;
    assert_eq!(detail["trajectory_thinned"], true);
    let xs: Vec<_> = detail["trajectory"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["x"].as_f64().unwrap())
        .collect();
    assert_eq!(xs, [2.0, 12.0, 12.0], "the first, the third, the last");
}

#[tokio::test]
async fn transitions_and_heat_maps_unite_days() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let answer = api
        .get_json("/v1/venues/v1/transitions?from=2026-10-25&to=2026-10-26")
        .await;
    let layers = answer["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(
        layers[0]["transitions"],
        json!([{"from": "left", "to": "right", "count": 1}])
    );
    assert_eq!(answer["days"][1]["generation"], 1);
    let heat = api
        .get_json("/v1/venues/v1/heatmap?from=2026-10-25&to=2026-10-26")
        .await;
    let floor = &heat["floors"][0];
    assert_eq!((&floor["floor"], &floor["cell_m"]), (&json!(""), &json!(0.5)));
    let cell = |column: i32, row: i32| {
        let cells = floor["cells"].as_array().unwrap().clone();
        cells
            .iter()
            .find(|c| c["column"] == column && c["row"] == row)
            .map(|c| c["dwell_ms"].as_u64().unwrap())
    };
    // Sunday at (1, 1): 20 s and 8 s. Monday: 10 s each at (2, 2), (3, 2), (12, 2); 5 s at (5, 5).
    assert_eq!(
        (cell(2, 2), cell(4, 4), cell(6, 4), cell(24, 4), cell(10, 10)),
        (
            Some(28_000),
            Some(10_000),
            Some(10_000),
            Some(10_000),
            Some(5_000)
        )
    );
    let one_hour = "/v1/venues/v1/heatmap?from=2026-10-26T11:00:00%2B01:00&to=2026-10-26T12:00:00%2B01:00";
    assert_eq!(
        api.get_json(one_hour).await["floors"][0]["cells"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn days_tell_what_is_known_and_why_they_wait() {
    let api = Api::start().await;
    api.write_raw("v1", MONDAY, "monday", 50).await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| {
        info.late = LateLedger {
            events: 3,
            max_late_ms: 9_000,
            receipts: 2,
            added: Some(LateArrivals {
                events: 3,
                delay_p50_ms: Some(4_000),
                delay_max_ms: Some(9_000),
                sensors: vec![LateSource {
                    name: "s1".to_owned(),
                    events: 3,
                }],
                sensors_all: 1,
                ..LateArrivals::default()
            }),
        };
        info.drift = Some(Drift {
            buckets: 10,
            differing: 1,
            examples: vec!["zone/left".to_owned()],
        });
    })
    .await;
    api.write_raw("v1", SUNDAY, "sunday", 60).await;
    let days = |answer: &Value| answer["days"].as_array().unwrap().clone();
    let all = days(&api.get_json("/v1/venues/v1/days").await);
    let names: Vec<_> = all
        .iter()
        .map(|day| (day["day"].as_str().unwrap(), day["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [("2026-10-25", "pending"), ("2026-10-26", "published")],
        "all that anything is known of"
    );
    assert_eq!(
        (&all[0]["dirty"], &all[0]["length_ms"]),
        (&json!(true), &json!(25 * HOUR_MS))
    );
    let monday = &all[1];
    assert_eq!(
        (&monday["dirty"], &monday["generation"], &monday["events"]),
        (&json!(false), &json!(1), &json!(6))
    );
    assert_eq!(
        (&monday["late"]["events"], &monday["drift"]["differing"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(
        (&monday["sessions"], &monday["reason"]),
        (&json!(2), &json!("first computation"))
    );
    assert_eq!(monday["events_by_kind"], json!({"position": 6}));

    api.write_raw("v1", &MONDAY[..1], "again", 70).await;
    let dense = days(
        &api.get_json("/v1/venues/v1/days?from=2026-10-24&to=2026-10-28")
            .await,
    );
    let states: Vec<_> = dense.iter().map(|day| day["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["empty", "pending", "published", "empty", "future"]);
    assert_eq!(
        dense[2]["dirty_because"],
        json!(["events came after it was computed"])
    );
    let mut moved = venue_spec("v1");
    moved["zones"].as_array_mut().unwrap().truncate(1);
    api.put_venue(moved).await;
    let reasons = &days(
        &api.get_json("/v1/venues/v1/days?from=2026-10-26&to=2026-10-26")
            .await,
    )[0]["dirty_because"];
    assert_eq!(
        *reasons,
        json!(["events came after it was computed", "the layout has changed"])
    );
    let page = api
        .get_json("/v1/venues/v1/days?from=2026-10-24&to=2026-10-28&limit=3")
        .await;
    let next = page["next_cursor"].as_str().unwrap();
    let rest = api
        .get_json(&format!(
            "/v1/venues/v1/days?from=2026-10-24&to=2026-10-28&limit=3&cursor={next}"
        ))
        .await;
    assert_eq!(
        (days(&page).len(), days(&rest).len(), &rest["next_cursor"]),
        (3, 2, &Value::Null)
    );
}

#[tokio::test]
async fn a_provisional_day_is_dirty_once_it_has_closed() {
    let api = Api::start().await;
    let mut marks = Marks::default();
    marks.raise(&MarkSource::log(1, 0), 50);
    let morning = [("s1", "c", "2026-10-27T09:00:00+01:00", 1.0, 1.0)];
    api.write_raw("v1", &morning, "today", 50).await;
    api.publish_with("v1", "2026-10-27", &morning, |info| {
        (info.provisional, info.marks) = (true, marks)
    })
    .await;
    let today = async || {
        api.get_json("/v1/venues/v1/days?from=2026-10-27&to=2026-10-27")
            .await["days"][0]
            .clone()
    };
    let before = today().await;
    assert_eq!(
        (&before["state"], &before["dirty"]),
        (&json!("provisional"), &json!(false))
    );
    api.clock.set_ms(parse_ts(NOW).unwrap() + 24 * HOUR_MS);
    assert_eq!(
        today().await["dirty_because"],
        json!(["it was computed while the day was open"])
    );
}

#[tokio::test]
async fn definitions_are_listed_and_kept() {
    let api = Api::start().await;
    let answer = api.get("/v1/definitions").await;
    let json = answer.json();
    let visits = json["definitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["id"] == "visits")
        .unwrap()
        .clone();
    assert_eq!(
        (&visits["family"], &visits["over_time"], &visits["version"]),
        (&json!("zone"), &json!("sum"), &json!(1))
    );
    let etag = answer.headers[header::ETAG].clone();
    let again = api
        .request(Method::GET, "/v1/definitions", Role::Viewer)
        .header(header::IF_NONE_MATCH, etag);
    assert_eq!(
        api.send(again.body(Body::empty()).unwrap()).await.status,
        StatusCode::NOT_MODIFIED
    );
}
