//! Two of everything on one folder: one has it, and the other is told who.

use std::process::{Command, Stdio};

use super::is_elsewhere;
use super::site::Site;
use crate::harness::{DWELL, json, place};
use crate::walkers::ndjson;

#[test]
fn of_two_processes_on_one_folder_one_works_and_the_other_is_told_which() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    let batches = site.batches(0, 12, 51, 400);
    let (first, rest) = batches.split_at(batches.len() / 2);
    site.post_all(first);
    let refused = |args: &[&str]| {
        let said = site.refusal(args);
        let holder = format!("in use by process {}", site.instance().pid());
        assert!(said.contains(&holder), "{args:?}: {said}");
    };
    refused(&["up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    refused(&["doctor"]);
    // A command asks the one that runs.
    json(&["jobs", "list"], &site.data_dir());
    site.post_all(rest);
    site.check();
}

#[test]
fn of_many_who_begin_on_one_folder_at_once_one_gets_it_and_nothing_is_done_twice() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    let batches = site.batches(0, 12, 52, 2_000);
    site.post_all(&batches);
    site.kill();
    // Imports of the same file by four processes at once: what one has done the others find done.
    let lines = site.folder().join("again.ndjson");
    let all: Vec<_> = batches.concat();
    std::fs::write(&lines, ndjson(&all)).expect("a file");
    let begun: Vec<_> = (0..4)
        .map(|_| {
            Command::new(DWELL)
                .args(["import", lines.to_str().expect("a path")])
                .args(place(&site.data_dir()))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("dwell runs")
        })
        .collect();
    let mut worked = 0;
    for child in begun {
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => worked += 1,
            false => assert!(said.contains("is in use by"), "{said}"),
        }
    }
    assert!(worked >= 1, "somebody did");
    site.check();
}
