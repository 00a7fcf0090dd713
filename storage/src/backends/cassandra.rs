//! Tables in Apache Cassandra or ScyllaDB, for installations of many machines.
//!
//! - [`CassandraConfig`]: where the cluster is and how it is used.
//! - `cluster`: the connection, prepared statements, conditional writes, bounded concurrency.
//! - [`migrate`], [`inspect`]: the keyspace and its tables, brought up to date by command, never by opening.
//! - A module per table.
//!
//! All reads and writes are LOCAL_QUORUM, conditional ones LOCAL_SERIAL. One partition is atomic; where a contract spans
//! several, the writes are ordered and each can be repeated.

mod cluster;
mod config;
mod errors;
mod migrations;
mod raw_events;
mod values;

pub use config::{CassandraConfig, CassandraConfigError, WireCompression, contact_points};
pub use migrations::{Finding, FindingLevel, SCHEMA_VERSION, inspect, migrate};
pub use raw_events::CassandraRawEvents;

use std::sync::Arc;

use dwell_runtime::clock::SharedClock;

use self::cluster::Cluster;
use crate::error::Result;

/// The stores of one keyspace.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct CassandraStores {
    pub raw: Arc<CassandraRawEvents>,
}

impl CassandraStores {
    /// Connects and checks the schema: an older one is refused (`dwell migrate` brings it up to date), so is one that a
    /// newer Dwell has written. Fails within `connect_timeout_ms` when nobody answers.
    pub async fn open(config: &CassandraConfig, clock: SharedClock) -> Result<Self> {
        let cluster = Cluster::connect(config, clock).await?;
        migrations::check_version(&cluster).await?;
        Ok(Self {
            raw: Arc::new(CassandraRawEvents::new(cluster)),
        })
    }
}
