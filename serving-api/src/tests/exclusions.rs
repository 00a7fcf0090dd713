//! Exclusions as operators list them.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use dwell_model::exclusion::{DaySet, Ended, Exclusion, Scope};
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_storage::api::{Flip, Role, documents};
use serde_json::{Value, json};

use super::harness::{Api, OTHER_TENANT, TENANT};

fn exclusion(id: &str, venue: &str, scope: Scope) -> Exclusion {
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
    async fn put_exclusion(&self, tenant: &str, exclusion: &Exclusion) {
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
    api.put_exclusion(TENANT, &exclusion("j4", "v2", Scope::default())).await;
    api.put_exclusion(OTHER_TENANT, &exclusion("theirs", "v1", Scope::default())).await;

    let all = api.exclusions("").await;
    assert_eq!((ids(&all), &all["next_cursor"]), (vec!["j4", "j2", "j1"], &Value::Null));
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
    assert_eq!((&ended["state"], &ended["received_before"]), (&json!("ended"), &Value::Null));
    assert_eq!(
        (&ended["ended_at"], &ended["ended_job"], &ended["ended_by"], &ended["ended_reason"]),
        (&json!("2026-10-14T17:47:40.000Z"), &json!("j3"), &json!("k2"), &json!("it was right"))
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
        api.put_exclusion(TENANT, &exclusion(&format!("j{n}"), venue, Scope::default())).await;
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
