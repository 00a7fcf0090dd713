//! Talking to Dwell over its HTTP API: to a running instance, or to the same router inside this process.
//!
//! Every command is written once against the API; [`Transport`] decides where it is answered.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

use crate::jobs::Awaited;

/// Largest answer that is read into memory; downloads go to files.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where requests are answered.
enum Transport {
    /// By another process.
    Http { base: String, agent: ureq::Agent },
    /// By this process.
    InProcess {
        router: Router,
        /// Told for which jobs this process is to work.
        awaited: Arc<Awaited>,
    },
}

/// A caller of the API with its key.
pub(crate) struct Client {
    transport: Transport,
    key: String,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client of the instance at a URL like `http://127.0.0.1:7070`.
    pub(crate) fn http(url: &str, key: &str) -> Result<Self> {
        let base = url.trim_end_matches('/');
        if !base.starts_with("http://") {
            bail!("{url:?}: expected http://HOST:PORT (put a TLS proxy's plain side here)");
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Ok(Self {
            transport: Transport::Http {
                base: base.to_owned(),
                agent: config.into(),
            },
            key: key.to_owned(),
        })
    }

    /// A client of a router in this process.
    pub(crate) fn in_process(router: Router, awaited: Arc<Awaited>, key: &str) -> Self {
        Self {
            transport: Transport::InProcess { router, awaited },
            key: key.to_owned(),
        }
    }

    /// Says that a job is waited for: inside this process it is then worked on.
    pub(crate) fn awaits(&self, job: &str) {
        match &self.transport {
            Transport::InProcess { awaited, .. } => awaited.add(job),
            Transport::Http { .. } => {}
        }
    }

    /// Sends a request with an optional JSON body and reads the whole answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let content_type = body.map(|_| "application/json");
        self.send_bytes(method, path, content_type, bytes).await
    }

    /// Sends bytes of a content type.
    pub(crate) async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        bytes: Vec<u8>,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::ACCEPT, "application/json");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        match &self.transport {
            Transport::InProcess { router, .. } => {
                let request = request.uri(path).body(Body::from(bytes))?;
                let response = router.clone().oneshot(request).await?;
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX as usize).await?;
                Ok(Answer {
                    status,
                    body: body.to_vec(),
                })
            }
            Transport::Http { base, agent } => {
                let request = request.uri(format!("{base}{path}")).body(bytes)?;
                let (agent, base) = (agent.clone(), base.clone());
                let answer = dwell_runtime::tasks::blocking("http request", move || -> Result<Answer> {
                    let mut response = agent
                        .run(request)
                        .with_context(|| format!("no answer from {base}"))?;
                    let status = response.status().as_u16();
                    let body = response
                        .body_mut()
                        .with_config()
                        .limit(ANSWER_BYTES_MAX)
                        .read_to_vec()?;
                    Ok(Answer { status, body })
                });
                answer.await?
            }
        }
    }

    /// Sends a file's bytes as the body, without holding it in memory. Only to another process.
    pub(crate) async fn upload(&self, path: &str, file: &Path) -> Result<Answer> {
        let Transport::Http { base, agent } = &self.transport else {
            bail!("an upload within one process makes no sense");
        };
        let url = format!("{base}{path}");
        let (agent, key, file) = (agent.clone(), self.key.clone(), file.to_owned());
        let answer = dwell_runtime::tasks::blocking("upload", move || -> Result<Answer> {
            let opened =
                std::fs::File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
            let mut response = agent
                .put(&url)
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", "application/octet-stream")
                .send(opened)
                .with_context(|| format!("no answer from {url}"))?;
            let status = response.status().as_u16();
            let body = response
                .body_mut()
                .with_config()
                .limit(ANSWER_BYTES_MAX)
                .read_to_vec()?;
            Ok(Answer { status, body })
        });
        answer.await?
    }

    /// Reads an answer into a file; returns its size. Only from another process.
    pub(crate) async fn download(&self, path: &str, file: &Path) -> Result<u64> {
        let Transport::Http { base, agent } = &self.transport else {
            bail!("a download within one process makes no sense");
        };
        let url = format!("{base}{path}");
        let (agent, key, file) = (agent.clone(), self.key.clone(), file.to_owned());
        let bytes = dwell_runtime::tasks::blocking("download", move || -> Result<u64> {
            let mut response = agent
                .get(&url)
                .header("authorization", format!("Bearer {key}"))
                .call()
                .with_context(|| format!("no answer from {url}"))?;
            let status = response.status().as_u16();
            if status != 200 {
                let mut body = Vec::new();
                response
                    .body_mut()
                    .as_reader()
                    .take(64 * 1024)
                    .read_to_end(&mut body)?;
                return Err(Answer { status, body }.refusal());
            }
            let mut out =
                std::fs::File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(std::io::copy(&mut response.body_mut().as_reader(), &mut out)?)
        });
        bytes.await?
    }

    /// Sends a request and reads the JSON of a 2xx answer; anything else is an error with the problem's own words.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T> {
        self.send(method, path, body).await?.json()
    }

    /// Reads a list that comes in pages, to its end: the first page, with the entries of all pages in `field`.
    pub(crate) async fn get_all(&self, path: &str, field: &str) -> Result<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut whole: Value = self.get(path).await?;
        while let Some(cursor) = whole["next_cursor"].as_str() {
            let mut page: Value = self
                .get(&format!("{path}{joint}cursor={}", escape(cursor)))
                .await?;
            let entries = page[field].as_array_mut().map(std::mem::take);
            if let Some(known) = whole[field].as_array_mut() {
                known.extend(entries.unwrap_or_default());
            }
            whole["next_cursor"] = page["next_cursor"].take();
        }
        Ok(whole)
    }

    /// Reads JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::GET, path, None).await
    }
}

impl Answer {
    /// The JSON of a 2xx answer; anything else is an error with the problem's own words.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        if !(200..300).contains(&self.status) {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).context("the answer is not the expected JSON")
    }

    fn refusal(&self) -> anyhow::Error {
        let problem: Option<Value> = serde_json::from_slice(&self.body).ok();
        let word = |name: &str| {
            problem
                .as_ref()
                .and_then(|p| p.get(name))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        match (word("title"), word("detail")) {
            (_, Some(detail)) => anyhow::anyhow!("{detail} (HTTP {})", self.status),
            (Some(title), None) => anyhow::anyhow!("{title} (HTTP {})", self.status),
            (None, None) => anyhow::anyhow!("HTTP {}", self.status),
        }
    }
}

/// Escapes a value for use in a query string or path segment.
pub(crate) fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_read_page_by_page_to_its_end() {
        use axum::extract::RawQuery;
        use axum::{Json, routing};
        use serde_json::json;
        let pages = |RawQuery(query): RawQuery| async move {
            Json(match query.as_deref() {
                Some("limit=2") => json!({"venue": "v", "days": [1, 2], "next_cursor": "a b"}),
                Some("limit=2&cursor=a%20b") => json!({"venue": "v", "days": [3, 4], "next_cursor": "c"}),
                Some("limit=2&cursor=c") => json!({"venue": "v", "days": [5], "next_cursor": null}),
                other => json!({"asked": other}),
            })
        };
        let awaited = Arc::new(Awaited::new(Arc::default()));
        let client = Client::in_process(Router::new().route("/list", routing::get(pages)), awaited, "key");
        let whole = client.get_all("/list?limit=2", "days").await.unwrap();
        assert_eq!(
            whole,
            json!({"venue": "v", "days": [1, 2, 3, 4, 5], "next_cursor": null})
        );
    }

    #[test]
    fn values_are_escaped_for_urls() {
        assert_eq!(escape("a b/ü+:"), "a%20b%2F%C3%BC%2B%3A");
    }

    #[test]
    fn a_refusal_speaks_the_problems_words() {
        let body = br#"{"title":"Not found","detail":"there is no venue \"x\""}"#.to_vec();
        let error = Answer { status: 404, body }.json::<Value>().unwrap_err();
        assert_eq!(error.to_string(), "there is no venue \"x\" (HTTP 404)");
    }
}
