//! Appending: one producer for the process, an event per Kafka record.
//!
//! ```text
//! append ─▶ encode all ─▶ room in the queue? ─▶ per record: its partition's turn, enqueue its events ─▶ wait
//!                                                   librdkafka batches, compresses, sends, tries again
//! delivery thread ◀─ reports: count down the call's events, note first offset and time of each record
//! ```
//!
//! All events of a call are written and checked before the first is enqueued, and the room they need is taken first, so
//! that a refusal leaves nothing half done. The order of a partition is the order in which calls took their turn;
//! idempotence keeps it through repetitions.

mod delivery;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dwell_runtime::tasks;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use self::delivery::{Delivered, Deliveries, Failed, Pending, Room, room_of};
use super::config::KafkaConfig;
use super::failure;
use super::layout::{Layout, key_of};
use super::record::EncodedCall;
use crate::api::{Appended, LogRecord};
use crate::error::{ErrorKind, Result, StorageError};
use crate::metrics;

/// Most bytes of events that wait to be acknowledged, librdkafka's bookkeeping included.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;
/// Calls of more events than this are written and enqueued on a thread that may block.
const INLINE_EVENTS_MAX: usize = 64;
/// Buffers kept for later calls, and the most bytes of one.
const BUFFERS_MAX: usize = 16;
const BUFFER_BYTES_MAX: usize = 4 << 20;
const POLL: Duration = Duration::from_millis(100);

type LogProducer = BaseProducer<Deliveries>;

/// Appends to the topics.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    layout: Arc<Layout>,
    /// The producer; replaced when librdkafka gives one up for good.
    producer: RwLock<Arc<Polled>>,
    room: Arc<Room>,
    /// A turn per partition: the events of a record stand together, and those of a call in its order.
    turns: Vec<Mutex<()>>,
    buffers: Mutex<Vec<EncodedCall>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("waiting_bytes", &self.shared.room.waiting())
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts a producer. It connects by itself, so brokers may be away.
    pub(super) fn start(config: &KafkaConfig, layout: Arc<Layout>) -> Result<Self> {
        let room = Arc::new(Room::new(WAITING_BYTES_MAX, layout.partitions()));
        let producer = Polled::start(config, &room)?;
        let shared = Shared {
            config: config.clone(),
            turns: (0..layout.partitions()).map(|_| Mutex::default()).collect(),
            layout,
            producer: RwLock::new(Arc::new(producer)),
            room,
            buffers: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// See [`EventLogWriter::append`](crate::api::EventLogWriter::append).
    pub(super) async fn append(&self, records: Vec<LogRecord>) -> Result<Vec<Appended>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let events: usize = records.iter().map(|record| record.events.len()).sum();
        let shared = Arc::clone(&self.shared);
        let Enqueued { pending, producer } = match events <= INLINE_EVENTS_MAX {
            true => shared.enqueue(&records)?,
            false => super::blocking("kafka-enqueue", move || shared.enqueue(&records)).await?,
        };
        let outcome = pending.wait().await;
        metrics::kafka_waiting(self.shared.room.waiting());
        outcome.map_err(|failed| {
            self.shared.look_at_producer(&producer, &failed);
            failure::failed_code("append to the event log", failed.code)
        })
    }
}

/// A call whose events a producer has.
struct Enqueued {
    pending: Pending,
    producer: Arc<Polled>,
}

impl Shared {
    /// Hands a call's events to the producer.
    fn enqueue(&self, records: &[LogRecord]) -> Result<Enqueued> {
        let mut encoded = lock(&self.buffers).pop().unwrap_or_default();
        let enqueued = self.encode_and_enqueue(records, &mut encoded);
        if encoded.capacity() <= BUFFER_BYTES_MAX {
            let mut buffers = lock(&self.buffers);
            if buffers.len() < BUFFERS_MAX {
                buffers.push(encoded);
            }
        }
        enqueued
    }

    fn encode_and_enqueue(&self, records: &[LogRecord], encoded: &mut EncodedCall) -> Result<Enqueued> {
        encoded.encode(records)?;
        let keys: Vec<String> = records.iter().map(|record| key_of(&record.venue)).collect();
        let bytes: usize = records
            .iter()
            .zip(&keys)
            .map(|(record, key)| record.events.len() * room_of(key.len(), 0))
            .sum();
        let mut room = self.room.take(encoded.bytes() + bytes).ok_or_else(|| {
            metrics::kafka_refused_busy();
            StorageError::new(
                ErrorKind::Busy,
                "append to the event log: too much waits for Kafka's acknowledgement",
            )
        })?;
        let producer = Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner));
        let delivered = &producer.delivered;
        let targets = records.iter().map(|record| {
            let partition = self.layout.partition_of(&record.venue, record.events.kind);
            (partition, record.received_at, delivered.of(partition))
        });
        let pending = Pending::new(encoded.events(), targets);
        for ((delivery, events), key) in pending.records.iter().zip(encoded.records()).zip(&keys) {
            let place = self.layout.place(delivery.partition)?;
            let _turn = self.turns.get(delivery.partition as usize).map(lock);
            for event in events {
                let value = encoded.event(event);
                let record = BaseRecord::with_opaque_to(place.topic, Arc::clone(delivery))
                    .partition(place.number())
                    .key(key)
                    .payload(value);
                match producer.producer.send(record) {
                    // The report will give the room back.
                    Ok(()) => room.hand_over(room_of(key.len(), value.len())),
                    Err((error, _)) => {
                        self.replace_if(&producer, Polled::given_up);
                        return Err(refused(error));
                    }
                }
            }
        }
        metrics::kafka_waiting(self.room.waiting());
        Ok(Enqueued { pending, producer })
    }

    /// Replaces a producer that will deliver nothing more: one that librdkafka has given up, or one that has delivered
    /// nothing to a partition for a whole delivery timeout. The latter may only mean that the broker is away; but a
    /// producer that has once been told that a partition has no leader may never ask again (librdkafka issue 5430), and
    /// a new one costs a connection.
    fn look_at_producer(&self, producer: &Arc<Polled>, failed: &Failed) {
        self.replace_if(producer, |polled| {
            polled.given_up().or_else(|| {
                let stuck = failed.code == RDKafkaErrorCode::MessageTimedOut
                    && failed
                        .records
                        .iter()
                        .any(|record| polled.delivered.of(record.partition) == record.delivered_before);
                stuck.then(|| {
                    "it has delivered nothing to a partition for a whole delivery timeout".to_owned()
                })
            })
        });
    }

    /// Replaces a producer for a reason, unless another call has done so.
    fn replace_if(&self, producer: &Arc<Polled>, reason: impl FnOnce(&Polled) -> Option<String>) {
        let Some(reason) = reason(producer) else {
            return;
        };
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, producer) {
            return;
        }
        tracing::warn!(reason, "the Kafka producer is replaced");
        match Polled::start(&self.config, &self.room) {
            Ok(fresh) => *current = Arc::new(fresh),
            Err(error) => tracing::error!(%error, "no new Kafka producer can be made"),
        }
    }
}

fn refused(error: KafkaError) -> StorageError {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
        metrics::kafka_refused_busy();
    }
    failure::failed("append to the event log", error)
}

/// A producer and the thread that hears its reports.
struct Polled {
    producer: Arc<LogProducer>,
    delivered: Arc<Delivered>,
    stop: Arc<AtomicBool>,
}

impl Polled {
    fn start(config: &KafkaConfig, room: &Arc<Room>) -> Result<Self> {
        let delivered = Arc::new(Delivered::new(room.partitions()));
        let context = Deliveries::new(Arc::clone(room), Arc::clone(&delivered));
        let producer: LogProducer = config
            .producer()
            .create_with_context(context)
            .map_err(|error| failure::failed("start the Kafka producer", error))?;
        let (producer, stop) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let (polled, stopped) = (Arc::clone(&producer), Arc::clone(&stop));
        tasks::thread("kafka-deliver", move || {
            // One that was replaced still delivers what it can: its last report comes within the delivery timeout.
            while !stopped.load(Ordering::Acquire) || polled.in_flight_count() > 0 {
                polled.poll(POLL);
            }
        })
        .map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start the Kafka producer's thread", error)
        })?;
        Ok(Self {
            producer,
            delivered,
            stop,
        })
    }

    /// Why librdkafka has given the producer up for good: its numbering of records is broken.
    fn given_up(&self) -> Option<String> {
        let (code, why) = self.producer.client().fatal_error()?;
        Some(format!("{code}: {why}"))
    }
}

impl Drop for Polled {
    /// The thread ends when every event has its report, and with it the producer.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
