//! The archive: all events for ever, as Parquet in Delta tables on an object store.
//!
//! A table per tenant, kind and dataset, partitioned by venue and day. Dwell writes the Parquet itself and makes its
//! own commits; any engine that knows Delta or Parquet reads the result.
//!
//! - `parquet_schema`, `encoding`, `writer`, `reader`: data files.
//! - `sorter`: rows of many venue-days on their way into the archive, in bounded memory.

mod encoding;
mod parquet_schema;
mod reader;
mod sorter;
mod writer;

pub use sorter::{BulkSorter, SortedDay, SortedDays};
