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

use self::delivery::{Deliveries, Pending, Room, room_of};
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
        let pending = match events <= INLINE_EVENTS_MAX {
            true => shared.enqueue(&records)?,
            false => super::blocking("kafka-enqueue", move || shared.enqueue(&records)).await?,
        };
        let outcome = pending.wait().await;
        metrics::kafka_waiting(self.shared.room.waiting());
        match outcome {
            Ok(appended) => Ok(appended),
            Err(code) => {
                self.shared.look_at_producer();
                Err(failure::failed_code("append to the event log", code))
            }
        }
    }
}

impl Shared {
    /// Hands a call's events to the producer.
    fn enqueue(&self, records: &[LogRecord]) -> Result<Pending> {
        let mut encoded = lock(&self.buffers).pop().unwrap_or_default();
        let pending = self.encode_and_enqueue(records, &mut encoded);
        if encoded.capacity() <= BUFFER_BYTES_MAX {
            let mut buffers = lock(&self.buffers);
            if buffers.len() < BUFFERS_MAX {
                buffers.push(encoded);
            }
        }
        pending
    }

    fn encode_and_enqueue(&self, records: &[LogRecord], encoded: &mut EncodedCall) -> Result<Pending> {
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
        let targets = records.iter().map(|record| {
            let partition = self.layout.partition_of(&record.venue, record.events.kind);
            (partition, record.received_at)
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
                        self.look_at_producer();
                        return Err(refused(error));
                    }
                }
            }
        }
        metrics::kafka_waiting(self.room.waiting());
        Ok(pending)
    }

    /// Replaces a producer that librdkafka has given up: its numbering of records is broken for good.
    fn look_at_producer(&self) {
        let is_dead = |polled: &Polled| polled.producer.client().fatal_error();
        let current = Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner));
        let Some((code, why)) = is_dead(&current) else {
            return;
        };
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if is_dead(&producer).is_none() {
            return;
        }
        tracing::error!(%code, why, "the Kafka producer has failed for good and is replaced");
        match Polled::start(&self.config, &self.room) {
            Ok(fresh) => *producer = Arc::new(fresh),
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
    stop: Arc<AtomicBool>,
}

impl Polled {
    fn start(config: &KafkaConfig, room: &Arc<Room>) -> Result<Self> {
        let context = Deliveries::new(Arc::clone(room));
        let producer: LogProducer = config
            .producer()
            .create_with_context(context)
            .map_err(|error| failure::failed("start the Kafka producer", error))?;
        let (producer, stop) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let (polled, stopped) = (Arc::clone(&producer), Arc::clone(&stop));
        tasks::thread("kafka-deliver", move || {
            while !stopped.load(Ordering::Acquire) {
                polled.poll(POLL);
            }
        })
        .map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start the Kafka producer's thread", error)
        })?;
        Ok(Self { producer, stop })
    }
}

impl Drop for Polled {
    /// The thread ends within one poll, and with it the producer.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
