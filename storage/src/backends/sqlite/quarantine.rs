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
use crate::api::quarantine_room::{Detail, Origin, Room, RoomChanges, detail_of, origin_of};
use crate::api::{
    Quarantine, QuarantineAdded, QuarantineBounds, QuarantineEncoding, QuarantineEntry, QuarantineFilter,
    QuarantineLeftOut, QuarantineScope, QuarantineSize, QuarantineState,
};
use crate::error::{ErrorKind, Result};

const COLUMNS: &str = "tenant, id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, sensor";

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
    async fn keep(
        &self,
        entries: Vec<QuarantineEntry>,
        bounds: &QuarantineBounds,
    ) -> Result<QuarantineAdded> {
        let bounds = *bounds;
        self.data
            .write("add to the quarantine", move |data| {
                let mut rooms: BTreeMap<&TenantId, Room> = BTreeMap::new();
                let mut added = QuarantineAdded::default();
                for entry in &entries {
                    if exists(data, entry)? {
                        added.kept += 1;
                        continue;
                    }
                    if entry.state != QuarantineState::Open {
                        insert(data, entry)?;
                        added.kept += 1;
                        continue;
                    }
                    if !rooms.contains_key(&entry.tenant) {
                        rooms.insert(&entry.tenant, Room::new(total_of(data, &entry.tenant)?));
                    }
                    let room = rooms.entry(&entry.tenant).or_default();
                    let origin = origin_of(entry);
                    if !room.knows(&origin) {
                        let rows = rows_of(data, &entry.tenant, &origin)?;
                        room.load(origin, rows);
                    }
                    match room.admit(entry, &bounds) {
                        Ok(()) => {
                            insert(data, entry)?;
                            added.kept += 1;
                        }
                        Err(scope) => added.leave_out(scope),
                    }
                }
                for (tenant, room) in rooms {
                    apply(data, tenant, room.changes())?;
                }
                Ok(added)
            })
            .await
    }

    async fn left_out(&self, tenant: &TenantId, limit: usize) -> Result<Vec<QuarantineLeftOut>> {
        let tenant = tenant.clone();
        self.data
            .read("count what the quarantine left out", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT venue, source, sensor, code, bound, entries FROM quarantine_left_out
                     WHERE tenant = ?1 ORDER BY venue, source, sensor, code, bound LIMIT ?2",
                )?;
                let mut rows = select.query((tenant.as_str(), sql_limit(limit)))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let (venue, sensor, bound): (String, String, String) =
                        (row.get(0)?, row.get(2)?, row.get(4)?);
                    let scope = QuarantineScope::ALL
                        .into_iter()
                        .find(|scope| scope.word() == bound);
                    found.push(QuarantineLeftOut {
                        venue: (!venue.is_empty()).then(|| venue_from(&venue)).transpose()?,
                        source: row.get(1)?,
                        sensor: Some(sensor).filter(|sensor| !sensor.is_empty()),
                        code: row.get(3)?,
                        scope: scope
                            .ok_or_else(|| Failure::damaged_row(format_args!("the bound {bound:?}")))?,
                        entries: from_stored(row.get(5)?)?,
                    });
                }
                Ok(found)
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
                       AND (?8 IS NULL OR sensor = ?8) AND (?9 IS NULL OR receipt = ?9)
                       AND (?10 IS NULL OR received_at >= ?10) AND (?11 IS NULL OR received_at < ?11)
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
                    filter.sensor,
                    filter.receipt.map(receipt_bytes),
                    filter.from,
                    filter.until,
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
            .read("read the quarantine", move |data| find(data, &tenant, &id))
            .await
    }

    async fn erase(&self, tenant: &TenantId, ids: Vec<String>) -> Result<()> {
        let tenant = tenant.clone();
        self.data
            .write("erase entries of the quarantine", move |data| {
                for id in &ids {
                    let Some(entry) = find(data, &tenant, id)? else {
                        continue;
                    };
                    data.prepare_cached("DELETE FROM quarantine WHERE tenant = ?1 AND id = ?2")?
                        .execute((tenant.as_str(), id))?;
                    if entry.state == QuarantineState::Open {
                        give_back(data, &entry)?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .write("settle an entry of the quarantine", move |data| {
                let Some(mut entry) = find(data, &tenant, &id)? else {
                    return Err(Failure::refuse(
                        ErrorKind::NotFound,
                        format!("there is no entry with the id {id}"),
                    ));
                };
                if entry.state == QuarantineState::Open {
                    give_back(data, &entry)?;
                }
                if state == QuarantineState::Dropped {
                    entry.bytes.clear();
                }
                data.prepare_cached(
                    "UPDATE quarantine SET state = ?3, bytes = ?4 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute((tenant.as_str(), &id, state_word(state), &entry.bytes))?;
                if state == QuarantineState::Open {
                    let mut room = Room::default();
                    // Whoever opens an entry again means it: no bound is asked.
                    let _ = room.admit(&entry, &QuarantineBounds::of_tenant(u64::MAX));
                    apply(data, &tenant, room.changes())?;
                }
                Ok(())
            })
            .await
    }
}

fn find(data: &Connection, tenant: &TenantId, id: &str) -> Result<Option<QuarantineEntry>, Failure> {
    let mut select = data.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM quarantine WHERE tenant = ?1 AND id = ?2"
    ))?;
    select
        .query_row((tenant.as_str(), id), |row| Ok(from_row(row)))
        .optional()?
        .transpose()
}

fn total_of(data: &Connection, tenant: &TenantId) -> Result<QuarantineSize, Failure> {
    let mut select = data.prepare_cached("SELECT entries, bytes FROM quarantine_counts WHERE tenant = ?1")?;
    let found: Option<(i64, i64)> = select
        .query_row([tenant.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    size_from(found.unwrap_or_default())
}

/// What waits of a venue and source.
fn rows_of(
    data: &Connection,
    tenant: &TenantId,
    origin: &Origin,
) -> Result<Vec<(Detail, QuarantineSize)>, Failure> {
    let mut select = data.prepare_cached(
        "SELECT sensor, code, entries, bytes FROM quarantine_room WHERE tenant = ?1 AND venue = ?2 AND source = ?3",
    )?;
    let mut rows = select.query((tenant.as_str(), &origin.0, &origin.1))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let detail = (row.get(0)?, row.get(1)?);
        found.push((detail, size_from((row.get(2)?, row.get(3)?))?));
    }
    Ok(found)
}

fn size_from((entries, bytes): (i64, i64)) -> Result<QuarantineSize, Failure> {
    Ok(QuarantineSize {
        entries: from_stored(entries)?,
        bytes: from_stored(bytes)?,
    })
}

/// Writes what a call has added and left out.
fn apply(data: &Connection, tenant: &TenantId, changes: RoomChanges) -> Result<(), Failure> {
    let tenant = tenant.as_str();
    for (((venue, source), (sensor, code)), size) in &changes.added {
        data.prepare_cached(
            "INSERT INTO quarantine_room (tenant, venue, source, sensor, code, entries, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET entries = entries + ?6, bytes = bytes + ?7",
        )?
        .execute((
            tenant,
            venue,
            source,
            sensor,
            code,
            to_stored(size.entries)?,
            to_stored(size.bytes)?,
        ))?;
    }
    if changes.tenant.entries > 0 {
        data.prepare_cached(
            "INSERT INTO quarantine_counts (tenant, entries, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET entries = entries + ?2, bytes = bytes + ?3",
        )?
        .execute((
            tenant,
            to_stored(changes.tenant.entries)?,
            to_stored(changes.tenant.bytes)?,
        ))?;
    }
    for (((venue, source), (sensor, code), scope), entries) in &changes.left_out {
        data.prepare_cached(
            "INSERT INTO quarantine_left_out (tenant, venue, source, sensor, code, bound, entries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET entries = entries + ?7",
        )?
        .execute((
            tenant,
            venue,
            source,
            sensor,
            code,
            scope.word(),
            to_stored(*entries)?,
        ))?;
    }
    Ok(())
}

/// Gives back the room of an open entry.
fn give_back(data: &Connection, entry: &QuarantineEntry) -> Result<(), Failure> {
    let ((venue, source), (sensor, code)) = (origin_of(entry), detail_of(entry));
    let size = entry.size();
    let (entries, bytes) = (to_stored(size.entries)?, to_stored(size.bytes)?);
    let tenant = entry.tenant.as_str();
    data.prepare_cached(
        "UPDATE quarantine_room SET entries = max(entries - ?6, 0), bytes = max(bytes - ?7, 0)
         WHERE tenant = ?1 AND venue = ?2 AND source = ?3 AND sensor = ?4 AND code = ?5",
    )?
    .execute((tenant, &venue, &source, &sensor, &code, entries, bytes))?;
    data.prepare_cached(
        "DELETE FROM quarantine_room WHERE tenant = ?1 AND venue = ?2 AND source = ?3 AND entries = 0",
    )?
    .execute((tenant, &venue, &source))?;
    data.prepare_cached(
        "UPDATE quarantine_counts SET entries = max(entries - ?2, 0), bytes = max(bytes - ?3, 0) WHERE tenant = ?1",
    )?
    .execute((tenant, entries, bytes))?;
    Ok(())
}

fn exists(data: &Connection, entry: &QuarantineEntry) -> Result<bool, Failure> {
    let mut select = data.prepare_cached("SELECT 1 FROM quarantine WHERE tenant = ?1 AND id = ?2")?;
    Ok(select.exists((entry.tenant.as_str(), &entry.id))?)
}

fn insert(data: &Connection, entry: &QuarantineEntry) -> Result<(), Failure> {
    data.prepare_cached(&format!(
        "INSERT INTO quarantine ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
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
        &entry.sensor,
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
        sensor: row.get(13)?,
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
