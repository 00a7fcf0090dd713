//! Questions to the brokers, over connections of their own.
//!
//! A broker answers the requests of a connection one after the other, and a consumer's fetch waits there for records to
//! come. A question behind it would wait as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::tasks;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::failure;
use super::super::layout::Place;
use super::{LogConsumer, REQUEST_TIMEOUT};
use crate::api::{LogBounds, Position};
use crate::error::{ErrorKind, Result, StorageError};

const POLL: Duration = Duration::from_secs(1);

/// A client that reads nothing.
pub(super) struct Asker {
    client: Arc<LogConsumer>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    pub(super) fn start(config: &KafkaConfig) -> Result<Self> {
        let mut settings = config.reader();
        settings.remove("group.id");
        let client: LogConsumer = settings
            .create_with_context(Logging { role: "asker" })
            .map_err(|error| failure::failed("start a Kafka client", error))?;
        let (client, stop) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
        let (polled, stopped) = (Arc::clone(&client), Arc::clone(&stop));
        tasks::thread("kafka-ask", move || {
            while !stopped.load(Ordering::Acquire) {
                // Nothing comes but the client's own lines, which the context hears.
                polled.poll(POLL);
            }
        })
        .map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start a Kafka client's thread", error)
        })?;
        Ok(Self { client, stop })
    }

    /// What a partition holds. Blocking.
    pub(super) fn bounds(&self, place: Place<'_>) -> Result<LogBounds> {
        self.client
            .fetch_watermarks(place.topic, place.number(), REQUEST_TIMEOUT)
            .map(|(start, end)| LogBounds {
                // Without records the start can be told as unknown.
                start: start.clamp(0, end.max(0)),
                end: end.max(0),
            })
            .map_err(|error| failure::failed(format!("look at the bounds of {place}"), error))
    }

    /// Position of the first record whose time of append is not before `time`, if there is one. Blocking.
    pub(super) fn first_since(&self, place: Place<'_>, time: TsMs) -> Result<Option<Position>> {
        let ask = || -> KafkaResult<Option<Position>> {
            let mut times = TopicPartitionList::new();
            // Negative times have meanings of their own in the protocol.
            times.add_partition_offset(place.topic, place.number(), Offset::Offset(time.max(0)))?;
            let found = self.client.offsets_for_times(times, REQUEST_TIMEOUT)?;
            for element in found.elements() {
                element.error()?;
                if let Offset::Offset(position) = element.offset() {
                    return Ok(Some(position));
                }
            }
            Ok(None)
        };
        ask().map_err(|error| failure::failed(format!("look up a time in {place}"), error))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
