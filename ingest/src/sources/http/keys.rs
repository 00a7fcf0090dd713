//! Keys in front of the routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use dwell_storage::access::{KeyVerifier, Principal};

use super::answer::Problem;
use super::{HttpState, router};

/// Longer headers are no keys.
const HEADER_BYTES_MAX: usize = 512;

/// The routes behind `Authorization: Bearer <key>`.
pub fn authenticated_router(state: HttpState, verifier: Arc<KeyVerifier>) -> Router {
    router(state).route_layer(middleware::from_fn_with_state(verifier, require_key))
}

async fn require_key(State(verifier): State<Arc<KeyVerifier>>, mut request: Request, next: Next) -> Response {
    match principal(&verifier, request.headers()).await {
        Ok(principal) => {
            request.extensions_mut().insert(Arc::new(principal));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn principal(verifier: &KeyVerifier, headers: &HeaderMap) -> Result<Principal, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Problem::unauthenticated(
            "send exactly one header `authorization: Bearer <key>`",
        ));
    };
    let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX);
    let key = text
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = key else {
        return Err(Problem::unauthenticated(
            "send the key as `authorization: Bearer <key>`",
        ));
    };
    let known = verifier.verify(key.trim()).await?;
    known.ok_or_else(|| Problem::unauthenticated("the key is not known, or was taken back"))
}
