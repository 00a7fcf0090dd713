//! The embedded event log: sharing commits, pushing back, going on after it was opened again.

use std::path::Path;
use std::sync::Arc;

use dwell_model::event::Kind;
use dwell_runtime::clock::ManualClock;
use dwell_storage::api::{
    EventLogAdmin, EventLogReader, EventLogWriter, LogBounds, LogRecord, LoggedRecord, Position,
};
use dwell_storage::backends::sqlite::{AppendLimits, SqliteEventLog};
use dwell_storage::conformance::samples::{DAY_START, events, position, receipt, record, shop};
use dwell_storage::error::ErrorKind;
use rusqlite::Connection;

fn open_log(path: &Path, clock: &ManualClock, limits: AppendLimits) -> SqliteEventLog {
    SqliteEventLog::open(path, limits, clock.shared()).unwrap()
}

fn one(number: u128) -> Vec<LogRecord> {
    vec![record(&shop(), number, position("s", "t", DAY_START, 1.0, 1.0))]
}

async fn read_all(log: &SqliteEventLog, from: Position) -> Vec<LoggedRecord> {
    log.read(0, from, usize::MAX).await.unwrap().records
}

/// Keeps every other connection from writing until it is dropped.
struct Stalled(Connection);

impl Stalled {
    fn new(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// Number of commits in a WAL file, after SQLite's file format: a 32-byte header, then frames of a 24-byte header and
/// a page; a frame that ends a commit has a size of the database other than zero.
fn commits_in_wal(path: &Path) -> usize {
    let wal = std::fs::read(path.with_extension("db-wal")).unwrap();
    let word = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let (page_bytes, salts) = (word(8) as usize, (word(16), word(20)));
    let frames = (32..wal.len())
        .step_by(24 + page_bytes)
        .take_while(|&at| at + 24 + page_bytes <= wal.len());
    // Frames of an earlier round through the file carry other salts.
    frames
        .take_while(|&at| (word(at + 8), word(at + 12)) == salts)
        .filter(|&at| word(at + 4) != 0)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let log = open_log(&path, &ManualClock::at_ms(DAY_START), AppendLimits::default());
    log.append(one(0)).await.unwrap();
    let before = commits_in_wal(&path);
    let stalled = Stalled::new(&path);
    let calls = futures::future::join_all((0..200).map(|n| log.append(one(n))));
    let release = async {
        // The calls have been polled once, so they wait: the thread with some of them, the queue with the rest.
        tokio::task::yield_now().await;
        drop(stalled);
    };
    let (answers, ()) = futures::join!(calls, release);
    assert_eq!(
        answers
            .into_iter()
            .map(|answer| answer.unwrap()[0].position)
            .max(),
        Some(200)
    );
    let commits = commits_in_wal(&path) - before;
    assert!(commits <= 3, "200 calls took {commits} commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_busy_and_takes_more_once_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let large = || vec![record(&shop(), 9, events(Kind::Position, DAY_START, 5_000, 0))];
    let small_bytes = AppendLimits {
        calls: 1_000,
        bytes: 60_000,
    };
    let few_calls = AppendLimits {
        calls: 5,
        bytes: 1 << 20,
    };
    for limits in [few_calls, small_bytes] {
        let _ = std::fs::remove_file(&path);
        let log = open_log(&path, &ManualClock::at_ms(DAY_START), limits);
        let stalled = Stalled::new(&path);
        let calls = (0..2_000).map(|_| log.append(one(1)));
        let release = async {
            tokio::task::yield_now().await;
            drop(stalled);
        };
        let (answers, ()) = futures::join!(futures::future::join_all(calls), release);
        let taken = answers.iter().filter(|answer| answer.is_ok()).count();
        let busy = answers.iter().filter(|answer| {
            answer
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Busy && error.kind().is_retryable())
        });
        assert_eq!(taken + busy.count(), 2_000, "nothing but an answer or Busy");
        assert!((1..2_000).contains(&taken), "{taken} taken");
        assert_eq!(
            read_all(&log, 0).await.len(),
            taken,
            "who was told Busy was not appended"
        );
        // A call larger than the limit is taken when nothing else waits: it could never be otherwise.
        log.append(large()).await.unwrap();
        log.append(one(2)).await.unwrap();
    }
}

#[tokio::test]
async fn opening_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let clock = ManualClock::at_ms(DAY_START);
    let log = open_log(&path, &clock, AppendLimits::default());
    let epoch = log.epoch();
    let of_a_file = LogRecord {
        received_at: Some(DAY_START + 9_999),
        ..one(2).remove(0)
    };
    log.append([one(1), vec![of_a_file]].concat()).await.unwrap();
    let before = read_all(&log, 0).await;
    drop(log);

    clock.set_ms(DAY_START - 60_000);
    let log = open_log(&path, &clock, AppendLimits::default());
    assert_eq!(log.epoch(), epoch);
    assert_eq!(log.bounds(0).await.unwrap(), LogBounds { start: 0, end: 2 });
    assert_eq!(read_all(&log, 0).await, before);
    let next = log.append(one(3)).await.unwrap()[0];
    assert_eq!(
        (next.position, next.received_at),
        (2, DAY_START),
        "the clock went back, the log did not"
    );
    assert_eq!(log.lag(0, 0).await.unwrap().events, 3);

    // With everything trimmed there is no record to go on from.
    assert_eq!(log.trim(0, i64::MAX, 99).await.unwrap(), 3);
    drop(log);
    let log = open_log(&path, &clock, AppendLimits::default());
    assert_eq!(log.bounds(0).await.unwrap(), LogBounds { start: 3, end: 3 });
    let next = log.append(one(4)).await.unwrap()[0];
    assert_eq!((next.position, next.received_at), (3, DAY_START));
    assert_eq!(log.lag(0, 3).await.unwrap().events, 1);
}

#[tokio::test]
async fn an_old_file_does_not_let_younger_records_before_it_go() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_ms(DAY_START);
    let log = open_log(&dir.path().join("log.db"), &clock, AppendLimits::default());
    let records = [100, 200, 300, 50, 400].map(|time| LogRecord {
        received_at: Some(time),
        ..one(1).remove(0)
    });
    log.append(records.to_vec()).await.unwrap();
    assert_eq!(
        log.trim(0, 250, 99).await.unwrap(),
        2,
        "the record of 300 stops it"
    );
    assert_eq!(log.bounds(0).await.unwrap(), LogBounds { start: 2, end: 5 });
}

#[tokio::test]
async fn a_log_made_anew_has_another_and_higher_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_ms(DAY_START);
    let mut epochs = Vec::new();
    for n in 0..4 {
        clock.set_ms(DAY_START + n);
        epochs.push(
            open_log(
                &dir.path().join(format!("{n}.db")),
                &clock,
                AppendLimits::default(),
            )
            .epoch(),
        );
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(
        i64::try_from(epochs[3]).is_ok(),
        "stores hold it as a signed number"
    );
}

/// The lock of the data directory forbids it, but a copied directory or a mistake must not destroy anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_one_file_never_give_out_a_position_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let clock = ManualClock::at_ms(DAY_START);
    let logs = [(); 2].map(|()| Arc::new(open_log(&path, &clock, AppendLimits::default())));
    let append = |log: Arc<SqliteEventLog>, first: u128| async move {
        let mut told = Vec::new();
        for n in first..first + 50 {
            told.push((log.append(one(n)).await.unwrap()[0].position, receipt(n)));
        }
        told
    };
    let (a, b) = futures::join!(
        append(Arc::clone(&logs[0]), 0),
        append(Arc::clone(&logs[1]), 1_000)
    );
    let mut told = [a, b].concat();
    told.sort();
    for log in &logs {
        let read: Vec<_> = read_all(log, 0)
            .await
            .iter()
            .map(|logged| (logged.position, logged.receipt))
            .collect();
        assert_eq!(read, told);
        assert_eq!(log.lag(0, 0).await.unwrap().events, 100);
    }
}

#[tokio::test]
async fn a_damaged_record_is_named_and_the_ones_around_it_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    for damage in [
        "UPDATE records SET batch = x'' WHERE position = 1",
        "UPDATE records SET batch = x'63' WHERE position = 1",
        "UPDATE records SET batch = substr(batch, 1, 20) WHERE position = 1",
        "UPDATE records SET batch = CAST(batch || x'00' AS BLOB) WHERE position = 1",
        "UPDATE records SET kind = 3 WHERE position = 1",
        "UPDATE records SET events = 7 WHERE position = 1",
        "UPDATE records SET tenant = '../etc' WHERE position = 1",
        "UPDATE records SET receipt = x'00' WHERE position = 1",
        "DELETE FROM records WHERE position = 1",
    ] {
        let _ = std::fs::remove_file(&path);
        let log = open_log(&path, &ManualClock::at_ms(DAY_START), AppendLimits::default());
        log.append([one(0), one(1), one(2)].concat()).await.unwrap();
        assert_eq!(Connection::open(&path).unwrap().execute(damage, []).unwrap(), 1);
        let error = log.read(0, 0, usize::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{damage}: {error}");
        assert!(error.to_string().contains("position 1"), "{damage}: {error}");
        let first = log.read(0, 0, 1).await.unwrap();
        assert_eq!((first.records.len(), first.next), (1, 1));
        assert_eq!(read_all(&log, 2).await.len(), 1);
    }
}
