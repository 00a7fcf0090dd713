//! Dwell's storage seams and the backends behind them.
//!
//! - [`api`]: a trait per store with its contract.
//! - [`error`]: failures told by what to do about them.
//! - [`backends`]: the engines behind the traits.
//! - [`archive`]: Parquet in Delta tables on an object store.
//! - [`resolver`]: configuration URIs to backends.
//! - [`conformance`]: the suite that every backend passes.

pub mod api;
pub mod error;
