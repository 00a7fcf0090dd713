//! Forgetting a visitor: who reads the ledger of erasures, and how what it names is kept out of every store.
//!
//! ```text
//! Erasures (ledger) ─▶ ErasureFilter ─┬─▶ the archive: every rewrite of a day leaves out what the ledger names
//!                      (in memory)    ├─▶ ErasureWatch ─▶ raw table: rows not written; log and raw reads: rows not given
//!                                     └─▶ jobs, restore, import, backup: apply it to what they bring back
//! ```
//!
//! [`filter`] matches names, [`ledger`] keeps the entries, [`watch`] is how a process takes notice and says so.

pub mod filter;
pub mod ledger;
pub mod watch;

pub use filter::{ErasureFilter, LedgerFollower};
pub use watch::{ErasureWatch, WritePermit};
