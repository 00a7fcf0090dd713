//! Answers from before, while the tables are away.
//!
//! A dashboard that has been answered once goes on being answered: each good answer to a query is kept, and given again
//! when the same question meets stores that cannot be reached, or that keep it waiting. Such an answer says how old it
//! is (`Age`, in seconds) and that it is not fresh (`Warning: 110`), as RFC 9111 has it. What is kept is bounded in
//! bytes and in age; whoever asks has been admitted first, and tenants never share an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use dwell_runtime::clock;
use hashbrown::HashMap;

use crate::extract::Caller;
use crate::metrics;
use crate::state::AppState;

/// Most bytes of answers that are kept; half of them may be forgotten at once.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Longest answer that is kept.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Oldest answer that is given.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long the stores may take before an older answer is given instead.
const PATIENCE: Duration = Duration::from_secs(3);

/// The answers kept. Two maps instead of a list by use: when the young one is full it becomes the old one, and the old
/// one is forgotten.
#[derive(Default)]
pub(crate) struct KeptAnswers {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    young: HashMap<String, Arc<Answer>>,
    young_bytes: usize,
    old: HashMap<String, Arc<Answer>>,
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
    /// On the monotonic clock.
    answered_at: Duration,
}

impl std::fmt::Debug for KeptAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptAnswers").finish_non_exhaustive()
    }
}

impl KeptAnswers {
    fn get(&self, question: &str) -> Option<Arc<Answer>> {
        let kept = self.lock();
        kept.young
            .get(question)
            .or_else(|| kept.old.get(question))
            .cloned()
    }

    fn put(&self, question: String, answer: Answer) {
        let mut kept = self.lock();
        let bytes = question.len() + answer.body.len();
        if kept.young_bytes + bytes > KEPT_BYTES_MAX / 2 {
            kept.old = std::mem::take(&mut kept.young);
            kept.young_bytes = 0;
        }
        kept.young_bytes += bytes;
        if let Some(before) = kept.young.insert(question, Arc::new(answer)) {
            kept.young_bytes = kept.young_bytes.saturating_sub(bytes.min(before.body.len()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps good answers, and gives them again when the stores do not answer. For queries (`GET`) behind
/// [`admit`](crate::guard::admit).
pub(crate) async fn answer_from_before(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(question) = question(&request) else {
        return next.run(request).await;
    };
    // A question with a condition may be answered with "not modified", which is no answer to keep.
    let known = state.answers().get(&question);
    let Some(known) = known else {
        return keep(&state, question, next.run(request).await).await;
    };
    let age = state.clock().monotonic().saturating_sub(known.answered_at);
    if age > AGE_MAX {
        return keep(&state, question, next.run(request).await).await;
    }
    match clock::timeout(state.clock(), PATIENCE, next.run(request)).await {
        Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
            keep(&state, question, answer).await
        }
        _ => {
            metrics::answered_stale();
            known.with_age(age)
        }
    }
}

/// What tells one question from another.
fn question(request: &Request) -> Option<String> {
    let Caller(principal) = request.extensions().get::<Caller>()?;
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or("*/*");
    Some(format!("{}\n{accept}\n{}", principal.tenant, request.uri()))
}

async fn keep(state: &AppState, question: String, response: Response) -> Response {
    let is_whole = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX);
    if response.status() != StatusCode::OK || !is_whole {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_BYTES_MAX as usize).await else {
        // A body whose length is known lies in memory and does not fail.
        return Response::from_parts(parts, Body::empty());
    };
    let answer = Answer {
        headers: parts.headers.clone(),
        body: bytes.clone(),
        answered_at: state.clock().monotonic(),
    };
    state.answers().put(question, answer);
    Response::from_parts(parts, Body::from(bytes))
}

impl Answer {
    fn with_age(&self, age: Duration) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        let headers = response.headers_mut();
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::WARNING,
            HeaderValue::from_static("110 dwell \"Response is Stale: the stores cannot be reached\""),
        );
        response
    }
}
