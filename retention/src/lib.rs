//! Dwell's retention: what may be deleted and why, the proof that the archive holds it, the sweep, and the way back.
//!
//! ```text
//! survey (what is known of a venue's days) ─▶ plan (pure) ─▶ prove (compare raw with the archive, day by day)
//!        ─▶ mark (a document: what goes, what stays and why) ─▶ sweep (a day at a time, under its lease)
//! restore: archive ─▶ raw, row by row
//! ```
//!
//! Raw events and sessions are kept for a while and then deleted, but only where the archive is proven to hold every
//! row with every delivery. Deciding and deleting are two steps: [`plan()`] looks at a description of venue-days and
//! says for each of them what may go and what holds the rest back; whoever deletes follows the plan to the letter and
//! can show it beforehand (`--dry-run`).
//!
//! - [`facts`](Policy), [`plan()`]: the rules. Pure: nothing in them reads a clock or a store.
//! - [`Retention`]: the way in for jobs and routes. [`Retention::survey`], [`Retention::prove`], [`Retention::decide`],
//!   [`Retention::mark`], [`Retention::sweep`], [`Retention::restore_day`].
//! - [`holds`], [`policy`], [`marks`], [`records`]: what is remembered, as documents of the tenant.
//!
//! Invariants: nothing is deleted that was not compared with the archive in the same step, read back from its files.
//! Every step is taken under the day's lease and can be repeated from any point of failure. Marks, positions and
//! aggregates of published generations are never touched.

mod compare;
mod decide;
mod engine;
mod error;
mod facts;
pub mod holds;
mod lease;
pub mod marks;
pub mod metrics;
mod plan;
pub mod policy;
mod prove;
pub mod records;
mod restore;
mod survey;
mod sweep;
mod tally;

pub use decide::{Comparing, Decided};
pub use engine::{GenerationGuard, NoGuard, Retention, Settings};
pub use error::{Error, Result};
pub use facts::{
    AGE_MS_MIN, ArchiveProof, DayFacts, LegalHold, OldGeneration, Policy, PolicyError, Published,
};
pub use plan::{DayPlan, GenerationPlan, KeepReason, Plan, Totals, Verdict, plan};
pub use restore::{RestoreReport, RestoredKind};
pub use survey::Survey;
pub use sweep::DaySwept;
pub use tally::Tally;
