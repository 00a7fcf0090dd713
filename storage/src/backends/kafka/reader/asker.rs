//! Questions to the brokers, over connections of their own.
//!
//! A broker answers the requests of a connection one after the other, and a consumer's fetch waits there for records to
//! come. A question behind it would wait as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::failure;
use super::super::layout::Place;
use super::{LogConsumer, REQUEST_TIMEOUT};
use crate::api::{LogBounds, Position};
use crate::error::{ErrorKind, Result, StorageError};

const POLL: Duration = Duration::from_secs(1);

/// How old a client must be before it is replaced.
const RENEW_AFTER: Duration = Duration::from_secs(2);

/// A client that reads nothing.
///
/// One that was told of the topics while the brokers knew no leaders (they were cut off from each other, or stood
/// still) can go on believing that there are no such partitions. It is then replaced by a new one, which asks anew.
pub(super) struct Asker {
    settings: ClientConfig,
    clock: SharedClock,
    current: Mutex<Arc<Asking>>,
}

/// A client with the thread that hears it.
struct Asking {
    client: Arc<LogConsumer>,
    stop: Arc<AtomicBool>,
    started_at: Duration,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asking {
    fn start(settings: &ClientConfig, started_at: Duration) -> Result<Self> {
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
        Ok(Self {
            client,
            stop,
            started_at,
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Asker {
    pub(super) fn start(config: &KafkaConfig, clock: SharedClock) -> Result<Self> {
        let mut settings = config.reader();
        settings.remove("group.id");
        let first = Asking::start(&settings, clock.monotonic())?;
        Ok(Self {
            settings,
            clock,
            current: Mutex::new(Arc::new(first)),
        })
    }

    /// Asks; once more over a new client when the present one does not know the partition.
    fn ask<T>(&self, question: impl Fn(&LogConsumer) -> KafkaResult<T>) -> KafkaResult<T> {
        let asking = Arc::clone(&self.current());
        let answer = question(&asking.client);
        let lost = [RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopic];
        let is_lost = |error: &KafkaError| {
            error
                .rdkafka_error_code()
                .is_some_and(|code| lost.contains(&code))
        };
        match answer {
            Err(error) if is_lost(&error) => {
                self.renew(&asking);
                question(&Arc::clone(&self.current()).client)
            }
            answer => answer,
        }
    }

    /// Replaces a client, unless somebody has done so, or has a moment ago.
    fn renew(&self, asking: &Arc<Asking>) {
        let now = self.clock.monotonic();
        let mut current = self.current();
        if !Arc::ptr_eq(&current, asking) || now.saturating_sub(current.started_at) < RENEW_AFTER {
            return;
        }
        match Asking::start(&self.settings, now) {
            Ok(fresh) => *current = Arc::new(fresh),
            Err(error) => tracing::warn!(%error, "a Kafka client cannot be replaced"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<Asking>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a partition holds. Blocking.
    pub(super) fn bounds(&self, place: Place<'_>) -> Result<LogBounds> {
        self.ask(|client| client.fetch_watermarks(place.topic, place.number(), REQUEST_TIMEOUT))
            .map(|(start, end)| LogBounds {
                // Without records the start can be told as unknown.
                start: start.clamp(0, end.max(0)),
                end: end.max(0),
            })
            .map_err(|error| failure::failed(format!("look at the bounds of {place}"), error))
    }

    /// Position of the first record whose time of append is not before `time`, if there is one. Blocking.
    pub(super) fn first_since(&self, place: Place<'_>, time: TsMs) -> Result<Option<Position>> {
        let ask = |client: &LogConsumer| -> KafkaResult<Option<Position>> {
            let mut times = TopicPartitionList::new();
            // Negative times have meanings of their own in the protocol.
            times.add_partition_offset(place.topic, place.number(), Offset::Offset(time.max(0)))?;
            let found = client.offsets_for_times(times, REQUEST_TIMEOUT)?;
            for element in found.elements() {
                element.error()?;
                if let Offset::Offset(position) = element.offset() {
                    return Ok(Some(position));
                }
            }
            Ok(None)
        };
        self.ask(ask)
            .map_err(|error| failure::failed(format!("look up a time in {place}"), error))
    }
}
