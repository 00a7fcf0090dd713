//! Imports end to end, over the real embedded stores.

mod archive_road;
mod formats;
mod harness;
mod log_road;
mod no_archive;
