//! Exclusions as operators list them.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use dwell_model::exclusion::{DaySet, Ended, Exclusion, Scope};
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_storage::api::{Flip, Role, documents};
use serde_json::{Value, json};

use super::harness::{Api, OTHER_TENANT, TENANT};

/// Somebody who walks ten metres.
const WALK: &[(&str, &str, &str, f32, f32)] = &[
    ("s1", "a", "2026-10-26T10:00:00+01:00", 2.0, 2.0),
    ("s1", "a", "2026-10-26T10:00:10+01:00", 3.0, 2.0),
];

pub(super) fn exclusion(id: &str, venue: &str, scope: Scope) -> Exclusion {
    Exclusion {
        id: id.to_owned(),
        venue: VenueId::new(venue).unwrap(),
        scope,
        reason: "rubbish".to_owned(),
        made_by: "k1".to_owned(),
        made_at: 1_792_000_000_000,
        ended: None,
        days: DaySet::default(),
        is_searched: true,
    }
}

impl Api {
    pub(super) async fn put_exclusion(&self, tenant: &str, exclusion: &Exclusion) {
        let tenant = TenantId::new(tenant).unwrap();
        let stored = documents::store(&*self.stores.documents, &tenant, &exclusion.id, exclusion, None).await;
        assert_eq!(stored.unwrap(), Flip::Done);
    }

    async fn exclusions(&self, query: &str) -> Value {
        let path = format!("/v1/exclusions{query}");
        let request = self.request(Method::GET, &path, Role::Operator);
        let answer = self.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        answer.json()
    }
}

fn ids(page: &Value) -> Vec<&str> {
    let listed = page["exclusions"].as_array().unwrap();
    listed.iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn exclusions_say_what_they_cover_why_by_whom_and_how_long() {
    let api = Api::start().await;
    let sensor = Scope {
        sensor: Some("cam".to_owned()),
        from: Some(1_791_000_000_000),
        ..Scope::default()
    };
    let mut first = exclusion("j1", "v1", sensor);
    for day in ["2026-10-01", "2026-10-02", "2026-10-05"] {
        first.days.insert(day.parse().unwrap());
    }
    let receipt = Scope {
        receipt: Some(Receipt::from_u128(7)),
        ..Scope::default()
    };
    let mut second = exclusion("j2", "v1", receipt);
    second.ended = Some(Ended {
        at: 1_792_000_060_000,
        job: "j3".to_owned(),
        by: "k2".to_owned(),
        reason: Some("it was right".to_owned()),
    });
    api.put_exclusion(TENANT, &first).await;
    api.put_exclusion(TENANT, &second).await;
    api.put_exclusion(TENANT, &exclusion("j4", "v2", Scope::default()))
        .await;
    api.put_exclusion(OTHER_TENANT, &exclusion("theirs", "v1", Scope::default()))
        .await;

    let all = api.exclusions("").await;
    assert_eq!(
        (ids(&all), &all["next_cursor"]),
        (vec!["j4", "j2", "j1"], &Value::Null)
    );
    let expected = json!({
        "id": "j1", "venue": "v1", "state": "in_force", "sensor": "cam", "receipt": null,
        "from_time": "2026-10-03T04:00:00.000Z", "to_time": null, "received_before": "2026-10-14T17:46:40.000Z",
        "reason": "rubbish", "made_by": "k1", "made_at": "2026-10-14T17:46:40.000Z",
        "ended_at": null, "ended_job": null, "ended_by": null, "ended_reason": null,
        "days": [{"first": "2026-10-01", "last": "2026-10-02"}, {"first": "2026-10-05", "last": "2026-10-05"}],
        "day_count": 3, "searched": true,
    });
    assert_eq!(all["exclusions"][2], expected);
    let ended = &all["exclusions"][1];
    assert_eq!(
        (&ended["state"], &ended["received_before"]),
        (&json!("ended"), &Value::Null)
    );
    assert_eq!(
        (
            &ended["ended_at"],
            &ended["ended_job"],
            &ended["ended_by"],
            &ended["ended_reason"]
        ),
        (
            &json!("2026-10-14T17:47:40.000Z"),
            &json!("j3"),
            &json!("k2"),
            &json!("it was right")
        )
    );
    assert_eq!(ids(&api.exclusions("?venue=v1").await), ["j2", "j1"]);
    assert_eq!(ids(&api.exclusions("?venue=v1&state=in_force").await), ["j1"]);
    assert_eq!(ids(&api.exclusions("?state=ended").await), ["j2"]);
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let api = Api::start().await;
    for n in 0..7 {
        let venue = if n % 2 == 0 { "v1" } else { "v2" };
        api.put_exclusion(TENANT, &exclusion(&format!("j{n}"), venue, Scope::default()))
            .await;
    }
    let mut seen = Vec::new();
    let mut query = "?venue=v1&limit=2".to_owned();
    loop {
        let page = api.exclusions(&query).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?venue=v1&limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["j6", "j4", "j2", "j0"]);
}

#[tokio::test]
async fn a_day_is_dirty_while_other_exclusions_are_in_force_than_it_was_computed_with() {
    let api = Api::start().await;
    api.write_raw("v1", WALK, "first", 1_000).await;
    api.publish("v1", "2026-10-26", WALK).await;
    let day = async || {
        api.get_json("/v1/venues/v1/days?from=2026-10-26&to=2026-10-26")
            .await["days"][0]
            .clone()
    };
    assert_eq!(day().await["dirty"], false);
    let sensor = Scope {
        sensor: Some("s1".to_owned()),
        ..Scope::default()
    };
    let mut made = exclusion("j1", "v1", sensor);
    made.days.insert("2026-10-26".parse().unwrap());
    api.put_exclusion(TENANT, &made).await;
    let dirty = day().await;
    assert_eq!(
        (&dirty["dirty_because"], &dirty["exclusions"]),
        (&json!(["other exclusions are in force"]), &json!([]))
    );
    api.publish_with("v1", "2026-10-26", &[], |info| {
        info.exclusions.fingerprint = dwell_model::exclusion::fingerprint([&made]);
        info.exclusions.jobs = vec!["j1".to_owned()];
        info.exclusions.excluded = [(dwell_model::event::Kind::Position, 2)].into();
    })
    .await;
    let clean = day().await;
    assert_eq!(
        (&clean["dirty"], &clean["exclusions"], &clean["excluded_events"]),
        (&json!(false), &json!(["j1"]), &json!(2))
    );
}

#[tokio::test]
async fn a_trajectory_is_made_of_what_the_exclusions_of_its_generation_left() {
    let api = Api::start().await;
    api.write_raw("v1", WALK, "first", 1_000).await;
    let wrong = [("s1", "a", "2026-10-26T10:00:10+01:00", 9.0, 2.0)];
    api.write_raw("v1", &wrong, "second", 2_000).await;
    let receipt = Scope {
        receipt: Some(Receipt::derive(b"test", b"second")),
        ..Scope::default()
    };
    api.put_exclusion(TENANT, &exclusion("j1", "v1", receipt)).await;
    let xs = async || -> Vec<f64> {
        let listed = api.get_json("/v1/venues/v1/sessions?day=2026-10-26").await;
        let id = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
        let detail = api.get_json(&format!("/v1/venues/v1/sessions/{id}")).await;
        let points = detail["trajectory"].as_array().unwrap();
        points.iter().map(|point| point["x"].as_f64().unwrap()).collect()
    };
    api.publish("v1", "2026-10-26", WALK).await;
    assert_eq!(xs().await, [2.0, 9.0], "a generation that had not heard of it");
    let with = |info: &mut dwell_storage::api::GenerationInfo| info.exclusions.jobs = vec!["j1".to_owned()];
    api.publish_with("v1", "2026-10-26", WALK, with).await;
    assert_eq!(xs().await, [2.0, 3.0]);
}
