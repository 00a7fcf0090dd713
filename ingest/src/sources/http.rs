//! Events over HTTP.
//!
//! | route | venue |
//! |---|---|
//! | `POST /v1/venues/{venue}/events` | the path's; an event that names another is refused |
//! | `POST /v1/events` | each event names its own |
//!
//! Bodies are `application/json` (an array of events, or one), `application/x-ndjson` or `text/csv`, optionally `gzip`
//! or `zstd`. `?dry_run=true` decides and stores nothing. `Idempotency-Key` names a request for retries; without it the
//! body does. `sent_at` (query, or header `X-Sent-At`) tells the sender's clock.
//!
//! | answer | when |
//! |---|---|
//! | 202 | anything was taken, and is durable; the body lists what was not, by index |
//! | 200 | a dry run in which anything would be taken |
//! | 422 | every event was refused; same body |
//! | 400, 408, 413, 415 | nothing was taken: the body cannot be read |
//! | 401, 403, 404 | nothing was taken: no key, not this key, no such venue |
//! | 429, 503 | nothing was taken, or it is not known: wait `Retry-After`, then send the same again |
//!
//! **The way of a request.** Who sends ▶ rate of the key ▶ back-pressure (the raw writer's lag, requests and bytes in
//! flight) ▶ headers ▶ body ▶ decompress, hash ▶ [`Intake::take`] ▶ answer. Everything before the body costs no memory.

mod answer;
mod body;
mod config;
mod handler;
mod headers;
mod keys;
mod openapi;

pub use answer::Problem;
pub use config::HttpConfig;
pub use keys::authenticated_router;
pub use openapi::openapi;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::limits::{Gate, RateLimiter};

use crate::intake::Intake;
use crate::raw_writer::LagSource;

/// What the routes share. Cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    inner: Arc<Inner>,
}

struct Inner {
    config: HttpConfig,
    intake: Intake,
    lag: Option<Arc<dyn LagSource>>,
    requests: Gate,
    /// Counts KiB.
    memory: Gate,
    rate: Option<RateLimiter<String>>,
    clock: SharedClock,
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl HttpState {
    /// State over an intake. `lag` tells how far the raw writer is behind; without it there is no back-pressure from
    /// there.
    pub fn new(
        config: HttpConfig,
        intake: Intake,
        lag: Option<Arc<dyn LagSource>>,
        clock: SharedClock,
    ) -> Self {
        let inner = Inner {
            intake,
            lag,
            requests: Gate::new("ingest requests in flight", config.requests_in_flight_max),
            memory: Gate::new("ingest memory (KiB)", config.memory_gate_kib()),
            rate: config
                .rate
                .map(|rate| RateLimiter::new(rate, config.rate_keys_max)),
            clock,
            config,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

/// The routes. They expect an `Extension<Arc<Principal>>` (see [`dwell_storage::access::Principal`]) from a middleware
/// in front of them, and refuse what comes without; [`authenticated_router`] brings its own.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route(
            "/v1/venues/{venue}/events",
            post(handler::post_to_venue).fallback(handler::method_not_allowed),
        )
        .route(
            "/v1/events",
            post(handler::post).fallback(handler::method_not_allowed),
        )
        .with_state(state)
}

#[cfg(test)]
mod tests;
