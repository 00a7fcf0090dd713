//! The log's life: its epoch, in a compacted topic of its own.
//!
//! A record with the key `epoch` and a JSON value; the last one counts. It is written before topics are made, so that a
//! log whose making was interrupted never passes for the former one.

use std::time::Duration;

use dwell_model::time::TsMs;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::config::KafkaConfig;
use super::context::Logging;
use super::failure;
use super::reader::{LogConsumer, REQUEST_TIMEOUT};
use crate::error::{ErrorKind, Result, StorageError};

const KEY: &str = "epoch";
const PATIENCE: Duration = Duration::from_secs(10);

/// What is written of a log's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    /// Larger for each log made under the same names.
    pub(super) epoch: u64,
    /// Partitions of each topic.
    pub(super) shards: u32,
    /// When it was made.
    pub(super) created_at: TsMs,
}

/// Name of the topic.
pub(super) fn topic_of(prefix: &str) -> String {
    format!("{prefix}.log")
}

/// Reads the last epoch; `None` when none was ever written. The topic must be there. Blocking.
pub(super) fn load(config: &KafkaConfig) -> Result<Option<Epoch>> {
    let topic = topic_of(&config.prefix);
    let looking =
        |error: KafkaError| failure::failed(format!("read the log's epoch from topic {topic}"), error);
    let mut settings = config.reader();
    settings.set("enable.partition.eof", "true");
    let consumer: LogConsumer = settings
        .create_with_context(Logging { role: "epoch" })
        .map_err(looking)?;
    let (start, end) = consumer
        .fetch_watermarks(&topic, 0, REQUEST_TIMEOUT)
        .map_err(looking)?;
    if start >= end {
        return Ok(None);
    }
    let mut from_start = TopicPartitionList::new();
    from_start
        .add_partition_offset(&topic, 0, Offset::Offset(start))
        .and_then(|()| consumer.assign(&from_start))
        .map_err(looking)?;
    let mut last = None;
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) if message.key() == Some(KEY.as_bytes()) => {
                let epoch = serde_json::from_slice(message.payload().unwrap_or_default());
                last = Some(epoch.map_err(|error| {
                    let what = format!("record {} of topic {topic}", message.offset());
                    StorageError::with_source(ErrorKind::Damaged, what, error)
                })?);
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            Some(Err(error)) => return Err(looking(error)),
            None => {
                let what = format!("read the log's epoch from topic {topic}: nothing came");
                return Err(StorageError::new(ErrorKind::Unavailable, what));
            }
        }
    }
}

/// Writes an epoch.
pub(super) async fn store(config: &KafkaConfig, epoch: Epoch) -> Result<()> {
    let topic = topic_of(&config.prefix);
    let writing = |error| failure::failed(format!("write the log's epoch to topic {topic}"), error);
    let value = serde_json::to_string(&epoch)
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write the log's epoch", error))?;
    let producer: FutureProducer<Logging> = config
        .producer()
        .create_with_context(Logging { role: "epoch" })
        .map_err(writing)?;
    let record = FutureRecord::to(&topic).key(KEY).payload(&value).partition(0);
    match producer.send(record, config.delivery_timeout()).await {
        Ok(_) => Ok(()),
        Err((error, _)) => Err(writing(error)),
    }
}
