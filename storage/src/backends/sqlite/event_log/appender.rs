//! Group commit: a thread that takes whatever waits and commits it with one fsync.
//!
//! Callers put their records into a bounded queue and wait for an answer that comes after the commit. While the thread
//! is in an fsync the queue fills, so the busier the log the larger its commits. A full queue answers `Busy` at once.
//!
//! Callers that were just answered tend to call again at once. Without patience the first of them would get a commit of
//! its own while the others wait for the next: so after a commit that several calls shared, the thread lets the queue
//! fill for a tenth of the time that the commit took.

use std::sync::Arc;
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::{SharedClock, Stopwatch};
use dwell_runtime::tasks;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use super::super::condition::FileCondition;
use super::super::failure::Failure;
use super::PARTITION;
use super::queue::{Append, AppendLimits, Command, Hope, Queue, Rewrites, Trim, stopped};
use super::record::{EncodedRecord, Rewrite};
use crate::api::{Appended, Position};
use crate::error::{ErrorKind, Result, StorageError};
use crate::metrics;

/// Records deleted in one transaction of a trim.
const TRIM_STEP: i64 = 256;

/// Longest time for which a commit is put off so that more calls share it.
const PATIENCE_MAX: Duration = Duration::from_millis(1);

/// Where the next record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    end: Position,
    /// Events ever appended.
    events: i64,
    /// `appended_at` of the last record.
    appended_at: TsMs,
}

impl Tail {
    pub(super) fn load(log: &Connection) -> Result<Self, Failure> {
        let last = log
            .prepare_cached(
                "SELECT position + 1, events_before + events, appended_at
                 FROM records ORDER BY position DESC LIMIT 1",
            )?
            .query_row([], Self::from_row)
            .optional()?;
        if let Some(tail) = last {
            return Ok(tail);
        }
        let mut life =
            log.prepare_cached("SELECT trimmed_position, trimmed_events, trimmed_appended_at FROM life")?;
        Ok(life.query_row([], Self::from_row)?)
    }

    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            end: row.get(0)?,
            events: row.get(1)?,
            appended_at: row.get(2)?,
        })
    }
}

/// The handle of the thread. Dropping it lets the thread finish what waits, and waits for that.
#[derive(Debug)]
pub(super) struct Appender {
    queue: Arc<Queue>,
    end: watch::Receiver<Position>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Appender {
    pub(super) fn start(
        connection: Connection,
        condition: Arc<FileCondition>,
        tail: Tail,
        limits: AppendLimits,
        clock: SharedClock,
    ) -> Result<Self> {
        let queue = Arc::new(Queue::new(limits));
        let (end_sender, end) = watch::channel(tail.end);
        let worker = Worker {
            queue: Arc::clone(&queue),
            connection,
            condition,
            tail: None,
            data_version: None,
            clock,
            end: end_sender,
        };
        let thread = tasks::thread("log-appender", move || worker.run()).map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start the log's writer", error)
        })?;
        Ok(Self {
            queue,
            end,
            thread: Some(thread),
        })
    }

    /// Position of the next record, as of the last commit.
    pub(super) fn end(&self) -> watch::Receiver<Position> {
        self.end.clone()
    }

    pub(super) async fn append(&self, records: Vec<EncodedRecord>) -> Result<Vec<Appended>> {
        let bytes = records.iter().map(|record| record.batch.len()).sum();
        let (reply, answer) = oneshot::channel();
        self.queue.push(Command::Append(Append {
            records,
            bytes,
            reply,
        }))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Deletes some of the oldest records that may go; returns how many, and whether there may be more.
    pub(super) async fn trim_some(&self, before: TsMs, keep_from: Position) -> Result<(u64, bool)> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Command::Trim(Trim {
            before,
            keep_from,
            reply,
        }))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Replaces what records hold, all of them in one transaction.
    pub(super) async fn rewrite(&self, rewrites: Vec<Rewrite>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Command::Rewrite(Rewrites { rewrites, reply }))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been answered to its callers.
            let _ = thread.join();
        }
    }
}

/// The thread: owner of the writing connection.
struct Worker {
    queue: Arc<Queue>,
    connection: Connection,
    condition: Arc<FileCondition>,
    /// `None` until it is read, and after a failure, when the file has to be asked again.
    tail: Option<Tail>,
    /// SQLite's number that changes when another connection writes.
    data_version: Option<i64>,
    clock: SharedClock,
    end: watch::Sender<Position>,
}

impl Drop for Worker {
    /// Also when a panic unwinds: callers that wait get their answer (an error) instead of waiting for ever.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Worker {
    fn run(mut self) {
        let mut hope = Hope::default();
        while let Some(commands) = self.queue.take_all(hope) {
            let mut appends = Vec::with_capacity(commands.len());
            let (mut trims, mut rewrites) = (Vec::new(), Vec::new());
            for command in commands {
                match command {
                    Command::Append(append) => appends.push(append),
                    Command::Trim(trim) => trims.push(trim),
                    Command::Rewrite(rewrite) => rewrites.push(rewrite),
                }
            }
            hope = Hope::default();
            if !appends.is_empty() {
                let (calls, stopwatch) = (appends.len(), Stopwatch::start());
                self.append(appends);
                if calls > 1 {
                    hope = Hope {
                        calls,
                        patience: (stopwatch.elapsed() / 10).min(PATIENCE_MAX),
                    };
                }
            }
            for Trim {
                before,
                keep_from,
                reply,
            } in trims
            {
                // Nobody waits for the answer any more: fine.
                let _ = reply.send(self.trim(before, keep_from));
            }
            for Rewrites { rewrites, reply } in rewrites {
                let _ = reply.send(self.rewrite(&rewrites));
            }
        }
    }

    /// Positions, and the counts of events before a record, stay: a reader's lag may name a few events too many.
    fn rewrite(&mut self, rewrites: &[Rewrite]) -> Result<()> {
        let write = || -> Result<(), Failure> {
            self.condition.check()?;
            let log = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            {
                let mut update =
                    log.prepare_cached("UPDATE records SET events = ?2, batch = ?3 WHERE position = ?1")?;
                for rewrite in rewrites {
                    update.execute((rewrite.position, rewrite.events, &rewrite.batch))?;
                }
            }
            Ok(log.commit()?)
        };
        write().map_err(|failure| {
            self.condition
                .describe("rewrite records of the event log", failure)
        })
    }

    fn append(&mut self, appends: Vec<Append>) {
        let stopwatch = Stopwatch::start();
        match self.commit_group(&appends) {
            Ok((tail, answers)) => {
                metrics::log_committed(
                    &stopwatch,
                    appends.len(),
                    appends.iter().map(|append| append.bytes).sum(),
                );
                self.tail = Some(tail);
                self.end.send_replace(tail.end);
                for (append, answer) in appends.into_iter().zip(answers) {
                    let _ = append.reply.send(Ok(answer));
                }
            }
            Err(failure) => {
                self.tail = None;
                let error = self.condition.describe("append to the event log", failure);
                tracing::error!(%error, kind = error.kind().word(), calls = appends.len(), "commit of the event log failed");
                for append in appends {
                    let _ = append
                        .reply
                        .send(Err(StorageError::new(error.kind(), error.to_string())));
                }
            }
        }
    }

    /// Writes all records in one transaction.
    fn commit_group(&mut self, appends: &[Append]) -> Result<(Tail, Vec<Vec<Appended>>), Failure> {
        self.condition.check()?;
        let log = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let data_version: i64 = log
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let mut tail = match self.tail {
            Some(tail) if self.data_version == Some(data_version) => tail,
            _ => Tail::load(&log)?,
        };
        tail.appended_at = tail.appended_at.max(self.clock.now_ms());
        let mut answers = Vec::with_capacity(appends.len());
        {
            let mut insert =
                log.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
            for append in appends {
                let mut answer = Vec::with_capacity(append.records.len());
                for record in &append.records {
                    // A file's own time stands for that of appending, and moves no other record's.
                    let received_at = record.received_at.unwrap_or(tail.appended_at);
                    insert.execute(rusqlite::params![
                        tail.end,
                        received_at,
                        tail.appended_at,
                        record.kind as u8,
                        record.venue.tenant.as_str(),
                        record.venue.venue.as_str(),
                        record.receipt,
                        record.events,
                        tail.events,
                        record.batch,
                    ])?;
                    answer.push(Appended {
                        partition: PARTITION,
                        position: tail.end,
                        received_at,
                    });
                    tail.end += 1;
                    tail.events += record.events;
                }
                answers.push(answer);
            }
        }
        log.commit()?;
        self.data_version = Some(data_version);
        Ok((tail, answers))
    }

    fn trim(&mut self, before: TsMs, keep_from: Position) -> Result<(u64, bool)> {
        self.trim_step(before, keep_from)
            .map_err(|failure| self.condition.describe("trim the event log", failure))
    }

    fn trim_step(&mut self, before: TsMs, keep_from: Position) -> Result<(u64, bool), Failure> {
        self.condition.check()?;
        let log = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut last: Option<Tail> = None;
        let mut deleted = 0;
        {
            let mut oldest = log.prepare_cached(
                "SELECT position + 1, events_before + events, appended_at, received_at
                 FROM records ORDER BY position LIMIT ?1",
            )?;
            let mut rows = oldest.query([TRIM_STEP])?;
            while let Some(row) = rows.next()? {
                let (tail, received_at) = (Tail::from_row(row)?, row.get::<_, TsMs>(3)?);
                // Only from the front, so that what is left has no holes.
                if received_at >= before || tail.end > keep_from {
                    break;
                }
                last = Some(tail);
                deleted += 1;
            }
        }
        let Some(last) = last else { return Ok((0, false)) };
        log.execute("DELETE FROM records WHERE position < ?1", [last.end])?;
        log.execute(
            "UPDATE life SET trimmed_position = ?1, trimmed_events = ?2, trimmed_appended_at = ?3",
            [last.end, last.events, last.appended_at],
        )?;
        log.commit()?;
        Ok((deleted, deleted == TRIM_STEP as u64))
    }
}
