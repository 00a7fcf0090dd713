//! A broker that is killed, and comes back.
//!
//! Needs a broker that may be killed: `DWELL_TEST_KAFKA_OUTAGE` names a folder of `deploy/local/up` with one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{EventLogGroups, EventLogReader, EventLogWriter, LogRecord};
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use dwell_storage::conformance::samples::{DAY_START, events, record, shop};
use dwell_storage::error::ErrorKind;

use super::Kafka;

/// A stack of its own.
struct Stack {
    dir: String,
}

impl Stack {
    fn bootstrap(&self) -> String {
        let settings = std::fs::read_to_string(format!("{}/stack.env", self.dir)).unwrap();
        let line = settings.lines().find(|line| line.contains("DWELL_TEST_KAFKA="));
        line.unwrap().rsplit('=').next().unwrap().to_owned()
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(format!("{}/kafka.pid", self.dir)).unwrap();
        assert!(
            Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap()
                .success()
        );
    }

    fn start(&self) {
        let up = std::env::var("DWELL_TEST_STACK_UP")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/up").to_owned());
        let started = Command::new(up).args([&self.dir, "--only", "kafka"]).status();
        assert!(started.unwrap().success());
    }
}

fn call(number: u128) -> Vec<LogRecord> {
    vec![record(&shop(), number, events(Kind::Position, DAY_START, 50, 0))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_fails_calls_in_time_loses_nothing_and_passes() {
    let Ok(dir) = std::env::var("DWELL_TEST_KAFKA_OUTAGE") else {
        eprintln!("skipped: DWELL_TEST_KAFKA_OUTAGE names no stack whose broker may be killed");
        return;
    };
    let stack = Stack { dir };
    let kafka = Kafka::at(stack.bootstrap());
    let config = KafkaConfig {
        delivery_timeout_ms: 2_000,
        ..kafka.config(2)
    };
    KafkaLogAdmin::create(&config, &SystemClock::new()).await.unwrap();
    let log = KafkaEventLog::open(&config, SystemClock::shared()).await.unwrap();
    let partition = log.partition_of(&shop(), Kind::Position);
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        log.append(call(number)).await.unwrap();
        acknowledged.push(number);
    }
    let member = log.join("raw-writer").await.unwrap();
    let mut shards = member.shards();
    shards.wait_for(|shards| shards.len() == 2).await.unwrap();

    stack.kill();
    let stopwatch = Stopwatch::start();
    let error = log.append(call(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        stopwatch.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopwatch.elapsed()
    );
    let error = log.bounds(partition).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = log.read(partition, 0, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Longer than the session's timeout, and yet nobody has said that the shards are another's.
    SystemClock::shared().sleep(Duration::from_secs(8)).await;
    assert_eq!(shards.borrow().len(), 2);

    stack.start();
    let stopwatch = Stopwatch::start();
    let mut tries = 0;
    while let Err(error) = log.append(call(100)).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        tries += 1;
        assert!(tries < 20, "{error}");
    }
    eprintln!(
        "append works again {:?} after the broker's start",
        stopwatch.elapsed()
    );
    acknowledged.push(100);
    for number in 200..210 {
        log.append(call(number)).await.unwrap();
        acknowledged.push(number);
    }
    let mut events: BTreeMap<u128, usize> = BTreeMap::new();
    let mut next = 0;
    loop {
        let chunk = log.read(partition, next, 1 << 20).await.unwrap();
        for logged in &chunk.records {
            *events.entry(logged.receipt.to_u128()).or_default() += logged.events.len();
        }
        if chunk.next == next {
            break;
        }
        next = chunk.next;
    }
    for number in acknowledged {
        let found = events.get(&number).copied().unwrap_or(0);
        match number {
            // Sent again after failures, so that it may stand there more than once.
            100 => assert!(found >= 50),
            _ => assert_eq!(found, 50, "call {number}"),
        }
    }
    assert_eq!(shards.borrow().len(), 2);
}
