//! Documents in `data.db`.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use rusqlite::{OptionalExtension, Row};
use serde_json::Value;

use super::connection::Database;
use super::failure::Failure;
use super::values::{from_json, from_stored, sql_limit, to_stored};
use crate::api::{Document, Documents, Flip, ListFrom, document_text};
use crate::error::Result;

/// The embedded documents table.
#[derive(Debug)]
pub struct SqliteDocuments {
    data: Database,
}

impl SqliteDocuments {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Documents for SqliteDocuments {
    async fn put(
        &self,
        tenant: &TenantId,
        collection: &str,
        id: &str,
        body: &Value,
        version: Option<u64>,
    ) -> Result<Flip> {
        let text = document_text(collection, id, body)?;
        let (tenant, collection, id) = (tenant.clone(), collection.to_owned(), id.to_owned());
        self.data
            .write("store a document", move |data| {
                let key = (tenant.as_str(), collection, id, text);
                let changed = match version {
                    None => data
                        .prepare_cached(
                            "INSERT INTO documents (tenant, collection, id, version, body)
                             VALUES (?1, ?2, ?3, 1, ?4) ON CONFLICT DO NOTHING",
                        )?
                        .execute(key)?,
                    Some(version) => data
                        .prepare_cached(
                            "UPDATE documents SET version = version + 1, body = ?4
                             WHERE tenant = ?1 AND collection = ?2 AND id = ?3 AND version = ?5",
                        )?
                        .execute((key.0, key.1, key.2, key.3, to_stored(version)?))?,
                };
                Ok(if changed == 0 { Flip::Lost } else { Flip::Done })
            })
            .await
    }

    async fn get(&self, tenant: &TenantId, collection: &str, id: &str) -> Result<Option<Document>> {
        let (tenant, collection, id) = (tenant.clone(), collection.to_owned(), id.to_owned());
        self.data
            .read("read a document", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT id, version, body FROM documents WHERE tenant = ?1 AND collection = ?2 AND id = ?3",
                )?;
                let found = select
                    .query_row((tenant.as_str(), collection, id), columns)
                    .optional()?;
                found.map(document).transpose()
            })
            .await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        collection: &str,
        from: ListFrom<'_>,
        limit: usize,
    ) -> Result<Vec<Document>> {
        let (tenant, collection) = (tenant.clone(), collection.to_owned());
        let (select, edge) = match from {
            ListFrom::After(after) => (
                "SELECT id, version, body FROM documents
                 WHERE tenant = ?1 AND collection = ?2 AND (?3 IS NULL OR id > ?3) ORDER BY id LIMIT ?4",
                after.map(str::to_owned),
            ),
            ListFrom::Before(before) => (
                "SELECT id, version, body FROM documents
                 WHERE tenant = ?1 AND collection = ?2 AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4",
                before.map(str::to_owned),
            ),
        };
        self.data
            .read("list documents", move |data| {
                let mut select = data.prepare_cached(select)?;
                let rows =
                    select.query_map((tenant.as_str(), collection, edge, sql_limit(limit)), columns)?;
                rows.map(|row| document(row?)).collect()
            })
            .await
    }

    async fn collections(&self, tenant: &TenantId) -> Result<Vec<String>> {
        let tenant = tenant.clone();
        self.data
            .read("list collections", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT DISTINCT collection FROM documents WHERE tenant = ?1 ORDER BY 1",
                )?;
                let rows = select.query_map([tenant.as_str()], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}

type Columns = (String, i64, String);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn document((id, version, body): Columns) -> Result<Document, Failure> {
    Ok(Document {
        id,
        version: from_stored(version)?,
        body: from_json(&body)?,
    })
}
