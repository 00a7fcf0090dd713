//! The servers of a stack: killed, frozen, started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names the folder of the stack.
const STACK: &str = "DWELL_TEST_STACK";
/// One test at a time breaks the servers.
static TURN: Mutex<()> = Mutex::new(());

/// Addresses of a stack beside the suite's.
const OTHER_PORTS: [(&str, &str); 4] = [
    ("STACK_KAFKA_PORT", "45092"),
    ("STACK_CASSANDRA_NET", "127.0.45"),
    ("STACK_CASSANDRA_JMX_PORT", "45199"),
    ("STACK_S3_PORT", "45333"),
];

/// The servers, this test's alone while it is held.
pub(crate) struct Stack {
    dir: PathBuf,
    /// The folder of a stack that is this test's alone; `None` for the one that the suite was given.
    own: Option<tempfile::TempDir>,
    turn: Option<MutexGuard<'static, ()>>,
}

impl Stack {
    /// The stack, whole and running; `None`, said on stderr, where there is none to test with.
    pub(crate) fn take() -> Option<Self> {
        let Some(dir) = std::env::var_os(STACK) else {
            eprintln!("skipped: {STACK} names no stack (see deploy/local/up)");
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = Self {
            dir: PathBuf::from(dir),
            own: None,
            turn: Some(turn),
        };
        // What an earlier test has left frozen or dead.
        for server in stack.servers() {
            let _ = Command::new("kill").args(["-CONT", &stack.pid(&server)]).output();
        }
        stack.script("up", &[]);
        Some(stack)
    }

    /// A stack of its own with three Cassandra nodes, stopped when it is dropped; `None` where no stack is to be tested
    /// with.
    pub(crate) fn of_three_nodes() -> Option<Self> {
        let mut shared = Self::take()?;
        let folder = tempfile::tempdir().expect("a folder");
        let stack = Self {
            dir: folder.path().to_owned(),
            own: Some(folder),
            turn: shared.turn.take(),
        };
        stack.script("up", &["--cassandra-nodes", "3"]);
        Some(stack)
    }

    /// Brings a node that was away up to date with the others.
    pub(crate) fn repair(&self, node: usize) {
        self.script("nodetool", &[&node.to_string(), "repair", "--full"]);
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("dwell.toml")
    }

    /// The servers' names, as `up --only` takes them.
    pub(crate) fn servers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).expect("the stack's folder");
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".pid")
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        names
    }

    pub(crate) fn kill(&self, server: &str) {
        self.signal(server, "-KILL");
    }

    /// The server stands still: connections stay open and nobody answers, as behind a network that swallows all.
    pub(crate) fn freeze(&self, server: &str) {
        self.signal(server, "-STOP");
    }

    pub(crate) fn thaw(&self, server: &str) {
        self.signal(server, "-CONT");
    }

    /// Starts a server that was killed, and waits until it answers.
    pub(crate) fn start(&self, server: &str) {
        self.script("up", &["--only", server]);
    }

    /// Deletes a consumer group and its offsets, as Kafka does with groups that were empty for a week.
    pub(crate) fn delete_group(&self, group: &str) {
        let started = std::time::Instant::now();
        loop {
            let done = self.kafka_tool(
                "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                &["--delete", "--group", group],
            );
            if done {
                return;
            }
            assert!(
                started.elapsed().as_secs() < 60,
                "the group {group} cannot be deleted"
            );
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }

    /// Deletes all records that the topics of a prefix hold now.
    pub(crate) fn delete_records(&self, prefix: &str) {
        let kinds = [
            "position",
            "crossing",
            "count",
            "presence",
            "transaction",
            "reading",
            "status",
        ];
        let places: Vec<String> = kinds
            .iter()
            .flat_map(|kind| {
                (0..4).map(move |partition| {
                    format!(r#"{{"topic":"{prefix}.{kind}","partition":{partition},"offset":-1}}"#)
                })
            })
            .collect();
        let file = self.dir.join("delete-records.json");
        let text = format!(r#"{{"partitions":[{}],"version":1}}"#, places.join(","));
        std::fs::write(&file, text).expect("a file");
        let file = file.to_str().expect("a path");
        let args = ["--offset-json-file", file];
        assert!(self.kafka_tool("org.apache.kafka.tools.DeleteRecordsCommand", &args));
    }

    /// Runs one of Kafka's own tools against the broker; whether it succeeded.
    fn kafka_tool(&self, class: &str, args: &[&str]) -> bool {
        let env = std::fs::read_to_string(self.dir.join("stack.env")).expect("stack.env");
        let line = env
            .lines()
            .find_map(|line| line.strip_prefix("export DWELL_TEST_KAFKA="))
            .expect("the broker");
        let output = Command::new("java")
            .args(["-cp", &self.kafka_jars(), class, "--bootstrap-server", line])
            .args(args)
            .output()
            .expect("java");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && !said.contains("Error")
    }

    /// Where the running broker has its classes.
    fn kafka_jars(&self) -> String {
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", self.pid("kafka"))).expect("the broker runs");
        let words: Vec<String> = cmdline
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let at = words.iter().position(|word| word == "-cp").expect("a class path");
        words[at + 1].clone()
    }

    fn signal(&self, server: &str, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.pid(server)])
            .status()
            .expect("kill");
        assert!(status.success(), "{signal} {server}");
    }

    fn pid(&self, server: &str) -> String {
        let file = self.dir.join(format!("{server}.pid"));
        std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
            .trim()
            .to_owned()
    }

    fn script(&self, name: &str, args: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy/local")
            .join(name);
        let output = Command::new(script)
            .envs(self.own.iter().flat_map(|_| OTHER_PORTS))
            .arg(&self.dir)
            .args(args)
            .output()
            .expect("the script runs");
        assert!(
            output.status.success(),
            "deploy/local/{name} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.own.is_some() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/down");
            let _ = Command::new(script).arg(&self.dir).output();
        }
    }
}
