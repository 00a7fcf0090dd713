//! What can be put around a store.
//!
//! - [`instrumented`]: counts and times calls.
//! - [`failing`]: makes calls fail, for tests of the layers above.

pub mod failing;
pub mod instrumented;
