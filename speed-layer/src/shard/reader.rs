//! The partitions of a shard, read as one stream in the order in which their records were received.
//!
//! ```text
//! partition 3 ─▶ read ahead ─┐
//! partition 9 ─▶ read ahead ─┼─▶ the record received first ─▶ the shard's state
//! partition 15 ─ at its end ─┘
//! ```
//!
//! Each partition is in order by itself, but they are read one by one, and after a pause their backlogs are of
//! different length. If the positions of hours 10 to 12 were taken in before the crossings of hour 10, those would look
//! late although they came in time. So records are merged: the one received first is taken first, and none as long as a
//! partition's next record is unknown. A partition at its end holds nobody up; its end is looked at again once the last
//! look is [`END_HOLDS`] ago, so that what comes there meanwhile is overtaken by no more than that.
//!
//! A position is that of the next record to take; what is read ahead is only in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_storage::api::{EventLogReader, LogLag, LoggedRecord, Partition, Position};
use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::error::{Error, Result};
use crate::handle::sum_of_lags;
use crate::log_chunk;

/// How long a partition that was found at its end is taken to be there while others are read. Far below any sensible
/// reorder window, far above the time of a read.
const END_HOLDS: Duration = Duration::from_secs(1);

/// Reads the partitions of one shard.
pub(crate) struct ShardReader {
    log: Arc<dyn EventLogReader>,
    partitions: Vec<PartitionReader>,
    read_bytes: usize,
}

/// Where the reading of a partition begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) partition: Partition,
    pub(crate) position: Position,
    /// When the record there was received, or now where none is.
    pub(crate) received_at: TsMs,
    /// Late events before this position were counted before a restart.
    pub(crate) counted_before: Position,
}

#[derive(Debug)]
struct PartitionReader {
    partition: Partition,
    position: Position,
    counted_before: Position,
    /// Records from `position` on.
    ahead: VecDeque<LoggedRecord>,
    /// Where the next read begins.
    next: Position,
    /// When the last read found nothing more.
    end_seen: Option<Duration>,
    /// What is not taken yet was received then or later.
    received_at: TsMs,
}

/// A record to be taken in.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) record: LoggedRecord,
    /// Whether its late events were counted before a restart.
    pub(crate) is_counted: bool,
}

impl ShardReader {
    pub(crate) fn new(log: Arc<dyn EventLogReader>, starts: Vec<Start>, read_bytes: usize) -> Self {
        let partitions = starts.into_iter().map(PartitionReader::new).collect();
        Self {
            log,
            partitions,
            read_bytes,
        }
    }

    /// For each partition the next record to take.
    pub(crate) fn positions(&self) -> Vec<(Partition, Position)> {
        let position = |reader: &PartitionReader| (reader.partition, reader.position);
        self.partitions.iter().map(position).collect()
    }

    /// Whether everything was taken that the last reads found, and they found the ends.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.partitions.iter().all(PartitionReader::is_at_end)
    }

    /// What was received before this time has been taken; the end of time where nothing is left.
    pub(crate) fn log_time(&self) -> TsMs {
        let behind = self.partitions.iter().filter(|reader| !reader.is_at_end());
        behind
            .map(PartitionReader::next_received_at)
            .min()
            .unwrap_or(TsMs::MAX)
    }

    /// Reads on where the next record is not known; false when every partition is at its end. What could be read is
    /// kept when a partition fails.
    pub(crate) async fn fill(&mut self, at: Duration) -> Result<bool> {
        if self.is_caught_up() {
            self.partitions
                .iter_mut()
                .for_each(|reader| reader.end_seen = None);
        }
        self.read_unknown(at).await?;
        if self.partitions.iter().any(|reader| !reader.ahead.is_empty()) {
            for reader in &mut self.partitions {
                let holds = |seen: &Duration| at.saturating_sub(*seen) <= END_HOLDS;
                reader.end_seen = reader.end_seen.filter(holds);
            }
            self.read_unknown(at).await?;
        }
        Ok(!self.is_caught_up())
    }

    /// The record to be taken next; `None` when a partition has to be read first, or all are at their ends.
    pub(crate) fn peek(&self) -> Option<&LoggedRecord> {
        self.partitions[self.first()?].ahead.front()
    }

    /// Takes the record that [`peek`](Self::peek) shows.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        let first = self.first()?;
        self.partitions[first].take()
    }

    /// Waits until a partition has a record to be read, at most for `timeout`; gives the places of those that have one.
    /// For when all are at their ends.
    pub(crate) async fn wait(&self, timeout: Duration) -> Result<Vec<usize>> {
        let wait = |(place, reader): (usize, &PartitionReader)| {
            let (partition, next) = (reader.partition, reader.next);
            async move {
                let found = self.log.wait(partition, next, timeout).await;
                (
                    place,
                    found.map_err(|error| Error::from_log(partition, next, error)),
                )
            }
            .boxed()
        };
        let mut waiting: FuturesUnordered<_> = self.partitions.iter().enumerate().map(wait).collect();
        let mut found = Vec::new();
        while let Some((place, is_there)) = waiting.next().await {
            if is_there? {
                found.push(place);
                break;
            }
        }
        // Those that have one at the same moment.
        while let Some(Some((place, Ok(is_there)))) = waiting.next().now_or_never() {
            found.extend(is_there.then_some(place));
        }
        Ok(found)
    }

    /// After a wait at the ends: these places have something to read, the others are still at their ends.
    pub(crate) fn heard(&mut self, places: &[usize], at: Duration) {
        for (place, reader) in self.partitions.iter_mut().enumerate() {
            if places.contains(&place) {
                reader.end_seen = None;
            } else if reader.end_seen.is_some() {
                reader.end_seen = Some(at);
            }
        }
    }

    /// What was received before this time has been taken of one partition.
    pub(crate) fn log_time_of(&self, partition: Partition) -> TsMs {
        let mut known = self
            .partitions
            .iter()
            .filter(|reader| reader.partition == partition && !reader.is_at_end());
        known.next().map_or(TsMs::MAX, PartitionReader::next_received_at)
    }

    /// How far the shard is behind.
    pub(crate) async fn lag(&self) -> Result<LogLag> {
        let behind = self.partitions.iter().filter(|reader| !reader.is_at_end());
        let lags = behind.map(|reader| async {
            // The log is asked where it is read, which costs it nothing; what lies before is here.
            let beyond = self.log.lag(reader.partition, reader.next).await?;
            let ahead = LogLag {
                events: reader.ahead.iter().map(|record| record.events.len() as u64).sum(),
                oldest_received_at: reader.ahead.front().map(|record| record.received_at),
            };
            Ok(sum_of_lags([ahead, beyond].into_iter()))
        });
        let lags: Result<Vec<LogLag>> = join_all(lags).await.into_iter().collect();
        Ok(sum_of_lags(lags?.into_iter()))
    }

    /// The partition whose next record was received first.
    fn first(&self) -> Option<usize> {
        let mut first: Option<(TsMs, usize)> = None;
        for (place, reader) in self.partitions.iter().enumerate() {
            if reader.ahead.is_empty() {
                // Its next record may be older than all the others.
                reader.end_seen?;
                continue;
            }
            let received_at = reader.next_received_at();
            if first.is_none_or(|(earliest, _)| received_at < earliest) {
                first = Some((received_at, place));
            }
        }
        first.map(|(_, place)| place)
    }

    async fn read_unknown(&mut self, at: Duration) -> Result<()> {
        let (log, bytes) = (&*self.log, self.read_bytes);
        let unknown = self.partitions.iter_mut().filter(|reader| reader.is_unknown());
        let reads = join_all(unknown.map(|reader| reader.read(log, bytes, at))).await;
        reads.into_iter().collect()
    }
}

impl PartitionReader {
    fn new(start: Start) -> Self {
        let Start {
            partition,
            position,
            received_at,
            counted_before,
        } = start;
        Self {
            partition,
            position,
            counted_before,
            ahead: VecDeque::new(),
            next: position,
            end_seen: None,
            received_at,
        }
    }

    fn is_unknown(&self) -> bool {
        self.ahead.is_empty() && self.end_seen.is_none()
    }

    fn is_at_end(&self) -> bool {
        self.ahead.is_empty() && self.end_seen.is_some()
    }

    /// When its next record was received, or a time before that. A file's record carries the start of its import, and
    /// counts as received with the record before it.
    fn next_received_at(&self) -> TsMs {
        let next = self.ahead.front().map(|record| record.received_at);
        next.map_or(self.received_at, |received_at| received_at.max(self.received_at))
    }

    async fn read(&mut self, log: &dyn EventLogReader, bytes: usize, at: Duration) -> Result<()> {
        let chunk = log_chunk::read(log, self.partition, self.next, bytes).await?;
        if chunk.records.is_empty() {
            // Records may have been stepped over: then this is not yet the end.
            self.end_seen = (chunk.next <= self.next).then_some(at);
            self.next = self.next.max(chunk.next);
            self.position = self.next;
            return Ok(());
        }
        self.next = chunk.next;
        self.ahead = chunk.records.into();
        Ok(())
    }

    fn take(&mut self) -> Option<Taken> {
        self.received_at = self.next_received_at();
        let record = self.ahead.pop_front()?;
        self.position = self.ahead.front().map_or(self.next, |next| next.position);
        Some(Taken {
            is_counted: record.position < self.counted_before,
            record,
        })
    }
}

impl std::fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardReader")
            .field("positions", &self.positions())
            .finish_non_exhaustive()
    }
}
