//! What a request's headers and query say.

use axum::http::{HeaderMap, HeaderName, header};
use dwell_model::time::{TsMs, parse_ts};

use super::answer::Problem;
use crate::decode::Format;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SENT_AT: HeaderName = HeaderName::from_static("x-sent-at");
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// What the query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) dry_run: bool,
    pub(super) sent_at: Option<TsMs>,
}

/// The format of the body.
pub(super) fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let known = "application/json, application/x-ndjson and text/csv are read here";
    let Some(value) = single(headers, &header::CONTENT_TYPE)? else {
        return Err(Problem::unsupported(
            "unsupported-media-type",
            format!("there is no content-type; {known}"),
        ));
    };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        if let Some((name, charset)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("charset")
            && !charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        {
            let detail = "the body must be UTF-8; another charset is not read here";
            return Err(Problem::unsupported("unsupported-charset", detail));
        }
    }
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(Format::Ndjson)
        }
        "text/csv" => Ok(Format::Csv),
        _ => Err(Problem::unsupported(
            "unsupported-media-type",
            format!("the content-type is not known; {known}"),
        )),
    }
}

/// How the body is compressed.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    match single(headers, &header::CONTENT_ENCODING)?
        .map(|value| value.trim().to_ascii_lowercase())
        .as_deref()
    {
        None | Some("" | "identity") => Ok(Encoding::Identity),
        Some("gzip" | "x-gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(_) => Err(Problem::unsupported(
            "unsupported-encoding",
            "the content-encoding is not known; gzip and zstd are read here, one at a time",
        )),
    }
}

/// The length that a body is said to have.
pub(super) fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The name that the sender gives to the request, if any.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let refuse = || {
        let detail =
            format!("idempotency-key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters");
        Problem::bad_request("bad-idempotency-key", detail)
    };
    let Some(key) = single(headers, &IDEMPOTENCY_KEY).map_err(|_| refuse())? else {
        return Ok(None);
    };
    let good = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|b| (0x20..0x7f).contains(&b));
    if good { Ok(Some(key)) } else { Err(refuse()) }
}

/// What the query and the header `X-Sent-At` ask for. A parameter that is not known is refused: a misspelt `dry_run`
/// would store what should only be looked at.
pub(super) fn options(query: Option<&str>, headers: &HeaderMap) -> Result<Options, Problem> {
    let refuse = |detail: &str| Problem::bad_request("bad-parameter", detail);
    let mut options = Options::default();
    let mut sent_at = single(headers, &SENT_AT)?.map(str::to_owned);
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value) {
            ("dry_run", "" | "true" | "1") => options.dry_run = true,
            ("dry_run", "false" | "0") => options.dry_run = false,
            ("dry_run", _) => return Err(refuse("dry_run must be true or false")),
            ("sent_at", value) => sent_at = Some(percent_decoded(value)),
            _ => return Err(refuse("a query parameter is not known; dry_run and sent_at are")),
        }
    }
    if let Some(text) = sent_at {
        let read = parse_ts(&text);
        let detail = "sent_at must be an integer of milliseconds since 1970, or RFC 3339 with an offset";
        options.sent_at = Some(read.map_err(|_| refuse(detail))?);
    }
    Ok(options)
}

/// The one value of a header; that it stands twice, or is no text, is a problem.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let refuse = || {
        Problem::bad_request(
            "bad-header",
            format!("the header {name} must stand once, in ASCII"),
        )
    };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refuse());
    }
    value.to_str().map(Some).map_err(|_| refuse())
}

/// A query value as text. RFC 3339 holds a plus sign, which many clients leave as it is: it stays one.
fn percent_decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (rest, _) = match decoded {
            Some(byte) => (&tail[2..], out.push(byte)),
            None => (tail, out.push(*first)),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn formats_and_encodings_have_their_names() {
        let of = |value| format(&headers(&[("content-type", value)])).map_err(|problem| problem.code);
        assert_eq!(of("application/json; charset=\"UTF-8\""), Ok(Format::Json));
        assert_eq!(of("Application/X-NDJSON"), Ok(Format::Ndjson));
        assert_eq!(of("text/csv;header=present"), Ok(Format::Csv));
        assert_eq!(of("text/csv; charset=latin1"), Err("unsupported-charset"));
        assert_eq!(
            of("application/x-www-form-urlencoded"),
            Err("unsupported-media-type")
        );
        assert_eq!(of("ä"), Err("bad-header"));
        assert_eq!(
            format(&HeaderMap::new()).unwrap_err().code,
            "unsupported-media-type"
        );
        let of = |value| encoding(&headers(&[("content-encoding", value)])).map_err(|problem| problem.code);
        assert_eq!(
            (of("GZIP"), of("zstd"), of("identity")),
            (Ok(Encoding::Gzip), Ok(Encoding::Zstd), Ok(Encoding::Identity))
        );
        assert_eq!(
            (of("br"), of("gzip, gzip")),
            (Err("unsupported-encoding"), Err("unsupported-encoding"))
        );
    }

    #[test]
    fn a_query_is_understood_or_refused() {
        let of = |query: &str| options(Some(query), &HeaderMap::new()).map_err(|problem| problem.code);
        let dry = |dry_run| {
            Ok(Options {
                dry_run,
                sent_at: None,
            })
        };
        assert_eq!(
            (of(""), of("dry_run"), of("dry_run=true&"), of("dry_run=false")),
            (dry(false), dry(true), dry(true), dry(false))
        );
        for query in ["dryrun=true", "dry_run=yes", "sent_at=now", "sent_at", "x"] {
            assert_eq!(of(query), Err("bad-parameter"), "{query}");
        }
        for sent_at in [
            "1645780665470",
            "2022-02-25T09%3A17%3A45.470Z",
            "2022-02-25T10:17:45.470+01:00",
            "2022-02-25T10:17:45.470%2B01:00",
        ] {
            let query = format!("sent_at={sent_at}");
            assert_eq!(of(&query).unwrap().sent_at, Some(1_645_780_665_470), "{sent_at}");
        }
        let header = headers(&[("x-sent-at", "1645780665470")]);
        assert_eq!(options(None, &header).unwrap().sent_at, Some(1_645_780_665_470));
    }

    #[test]
    fn idempotency_keys_are_short_and_plain() {
        let of = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            idempotency_key(&headers)
                .map(|key| key.map(str::to_owned))
                .map_err(|problem| problem.code)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("idempotency-key", "a 1")]), Ok(Some("a 1".to_owned())));
        let long = "x".repeat(256);
        for bad in [
            &[("idempotency-key", "")][..],
            &[("idempotency-key", "é")],
            &[("idempotency-key", &long)],
            &[("idempotency-key", "a"), ("idempotency-key", "b")],
        ] {
            assert_eq!(of(bad), Err("bad-idempotency-key"));
        }
    }
}
