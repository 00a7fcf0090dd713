//! What every long-running part of Dwell shares, and what a part may not do by itself.
//!
//! | module | for |
//! |---|---|
//! | [`clock`] | what time it is, and waiting; the only place that asks the machine |
//! | [`shutdown`] | an end in ordered phases, with the names of who is late |
//! | [`tasks`] | everything that runs beside the caller, named, with a policy for its failure |
//! | [`telemetry`] | logs to stderr, Prometheus metrics and their definitions |
//! | [`admin`] | the admin port: live, ready, metrics, log filter |
//! | [`retry`] | trying again, bounded, with jitter |
//! | [`limits`] | rates, gates, and how configuration writes sizes and times |
//! | [`failpoints`] | places where a test makes the process die, stall or fail |
//!
//! # How a process is put together
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use dwell_runtime::admin::{self, AdminState, Readiness};
//! use dwell_runtime::clock::SystemClock;
//! use dwell_runtime::shutdown::{Phase, ShutdownController, StopSignals};
//! use dwell_runtime::tasks::{TaskPolicy, Tasks};
//! use dwell_runtime::telemetry::{self, LogConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let log = telemetry::init_logging(&LogConfig::default())?;
//! let metrics = telemetry::install_metrics()?;
//! dwell_runtime::failpoints::set_from_env()?;
//!
//! let clock = SystemClock::shared();
//! let controller = ShutdownController::default();
//! let tasks = Tasks::new(controller.clone());
//! let readiness = Readiness::new(&controller);
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
//! let state = AdminState { readiness: readiness.clone(), metrics, log: Some(log) };
//! let token = controller.register(Phase::Admin, "admin port");
//! tasks.spawn("admin port", TaskPolicy::Essential, admin::serve(listener, state, token));
//!
//! // Parts are started here: each with the clock, a shutdown token of its phase, and a check.
//!
//! let mut signals = StopSignals::install()?;
//! tokio::select! {
//!     _ = signals.next() => controller.trigger(),
//!     () = controller.triggered() => {}
//! }
//! let report = controller.run_to_completion(Duration::from_secs(20), &*clock).await;
//! tracing::info!(%report, "the end");
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! * Wall clock, sleeps, spawns: only here. `clippy.toml` forbids them elsewhere and names the substitute.
//! * This crate knows no tenant, no event and no store.
//! * Nothing here writes to stdout.

pub mod admin;
pub mod clock;
pub mod failpoints;
pub mod limits;
pub mod metrics;
pub mod retry;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
