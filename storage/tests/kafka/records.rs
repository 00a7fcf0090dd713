//! Records of every origin: of other producers, damaged ones, ones that do not count, and times that go back.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_model::event::{Column, Kind};
use dwell_model::time::{HOUR_MS, TsMs};
use dwell_runtime::clock::{Clock, SystemClock};
use dwell_storage::api::{
    EventLog, EventLogReader, EventLogWriter, LogBounds, LogChunk, LoggedRecord, Partition, Position,
};
use dwell_storage::backends::kafka::DamagedRecord;
use dwell_storage::conformance::samples::{DAY_START, events, position, receipt, record, shop, venue};
use dwell_storage::error::ErrorKind;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::{admin_client, client, kafka, open};

const PATIENCE: Duration = Duration::from_secs(20);

/// A status event as another producer would write it.
fn status(tenant: &str, venue: &str, ts: TsMs) -> String {
    format!(
        r#"{{"ts": {ts}, "sensor": "s", "state": "ok", "kind": "status", "tenant": "{tenant}", "venue": "{venue}", "receipt": "000000000000000000000000000000ff", "v": 1}}"#
    )
}

/// Produces one record; the partition is the one given, or the partitioner's choice.
async fn produce(
    producer: &FutureProducer,
    topic: &str,
    key: &str,
    value: &str,
    partition: Option<i32>,
    time: Option<TsMs>,
) -> (i32, Position) {
    let mut record = FutureRecord::to(topic).key(key).payload(value);
    record.partition = partition;
    record.timestamp = time;
    let delivered = producer.send(record, PATIENCE).await.unwrap();
    (delivered.partition, delivered.offset)
}

async fn read_all(log: &dyn EventLog, partition: Partition, from: Position) -> Vec<LoggedRecord> {
    let (mut all, mut next) = (Vec::new(), from);
    loop {
        let LogChunk { records, next: after } = log.read(partition, next, 1 << 16).await.unwrap();
        if after == next {
            return all;
        }
        next = after;
        all.extend(records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_producers_come_to_the_same_partitions_and_are_read() {
    let Some(kafka) = kafka() else { return };
    let (log, config) = kafka.fresh_log(7).await;
    // Kafka's default partitioner, as librdkafka has it.
    let producer: FutureProducer = client(&config)
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let topic = format!("{}.status", config.prefix);
    let venues: Vec<_> = (0..40).map(|n| venue("acme", &format!("shop-{n}"))).collect();
    let mut used: BTreeMap<u32, usize> = BTreeMap::new();
    for (n, venue) in venues.iter().enumerate() {
        let value = status(venue.tenant.as_str(), venue.venue.as_str(), n as TsMs);
        let (partition, _) = produce(&producer, &topic, &venue.to_string(), &value, None, None).await;
        assert_eq!(partition as u32, log.shard_of(venue), "{venue}");
        *used.entry(log.shard_of(venue)).or_default() += 1;
    }
    assert!(used.len() > 3, "40 keys fall on several partitions: {used:?}");
    let mut read = Vec::new();
    for shard in 0..7 {
        read.extend(read_all(&*log, shard * 7 + Kind::Status as u32, 0).await);
    }
    read.sort_by_key(|logged| logged.events.ts[0]);
    assert_eq!(
        read.iter().map(|logged| &logged.venue).collect::<Vec<_>>(),
        venues.iter().collect::<Vec<_>>()
    );
    assert!(
        read.iter()
            .all(|logged| logged.receipt == receipt(0xff) && logged.events.len() == 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_and_can_be_stepped_over() {
    let Some(kafka) = kafka() else { return };
    let (log, config) = kafka.fresh_log(1).await;
    let producer: FutureProducer = client(&config).create().unwrap();
    let topic = format!("{}.status", config.prefix);
    let put = async |value: &str| produce(&producer, &topic, "acme/shop", value, Some(0), None).await;
    put(&status("acme", "shop", 1)).await;
    put("{\"v\":1").await;
    put(&status("acme", "shop", 2)).await;
    put(&status("acme", "shop", 3).replace("\"v\": 1", "\"v\": 9")).await;
    put("").await;
    let partition = Kind::Status as Partition;

    // As the raw writer does it: after damage, one by one.
    let (mut next, mut times, mut damaged) = (0, Vec::new(), Vec::new());
    while next < log.bounds(partition).await.unwrap().end {
        assert!(log.wait(partition, next, PATIENCE).await.unwrap());
        assert!(
            log.lag(partition, next)
                .await
                .unwrap()
                .oldest_received_at
                .is_some()
        );
        match log.read(partition, next, usize::MAX).await {
            Ok(chunk) => {
                times.extend(chunk.records.iter().flat_map(|logged| logged.events.ts.clone()));
                assert!(chunk.next > next);
                next = chunk.next;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                let again = log.read(partition, next, 1).await.unwrap_err();
                assert_eq!(again.to_string(), error.to_string(), "it stays damaged");
                let place = format!("record {next} of partition 0 of topic {topic}");
                assert!(error.to_string().contains(&place), "{error}");
                let source = std::error::Error::source(&error).unwrap();
                let record = source.downcast_ref::<DamagedRecord>().unwrap();
                damaged.push((next, String::from_utf8(record.bytes.clone()).unwrap().len()));
                next += 1;
            }
        }
    }
    assert_eq!(times, [1, 2]);
    assert_eq!(damaged, [(1, 6), (3, status("acme", "shop", 3).len()), (4, 0)]);
    // Another reader that begins in between finds the same.
    assert_eq!(
        open(&config)
            .await
            .read(partition, 3, 1)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Damaged
    );
    assert_eq!(log.read(partition, 2, 1).await.unwrap().next, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_without_records_hold_nobody_up() {
    let Some(kafka) = kafka() else { return };
    let (log, config) = kafka.fresh_log(1).await;
    let producer: FutureProducer = client(&config)
        .set("transactional.id", &config.prefix)
        .create()
        .unwrap();
    let topic = format!("{}.status", config.prefix);
    let partition = Kind::Status as Partition;
    producer.init_transactions(PATIENCE).unwrap();
    for (first_ts, commit) in [(10, true), (20, false), (30, true)] {
        producer.begin_transaction().unwrap();
        for ts in first_ts..first_ts + 3 {
            produce(
                &producer,
                &topic,
                "acme/shop",
                &status("acme", "shop", ts),
                Some(0),
                None,
            )
            .await;
        }
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }
    // Three transactions of three records and a mark each; the last mark comes after the answer.
    let clock = SystemClock::new();
    while log.bounds(partition).await.unwrap() != (LogBounds { start: 0, end: 12 }) {
        clock.sleep(Duration::from_millis(50)).await;
    }
    let read = read_all(&*log, partition, 0).await;
    let times: Vec<TsMs> = read.iter().flat_map(|logged| logged.events.ts.clone()).collect();
    assert_eq!(times, [10, 11, 12, 30, 31, 32]);
    // In the middle of what does not count, and at the mark at the end.
    assert_eq!(read_all(&*log, partition, 5).await[0].events.ts[0], 30);
    let passed = log.read(partition, 11, 1).await.unwrap();
    assert_eq!((passed.records.len(), passed.next), (0, 12));
    assert_eq!(log.lag(partition, 11).await.unwrap().events, 0);
    log.append(vec![record(&shop(), 1, events(Kind::Status, DAY_START, 1, 0))])
        .await
        .unwrap();
    assert_eq!(log.read(partition, 12, 1).await.unwrap().records.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_receipt_are_the_same_from_wherever_reading_starts() {
    let Some(kafka) = kafka() else { return };
    let (_, config) = kafka.fresh_log(1).await;
    let topic = format!("{}.status", config.prefix);
    let set_type = async |of_times: &str| {
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("message.timestamp.type", of_times);
        let admin = admin_client(&config.bootstrap);
        admin
            .alter_configs(&[change], &AdminOptions::new())
            .await
            .unwrap();
    };
    // The broker's clock cannot be set, but for a while producers may say what the time is.
    set_type("CreateTime").await;
    let producer: FutureProducer = client(&config).create().unwrap();
    // Within the retention, or the broker would delete the records.
    let base = SystemClock::new().now_ms() - 10 * HOUR_MS;
    let steps = [0, 50, 40, 49, 50, 51, -7_200_000, -7_199_999, 60, 60, 59, 100];
    for (n, step) in steps.into_iter().enumerate() {
        let value = status("acme", "shop", n as TsMs);
        produce(&producer, &topic, "acme/shop", &value, Some(0), Some(base + step)).await;
    }
    set_type("LogAppendTime").await;
    let expected = [0, 50, 50, 50, 50, 51, 51, 51, 60, 60, 60, 100];
    let partition = Kind::Status as Partition;
    for start in 0..steps.len() {
        // A reader of its own, so that it knows nothing of former reading.
        let log = open(&config).await;
        let found: Vec<TsMs> = read_all(&*log, partition, start as Position)
            .await
            .iter()
            .flat_map(|logged| vec![logged.received_at - base; logged.events.len()])
            .collect();
        assert_eq!(found, expected[start..], "from {start}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_kafka_does_not_take_is_invalid() {
    let Some(kafka) = kafka() else { return };
    let (log, _) = kafka.fresh_log(1).await;
    let mut large = events(Kind::Transaction, DAY_START, 1, 0);
    let items = large.strings.intern(&"x".repeat(3 << 20));
    large.payload[3] = Column::Text(vec![items]);
    let good = record(&shop(), 1, events(Kind::Transaction, DAY_START, 1, 0));
    let error = log
        .append(vec![good.clone(), record(&shop(), 2, large)])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    log.append(vec![good]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_readers_follow_one_partition_each_at_its_own_pace() {
    const CALLS: usize = 8;
    let Some(kafka) = kafka() else { return };
    let (log, _) = kafka.fresh_log(1).await;
    let partition = log.partition_of(&shop(), Kind::Position);
    let write = async {
        for call in 0..CALLS {
            let records = (0..3)
                .map(|part| {
                    record(
                        &shop(),
                        call as u128,
                        position("s", "t", DAY_START + (call * 3 + part) as TsMs, 1.0, 1.0),
                    )
                })
                .collect();
            log.append(records).await.unwrap();
        }
    };
    let follow = async |max_bytes| {
        let (mut next, mut seen) = (0, Vec::new());
        let mut failures_left = 3;
        while seen.len() < 3 * CALLS {
            if log.wait(partition, next, PATIENCE).await.unwrap() {
                let chunk = match log.read(partition, next, max_bytes).await {
                    // A consumer that a busy broker lets wait is replaced, and whoever reads tries again.
                    Err(error) if error.kind().is_retryable() && failures_left > 0 => {
                        failures_left -= 1;
                        continue;
                    }
                    chunk => chunk.unwrap(),
                };
                next = chunk.next;
                seen.extend(chunk.records.iter().flat_map(|logged| logged.events.ts.clone()));
            }
        }
        seen
    };
    // More readers than there are consumers.
    let (_, a, b, c, d) = futures::join!(write, follow(1), follow(300), follow(1 << 20), follow(usize::MAX));
    let expected: Vec<TsMs> = (0..3 * CALLS).map(|n| DAY_START + n as TsMs).collect();
    for seen in [a, b, c, d] {
        assert_eq!(seen, expected);
    }
}
