//! Everything that runs beside the caller: named tasks with a policy, closures that block, threads.
//!
//! * [`Tasks::spawn`] starts a future under a name. Its [`TaskPolicy`] says what its failure (an error or a panic)
//!   means: a line in the log, or the end of the process through the [`ShutdownController`].
//! * [`blocking`] runs a closure that blocks (SQLite, files, a day's fold) on tokio's blocking threads and brings its
//!   result back; a panic in it becomes a [`BlockingError`].
//! * [`thread`] starts a thread of its own, for loops that block as long as they live.
//!
//! The lints forbid `tokio::spawn` and its kin everywhere else, so there is no task that dies unseen.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{Instrument, Span};

use crate::clock::{self, Clock, Stopwatch};
use crate::metrics;
use crate::shutdown::{ShutdownCause, ShutdownController};

/// What the end of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPolicy {
    /// A failure is logged and counted; the process goes on without the task.
    Log,
    /// A failure shuts the process down; the task may end well at any time.
    Shutdown,
    /// The process cannot be without the task: a failure shuts it down, and so does any end before the shutdown was
    /// triggered. For services that run for as long as the process.
    Essential,
}

/// The tasks of a process. Clones are the same registry.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    controller: ShutdownController,
    running: Mutex<Running>,
    task_ended: Notify,
}

#[derive(Debug, Default)]
struct Running {
    next_id: u64,
    tasks: BTreeMap<u64, RunningTask>,
}

#[derive(Debug)]
struct RunningTask {
    name: Arc<str>,
    stopwatch: Stopwatch,
    /// Absent for the moment between entering the registry and being spawned.
    abort: Option<AbortHandle>,
}

/// A task that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// The name it was spawned under.
    pub name: Arc<str>,
    /// How long it has been running.
    pub running_for: Duration,
}

impl Tasks {
    /// A registry whose policies act on this controller.
    pub fn new(controller: ShutdownController) -> Self {
        let inner = Inner {
            controller,
            running: Mutex::default(),
            task_ended: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts `future` as a task of its own. Needs a running tokio.
    ///
    /// The future's output is `()`, or a `Result<(), E>` with any error. The name appears in logs and as a metric
    /// label: name the part, not the request. Dropping the handle leaves the task running.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is what everything else is told to use"
    )]
    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, policy: TaskPolicy, future: F) -> TaskHandle
    where
        F: Future<Output: TaskOutput> + Send + 'static,
    {
        let name = name.into();
        // Entered before the task exists, so that one which ends at once finds its entry.
        let registered = self.register(Arc::clone(&name));
        let id = registered.id;
        let controller = self.inner.controller.clone();
        let span = tracing::info_span!("task", name = &*name);
        let work = async move {
            // Unwind safety: after a panic nothing of the future is looked at again.
            let result = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(output) => output
                    .into_result()
                    .map_err(|error| TaskError::Failed(chain(&*error))),
                Err(panic) => Err(TaskError::Panicked(panic_message(&*panic))),
            };
            enforce(policy, &registered.name, &result, &controller);
            drop(registered);
            result
        };
        let join = tokio::spawn(work.instrument(span));
        if let Some(task) = self.inner.lock().tasks.get_mut(&id) {
            task.abort = Some(join.abort_handle());
        }
        TaskHandle { name, join }
    }

    /// The tasks that are running, oldest first.
    pub fn running(&self) -> Vec<TaskInfo> {
        let running = self.inner.lock();
        let info = |task: &RunningTask| TaskInfo {
            name: Arc::clone(&task.name),
            running_for: task.stopwatch.elapsed(),
        };
        running.tasks.values().map(info).collect()
    }

    /// Waits until no task is running, but no longer than `limit`; returns those that still are.
    pub async fn wait(&self, limit: Duration, clock: &dyn Clock) -> Vec<TaskInfo> {
        let all_ended = async {
            loop {
                let task_ended = self.inner.task_ended.notified();
                if self.inner.lock().tasks.is_empty() {
                    return;
                }
                task_ended.await;
            }
        };
        match clock::timeout(clock, limit, all_ended).await {
            Ok(()) => Vec::new(),
            Err(_) => self.running(),
        }
    }

    /// Ends every task at its next await: for the end of the process, when all that matters has been asked nicely.
    pub fn abort_all(&self) {
        let running = self.inner.lock();
        running
            .tasks
            .values()
            .filter_map(|task| task.abort.as_ref())
            .for_each(AbortHandle::abort);
    }

    fn register(&self, name: Arc<str>) -> Registered {
        let mut running = self.inner.lock();
        let id = running.next_id;
        running.next_id += 1;
        let task = RunningTask {
            name: Arc::clone(&name),
            stopwatch: Stopwatch::start(),
            abort: None,
        };
        running.tasks.insert(id, task);
        metrics::tasks_running(running.tasks.len());
        Registered {
            registry: Arc::clone(&self.inner),
            id,
            name,
        }
    }
}

/// What a task's future may return.
pub trait TaskOutput: Send + 'static {
    /// The output as the registry looks at it.
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>>;
}

impl TaskOutput for () {
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(())
    }
}

impl<E> TaskOutput for Result<(), E>
where
    E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
{
    fn into_result(self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.map_err(Into::into)
    }
}

/// A spawned task. Dropping it leaves the task running.
#[derive(Debug)]
pub struct TaskHandle {
    name: Arc<str>,
    join: JoinHandle<Result<(), TaskError>>,
}

impl TaskHandle {
    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.join.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// Waits for the end of the task. Its policy has been applied by then.
    pub async fn join(self) -> Result<(), TaskError> {
        self.join.await.unwrap_or(Err(TaskError::Aborted))
    }
}

/// How a task ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It returned an error; this is its message with those of its causes.
    #[error("{0}")]
    Failed(String),
    /// It panicked with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It was aborted, or the runtime went away.
    #[error("aborted")]
    Aborted,
}

/// Runs a closure that blocks on a thread meant for that, and waits for its result.
///
/// The closure cannot be cancelled: dropping the future leaves it running to its end. tokio bounds the number of such
/// threads; what is CPU-bound and many at once should be bounded earlier, by a [`crate::limits::Gate`].
#[allow(
    clippy::disallowed_methods,
    reason = "this is what everything else is told to use"
)]
pub async fn blocking<T, F>(name: &'static str, closure: F) -> Result<T, BlockingError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(closure)).await {
        Ok(value) => Ok(value),
        Err(error) => Err(match error.try_into_panic() {
            Ok(panic) => {
                let message = panic_message(&*panic);
                metrics::task_failed(name);
                tracing::error!(task = name, error = %message, "blocking work panicked");
                BlockingError::Panicked { name, message }
            }
            Err(_) => BlockingError::Cancelled { name },
        }),
    }
}

/// Why a closure given to [`blocking`] brought no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// It panicked.
    #[error("{name} panicked: {message}")]
    Panicked {
        /// The name given to [`blocking`].
        name: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The process is going down, so it was not begun.
    #[error("{name} was not begun: the process is going down")]
    Cancelled {
        /// The name given to [`blocking`].
        name: &'static str,
    },
}

/// Starts a thread of its own under `name` (shown by system tools, cut there after 15 bytes on Linux).
///
/// For a loop that blocks for its whole life, as the one writer of a database; it ends when its channel closes.
/// Whoever joins sees a panic; fails where the system gives no more threads.
#[allow(clippy::disallowed_methods, reason = "the place that the ban points to")]
pub fn thread<T, F>(name: &str, closure: F) -> io::Result<std::thread::JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = Span::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || span.in_scope(closure))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place in the registry; given up on drop, so also when the task is aborted.
#[derive(Debug)]
struct Registered {
    registry: Arc<Inner>,
    id: u64,
    name: Arc<str>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut running = self.registry.lock();
        running.tasks.remove(&self.id);
        metrics::tasks_running(running.tasks.len());
        drop(running);
        self.registry.task_ended.notify_waiters();
    }
}

fn enforce(policy: TaskPolicy, name: &str, result: &Result<(), TaskError>, controller: &ShutdownController) {
    let error = match result {
        Err(error) => {
            metrics::task_failed(name);
            tracing::error!(task = name, %error, ?policy, "task failed");
            error.to_string()
        }
        Ok(()) if policy == TaskPolicy::Essential && !controller.is_triggered() => {
            metrics::task_failed(name);
            tracing::error!(task = name, "task ended although the process needs it");
            "ended before the shutdown".to_owned()
        }
        Ok(()) => return tracing::debug!(task = name, "task ended"),
    };
    if policy != TaskPolicy::Log {
        controller.trigger_because(ShutdownCause::TaskFailed {
            task: name.to_owned(),
            error,
        });
    }
}

/// An error's message, followed by those of its causes.
fn chain(error: &dyn StdError) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Many errors already print their cause.
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

/// The message of a panic, where it has one.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => (*message).to_owned(),
        (None, Some(message)) => message.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests;
