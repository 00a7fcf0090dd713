//! What time the nodes say it is.

use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::clock;
use futures::future;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;

use super::cluster::Cluster;
use super::errors;
use super::write_clock::Reading;
use crate::error::Result;

const DOING: &str = "read a node's clock";

/// The nodes of the local datacenter.
pub(super) fn local_nodes(cluster: &Cluster) -> Vec<Arc<Node>> {
    let state = cluster.session().get_cluster_state();
    let local = |node: &&Arc<Node>| node.datacenter.as_deref() == Some(cluster.local_datacenter());
    state.get_nodes_info().iter().filter(local).cloned().collect()
}

/// What the local nodes say that the time is, those that answer within `limit`, and how many nodes there are.
pub(super) async fn read_all(cluster: &Cluster, limit: Duration) -> (Vec<Reading>, usize) {
    let nodes = local_nodes(cluster);
    let asked = nodes.iter().filter(|node| node.is_connected()).map(async |node| {
        match clock::timeout(&**cluster.clock(), limit, read(cluster, node)).await {
            Ok(Ok(reading)) => Some(reading),
            Ok(Err(error)) => {
                tracing::debug!(node = %node.address, %error, "a node's clock could not be read");
                None
            }
            Err(_) => {
                tracing::debug!(node = %node.address, ?limit, "a node did not say its time");
                None
            }
        }
    });
    let answers = future::join_all(asked).await;
    (answers.into_iter().flatten().collect(), nodes.len())
}

/// What a node says that the time is.
pub(super) async fn read(cluster: &Cluster, node: &Arc<Node>) -> Result<Reading> {
    let mut select = Statement::new("SELECT toUnixTimestamp(now()) FROM system.local");
    select.set_consistency(Consistency::LocalOne);
    let only = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None);
    select.set_load_balancing_policy(Some(only));
    let asked_ms = cluster.clock().now_ms();
    let rows = cluster.run_once(DOING, select).await?;
    let answered_ms = cluster.clock().now_ms();
    let rows = rows
        .into_rows_result()
        .map_err(|error| errors::not_rows(DOING, error))?;
    let (theirs_ms,) = rows
        .first_row::<(i64,)>()
        .map_err(|error| errors::damaged(DOING, error))?;
    Ok(Reading {
        asked_ms,
        theirs_ms,
        answered_ms,
    })
}
