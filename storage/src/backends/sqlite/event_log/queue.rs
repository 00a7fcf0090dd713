//! What waits for the appender: a queue bounded by calls and by bytes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock;
use tokio::sync::oneshot;

use super::record::{EncodedRecord, Rewrite};
use crate::api::{Appended, Position};
use crate::error::{ErrorKind, Result, StorageError};
use crate::metrics;

/// How much may wait to be appended. Beyond either limit appending answers `Busy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendLimits {
    /// Calls that wait.
    pub calls: usize,
    /// Bytes of their records. A single call may be larger when nothing else waits.
    pub bytes: usize,
}

impl Default for AppendLimits {
    fn default() -> Self {
        Self {
            calls: 4_096,
            bytes: 64 << 20,
        }
    }
}

/// What the appender is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    Trim(Trim),
    Rewrite(Rewrites),
}

/// The records of one call.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) records: Vec<EncodedRecord>,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Vec<Appended>>>,
}

/// A step of a trim.
#[derive(Debug)]
pub(super) struct Trim {
    pub(super) before: TsMs,
    pub(super) keep_from: Position,
    /// Records deleted, and whether there may be more.
    pub(super) reply: oneshot::Sender<Result<(u64, bool)>>,
}

/// Records that are to hold something else.
#[derive(Debug)]
pub(super) struct Rewrites {
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    limits: AppendLimits,
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    commands: Vec<Command>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(limits: AppendLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    /// Adds a command. `Busy` when the queue is full, `Unavailable` when it is closed.
    pub(super) fn push(&self, command: Command) -> Result<()> {
        let bytes = match &command {
            Command::Append(append) => append.bytes,
            Command::Trim(_) | Command::Rewrite(_) => 0,
        };
        let mut state = self.lock();
        if state.closed {
            return Err(stopped());
        }
        let (calls, waiting) = (state.commands.len(), state.bytes);
        if calls >= self.limits.calls || (calls > 0 && waiting + bytes > self.limits.bytes) {
            metrics::log_refused_busy();
            let why =
                format!("the event log is busy: {calls} calls with {waiting} bytes wait; send again shortly");
            return Err(StorageError::new(ErrorKind::Busy, why));
        }
        state.bytes += bytes;
        state.commands.push(command);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// All that waits, once there is something; `None` when the queue is closed and empty. Where fewer calls wait than
    /// hoped for, it looks again after a moment.
    pub(super) fn take_all(&self, hope: Hope) -> Option<Vec<Command>> {
        let empty = |state: &mut QueueState| state.commands.is_empty() && !state.closed;
        let mut state = self
            .filled
            .wait_while(self.lock(), empty)
            .unwrap_or_else(PoisonError::into_inner);
        if state.commands.len() < hope.calls && !state.closed {
            drop(state);
            clock::sleep_blocking(hope.patience);
            state = self.lock();
        }
        state.bytes = 0;
        let commands = std::mem::take(&mut state.commands);
        (!commands.is_empty()).then_some(commands)
    }

    /// Takes nothing more; what waits can still be taken out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes the queue and drops what waits, which tells the callers that nobody will answer.
    pub(super) fn abandon(&self) {
        self.close();
        self.lock().commands.clear();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the next commit may be shared by, judging from the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hope {
    pub(super) calls: usize,
    pub(super) patience: Duration,
}

/// The error of whoever meets a writer that is gone.
pub(super) fn stopped() -> StorageError {
    StorageError::new(
        ErrorKind::Unavailable,
        "the event log's writer has stopped: whether the records were appended is unknown; restart, then send again",
    )
}
