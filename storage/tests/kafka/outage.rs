//! A broker that is killed, and comes back.
//!
//! With `DWELL_TEST_KAFKA_OUTAGE` set the test starts a broker of its own by `deploy/local/up`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_storage::api::{EventLogGroups, EventLogReader, EventLogWriter, LogRecord};
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use dwell_storage::conformance::samples::{DAY_START, events, record, shop};
use dwell_storage::error::ErrorKind;

use tempfile::TempDir;

use super::Kafka;

/// A broker of its own, stopped and deleted when it is dropped.
struct Broker {
    dir: TempDir,
    bootstrap: String,
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_ports();
        let broker = Self {
            dir,
            bootstrap: format!("127.0.0.1:{port}"),
        };
        // The others are not started, but their addresses must be free as well.
        broker.up(&[
            ("STACK_KAFKA_PORT", port.to_string()),
            ("STACK_CASSANDRA_JMX_PORT", free_ports().to_string()),
            ("STACK_S3_PORT", free_ports().to_string()),
            ("STACK_CASSANDRA_NET", format!("127.0.{}", 100 + port % 100)),
        ]);
        broker
    }

    fn up(&self, settings: &[(&str, String)]) {
        let mut up = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/up"));
        up.arg(self.dir.path()).args(["--only", "kafka"]);
        let done = up
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .status();
        assert!(done.unwrap().success());
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.path().join("kafka.pid")).unwrap();
        assert!(
            Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let down = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/down");
        let _ = Command::new(down).arg(self.dir.path()).status();
    }
}

/// A number for ports of its own, below those that the system gives out: of ten in a row the first two are free.
fn free_ports() -> u16 {
    let found = (0..100).find_map(|_| {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 20_000 + u16::from_be_bytes(random) % 1_000 * 10;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        (is_free(port) && is_free(port + 1)).then_some(port)
    });
    found.unwrap()
}

fn call(number: u128) -> Vec<LogRecord> {
    vec![record(&shop(), number, events(Kind::Position, DAY_START, 50, 0))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_fails_calls_in_time_loses_nothing_and_passes() {
    if std::env::var_os("DWELL_TEST_KAFKA_OUTAGE").is_none() {
        eprintln!("skipped: DWELL_TEST_KAFKA_OUTAGE does not ask for a broker to kill");
        return;
    }
    let broker = Broker::start();
    let kafka = Kafka::at(broker.bootstrap.clone());
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

    broker.kill();
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

    broker.up(&[]);
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
