//! What can be put around a store.
//!
//! - [`instrumented`]: counts and times calls.
//! - [`erasing`]: leaves out whom the ledger of erasures names.
//! - [`failing`]: makes calls fail, for tests of the layers above.
//! - [`read_only_archive`]: reads, and refuses to write.
//! - [`recutting`]: keeps others from the days of a venue that is being cut anew.

pub mod erasing;
pub mod failing;
pub mod instrumented;
pub mod read_only_archive;
pub mod recutting;
