//! Answers: the verdict on a message, and problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dwell_runtime::limits::{Busy, RateDecision};
use dwell_storage::error::{ErrorKind, StorageError};
use serde::Serialize;

use crate::intake::{IntakeError, Verdict};
use crate::metrics;
use crate::refusal::{BodyError, RefusedEvent};

const PROBLEM_JSON: &str = "application/problem+json";

/// Why nothing of a request was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word for programs.
    pub code: &'static str,
    /// For people, the same for all of its code.
    pub title: &'static str,
    /// What is wrong with this request and what to do.
    pub detail: String,
    /// After how many seconds to send the same again.
    pub retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct ProblemDetails<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    /// A problem that sending again does not mend.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// Says when to send the same again.
    pub(super) fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            code,
            "The request cannot be used",
            detail,
        )
    }

    pub(super) fn too_large(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            code,
            "The body is too large",
            detail,
        )
    }

    pub(super) fn unsupported(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            "The body's type is not read here",
            detail,
        )
    }

    pub(super) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "A valid key is needed",
            detail,
        )
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The key may not do this",
            detail,
        )
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "Too much is being sent at once",
            detail,
        )
        .retry_after_s(1)
    }

    pub(super) fn internal() -> Self {
        let detail = "the mistake is Dwell's, and was logged; sending the same again changes nothing twice";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Dwell made a mistake",
            detail,
        )
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Problem::busy(busy.to_string())
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let detail = error.to_string();
        match error {
            BodyError::Empty => Problem::bad_request("empty-body", detail),
            BodyError::InvalidUtf8 { .. } => Problem::bad_request("invalid-utf8", detail),
            BodyError::JsonSyntax { .. } => Problem::bad_request("json-syntax", detail),
            BodyError::CsvHeader(_) => Problem::bad_request("csv-header", detail),
            BodyError::CsvSyntax { .. } => Problem::bad_request("csv-syntax", detail),
            BodyError::EventTooLong { .. } => Problem::too_large("line-too-long", detail),
            BodyError::TooManyEvents { .. } => Problem::too_large("too-many-events", detail),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let unavailable = |code, title, detail, seconds| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after_s(seconds)
        };
        match error.kind() {
            ErrorKind::Busy => Problem::busy("the event log is full of work; send the same again"),
            ErrorKind::Unavailable => {
                tracing::warn!(%error, "a store cannot be reached");
                let detail = "a store cannot be reached; send the same again, it will not be counted twice";
                unavailable("unavailable", "A store cannot be reached", detail, 5)
            }
            ErrorKind::Full => {
                tracing::error!(%error, "there is no room to store events");
                let detail =
                    "the disk that keeps events is full; send the same again when an operator has made room";
                unavailable("full", "There is no room to store this", detail, 60)
            }
            ErrorKind::Conflict => {
                tracing::warn!(%error, "what a request rested on was changed");
                unavailable(
                    "conflict",
                    "Something changed meanwhile",
                    "send the same again",
                    1,
                )
            }
            ErrorKind::Damaged => {
                tracing::error!(%error, "events cannot be stored: a store is damaged");
                let detail = "a store is damaged and has to be mended; send the same again then, it will not be \
                              counted twice";
                unavailable("damaged", "A store is damaged", detail, 60)
            }
            ErrorKind::NotFound | ErrorKind::Gap | ErrorKind::Invalid | ErrorKind::Bug => {
                tracing::error!(%error, "events could not be stored");
                Problem::internal()
            }
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Body(error) => error.into(),
            IntakeError::Storage(error) => error.into(),
            IntakeError::Blocking(error) => {
                tracing::error!(%error, "events could not be decoded");
                Problem::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        metrics::message_refused(self.code);
        let details = ProblemDetails {
            r#type: format!("urn:dwell:problem:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[derive(Serialize)]
struct VerdictBody {
    receipt: String,
    accepted: u64,
    refused: Vec<RefusedEvent>,
    refused_total: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// The answer to a message that could be read.
pub(super) fn verdict(verdict: &Verdict, listed_max: usize, dry_run: bool) -> Response {
    let status = match (verdict.accepted, dry_run) {
        (0, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (_, true) => StatusCode::OK,
        (_, false) => StatusCode::ACCEPTED,
    };
    let body = VerdictBody {
        receipt: verdict.receipt.to_string(),
        accepted: verdict.accepted,
        refused: verdict
            .refused
            .iter()
            .take(listed_max)
            .map(RefusedEvent::from)
            .collect(),
        refused_total: verdict.refused.len(),
        dry_run,
    };
    (status, Json(body)).into_response()
}

/// Tells a sender how much of its rate is left.
pub(super) fn add_rate_headers(headers: &mut HeaderMap, decision: &RateDecision) {
    let values = [
        ("ratelimit-limit", Some(u64::from(decision.limit))),
        ("ratelimit-remaining", Some(u64::from(decision.remaining))),
        ("ratelimit-reset", decision.reset_seconds()),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}
