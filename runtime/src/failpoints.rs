//! Named places where a test can make the process fail: die, stall, or get an error.
//!
//! They are compiled into every build, so that what is tested is what runs; while none is set, passing one costs a
//! relaxed load of one flag.
//!
//! ```
//! # use dwell_runtime::failpoint;
//! # #[derive(Debug)] enum StoreError { Injected(dwell_runtime::failpoints::Injected) }
//! # impl From<dwell_runtime::failpoints::Injected> for StoreError {
//! #     fn from(injected: dwell_runtime::failpoints::Injected) -> Self { Self::Injected(injected) } }
//! fn commit() -> Result<(), StoreError> {
//!     failpoint!("raw_writer.before_commit");
//!     Ok(())
//! }
//! # assert!(commit().is_ok());
//! ```
//!
//! **Setting them.** A process reads [`ENV`] once, at its start ([`set_from_env`]):
//! `DWELL_FAILPOINTS="raw_writer.after_rows=2*off->kill;log.fsync=error"`. A test in the same process calls [`set`] or
//! [`set_fn`] and keeps the guard. Points are global: tests that run beside each other need points of their own, or
//! must not mind.
//!
//! **What they do.** A point has steps, joined by `->`; a step is an action, with `n*` before it when it is to be done
//! *n* times before the next one. After the last counted step the point does nothing.
//!
//! | action | effect |
//! |---|---|
//! | `off` | nothing |
//! | `error`, `error:message` | the caller gets [`Injected`] |
//! | `pause:500ms` | the thread stands still so long, as with a disk that stalls |
//! | `panic` | a panic |
//! | `kill` | the process is gone at once: nothing is flushed, no destructor runs |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::sleep_blocking;

mod plan;

pub use plan::PlanError;
use plan::{Action, Plan};

/// The environment variable that [`set_from_env`] reads.
pub const ENV: &str = "DWELL_FAILPOINTS";

/// Passes the failpoint of this name; returns from the function when it is set to fail. The function's error is made
/// from [`Injected`], as by `?`.
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        $crate::failpoints::hit($name)?
    };
}

/// The error that a failpoint gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (injected at {point})")]
pub struct Injected {
    /// The failpoint.
    pub point: String,
    /// The message it was set to give.
    pub message: String,
}

impl Injected {
    /// An error of this point, for [`set_fn`].
    pub fn new(point: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            point: point.into(),
            message: message.into(),
        }
    }
}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> Self {
        Self::other(injected)
    }
}

/// Passes the failpoint of this name and does what it is set to.
#[inline]
pub fn hit(name: &str) -> Result<(), Injected> {
    if ANY_SET.load(Ordering::Relaxed) {
        hit_set(name)
    } else {
        Ok(())
    }
}

/// Sets a failpoint, by the steps in the module's description, until the guard is dropped.
pub fn set(name: &str, steps: &str) -> Result<FailpointGuard, PlanError> {
    let plan = Plan::parse(name, steps)?;
    Ok(insert(name, Behaviour::Plan(plan)))
}

/// Sets a failpoint to call `behaviour`, which may do anything, until the guard is dropped.
pub fn set_fn(
    name: &str,
    behaviour: impl Fn() -> Result<(), Injected> + Send + Sync + 'static,
) -> FailpointGuard {
    insert(name, Behaviour::Call(Arc::new(behaviour)))
}

/// Sets the failpoints that [`ENV`] asks for, for the life of the process, and returns their names. To be called once,
/// by `main`; an error should end the process, since a test that sets a point wrongly would prove nothing.
pub fn set_from_env() -> Result<Vec<String>, PlanError> {
    let Some(text) = std::env::var_os(ENV) else {
        return Ok(Vec::new());
    };
    let plans = Plan::parse_many(&text.to_string_lossy())?;
    let mut names = Vec::with_capacity(plans.len());
    for (name, plan) in plans {
        tracing::warn!(point = name, %plan, "failpoint set");
        // For the life of the process: there is nobody to hold the guard.
        std::mem::forget(insert(&name, Behaviour::Plan(plan)));
        names.push(name);
    }
    Ok(names)
}

/// How often a failpoint was passed since it was set; none when it is not set.
pub fn hits(name: &str) -> Option<u64> {
    points().get(name).map(|point| point.hits)
}

/// Keeps a failpoint set. When dropped, the point does nothing any more; one that was set anew in the meantime stays.
#[derive(Debug)]
#[must_use = "the failpoint is unset when this is dropped"]
pub struct FailpointGuard {
    name: String,
    setting: u64,
}

impl Drop for FailpointGuard {
    fn drop(&mut self) {
        let mut points = points();
        if points
            .get(&self.name)
            .is_some_and(|point| point.setting == self.setting)
        {
            points.remove(&self.name);
        }
        ANY_SET.store(!points.is_empty(), Ordering::Relaxed);
    }
}

/// Set while `POINTS` has any entry; written under its lock. Relaxed is enough: who sets a point before it starts the
/// work is seen by that work, and nothing else is promised.
static ANY_SET: AtomicBool = AtomicBool::new(false);
static POINTS: Mutex<BTreeMap<String, Point>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Point {
    setting: u64,
    hits: u64,
    behaviour: Behaviour,
}

enum Behaviour {
    Plan(Plan),
    Call(Arc<dyn Fn() -> Result<(), Injected> + Send + Sync>),
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(plan) => plan.fmt(formatter),
            Self::Call(_) => formatter.write_str("Call"),
        }
    }
}

fn points() -> MutexGuard<'static, BTreeMap<String, Point>> {
    POINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(name: &str, behaviour: Behaviour) -> FailpointGuard {
    static SETTINGS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let setting = SETTINGS.fetch_add(1, Ordering::Relaxed);
    let mut points = points();
    points.insert(
        name.to_owned(),
        Point {
            setting,
            hits: 0,
            behaviour,
        },
    );
    ANY_SET.store(true, Ordering::Relaxed);
    FailpointGuard {
        name: name.to_owned(),
        setting,
    }
}

#[cold]
fn hit_set(name: &str) -> Result<(), Injected> {
    let mut points = points();
    let Some(point) = points.get_mut(name) else {
        return Ok(());
    };
    point.hits += 1;
    let action = match &mut point.behaviour {
        Behaviour::Plan(plan) => plan.next(),
        Behaviour::Call(call) => {
            let call = Arc::clone(call);
            drop(points);
            return call();
        }
    };
    // Pauses and panics must not hold up the other points.
    drop(points);
    match action {
        Action::Off => Ok(()),
        Action::Error(message) => Err(Injected::new(name, message)),
        Action::Pause(duration) => {
            tracing::warn!(point = name, %duration, "failpoint pauses");
            sleep_blocking(duration.as_duration());
            Ok(())
        }
        Action::Panic => panic!("failpoint {name} panics"),
        Action::Kill => {
            tracing::warn!(point = name, "failpoint kills the process");
            std::process::abort()
        }
    }
}

#[cfg(test)]
mod tests;
