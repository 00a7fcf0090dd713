//! Pages: together they are the whole, of the generations that the first one saw.

use axum::http::StatusCode;
use serde_json::Value;

use super::harness::Api;
use super::metrics::{MONDAY, SUNDAY};

const PATH: &str = "/v1/venues/v1/metrics?metric=visits,dwell_ms&by=hour&from=2026-10-25&to=2026-10-26";

fn buckets(answer: &Value) -> Vec<Value> {
    answer["buckets"].as_array().unwrap().clone()
}

#[tokio::test]
async fn pages_are_the_whole_even_when_a_day_is_restated_in_between() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let whole = buckets(&api.get_json(PATH).await);
    assert_eq!(whole.len(), (25 + 24) * 2 * 3);
    let (mut paged, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let path = cursor.map_or(format!("{PATH}&limit=47"), |cursor| {
            format!("{PATH}&limit=47&cursor={cursor}")
        });
        let answer = api.get(&path).await;
        let header = answer
            .headers
            .get("x-next-cursor")
            .map(|value| value.to_str().unwrap().to_owned());
        let page = answer.json();
        paged.extend(buckets(&page));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        assert_eq!(cursor, header);
        pages += 1;
        if pages == 2 {
            // Both days get other numbers; the cursor's generations stay.
            api.publish("v1", "2026-10-25", &SUNDAY[..2]).await;
            api.publish("v1", "2026-10-26", &MONDAY[..2]).await;
        }
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, whole.len().div_ceil(47));
    assert_eq!(paged, whole);
    assert_ne!(
        buckets(&api.get_json(PATH).await),
        whole,
        "without a cursor the new numbers answer"
    );
}

#[tokio::test]
async fn broken_mixed_up_and_outdated_cursors_are_refused() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let page = api.get_json(&format!("{PATH}&limit=5")).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let flipped = if cursor.ends_with('0') { "1" } else { "0" };
    for broken in [
        "x",
        "00",
        "",
        &cursor[2..],
        &format!("{}{flipped}", &cursor[..cursor.len() - 1]),
    ] {
        let answer = api.get(&format!("{PATH}&cursor={broken}")).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::BAD_REQUEST, "bad-cursor"),
            "{broken}"
        );
    }
    let other = PATH.replace("metric=visits,dwell_ms", "metric=visits");
    assert_eq!(
        api.get(&format!("{other}&cursor={cursor}")).await.problem(),
        "bad-cursor"
    );
    assert_eq!(
        api.get(&format!("/v1/venues/v1/sessions?cursor={cursor}"))
            .await
            .problem(),
        "bad-cursor"
    );
    let mut changed = super::harness::venue_spec("v1");
    changed["name"] = "New name".into();
    api.put_venue(changed).await;
    let outdated = api.get(&format!("{PATH}&cursor={cursor}")).await;
    assert_eq!(
        (outdated.status, outdated.problem().as_str()),
        (StatusCode::GONE, "stale-cursor")
    );
}

#[tokio::test]
async fn sessions_come_in_pages_by_start() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let path = "/v1/venues/v1/sessions?from=2026-10-25&to=2026-10-26&limit=1";
    let (mut tracks, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..10 {
        let page = api
            .get_json(&cursor.map_or(path.to_owned(), |cursor| format!("{path}&cursor={cursor}")))
            .await;
        let sessions = page["sessions"].as_array().unwrap().clone();
        assert!(sessions.len() <= 1);
        tracks.extend(
            sessions
                .iter()
                .map(|session| session["track"].as_str().unwrap().to_owned()),
        );
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(tracks, ["early", "late", "a", "b"]);
}
