//! Bytes of the database files are damaged: it is named which file, nothing wrong is shown as right, and the way back
//! that docs/faults.md tells gives every acknowledged event once.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::is_elsewhere;
use super::site::Site;
use crate::harness::{eventually, json as command};
use crate::walkers::Event;

/// Bytes of a page of Dwell's databases.
const PAGE: usize = 8_192;

/// Fills the cells of a table's or an index's leaf pages with rubbish, of so many of them; the root and what stands at
/// the front of the file are left alone, so that the file still opens.
pub(super) fn damage_pages(database: &Path, share: f64) -> usize {
    let mut bytes = std::fs::read(database).expect("a file");
    let pages = bytes.len() / PAGE;
    let leaves: Vec<usize> = (1..pages)
        // The first byte of a page is its kind: 0x0a a leaf of an index, 0x0d of a table.
        .filter(|page| [0x0a, 0x0d].contains(&bytes[page * PAGE]))
        .collect();
    let hurt = ((leaves.len() as f64 * share).ceil() as usize).max(1);
    for page in leaves.iter().rev().take(hurt) {
        for byte in &mut bytes[page * PAGE..page * PAGE + 64] {
            *byte ^= 0xff;
        }
    }
    std::fs::write(database, bytes).expect("a file");
    hurt
}

/// Moves a database aside with what belongs to it.
pub(super) fn move_aside(database: &Path) {
    let name = database
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let folder = database.parent().expect("a folder");
    let aside = folder.parent().expect("a folder").join("aside");
    std::fs::create_dir_all(&aside).expect("a folder");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::rename(
            folder.join(format!("{name}{end}")),
            aside.join(format!("{name}{end}")),
        );
    }
}

/// An installation with two days, one of them computed and backed up, the other only taken; stopped.
fn prepared() -> (Site, String) {
    let mut site = Site::configured(
        &[3, 2],
        "[storage]\narchive = \"file://FOLDER/archive\"\n[batch]\nnightly = false\n",
    );
    let backups = site.folder().join("backups");
    let backups = format!("file://{}", backups.to_str().expect("a path"));
    let first = site.batches(0, 20, 31, 400);
    site.post_all(&first);
    site.check();
    command(
        &["jobs", "run", "backup", "--to", &backups, "--wait"],
        &site.data_dir(),
    );
    let second = site.batches(1, 20, 32, 400);
    site.post_all(&second);
    assert!(site.stop());
    (site, backups)
}

/// What `dwell doctor` says is wrong.
fn doctor(site: &Site) -> String {
    site.refusal(&["doctor", "--json"])
}

#[test]
fn damaged_tables_are_named_and_rebuilt_from_backup_archive_and_log() {
    if is_elsewhere() {
        return;
    }
    let (site, backups) = prepared();
    let data_db = site.data_dir().join("data.db");
    assert!(damage_pages(&data_db, 1.0) > 0);
    let said = doctor(&site);
    assert!(
        said.contains("data.db") && said.contains("docs/faults.md"),
        "{said}"
    );
    // Nothing is computed of it.
    let refused = site.refusal(&["jobs", "run", "recompute", "--venue", "all", "--wait"]);
    assert!(
        refused.contains("data.db") && refused.contains("damaged"),
        "{refused}"
    );

    move_aside(&data_db);
    let data_dir = site.data_dir();
    command(
        &["jobs", "run", "restore-backup", "--from", &backups, "--wait"],
        &data_dir,
    );
    command(&["doctor"], &data_dir);
    site.check();
}

#[test]
fn a_page_damaged_while_it_runs_is_told_and_does_not_end_what_works() {
    if is_elsewhere() {
        return;
    }
    let (mut site, backups) = prepared();
    site.start();
    let data_db = site.data_dir().join("data.db");
    assert!(damage_pages(&data_db, 1.0) > 0);
    let (day, ..) = site.days[0];
    let path = format!("/v1/venues/v1/metrics?metric=visits&from={day}&to={day}&by=hour");
    let (status, answer) = site.instance().get(&path);
    match status {
        // Read before the damage.
        200 => {}
        _ => assert_eq!(
            (status, &answer["code"]),
            (500, &Value::from("damaged")),
            "{answer}"
        ),
    }
    let asked = json!({"kind": "recompute", "venues": "all", "options": {"force": true}}).to_string();
    let _ = site
        .instance()
        .post("/v1/jobs", "application/json", asked.as_bytes());
    let alarm = "dwell_folder_trouble{folder=\"data\",trouble=\"damaged\"}";
    eventually("the damage is told", || site.metric(alarm) == Some(1.0));
    eventually("the damage is told to who asks whether it is ready", || {
        let (_, check) = site.readiness("folder");
        check["detail"]
            .as_str()
            .is_some_and(|said| said.contains("data.db"))
    });
    // The log is another file: events are taken, and are there when the tables have been rebuilt.
    let more = site.batches(1, 5, 33, 400);
    let taken = more
        .iter()
        .filter(|batch| site.try_post(batch).is_some_and(|told| told.status == 202))
        .count();
    site.kill();
    move_aside(&data_db);
    command(
        &["jobs", "run", "restore-backup", "--from", &backups, "--wait"],
        &site.data_dir(),
    );
    site.start();
    site.post_all(&more[taken..]);
    site.check();
}

#[test]
fn a_damaged_log_loses_only_what_it_names() {
    if is_elsewhere() {
        return;
    }
    let (mut site, _) = prepared();
    // A process that is stopped leaves to the next one what it has not copied; here nothing is to be in the log alone.
    site.check();
    let log_db = site.data_dir().join("log.db");
    assert!(damage_pages(&log_db, 1.0) > 0);
    let said = doctor(&site);
    assert!(
        said.contains("log.db") && said.contains("docs/faults.md"),
        "{said}"
    );
    // What is in the tables is not lost with it: everything acknowledged had been copied.
    move_aside(&log_db);
    site.start();
    let more = site.batches(1, 5, 34, 400);
    site.post_all(&more);
    eventually("it is ready", || site.instance().ready().0 == 200);
    site.check();
    assert!(site.stop());
    command(&["doctor"], &site.data_dir());
}

#[test]
fn of_a_log_that_is_damaged_in_the_middle_all_that_can_be_read_counts_and_the_rest_is_named() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[2], "[batch]\nnightly = false\n");
    site.kill();
    // Nothing is copied into the tables: the log alone has it.
    site.start_with(&[("DWELL_FAILPOINTS", "raw_writer.before_apply=error")]);
    // Each is a record of the log, in this order.
    let batches = site.batches(0, 25, 36, 100);
    site.post_all(&batches);
    site.kill();
    // Reads the file, and brings all of it from the WAL into its place.
    command(&["doctor"], &site.data_dir());
    let log_db = site.data_dir().join("log.db");
    let mut bytes = std::fs::read(&log_db).expect("a file");
    let leaves: Vec<(usize, Vec<usize>)> = (1..bytes.len() / PAGE)
        .map(|page| (page * PAGE, rows_of_leaf(&bytes[page * PAGE..(page + 1) * PAGE])))
        .filter(|(_, rows)| rows.len() > 1 && rows.iter().all(|row| *row + 20 < batches.len()))
        .collect();
    let (page, lost) = &leaves[leaves.len() / 2];
    bytes[*page..page + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(&log_db, bytes).expect("a file");

    site.start();
    let damaged = || site.metric("dwell_raw_writer_damaged_records_total");
    eventually("each record that is lost is counted", || {
        damaged() == Some(lost.len() as f64)
    });
    eventually("all others are copied", || {
        site.metric("dwell_raw_writer_lag_events") == Some(0.0)
    });
    let left = |(number, batch): (usize, &Vec<Event>)| (!lost.contains(&number)).then(|| batch.clone());
    let left: Vec<Event> = batches.iter().enumerate().filter_map(left).flatten().collect();
    site.expect_only(&left);
    site.check();
    // The sender has them still.
    lost.iter().for_each(|number| site.post(&batches[*number]));
    assert_eq!(site.expected().len(), distinct(&batches));
    site.check();
}

/// Events of batches, those that come again left out.
fn distinct(batches: &[Vec<Event>]) -> usize {
    let lines: std::collections::HashSet<String> = batches.iter().flatten().map(Event::ndjson).collect();
    lines.len()
}

/// The row numbers that a leaf page of a SQLite table holds, by the format's description; none of any other page.
fn rows_of_leaf(page: &[u8]) -> Vec<usize> {
    if page[0] != 0x0d {
        return Vec::new();
    }
    let number = |at: usize| usize::from(page[at]) << 8 | usize::from(page[at + 1]);
    // Seven bits in each byte, the highest says whether another one follows.
    let varint = |mut at: usize| {
        let mut value = 0;
        loop {
            value = value << 7 | usize::from(page[at] & 0x7f);
            at += 1;
            if page[at - 1] & 0x80 == 0 {
                return (value, at);
            }
        }
    };
    let cells = (0..number(3)).map(|cell| number(8 + 2 * cell));
    cells
        .map(|cell| {
            let (_, behind_length) = varint(cell);
            varint(behind_length).0
        })
        .collect()
}

#[test]
fn damaged_keys_are_named_and_a_new_file_goes_on() {
    if is_elsewhere() {
        return;
    }
    let (mut site, _) = prepared();
    let keys_db: PathBuf = site.data_dir().join("keys.db");
    // Its first page: not even the schema can be read.
    super::flip(&keys_db, 0.0);
    let said = doctor(&site);
    assert!(said.contains("keys.db"), "{said}");
    let refused = site.refusal(&["up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert!(
        refused.contains("keys.db") && refused.contains("docs/faults.md"),
        "{refused}"
    );
    move_aside(&keys_db);
    site.start();
    let more = site.batches(1, 5, 35, 400);
    site.post_all(&more);
    site.check();
}
