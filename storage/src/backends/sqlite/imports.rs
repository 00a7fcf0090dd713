//! Imported files in `data.db`.

use async_trait::async_trait;
use dwell_model::ids::{Receipt, TenantId};
use dwell_model::time::TsMs;
use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::Database;
use super::failure::Failure;
use super::values::{from_stored, receipt_bytes, receipt_from, sql_limit, to_stored};
use crate::api::{ImportClaim, Imports};
use crate::error::{ErrorKind, Result};

const COLUMNS: &str = "receipt, name, road, received_at, finished_at, accepted, refused";

/// The embedded imports table.
#[derive(Debug)]
pub struct SqliteImports {
    data: Database,
}

impl SqliteImports {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Imports for SqliteImports {
    async fn claim(&self, tenant: &TenantId, claim: &ImportClaim) -> Result<ImportClaim> {
        let (tenant, claim) = (tenant.clone(), claim.clone());
        self.data
            .write("claim an import", move |data| {
                if let Some(standing) = load(data, &tenant, claim.receipt)? {
                    return Ok(standing);
                }
                data.prepare_cached(&format!(
                    "INSERT INTO imports ({COLUMNS}, tenant) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
                ))?
                .execute((
                    receipt_bytes(claim.receipt),
                    &claim.name,
                    &claim.road,
                    claim.received_at,
                    claim.finished_at,
                    to_stored(claim.accepted)?,
                    to_stored(claim.refused)?,
                    tenant.as_str(),
                ))?;
                Ok(claim)
            })
            .await
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        receipt: Receipt,
        now: TsMs,
        accepted: u64,
        refused: u64,
    ) -> Result<()> {
        let tenant = tenant.clone();
        self.data
            .write("finish an import", move |data| {
                let changed = data
                    .prepare_cached(
                        "UPDATE imports SET finished_at = ?3, accepted = ?4, refused = ?5
                         WHERE tenant = ?1 AND receipt = ?2",
                    )?
                    .execute((
                        tenant.as_str(),
                        receipt_bytes(receipt),
                        now,
                        to_stored(accepted)?,
                        to_stored(refused)?,
                    ))?;
                match changed {
                    0 => Err(Failure::refuse(
                        ErrorKind::NotFound,
                        format!("no import has the receipt {receipt}"),
                    )),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn list(&self, tenant: &TenantId, limit: usize) -> Result<Vec<ImportClaim>> {
        let tenant = tenant.clone();
        self.data
            .read("list imports", move |data| {
                let mut select = data.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM imports WHERE tenant = ?1 ORDER BY received_at DESC, receipt DESC LIMIT ?2"
                ))?;
                let mut rows = select.query((tenant.as_str(), sql_limit(limit)))?;
                let mut claims = Vec::new();
                while let Some(row) = rows.next()? {
                    claims.push(from_row(row)?);
                }
                Ok(claims)
            })
            .await
    }
}

fn load(data: &Connection, tenant: &TenantId, receipt: Receipt) -> Result<Option<ImportClaim>, Failure> {
    let mut select = data.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM imports WHERE tenant = ?1 AND receipt = ?2"
    ))?;
    let key = (tenant.as_str(), receipt_bytes(receipt));
    select
        .query_row(key, |row| Ok(from_row(row)))
        .optional()?
        .transpose()
}

fn from_row(row: &Row<'_>) -> Result<ImportClaim, Failure> {
    Ok(ImportClaim {
        receipt: receipt_from(row.get_ref(0)?.as_blob().map_err(Failure::damaged_row)?)?,
        name: row.get(1)?,
        road: row.get(2)?,
        received_at: row.get(3)?,
        finished_at: row.get(4)?,
        accepted: from_stored(row.get(5)?)?,
        refused: from_stored(row.get(6)?)?,
    })
}
