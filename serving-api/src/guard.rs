//! What every request passes, from the outside in:
//!
//! 1. [`observe`]: gives the request an id, catches panics, counts and times it, and turns every error that does not
//!    come from this crate (a wrong path, a wrong method) into problem details.
//! 2. [`bound`]: a place among the requests worked on at a time, and a time limit.
//! 3. [`admit`], per route: the key, its role, its rate. The route table says which role.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dwell_model::ids::TenantId;
use dwell_runtime::clock::{self, Stopwatch};
use dwell_runtime::limits::RateDecision;
use dwell_storage::usage::{self, Amounts};
use futures::FutureExt;
use tracing::Instrument;

use crate::auth::{self, Access};
use crate::extract::Caller;
use crate::metrics;
use crate::problem::{self, NO_SUCH_ROUTE, PROBLEM_JSON, Problem};
use crate::respond::RowsTold;
use crate::state::AppState;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Identifies, times, counts, and keeps panics and foreign errors from leaving as they are.
pub(crate) async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number:x}", state.clock().now_ms());
    let stopwatch = Stopwatch::start();
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("request", id, method, route);
    let answer = async {
        // Unwind safety: nothing of the request is looked at again after a panic.
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => own_words(response),
            Err(panic) => Problem::internal(format!("panic: {}", panic_message(&*panic))).into_response(),
        }
    };
    let mut response = answer.instrument(span).await;
    metrics::answered(
        route,
        method,
        response.status().as_u16(),
        stopwatch.elapsed_seconds(),
    );
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Lets a bounded number through, each for a bounded time (until its answer begins).
pub(crate) async fn bound(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(_permit) = state.gate().try_acquire() else {
        metrics::refused("gate");
        let detail = "as many requests as allowed are being worked on; send the same again in a second";
        return Problem::new(problem::BUSY, detail).retry_after(1).into_response();
    };
    let limit = state.config().request_timeout.as_duration();
    match clock::timeout(state.clock(), limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            metrics::refused("timeout");
            let detail = format!("no answer within {limit:?}; ask for a shorter range or fewer venues");
            Problem::new(problem::TIMEOUT, detail).into_response()
        }
    }
}

/// Lets callers of a sufficient role through, at their rate.
pub(crate) async fn admit(
    State((state, access)): State<(AppState, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Access::AtLeast(role) = access else {
        return next.run(request).await;
    };
    let principal = match auth::authenticate(&state, request.headers()).await {
        Ok(principal) => principal,
        Err(problem) => return problem.into_response(),
    };
    let rate = state
        .rate()
        .check(principal.key_id.as_str(), 1, state.monotonic_ms());
    let mut response = if !rate.allowed {
        metrics::refused("rate");
        let seconds = rate.retry_after_seconds().unwrap_or(60).max(1);
        let detail = format!("the key has sent more requests than it may; go on in {seconds} s");
        Problem::new(problem::TOO_MANY_REQUESTS, detail)
            .retry_after(seconds)
            .into_response()
    } else if let Err(problem) = auth::authorize(&principal, role) {
        problem.into_response()
    } else {
        let tenant = principal.tenant.clone();
        let path = request.uri().path().to_owned();
        request.extensions_mut().insert(Caller(principal));
        let response = next.run(request).await;
        count_usage(&state, &tenant, &path, &response);
        response
    };
    rate_headers(response.headers_mut(), &rate);
    response
}

/// Counts a request and the rows of its answer. Only a venue that answered is known to exist.
fn count_usage(state: &AppState, tenant: &TenantId, path: &str, response: &Response) {
    let status = response.status();
    let venue = (status.is_success() || status == StatusCode::NOT_MODIFIED)
        .then(|| usage::venue_in(path))
        .flatten();
    let rows = response.extensions().get::<RowsTold>().map_or(0, |rows| rows.0);
    let amounts = Amounts::request(rows);
    state
        .usage()
        .count(tenant, venue.as_ref(), usage::module_of(path), "", amounts);
}

fn rate_headers(headers: &mut HeaderMap, rate: &RateDecision) {
    headers.insert(
        HeaderName::from_static("ratelimit-limit"),
        HeaderValue::from(rate.limit),
    );
    headers.insert(
        HeaderName::from_static("ratelimit-remaining"),
        HeaderValue::from(rate.remaining),
    );
    if let Some(seconds) = rate.reset_seconds() {
        headers.insert(
            HeaderName::from_static("ratelimit-reset"),
            HeaderValue::from(seconds),
        );
    }
}

/// An error of a library, in this API's words; its `Allow` header is kept.
fn own_words(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let own = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|found| found == PROBLEM_JSON);
    if own {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let problem = match status {
        StatusCode::NOT_FOUND => Problem::new(problem::NOT_FOUND, NO_SUCH_ROUTE),
        StatusCode::METHOD_NOT_ALLOWED => {
            let methods = allow
                .as_ref()
                .and_then(|allow| allow.to_str().ok())
                .unwrap_or("those in /openapi.json");
            Problem::new(problem::METHOD_NOT_ALLOWED, format!("this path takes {methods}"))
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(problem::TOO_LARGE, "the body is too long; send less at once")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            problem::UNSUPPORTED_MEDIA_TYPE,
            "send content-type: application/json",
        ),
        status if status.is_client_error() => Problem::new(problem::BAD_BODY, "the request cannot be read"),
        status => Problem::internal(format!("an answer of status {status} without problem details")),
    };
    let mut answer = problem.into_response();
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// The method as a label: of few values, whatever clients send.
fn method_word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "without a message",
    }
}
