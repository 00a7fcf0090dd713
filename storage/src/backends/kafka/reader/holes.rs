//! Positions without a record: marks of transactions, and records of transactions that were given up.
//!
//! Dwell writes neither, other producers may. Between records they need no care: the next record tells how far to go
//! on. At the end of a partition nothing follows, so a reader that knows that the end lies further would wait for ever.
//! [`only_holes_from`] finds out with a consumer of its own that is told of the end.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::failure;
use super::super::layout::Place;
use super::LogConsumer;
use crate::api::Position;
use crate::error::Result;

const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks: a new leader needs a moment to know how far the records count.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a reader that starts at a position meets the end of the partition before any record. Takes a second or
/// more: asked only by a reader that got nothing for a while though the end lies further. Blocking.
pub(super) fn only_holes_from(config: &KafkaConfig, place: Place<'_>, from: Position) -> Result<bool> {
    let looking = |error| failure::failed(format!("look for records from {from} on in {place}"), error);
    let mut settings = config.reader();
    settings.set("enable.partition.eof", "true");
    for look in 0..2 {
        let consumer: LogConsumer = settings
            .create_with_context(Logging { role: "holes" })
            .map_err(looking)?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(place.topic, place.number(), Offset::Offset(from))
            .and_then(|()| consumer.assign(&assignment))
            .map_err(looking)?;
        match consumer.poll(PATIENCE) {
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                tracing::debug!(offset = message.offset(), %place, "a record came late");
                return Ok(false);
            }
            Some(Err(error)) => return Err(looking(error)),
            None => return Ok(false),
        }
        if look == 0 {
            // Only the end is left to come, so this waits.
            consumer.poll(PAUSE);
        }
    }
    Ok(true)
}
