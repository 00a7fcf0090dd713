//! A consumer with a cursor per partition, and the thread that hears what it says besides records.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;

use dwell_runtime::clock::Stopwatch;
use dwell_runtime::tasks;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::failure;
use super::super::layout::Layout;
use super::super::writer::lock;
use super::LogConsumer;
use super::asker::Asker;
use super::cursor::{Cursor, Io, NOWHERE};
use crate::api::{Partition, Position};
use crate::error::{ErrorKind, Result, StorageError};

/// A cursor that nobody has read for so long stops fetching and gives its memory back.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A cursor that nobody has read for so long may be taken by another reader before a further consumer is made.
const IDLE_TAKEN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(1);
/// How often a partition's records may fail to come, one time after the other, before the consumer is given up.
const STALLS_MAX: u32 = 2;

/// A consumer and its cursors.
pub(super) struct Lane {
    config: KafkaConfig,
    layout: Arc<Layout>,
    consumer: Arc<LogConsumer>,
    asker: Arc<Asker>,
    slots: Vec<Slot>,
    /// Its consumer does not get a partition's records, though the broker has them.
    is_stuck: AtomicBool,
    stop: Arc<AtomicBool>,
}

/// A cursor, and what can be told of it without waiting for whoever reads with it.
struct Slot {
    cursor: Mutex<Cursor>,
    wake: Arc<Notify>,
    /// Where the cursor stands; [`NOWHERE`] when it fetches nothing.
    position: AtomicI64,
    /// Where it can go on as well: after a record that cannot be read.
    after_damage: AtomicI64,
    used: Mutex<Stopwatch>,
    waiting: AtomicUsize,
}

/// Somebody who waits for a record; while there is one, the cursor is not idle.
pub(super) struct Waiting<'a>(&'a Slot);

impl Waiting<'_> {
    /// Ends when something has come.
    pub(super) fn woken(&self) -> Notified<'_> {
        self.0.wake.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |slot: &Slot| slot.position.load(Ordering::Relaxed);
        f.debug_struct("Lane")
            .field("positions", &self.slots.iter().map(at).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) fn start(config: &KafkaConfig, layout: &Arc<Layout>, asker: &Arc<Asker>) -> Result<Arc<Self>> {
        let consumer: LogConsumer = config
            .reader()
            .create_with_context(Logging { role: "reader" })
            .map_err(|error| failure::failed("start a Kafka consumer", error))?;
        let slots = (0..layout.partitions())
            .map(|partition| Slot::new(layout, partition))
            .collect::<Result<_>>()?;
        let lane = Arc::new(Self {
            config: config.clone(),
            layout: Arc::clone(layout),
            consumer: Arc::new(consumer),
            asker: Arc::clone(asker),
            slots,
            is_stuck: AtomicBool::new(false),
            stop: Arc::new(AtomicBool::new(false)),
        });
        let (consumer, stop, watched) = (
            Arc::clone(&lane.consumer),
            Arc::clone(&lane.stop),
            Arc::downgrade(&lane),
        );
        tasks::thread("kafka-reader", move || attend(&consumer, &stop, &watched)).map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start a Kafka consumer's thread", error)
        })?;
        Ok(lane)
    }

    /// Does something with a partition's cursor, after whoever has it now.
    pub(super) fn with_cursor<T>(
        &self,
        partition: Partition,
        act: impl FnOnce(&mut Cursor, &Io<'_>) -> Result<T>,
    ) -> Result<T> {
        let slot = self.slot(partition)?;
        let mut cursor = lock(&slot.cursor);
        let outcome = act(&mut cursor, &self.io(slot, partition)?);
        slot.settle(&cursor);
        if cursor.stalls() >= STALLS_MAX {
            self.give_up(partition);
        }
        outcome
    }

    /// Whether a new lane shall be taken in place of this one.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    /// Leaves the lane to its end. A consumer that was told once that a partition has no leader may never fetch it
    /// again (librdkafka issue 5430), not even after it was assigned anew.
    fn give_up(&self, partition: Partition) {
        if !self.is_stuck.swap(true, Ordering::AcqRel) {
            tracing::warn!(partition, "a Kafka consumer gets no records and is replaced");
            self.slots.iter().for_each(|slot| slot.wake.notify_waiters());
        }
    }

    /// Looks for a record without asking the broker; `None` when that is not possible.
    pub(super) fn look(&self, partition: Partition, from: Position) -> Option<Result<bool>> {
        let slot = self.slots.get(partition as usize)?;
        let mut cursor = match slot.cursor.try_lock() {
            Ok(cursor) => cursor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !cursor.can_look(from) {
            return None;
        }
        let outcome = self
            .io(slot, partition)
            .and_then(|io| cursor.has_record(&io, from));
        slot.settle(&cursor);
        Some(outcome)
    }

    /// Says that somebody waits for a record of a partition.
    pub(super) fn wait_on(&self, partition: Partition) -> Result<Waiting<'_>> {
        let slot = self.slot(partition)?;
        slot.waiting.fetch_add(1, Ordering::AcqRel);
        Ok(Waiting(slot))
    }

    /// Whether the cursor of a partition stands at a position and nobody is reading with it.
    pub(super) fn stands_at(&self, partition: Partition, from: Position) -> bool {
        self.slots.get(partition as usize).is_some_and(|slot| {
            let at = [&slot.position, &slot.after_damage].map(|at| at.load(Ordering::Acquire));
            from > NOWHERE
                && at.contains(&from)
                && !matches!(slot.cursor.try_lock(), Err(TryLockError::WouldBlock))
        })
    }

    /// Whether nobody goes on reading where the cursor of a partition stands.
    pub(super) fn is_free(&self, partition: Partition) -> bool {
        self.slots
            .get(partition as usize)
            .is_some_and(|slot| slot.position.load(Ordering::Acquire) == NOWHERE || slot.idle() > IDLE_TAKEN)
    }

    /// For how long nobody has read a partition.
    pub(super) fn idle(&self, partition: Partition) -> Duration {
        self.slots
            .get(partition as usize)
            .map_or(Duration::ZERO, Slot::idle)
    }

    fn io<'a>(&'a self, slot: &'a Slot, partition: Partition) -> Result<Io<'a>> {
        Ok(Io {
            config: &self.config,
            consumer: &self.consumer,
            asker: &self.asker,
            place: self.layout.place(partition)?,
            wake: &slot.wake,
        })
    }

    fn slot(&self, partition: Partition) -> Result<&Slot> {
        self.layout.place(partition)?;
        self.slots
            .get(partition as usize)
            .ok_or_else(|| StorageError::new(ErrorKind::Bug, format!("no cursor for partition {partition}")))
    }

    /// Drops what was fetched of a partition before a position, after whoever reads it now.
    pub(super) fn forget(&self, partition: Partition, before: Position) {
        let Some(slot) = self.slots.get(partition as usize) else {
            return;
        };
        let mut cursor = lock(&slot.cursor);
        if let Ok(io) = self.io(slot, partition)
            && (NOWHERE + 1..before).contains(&cursor.position())
        {
            cursor.let_go(&io);
            slot.lie_idle();
        }
    }

    /// Lets go of what nobody reads.
    fn rest(&self) {
        for (partition, slot) in (0..).zip(&self.slots) {
            if slot.position.load(Ordering::Acquire) == NOWHERE || slot.idle() < IDLE_MAX {
                continue;
            }
            if let (Ok(mut cursor), Ok(io)) = (slot.cursor.try_lock(), self.io(slot, partition)) {
                cursor.let_go(&io);
                slot.lie_idle();
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Slot {
    fn new(layout: &Layout, partition: Partition) -> Result<Self> {
        let place = layout.place(partition)?;
        Ok(Self {
            cursor: Mutex::new(Cursor::new(place.kind, place.shard, layout.shards())),
            wake: Arc::default(),
            position: AtomicI64::new(NOWHERE),
            after_damage: AtomicI64::new(NOWHERE),
            used: Mutex::new(Stopwatch::start()),
            waiting: AtomicUsize::new(0),
        })
    }

    fn settle(&self, cursor: &Cursor) {
        self.position.store(cursor.position(), Ordering::Release);
        self.after_damage.store(cursor.after_damage(), Ordering::Release);
        *lock(&self.used) = Stopwatch::start();
    }

    /// Says that the cursor fetches nothing.
    fn lie_idle(&self) {
        for at in [&self.position, &self.after_damage] {
            at.store(NOWHERE, Ordering::Release);
        }
    }

    fn idle(&self) -> Duration {
        match self.waiting.load(Ordering::Acquire) {
            0 => lock(&self.used).elapsed(),
            _ => Duration::ZERO,
        }
    }
}

/// Hears the consumer's own lines and errors until its lane is gone, and lets go of what nobody reads.
fn attend(consumer: &LogConsumer, stop: &AtomicBool, lane: &Weak<Lane>) {
    while !stop.load(Ordering::Acquire) {
        // Records come through the partitions' own queues.
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!(target: "librdkafka", %error, "a consumer's error");
        }
        if let Some(lane) = lane.upgrade() {
            lane.rest();
        }
    }
}
