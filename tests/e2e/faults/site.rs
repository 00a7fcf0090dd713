//! An embedded installation on a machine that fails, a gateway that sends again until it is told that its events are
//! durable, and the numbers that must come out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::machine::Machine;
use crate::harness::{Instance, agent, eventually, file, json, run};
use crate::oracle::{Days, assert_equal, compute, exported, utc_day};
use crate::walkers::{Event, arrival, ndjson, venues, walk, zones};

/// How long a gateway goes on trying.
const POST_PATIENCE: Duration = Duration::from_secs(60);

/// What a gateway was told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) body: Value,
}

/// A folder with a venue, and what was acknowledged.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) machine: Machine,
    pub(crate) days: Days,
    acknowledged: Vec<Event>,
    instance: Option<Instance>,
    agent: ureq::Agent,
}

impl Site {
    /// An installation with a venue, not running; its events are of these days, given by how long ago they are.
    pub(crate) fn new(days_ago: &[i64]) -> Self {
        Self::configured(days_ago, "")
    }

    /// The same with further lines in its configuration; `FOLDER` stands for a folder of the test.
    pub(crate) fn configured(days_ago: &[i64], config: &str) -> Self {
        Self::on(Machine::new(), days_ago, config)
    }

    /// The same on a machine that is in a certain state already.
    pub(crate) fn on(machine: Machine, days_ago: &[i64], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("d");
        std::fs::create_dir_all(&data_dir).expect("a folder");
        std::fs::create_dir_all(folder.path().join("archive")).expect("a folder");
        if !config.is_empty() {
            let here = folder.path().to_str().expect("a path");
            file(&data_dir, "dwell.toml", &config.replace("FOLDER", here));
        }
        let mut site = Self {
            folder,
            machine,
            days: days_ago.iter().flat_map(|&ago| utc_day(ago)).collect(),
            acknowledged: Vec::new(),
            instance: None,
            agent: agent(),
        };
        let list = file(&data_dir, "venues.json", &venues("Etc/UTC"));
        site.start();
        json(
            &["venues", "apply", list.to_str().expect("a path")],
            &site.data_dir(),
        );
        site
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// Somewhere for files of the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it on its machine.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    pub(crate) fn start_with(&mut self, env: &[(&str, &str)]) {
        let mut all = self.machine.env();
        all.extend_from_slice(env);
        self.instance = Some(Instance::start_with(&self.data_dir(), &all));
    }

    pub(crate) fn instance(&self) -> &Instance {
        self.instance.as_ref().expect("it runs")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.instance.take().expect("it runs").kill();
    }

    /// Asks it to stop; whether it did so cleanly.
    pub(crate) fn stop(&mut self) -> bool {
        self.instance.take().expect("it runs").stop()
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn until_gone(&mut self) {
        let instance = self.instance.as_mut().expect("it runs");
        eventually("the process has ended", || !instance.is_running());
        self.kill();
    }

    /// People of a day on their ways, as they arrive: disordered, some of it twice.
    pub(crate) fn batches(&self, day: usize, people: u64, seed: u64, size: usize) -> Vec<Vec<Event>> {
        let (_, start, end) = self.days[day];
        let mut walked = walk("v1", people, start, end, seed);
        walked
            .iter_mut()
            .for_each(|event| event.track = format!("{seed}-{}", event.track));
        let arriving = arrival(walked, seed ^ 0x5a);
        arriving.chunks(size).map(<[Event]>::to_vec).collect()
    }

    /// Posts once; `None` when nobody answers. What is acknowledged is kept.
    pub(crate) fn try_post(&mut self, batch: &[Event]) -> Option<Told> {
        let instance = self.instance();
        let sent = self
            .agent
            .post(format!("{}/v1/events", instance.ingest_url))
            .header("authorization", format!("Bearer {}", instance.key))
            .header("content-type", "application/x-ndjson")
            .send(ndjson(batch).as_bytes());
        let mut answer = sent.ok()?;
        let header = answer.headers().get("retry-after");
        let retry_after_s = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let told = Told {
            status: answer.status().as_u16(),
            retry_after_s,
            body: answer.body_mut().read_json().unwrap_or(Value::Null),
        };
        if told.status == 202 {
            assert_eq!(told.body["accepted"], batch.len(), "{told:?}");
            self.acknowledged.extend_from_slice(batch);
        } else {
            assert!(
                [429, 503].contains(&told.status) && told.retry_after_s.is_some(),
                "an answer to send again after: {told:?}"
            );
        }
        Some(told)
    }

    /// Takes these events alone for those that must be there.
    pub(crate) fn expect_only(&mut self, events: &[Event]) {
        self.acknowledged = events.to_vec();
    }

    /// Counts events that came by another road.
    pub(crate) fn has_got(&mut self, events: &[Event]) {
        self.acknowledged.extend_from_slice(events);
    }

    /// Posts until all of it is acknowledged, as a gateway does.
    pub(crate) fn post(&mut self, batch: &[Event]) {
        let started = Instant::now();
        while self.try_post(batch).is_none_or(|told| told.status != 202) {
            assert!(
                started.elapsed() < POST_PATIENCE,
                "a batch was never acknowledged"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn post_all(&mut self, batches: &[Vec<Event>]) {
        batches.iter().for_each(|batch| self.post(batch));
    }

    /// What `/readyz` says: the status, and the check of a part.
    pub(crate) fn readiness(&self, part: &str) -> (u16, Value) {
        let (status, answer) = self.instance().ready();
        let checks = answer["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["name"] == part);
        (status, check.cloned().unwrap_or(Value::Null))
    }

    /// A metric of the admin port by the whole of its name with labels; `None` when it is not there.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let mut answer = self
            .agent
            .get(format!("{}/metrics", self.instance().admin_url()))
            .call()
            .expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
    }

    /// Asks for a job of everything dirty, by the API; its id.
    pub(crate) fn ask_for(&self, job: &Value) -> String {
        let (status, answer) =
            self.instance()
                .post("/v1/jobs", "application/json", job.to_string().as_bytes());
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// A job as it stands.
    pub(crate) fn job(&self, id: &str) -> Value {
        let (status, job) = self.instance().get(&format!("/v1/jobs/{id}"));
        assert_eq!(status, 200, "{job}");
        job
    }

    /// Waits for a job to succeed.
    pub(crate) fn until_succeeded(&self, id: &str) -> Value {
        eventually("the job has succeeded", || {
            let job = self.job(id);
            assert!(
                !["failed", "partial", "cancelled"].contains(&job["state"].as_str().unwrap_or_default()),
                "{job}"
            );
            job["state"] == "succeeded"
        });
        self.job(id)
    }

    /// Recomputes what is dirty, and holds the published numbers against those that an independent computation makes
    /// of what was acknowledged: nothing lost, nothing counted twice.
    pub(crate) fn check(&self) {
        let data_dir = self.data_dir();
        let job = json(
            &["jobs", "run", "recompute", "--venue", "all", "--wait"],
            &data_dir,
        );
        assert_eq!(job["state"], "succeeded", "{job}");
        let out = self.folder.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        json(&["export", "--out", out.to_str().expect("a path")], &data_dir);
        assert_equal(&exported(&out), &compute(&self.expected(), &zones(), &self.days));
    }

    /// What was acknowledged, each event once.
    pub(crate) fn expected(&self) -> Vec<Event> {
        let mut seen = std::collections::HashSet::new();
        let mut events = self.acknowledged.clone();
        events.retain(|event| seen.insert(event.ndjson()));
        events
    }

    /// What a command that must fail says.
    pub(crate) fn refusal(&self, args: &[&str]) -> String {
        let output = run(args, &self.data_dir());
        assert!(!output.status.success(), "{args:?} succeeded");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }
}
