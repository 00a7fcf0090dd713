//! Starts the binary, talks to it, and ends it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary under test.
pub(crate) const DWELL: &str = env!("CARGO_BIN_EXE_dwell");

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `dwell up`.
pub(crate) struct Instance {
    child: Child,
    pub(crate) url: String,
    pub(crate) key: String,
    agent: ureq::Agent,
}

impl Instance {
    /// Starts an instance on a folder and waits until it says that it is ready.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(DWELL)
            .args([
                "up",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data_dir)
            .env("DWELL_LOG__FILTER", "warn")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dwell starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        stdout.read_line(&mut line).expect("a line when ready");
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .unwrap_or_else(|| panic!("no address in {line:?}"))
            .trim_end_matches([',', '.', ';'])
            .to_owned();
        let key = std::fs::read_to_string(data_dir.join("admin.key"))
            .expect("admin.key")
            .trim()
            .to_owned();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        Self {
            child,
            url,
            key,
            agent: config.into(),
        }
    }

    /// Posts a body; returns status and answer.
    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let response = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", content_type)
            .send(body)
            .expect("an answer");
        read(response)
    }

    /// Posts and says whether it was acknowledged; `false` when the instance is gone.
    pub(crate) fn try_post(&self, path: &str, body: &[u8]) -> bool {
        let answer = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/x-ndjson")
            .send(body);
        matches!(answer, Ok(response) if response.status().as_u16() == 202)
    }

    /// Gets a path.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let response = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .call()
            .expect("an answer");
        read(response)
    }

    /// A request of any method with raw parts.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, Value) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(
            self.agent
                .run(request.body(body).expect("a request"))
                .expect("an answer"),
        )
    }

    /// Runs a command against this instance's folder; panics with its output when it fails.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("gone");
    }

    /// Asks it to stop (SIGTERM) and waits; returns whether it ended with 0.
    pub(crate) fn stop(mut self) -> bool {
        let status = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .expect("kill");
        assert!(status.success());
        self.child.wait().expect("gone").success()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    response
        .body_mut()
        .as_reader()
        .read_to_end(&mut body)
        .expect("the body");
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    (status, value)
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str], data_dir: &Path) -> Output {
    Command::new(DWELL)
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .env("DWELL_LOG__FILTER", "warn")
        .output()
        .expect("dwell runs")
}

/// Runs a command with `--json` that must succeed; returns the one object that it prints.
pub(crate) fn json(args: &[&str], data_dir: &Path) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let output = run(&args, data_dir);
    assert!(
        output.status.success(),
        "{args:?} failed\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout)))
}

/// A file written for a test.
pub(crate) fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

/// Repeats a look until it says yes.
pub(crate) fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    // A test waits by the wall clock, since it watches another process.
    let (started, pause) = (std::time::Instant::now(), || {
        std::thread::sleep(Duration::from_millis(50))
    });
    while !look() {
        assert!(started.elapsed() < PATIENCE, "gave up waiting: {what}");
        pause();
    }
}
