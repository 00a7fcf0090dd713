//! What needs the inside of the log: a disk that is full, a writer that dies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::clock::{Clock, ManualClock};
use futures::future::BoxFuture;

use super::*;
use crate::conformance::samples::{DAY_START, events, record, shop};

fn batch(number: u128) -> Vec<LogRecord> {
    vec![record(&shop(), number, events(Kind::Position, DAY_START, 500, 0))]
}

/// A log whose file cannot grow beyond some pages, as on a disk that fills.
fn open_small(path: &Path, pages: i64) -> SqliteEventLog {
    let clock = ManualClock::at_ms(DAY_START).shared();
    let condition = FileCondition::new(path);
    let connection = open_writer(path, &OPTIONS, &condition).unwrap();
    connection
        .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        .unwrap();
    let epoch = begin_life(&connection, clock.now_ms()).unwrap();
    let tail = Tail::load(&connection).unwrap();
    let appender = Appender::start(
        connection,
        Arc::clone(&condition),
        tail,
        AppendLimits::default(),
        SharedClock::clone(&clock),
    )
    .unwrap();
    SqliteEventLog {
        appender,
        readers: ReadOnly::new(condition, OPTIONS),
        epoch,
        clock,
    }
}

#[tokio::test]
async fn a_full_disk_refuses_whole_calls_and_the_log_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let log = open_small(&path, 40);
    let mut taken = 0;
    let error = loop {
        // Two records a call: neither is stored when the second has no room.
        match log.append([batch(taken), batch(taken)].concat()).await {
            Ok(_) => taken += 2,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "the disk never filled");
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(
        error.to_string().contains("log.db") && error.to_string().contains("free room"),
        "{error}"
    );
    assert!(taken > 0);
    let end = taken as Position;
    assert_eq!(log.bounds(0).await.unwrap(), LogBounds { start: 0, end });
    assert_eq!(
        log.append([batch(1), batch(1)].concat())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Full
    );
    assert_eq!(
        log.read(0, 0, usize::MAX).await.unwrap().records.len(),
        taken as usize
    );

    assert_eq!(log.trim(0, i64::MAX, end).await.unwrap(), taken as u64);
    let next = log.append(batch(7)).await.unwrap()[0];
    assert_eq!(next.position, end, "the calls that failed took no position");
    assert_eq!(log.lag(0, end).await.unwrap().events, 500);
}

/// A clock that makes its reader panic.
#[derive(Debug, Default)]
struct BrokenClock {
    broken: AtomicBool,
}

impl Clock for BrokenClock {
    fn now_ms(&self) -> i64 {
        assert!(!self.broken.load(Ordering::SeqCst), "the clock is broken");
        DAY_START
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(futures::future::pending())
    }
}

#[tokio::test]
async fn a_writer_that_dies_leaves_no_caller_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(BrokenClock::default());
    let shared: SharedClock = std::sync::Arc::<BrokenClock>::clone(&clock);
    let log = SqliteEventLog::open(&dir.path().join("log.db"), AppendLimits::default(), shared).unwrap();
    log.append(batch(0)).await.unwrap();
    clock.broken.store(true, Ordering::SeqCst);
    let (append, wait) = futures::join!(log.append(batch(1)), log.wait(0, 1, Duration::MAX));
    assert_eq!(append.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(wait.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        log.append(batch(2)).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        log.trim(0, 0, 0).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        log.read(0, 0, 1).await.unwrap().records.len(),
        1,
        "what is there can be read"
    );
}
