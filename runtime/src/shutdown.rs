//! Orderly shutdown: phases in a fixed order, named parties in each, and a report of who was late.
//!
//! * Every part that has something to finish [registers](ShutdownController::register) with the phase it belongs to
//!   and gets a [`ShutdownToken`]. The token says when that phase has begun; dropping the token (also by panic) says
//!   that the part is done.
//! * Anyone may [trigger](ShutdownController::trigger) the shutdown: a signal, the admin API, a task that failed
//!   ([`crate::tasks`]). The first cause is kept.
//! * `main` waits for [`triggered`](ShutdownController::triggered) and then calls
//!   [`run_to_completion`](ShutdownController::run_to_completion), which walks the [`Phase`]s. A phase ends when its
//!   tokens are gone or its bound has passed; who is still pending is logged every five seconds and reported by name.
//!
//! A phase is never skipped: when the total time is up, the rest are begun together, so that every party hears of the
//! end, though none is waited for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod report;
mod run;
mod signals;

pub use report::{LateParty, ShutdownReport};
pub use signals::StopSignals;

/// The steps of a shutdown, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// `/readyz` answers 503, so that load balancers look elsewhere. Everything still works.
    NotReady,
    /// Listeners are closed; requests that were taken go on.
    StopAccepting,
    /// What was accepted reaches the event log, what is in the log is copied on as far as is cheap.
    DrainIngest,
    /// The speed layer writes its state with its log position.
    CheckpointSessions,
    /// Jobs stop at a point from which they can be repeated, and give their leases back.
    StopJobs,
    /// Open API requests and streams end.
    FinishRequests,
    /// Databases are closed.
    CloseStores,
    /// The admin port goes last, so that the whole shutdown can be watched.
    Admin,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 8] = [
        Self::NotReady,
        Self::StopAccepting,
        Self::DrainIngest,
        Self::CheckpointSessions,
        Self::StopJobs,
        Self::FinishRequests,
        Self::CloseStores,
        Self::Admin,
    ];

    /// The name in logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::StopAccepting => "stop_accepting",
            Self::DrainIngest => "drain_ingest",
            Self::CheckpointSessions => "checkpoint_sessions",
            Self::StopJobs => "stop_jobs",
            Self::FinishRequests => "finish_requests",
            Self::CloseStores => "close_stores",
            Self::Admin => "admin",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How long each phase may take at most. The total given to
/// [`run_to_completion`](ShutdownController::run_to_completion) binds as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseBounds {
    bounds: [Duration; Phase::ALL.len()],
}

impl PhaseBounds {
    /// The same bound for every phase.
    pub const fn all(bound: Duration) -> Self {
        Self {
            bounds: [bound; Phase::ALL.len()],
        }
    }

    /// Changes the bound of one phase.
    #[must_use]
    pub const fn with(mut self, phase: Phase, bound: Duration) -> Self {
        self.bounds[phase.index()] = bound;
        self
    }

    /// The bound of a phase.
    pub const fn bound(&self, phase: Phase) -> Duration {
        self.bounds[phase.index()]
    }
}

impl Default for PhaseBounds {
    /// Five seconds for a phase, one for those that have nothing to write.
    fn default() -> Self {
        Self::all(Duration::from_secs(5))
            .with(Phase::NotReady, Duration::from_secs(1))
            .with(Phase::StopAccepting, Duration::from_secs(2))
            .with(Phase::Admin, Duration::from_secs(1))
    }
}

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// Somebody asked for it: a signal, the end of a script.
    Requested,
    /// A task that the process cannot do without has failed; the process should exit with an error.
    TaskFailed {
        /// The task's name.
        task: String,
        /// What went wrong, with its causes.
        error: String,
    },
}

impl fmt::Display for ShutdownCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => formatter.write_str("requested"),
            Self::TaskFailed { task, error } => write!(formatter, "task {task} failed: {error}"),
        }
    }
}

/// Starts the shutdown and leads it through its phases. Clones are the same controller.
#[derive(Clone, Debug)]
pub struct ShutdownController {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: PhaseBounds,
    triggered: CancellationToken,
    begun: [CancellationToken; Phase::ALL.len()],
    parties: Mutex<Parties>,
    party_left: Notify,
}

#[derive(Debug, Default)]
struct Parties {
    cause: Option<ShutdownCause>,
    next_id: u64,
    pending: BTreeMap<(Phase, u64), Arc<str>>,
}

impl ShutdownController {
    /// A controller for one process.
    pub fn new(bounds: PhaseBounds) -> Self {
        let inner = Inner {
            bounds,
            triggered: CancellationToken::new(),
            begun: Default::default(),
            parties: Mutex::default(),
            party_left: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Joins a phase: the shutdown will wait in it until the token and all its clones are dropped. Who registers
    /// after the phase has begun gets a token that is already requested.
    #[must_use = "a token that is dropped at once holds nothing up"]
    pub fn register(&self, phase: Phase, name: impl Into<Arc<str>>) -> ShutdownToken {
        let mut parties = self.inner.lock();
        let id = parties.next_id;
        parties.next_id += 1;
        parties.pending.insert((phase, id), name.into());
        let party = Party {
            controller: Arc::clone(&self.inner),
            key: (phase, id),
        };
        ShutdownToken {
            signal: self.signal(phase),
            party: Arc::new(party),
        }
    }

    /// Listens for a phase without holding it up.
    pub fn signal(&self, phase: Phase) -> ShutdownSignal {
        ShutdownSignal {
            begun: self.inner.begun[phase.index()].clone(),
        }
    }

    /// Asks for the shutdown. Only the first cause counts.
    pub fn trigger(&self) {
        self.trigger_because(ShutdownCause::Requested);
    }

    /// Asks for the shutdown and says why. Only the first cause counts; false when there was one before.
    pub fn trigger_because(&self, cause: ShutdownCause) -> bool {
        let mut parties = self.inner.lock();
        let first = parties.cause.is_none();
        if first {
            tracing::info!(%cause, "shutdown triggered");
            parties.cause = Some(cause);
        }
        drop(parties);
        self.inner.triggered.cancel();
        first
    }

    /// Waits until somebody asks for the shutdown.
    pub async fn triggered(&self) {
        self.inner.triggered.cancelled().await;
    }

    /// Whether somebody has asked for the shutdown.
    pub fn is_triggered(&self) -> bool {
        self.inner.triggered.is_cancelled()
    }

    /// Why the process ends, once it does.
    pub fn cause(&self) -> Option<ShutdownCause> {
        self.inner.lock().cause.clone()
    }
}

impl Default for ShutdownController {
    fn default() -> Self {
        Self::new(PhaseBounds::default())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Parties> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A party's part in a phase: tells it when to finish, and by being dropped tells that it has.
///
/// Clones belong to the same party; it is done when the last one is dropped.
#[derive(Clone, Debug)]
#[must_use = "a token that is dropped at once holds nothing up"]
pub struct ShutdownToken {
    signal: ShutdownSignal,
    party: Arc<Party>,
}

impl ShutdownToken {
    /// Waits until the phase begins. Safe to drop and to wait for again, as `select!` does.
    pub async fn requested(&self) {
        self.signal.requested().await;
    }

    /// Whether the phase has begun.
    pub fn is_requested(&self) -> bool {
        self.signal.is_requested()
    }

    /// Listens for the same phase without holding it up: for helpers of the party.
    pub fn signal(&self) -> ShutdownSignal {
        self.signal.clone()
    }

    /// The phase it was registered for.
    pub fn phase(&self) -> Phase {
        self.party.key.0
    }

    /// A token of no controller, which is never requested: for a service that is run to its end, in a command or a
    /// test.
    pub fn never(phase: Phase) -> Self {
        ShutdownController::default().register(phase, "never")
    }
}

/// Says when a phase begins. Cheap to clone; holds nothing up.
#[derive(Clone, Debug)]
pub struct ShutdownSignal {
    begun: CancellationToken,
}

impl ShutdownSignal {
    /// Waits until the phase begins.
    pub async fn requested(&self) {
        self.begun.cancelled().await;
    }

    /// The same as a future that owns what it needs, as servers ask for.
    pub fn requested_owned(&self) -> impl Future<Output = ()> + Send + 'static {
        self.begun.clone().cancelled_owned()
    }

    /// Whether the phase has begun.
    pub fn is_requested(&self) -> bool {
        self.begun.is_cancelled()
    }
}

#[derive(Debug)]
struct Party {
    controller: Arc<Inner>,
    key: (Phase, u64),
}

impl Drop for Party {
    fn drop(&mut self) {
        self.controller.lock().pending.remove(&self.key);
        self.controller.party_left.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
