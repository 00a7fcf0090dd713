//! A place in a partition from which reading goes on, and what was fetched beyond it.

use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::time::TsMs;
use dwell_runtime::clock::Stopwatch;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::damaged::DamagedRecord;
use super::super::failure;
use super::super::layout::Place;
use super::super::record::{Decoder, Runs};
use super::LogConsumer;
use super::asker::Asker;
use super::holes::only_holes_from;
use super::times::latest_before;
use crate::api::{LogBounds, LogChunk, Position};
use crate::error::{ErrorKind, Result, StorageError};
use crate::metrics;

/// The position of a cursor that fetches nothing.
pub(super) const NOWHERE: Position = -1;

/// One look into the queue while more is known to come.
const PATIENCE_STEP: Duration = Duration::from_millis(20);
/// For how long more is waited for when there is something to give already.
const PATIENCE_WITH_RECORDS: Duration = Duration::from_millis(200);
/// After how long without a record it is asked whether there is any.
const PATIENCE_WITHOUT: Duration = Duration::from_secs(3);

/// What a cursor works with.
pub(super) struct Io<'a> {
    pub(super) config: &'a KafkaConfig,
    pub(super) consumer: &'a Arc<LogConsumer>,
    pub(super) asker: &'a Asker,
    pub(super) place: Place<'a>,
    pub(super) wake: &'a Arc<Notify>,
}

/// Reads one partition.
pub(super) struct Cursor {
    decoder: Decoder,
    /// librdkafka's queue of the partition's records; kept once it was made.
    queue: Option<PartitionQueue<Logging>>,
    is_assigned: bool,
    /// Where the next read goes on.
    start: Position,
    /// Events from `start` on that were decoded already.
    ready: Runs,
    /// Where decoding goes on.
    next: Position,
    /// Latest time of append seen; of the records before the first one read as well, once `knows_time`.
    time: TsMs,
    knows_time: bool,
    /// An end that the partition is known to have had.
    known_end: Position,
    /// What stands at `next` instead of a record.
    trouble: Option<Trouble>,
    /// How often, since a record came, none came though there were some.
    stalls: u32,
}

enum Trouble {
    /// The record at `next` cannot be read: it is reported for as long as it is asked for.
    Damaged(DamagedRecord),
    /// The consumer has failed: reading starts anew.
    Failed(StorageError),
}

impl Cursor {
    pub(super) fn new(kind: Kind, shard: u32, shards: u32) -> Self {
        Self {
            decoder: Decoder::new(kind, shard, shards),
            queue: None,
            is_assigned: false,
            start: NOWHERE,
            ready: Runs::default(),
            next: NOWHERE,
            time: TsMs::MIN,
            knows_time: false,
            known_end: NOWHERE,
            trouble: None,
            stalls: 0,
        }
    }

    /// How often, since a record came, none came though there were some.
    pub(super) fn stalls(&self) -> u32 {
        self.stalls
    }

    /// Where the next read goes on.
    pub(super) fn position(&self) -> Position {
        match self.is_assigned {
            true => self.start,
            false => NOWHERE,
        }
    }

    /// Where the next read can go on as well, when it is over a record that cannot be read.
    pub(super) fn after_damage(&self) -> Position {
        match self.trouble {
            Some(Trouble::Damaged(_)) if self.is_assigned && self.ready.is_empty() => self.next + 1,
            _ => NOWHERE,
        }
    }

    /// Reads on from a position; see [`EventLogReader::read`](crate::api::EventLogReader::read). Blocking.
    pub(super) fn read(&mut self, io: &Io<'_>, from: Position, max_bytes: usize) -> Result<LogChunk> {
        self.go_to(io, from)?;
        self.fill(io, max_bytes.max(1))?;
        if self.ready.is_empty() && self.next == from {
            self.report_trouble(io)?;
        }
        self.start = self.next;
        Ok(LogChunk {
            records: self.ready.take(),
            next: self.next,
        })
    }

    /// When the record at a position, or the first one after it, was received. Blocking.
    pub(super) fn first_received_at(&mut self, io: &Io<'_>, from: Position) -> Result<Option<TsMs>> {
        self.go_to(io, from)?;
        self.fill(io, 1)?;
        match (&self.trouble, self.ready.first_received_at()) {
            (_, Some(time)) => Ok(Some(time)),
            // It cannot be read, but it was received.
            (Some(Trouble::Damaged(_)), None) => Ok(Some(self.time)),
            (Some(Trouble::Failed(_)), None) => self.report_trouble(io).map(|()| None),
            (None, None) => Ok(None),
        }
    }

    /// Whether [`has_record`](Self::has_record) needs no broker.
    pub(super) fn can_look(&self, from: Position) -> bool {
        self.is_assigned && self.start == from && (self.knows_time || !self.ready.is_empty())
    }

    /// Whether something is there to be read at a position. Blocks only to go to the position.
    pub(super) fn has_record(&mut self, io: &Io<'_>, from: Position) -> Result<bool> {
        self.go_to(io, from)?;
        while self.ready.is_empty() && self.trouble.is_none() && self.take_one(io, Duration::ZERO) {}
        // A failure is told to whoever reads.
        Ok(!self.ready.is_empty() || self.trouble.is_some())
    }

    /// Stops fetching.
    pub(super) fn let_go(&mut self, io: &Io<'_>) {
        self.start = NOWHERE;
        self.next = NOWHERE;
        self.ready = Runs::default();
        self.trouble = None;
        if !std::mem::take(&mut self.is_assigned) {
            return;
        }
        let assignment = partition_list(io.place, Offset::Invalid);
        // What is still queued counts as outdated from here on, and is never given out.
        if let Err(error) = assignment.and_then(|list| io.consumer.incremental_unassign(&list)) {
            tracing::warn!(%error, place = %io.place, "a partition cannot be let go");
        }
    }

    /// Makes `from` the place where reading goes on.
    fn go_to(&mut self, io: &Io<'_>, from: Position) -> Result<()> {
        if self.is_assigned && self.start == from {
            return Ok(());
        }
        if from > NOWHERE && from == self.after_damage() {
            self.trouble = None;
            self.next = from;
            self.start = from;
            return Ok(());
        }
        let place = io.place;
        let LogBounds { start, end } = io.asker.bounds(place)?;
        if from < start || from > end {
            return Err(gap(place, from, start, end));
        }
        self.let_go(io);
        metrics::kafka_seek();
        self.start = from;
        self.next = from;
        self.known_end = end;
        self.time = TsMs::MIN;
        // Nothing lies before the first record that could have a later time.
        self.knows_time = from == start;
        let going = |error| failure::failed(format!("read {place} from {from} on"), error);
        if self.queue.is_none() {
            let mut queue = io
                .consumer
                .split_partition_queue(place.topic, place.number())
                .ok_or_else(|| {
                    StorageError::new(ErrorKind::Unavailable, format!("there is no queue for {place}"))
                })?;
            let wake = Arc::clone(io.wake);
            queue.set_nonempty_callback(move || wake.notify_waiters());
            self.queue = Some(queue);
        }
        let assignment = partition_list(place, Offset::Offset(from)).map_err(going)?;
        io.consumer.incremental_assign(&assignment).map_err(going)?;
        self.is_assigned = true;
        Ok(())
    }

    /// Decodes records until there are enough, or no more.
    fn fill(&mut self, io: &Io<'_>, enough_bytes: usize) -> Result<()> {
        let stopwatch = Stopwatch::start();
        while self.ready.bytes() < enough_bytes && self.trouble.is_none() {
            if self.take_one(io, Duration::ZERO) {
                continue;
            }
            if self.next >= self.known_end {
                if !self.ready.is_empty() {
                    break;
                }
                self.known_end = self.ask_end(io)?;
                if self.next >= self.known_end {
                    break;
                }
            }
            let waited = stopwatch.elapsed();
            if !self.ready.is_empty() && waited > PATIENCE_WITH_RECORDS {
                break;
            }
            if waited > PATIENCE_WITHOUT {
                self.find_out(io)?;
                break;
            }
            self.take_one(io, PATIENCE_STEP);
        }
        Ok(())
    }

    /// Takes one record, or what stands in its place; `false` when nothing came.
    fn take_one(&mut self, io: &Io<'_>, patience: Duration) -> bool {
        let Some(queue) = self.queue.take() else {
            return false;
        };
        let came = match queue.poll(patience) {
            None => false,
            Some(Ok(message)) => {
                if let Err(error) = self.take(io, &message) {
                    self.trouble = Some(Trouble::Failed(error));
                }
                true
            }
            Some(Err(error)) => {
                let doing = format!("read {} at {}", io.place, self.next);
                self.trouble = Some(Trouble::Failed(failure::failed(doing, error)));
                true
            }
        };
        self.queue = Some(queue);
        came
    }

    fn take(&mut self, io: &Io<'_>, message: &BorrowedMessage<'_>) -> Result<()> {
        let position = message.offset();
        self.stalls = 0;
        if position < self.next {
            return Ok(());
        }
        let time = message.timestamp().to_millis().unwrap_or(TsMs::MIN);
        if !self.knows_time {
            let before = latest_before(position, time, |time| io.asker.first_since(io.place, time))?;
            self.time = before.unwrap_or(time);
            self.knows_time = true;
        }
        self.time = self.time.max(time);
        match self
            .decoder
            .add(position, self.time, message.payload(), &mut self.ready)
        {
            Ok(()) => self.next = position + 1,
            Err(damage) => {
                self.next = position;
                let what = format!("record {position} of {} cannot be read: {damage}", io.place);
                let bytes = message.payload().unwrap_or_default();
                self.trouble = Some(Trouble::Damaged(DamagedRecord::new(what, self.time, bytes)));
            }
        }
        Ok(())
    }

    /// The error that stands where the caller reads, if any.
    fn report_trouble(&mut self, io: &Io<'_>) -> Result<()> {
        match self.trouble.take() {
            None => Ok(()),
            Some(Trouble::Damaged(damaged)) => {
                let error = damaged.clone().into_error();
                self.trouble = Some(Trouble::Damaged(damaged));
                Err(error)
            }
            Some(Trouble::Failed(error)) => {
                let from = self.next;
                self.let_go(io);
                if error.kind() != ErrorKind::Gap {
                    return Err(error);
                }
                // What the consumer calls out of range the broker's answer tells more exactly.
                let LogBounds { start, end } = io.asker.bounds(io.place)?;
                match (start..=end).contains(&from) {
                    true => Err(StorageError::with_source(
                        ErrorKind::Unavailable,
                        format!("read {} from {from} on", io.place),
                        error,
                    )),
                    false => Err(gap(io.place, from, start, end)),
                }
            }
        }
    }

    fn ask_end(&mut self, io: &Io<'_>) -> Result<Position> {
        let LogBounds { start, end } = io.asker.bounds(io.place)?;
        if self.next < start || self.next > end {
            let from = self.next;
            self.let_go(io);
            return Err(gap(io.place, from, start, end));
        }
        Ok(end)
    }

    /// Records are known to be there, and none comes.
    fn find_out(&mut self, io: &Io<'_>) -> Result<()> {
        if !self.ready.is_empty() {
            return Ok(());
        }
        let (from, end) = (self.next, self.known_end);
        if only_holes_from(io.config, io.place, from)? {
            self.next = end;
            return Ok(());
        }
        // Start anew: whatever holds this consumer up does not hold up others.
        self.stalls += 1;
        self.let_go(io);
        Err(StorageError::new(
            ErrorKind::Unavailable,
            format!(
                "read {} from {from} on: no record came, though there are some",
                io.place
            ),
        ))
    }
}

fn gap(place: Place<'_>, from: Position, start: Position, end: Position) -> StorageError {
    StorageError::new(
        ErrorKind::Gap,
        format!("{place} holds positions {start} to {end}, but {from} was asked for"),
    )
}

fn partition_list(place: Place<'_>, offset: Offset) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(place.topic, place.number(), offset)?;
    Ok(list)
}
