//! Imported files in Cassandra: a row per file, and a list by time.
//!
//! The list is written before the row. Of several claims of one file one stands; list entries of the others, which have
//! another time, are passed over.

use async_trait::async_trait;
use dwell_model::ids::{Receipt, TenantId};
use dwell_model::time::TsMs;
use futures::TryStreamExt;
use scylla::value::CqlTimestamp;

use super::cluster::{Cluster, Cql};
use super::contention::Contention;
use super::several;
use super::values::{damaged_value, from_stored, receipt as receipt_from, receipt_bytes, to_stored};
use crate::api::{ImportClaim, Imports};
use crate::error::{ErrorKind, Result, StorageError};

const READ: Cql = Cql::read(
    "read an import",
    "SELECT name, road, received_at, finished_at, accepted, refused FROM {ks}.imports
     WHERE tenant = ? AND receipt = ?",
);
const SETTLE: Cql = Cql::serial_read(
    "read an import",
    "SELECT name, road, received_at, finished_at, accepted, refused FROM {ks}.imports
     WHERE tenant = ? AND receipt = ?",
);
const CLAIM: Cql = Cql::conditional(
    "claim an import",
    "INSERT INTO {ks}.imports (tenant, receipt, name, road, received_at, finished_at, accepted, refused)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
);
const FINISH: Cql = Cql::conditional(
    "finish an import",
    "UPDATE {ks}.imports SET finished_at = ?, accepted = ?, refused = ? WHERE tenant = ? AND receipt = ? IF EXISTS",
);
const ADD_TO_LIST: Cql = Cql::write(
    "list an import",
    "INSERT INTO {ks}.import_list (tenant, received_at, receipt) VALUES (?, ?, ?)",
);
const LIST: Cql = Cql::read(
    "list imports",
    "SELECT received_at, receipt FROM {ks}.import_list WHERE tenant = ? LIMIT ?",
);
const LIST_AFTER: Cql = Cql::read(
    "list imports",
    "SELECT received_at, receipt FROM {ks}.import_list
     WHERE tenant = ? AND (received_at, receipt) < (?, ?) LIMIT ?",
);

/// List entries asked for at a time.
const PAGE_MAX: usize = 500;
/// Rows read at a time.
const READS_AT_ONCE: usize = 8;

/// The imports table in Cassandra.
#[derive(Debug)]
pub struct CassandraImports {
    cluster: Cluster,
}

type Columns = (
    Option<String>,
    Option<String>,
    Option<CqlTimestamp>,
    Option<CqlTimestamp>,
    Option<i64>,
    Option<i64>,
);

impl CassandraImports {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn read(&self, cql: Cql, tenant: &TenantId, receipt: Receipt) -> Result<Option<ImportClaim>> {
        let key = (tenant.as_str(), receipt_bytes(receipt).to_vec());
        let row: Option<Columns> = self.cluster.first(cql, key).await?;
        row.map(|row| from_row(receipt, row)).transpose()
    }
}

#[async_trait]
impl Imports for CassandraImports {
    async fn claim(&self, tenant: &TenantId, claim: &ImportClaim) -> Result<ImportClaim> {
        if let Some(standing) = self.read(READ, tenant, claim.receipt).await? {
            return Ok(standing);
        }
        let receipt = receipt_bytes(claim.receipt);
        let entry = (
            tenant.as_str(),
            CqlTimestamp(claim.received_at),
            receipt.as_slice(),
        );
        self.cluster.execute(ADD_TO_LIST, entry).await?;
        let mut contention = Contention::new(&self.cluster, CLAIM.doing());
        loop {
            let row = (
                tenant.as_str(),
                receipt.as_slice(),
                &claim.name,
                &claim.road,
                CqlTimestamp(claim.received_at),
                claim.finished_at.map(CqlTimestamp),
                to_stored(claim.accepted)?,
                to_stored(claim.refused)?,
            );
            // Whoever's claim stands, it is read below.
            let read_back = async { self.read(SETTLE, tenant, claim.receipt).await.map(|_| false) };
            if self.cluster.conditional(CLAIM, row, read_back).await? {
                return Ok(claim.clone());
            }
            if let Some(standing) = self.read(READ, tenant, claim.receipt).await? {
                return Ok(standing);
            }
            contention.wait().await?;
        }
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        receipt: Receipt,
        now: TsMs,
        accepted: u64,
        refused: u64,
    ) -> Result<()> {
        let mut contention = Contention::new(&self.cluster, FINISH.doing());
        loop {
            let read_back = async {
                let found = self.read(SETTLE, tenant, receipt).await?;
                let finished = (Some(now), accepted, refused);
                Ok(found.is_some_and(|found| (found.finished_at, found.accepted, found.refused) == finished))
            };
            let row = (
                CqlTimestamp(now),
                to_stored(accepted)?,
                to_stored(refused)?,
                tenant.as_str(),
                receipt_bytes(receipt).to_vec(),
            );
            if self.cluster.conditional(FINISH, row, read_back).await? {
                return Ok(());
            }
            if self.read(READ, tenant, receipt).await?.is_none() {
                let why = format!("no import has the receipt {receipt}");
                return Err(StorageError::new(ErrorKind::NotFound, why));
            }
            contention.wait().await?;
        }
    }

    async fn list(&self, tenant: &TenantId, limit: usize) -> Result<Vec<ImportClaim>> {
        let mut claims = Vec::new();
        let mut last: Option<(CqlTimestamp, Vec<u8>)> = None;
        while claims.len() < limit {
            let asked = (limit - claims.len()).min(PAGE_MAX);
            let rows = i32::try_from(asked).unwrap_or(i32::MAX);
            let entries: Vec<(CqlTimestamp, Vec<u8>)> = match &last {
                None => self.cluster.all(LIST, (tenant.as_str(), rows)).await?,
                Some((at, receipt)) => {
                    self.cluster
                        .all(LIST_AFTER, (tenant.as_str(), at, receipt, rows))
                        .await?
                }
            };
            let reads = entries.iter().map(|(at, receipt)| async move {
                let claim = self.read(READ, tenant, receipt_from(receipt)?).await?;
                Ok::<_, StorageError>(claim.filter(|claim| claim.received_at == at.0))
            });
            let found: Vec<Option<ImportClaim>> =
                several::in_order(reads, READS_AT_ONCE).try_collect().await?;
            claims.extend(found.into_iter().flatten());
            if entries.len() < asked {
                break;
            }
            last = entries.into_iter().last();
        }
        Ok(claims)
    }
}

fn from_row(
    receipt: Receipt,
    (name, road, received_at, finished_at, accepted, refused): Columns,
) -> Result<ImportClaim> {
    let lacking = |what| move || damaged_value(format_args!("the import {receipt} has no {what}"));
    Ok(ImportClaim {
        receipt,
        name: name.ok_or_else(lacking("name"))?,
        road: road.ok_or_else(lacking("road"))?,
        received_at: received_at.ok_or_else(lacking("time"))?.0,
        finished_at: finished_at.map(|at| at.0),
        accepted: from_stored(accepted.unwrap_or(0))?,
        refused: from_stored(refused.unwrap_or(0))?,
    })
}
