//! Errors as clients see them: RFC 9457 problem details, one kind per way out.
//!
//! Every error of this API, from a wrong path to a panic, leaves as `application/problem+json` with a stable `code`,
//! a `detail` that says what to do, and nothing of the inside. What went wrong inside is logged with the request's id,
//! which the answer carries in `x-request-id`. [`From<StorageError>`] is the one place that maps stores to HTTP.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dwell_storage::error::{ErrorKind, StorageError};
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A kind of problem: stable, documented, told apart by `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemKind {
    /// Stable word for programs.
    pub code: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// What this kind of problem is, for people; the same for all of its kind.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:ident $code:literal $title:literal;)+) => {
        $(
            $(#[$doc])*
            pub const $name: ProblemKind =
                ProblemKind { code: $code, status: StatusCode::$status, title: $title };
        )+

        /// Every kind of problem that this API answers with.
        pub const KINDS: &[ProblemKind] = &[$($name),+];
    };
}

kinds! {
    /// A query or path parameter cannot be read or makes no sense.
    BAD_PARAMETER = BAD_REQUEST "bad-parameter" "A parameter cannot be used";
    /// The body cannot be read.
    BAD_BODY = BAD_REQUEST "bad-body" "The body cannot be used";
    /// `from` and `to` make no range, or one that is too long.
    BAD_RANGE = BAD_REQUEST "bad-range" "The range cannot be answered";
    /// The metric is not known.
    UNKNOWN_METRIC = BAD_REQUEST "unknown-metric" "There is no such metric";
    /// The metric does not merge over what was asked for.
    UNMERGEABLE = BAD_REQUEST "unmergeable" "The metric does not merge over this range or group";
    /// The cursor is broken, or belongs to another query.
    BAD_CURSOR = BAD_REQUEST "bad-cursor" "The cursor cannot be used";
    /// What the cursor pinned is gone.
    STALE_CURSOR = GONE "stale-cursor" "What the cursor points to is no longer kept";
    /// A generation was published, and its numbers are no longer kept.
    GENERATION_GONE = GONE "generation-gone" "The numbers of this generation are no longer kept";
    /// No or a wrong key.
    UNAUTHENTICATED = UNAUTHORIZED "unauthenticated" "A valid key is needed";
    /// The key's role is too small.
    FORBIDDEN = FORBIDDEN "forbidden" "The key may not do this";
    /// The operators of the installation do not let the tenant do this.
    NOT_PERMITTED = FORBIDDEN "not-permitted" "The tenant is not permitted to do this";
    /// Nothing at this path, or nothing of this name.
    NOT_FOUND = NOT_FOUND "not-found" "There is no such thing";
    /// The path has no such method.
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method-not-allowed" "The path does not take this method";
    /// No format of the `Accept` header can be given.
    NOT_ACCEPTABLE = NOT_ACCEPTABLE "not-acceptable" "No acceptable format can be given";
    /// Somebody changed it meanwhile, or its state does not allow it.
    CONFLICT = CONFLICT "conflict" "The state does not allow this";
    /// The body is longer than the limit.
    TOO_LARGE = PAYLOAD_TOO_LARGE "too-large" "The body is too large";
    /// The body is of a type that is not read here.
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body's type is not read here";
    /// The key has used up its rate.
    TOO_MANY_REQUESTS = TOO_MANY_REQUESTS "too-many-requests" "Too many requests";
    /// A mistake in Dwell.
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Dwell made a mistake";
    /// Stored bytes are damaged.
    DAMAGED = INTERNAL_SERVER_ERROR "damaged" "Stored data cannot be read";
    /// Too much at once.
    BUSY = SERVICE_UNAVAILABLE "busy" "Too much is being asked at once";
    /// A store cannot be reached.
    UNAVAILABLE = SERVICE_UNAVAILABLE "unavailable" "A store cannot be reached";
    /// The answer took too long.
    TIMEOUT = GATEWAY_TIMEOUT "timeout" "The answer took too long";
    /// No room for what was to be stored.
    FULL = INSUFFICIENT_STORAGE "full" "There is no room to store this";
}

/// A problem with one request: a kind, and what to do about it.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    parameter: Option<String>,
    retry_after_s: Option<u64>,
    internal: Option<String>,
}

/// Problem details as they are sent (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDto<'a> {
    /// URI of the kind: `urn:dwell:problem:` and the code.
    #[serde(rename = "type")]
    type_uri: String,
    /// The kind for people.
    title: &'a str,
    /// HTTP status.
    status: u16,
    /// The kind for programs.
    code: &'a str,
    /// What is wrong with this request and what to do.
    detail: &'a str,
    /// The parameter that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
}

impl Problem {
    /// A problem of a kind; `detail` says what is wrong with this request and what to do.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            parameter: None,
            retry_after_s: None,
            internal: None,
        }
    }

    /// A parameter that cannot be used.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(BAD_PARAMETER, detail).about(name)
    }

    /// Nothing of this name; `what` for people, for example `venue`.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(NOT_FOUND, format!("there is no {what} {:?}", clip(id)))
    }

    /// A mistake of ours; the text is logged, not sent.
    pub fn internal(what: impl Into<String>) -> Self {
        let detail = "the request failed by a mistake in Dwell; quote x-request-id to its operators";
        Self {
            internal: Some(what.into()),
            ..Self::new(INTERNAL, detail)
        }
    }

    /// Names the parameter that is wrong.
    pub fn about(mut self, parameter: &str) -> Self {
        self.parameter = Some(parameter.to_owned());
        self
    }

    /// Says after how many seconds to try again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Adds what is to be logged and not sent.
    pub fn logging(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }

    /// Its kind.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// What is sent as `detail`.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let (kind, detail, retry_after_s) = match error.kind() {
            ErrorKind::Busy => (
                BUSY,
                "a store has too much to do; send the same again later",
                Some(1),
            ),
            ErrorKind::Unavailable => (
                UNAVAILABLE,
                "a store cannot be reached; send the same again later",
                Some(5),
            ),
            ErrorKind::Conflict => (
                CONFLICT,
                "somebody else changed it meanwhile; read it again, then decide anew",
                None,
            ),
            ErrorKind::NotFound => (NOT_FOUND, "there is nothing of this name", None),
            ErrorKind::Full => (FULL, "the store is full; its operators have to free room", None),
            ErrorKind::Damaged => (
                DAMAGED,
                "stored data is damaged; quote x-request-id to Dwell's operators",
                None,
            ),
            ErrorKind::Invalid => (BAD_PARAMETER, "the store refuses the request as impossible", None),
            ErrorKind::Gap | ErrorKind::Bug => return Problem::internal(error.to_string()),
        };
        let internal = Some(error.to_string());
        Self {
            kind,
            detail: detail.to_owned(),
            parameter: None,
            retry_after_s,
            internal,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem {
            kind,
            detail,
            parameter,
            retry_after_s,
            internal,
        } = self;
        if kind.status.is_server_error() {
            tracing::error!(code = kind.code, detail, internal, "request failed");
        } else {
            tracing::debug!(code = kind.code, detail, internal, "request refused");
        }
        let dto = ProblemDto {
            type_uri: format!("urn:dwell:problem:{}", kind.code),
            title: kind.title,
            status: kind.status.as_u16(),
            code: kind.code,
            detail: &detail,
            parameter: parameter.as_deref(),
        };
        // Texts and a number: writing them to memory cannot fail.
        let body = serde_json::to_vec(&dto).unwrap_or_default();
        let mut response = (kind.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if kind == UNAUTHENTICATED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"dwell\""),
            );
        }
        response
    }
}

/// A fallback for a router that this API is merged into: nothing is at the path.
pub async fn no_such_route() -> Problem {
    Problem::new(NOT_FOUND, NO_SUCH_ROUTE)
}

pub(crate) const NO_SUCH_ROUTE: &str =
    "there is nothing at this path; GET /openapi.json and /docs list what there is";

/// The beginning of a text of the client, short enough to be sent back.
pub(crate) fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = KINDS.iter().map(|kind| kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), KINDS.len());
    }

    #[tokio::test]
    async fn a_stores_words_are_logged_and_not_sent() {
        let error = StorageError::with_source(
            ErrorKind::Unavailable,
            "reading venue_days",
            "disk /dev/sda1 is gone",
        );
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains("sda1") && !text.contains("venue_days"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["type"], "urn:dwell:problem:unavailable");
        assert_eq!(json["status"], 503);
    }

    #[test]
    fn every_kind_of_storage_error_has_its_way_out() {
        for (kind, status) in [
            (ErrorKind::Busy, 503),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Conflict, 409),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Gap, 500),
            (ErrorKind::Damaged, 500),
            (ErrorKind::Full, 507),
            (ErrorKind::Invalid, 400),
            (ErrorKind::Bug, 500),
        ] {
            assert_eq!(
                Problem::from(StorageError::new(kind, "x")).kind().status.as_u16(),
                status,
                "{kind:?}"
            );
        }
    }
}
