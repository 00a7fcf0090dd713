//! A machine that fails on command: its disk fills, its flushes fail, its clock is wrong, its power is cut.
//!
//! `machine.c` stands between the binary and the operating system (`LD_PRELOAD`) and follows a block of memory that
//! both share: [`Machine`] writes it. The binary knows nothing of it, and it needs no rights. It is compiled by the C
//! compiler that building the binary needs anyway.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Bytes of a text in the shared block.
const TEXT: usize = 1_024;
/// Numbers at the front of the block, by their order in `struct control`.
const CLOCK_OFFSET_MS: u64 = 0;
const ROOM_BYTES: u64 = 1;
const FLUSHES_BEFORE: u64 = 2;
const FLUSHES_FAILING: u64 = 3;
const REFUSED_WRITES: u64 = 4;
const REFUSED_FLUSHES: u64 = 5;
const GOOD_FLUSHES: u64 = 6;
const NUMBERS: u64 = 7;
/// Texts behind them.
const FULL_BELOW: u64 = 0;
const FAILING_FLUSH: u64 = 1;
const SHADOWS: u64 = 2;
const TEXTS: u64 = 3;

/// Whose processes get [`Machine::env`] live on it.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    block: File,
    env: [(String, String); 2],
}

impl Machine {
    /// A machine on which everything works.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let block = options.open(&path).expect("a file");
        block.set_len(NUMBERS * 8 + TEXTS * TEXT as u64).expect("a file");
        let env = [
            ("LD_PRELOAD".to_owned(), text(library()).to_owned()),
            ("DWELL_TEST_MACHINE".to_owned(), text(&path).to_owned()),
        ];
        let machine = Self { folder, block, env };
        machine.make_room();
        machine
    }

    /// What puts a process onto the machine.
    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        self.env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// Sets the wall clock so far off; the monotonic one goes on.
    pub(crate) fn set_clock(&self, offset_ms: i64) {
        self.set(CLOCK_OFFSET_MS, offset_ms);
    }

    /// Leaves so many bytes of room to files below a folder.
    pub(crate) fn fill(&self, below: &Path, room_bytes: i64) {
        self.set_text(FULL_BELOW, text(below));
        self.set(ROOM_BYTES, room_bytes);
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        self.set(ROOM_BYTES, -1);
    }

    /// Lets `times` flushes fail, after `before` good ones, of files whose path contains a text (ends in it, where the
    /// text ends in `$`).
    pub(crate) fn fail_flushes(&self, of: &str, before: i64, times: i64) {
        self.set(FLUSHES_FAILING, 0);
        self.set_text(FAILING_FLUSH, of);
        self.set(FLUSHES_BEFORE, before);
        self.set(FLUSHES_FAILING, times);
    }

    /// Keeps from now on what a power cut would leave of database files. For processes that are not started yet, on
    /// files that are not there yet.
    pub(crate) fn keep_what_is_flushed(&self) {
        std::fs::create_dir_all(self.shadows()).expect("a folder");
        self.set_text(SHADOWS, text(&self.shadows()));
    }

    /// What a power cut leaves, once the processes are gone: of each database file what was flushed.
    pub(crate) fn cut_power(&self, data_dir: &Path) {
        for entry in std::fs::read_dir(data_dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let shadow = self.shadows().join(name);
            if name.ends_with(".db") || name.ends_with(".db-wal") {
                match std::fs::read(&shadow) {
                    Ok(flushed) => std::fs::write(&path, flushed).expect("a file"),
                    // It was never flushed.
                    Err(_) => std::fs::write(&path, []).expect("a file"),
                }
            } else if name.ends_with(".db-shm") {
                std::fs::remove_file(&path).expect("a file");
            }
        }
    }

    /// Everything in a folder that nobody has open is on the disk: what commands beside the machine did to it, too.
    pub(crate) fn settle(&self, data_dir: &Path) {
        let _ = std::fs::remove_dir_all(self.shadows());
        std::fs::create_dir_all(self.shadows()).expect("a folder");
        for entry in std::fs::read_dir(data_dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if name.ends_with(".db") || name.ends_with(".db-wal") {
                std::fs::copy(&path, self.shadows().join(name)).expect("a file");
            }
        }
    }

    /// Writes that found no room.
    pub(crate) fn refused_writes(&self) -> i64 {
        self.get(REFUSED_WRITES)
    }

    /// Flushes that failed.
    pub(crate) fn refused_flushes(&self) -> i64 {
        self.get(REFUSED_FLUSHES)
    }

    /// Flushes that did not.
    pub(crate) fn good_flushes(&self) -> i64 {
        self.get(GOOD_FLUSHES)
    }

    fn shadows(&self) -> PathBuf {
        self.folder.path().join("shadows")
    }

    fn set(&self, number: u64, value: i64) {
        self.block
            .write_all_at(&value.to_ne_bytes(), number * 8)
            .expect("the block");
    }

    fn get(&self, number: u64) -> i64 {
        let mut bytes = [0; 8];
        self.block
            .read_exact_at(&mut bytes, number * 8)
            .expect("the block");
        i64::from_ne_bytes(bytes)
    }

    fn set_text(&self, place: u64, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        assert!(bytes.len() < TEXT, "{value} is too long");
        bytes.resize(TEXT, 0);
        self.block
            .write_all_at(&bytes, NUMBERS * 8 + place * TEXT as u64)
            .expect("the block");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// The compiled machine, made once by each run of the tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{}.c", std::process::id()));
        std::fs::write(&source, include_str!("machine.c")).expect("a file");
        let library = source.with_extension("so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let made = Command::new(&compiler)
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}: a C compiler is needed, as for the binary"));
        assert!(
            made.status.success(),
            "{compiler}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        library
    })
}
