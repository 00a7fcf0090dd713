//! Dwell's batch layer: archive a venue-day, recompute it, publish a generation.
//!
//! ```text
//!            ┌ plan: which days are dirty, and why (pure)
//! RunSpec ──▶│
//!            └▶ a group of a venue's days, each under a lease whose fence becomes the generation's number
//!                 marks → raw rows ──▶ archive (staged per day, one commit per group, read back)
//!                                        │ winners, chunk by chunk
//!                                        ▼
//!                 layout ──▶ fold (dwell-model) ──▶ sessions + aggregate rows under the new generation
//!                                        │ compared with the generation before and with the live view
//!                                        ▼
//!                 one conditional flip publishes it; whoever lost the fence removes its own rows
//! ```
//!
//! - [`BatchLayer`] is the way in: [`BatchLayer::run_spec`] for a job, [`BatchLayer::run_group`] for days of a venue.
//! - [`Service`] runs every venue's night by itself; [`Nightly::run_once`] is one look at all venues.
//! - [`plan`] and [`spec`]: what to do. [`report`]: what was done.
//! - [`ready`]: whether the raw writer has come far enough for a day to be computed.
//! - [`excluding`]: what an exclusion does to a venue's days. [`totals`]: a day's numbers in a few lines.
//! - [`recut`]: a corrected time zone or day start, in one flip.
//! - [`drift`]: how far the live view was off. [`BatchLayer::verify_day`]: whether the archive still holds what was
//!   published.
//!
//! Invariants: marks are read before exclusions, these before rows, and rows before the layout, so a published generation never claims more than
//! it includes. Everything can be repeated from any point of failure: rows are written under a number that is never
//! reused, files are invisible until committed, the flip is conditional on the fence. The rows of an open day stay in
//! raw. Nothing here decides what an event means: every fold is the model's.

mod archive_day;
mod config;
pub mod drift;
mod error;
pub mod excluding;
mod facts;
mod group;
mod late;
mod layer;
mod lease;
pub mod metrics;
mod parts;
pub mod plan;
mod proposal;
mod publish;
pub mod ready;
mod recompute;
pub mod recut;
pub mod repair;
pub mod report;
mod rows;
mod run;
mod runner;
mod service;
pub mod spec;
#[cfg(test)]
mod testing;
pub mod totals;
mod verify;
mod what_if;

pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use layer::BatchLayer;
pub use run::DayRequest;
pub use runner::Progress;
pub use service::{Handle, Nightly, NightlyStatus, Service};
pub use what_if::{ChangedBucket, Difference, Source, WhatIf};
