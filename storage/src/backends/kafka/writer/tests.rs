use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::clock::SystemClock;
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaApiKey;

use super::super::config::KafkaConfig;
use super::super::layout::Layout;
use super::Writer;
use crate::conformance::samples::{DAY_START, events, record, shop};
use crate::error::Result;

/// Long enough for a new producer to connect on a machine that does much else.
const DELIVERY_TIMEOUT_MS: u64 = 3_000;

/// A writer of one shard against brokers that librdkafka plays itself.
fn writer(brokers: &MockCluster<'_, impl rdkafka::client::ClientContext>) -> (Writer, Arc<Layout>) {
    let config = KafkaConfig {
        bootstrap: brokers.bootstrap_servers(),
        prefix: "test".to_owned(),
        shards: 1,
        delivery_timeout_ms: DELIVERY_TIMEOUT_MS,
        ..KafkaConfig::default()
    };
    let layout = Arc::new(Layout::new("test", 1));
    for topic in layout.topics() {
        brokers.create_topic(topic, 1, 1).unwrap();
    }
    // From version 10 on an answer may name the leader, and the brokers that are played crash where there is none.
    brokers
        .apiversion(RDKafkaApiKey::Produce, Some(0), Some(9))
        .unwrap();
    (Writer::start(&config, Arc::clone(&layout)).unwrap(), layout)
}

async fn append(writer: &Writer, kind: Kind) -> Result<()> {
    let batch = events(kind, DAY_START, 3, 0);
    writer.append(vec![record(&shop(), 1, batch)]).await.map(|_| ())
}

/// Appends until it succeeds; how often it failed.
async fn append_at_last(writer: &Writer, kind: Kind) -> u32 {
    for failures in 0..40 {
        if append(writer, kind).await.is_ok() {
            return failures;
        }
        SystemClock::shared().sleep(Duration::from_millis(100)).await;
    }
    panic!("no append has succeeded again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_had_no_leader_for_a_while_is_written_to_again() {
    let brokers = MockCluster::new(1).unwrap();
    let (writer, layout) = writer(&brokers);
    append_at_last(&writer, Kind::Position).await;
    let topic = &layout.topics()[Kind::Position as usize];
    brokers.partition_leader(topic, 0, None).unwrap();
    // Long enough for the client to be told so, and for appends to fail.
    for _ in 0..2 {
        append(&writer, Kind::Position).await.unwrap_err();
    }
    // Other partitions are written to meanwhile, by whichever producer it is then.
    append_at_last(&writer, Kind::Crossing).await;
    brokers.partition_leader(topic, 0, Some(1)).unwrap();
    append_at_last(&writer, Kind::Position).await;
    append_at_last(&writer, Kind::Crossing).await;
    assert_eq!(writer.shared.room.waiting(), 0, "every event has its report");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_has_delivered_nothing_for_a_whole_timeout_is_replaced() {
    let brokers = MockCluster::new(1).unwrap();
    let (writer, layout) = writer(&brokers);
    append_at_last(&writer, Kind::Position).await;
    let first = Arc::clone(&writer.shared.producer.read().unwrap());
    append(&writer, Kind::Crossing).await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &writer.shared.producer.read().unwrap()),
        "nothing was wrong with it"
    );
    brokers
        .partition_leader(&layout.topics()[Kind::Position as usize], 0, None)
        .unwrap();
    append(&writer, Kind::Position).await.unwrap_err();
    assert!(!Arc::ptr_eq(&first, &writer.shared.producer.read().unwrap()));
}
