//! An embedded installation is moved onto the engines.

use std::path::Path;

use crate::harness::{Instance, file, json};
use crate::oracle::assert_equal;
use crate::shop::{Shop, set_embedded, set_engines};
use crate::stack::Stack;
use crate::walkers::{Event, ndjson, venues};

/// A shop of one folder that has archived some of its events, holds others in raw and the last in its log only, has
/// refused one, and dies.
fn embedded(folder: &Path, batches: &[Vec<Event>]) {
    let venues_file = file(
        folder.parent().expect("a folder"),
        "venues.json",
        &venues("Etc/UTC"),
    );
    json(
        &["venues", "apply", venues_file.to_str().expect("a path")],
        folder,
    );
    let shop = Instance::start(folder);
    let (archived, later) = batches.split_at(batches.len() / 2);
    let post = |batch: &Vec<Event>| {
        assert!(
            shop.try_post("/v1/events", ndjson(batch).as_bytes()),
            "acknowledged"
        );
    };
    archived.iter().for_each(post);
    let job = json(&["jobs", "run", "recompute", "--venue", "all", "--wait"], folder);
    assert_eq!(job["state"], "succeeded", "{job}");
    later.iter().for_each(post);
    let (status, answer) = shop.post("/v1/events", "application/x-ndjson", b"{\"venue\":\"v1\"}");
    assert_eq!(status, 422, "{answer}");
    shop.kill();
}

#[test]
fn an_embedded_installation_moves_without_losing_an_event() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    let batches = shop.batches(30, 41);
    let from = shop.folder().join("embedded");
    set_embedded();
    embedded(&from, &batches);
    set_engines(&shop.folder().join("stack.toml"));
    let from = from.to_str().expect("a path");
    let moved = json(&["migrate-data", "--from", from], &shop.data_dir());
    assert_eq!(moved["quarantine_entries"], 1, "{moved}");
    let mut again = json(&["migrate-data", "--from", from], &shop.data_dir());
    assert_eq!(again["archive_bytes"], 0, "the files are there already");
    again["archive_bytes"] = moved["archive_bytes"].clone();
    assert_eq!(again, moved, "a repetition moves the same");
    batches.iter().for_each(|batch| shop.has_got(batch));
    shop.start_all(1);
    let published = shop.recompute();
    assert_equal(&published, &shop.expected());
    // What was taken before the move is known after it, and life goes on.
    shop.post(&batches[0]);
    shop.post(&batches[batches.len() - 1]);
    for batch in shop.batches(5, 42) {
        shop.post(&batch);
    }
    shop.check();
    let (status, refused) = shop.get("/v1/quarantine");
    assert_eq!(status, 200, "{refused}");
    assert_eq!(refused["entries"].as_array().map(Vec::len), Some(1), "{refused}");
}
