//! Who gets where: every route of the table, with every role, with no key, with a wrong one, and with another tenant's.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use dwell_storage::api::Role;
use serde_json::json;
use tower::ServiceExt;

use super::harness::{A_WHILE, Api, OTHER_TENANT, TENANT};
use crate::{Access, ROUTES, Route};

const ROLES: [Role; 4] = [Role::Gateway, Role::Viewer, Role::Operator, Role::Admin];

/// A request to a route about things that `acme` has, as far as there are any.
fn request(route: &Route, key: Option<&str>) -> Request<Body> {
    let path = route
        .path
        .replace("{venue}", "v1")
        .replace("{session}", "2026-10-26-0000000000000000")
        .replace("{job}", "0")
        .replace("{entry}", "0")
        .replace("{key}", "0");
    let mut builder = Request::builder().method(route.method.clone()).uri(path);
    if let Some(key) = key {
        builder = builder.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    builder.body(Body::empty()).unwrap()
}

/// The status alone: a stream's body never ends.
async fn status(api: &Api, request: Request<Body>) -> StatusCode {
    api.router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn every_route_is_open_to_the_roles_of_the_table_and_to_nobody_else() {
    let api = Api::start().await;
    for route in ROUTES {
        let name = format!("{} {}", route.method, route.path);
        for wrong in [None, Some(""), Some("dwk_0_0"), Some("nonsense")] {
            let status = status(&api, request(route, wrong)).await;
            assert_eq!(
                status == StatusCode::UNAUTHORIZED,
                route.access != Access::Public,
                "{name} {wrong:?}: {status}"
            );
        }
        for role in ROLES {
            let status = status(&api, request(route, Some(api.key(role)))).await;
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{name} {role:?}");
            let allowed = match route.access {
                Access::Public => true,
                Access::AtLeast(at_least) => role >= at_least,
            };
            assert_eq!(
                status == StatusCode::FORBIDDEN,
                !allowed,
                "{name} {role:?}: {status}"
            );
            assert!(!status.is_server_error(), "{name} {role:?}: {status}");
        }
    }
}

#[tokio::test]
async fn what_belongs_to_one_tenant_is_not_there_for_another() {
    let api = Api::start().await;
    api.publish(
        "v1",
        "2026-10-26",
        &[("s1", "secret-track", "2026-10-26T10:00:00+01:00", 1.0, 1.0)],
    )
    .await;
    for route in ROUTES.iter().filter(|route| route.path.contains("{venue}")) {
        let own = status(&api, request(route, Some(api.key(Role::Admin)))).await;
        let foreign = status(&api, request(route, Some(api.key_of(OTHER_TENANT, Role::Admin)))).await;
        assert_eq!(foreign, StatusCode::NOT_FOUND, "{}: own {own}", route.path);
    }
    let created = api
        .send_json(
            Method::POST,
            "/v1/jobs",
            Role::Operator,
            &json!({"kind": "recompute"}),
        )
        .await;
    let job = created.json()["id"].as_str().unwrap().to_owned();
    let foreign = api.key_of(OTHER_TENANT, Role::Admin).to_owned();
    let as_foreigner = |method: Method, path: String, body: Body| {
        let bearer = format!("Bearer {foreign}");
        let json = "application/json";
        let builder = Request::builder().method(method).uri(path);
        builder
            .header(header::AUTHORIZATION, bearer)
            .header(header::CONTENT_TYPE, json)
            .body(body)
            .unwrap()
    };
    let own_key = api.get_keys().await[0].clone();
    for (method, path) in [
        (Method::GET, format!("/v1/jobs/{job}")),
        (Method::POST, format!("/v1/jobs/{job}/cancel")),
        (Method::DELETE, format!("/v1/keys/{own_key}")),
    ] {
        let answer = api
            .send(as_foreigner(method.clone(), path.clone(), Body::empty()))
            .await;
        assert_eq!(answer.problem(), "not-found", "{method} {path}");
    }
    for path in ["/v1/venues", "/v1/jobs", "/v1/keys", "/v1/quarantine"] {
        let text = api
            .send(as_foreigner(Method::GET, path.to_owned(), Body::empty()))
            .await
            .text();
        assert!(
            !text.contains("\"v1\"") && !text.contains(&job) && !text.contains(&own_key),
            "{path}: {text}"
        );
    }
    for (path, body) in [
        ("/v1/query", json!({"metrics": ["visits"], "venues": ["v1"]})),
        ("/v1/jobs", json!({"kind": "recompute", "venues": ["v1"]})),
        ("/v1/keys", json!({"role": "gateway", "venues": ["v1"]})),
    ] {
        let answer = api
            .send(as_foreigner(
                Method::POST,
                path.to_owned(),
                Body::from(body.to_string()),
            ))
            .await;
        assert_eq!(answer.problem(), "not-found", "{path}: {TENANT}'s venue");
    }
    // A venue of the same name is another venue.
    let spec = json!([{"id": "v1", "tz": "Asia/Tokyo"}]);
    let put = as_foreigner(Method::PUT, "/v1/venues".to_owned(), Body::from(spec.to_string()));
    assert_eq!(api.send(put).await.status, StatusCode::OK);
    assert_eq!(api.get_json("/v1/venues/v1").await["tz"], "Europe/Madrid");
}

#[tokio::test]
async fn a_key_works_until_it_is_taken_back() {
    let api = Api::start().await;
    let made = api
        .send_json(
            Method::POST,
            "/v1/keys",
            Role::Admin,
            &json!({"role": "viewer", "name": "board"}),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.headers[header::CACHE_CONTROL], "no-store");
    let (id, key) = (
        made.json()["id"].as_str().unwrap().to_owned(),
        made.json()["key"].as_str().unwrap().to_owned(),
    );
    assert!(key.starts_with(&format!("dwk_{id}_")));
    let get = |path: &str| {
        let bearer = format!("Bearer {key}");
        Request::get(path)
            .header(header::AUTHORIZATION, bearer)
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(api.send(get("/v1/venues")).await.status, StatusCode::OK);
    assert_eq!(api.send(get("/v1/keys")).await.problem(), "forbidden");
    // Its secret is never shown again.
    let listed = api
        .send(
            api.request(Method::GET, "/v1/keys", Role::Admin)
                .body(Body::empty())
                .unwrap(),
        )
        .await
        .text();
    assert!(
        listed.contains(&id) && !listed.contains(&key) && !listed.contains("hash"),
        "{listed}"
    );
    let taken = api
        .send_json(
            Method::DELETE,
            &format!("/v1/keys/{id}"),
            Role::Admin,
            &json!(null),
        )
        .await;
    assert!(taken.json()["revoked_at"].is_string(), "{}", taken.text());
    api.clock.advance(A_WHILE);
    assert_eq!(api.send(get("/v1/venues")).await.problem(), "unauthenticated");
}

#[tokio::test]
async fn the_last_admin_key_stays_and_keys_are_made_with_sense() {
    let api = Api::start().await;
    let admin = api.key(Role::Admin).split('_').nth(1).unwrap().to_owned();
    let path = format!("/v1/keys/{admin}");
    assert_eq!(
        api.send_json(Method::DELETE, &path, Role::Admin, &json!(null))
            .await
            .problem(),
        "conflict"
    );
    for (body, code) in [
        (json!({"role": "king"}), "bad-body"),
        (json!({"role": "viewer", "venues": ["v1"]}), "bad-body"),
        (json!({"role": "gateway", "venues": []}), "bad-body"),
        (json!({"role": "gateway", "venues": ["v9"]}), "not-found"),
        (json!({"role": "viewer", "secret": "x"}), "bad-body"),
        (json!({}), "bad-body"),
    ] {
        let answer = api.send_json(Method::POST, "/v1/keys", Role::Admin, &body).await;
        assert_eq!(answer.problem(), code, "{body}");
    }
    let gateway = api
        .send_json(
            Method::POST,
            "/v1/keys",
            Role::Admin,
            &json!({"role": "gateway", "venues": ["v1"]}),
        )
        .await;
    assert_eq!(gateway.json()["venues"], json!(["v1"]));
}

impl Api {
    async fn get_keys(&self) -> Vec<String> {
        let request = self
            .request(Method::GET, "/v1/keys", Role::Admin)
            .body(Body::empty())
            .unwrap();
        let keys = self.send(request).await.json();
        keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["id"].as_str().unwrap().to_owned())
            .collect()
    }
}
