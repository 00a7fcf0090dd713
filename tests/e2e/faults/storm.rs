//! Random faults for a while, by a seed that is printed and can be played again (see docs/faults.md).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::damage::{damage_pages, move_aside};
use super::machine::Machine;
use super::site::Site;
use super::{archived, flip, is_elsewhere};
use crate::harness::{eventually, json, run};
use crate::walkers::{Dice, Event};

const MINUTE: i64 = 60_000;

/// What can happen, as `DWELL_CHAOS_FAULTS` names it.
const FAULTS: [&str; 8] = [
    "kill", "power", "disk", "flush", "clock", "page", "archive", "missing",
];

/// A number of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The faults that are wanted; all of them unless the environment says otherwise.
fn wanted() -> Vec<&'static str> {
    let Ok(given) = std::env::var("DWELL_CHAOS_FAULTS") else {
        return FAULTS.to_vec();
    };
    given
        .split(',')
        .map(|name| {
            let known = FAULTS.into_iter().find(|known| *known == name.trim());
            known.unwrap_or_else(|| panic!("{name:?} is no fault; there are {FAULTS:?}"))
        })
        .collect()
}

/// An installation in the storm.
struct Storm {
    site: Site,
    dice: Dice,
    backups: String,
}

impl Storm {
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.dice.below(of.len() as u64) as usize]
    }

    /// A fault, while a batch of events is posted; the batch may be acknowledged or not.
    fn strike(&mut self, fault: &str, batch: &[Event]) {
        match fault {
            "kill" | "power" => {
                let _ = self.site.try_post(batch);
                self.restart(fault == "power");
            }
            "disk" => {
                let room = self.dice.below(200_000) as i64;
                self.site.machine.fill(&self.site.data_dir(), room);
                for _ in 0..4 {
                    let _ = self.site.try_post(batch);
                }
                self.site.machine.make_room();
            }
            "flush" => self.fail_a_flush(batch),
            "clock" => {
                let minutes = self.one_of(&[5, 60, 180, 24 * 60]) * self.one_of(&[-1, 1]);
                self.site.machine.set_clock(minutes * MINUTE);
                self.site.post(batch);
                if self.dice.below(2) == 0 {
                    self.restart(false);
                }
                if self.dice.below(2) == 0 {
                    self.site.machine.set_clock(0);
                }
            }
            "page" => self.damage_the_tables(),
            "archive" | "missing" => self.hurt_the_archive(fault == "missing"),
            other => panic!("{other} is no fault"),
        }
    }

    fn restart(&mut self, power_is_cut: bool) {
        self.site.kill();
        if power_is_cut {
            self.site.machine.cut_power(&self.site.data_dir());
        }
        self.site.start();
    }

    fn fail_a_flush(&mut self, batch: &[Event]) {
        let file = self.one_of(&["log.db-wal$", "data.db-wal$"]);
        let before = self.dice.below(4) as i64;
        let failed = self.site.machine.refused_flushes();
        self.site.machine.fail_flushes(file, before, 1);
        for _ in 0..6 {
            let _ = self.site.try_post(batch);
        }
        let has_failed = || self.site.machine.refused_flushes() > failed;
        eventually("a flush has failed", has_failed);
        self.site.machine.fail_flushes("", 0, 0);
        match self.dice.below(2) {
            // Before it has noticed, or when it has ended by itself.
            0 => self.site.kill(),
            _ => self.site.until_gone(),
        }
        if self.dice.below(2) == 0 {
            self.site.machine.cut_power(&self.site.data_dir());
        }
        self.site.start();
    }

    /// The tables are damaged, and rebuilt from the backup, the archive and the log.
    fn damage_the_tables(&mut self) {
        self.site.kill();
        let data_dir = self.site.data_dir();
        let data_db = data_dir.join("data.db");
        // What is still in the WAL would be read instead of the page that it replaces.
        json(&["doctor"], &data_dir);
        damage_pages(&data_db, 1.0);
        let said = self.site.refusal(&["doctor", "--json"]);
        assert!(said.contains("data.db"), "{said}");
        move_aside(&data_db);
        json(
            &["jobs", "run", "restore-backup", "--from", &self.backups, "--wait"],
            &data_dir,
        );
        self.site.machine.settle(&data_dir);
        self.site.start();
    }

    /// A file of the archive is damaged or gone: named, and written anew.
    fn hurt_the_archive(&mut self, is_removed: bool) {
        let data_dir = self.site.data_dir();
        let verify = ["jobs", "run", "verify", "--venue", "all", "--wait"];
        let mut files = archived(&self.site.folder().join("archive"));
        let first = self.dice.below(files.len() as u64) as usize;
        files.rotate_left(first);
        for file in files {
            let bytes = std::fs::read(&file).expect("a file");
            match is_removed {
                true => std::fs::remove_file(&file).expect("a file"),
                false => flip(&file, 0.5),
            }
            let found = run(&verify, &data_dir);
            if found.status.success() {
                // Others have taken its place, and nobody reads it any more: the next one.
                std::fs::write(&file, bytes).expect("a file");
                continue;
            }
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
            let said = String::from_utf8_lossy(&found.stderr).into_owned();
            assert!(said.contains(name), "{name} is named: {said}");
            json(&[&verify[..], &["--option", "repair=true"]].concat(), &data_dir);
            json(&verify, &data_dir);
            return;
        }
        panic!("no file of the archive is missed");
    }
}

#[test]
fn a_storm_of_faults_loses_nothing_and_counts_nothing_twice() {
    if is_elsewhere() {
        return;
    }
    let seed = number("DWELL_CHAOS_SEED").unwrap_or(20_261_121);
    let lasts = Duration::from_secs(number("DWELL_CHAOS_SECONDS").unwrap_or(15));
    let faults = wanted();
    println!(
        "storm with DWELL_CHAOS_SEED={seed} DWELL_CHAOS_SECONDS={} DWELL_CHAOS_FAULTS={}",
        lasts.as_secs(),
        faults.join(",")
    );
    let machine = Machine::new();
    machine.keep_what_is_flushed();
    let config = "[storage]\narchive = \"file://FOLDER/archive\"\n[batch]\nnightly = false\n";
    let mut site = Site::on(machine, &[4, 3, 2], config);
    let first = site.batches(0, 5, seed, 300);
    site.post_all(&first);
    site.check();
    let backups = site.folder().join("backups");
    let backups = format!("file://{}", backups.to_str().expect("a path"));
    json(
        &["jobs", "run", "backup", "--to", &backups, "--wait"],
        &site.data_dir(),
    );
    let mut storm = Storm {
        site,
        dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        backups,
    };
    let until = Instant::now() + lasts;
    let mut tally: BTreeMap<&str, u32> = BTreeMap::new();
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let fault = storm.one_of(&faults);
        println!("{round}: {fault}");
        let batches = storm
            .site
            .batches(round as usize % 3, 2, seed.wrapping_add(round), 200);
        storm.strike(fault, &batches[0]);
        storm.site.post_all(&batches);
        storm.site.check();
        *tally.entry(fault).or_default() += 1;
    }
    println!("survived {round} faults: {tally:?}");
}
