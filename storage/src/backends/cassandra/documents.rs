//! Documents in Cassandra: a row each, changed by conditional writes.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use serde_json::Value;

use super::cluster::{Cluster, Cql};
use super::contention::{Contention, Stamp, is_stamp, stamp};
use super::encoding::from_json;
use super::values::{damaged_value, from_stored, to_stored};
use crate::api::{Document, Documents, Flip, ListFrom, document_text};
use crate::error::Result;

const READ: Cql = Cql::read(
    "read a document",
    "SELECT id, version, body, stamp FROM {ks}.documents WHERE tenant = ? AND collection = ? AND id = ?",
);
const SETTLE: Cql = Cql::serial_read(
    "read a document",
    "SELECT id, version, body, stamp FROM {ks}.documents WHERE tenant = ? AND collection = ? AND id = ?",
);
const FIRST: Cql = Cql::conditional(
    "store a document",
    "INSERT INTO {ks}.documents (tenant, collection, id, version, body, stamp) VALUES (?, ?, ?, 1, ?, ?)
     IF NOT EXISTS",
);
const NEXT: Cql = Cql::conditional(
    "store a document",
    "UPDATE {ks}.documents SET version = ?, body = ?, stamp = ? WHERE tenant = ? AND collection = ? AND id = ?
     IF version = ?",
);
const ASCENDING: Cql = Cql::read(
    "list documents",
    "SELECT id, version, body, stamp FROM {ks}.documents WHERE tenant = ? AND collection = ? AND id > ? LIMIT ?",
);
const DESCENDING: Cql = Cql::read(
    "list documents",
    "SELECT id, version, body, stamp FROM {ks}.documents WHERE tenant = ? AND collection = ?
     ORDER BY id DESC LIMIT ?",
);
const DESCENDING_BEFORE: Cql = Cql::read(
    "list documents",
    "SELECT id, version, body, stamp FROM {ks}.documents WHERE tenant = ? AND collection = ? AND id < ?
     ORDER BY id DESC LIMIT ?",
);
const ADD_COLLECTION: Cql = Cql::write(
    "list a collection",
    "INSERT INTO {ks}.document_collections (tenant, collection) VALUES (?, ?)",
);
const COLLECTIONS: Cql = Cql::read(
    "list collections",
    "SELECT collection FROM {ks}.document_collections WHERE tenant = ?",
);

/// The documents table in Cassandra.
#[derive(Debug)]
pub struct CassandraDocuments {
    cluster: Cluster,
}

type Columns = (String, Option<i64>, Option<String>, Option<Vec<u8>>);

struct DocumentRow {
    document: Document,
    stamp: Option<Vec<u8>>,
}

/// Where a document stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    tenant: &'a str,
    collection: &'a str,
    id: &'a str,
}

impl CassandraDocuments {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn row(&self, cql: Cql, place: Place<'_>) -> Result<Option<DocumentRow>> {
        let key = (place.tenant, place.collection, place.id);
        let row: Option<Columns> = self.cluster.first(cql, key).await?;
        row.map(from_columns).transpose()
    }

    /// Stores a document if it still has the version; `None` when others were in the way.
    async fn try_put(
        &self,
        place: Place<'_>,
        text: &str,
        version: Option<u64>,
        mine: &Stamp,
    ) -> Result<Option<Flip>> {
        let Place {
            tenant,
            collection,
            id,
        } = place;
        let read_back = async {
            let found = self.row(SETTLE, place).await?;
            Ok(found.is_some_and(|row| is_stamp(row.stamp.as_ref(), mine)))
        };
        let stored = match version {
            None => {
                let row = (tenant, collection, id, text, mine.as_slice());
                self.cluster.conditional(FIRST, row, read_back).await?
            }
            Some(version) => {
                let version = to_stored(version)?;
                let row = (
                    version + 1,
                    text,
                    mine.as_slice(),
                    tenant,
                    collection,
                    id,
                    version,
                );
                self.cluster.conditional(NEXT, row, read_back).await?
            }
        };
        if stored {
            return Ok(Some(Flip::Done));
        }
        let found = self.row(READ, place).await?;
        if found
            .as_ref()
            .is_some_and(|row| is_stamp(row.stamp.as_ref(), mine))
        {
            return Ok(Some(Flip::Done));
        }
        let standing = found.map(|row| row.document.version);
        Ok((standing != version).then_some(Flip::Lost))
    }
}

#[async_trait]
impl Documents for CassandraDocuments {
    async fn put(
        &self,
        tenant: &TenantId,
        collection: &str,
        id: &str,
        body: &Value,
        version: Option<u64>,
    ) -> Result<Flip> {
        let text = document_text(collection, id, body)?;
        let tenant = tenant.as_str();
        let place = Place {
            tenant,
            collection,
            id,
        };
        if version.is_none() {
            self.cluster.execute(ADD_COLLECTION, (tenant, collection)).await?;
        }
        let mine = stamp()?;
        let mut contention = Contention::new(&self.cluster, NEXT.doing());
        loop {
            match self.try_put(place, &text, version, &mine).await? {
                Some(flip) => return Ok(flip),
                None => contention.wait().await?,
            }
        }
    }

    async fn get(&self, tenant: &TenantId, collection: &str, id: &str) -> Result<Option<Document>> {
        let tenant = tenant.as_str();
        let row = self
            .row(
                READ,
                Place {
                    tenant,
                    collection,
                    id,
                },
            )
            .await?;
        Ok(row.map(|row| row.document))
    }

    async fn list(
        &self,
        tenant: &TenantId,
        collection: &str,
        from: ListFrom<'_>,
        limit: usize,
    ) -> Result<Vec<Document>> {
        let (tenant, limit) = (tenant.as_str(), i32::try_from(limit).unwrap_or(i32::MAX));
        let rows: Vec<Columns> = match from {
            // No id is empty, and the empty text comes before all others.
            ListFrom::After(after) => {
                let key = (tenant, collection, after.unwrap_or(""), limit);
                self.cluster.all(ASCENDING, key).await?
            }
            ListFrom::Before(None) => self.cluster.all(DESCENDING, (tenant, collection, limit)).await?,
            ListFrom::Before(Some(before)) => {
                let key = (tenant, collection, before, limit);
                self.cluster.all(DESCENDING_BEFORE, key).await?
            }
        };
        rows.into_iter()
            .map(|row| from_columns(row).map(|row| row.document))
            .collect()
    }

    async fn collections(&self, tenant: &TenantId) -> Result<Vec<String>> {
        let rows: Vec<(String,)> = self.cluster.all(COLLECTIONS, (tenant.as_str(),)).await?;
        Ok(rows.into_iter().map(|(collection,)| collection).collect())
    }
}

fn from_columns((id, version, body, stamp): Columns) -> Result<DocumentRow> {
    let (Some(version), Some(body)) = (version, body) else {
        return Err(damaged_value(format_args!("the document {id} is empty")));
    };
    let document = Document {
        version: from_stored(version)?,
        body: from_json(&body)?,
        id,
    };
    Ok(DocumentRow { document, stamp })
}
