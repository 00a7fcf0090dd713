//! The audit on the wire.

use dwell_storage::api::AuditEntry;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::instant;

/// Something that somebody did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditDto {
    at: String,
    /// Public id of the key, or the part of Dwell, that did it.
    who: String,
    /// What, as a word with dots: `job.recompute`, `venue.changed`, `key.revoked`.
    #[schema(example = "job.recompute")]
    action: String,
    /// To what: the id of a job, a venue, a key, an entry.
    about: String,
    /// Why, as they said.
    reason: Option<String>,
    /// What it changed, as the action defines it.
    #[schema(value_type = Object)]
    details: Value,
}

/// A page of the audit, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditPageDto {
    pub(crate) entries: Vec<AuditDto>,
    /// Cursor of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

impl From<AuditEntry> for AuditDto {
    fn from(entry: AuditEntry) -> Self {
        Self {
            at: instant(entry.at),
            who: entry.who,
            action: entry.action,
            about: entry.about,
            reason: entry.reason,
            details: entry.details,
        }
    }
}
