//! `/openapi.json` and `/docs`: what this API can do, for programs and for people.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::respond::{self, Caching};
use crate::state::AppState;

/// The page needs nothing from elsewhere, and may load nothing from elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The OpenAPI 3.1 document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation",
    responses((status = 200, description = "The document", content_type = "application/json", body = serde_json::Value)),
)]
pub(crate) async fn openapi(State(state): State<AppState>, headers: HeaderMap) -> Response {
    respond::bytes(
        &headers,
        "application/json",
        state.document().to_vec(),
        Caching::SETTINGS,
    )
}

/// A page that lists every operation with its schemas and tries it with a key. It loads nothing from elsewhere.
#[utoipa::path(
    get, path = "/docs", tag = "documentation",
    responses((status = 200, description = "The page", content_type = "text/html", body = String)),
)]
pub(crate) async fn page(headers: HeaderMap) -> Response {
    let body = include_bytes!("../docs/page.html").to_vec();
    let mut response = respond::bytes(&headers, "text/html; charset=utf-8", body, Caching::SETTINGS);
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    response
        .headers_mut()
        .insert(HeaderName::from_static("content-security-policy"), policy);
    response
}
