//! What handlers take out of a request; whatever is wrong with it leaves as a [`Problem`].

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use dwell_storage::access::Principal;
use serde::de::DeserializeOwned;

use crate::problem::{self, Problem};
use crate::state::AppState;

/// The caller, as the route's guard has verified it.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::internal("a handler wants a caller on a route without a guard"))
    }
}

/// Query parameters; unknown and repeated ones are refused.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::new(
                problem::BAD_PARAMETER,
                short(&rejection.body_text()),
            )),
        }
    }
}

/// Parts of the path.
#[derive(Debug)]
pub(crate) struct ApiPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for ApiPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_client_error() => Err(Problem::new(
                problem::BAD_PARAMETER,
                short(&rejection.body_text()),
            )),
            Err(rejection) => Err(Problem::internal(rejection.body_text())),
        }
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        let value = serde_json::from_slice(&bytes);
        value
            .map(Self)
            .map_err(|error| Problem::new(problem::BAD_BODY, short(&format!("the body: {error}"))))
    }
}

/// The bytes of a JSON body, not yet looked at.
#[derive(Debug)]
pub(crate) struct JsonBytes(pub(crate) Bytes);

impl FromRequest<AppState> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        if let Some(content_type) = content_type {
            let text = content_type.to_str().unwrap_or_default();
            let essence = text
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            if essence != "application/json" && !essence.ends_with("+json") {
                let detail = format!(
                    "{:?} is not read here; send JSON with content-type: application/json",
                    problem::clip(&essence)
                );
                return Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail));
            }
        }
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            let detail = "compressed bodies are not read here; send plain JSON without content-encoding";
            return Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let max = state.config().body_max.as_u64();
                Err(Problem::new(
                    problem::TOO_LARGE,
                    format!("the body is longer than {max} bytes; send less at once"),
                ))
            }
            Err(rejection) => Err(Problem::new(problem::BAD_BODY, short(&rejection.body_text()))),
        }
    }
}

/// A library's message, cut where it repeats the client's text at length.
fn short(message: &str) -> String {
    const CHARS_MAX: usize = 500;
    match message.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
