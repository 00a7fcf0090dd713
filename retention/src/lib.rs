//! Dwell's retention: a pure plan of what may be deleted, and why.
//!
//! Raw events and sessions are kept for a while and then deleted, but only where the archive is proven to hold every
//! row with every delivery. Deciding and deleting are two steps: [`plan()`] looks at a description of venue-days and
//! says for each of them what may go and what holds the rest back; whoever deletes follows the plan to the letter and
//! can show it beforehand (`--dry-run`).
//!
//! Invariant: nothing here reads a clock or a store. The same description gives the same plan.

mod facts;
mod plan;

pub use facts::{ArchiveProof, DayFacts, LegalHold, Policy, Published};
pub use plan::{DayPlan, KeepReason, Plan, Totals, Verdict, plan};
