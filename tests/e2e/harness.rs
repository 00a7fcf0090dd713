//! Starts the binary, talks to it, and ends it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary under test.
pub(crate) const DWELL: &str = env!("CARGO_BIN_EXE_dwell");

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Names the configuration of running engines (see `deploy/local/up`); with it every installation of the suite lies on
/// them, and each role is a process of its own. Without it everything is embedded in a folder.
const ENGINES: &str = "DWELL_TEST_CONFIG";

/// A running installation: `dwell up` on a folder, or all roles as processes.
pub(crate) struct Instance {
    processes: Vec<Process>,
    /// Where queries and commands go.
    pub(crate) url: String,
    /// Where events go.
    pub(crate) ingest_url: String,
    pub(crate) key: String,
    agent: ureq::Agent,
}

/// A process of the binary, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens for users; empty where it does not.
    pub(crate) url: String,
    pub(crate) admin_url: String,
}

impl Process {
    /// Starts a role (or `up`) on an installation, and waits until it says that it is ready.
    pub(crate) fn start(role: &str, data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(DWELL);
        command.arg(role).args(place(data_dir));
        if ["up", "ingest", "serve"].contains(&role) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .args(["--admin-listen", "127.0.0.1:0"])
            .env("DWELL_LOG__FILTER", "warn")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dwell starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        stdout.read_line(&mut line).expect("a line when ready");
        let mut urls = line
            .split_whitespace()
            .map(|word| word.trim_matches(['(', ')', ',', '.', ';']))
            .filter(|word| word.starts_with("http://"))
            .map(str::to_owned);
        let url = match line.contains(" at http://") {
            true => urls.next().unwrap_or_else(|| panic!("no address in {line:?}")),
            false => String::new(),
        };
        let admin_url = urls.next().unwrap_or_else(|| panic!("no admin port in {line:?}"));
        Self {
            child,
            url,
            admin_url,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("gone");
    }

    /// Sends a signal by its name (`STOP`, `CONT`, `TERM`).
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success());
    }

    /// Asks it to stop (SIGTERM) and waits; returns whether it ended with 0.
    pub(crate) fn stop(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().expect("gone").success()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// What `/readyz` says.
    pub(crate) fn ready(&self) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let response = agent.get(format!("{}/readyz", self.admin_url)).call();
        read(response.expect("an answer"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The roles that an instance on engines has.
const ROLES: [&str; 6] = ["ingest", "raw-writer", "speed", "batch", "serve", "scheduler"];

/// Whether the suite runs on engines that processes share.
pub(crate) fn on_engines() -> bool {
    std::env::var_os(ENGINES).is_some()
}

/// The flags that name an installation. On engines, the first mention of a folder makes one: names of its own on the
/// running servers, topics and tables in them.
pub(crate) fn place(data_dir: &Path) -> Vec<String> {
    let folder = data_dir.to_str().expect("a path").to_owned();
    let config = data_dir.join("dwell.toml");
    match std::env::var_os(ENGINES) {
        Some(stack) if !config.is_file() => install(Path::new(&stack), &config),
        // A test may have put a configuration there that says more than the folder.
        None if !config.is_file() => return vec!["--data-dir".to_owned(), folder],
        _ => {}
    }
    let config = config.to_str().expect("a path").to_owned();
    vec!["--config".to_owned(), config, "--data-dir".to_owned(), folder]
}

/// The time now, milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

/// Writes a configuration with names of its own on the engines of another one, and makes what they need.
fn install(stack: &Path, config: &Path) {
    let unique = format!(
        "t{:x}{:x}",
        std::process::id(),
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_nanos()
            % 0xffff_ffff_ffff
    );
    let text = std::fs::read_to_string(stack).expect("the configuration of the engines");
    let rename = |line: &str| match line.trim_start().split('=').next().map(str::trim) {
        // The last part of the path is the topic prefix, the keyspace, the folder in the bucket.
        Some("log" | "tables" | "archive") => {
            let (front, back) = line.rsplit_once('/').expect("a URI");
            let (_, end) = back.split_once('"').expect("a quoted URI");
            format!("{front}/{unique}\"{end}")
        }
        _ => line.to_owned(),
    };
    let text: String = text.lines().map(|line| rename(line) + "\n").collect();
    std::fs::create_dir_all(config.parent().expect("a folder")).expect("a folder");
    std::fs::write(config, text).expect("a configuration");
    let made = Command::new(DWELL)
        .args(["migrate", "--config"])
        .arg(config)
        .output()
        .expect("dwell runs");
    assert!(
        made.status.success(),
        "dwell migrate: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// A key for an installation's administrator.
pub(crate) fn admin_key(data_dir: &Path) -> String {
    if !on_engines() {
        let key = std::fs::read_to_string(data_dir.join("admin.key")).expect("admin.key");
        return key.trim().to_owned();
    }
    let kept = data_dir.join("test.key");
    if let Ok(key) = std::fs::read_to_string(&kept) {
        return key;
    }
    let made = json(&["keys", "create", "--role", "admin"], data_dir);
    let key = made["key"].as_str().expect("a key").to_owned();
    std::fs::write(kept, &key).expect("a file");
    key
}

/// On engines, a raw writer for commands: on a folder a command copies the log itself.
pub(crate) fn raw_writer(data_dir: &Path) -> Option<Process> {
    on_engines().then(|| Process::start("raw-writer", data_dir, &[]))
}

/// An HTTP client that keeps no connection: one that the other side has closed would fail the next request.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_idle_connections(0)
        .build()
        .into()
}

impl Instance {
    /// Starts an installation and waits until it says that it is ready.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let roles: &[&str] = if on_engines() { &ROLES } else { &["up"] };
        let processes: Vec<Process> = roles
            .iter()
            .map(|role| Process::start(role, data_dir, env))
            .collect();
        let url_of = |role: &str| {
            let place = roles.iter().position(|known| [role, "up"].contains(known));
            processes[place.expect("a role")].url.clone()
        };
        Self {
            url: url_of("serve"),
            ingest_url: url_of("ingest"),
            key: admin_key(data_dir),
            agent: agent(),
            processes,
        }
    }

    /// Where requests to a path are answered.
    fn base(&self, path: &str) -> &str {
        let path = path.split('?').next().unwrap_or(path);
        if path.ends_with("/events") {
            &self.ingest_url
        } else {
            &self.url
        }
    }

    /// Posts a body; returns status and answer.
    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let response = self
            .agent
            .post(format!("{}{path}", self.base(path)))
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
            .post(format!("{}{path}", self.base(path)))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/x-ndjson")
            .send(body);
        matches!(answer, Ok(response) if response.status().as_u16() == 202)
    }

    /// Gets a path.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let response = self
            .agent
            .get(format!("{}{path}", self.base(path)))
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
            .uri(format!("{}{path}", self.base(path)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(
            self.agent
                .run(request.body(body).expect("a request"))
                .expect("an answer"),
        )
    }

    /// `kill -9` of everything.
    pub(crate) fn kill(self) {
        self.processes.into_iter().for_each(Process::kill);
    }

    /// Asks everything to stop (SIGTERM) and waits; returns whether all ended with 0.
    pub(crate) fn stop(self) -> bool {
        let ends: Vec<bool> = self.processes.into_iter().map(Process::stop).collect();
        ends.into_iter().all(|clean| clean)
    }

    /// What `/readyz` of the first process says.
    pub(crate) fn ready(&self) -> (u16, Value) {
        self.processes[0].ready()
    }

    /// The id of the first process.
    pub(crate) fn pid(&self) -> u32 {
        self.processes[0].id()
    }

    /// The admin port of the first process.
    pub(crate) fn admin_url(&self) -> &str {
        &self.processes[0].admin_url
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.processes.iter_mut().all(Process::is_running)
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
    run_with(args, data_dir, &[])
}

/// The same with environment variables.
pub(crate) fn run_with(args: &[&str], data_dir: &Path, env: &[(&str, &str)]) -> Output {
    Command::new(DWELL)
        .args(args)
        .args(place(data_dir))
        .env("DWELL_LOG__FILTER", "warn")
        .envs(env.iter().copied())
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
