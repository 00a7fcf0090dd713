//! Numbers of a venue, checked against what can be counted by hand.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use dwell_model::layout::Venue;
use dwell_model::time::{HOUR_MS, VenueCalendar, parse_ts};
use dwell_storage::api::recuts::{self, Wish};
use dwell_storage::api::{Flip, Jobs, Registry, Role};
use serde_json::{Value, json};

use super::harness::{Api, NOW, Point, venue_key, venue_spec};

/// Monday: `a` stays 10 s in the left zone, then 10 s in the right one; an hour and a half later `b` stays 5 s left.
pub(super) const MONDAY: &[Point<'static>] = &[
    ("s1", "a", "2026-10-26T10:00:00+01:00", 2.0, 2.0),
    ("s1", "a", "2026-10-26T10:00:10+01:00", 3.0, 2.0),
    ("s1", "a", "2026-10-26T10:00:20+01:00", 12.0, 2.0),
    ("s1", "a", "2026-10-26T10:00:30+01:00", 12.0, 2.0),
    ("s1", "b", "2026-10-26T11:30:00+01:00", 5.0, 5.0),
    ("s1", "b", "2026-10-26T11:30:05+01:00", 5.0, 5.0),
];

/// Sunday, when 02:00 comes twice: one person in each of the two.
pub(super) const SUNDAY: &[Point<'static>] = &[
    ("s1", "early", "2026-10-25T02:30:00+02:00", 1.0, 1.0),
    ("s1", "early", "2026-10-25T02:30:20+02:00", 1.0, 1.0),
    ("s1", "late", "2026-10-25T02:30:00+01:00", 1.0, 1.0),
    ("s1", "late", "2026-10-25T02:30:08+01:00", 1.0, 1.0),
];

/// Today, so far.
const TODAY: &[Point<'static>] = &[
    ("s1", "c", "2026-10-27T11:00:00+01:00", 1.0, 1.0),
    ("s1", "c", "2026-10-27T11:00:09+01:00", 1.0, 1.0),
];

fn buckets(answer: &Value) -> &Vec<Value> {
    answer["buckets"].as_array().unwrap()
}

/// (metric, subject, local start, value) of the buckets that have a value.
fn values(answer: &Value) -> Vec<(String, String, String, f64)> {
    let text = |bucket: &Value, name: &str| bucket[name].as_str().unwrap().to_owned();
    let known = buckets(answer).iter().filter(|bucket| !bucket["value"].is_null());
    known
        .map(|b| {
            (
                text(b, "metric"),
                text(b, "subject"),
                text(b, "start_local"),
                b["value"].as_f64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn hours_have_the_numbers_that_can_be_counted_by_hand() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let path = "/v1/venues/v1/metrics?metric=visits,dwell_ms,dwell_p50&zone=left,right&from=2026-10-26&to=2026-10-26&by=hour";
    let answer = api.get_json(path).await;
    assert_eq!(buckets(&answer).len(), 24 * 3 * 2, "dense");
    let (ten, eleven) = ("2026-10-26T10:00:00.000+01:00", "2026-10-26T11:00:00.000+01:00");
    let expected: Vec<(&str, &str, &str, f64)> = vec![
        ("visits", "left", ten, 1.0),
        ("visits", "right", ten, 1.0),
        ("dwell_ms", "left", ten, 10_000.0),
        ("dwell_ms", "right", ten, 10_000.0),
        ("dwell_p50", "left", ten, 10_000.0),
        ("dwell_p50", "right", ten, 10_000.0),
        ("visits", "left", eleven, 1.0),
        // The sensor was heard, and nobody was there.
        ("visits", "right", eleven, 0.0),
        ("dwell_ms", "left", eleven, 5_000.0),
        ("dwell_ms", "right", eleven, 0.0),
        // The median of no visits is no number.
        ("dwell_p50", "left", eleven, 5_000.0),
    ];
    let got = values(&answer);
    let got: Vec<_> = got
        .iter()
        .map(|(a, b, c, d)| (a.as_str(), b.as_str(), c.as_str(), *d))
        .collect();
    assert_eq!(got, expected);
    for bucket in buckets(&answer) {
        let heard = bucket["start_local"] == ten || bucket["start_local"] == eleven;
        // Nothing says when the venue is open, so nothing heard is missing and not zero.
        assert_eq!(bucket["state"], if heard { "ok" } else { "missing" }, "{bucket}");
        assert_eq!(bucket["completeness"], Value::Null, "unknown, never 1: {bucket}");
        assert_eq!(
            (&bucket["layer"], &bucket["generation"]),
            (&json!("batch"), &json!(1))
        );
        assert_eq!(
            (&bucket["provisional"], &bucket["length_ms"]),
            (&json!(false), &json!(HOUR_MS))
        );
        assert_eq!(
            bucket["definition"],
            json!({"id": bucket["metric"], "version": 1})
        );
        assert_eq!(
            bucket["unit"],
            if bucket["metric"] == "visits" {
                "visits"
            } else {
                "ms"
            }
        );
    }
    assert_eq!(
        buckets(&answer)[60]["start"],
        "2026-10-26T09:00:00.000Z",
        "UTC start beside the local one"
    );
}

#[tokio::test]
async fn days_weeks_months_and_totals_are_made_of_day_rows() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let ask = async |by: &str| {
        let path = format!(
            "/v1/venues/v1/metrics?metric=visits,dwell_p50,visitor_days&zone=left&from=2026-10-25&to=2026-10-26&by={by}"
        );
        values(&api.get_json(&path).await)
    };
    let (sunday, monday) = ("2026-10-25T00:00:00.000+02:00", "2026-10-26T00:00:00.000+01:00");
    let rows = |rows: &[(&str, &str, f64)]| -> Vec<(String, String, String, f64)> {
        let row =
            |&(metric, start, value): &(&str, &str, f64)| (metric.into(), "left".into(), start.into(), value);
        rows.iter().map(row).collect()
    };
    let days = [
        ("visits", sunday, 2.0),
        ("dwell_p50", sunday, 8_000.0),
        ("visitor_days", sunday, 2.0),
        ("visits", monday, 2.0),
        ("dwell_p50", monday, 5_000.0),
        ("visitor_days", monday, 2.0),
    ];
    assert_eq!(ask("day").await, rows(&days));
    // Sunday ends one ISO week, Monday begins the next.
    assert_eq!(ask("week").await, rows(&days));
    // Dwells 5, 8, 10, 20 s: the median by nearest rank is the second, not the mean of the days' medians.
    let total = [
        ("visits", sunday, 4.0),
        ("dwell_p50", sunday, 8_000.0),
        ("visitor_days", sunday, 4.0),
    ];
    assert_eq!(ask("month").await, rows(&total));
    assert_eq!(ask("total").await, rows(&total));
}

#[tokio::test]
async fn the_hour_that_comes_twice_is_two_buckets() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-25", SUNDAY).await;
    let path = "/v1/venues/v1/metrics?metric=visits&zone=_venue&by=hour&from=2026-10-25&to=2026-10-25";
    let answer = api.get_json(path).await;
    assert_eq!(buckets(&answer).len(), 25);
    let of_two: Vec<_> = values(&answer)
        .into_iter()
        .map(|(_, _, start, value)| (start, value))
        .collect();
    let expected = [
        ("2026-10-25T02:00:00.000+02:00".to_owned(), 1.0),
        ("2026-10-25T02:00:00.000+01:00".to_owned(), 1.0),
    ];
    assert_eq!(of_two, expected);
    let ends: Vec<_> = buckets(&answer)
        .iter()
        .map(|bucket| bucket["end"].clone())
        .collect();
    let starts: Vec<_> = buckets(&answer)
        .iter()
        .map(|bucket| bucket["start"].clone())
        .collect();
    assert_eq!(starts[1..], ends[..24], "without gaps");
    let spring = api
        .get_json("/v1/venues/v1/metrics?metric=visits&zone=_venue&by=hour&from=2026-03-29&to=2026-03-29")
        .await;
    assert_eq!(buckets(&spring).len(), 23);
}

#[tokio::test]
async fn states_tell_what_is_known_of_a_bucket() {
    let api = Api::start().await;
    let mut spec = venue_spec("v1");
    (spec["open"], spec["close"]) = (json!(9), json!(20));
    api.put_venue(spec).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    api.show_live("v1", "2026-10-27", TODAY).await;
    // Raw rows came for Sunday, and nobody has computed it yet.
    api.write_raw("v1", SUNDAY, "late", 5).await;
    let path = "/v1/venues/v1/metrics?metric=visits&zone=_venue&by=hour&from=2026-10-24&to=2026-10-28";
    let answer = api.get_json(path).await;
    let state = |local: &str| {
        let found = buckets(&answer)
            .iter()
            .find(|bucket| bucket["start_local"].as_str().unwrap().starts_with(local));
        let found = found.unwrap_or_else(|| panic!("{local}"));
        (
            found["state"].as_str().unwrap(),
            found["value"].clone(),
            found["layer"].clone(),
        )
    };
    assert_eq!(
        state("2026-10-24T12"),
        ("missing", Value::Null, Value::Null),
        "over, and nothing ever came"
    );
    assert_eq!(state("2026-10-24T23"), ("closed", Value::Null, Value::Null));
    assert_eq!(state("2026-10-25T02"), ("pending", Value::Null, Value::Null));
    assert_eq!(state("2026-10-26T03"), ("closed", Value::Null, json!("batch")));
    assert_eq!(state("2026-10-26T10"), ("ok", json!(1), json!("batch")));
    assert_eq!(state("2026-10-26T13"), ("missing", Value::Null, json!("batch")));
    assert_eq!(state("2026-10-27T11"), ("ok", json!(1), json!("live")));
    assert_eq!(state("2026-10-27T13"), ("future", Value::Null, json!("live")));
    assert_eq!(state("2026-10-28T10"), ("future", Value::Null, Value::Null));
    let days = api
        .get_json("/v1/venues/v1/metrics?metric=visits&zone=_venue&from=2026-10-25&to=2026-10-27")
        .await;
    let states: Vec<_> = buckets(&days)
        .iter()
        .map(|bucket| bucket["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["pending", "ok", "partial"], "today goes on");
}

#[tokio::test]
async fn batch_answers_where_published_and_live_after_it() {
    let api = Api::start().await;
    let path = "/v1/venues/v1/metrics?metric=visits&zone=_venue&from=2026-10-26&to=2026-10-26";
    let origin = async || {
        let answer = api.get_json(path).await;
        let bucket = buckets(&answer)[0].clone();
        (
            bucket["layer"].clone(),
            bucket["generation"].clone(),
            bucket["provisional"].clone(),
            bucket["value"].clone(),
        )
    };
    // A generation computed while the day was open answers only until the live view has the day.
    api.publish_with("v1", "2026-10-26", &MONDAY[..4], |info| info.provisional = true)
        .await;
    assert_eq!(origin().await, (json!("batch"), json!(1), json!(true), json!(1)));
    api.show_live("v1", "2026-10-26", MONDAY).await;
    assert_eq!(
        origin().await,
        (json!("live"), Value::Null, json!(true), json!(2))
    );
    let answer = api.get(path).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    // A final one answers from its publication on.
    api.publish("v1", "2026-10-26", MONDAY).await;
    assert_eq!(origin().await, (json!("batch"), json!(2), json!(false), json!(2)));
    assert_eq!(
        api.get(path).await.headers[header::CACHE_CONTROL],
        "private, max-age=300"
    );
    let mixed = api
        .get_json("/v1/venues/v1/metrics?metric=visits&zone=_venue&by=total&from=2026-10-26&to=2026-10-27")
        .await;
    assert_eq!(
        buckets(&mixed)[0]["layer"],
        "batch",
        "nothing is live of today here"
    );
    api.show_live("v1", "2026-10-27", TODAY).await;
    let mixed = api
        .get_json("/v1/venues/v1/metrics?metric=visits&zone=_venue&by=total&from=2026-10-26&to=2026-10-27")
        .await;
    assert_eq!(
        (&buckets(&mixed)[0]["layer"], &buckets(&mixed)[0]["value"]),
        (&json!("mixed"), &json!(3))
    );
    assert_eq!(mixed["days"][0]["generation"], 2);
    assert_eq!(mixed["days"][1]["layer"], "live");
}

#[tokio::test]
async fn numbers_can_be_asked_for_as_they_were() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    api.publish_with("v1", "2026-10-26", MONDAY, |info| info.published_at += HOUR_MS)
        .await;
    api.clock.set_ms(parse_ts(NOW).unwrap() + 2 * HOUR_MS);
    let ask = async |as_of: &str| {
        let path = format!(
            "/v1/venues/v1/metrics?metric=visits&zone=_venue&from=2026-10-26&to=2026-10-26&as_of={as_of}"
        );
        let answer = api.get_json(&path).await;
        let bucket = &buckets(&answer)[0];
        (
            bucket["state"].as_str().unwrap().to_owned(),
            bucket["value"].clone(),
            bucket["generation"].clone(),
        )
    };
    assert_eq!(
        ask("2026-10-27T10:00:00Z").await,
        ("pending".into(), Value::Null, Value::Null)
    );
    assert_eq!(
        ask("2026-10-27T11:30:00Z").await,
        ("ok".into(), json!(1), json!(1))
    );
    assert_eq!(
        ask("2026-10-27T12:30:00Z").await,
        ("ok".into(), json!(2), json!(2))
    );
}

#[tokio::test]
async fn visitors_are_exact_in_a_bucket_merge_within_a_day_and_are_refused_beyond() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let total = "/v1/venues/v1/metrics?metric=visitors&zone=left&by=total";
    // Two hours of one day: a and b, by sketch.
    let part = format!("{total}&from=2026-10-26T10:00:00%2B01:00&to=2026-10-26T12:00:00%2B01:00");
    assert_eq!(buckets(&api.get_json(&part).await)[0]["value"], 2);
    let hours = "/v1/venues/v1/metrics?metric=visitors,visits&zone=left&by=day&from=2026-10-26&to=2026-10-26&hours=10-12";
    let answer = api.get_json(hours).await;
    assert_eq!(
        (&buckets(&answer)[0]["value"], &buckets(&answer)[0]["length_ms"]),
        (&json!(2), &json!(2 * HOUR_MS))
    );
    let day = format!("{total}&from=2026-10-26&to=2026-10-26");
    assert_eq!(buckets(&api.get_json(&day).await)[0]["value"], 2);
    let refused = api.get(&format!("{total}&from=2026-10-25&to=2026-10-26")).await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::BAD_REQUEST, "unmergeable")
    );
    assert!(refused.text().contains("visitor_days"), "{}", refused.text());
    let days_of_hours = api
        .get("/v1/venues/v1/metrics?metric=visitor_days&from=2026-10-26&to=2026-10-26&by=hour")
        .await;
    assert_eq!(days_of_hours.problem(), "unmergeable");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again_until_it_changes() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", &MONDAY[..4]).await;
    let path = "/v1/venues/v1/metrics?metric=visits&from=2026-10-26&to=2026-10-26";
    let first = api.get(path).await;
    let etag = first.headers[header::ETAG].clone();
    assert!(etag.to_str().unwrap().starts_with('"'), "strong");
    let again = || {
        let request = api
            .request(Method::GET, path, Role::Viewer)
            .header(header::IF_NONE_MATCH, etag.clone());
        api.send(request.body(Body::empty()).unwrap())
    };
    let unchanged = again().await;
    assert_eq!(
        (unchanged.status, unchanged.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    api.publish("v1", "2026-10-26", MONDAY).await;
    let changed = again().await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.headers[header::ETAG], etag);
}

#[tokio::test]
async fn csv_and_arrow_say_what_json_says() {
    let api = Api::start().await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let path = "/v1/venues/v1/metrics?metric=visits,dwell_avg,occupancy_avg,footfall&from=2026-10-26&to=2026-10-26&by=hour";
    let rows = buckets(&api.get_json(path).await).clone();
    let accept = async |media: &str| {
        let request = api
            .request(Method::GET, path, Role::Viewer)
            .header(header::ACCEPT, media);
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert!(
            answer.headers[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with(media)
        );
        answer
    };
    let csv = accept("text/csv").await.text();
    let mut lines = csv.split("\r\n");
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let lines: Vec<Vec<&str>> = lines
        .filter(|line| !line.is_empty())
        .map(|line| line.split(',').collect())
        .collect();
    let arrow = accept("application/vnd.apache.arrow.stream").await.body;
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let batch = &batches[0];
    assert_eq!(
        (lines.len(), batches.len(), batch.num_rows()),
        (rows.len(), 1, rows.len())
    );
    assert!(
        rows.iter()
            .any(|row| row["value"].as_f64().is_some_and(|value| value.fract() != 0.0)),
        "some fractions"
    );
    let options = arrow::util::display::FormatOptions::default().with_null("");
    for (column, name) in names.iter().enumerate() {
        assert_eq!(batch.schema().field(column).name(), name);
        let shown = arrow::util::display::ArrayFormatter::try_new(batch.column(column), &options).unwrap();
        for (i, row) in rows.iter().enumerate() {
            let json = if *name == "definition_version" {
                &row["definition"]["version"]
            } else {
                &row[*name]
            };
            let (in_csv, in_arrow) = (lines[i][column], shown.value(i).to_string());
            match json {
                Value::Null => assert_eq!((in_csv, in_arrow.as_str()), ("", ""), "{name} {row}"),
                Value::Number(number) => {
                    let number = number.as_f64().unwrap();
                    assert_eq!(in_csv.parse::<f64>().unwrap(), number, "{name} {row}");
                    assert_eq!(in_arrow.parse::<f64>().unwrap(), number, "{name} {row}");
                }
                Value::String(text) if *name == "start" || *name == "end" => {
                    assert_eq!(in_csv, text);
                    assert_eq!(parse_ts(&in_arrow).unwrap(), parse_ts(text).unwrap());
                }
                Value::String(text) => assert_eq!((in_csv, &in_arrow), (text.as_str(), text)),
                other => assert_eq!(
                    (in_csv, in_arrow),
                    (other.to_string().as_str(), other.to_string())
                ),
            }
        }
    }
}

#[tokio::test]
async fn half_a_generation_is_never_answered() {
    let api = Api::start().await;
    // The pointer says one row more than there is: some have not arrived at this replica.
    api.publish_with("v1", "2026-10-26", MONDAY, |info| info.rows += 1)
        .await;
    let ask = api.get("/v1/venues/v1/metrics?metric=visits&from=2026-10-26&to=2026-10-26");
    let let_time_pass = async {
        for _ in 0..2 {
            // The request's own limit, and its wait before it looks again.
            api.clock.sleepers_reach(2).await;
            api.clock.advance(std::time::Duration::from_millis(200));
        }
    };
    let both = futures::future::join(ask, let_time_pass);
    let (answer, ()) = tokio::time::timeout(std::time::Duration::from_secs(10), both)
        .await
        .expect("it looks again");
    assert_eq!(answer.problem(), "unavailable");
    assert_eq!(answer.headers[header::RETRY_AFTER], "5");
    assert!(
        !answer.text().contains("rows"),
        "details are logged: {}",
        answer.text()
    );
}

#[tokio::test]
async fn a_corrected_time_zone_is_answered_by_the_former_cut_until_a_job_has_made_another() {
    let api = Api::start().await;
    api.write_raw("v1", MONDAY, "monday", 5).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let path = "/v1/venues/v1/metrics?metric=visits&zone=_venue&from=2026-10-26&to=2026-10-26";
    let before = api.get_json(path).await;
    assert_eq!(buckets(&before)[0]["value"], 2);
    let mut spec = venue_spec("v1");
    spec["tz"] = json!("Europe/Lisbon");
    let file = json!([spec]);
    let applied = api.send_json(Method::PUT, "/v1/venues", Role::Admin, &file).await;
    assert_eq!(applied.status, StatusCode::OK, "{}", applied.text());
    let job = applied.json()["venues"][0]["recut"]["job"].clone();
    let jobs = api
        .send_json(Method::GET, "/v1/jobs", Role::Operator, &Value::Null)
        .await
        .json();
    let asked = &jobs["jobs"][0];
    assert_eq!(
        (&asked["id"], &asked["kind"], &asked["state"]),
        (&job, &json!("recut"), &json!("queued"))
    );
    assert_eq!(api.get_json(path).await["buckets"], before["buckets"]);
    assert_eq!(
        api.venue("v1").await.calendar.tz().name(),
        "Europe/Madrid",
        "the job stores the other"
    );
}

#[tokio::test]
async fn a_decided_recut_whose_job_is_gone_is_gone_on_with_when_the_file_is_applied_again() {
    let api = Api::start().await;
    api.write_raw("v1", MONDAY, "monday", 5).await;
    api.publish("v1", "2026-10-26", MONDAY).await;
    let (documents, venue) = (api.stores.documents.as_ref(), venue_key("v1"));
    let lisbon = VenueCalendar::from_names("Europe/Lisbon", 0).unwrap();
    let wish = Wish {
        job: "0".to_owned(),
        from: api.venue("v1").await.calendar,
        to: lisbon,
        by: "operator".to_owned(),
        at: 1,
    };
    recuts::ask(documents, &venue, &wish).await.unwrap();
    recuts::begin_staging(documents, &venue, 1, "a", 0, 1)
        .await
        .unwrap();
    recuts::decide(documents, &venue, 1, "a", 0, &[]).await.unwrap();
    let apply = async |tz: &str| {
        let mut spec = venue_spec("v1");
        spec["tz"] = json!(tz);
        api.send_json(Method::PUT, "/v1/venues", Role::Admin, &json!([spec]))
            .await
    };
    // What is decided comes first; another cut has to wait, but not for a job that nobody has.
    assert_eq!(apply("Europe/Madrid").await.problem(), "conflict");
    let applied = apply("Europe/Lisbon").await;
    assert_eq!(applied.status, StatusCode::OK, "{}", applied.text());
    let job = applied.json()["venues"][0]["recut"]["job"].clone();
    let jobs = async || {
        api.send_json(Method::GET, "/v1/jobs", Role::Operator, &Value::Null)
            .await
            .json()["jobs"]
            .clone()
    };
    let listed = jobs().await;
    assert_eq!(
        (
            listed.as_array().map(Vec::len),
            &listed[0]["id"],
            &listed[0]["state"]
        ),
        (Some(1), &job, &json!("queued"))
    );
    let period = json!({ "venues": ["v1"], "from": "2026-10-26", "to": "2026-10-26", "reason": "invoiced" });
    let close = api
        .send_json(Method::POST, "/v1/periods", Role::Operator, &period)
        .await;
    assert_eq!(close.problem(), "conflict", "all its numbers are about to change");
    // The registry has the new cut, and the job is lost before the rest is published: the file says nothing new.
    let stored = api.stores.registry.venue(&venue).await.unwrap().unwrap();
    let flipped = Venue {
        calendar: lisbon,
        ..stored.venue
    };
    let put = api
        .stores
        .registry
        .put_venue(&venue.tenant, &flipped, Some(stored.version))
        .await;
    assert_eq!(put.unwrap(), Flip::Done);
    let id = job.as_str().unwrap().to_owned();
    api.stores
        .jobs
        .request_cancel(&venue.tenant, &id, 1)
        .await
        .unwrap();
    let again = apply("Europe/Lisbon").await.json()["venues"][0]["recut"]["job"].clone();
    assert!(again.is_string() && again != job, "{again}");
    assert_eq!(
        apply("Europe/Lisbon").await.json()["venues"][0]["recut"]["job"],
        again
    );
    assert_eq!(jobs().await.as_array().map(Vec::len), Some(2));
}
