//! Dwell's semantic core: what an event is, how a stay is made of events, what a number means.
//!
//! The speed layer and the batch layer call the same code, so that they cannot drift apart. Everything here is pure:
//! no clock, no I/O, no randomness. Read the modules in this order: [`ids`], [`time`], [`event`],
//! [`exclusion`], [`layout`], [`session`], [`metrics`], [`definitions`], [`completeness`].

pub mod completeness;
pub mod definitions;
pub mod event;
pub mod exclusion;
pub mod ids;
pub mod layout;
pub mod metrics;
pub mod session;
pub mod testing;
pub mod time;
