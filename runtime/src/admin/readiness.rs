//! Whether the process can serve, as the sum of what its parts say of themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::shutdown::{Phase, ShutdownController, ShutdownSignal};

/// The checks of a process. Clones are the same registry.
///
/// Without any check it is ready. From the shutdown's [`Phase::NotReady`] on it is not, whatever the checks say.
#[derive(Clone, Debug)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, Arc<Check>>>>,
    shutting_down: ShutdownSignal,
}

impl Readiness {
    /// A registry that follows this controller's shutdown.
    pub fn new(controller: &ShutdownController) -> Self {
        Self {
            checks: Arc::default(),
            shutting_down: controller.signal(Phase::NotReady),
        }
    }

    /// Adds a check, not ok ("starting") until the part says otherwise. A name that is there already is taken over:
    /// the part was started anew.
    pub fn register(&self, name: impl Into<String>) -> CheckHandle {
        let check = Arc::new(Check {
            state: Mutex::new(CheckState::not_ok("starting")),
        });
        lock(&self.checks).insert(name.into(), Arc::clone(&check));
        CheckHandle {
            owner: Arc::new(CheckOwner { check }),
        }
    }

    /// All checks as they are now, by name.
    pub fn report(&self) -> ReadinessReport {
        let named = |(name, check): (&String, &Arc<Check>)| NamedCheck {
            name: name.clone(),
            state: lock(&check.state).clone(),
        };
        let mut checks: Vec<NamedCheck> = lock(&self.checks).iter().map(named).collect();
        if self.shutting_down.is_requested() {
            let state = CheckState::not_ok("the process is shutting down");
            checks.insert(
                0,
                NamedCheck {
                    name: "shutdown".to_owned(),
                    state,
                },
            );
        }
        ReadinessReport {
            ready: checks.iter().all(|check| check.state.ok),
            checks,
        }
    }
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// Every check is ok.
    pub ready: bool,
    /// The checks by name.
    pub checks: Vec<NamedCheck>,
}

/// A check with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedCheck {
    /// The part.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub state: CheckState,
}

/// What a part says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckState {
    /// It can do its work.
    pub ok: bool,
    /// Why not, or anything worth saying; absent when there is nothing to say.
    pub detail: Option<String>,
}

impl CheckState {
    fn not_ok(reason: &str) -> Self {
        Self {
            ok: false,
            detail: Some(reason.to_owned()),
        }
    }
}

/// How a part says whether it is ready. Clones speak for the same part; when the last is dropped, the part has ended
/// and its check is not ok any more.
#[derive(Clone, Debug)]
#[must_use = "a check whose handle is dropped is not ok"]
pub struct CheckHandle {
    owner: Arc<CheckOwner>,
}

impl CheckHandle {
    /// The part can do its work. Costs an uncontended lock when nothing changes, so it may be said on every tick.
    pub fn set_ok(&self) {
        let mut state = lock(&self.owner.check.state);
        if !state.ok || state.detail.is_some() {
            *state = CheckState {
                ok: true,
                detail: None,
            };
        }
    }

    /// The part does its work, but not as well as it should, for this reason.
    pub fn set_degraded(&self, reason: impl Into<String>) {
        *lock(&self.owner.check.state) = CheckState {
            ok: true,
            detail: Some(reason.into()),
        };
    }

    /// The part cannot do its work, for this reason.
    pub fn set_not_ok(&self, reason: impl Into<String>) {
        *lock(&self.owner.check.state) = CheckState {
            ok: false,
            detail: Some(reason.into()),
        };
    }
}

#[derive(Debug)]
struct Check {
    state: Mutex<CheckState>,
}

#[derive(Debug)]
struct CheckOwner {
    check: Arc<Check>,
}

impl Drop for CheckOwner {
    fn drop(&mut self) {
        *lock(&self.check.state) = CheckState::not_ok("stopped");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
