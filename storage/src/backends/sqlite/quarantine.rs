//! The quarantine in `data.db`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::Database;
use super::failure::Failure;
use super::values::{
    from_stored, receipt_bytes, receipt_from, sql_limit, tenant_from, to_stored, venue_from,
};
use crate::api::{Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineFilter, QuarantineState};
use crate::error::{ErrorKind, Result};

const COLUMNS: &str =
    "tenant, id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state";

/// The embedded quarantine table.
#[derive(Debug)]
pub struct SqliteQuarantine {
    data: Database,
}

impl SqliteQuarantine {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Quarantine for SqliteQuarantine {
    async fn add(&self, entries: Vec<QuarantineEntry>, max_entries: u64) -> Result<u64> {
        self.data
            .write("add to the quarantine", move |data| {
                let mut counts: BTreeMap<&TenantId, u64> = BTreeMap::new();
                let mut kept = 0;
                for entry in &entries {
                    if !counts.contains_key(&entry.tenant) {
                        counts.insert(&entry.tenant, count_of(data, &entry.tenant)?);
                    }
                    let count = counts.entry(&entry.tenant).or_default();
                    if exists(data, entry)? {
                        kept += 1;
                    } else if *count < max_entries {
                        insert(data, entry)?;
                        *count += 1;
                        kept += 1;
                    }
                }
                for (tenant, count) in counts {
                    store_count(data, tenant, count)?;
                }
                Ok(kept)
            })
            .await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &QuarantineFilter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<QuarantineEntry>> {
        let (tenant, filter, before) = (tenant.clone(), filter.clone(), before.map(str::to_owned));
        self.data
            .read("list the quarantine", move |data| {
                let mut select = data.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM quarantine
                     WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR venue = ?3)
                       AND (?4 IS NULL OR code = ?4) AND (?5 IS NULL OR source = ?5) AND (?6 IS NULL OR state = ?6)
                     ORDER BY id DESC LIMIT ?7"
                ))?;
                let mut rows = select.query((
                    tenant.as_str(),
                    before,
                    filter.venue.as_ref().map(VenueId::as_str),
                    filter.code,
                    filter.source,
                    filter.state.map(state_word),
                    sql_limit(limit),
                ))?;
                let mut entries = Vec::new();
                while let Some(row) = rows.next()? {
                    entries.push(from_row(row)?);
                }
                Ok(entries)
            })
            .await
    }

    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<QuarantineEntry>> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .read("read the quarantine", move |data| {
                let mut select = data.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM quarantine WHERE tenant = ?1 AND id = ?2"
                ))?;
                select
                    .query_row((tenant.as_str(), id), |row| Ok(from_row(row)))
                    .optional()?
                    .transpose()
            })
            .await
    }

    async fn erase(&self, tenant: &TenantId, ids: Vec<String>) -> Result<()> {
        let tenant = tenant.clone();
        self.data
            .write("erase entries of the quarantine", move |data| {
                let mut gone = 0;
                {
                    let mut delete =
                        data.prepare_cached("DELETE FROM quarantine WHERE tenant = ?1 AND id = ?2")?;
                    for id in &ids {
                        gone += delete.execute((tenant.as_str(), id))? as u64;
                    }
                }
                store_count(data, &tenant, count_of(data, &tenant)?.saturating_sub(gone))
            })
            .await
    }

    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .write("settle an entry of the quarantine", move |data| {
                let changed = data
                    .prepare_cached("UPDATE quarantine SET state = ?3 WHERE tenant = ?1 AND id = ?2")?
                    .execute((tenant.as_str(), &id, state_word(state)))?;
                match changed {
                    0 => Err(Failure::refuse(
                        ErrorKind::NotFound,
                        format!("there is no entry with the id {id}"),
                    )),
                    _ => Ok(()),
                }
            })
            .await
    }
}

fn count_of(data: &Connection, tenant: &TenantId) -> Result<u64, Failure> {
    let mut select = data.prepare_cached("SELECT entries FROM quarantine_counts WHERE tenant = ?1")?;
    let count: Option<i64> = select.query_row([tenant.as_str()], |row| row.get(0)).optional()?;
    from_stored(count.unwrap_or(0))
}

fn store_count(data: &Connection, tenant: &TenantId, count: u64) -> Result<(), Failure> {
    data.prepare_cached(
        "INSERT INTO quarantine_counts (tenant, entries) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET entries = ?2 WHERE entries <> ?2",
    )?
    .execute((tenant.as_str(), to_stored(count)?))?;
    Ok(())
}

fn exists(data: &Connection, entry: &QuarantineEntry) -> Result<bool, Failure> {
    let mut select = data.prepare_cached("SELECT 1 FROM quarantine WHERE tenant = ?1 AND id = ?2")?;
    Ok(select.exists((entry.tenant.as_str(), &entry.id))?)
}

fn insert(data: &Connection, entry: &QuarantineEntry) -> Result<(), Failure> {
    data.prepare_cached(&format!(
        "INSERT INTO quarantine ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?
    .execute((
        entry.tenant.as_str(),
        &entry.id,
        entry.venue.as_ref().map(VenueId::as_str),
        entry.received_at,
        receipt_bytes(entry.receipt),
        &entry.source,
        to_stored(entry.index)?,
        &entry.code,
        &entry.message,
        &entry.format,
        encoding_word(entry.encoding),
        &entry.bytes,
        state_word(entry.state),
    ))?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<QuarantineEntry, Failure> {
    let (tenant, venue): (String, Option<String>) = (row.get(0)?, row.get(2)?);
    let (encoding, state): (String, String) = (row.get(10)?, row.get(12)?);
    Ok(QuarantineEntry {
        id: row.get(1)?,
        tenant: tenant_from(&tenant)?,
        venue: venue.as_deref().map(venue_from).transpose()?,
        received_at: row.get(3)?,
        receipt: receipt_from(row.get_ref(4)?.as_blob().map_err(Failure::damaged_row)?)?,
        source: row.get(5)?,
        index: from_stored(row.get(6)?)?,
        code: row.get(7)?,
        message: row.get(8)?,
        format: row.get(9)?,
        encoding: encoding_from(&encoding)?,
        bytes: row.get(11)?,
        state: state_from(&state)?,
    })
}

fn state_word(state: QuarantineState) -> &'static str {
    match state {
        QuarantineState::Open => "open",
        QuarantineState::Replayed => "replayed",
        QuarantineState::Dropped => "dropped",
    }
}

fn state_from(word: &str) -> Result<QuarantineState, Failure> {
    match word {
        "open" => Ok(QuarantineState::Open),
        "replayed" => Ok(QuarantineState::Replayed),
        "dropped" => Ok(QuarantineState::Dropped),
        _ => Err(Failure::damaged_row(format_args!("the state {word:?}"))),
    }
}

fn encoding_word(encoding: QuarantineEncoding) -> &'static str {
    match encoding {
        QuarantineEncoding::Plain => "plain",
        QuarantineEncoding::Encrypted => "encrypted",
    }
}

fn encoding_from(word: &str) -> Result<QuarantineEncoding, Failure> {
    match word {
        "plain" => Ok(QuarantineEncoding::Plain),
        "encrypted" => Ok(QuarantineEncoding::Encrypted),
        _ => Err(Failure::damaged_row(format_args!("the encoding {word:?}"))),
    }
}
