//! Flushes to the disk fail, and the power is cut: what was acknowledged is on the disk, and nothing is acknowledged that
//! a failed flush may have lost.
//!
//! The machine keeps what is really on the disk apart: after a failed flush the kernel takes the pages for written, so
//! that what they held is in memory and nowhere else, however many flushes succeed later. Then the power is cut.

use super::is_elsewhere;
use super::machine::Machine;
use super::site::Site;
use crate::harness::json;
use crate::walkers::Dice;

/// An installation whose database files are what was flushed of them, once its power is cut.
fn site() -> Site {
    let machine = Machine::new();
    machine.keep_what_is_flushed();
    Site::on(machine, &[2], "[batch]\nnightly = false\n")
}

#[test]
fn power_cuts_at_random_moments_lose_nothing_acknowledged() {
    if is_elsewhere() {
        return;
    }
    let mut site = site();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut cuts = 0;
    for batch in site.batches(0, 30, 81, 120) {
        if dice.below(5) == 0 {
            // Posted, and the power cut before anybody looked at the answer: sent again, as a gateway would.
            let _ = site.try_post(&batch);
            site.kill();
            site.machine.cut_power(&site.data_dir());
            site.start();
            cuts += 1;
        }
        site.post(&batch);
    }
    site.kill();
    site.machine.cut_power(&site.data_dir());
    assert!(cuts >= 3, "{cuts} cuts");
    assert!(site.machine.good_flushes() > 0);
    site.check();
}

/// A flush of a file fails, after some good ones, while events are posted; then the power is cut.
fn fails(file: &str, after: i64) {
    let mut site = site();
    let batches = site.batches(0, 12, 82, 60);
    let (first, rest) = batches.split_at(batches.len() / 3);
    site.post_all(first);
    site.machine.fail_flushes(file, after, 1);
    let mut refused = None;
    for batch in rest {
        let told = site.try_post(batch);
        if told.as_ref().is_none_or(|told| told.status != 202) {
            refused = Some(told);
            break;
        }
        if site.machine.refused_flushes() > 0 && file.starts_with("data") {
            break;
        }
    }
    if let Some(told) = refused {
        // Not again as though nothing had been: until the next start everything is refused.
        assert!(told.is_none_or(|told| told.status == 503));
        for batch in rest.iter().take(5) {
            let told = site.try_post(batch);
            assert!(told.is_none_or(|told| told.status == 503), "refused for good");
        }
    }
    // It ends by itself, since only a new start knows what is on the disk.
    site.until_gone();
    assert_eq!(site.machine.refused_flushes(), 1, "{file}");
    // The system runs on, and with it what it holds in memory: a new start, more events, and then the power is cut.
    site.start();
    let (second, last) = rest.split_at(rest.len() / 2);
    site.post_all(second);
    site.kill();
    site.machine.cut_power(&site.data_dir());
    site.start();
    site.post_all(last);
    site.kill();
    site.machine.cut_power(&site.data_dir());
    site.check();
}

#[test]
fn what_a_failed_flush_left_in_memory_is_on_the_disk_before_anything_rests_on_it() {
    if is_elsewhere() {
        return;
    }
    let mut site = site();
    let batches = site.batches(0, 12, 83, 60);
    let (first, rest) = batches.split_at(batches.len() / 2);
    site.post_all(first);
    site.machine.fail_flushes("log.db-wal$", 0, 1);
    assert!(site.try_post(&rest[0]).is_none_or(|told| told.status == 503));
    // Killed before anybody noticed. What was not flushed is complete in memory, and is found by the next start, which
    // appends to it.
    site.kill();
    site.start();
    site.post_all(&rest[1..]);
    site.kill();
    site.machine.cut_power(&site.data_dir());
    site.start();
    site.post(&rest[0]);
    site.kill();
    site.machine.cut_power(&site.data_dir());
    site.check();
}

#[test]
fn a_failed_flush_of_the_log_acknowledges_nothing_and_is_not_forgotten() {
    if is_elsewhere() {
        return;
    }
    fails("log.db-wal$", 3);
}

#[test]
fn a_failed_flush_of_the_tables_is_not_forgotten() {
    if is_elsewhere() {
        return;
    }
    fails("data.db-wal$", 3);
}

#[test]
fn a_failed_flush_in_the_archive_fails_the_day_which_is_done_again() {
    if is_elsewhere() {
        return;
    }
    let mut site = Site::configured(&[5, 4, 3, 2], "[batch]\nnightly = false\n");
    for (day, of) in ["parquet$", "_delta_log/", "venue=v1$", "_delta_log$"]
        .into_iter()
        .enumerate()
    {
        let batches = site.batches(day, 8, 85 + day as u64, 2_000);
        site.post_all(&batches);
        let (name, ..) = site.days[day];
        let failed = site.machine.refused_flushes();
        site.machine.fail_flushes(of, 0, 1);
        let id = site.ask_for(&serde_json::json!({
            "kind": "recompute", "venues": "all", "from": name, "to": name
        }));
        let job = site.until_succeeded(&id);
        assert_eq!(site.machine.refused_flushes(), failed + 1, "{of}: {job}");
    }
    json(
        &["jobs", "run", "verify", "--venue", "all", "--wait"],
        &site.data_dir(),
    );
    site.check();
}
