//! Killed at any moment, by `SIGKILL`: what was acknowledged is there, what is there is whole.
//!
//! The process that dies is this test binary, started again with the [`child`] test alone. It prints what it was
//! acknowledged; the test reads that, kills it, and opens what it left.
#![allow(
    clippy::print_stdout,
    reason = "the process that is killed tells the test what it was acknowledged"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dwell_model::event::Kind;
use dwell_runtime::clock::SystemClock;
use dwell_storage::api::{
    ConsumerPosition, EventLogReader, EventLogWriter, Mark, MarkSource, RawEventsReader, RawEventsWriter,
    RawWrite,
};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::conformance::samples::{DAY_START, delivered, delivery, events, receipt, record, shop};
use dwell_storage::error::ErrorKind;
use dwell_storage::lock::DataDirLock;
use dwell_storage::paths::DataPaths;

use super::open;

const DIR: &str = "DWELL_CRASH_DIR";
const ROLE: &str = "DWELL_CRASH_ROLE";
const EVENTS_PER_STEP: usize = 300;

/// A process that works until it is killed.
struct Victim {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Victim {
    fn start(role: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next acknowledgement: two numbers.
    fn acknowledged(&mut self) -> (i64, i64) {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let Some((_, numbers)) = line.split_once("acknowledged ") else {
                continue;
            };
            let mut numbers = numbers.split(' ').map(|number| number.parse().unwrap());
            return (numbers.next().unwrap(), numbers.next().unwrap());
        }
        panic!("the process ended by itself");
    }

    /// Kills it, and returns what it was acknowledged meanwhile.
    fn kill(mut self) -> Vec<(i64, i64)> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = Vec::new();
        for line in self.lines.by_ref().map_while(Result::ok) {
            // The last line may be cut off.
            if let Some((_, numbers)) = line.split_once("acknowledged ")
                && let Some((a, b)) = numbers.split_once(' ')
                && let (Ok(a), Ok(b)) = (a.parse(), b.strip_suffix(" .").unwrap_or("").parse())
            {
                rest.push((a, b));
            }
        }
        rest
    }
}

/// Works in the directory that the environment names, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the other tests start and kill"]
async fn child() {
    let (Ok(dir), Ok(role)) = (std::env::var(DIR), std::env::var(ROLE)) else {
        return;
    };
    let paths = DataPaths::new(dir);
    let _lock = DataDirLock::acquire(&paths).unwrap();
    let stores = SqliteStores::open(&paths, SystemClock::shared()).await.unwrap();
    match role.as_str() {
        "append" => append_for_ever(&stores).await,
        _ => apply_for_ever(&stores).await,
    }
}

async fn append_for_ever(stores: &SqliteStores) {
    let end = stores.log.bounds(0).await.unwrap().end;
    let append = |caller: i64| async move {
        for n in 0.. {
            let number = caller * 1_000_000 + end * 100 + n;
            let batch = events(Kind::Position, DAY_START, 1 + n as usize % 400, 0);
            let appended = stores
                .log
                .append(vec![record(&shop(), number as u128, batch)])
                .await
                .unwrap();
            println!("acknowledged {} {number} .", appended[0].position);
        }
    };
    futures::future::join_all((0..4).map(append)).await;
}

fn step(number: i64) -> RawWrite {
    let rows = delivered(
        events(Kind::Position, DAY_START + number * 1_000_000, EVENTS_PER_STEP, 0),
        delivery(number, number as u128),
    );
    let mark = Mark {
        venue: shop(),
        slot: 1,
        source: MarkSource::log(1, 0),
        position: number,
    };
    RawWrite {
        rows: vec![(shop(), rows)],
        marks: vec![mark],
        position: Some(ConsumerPosition {
            consumer: "raw-writer",
            epoch: 1,
            partition: 0,
            position: number + 1,
        }),
    }
}

async fn apply_for_ever(stores: &SqliteStores) {
    let first = stores
        .raw
        .position("raw-writer", 1, 0)
        .await
        .unwrap()
        .unwrap_or(0);
    for number in first.. {
        stores.raw.apply(step(number)).await.unwrap();
        println!("acknowledged {number} 0 .");
    }
}

#[tokio::test]
async fn no_acknowledged_record_is_lost_and_none_is_half_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<i64, i64> = BTreeMap::new();
    let mut epoch = None;
    for calls in [40, 3, 25] {
        let mut victim = Victim::start("append", dir.path());
        for _ in 0..calls {
            let (position, number) = victim.acknowledged();
            acknowledged.insert(position, number);
        }
        acknowledged.extend(victim.kill());

        let stores = open(dir.path()).await;
        assert_eq!(*epoch.get_or_insert(stores.log.epoch()), stores.log.epoch());
        let bounds = stores.log.bounds(0).await.unwrap();
        let read = stores.log.read(0, 0, usize::MAX).await.unwrap();
        assert_eq!((bounds.start, bounds.end), (0, read.next));
        let positions: Vec<i64> = read.records.iter().map(|logged| logged.position).collect();
        assert_eq!(positions, (0..bounds.end).collect::<Vec<_>>(), "no holes");
        for (position, number) in &acknowledged {
            assert_eq!(read.records[*position as usize].receipt, receipt(*number as u128));
        }
        assert!(read.records.is_sorted_by_key(|logged| logged.received_at));
        let events: usize = read.records.iter().map(|logged| logged.events.len()).sum();
        assert_eq!(stores.log.lag(0, 0).await.unwrap().events, events as u64);
    }
}

#[tokio::test]
async fn rows_marks_and_position_are_those_of_the_same_steps() {
    let dir = tempfile::tempdir().unwrap();
    for steps in [20, 2, 15] {
        let mut victim = Victim::start("apply", dir.path());
        let mut last = 0;
        for _ in 0..steps {
            last = victim.acknowledged().0;
        }
        last = victim.kill().last().map_or(last, |(number, _)| *number);

        let stores = open(dir.path()).await;
        let position = stores.raw.position("raw-writer", 1, 0).await.unwrap().unwrap();
        assert!(
            position > last,
            "step {last} was acknowledged, the position is {position}"
        );
        let marks = stores.raw.marks(&shop(), 600_000..600_001).await.unwrap();
        assert_eq!(marks.0.into_values().collect::<Vec<_>>(), [position - 1]);
        let range = DAY_START..DAY_START + position * 1_000_000;
        let counted = stores.raw.count(&shop(), range).await.unwrap();
        assert_eq!(
            counted,
            [(Kind::Position, position as u64 * EVENTS_PER_STEP as u64)]
        );
        let beyond = stores
            .raw
            .count(&shop(), DAY_START + position * 1_000_000..i64::MAX)
            .await
            .unwrap();
        assert_eq!(beyond, []);
        // Doing the last step again changes nothing.
        let again = stores.raw.apply(step(position - 1)).await.unwrap();
        assert_eq!((again.new_rows, again.repeated_rows), (0, EVENTS_PER_STEP as u64));
    }
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_pid_of_the_first_until_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let paths = DataPaths::new(dir.path());
    let mut victim = Victim::start("append", dir.path());
    victim.acknowledged();
    let error = DataDirLock::acquire(&paths).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let pid = format!("process {}", victim.child.id());
    assert!(error.to_string().contains(&pid), "{error} must name {pid}");
    victim.acknowledged();
    victim.kill();
    DataDirLock::acquire(&paths).unwrap();
}
