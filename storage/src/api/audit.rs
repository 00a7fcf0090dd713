//! The audit: who did what, when and why, and what it changed. Written once, never changed.
//!
//! Entries are documents, a collection per month, so that a partition of it stays small.

use dwell_model::ids::TenantId;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DOCUMENT_BYTES_MAX, Documents, Flip, ListFrom};
use crate::error::{ErrorKind, Result, StorageError};

/// What collections of the audit begin with; a month (`2026-11`) follows.
pub const AUDIT_COLLECTION: &str = "audit-";
/// Longest report that an entry keeps whole, as JSON text.
const REPORT_BYTES_MAX: usize = DOCUMENT_BYTES_MAX / 4;
/// Entries of one instant.
const SAME_INSTANT_MAX: u32 = 1_000;

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was done.
    pub at: TsMs,
    /// Public id of the key, or the part of Dwell, that asked for it.
    pub who: String,
    /// What, as a word with dots: `job.revert`, `venue.put`, `key.revoke`.
    pub action: String,
    /// To what: the id of a job, a venue, a key.
    pub about: String,
    /// Why, as they said.
    pub reason: Option<String>,
    /// What it changed, as the action defines it. Never an identifier of a person.
    pub details: Value,
}

/// Writes an entry.
pub async fn record(documents: &dyn Documents, tenant: &TenantId, entry: &AuditEntry) -> Result<()> {
    let body = serde_json::to_value(entry)
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write an audit entry", error))?;
    let collection = collection_of(entry.at);
    for n in 0..SAME_INSTANT_MAX {
        let id = format!("{:015}-{n:03}", entry.at);
        match documents.put(tenant, &collection, &id, &body, None).await? {
            Flip::Done => return Ok(()),
            Flip::Lost => {
                let there = documents.get(tenant, &collection, &id).await?;
                // A repetition of the same adds nothing.
                if there.is_some_and(|there| there.body == body) {
                    return Ok(());
                }
            }
        }
    }
    Err(StorageError::new(
        ErrorKind::Busy,
        "write an audit entry: too many of one instant",
    ))
}

/// Entries of a tenant, newest first: those before an id (`None`: from the newest), at most `limit`. Each with its id.
pub async fn list(
    documents: &dyn Documents,
    tenant: &TenantId,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, AuditEntry)>> {
    // The month that an id belongs to is in the id; ids of all months sort by time.
    let newest = before
        .and_then(|id| id.split('-').next()?.parse().ok())
        .map(collection_of);
    let months = documents
        .collections(tenant)
        .await?
        .into_iter()
        .rev()
        .filter(|name| {
            name.starts_with(AUDIT_COLLECTION) && newest.as_ref().is_none_or(|newest| name <= newest)
        });
    let mut found = Vec::new();
    for month in months {
        let page = documents
            .list(tenant, &month, ListFrom::Before(before), limit - found.len())
            .await?;
        for document in page {
            let entry = serde_json::from_value(document.body).map_err(|error| {
                StorageError::with_source(ErrorKind::Damaged, "read an audit entry", error)
            })?;
            found.push((document.id, entry));
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// A job's report, as far as an entry keeps it: whole, or without its lists where it is long.
pub fn shortened(report: Option<&Value>) -> Value {
    let Some(report) = report else {
        return Value::Null;
    };
    if report.to_string().len() <= REPORT_BYTES_MAX {
        return report.clone();
    }
    match report.as_object() {
        Some(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(entries) => (name.clone(), json!({ "entries": entries.len() })),
                Value::Object(_) => (name.clone(), json!("left out: too long")),
                value => (name.clone(), value.clone()),
            })
            .collect(),
        None => json!("left out: too long"),
    }
}

fn collection_of(at: TsMs) -> String {
    let day = LocalDay::of_utc(at).to_string();
    format!("{AUDIT_COLLECTION}{}", day.get(..7).unwrap_or("0000-00"))
}
