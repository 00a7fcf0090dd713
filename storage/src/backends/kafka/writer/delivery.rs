//! Delivery reports: what became of a call's events.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use dwell_model::time::TsMs;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use super::lock;
use crate::api::{Appended, Partition, Position};
use crate::backends::kafka::context;
use crate::metrics;

const ROLE: &str = "producer";
/// What librdkafka needs for a waiting record besides its key and value.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The bytes that wait for their acknowledgement, bounded, and the latest time of each partition.
#[derive(Debug)]
pub(super) struct Room {
    waiting: AtomicUsize,
    max: usize,
    latest: Vec<AtomicI64>,
}

impl Room {
    pub(super) fn new(max: usize, partitions: u32) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            max,
            latest: (0..partitions).map(|_| AtomicI64::new(TsMs::MIN)).collect(),
        }
    }

    pub(super) fn partitions(&self) -> u32 {
        self.latest.len() as u32
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes room for so many bytes. What is larger than all the room gets it when nothing else waits.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<TakenRoom> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting == 0 || waiting + bytes <= self.max).then_some(waiting + bytes)
            })
            .ok()?;
        Some(TakenRoom {
            room: Arc::clone(self),
            bytes,
        })
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Raises a partition's latest time; returns it.
    fn latest(&self, partition: Partition, time: TsMs) -> TsMs {
        match self.latest.get(partition as usize) {
            Some(latest) => latest.fetch_max(time, Ordering::Relaxed).max(time),
            None => time,
        }
    }
}

/// Room that was taken and not yet handed to a delivery; given back on drop.
#[derive(Debug)]
pub(super) struct TakenRoom {
    room: Arc<Room>,
    bytes: usize,
}

impl TakenRoom {
    /// Leaves so many bytes to whoever gives them back.
    pub(super) fn hand_over(&mut self, bytes: usize) {
        self.bytes -= bytes.min(self.bytes);
    }
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

/// A call of `append`: one counter for all its events.
#[derive(Debug)]
struct Call {
    undelivered: AtomicUsize,
    failed: OnceLock<RDKafkaErrorCode>,
    done: Notify,
}

impl Call {
    fn event_done(&self) {
        if self.undelivered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_waiters();
        }
    }
}

/// A record of a call, shared by the reports of its events.
#[derive(Debug)]
pub(super) struct RecordDelivery {
    call: Arc<Call>,
    pub(super) partition: Partition,
    /// What the producer had delivered to the partition when the record was handed to it.
    pub(super) delivered_before: u64,
    own_time: Option<TsMs>,
    /// Position and time of the first event.
    first: Mutex<Option<(Position, TsMs)>>,
}

/// What a caller of `append` waits for.
#[derive(Debug)]
pub(super) struct Pending {
    call: Arc<Call>,
    pub(super) records: Vec<Arc<RecordDelivery>>,
}

impl Pending {
    /// Expects reports of so many events, of records with these partitions, times of their own, and numbers of events
    /// delivered to the partition before.
    pub(super) fn new(events: usize, records: impl Iterator<Item = (Partition, Option<TsMs>, u64)>) -> Self {
        let call = Arc::new(Call {
            undelivered: AtomicUsize::new(events),
            failed: OnceLock::new(),
            done: Notify::new(),
        });
        let record = |(partition, own_time, delivered_before)| {
            Arc::new(RecordDelivery {
                call: Arc::clone(&call),
                partition,
                delivered_before,
                own_time,
                first: Mutex::default(),
            })
        };
        Self {
            records: records.map(record).collect(),
            call,
        }
    }

    /// Waits for all reports; they come within the delivery timeout.
    pub(super) async fn wait(self) -> Result<Vec<Appended>, Failed> {
        loop {
            // Registered before looking, so that a report in between is not missed.
            let mut done = std::pin::pin!(self.call.done.notified());
            done.as_mut().enable();
            if self.call.undelivered.load(Ordering::Acquire) == 0 {
                break;
            }
            done.await;
        }
        if let Some(&code) = self.call.failed.get() {
            return Err(Failed {
                code,
                records: self.records,
            });
        }
        let appended = |record: &Arc<RecordDelivery>| {
            // Without an offset it is not known where the record stands: as after a failure, it is sent again.
            let (position, time) = lock(&record.first).ok_or(RDKafkaErrorCode::NoOffset)?;
            Ok(Appended {
                partition: record.partition,
                position,
                received_at: record.own_time.unwrap_or(time),
            })
        };
        let all: Result<Vec<Appended>, RDKafkaErrorCode> = self.records.iter().map(appended).collect();
        all.map_err(|code| Failed {
            code,
            records: self.records,
        })
    }
}

/// A call that failed: why, and the records that it was of.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: RDKafkaErrorCode,
    pub(super) records: Vec<Arc<RecordDelivery>>,
}

/// How many events a producer has delivered, partition by partition.
#[derive(Debug)]
pub(super) struct Delivered(Vec<AtomicU64>);

impl Delivered {
    pub(super) fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn of(&self, partition: Partition) -> u64 {
        self.0
            .get(partition as usize)
            .map_or(0, |delivered| delivered.load(Ordering::Relaxed))
    }

    fn one_more(&self, partition: Partition) {
        if let Some(delivered) = self.0.get(partition as usize) {
            delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Hears the reports of a producer.
pub(super) struct Deliveries {
    room: Arc<Room>,
    delivered: Arc<Delivered>,
}

impl Deliveries {
    pub(super) fn new(room: Arc<Room>, delivered: Arc<Delivered>) -> Self {
        Self { room, delivered }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(ROLE, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_error(ROLE, &error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<RecordDelivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Arc<RecordDelivery>) {
        let message = match result {
            Ok(message) => {
                self.delivered.one_more(record.partition);
                let time = message.timestamp().to_millis().unwrap_or(TsMs::MIN);
                // The reports of a partition come in its order, so this is the time that readers will see, unless
                // other processes append there too and the broker's clock goes back.
                let time = self.room.latest(record.partition, time);
                let mut first = lock(&record.first);
                if first.is_none() && message.offset() >= 0 {
                    *first = Some((message.offset(), time));
                }
                message
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                // The first failure speaks for the call.
                let _ = record.call.failed.set(code);
                metrics::kafka_delivery_failed();
                message
            }
        };
        self.room
            .give_back(room_of(message.key_len(), message.payload_len()));
        record.call.event_done();
    }
}

/// Room that an event takes while it waits for its report.
pub(super) fn room_of(key_bytes: usize, value_bytes: usize) -> usize {
    key_bytes + value_bytes + EVENT_OVERHEAD_BYTES
}
