//! Dwell's storage seams and the backends behind them.
//!
//! - [`api`]: a trait per store with its contract.
//! - [`access`]: access keys, verified for every face.
//! - [`error`]: failures told by what to do about them.
//! - [`backends`]: the engines behind the traits.
//! - [`archive`]: Parquet in Delta tables on an object store.
//! - [`backup`]: backups at a place, as objects with checksums.
//! - [`file_place`]: a folder, or a folder of an object store, for whole files.
//! - [`paths`] and [`lock`]: the files of an embedded installation, and who may open them.
//! - [`resolver`]: configuration URIs to backends.
//! - [`erasure`]: who is to be forgotten, and how every reader takes notice.
//! - [`usage`]: what each tenant, venue and part of the API was asked for and took in.
//! - [`decorators`]: what can be put around a store: measuring, faults, erasures.
//! - [`conformance`]: the suite that every backend passes.

pub mod access;
pub mod api;
pub mod archive;
pub mod backends;
pub mod backup;
pub mod conformance;
pub mod decorators;
pub mod erasure;
pub mod error;
pub mod file_place;
pub mod lock;
pub mod metrics;
pub mod paths;
pub mod resolver;
pub mod usage;

mod migrations;
