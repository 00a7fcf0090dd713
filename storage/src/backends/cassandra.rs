//! Tables in Apache Cassandra or ScyllaDB, for installations of many machines.
//!
//! - [`CassandraConfig`]: where the cluster is and how it is used.
//! - `cluster`: the connection, prepared statements, conditional writes, bounded concurrency.
//! - [`migrate`], [`inspect`]: the keyspace and its tables, brought up to date by command, never by opening.
//! - A module per table.
//!
//! All reads and writes are LOCAL_QUORUM, conditional ones LOCAL_SERIAL. One partition is atomic; where a contract spans
//! several, the writes are ordered and each can be repeated.

mod aggregates;
mod checkpoints;
mod chunks;
mod cluster;
mod config;
mod contention;
mod documents;
mod encoding;
mod errors;
mod imports;
mod jobs;
mod live_view;
mod migrations;
mod node_clocks;
mod pseudonym_keys;
mod quarantine;
mod raw_events;
mod registry;
mod rows;
mod sessions;
mod several;
mod values;
mod venue_days;
mod write_clock;

pub use aggregates::CassandraAggregates;
pub use checkpoints::CassandraCheckpoints;
pub use config::{CassandraConfig, CassandraConfigError, WireCompression, contact_points};
pub use documents::CassandraDocuments;
pub use imports::CassandraImports;
pub use jobs::CassandraJobs;
pub use live_view::CassandraLiveView;
pub use migrations::{Finding, FindingLevel, SCHEMA_VERSION, inspect, migrate};
pub use pseudonym_keys::CassandraPseudonymKeys;
pub use quarantine::CassandraQuarantine;
pub use raw_events::CassandraRawEvents;
pub use registry::CassandraRegistry;
pub use sessions::CassandraSessions;
pub use venue_days::CassandraVenueDays;

use std::sync::Arc;

use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks::Tasks;

use self::cluster::Cluster;
use crate::api::{Archive, EventLog, Stores};
use crate::error::Result;

/// The stores of one keyspace: all tables. The log and the archive lie elsewhere.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct CassandraStores {
    pub raw: Arc<CassandraRawEvents>,
    pub sessions: Arc<CassandraSessions>,
    pub aggregates: Arc<CassandraAggregates>,
    pub venue_days: Arc<CassandraVenueDays>,
    pub checkpoints: Arc<CassandraCheckpoints>,
    pub jobs: Arc<CassandraJobs>,
    pub quarantine: Arc<CassandraQuarantine>,
    pub registry: Arc<CassandraRegistry>,
    pub pseudonym_keys: Arc<CassandraPseudonymKeys>,
    pub imports: Arc<CassandraImports>,
    pub documents: Arc<CassandraDocuments>,
    cluster: Cluster,
}

impl CassandraStores {
    /// Connects and checks the schema: an older one is refused (`dwell migrate` brings it up to date), so is one that a
    /// newer Dwell has written. Fails within `connect_timeout_ms` when nobody answers.
    pub async fn open(config: &CassandraConfig, clock: SharedClock) -> Result<Self> {
        let cluster = Cluster::connect(config, clock).await?;
        migrations::check_version(&cluster).await?;
        Ok(Self {
            raw: Arc::new(CassandraRawEvents::new(cluster.clone())),
            sessions: Arc::new(CassandraSessions::new(cluster.clone())),
            aggregates: Arc::new(CassandraAggregates::new(cluster.clone())),
            venue_days: Arc::new(CassandraVenueDays::new(cluster.clone())),
            checkpoints: Arc::new(CassandraCheckpoints::new(cluster.clone())),
            jobs: Arc::new(CassandraJobs::new(cluster.clone())),
            quarantine: Arc::new(CassandraQuarantine::new(cluster.clone())),
            registry: Arc::new(CassandraRegistry::new(cluster.clone())),
            pseudonym_keys: Arc::new(CassandraPseudonymKeys::new(cluster.clone())),
            imports: Arc::new(CassandraImports::new(cluster.clone())),
            documents: Arc::new(CassandraDocuments::new(cluster.clone())),
            cluster,
        })
    }

    /// The live view as a table. Its subscriptions are looked after by a task among `tasks`, as long as there are any.
    /// Open it once in a process: what is known is shared by all who ask through it.
    pub fn live_view(&self, tasks: Tasks) -> Arc<CassandraLiveView> {
        Arc::new(CassandraLiveView::new(self.cluster.clone(), tasks))
    }

    /// These stores with a log, an archive and a live view, as the roles get them.
    pub fn with(
        self,
        log: Arc<dyn EventLog>,
        archive: Arc<dyn Archive>,
        live: Arc<CassandraLiveView>,
    ) -> Stores {
        Stores {
            log,
            raw: self.raw,
            sessions: self.sessions,
            aggregates: self.aggregates,
            venue_days: self.venue_days,
            checkpoints: self.checkpoints,
            jobs: self.jobs,
            quarantine: self.quarantine,
            registry: self.registry,
            pseudonym_keys: self.pseudonym_keys,
            imports: self.imports,
            documents: self.documents,
            erasures: archive.erasures(),
            files: None,
            archive,
            live: Some(live),
        }
    }
}
