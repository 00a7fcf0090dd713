//! What `dwell doctor` says about a cluster.

use dwell_runtime::clock::SharedClock;
use scylla::statement::unprepared::Statement;

use super::super::cluster::Cluster;
use super::super::config::CassandraConfig;
use super::super::errors;
use super::super::node_clocks::{self, local_nodes};
use super::{SCHEMA_VERSION, version};
use crate::error::Result;

/// Copies below which the loss of one node stops reads or writes.
const REPLICATION_MIN: u32 = 3;
/// A clock this far off is worth a look: writes are dated by the nodes' clocks then, conditional writes suffer.
const CLOCK_SKEW_MS_MAX: i64 = 500;

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: FindingLevel,
    /// What was found, in a sentence, with what to do about it when something is to be done.
    pub what: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingLevel {
    /// As it should be.
    Good,
    /// Works, and should be looked at.
    Warning,
    /// Dwell cannot work, or may lose data, like this.
    Error,
}

/// Looks at a cluster: whether it answers, its nodes, the keyspace's replication, the schema's version, the nodes'
/// clocks. Never fails: what cannot be looked at is a finding.
pub async fn inspect(config: &CassandraConfig, clock: SharedClock) -> Vec<Finding> {
    let mut findings = Findings::default();
    match Cluster::connect(config, clock).await {
        Err(error) => findings.error(error.to_string()),
        Ok(cluster) => {
            findings.nodes(&cluster);
            findings.replication(&cluster, config).await;
            findings.schema(&cluster).await;
            findings.clocks(&cluster).await;
        }
    }
    findings.all
}

#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    fn nodes(&mut self, cluster: &Cluster) {
        let nodes = local_nodes(cluster);
        let away: Vec<String> = nodes
            .iter()
            .filter(|node| !node.is_connected())
            .map(|node| node.address.ip().to_string())
            .collect();
        let datacenter = cluster.local_datacenter();
        match away.is_empty() {
            true => self.good(format!(
                "all {} nodes of datacenter {datacenter} are connected",
                nodes.len()
            )),
            false => self.warning(format!(
                "{} of {} nodes of datacenter {datacenter} are not connected: {}",
                away.len(),
                nodes.len(),
                away.join(", ")
            )),
        }
    }

    async fn replication(&mut self, cluster: &Cluster, config: &CassandraConfig) {
        let keyspace = cluster.keyspace();
        let nodes = local_nodes(cluster).len();
        let what = match local_replication(cluster).await {
            Err(error) => return self.error(error.to_string()),
            Ok(None) => {
                return self.error(format!(
                    "the keyspace {keyspace} does not exist: run dwell migrate"
                ));
            }
            Ok(Some(0)) => {
                return self.error(format!(
                    "the keyspace {keyspace} has no copies in datacenter {}: LOCAL_QUORUM cannot be reached there",
                    cluster.local_datacenter()
                ));
            }
            Ok(Some(copies)) if copies as usize > nodes => {
                return self.error(format!(
                    "the keyspace {keyspace} wants {copies} copies of each row, and there are {nodes} nodes to hold them"
                ));
            }
            Ok(Some(copies)) if copies >= REPLICATION_MIN || config.single_node => {
                return self.good(format!(
                    "the keyspace {keyspace} keeps {copies} copies of each row"
                ));
            }
            Ok(Some(copies)) => format!(
                "the keyspace {keyspace} keeps {copies} copies of each row: the loss of a node stops work or loses data; \
                 alter it to {REPLICATION_MIN} and run a full repair, or set single_node when this is meant"
            ),
        };
        self.warning(what);
    }

    async fn schema(&mut self, cluster: &Cluster) {
        match version(cluster).await {
            Err(error) => self.error(error.to_string()),
            Ok(Some(found)) if found == SCHEMA_VERSION => {
                self.good(format!("schema version {found} is the current one"))
            }
            Ok(Some(found)) if found > SCHEMA_VERSION => {
                self.error(format!(
                    "schema version {found} was written by a newer Dwell; this one knows {SCHEMA_VERSION}"
                ));
            }
            Ok(found) => self.error(format!(
                "schema version {} is older than {SCHEMA_VERSION}: run dwell migrate",
                found.unwrap_or(0)
            )),
        }
        match cluster.session().check_schema_agreement().await {
            Ok(Some(_)) => {}
            Ok(None) => self.warning("the nodes do not agree on the schema".to_owned()),
            Err(error) => {
                self.warning(errors::not_agreed("look at the schema's agreement", error).to_string())
            }
        }
    }

    async fn clocks(&mut self, cluster: &Cluster) {
        let mut worst = 0_i64;
        for node in local_nodes(cluster).iter().filter(|node| node.is_connected()) {
            let address = node.address.ip();
            let read = node_clocks::read(cluster, node).await;
            match read.map(|reading| reading.ahead_ms()) {
                Err(error) => self.warning(format!("the clock of {address} could not be read: {error}")),
                Ok(skew_ms) if skew_ms.abs() > CLOCK_SKEW_MS_MAX => self.warning(format!(
                    "the clock of {address} is {skew_ms} ms off this machine's: keep clocks together by NTP"
                )),
                Ok(skew_ms) => worst = worst.max(skew_ms.abs()),
            }
        }
        self.good(format!(
            "the nodes' clocks agree with this machine's within {worst} ms, those named above apart"
        ));
    }

    fn good(&mut self, what: String) {
        self.push(FindingLevel::Good, what);
    }

    fn warning(&mut self, what: String) {
        self.push(FindingLevel::Warning, what);
    }

    fn error(&mut self, what: String) {
        self.push(FindingLevel::Error, what);
    }

    fn push(&mut self, level: FindingLevel, what: String) {
        self.all.push(Finding { level, what });
    }
}

/// Copies that the keyspace keeps in the local datacenter.
async fn local_replication(cluster: &Cluster) -> Result<Option<u32>> {
    use std::collections::HashMap;
    let doing = "read the keyspace's replication";
    let select = Statement::new(format!(
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        cluster.keyspace()
    ));
    let rows = cluster.run_once(doing, select).await?;
    let rows = rows
        .into_rows_result()
        .map_err(|error| errors::not_rows(doing, error))?;
    let row = rows
        .maybe_first_row::<(HashMap<String, String>,)>()
        .map_err(|error| errors::damaged(doing, error))?;
    let Some((options,)) = row else {
        return Ok(None);
    };
    // SimpleStrategy keeps its copies wherever there are nodes.
    let copies = options
        .get(cluster.local_datacenter())
        .or_else(|| options.get("replication_factor"));
    // Cassandra writes transient copies behind a slash.
    let copies = copies.and_then(|text| text.split('/').next()?.parse().ok());
    Ok(Some(copies.unwrap_or(0)))
}
