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
    ("STACK_KAFKA_PORT", "29092"),
    ("STACK_CASSANDRA_NET", "127.0.9"),
    ("STACK_CASSANDRA_JMX_PORT", "27199"),
    ("STACK_S3_PORT", "20333"),
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
