//! The archive: all events for ever, as Parquet in Delta tables on an object store.
//!
//! A table per tenant, kind and dataset, partitioned by venue and day. Dwell writes the Parquet itself and makes its
//! own commits; any engine that knows Delta or Parquet reads the result. In reading order:
//!
//! - `layout`: where files lie. `parquet_schema`: what is in them.
//! - `encoding`, `writer`, `reader`: data files, page by page. `files`, `durable`: bytes, local and not.
//! - `sorter`: rows of many venue-days on their way into the archive, in bounded memory.
//! - `order`: the order (key, ts, sensor) of data files and sorted runs.
//! - `rewrite` over `stretches`, `unite` and `day_files`: a day's rows, united with what is archived, as new
//!   files that are verified and not yet visible.
//! - `table_log` and `delta`: commits, and the traits of the archive. `copy`: moving it as it is. `adopt`: its files kept
//!   elsewhere, and brought back from there.
//! - `rebuild`: damaged files, written anew from rows that are left.
//! - `vacuum`: files that no table names any more.
//! - `remote`: the object stores of clouds. `inspect`: whether a store can hold an archive.

mod adopt;
mod copy;
mod day_files;
mod day_reader;
mod delta;
mod durable;
mod encoding;
mod files;
mod inspect;
mod layout;
mod order;
mod parquet_schema;
mod reader;
mod rebuild;
mod remote;
mod rewrite;
mod sorter;
mod stretches;
mod table_log;
mod unite;
mod vacuum;
mod writer;

pub(crate) use durable::DurableLocal;
pub(crate) use remote::open_remote_store;

pub(crate) use adopt::check_kept;

pub use adopt::CopiedFile;
pub use copy::CopiedArchive;
pub use delta::DeltaArchive;
pub use inspect::ArchiveFinding;
pub use remote::{RemoteArchiveConfig, open_remote_archive};
pub use sorter::{BulkSorter, SortedDay, SortedDays};
