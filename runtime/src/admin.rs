//! The admin port: is the process alive, can it serve, what does it count, what does it log.
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process can answer at all |
//! | `GET /readyz` | 200 when every check is ok, else 503; JSON with each check either way |
//! | `GET /metrics` | Prometheus text |
//! | `GET /log-filter`, `PUT /log-filter` | the log filter in force; the body of a `PUT` replaces it |
//!
//! The port is for operators and their machines: it has no keys and is bound to loopback unless configured otherwise.
//! It is a port of its own so that it answers while the public one is overloaded, and until the last phase of a
//! shutdown.

use std::io;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::shutdown::ShutdownToken;
use crate::telemetry::{LogHandle, MetricsHandle};

mod readiness;

pub use readiness::{CheckHandle, CheckState, NamedCheck, Readiness, ReadinessReport};

/// A filter is a line; more is a mistake.
const LOG_FILTER_BYTES_MAX: usize = 4096;

/// What the admin port shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The checks behind `/readyz`.
    pub readiness: Readiness,
    /// The recorder behind `/metrics`.
    pub metrics: MetricsHandle,
    /// The logs behind `/log-filter`; without them that route answers 404.
    pub log: Option<LogHandle>,
}

/// The routes of the admin port.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/log-filter", get(log_filter).put(set_log_filter))
        .layer(DefaultBodyLimit::max(LOG_FILTER_BYTES_MAX))
        .with_state(state)
}

/// Serves the admin port until the phase of `shutdown` begins, then ends open connections and returns. The token is
/// best registered for [`Phase::Admin`](crate::shutdown::Phase::Admin).
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: ShutdownToken) -> io::Result<()> {
    axum::serve(listener, router(state))
        .with_graceful_shutdown(shutdown.signal().requested_owned())
        .await
}

async fn healthz() -> Response {
    uncached(Json(json!({ "status": "live" })))
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = state.readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    uncached((status, Json(report)))
}

async fn render_metrics(State(state): State<AdminState>) -> Response {
    (
        [(header::CONTENT_TYPE, MetricsHandle::CONTENT_TYPE)],
        state.metrics.render(),
    )
        .into_response()
}

async fn log_filter(State(state): State<AdminState>) -> Response {
    match state.log {
        Some(log) => uncached(log.filter()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn set_log_filter(State(state): State<AdminState>, filter: String) -> Response {
    let Some(log) = state.log else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match log.set_filter(filter.trim()) {
        Ok(()) => {
            tracing::warn!(
                filter = filter.trim(),
                "log filter replaced through the admin port"
            );
            uncached(log.filter())
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// An answer about now, that nothing in between may keep.
fn uncached(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

#[cfg(test)]
mod tests;
