//! A shop on the cluster: roles as processes, a gateway that posts until it is told that its events are durable, and
//! the independent numbers that must come out.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Process, admin_key, agent, file, json, place};
use crate::oracle::{Days, Tables, assert_equal, compute, exported, utc_day};
use crate::stack::Stack;
use crate::walkers::{Event, arrival, ndjson, venues, walk, zones};

/// How long a gateway goes on trying to post a batch.
const POST_PATIENCE: Duration = Duration::from_secs(180);
/// How long a role may take to say that it is ready again.
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// An installation on the stack, with its processes.
pub(crate) struct Shop {
    folder: tempfile::TempDir,
    processes: BTreeMap<String, Process>,
    key: String,
    agent: ureq::Agent,
    posts: usize,
    /// The day of the events, and the numbers of all that were posted.
    days: Days,
    posted: Vec<Event>,
}

impl Shop {
    /// An installation of its own, nothing running yet.
    pub(crate) fn open(stack: &Stack) -> Self {
        Self::open_with(stack, |config| config)
    }

    /// The same with the stack's configuration changed.
    pub(crate) fn open_with(stack: &Stack, change: impl FnOnce(String) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = std::fs::read_to_string(stack.config()).expect("the stack's configuration");
        let base = file(folder.path(), "stack.toml", &change(text));
        // SAFETY of the order: tests take turns, so nobody else reads the variable now.
        set_engines(&base);
        place(&folder.path().join("d"));
        let data_dir = folder.path().join("d");
        let venues_file = file(&data_dir, "venues.json", &venues("Etc/UTC"));
        json(
            &["venues", "apply", venues_file.to_str().expect("a path")],
            &data_dir,
        );
        Self {
            key: admin_key(&data_dir),
            folder,
            processes: BTreeMap::new(),
            agent: agent(),
            posts: 0,
            days: utc_day(2),
            posted: Vec::new(),
        }
    }

    /// Somewhere for files of the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// The day that people walk on, two days ago.
    pub(crate) fn day(&self) -> &'static str {
        self.days[0].0
    }

    /// Starts a role under a name of its own (`raw-writer/2`).
    pub(crate) fn start(&mut self, name: &str) {
        self.start_with(name, &[]);
    }

    pub(crate) fn start_with(&mut self, name: &str, env: &[(&str, &str)]) {
        let role = name.split('/').next().expect("a role");
        let process = Process::start(role, &self.data_dir(), env);
        self.processes.insert(name.to_owned(), process);
    }

    /// Starts so many of each role.
    pub(crate) fn start_all(&mut self, of_each: usize) {
        for role in ["ingest", "raw-writer", "speed", "batch", "serve", "scheduler"] {
            for number in 1..=of_each {
                self.start(&format!("{role}/{number}"));
            }
        }
    }

    pub(crate) fn process(&self, name: &str) -> &Process {
        &self.processes[name]
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.processes.keys().cloned().collect()
    }

    /// `kill -9` of a process.
    pub(crate) fn kill(&mut self, name: &str) {
        self.processes.remove(name).expect("a process").kill();
    }

    /// Waits until every process says that it is ready; returns how long it took.
    pub(crate) fn until_ready(&self) -> Duration {
        let started = Instant::now();
        for (name, process) in &self.processes {
            loop {
                let (status, answer) = process.ready();
                if status == 200 {
                    break;
                }
                assert!(
                    started.elapsed() < READY_PATIENCE,
                    "{name} is not ready: {answer}"
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        started.elapsed()
    }

    /// People of a day on their ways, as they arrive: disordered and with redeliveries, in batches.
    pub(crate) fn batches(&self, people: u64, seed: u64) -> Vec<Vec<Event>> {
        let (_, start, end) = self.days[0];
        let mut walked = walk("v1", people, start, end, seed);
        // People of another seed are other people.
        walked
            .iter_mut()
            .for_each(|event| event.track = format!("{seed}-{}", event.track));
        let arriving = arrival(walked, seed ^ 0x5a);
        arriving.chunks(150).map(<[Event]>::to_vec).collect()
    }

    /// Posts a batch to the ingest processes in turn until one says that all of it is durable; returns how long that
    /// took.
    pub(crate) fn post(&mut self, batch: &[Event]) -> Duration {
        let started = Instant::now();
        let body = ndjson(batch);
        loop {
            let ingest: Vec<&Process> = self
                .processes
                .iter()
                .filter(|(name, _)| name.starts_with("ingest") || name.starts_with("up"))
                .map(|(_, process)| process)
                .collect();
            assert!(!ingest.is_empty(), "somebody takes events");
            let url = &ingest[self.posts % ingest.len()].url;
            self.posts += 1;
            let answer = self
                .agent
                .post(format!("{url}/v1/events"))
                .header("authorization", format!("Bearer {}", self.key))
                .header("content-type", "application/x-ndjson")
                .send(body.as_bytes());
            if let Ok(mut answer) = answer {
                let status = answer.status().as_u16();
                if status == 202 {
                    let told: serde_json::Value =
                        serde_json::from_str(&answer.body_mut().read_to_string().expect("a body"))
                            .expect("JSON");
                    assert_eq!(told["accepted"], batch.len(), "{told}");
                    break;
                }
                assert!(
                    [429, 503].contains(&status),
                    "an answer to send again after, not {status}"
                );
                assert!(
                    answer.headers().contains_key("retry-after"),
                    "{status} says when to send again"
                );
            }
            assert!(
                started.elapsed() < POST_PATIENCE,
                "a batch was never acknowledged"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        self.posted.extend_from_slice(batch);
        started.elapsed()
    }

    /// Posts batches one after the other.
    pub(crate) fn post_all(&mut self, batches: &[Vec<Event>]) {
        for batch in batches {
            self.post(batch);
        }
    }

    /// Counts events that came by another road.
    pub(crate) fn has_got(&mut self, events: &[Event]) {
        self.posted.extend_from_slice(events);
    }

    /// What the names of this installation's topics begin with.
    pub(crate) fn log_prefix(&self) -> String {
        let config = std::fs::read_to_string(self.data_dir().join("dwell.toml")).expect("a configuration");
        let line = config
            .lines()
            .find(|line| line.starts_with("log = "))
            .expect("a log");
        let (_, prefix) = line.rsplit_once('/').expect("a URI");
        prefix.split('"').next().expect("a prefix").to_owned()
    }

    /// Waits until the raw writers have copied all of the log.
    pub(crate) fn until_copied(&self) {
        crate::harness::eventually("the log is copied", || {
            let partitions = json(&["log", "positions"], &self.data_dir());
            let all = partitions.as_array().expect("partitions");
            all.iter().all(|at| {
                let copied_to = at["copied_to"].as_i64().unwrap_or(0);
                copied_to >= at["end"].as_i64().expect("an end")
            })
        });
    }

    /// Asks a serving process.
    pub(crate) fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let serve = self
            .processes
            .iter()
            .find(|(name, _)| name.starts_with("serve") || name.starts_with("up"))
            .expect("somebody answers")
            .1;
        let mut answer = self
            .agent
            .get(format!("{}{path}", serve.url))
            .header("authorization", format!("Bearer {}", self.key))
            .call()
            .expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a body");
        let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
        (answer.status().as_u16(), value)
    }

    /// Runs the job that computes everything dirty, and exports the numbers.
    pub(crate) fn recompute(&self) -> Tables {
        let job = json(
            &["jobs", "run", "recompute", "--venue", "all", "--wait"],
            &self.data_dir(),
        );
        assert_eq!(job["state"], "succeeded", "{job}");
        self.export()
    }

    /// The published numbers.
    pub(crate) fn export(&self) -> Tables {
        let out = self.folder.path().join(format!("out-{}", self.posts));
        let _ = std::fs::remove_dir_all(&out);
        json(
            &["export", "--out", out.to_str().expect("a path")],
            &self.data_dir(),
        );
        exported(&out)
    }

    /// What an independent computation makes of everything that was acknowledged.
    pub(crate) fn expected(&self) -> Tables {
        let mut seen = HashSet::new();
        let unique: Vec<Event> = self
            .posted
            .iter()
            .filter(|event| seen.insert(event.ndjson()))
            .cloned()
            .collect();
        compute(&unique, &zones(), &self.days)
    }

    /// Recomputes, and holds the numbers against the independent ones, to the last digit.
    pub(crate) fn check(&self) {
        assert_equal(&self.recompute(), &self.expected());
    }
}

/// Lets the shared harness make installations in folders.
pub(crate) fn set_embedded() {
    #[allow(
        unsafe_code,
        reason = "tests take turns: no other thread reads the environment"
    )]
    unsafe {
        std::env::remove_var("DWELL_TEST_CONFIG");
    }
}

/// Lets the shared harness make installations on these engines.
pub(crate) fn set_engines(config: &Path) {
    // The harness reads it through the process's environment, as the suite's user sets it.
    #[allow(
        unsafe_code,
        reason = "tests take turns: no other thread reads the environment"
    )]
    unsafe {
        std::env::set_var("DWELL_TEST_CONFIG", config);
    }
}
