//! The way of a request (see the module above).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dwell_model::ids::{Receipt, VenueId};
use dwell_runtime::clock::Stopwatch;
use dwell_runtime::limits::RateDecision;
use dwell_runtime::tasks;
use dwell_storage::access::Principal;
use sha2::{Digest, Sha256};

use super::answer::{self, Problem};
use super::body::{self, Expansion, Held};
use super::headers::{self, Encoding};
use super::{HttpState, Inner};
use crate::intake::Message;
use crate::metrics;

/// Compressed bodies up to this length are decompressed where they are received.
const INLINE_COMPRESSED_BYTES_MAX: usize = 32 * 1024;
/// Bodies up to this length are hashed where they are received.
const INLINE_HASHED_BYTES_MAX: usize = 256 * 1024;

pub(super) async fn post(State(state): State<HttpState>, request: Request) -> Response {
    answer(&state, None, request).await
}

pub(super) async fn post_to_venue(
    State(state): State<HttpState>,
    venue: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let venue = venue.map(|Path(venue)| venue).unwrap_or_default();
    answer(&state, Some(venue), request).await
}

pub(super) async fn method_not_allowed(method: Method) -> Response {
    let detail = format!("events are sent by POST, not by {method}");
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The path does not take this method",
        detail,
    );
    let mut response = problem.into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn answer(state: &HttpState, venue: Option<String>, request: Request) -> Response {
    let stopwatch = Stopwatch::start();
    let mut rate = None;
    let principal = request.extensions().get::<Arc<Principal>>().map(Arc::clone);
    let named = venue.clone();
    let mut response = take(&state.inner, venue, request, &mut rate)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    if let Some(decision) = rate {
        answer::add_rate_headers(response.headers_mut(), &decision);
    }
    metrics::request(response.status().as_u16(), stopwatch.elapsed());
    if let Some(principal) = principal {
        // Only a venue that took something is known to exist.
        let venue = named.filter(|_| response.status() == StatusCode::ACCEPTED);
        let venue = venue.and_then(|name| VenueId::new(&name).ok());
        state
            .inner
            .intake
            .count_request(&principal.tenant, venue.as_ref());
    }
    response
}

async fn take(
    inner: &Inner,
    venue: Option<String>,
    request: Request,
    rate: &mut Option<RateDecision>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let principal = parts.extensions.get::<Arc<Principal>>().map(Arc::clone);
    let principal =
        principal.ok_or_else(|| Problem::unauthenticated("send a key as `authorization: Bearer <key>`"))?;
    if !principal.may_post() {
        return Err(Problem::forbidden(
            "a viewer's key reads; events are posted with a gateway's or an operator's",
        ));
    }
    check_rate(inner, &principal, rate)?;
    check_lag(inner)?;
    let _place = inner.requests.try_acquire()?;

    let format = headers::format(&parts.headers)?;
    let encoding = headers::encoding(&parts.headers)?;
    let options = headers::options(parts.uri.query(), &parts.headers)?;
    let idempotency_key = headers::idempotency_key(&parts.headers)?;
    let venue = match venue {
        Some(name) => Some(known_venue(inner, &principal, &name).await?),
        None => None,
    };
    if let Some(sent_at) = options.sent_at {
        metrics::clock_skew(inner.clock.now_ms().saturating_sub(sent_at));
    }

    let held = read_body(inner, body, headers::content_length(&parts.headers), encoding).await?;
    let receipt = match idempotency_key {
        Some(key) => receipt(&principal, b'k', venue.as_ref(), key.as_bytes()),
        None => receipt_of_body(&principal, venue.as_ref(), &held.bytes).await?,
    };
    let message = Message {
        principal,
        receipt,
        venue,
        format,
        bytes: held.bytes.clone(),
        source: "http",
        dry_run: options.dry_run,
    };
    let verdict = inner.intake.take(message).await?;
    Ok(answer::verdict(
        &verdict,
        inner.config.refused_listed_max,
        options.dry_run,
    ))
}

fn check_rate(inner: &Inner, principal: &Principal, rate: &mut Option<RateDecision>) -> Result<(), Problem> {
    let Some(limiter) = &inner.rate else { return Ok(()) };
    let decision = limiter.check(
        principal.key_id.as_str(),
        1,
        inner.clock.monotonic().as_millis() as i64,
    );
    *rate = Some(decision);
    if decision.allowed {
        return Ok(());
    }
    let detail = format!(
        "the key may send {} requests at a time; send more events in each",
        decision.limit
    );
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-requests",
        "Too many requests",
        detail,
    );
    Err(problem.retry_after_s(decision.retry_after_seconds().unwrap_or(60)))
}

/// Pushes back while what is in the log cannot be copied in time: it would be trimmed, or fill the disk.
fn check_lag(inner: &Inner) -> Result<(), Problem> {
    let Some(source) = &inner.lag else { return Ok(()) };
    let lag = source.lag();
    if lag.ms <= inner.config.raw_lag_ms_max && lag.events <= inner.config.raw_lag_events_max {
        return Ok(());
    }
    let detail = format!(
        "the raw writer is {} events and {} s behind; send again later",
        lag.events,
        lag.ms / 1_000
    );
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "lagging",
        "Dwell is behind",
        detail,
    )
    .retry_after_s(30))
}

async fn known_venue(inner: &Inner, principal: &Principal, name: &str) -> Result<VenueId, Problem> {
    let unknown = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-venue",
            "There is no such venue",
            "the venue of the path is not known",
        )
    };
    let venue = VenueId::new(name).map_err(|_| unknown())?;
    // Whoever may not post there learns nothing of whether it exists.
    if !principal.may_post_to(&venue) {
        return Err(Problem::forbidden("the key may not post to this venue"));
    }
    let venues = inner.intake.venues().venues(&principal.tenant).await?;
    if venues.contains(&venue) {
        return Ok(venue);
    }
    // It may have been made a moment ago.
    match inner.intake.venues().newer(&principal.tenant, &venues).await? {
        Some(newer) if newer.contains(&venue) => Ok(venue),
        _ => Err(unknown()),
    }
}

async fn read_body(
    inner: &Inner,
    body: Body,
    announced: Option<usize>,
    encoding: Encoding,
) -> Result<Held, Problem> {
    let held = body::read(inner, body, announced).await?;
    metrics::body_bytes(held.bytes.len());
    let expansion = Expansion {
        bytes_max: inner.config.decompressed_bytes_max,
        ratio_max: inner.config.compression_ratio_max,
        memory: inner.memory.clone(),
    };
    if encoding == Encoding::Identity || held.bytes.len() <= INLINE_COMPRESSED_BYTES_MAX {
        return body::decompress(held, encoding, &expansion);
    }
    let work = tasks::blocking("decompress body", move || {
        body::decompress(held, encoding, &expansion)
    })
    .await;
    work.unwrap_or_else(|error| {
        tracing::error!(%error, "a body could not be decompressed");
        Err(Problem::internal())
    })
}

/// Names a request by its body; hashing a long one is work for another thread.
async fn receipt_of_body(
    principal: &Arc<Principal>,
    venue: Option<&VenueId>,
    bytes: &Bytes,
) -> Result<Receipt, Problem> {
    if bytes.len() <= INLINE_HASHED_BYTES_MAX {
        return Ok(receipt(principal, b'b', venue, bytes));
    }
    let (principal, venue, bytes) = (Arc::clone(principal), venue.cloned(), bytes.clone());
    let hashed = tasks::blocking("hash body", move || {
        receipt(&principal, b'b', venue.as_ref(), &bytes)
    })
    .await;
    hashed.map_err(|error| {
        tracing::error!(%error, "a body could not be hashed");
        Problem::internal()
    })
}

/// Names a request: by what its sender calls it, else by what it holds. The venue of the path is part of it, since
/// bodies without venues say the same for each.
fn receipt(principal: &Principal, by: u8, venue: Option<&VenueId>, content: &[u8]) -> Receipt {
    let sender = format!("{}\u{1f}{}", principal.tenant, principal.key_id);
    let mut hash = Sha256::new();
    hash.update([by]);
    hash.update(venue.map_or("", VenueId::as_str).as_bytes());
    hash.update([0x1f]);
    hash.update(content);
    Receipt::derive(sender.as_bytes(), &hash.finalize())
}
