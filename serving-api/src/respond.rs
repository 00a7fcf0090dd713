//! Answers: format by `Accept`, strong `ETag`, `304`, `Cache-Control`.
//!
//! The ETag is a hash of the answer's bytes. Bodies hold nothing that changes without the numbers changing (no time of
//! answering, no request id), so equal generations give equal ETags.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::problem::{self, Problem, clip};

/// How long an answer may be kept by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// Not at all: it is about now, or holds a secret.
    No,
    /// So long; then it asks again with the ETag.
    Seconds(u32),
}

impl Caching {
    /// Something that changes only when somebody changes it.
    pub(crate) const SETTINGS: Self = Self::Seconds(5);
    /// Numbers of closed days with final generations: restated now and then.
    pub(crate) const SETTLED: Self = Self::Seconds(300);
    /// Numbers that are expected to change (days not published, partial).
    pub(crate) const UNSETTLED: Self = Self::Seconds(10);

    /// The shorter of two.
    pub(crate) fn shorter(self, other: Self) -> Self {
        match (self, other) {
            (Caching::Seconds(a), Caching::Seconds(b)) => Caching::Seconds(a.min(b)),
            _ => Caching::No,
        }
    }
}

/// A format that rows can be given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`.
    Json,
    /// `text/csv`.
    Csv,
    /// `application/vnd.apache.arrow.stream`.
    Arrow,
}

impl Format {
    const ALL: [Format; 3] = [Format::Json, Format::Csv, Format::Arrow];

    /// Its media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    fn essence(self) -> &'static str {
        self.media_type().split(';').next().unwrap_or_default()
    }

    /// The format that the client likes best; JSON where it does not care.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        if accepted.is_empty() {
            return Ok(Format::Json);
        }
        let accepted = accepted.join(",");
        let ranges: Vec<(&str, f32)> = accepted.split(',').filter_map(media_range).collect();
        // The most exact range that names a format decides its quality.
        let quality = |format: Format| {
            let essence = format.essence();
            let group = format!("{}/*", essence.split('/').next().unwrap_or_default());
            let named = [essence, &group, "*/*"]
                .into_iter()
                .find_map(|name| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(name)));
            named.map_or(0.0, |(_, quality)| *quality)
        };
        let mut best = (Format::Json, 0.0);
        for format in Format::ALL {
            if quality(format) > best.1 {
                best = (format, quality(format));
            }
        }
        if best.1 > 0.0 {
            return Ok(best.0);
        }
        let known: Vec<_> = Format::ALL.into_iter().map(Format::essence).collect();
        let detail = format!(
            "{:?} cannot be given; accept one of {}",
            clip(&accepted),
            known.join(", ")
        );
        Err(Problem::new(problem::NOT_ACCEPTABLE, detail).about("accept"))
    }
}

fn media_range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let quality = parts
        .find_map(|part| part.strip_prefix("q="))
        .map_or(Some(1.0), |q| q.trim().parse().ok())?;
    Some((range, quality))
}

/// A JSON answer with ETag; `304` without a body where the client has it.
pub(crate) fn json<T: Serialize>(
    request: &HeaderMap,
    value: &T,
    caching: Caching,
) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal(format!("answer: {error}")))?;
    Ok(bytes(request, Format::Json.media_type(), body, caching))
}

/// An answer of any type with ETag; `304` without a body where the client has it.
pub(crate) fn bytes(
    request: &HeaderMap,
    media_type: &'static str,
    body: Vec<u8>,
    caching: Caching,
) -> Response {
    let digest = Sha256::new()
        .chain_update(media_type)
        .chain_update(&body)
        .finalize();
    let etag = format!("\"{}\"", hex::encode(&digest[..16]));
    let known = request.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let listed = value.to_str().unwrap_or_default();
        listed
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
    });
    let mut response = Response::new(if known { Body::empty() } else { Body::from(body) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization"));
    let caching = match caching {
        Caching::No => HeaderValue::from_static("no-store"),
        Caching::Seconds(seconds) => HeaderValue::from_str(&format!("private, max-age={seconds}"))
            .unwrap_or(HeaderValue::from_static("private")),
    };
    headers.insert(header::CACHE_CONTROL, caching);
    response
}

/// How many rows an answer holds, for the count of usage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsTold(pub(crate) u64);

/// The same answer, saying how many rows it holds.
pub(crate) fn with_rows(mut response: Response, rows: usize) -> Response {
    response.extensions_mut().insert(RowsTold(rows as u64));
    response
}

/// A JSON answer to something that changed something: not kept, no ETag.
pub(crate) fn done<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal(format!("answer: {error}")))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: &str) -> Result<Format, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        Format::negotiate(&headers)
    }

    #[test]
    fn the_client_gets_what_it_likes_best_of_what_there_is() {
        assert_eq!(Format::negotiate(&HeaderMap::new()).unwrap(), Format::Json);
        for (accept, format) in [
            ("*/*", Format::Json),
            ("text/csv", Format::Csv),
            ("TEXT/CSV", Format::Csv),
            ("text/*", Format::Csv),
            ("application/*", Format::Json),
            ("application/vnd.apache.arrow.stream", Format::Arrow),
            ("application/json;q=0.5, text/csv;q=0.9", Format::Csv),
            ("text/html, */*;q=0.1", Format::Json),
            ("application/json;q=0, */*", Format::Csv),
        ] {
            assert_eq!(accepting(accept).unwrap(), format, "{accept}");
        }
        for accept in ["image/png", "application/json;q=0", "text/html", "nonsense"] {
            assert_eq!(
                accepting(accept).unwrap_err().kind(),
                problem::NOT_ACCEPTABLE,
                "{accept}"
            );
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let none = HeaderMap::new();
        let first = bytes(&none, "application/json", b"{}".to_vec(), Caching::SETTLED);
        let etag = first.headers()[header::ETAG].clone();
        assert_eq!(first.status(), StatusCode::OK);
        for known in [
            etag.to_str().unwrap().to_owned(),
            format!("\"x\", W/{}", etag.to_str().unwrap()),
            "*".into(),
        ] {
            let mut request = HeaderMap::new();
            request.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&known).unwrap());
            let again = bytes(&request, "application/json", b"{}".to_vec(), Caching::SETTLED);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()[header::ETAG], etag);
            let changed = bytes(&request, "application/json", b"[]".to_vec(), Caching::SETTLED);
            assert_eq!(changed.status() == StatusCode::OK, known != "*");
        }
        // Another format of the same numbers has another strong ETag.
        let csv = bytes(&none, "text/csv", b"{}".to_vec(), Caching::SETTLED);
        assert_ne!(csv.headers()[header::ETAG], etag);
    }
}
