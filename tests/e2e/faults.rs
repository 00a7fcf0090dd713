//! An embedded installation on a machine that fails (see `machine`): a full disk, flushes that fail, power cuts, a clock
//! that is wrong, damaged files, `kill -9` at every failpoint, two of everything. After each, no acknowledged event is
//! lost, none is counted twice, the numbers are those of the independent computation, and the damage was named.
//!
//! On engines these tests have nothing to do: the disks are those of the engines. `tests/cluster` fails those.

use std::path::{Path, PathBuf};

mod clock;
mod damage;
mod disk;
mod failpoints;
mod flush;
pub(crate) mod machine;
mod site;
mod storm;
mod twice;

/// Says that a test is for folders alone.
pub(crate) fn is_elsewhere() -> bool {
    let elsewhere = crate::harness::on_engines();
    if elsewhere {
        println!("skipped: nothing is embedded");
    }
    elsewhere
}

/// The data files of an archive in a folder.
fn archived(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(archived(&path));
        } else if path.extension().is_some_and(|end| end == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Turns a byte of a file into another one, so far into it.
fn flip(file: &Path, place: f64) {
    let mut bytes = std::fs::read(file).expect("a file");
    let at = (bytes.len() as f64 * place) as usize;
    bytes[at] ^= 0x55;
    std::fs::write(file, bytes).expect("a file");
}
