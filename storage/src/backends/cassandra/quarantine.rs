//! The quarantine in Cassandra: entries by tenant and stretch of time, newest first.
//!
//! An entry is written once and never changed; what became of it stands in a column of its own. Entries that are there
//! are looked for before anything is written, so a retry adds nothing.
//!
//! The bounds rest on counters that are read before entries are written and raised after. So they are kept by one process
//! after the other; processes that add for one tenant at the same moment may together go beyond them by what they add at
//! that moment, and entries whose counting failed are counted never, or twice.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::HOUR_MS;
use scylla::value::{Counter, CqlTimestamp};

use super::cluster::{Cluster, Cql};
use super::rows::{self, SizedRow};
use super::values::{damaged_value, from_stored, receipt as receipt_from, receipt_bytes, to_stored};
use crate::api::quarantine_room::{Detail, Origin, Room, RoomChanges, origin_of};
use crate::api::{
    Quarantine, QuarantineAdded, QuarantineBounds, QuarantineEncoding, QuarantineEntry, QuarantineFilter,
    QuarantineLeftOut, QuarantineScope, QuarantineSize, QuarantineState,
};
use crate::error::{ErrorKind, Result, StorageError};

const KNOWN: Cql = Cql::read(
    "look for entries of the quarantine",
    "SELECT id FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id IN ?",
);
const INSERT: Cql = Cql::write(
    "add to the quarantine",
    "INSERT INTO {ks}.quarantine
     (tenant, bucket, id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state,
      sensor)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
);
const ADD_BUCKET: Cql = Cql::write(
    "add to the quarantine",
    "INSERT INTO {ks}.quarantine_buckets (tenant, bucket) VALUES (?, ?)",
);
const BUCKETS: Cql = Cql::read(
    "list the quarantine",
    "SELECT bucket FROM {ks}.quarantine_buckets WHERE tenant = ?",
);
const BUCKETS_FROM: Cql = Cql::read(
    "list the quarantine",
    "SELECT bucket FROM {ks}.quarantine_buckets WHERE tenant = ? AND bucket <= ?",
);
const COUNT: Cql = Cql::read(
    "count the quarantine",
    "SELECT kept FROM {ks}.quarantine_counts WHERE tenant = ?",
);
const RAISE_COUNT: Cql = Cql::counter(
    "count the quarantine",
    "UPDATE {ks}.quarantine_counts SET kept = kept + ? WHERE tenant = ?",
);
const ROOM: Cql = Cql::read(
    "count the quarantine",
    "SELECT sensor, code, kept, bytes FROM {ks}.quarantine_room WHERE tenant = ? AND venue = ? AND source = ?",
);
const RAISE_ROOM: Cql = Cql::counter(
    "count the quarantine",
    "UPDATE {ks}.quarantine_room SET kept = kept + ?, bytes = bytes + ?
     WHERE tenant = ? AND venue = ? AND source = ? AND sensor = ? AND code = ?",
);
const RAISE_LEFT_OUT: Cql = Cql::counter(
    "count what the quarantine left out",
    "UPDATE {ks}.quarantine_left_out SET missed = missed + ?
     WHERE tenant = ? AND venue = ? AND source = ? AND sensor = ? AND code = ? AND bound = ?",
);
const LEFT_OUT: Cql = Cql::read(
    "count what the quarantine left out",
    "SELECT venue, source, sensor, code, bound, missed FROM {ks}.quarantine_left_out WHERE tenant = ? LIMIT ?",
);
const LIST: Cql = Cql::read(
    "list the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled,
     sensor
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? LIMIT ?",
);
const LIST_BEFORE: Cql = Cql::read(
    "list the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled,
     sensor
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id < ? LIMIT ?",
);
const GET: Cql = Cql::read(
    "read the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled,
     sensor
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id = ?",
);
const ERASE: Cql = Cql::write(
    "erase entries of the quarantine",
    "DELETE FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id = ?",
);
const SETTLE: Cql = Cql::write(
    "settle an entry of the quarantine",
    "UPDATE {ks}.quarantine SET settled = ? WHERE tenant = ? AND bucket = ? AND id = ?",
);

const DROP: Cql = Cql::write(
    "settle an entry of the quarantine",
    "UPDATE {ks}.quarantine SET settled = ?, bytes = ? WHERE tenant = ? AND bucket = ? AND id = ?",
);

/// Stands for "all of them" where a venue, source, sensor or reason would stand.
const ALL: &str = "";
/// Bytes of an id that name its bucket.
const BUCKET_BYTES: usize = 7;
/// Ids in one `IN`; ScyllaDB refuses more than 100.
const IDS_MAX: usize = 96;
/// Entries asked for at a time: each may be as large as a line.
const PAGE_MAX: usize = 200;
/// Entries asked for at a time at least, since a filter may pass only a few.
const PAGE_MIN: usize = 20;

/// The quarantine in Cassandra.
#[derive(Debug)]
pub struct CassandraQuarantine {
    cluster: Cluster,
}

impl CassandraQuarantine {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// Adds one tenant's entries.
    async fn add_of(
        &self,
        tenant: &str,
        entries: &[&QuarantineEntry],
        bounds: &QuarantineBounds,
    ) -> Result<QuarantineAdded> {
        let known = self.known(tenant, entries).await?;
        let mut room = Room::new(self.total(tenant).await?);
        let mut taken: BTreeMap<&str, &QuarantineEntry> = BTreeMap::new();
        let mut added = QuarantineAdded::default();
        for &entry in entries {
            let id = entry.id.as_str();
            if known.contains(id) || taken.contains_key(id) {
                added.kept += 1;
                continue;
            }
            if entry.state == QuarantineState::Open {
                let origin = origin_of(entry);
                if !room.knows(&origin) {
                    let rows = self.room(tenant, &origin).await?;
                    room.load(origin, rows);
                }
                if let Err(scope) = room.admit(entry, bounds) {
                    added.leave_out(scope);
                    continue;
                }
            }
            taken.insert(id, entry);
            added.kept += 1;
        }
        let mut buckets: BTreeMap<&str, Vec<SizedRow<_>>> = BTreeMap::new();
        for entry in taken.values() {
            let row = sized_row(tenant, entry)?;
            buckets.entry(bucket_of(&entry.id)).or_default().push(row);
        }
        for (bucket, rows) in buckets {
            self.cluster.execute(ADD_BUCKET, (tenant, bucket)).await?;
            rows::write(&self.cluster, INSERT, rows).await?;
        }
        self.count(tenant, room.changes(), 1).await;
        Ok(added)
    }

    /// What waits of a tenant.
    async fn total(&self, tenant: &str) -> Result<QuarantineSize> {
        let entries: Option<(Counter,)> = self.cluster.first(COUNT, (tenant,)).await?;
        let rows = self.room(tenant, &(ALL.to_owned(), ALL.to_owned())).await?;
        Ok(QuarantineSize {
            entries: counted(entries.map_or(0, |(entries,)| entries.0)),
            bytes: rows.iter().map(|(_, size)| size.bytes).sum(),
        })
    }

    /// What waits of a venue and source.
    async fn room(&self, tenant: &str, origin: &Origin) -> Result<Vec<(Detail, QuarantineSize)>> {
        type Row = (String, String, Option<Counter>, Option<Counter>);
        let rows: Vec<Row> = self.cluster.all(ROOM, (tenant, &origin.0, &origin.1)).await?;
        let read = |(sensor, code, entries, bytes): Row| {
            let size = QuarantineSize {
                entries: counted(entries.map_or(0, |entries| entries.0)),
                bytes: counted(bytes.map_or(0, |bytes| bytes.0)),
            };
            ((sensor, code), size)
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Counts what was added and left out (`sign` 1), or given back (−1). The entries are there, or gone: a count that
    /// failed is no reason to do it again.
    async fn count(&self, tenant: &str, changes: RoomChanges, sign: i64) {
        let signed = |number: u64| Counter(i64::try_from(number).unwrap_or(i64::MAX) * sign);
        let counting = async {
            for (((venue, source), (sensor, code)), size) in &changes.added {
                let row = (
                    signed(size.entries),
                    signed(size.bytes),
                    tenant,
                    venue,
                    source,
                    sensor,
                    code,
                );
                self.cluster.execute(RAISE_ROOM, row).await?;
            }
            if changes.tenant.entries > 0 {
                let (entries, bytes) = (signed(changes.tenant.entries), signed(changes.tenant.bytes));
                self.cluster.execute(RAISE_COUNT, (entries, tenant)).await?;
                let row = (entries, bytes, tenant, ALL, ALL, ALL, ALL);
                self.cluster.execute(RAISE_ROOM, row).await?;
            }
            for (((venue, source), (sensor, code), scope), entries) in &changes.left_out {
                let row = (
                    signed(*entries),
                    tenant,
                    venue,
                    source,
                    sensor,
                    code,
                    scope.word(),
                );
                self.cluster.execute(RAISE_LEFT_OUT, row).await?;
            }
            Ok::<_, StorageError>(())
        };
        if let Err(error) = counting.await {
            tracing::warn!(tenant, %error, "entries of the quarantine may not have been counted");
        }
    }

    async fn known(&self, tenant: &str, entries: &[&QuarantineEntry]) -> Result<BTreeSet<String>> {
        let mut buckets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for entry in entries {
            buckets.entry(bucket_of(&entry.id)).or_default().insert(&entry.id);
        }
        let mut known = BTreeSet::new();
        for (bucket, ids) in buckets {
            let ids: Vec<&str> = ids.into_iter().collect();
            for ids in ids.chunks(IDS_MAX) {
                let found: Vec<(String,)> = self.cluster.all(KNOWN, (tenant, bucket, ids)).await?;
                known.extend(found.into_iter().map(|(id,)| id));
            }
        }
        Ok(known)
    }
}

#[async_trait]
impl Quarantine for CassandraQuarantine {
    async fn keep(
        &self,
        entries: Vec<QuarantineEntry>,
        bounds: &QuarantineBounds,
    ) -> Result<QuarantineAdded> {
        let mut tenants: BTreeMap<&TenantId, Vec<&QuarantineEntry>> = BTreeMap::new();
        for entry in &entries {
            tenants.entry(&entry.tenant).or_default().push(entry);
        }
        let mut added = QuarantineAdded::default();
        for (tenant, entries) in tenants {
            added.add(self.add_of(tenant.as_str(), &entries, bounds).await?);
        }
        Ok(added)
    }

    async fn left_out(&self, tenant: &TenantId, limit: usize) -> Result<Vec<QuarantineLeftOut>> {
        type Row = (String, String, String, String, String, Option<Counter>);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let rows: Vec<Row> = self.cluster.all(LEFT_OUT, (tenant.as_str(), limit)).await?;
        let read = |(venue, source, sensor, code, bound, entries): Row| {
            let scope = QuarantineScope::ALL
                .into_iter()
                .find(|scope| scope.word() == bound);
            Ok(QuarantineLeftOut {
                venue: (!venue.is_empty())
                    .then(|| VenueId::new(&venue).map_err(damaged_value))
                    .transpose()?,
                source,
                sensor: Some(sensor).filter(|sensor| !sensor.is_empty()),
                code,
                scope: scope.ok_or_else(|| damaged_value(format_args!("the bound {bound:?}")))?,
                entries: counted(entries.map_or(0, |entries| entries.0)),
            })
        };
        rows.into_iter().map(read).collect()
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &QuarantineFilter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<QuarantineEntry>> {
        let name = tenant.as_str();
        // Ids begin with an hour: that of the receipt, or the one before it. What lies beyond the times asked for need not
        // be read.
        let first_id = filter.from.map(|from| hour_prefix(from.saturating_sub(HOUR_MS)));
        let past_end = filter
            .until
            .map(|until| hour_prefix(until.saturating_add(HOUR_MS)));
        let before = match (before, past_end.as_deref()) {
            (Some(before), Some(end)) => Some(before.min(end)),
            (before, end) => before.or(end),
        };
        let buckets: Vec<(String,)> = match before {
            None => self.cluster.all(BUCKETS, (name,)).await?,
            Some(before) => self.cluster.all(BUCKETS_FROM, (name, bucket_of(before))).await?,
        };
        let mut listed = Vec::new();
        for (bucket,) in buckets {
            // In older buckets the bound holds for every entry, and asks for nothing more.
            let mut before = before.map(str::to_owned);
            while listed.len() < limit {
                let asked = (limit - listed.len()).clamp(PAGE_MIN, PAGE_MAX);
                let rows: Vec<Columns> = match &before {
                    None => self.cluster.all(LIST, (name, &bucket, asked as i32)).await?,
                    Some(before) => {
                        self.cluster
                            .all(LIST_BEFORE, (name, &bucket, before, asked as i32))
                            .await?
                    }
                };
                let is_last = rows.len() < asked
                    || rows
                        .last()
                        .zip(first_id.as_ref())
                        .is_some_and(|(row, first)| row.0 < *first);
                before = rows.last().map(|row| row.0.clone());
                for row in rows {
                    let entry = from_row(tenant, row)?;
                    if listed.len() < limit && passes(filter, &entry) {
                        listed.push(entry);
                    }
                }
                if is_last {
                    break;
                }
            }
            let is_past = first_id
                .as_deref()
                .is_some_and(|first| bucket.as_str() < bucket_of(first));
            if listed.len() >= limit || is_past {
                break;
            }
        }
        Ok(listed)
    }

    async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<QuarantineEntry>> {
        let key = (tenant.as_str(), bucket_of(id), id);
        let row: Option<Columns> = self.cluster.first(GET, key).await?;
        row.map(|row| from_row(tenant, row)).transpose()
    }

    async fn erase(&self, tenant: &TenantId, ids: Vec<String>) -> Result<()> {
        for id in &ids {
            let Some(entry) = self.get(tenant, id).await? else {
                continue;
            };
            let key = (tenant.as_str(), bucket_of(id), id.as_str());
            self.cluster.execute(ERASE, key).await?;
            if entry.state == QuarantineState::Open {
                self.count(tenant.as_str(), room_of(&entry), -1).await;
            }
        }
        Ok(())
    }

    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()> {
        let Some(mut entry) = self.get(tenant, id).await? else {
            let why = format!("there is no entry with the id {id}");
            return Err(StorageError::new(ErrorKind::NotFound, why));
        };
        let (name, bucket) = (tenant.as_str(), bucket_of(id));
        match state {
            QuarantineState::Dropped => {
                let nothing: &[u8] = &[];
                let row = (state_word(state), nothing, name, bucket, id);
                self.cluster.execute(DROP, row).await?;
            }
            _ => {
                let row = (state_word(state), name, bucket, id);
                self.cluster.execute(SETTLE, row).await?;
            }
        }
        let was_open = entry.state == QuarantineState::Open;
        match (was_open, state == QuarantineState::Open) {
            (true, false) => self.count(name, room_of(&entry), -1).await,
            (false, true) => {
                entry.state = state;
                self.count(name, room_of(&entry), 1).await;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The room that one entry takes.
fn room_of(entry: &QuarantineEntry) -> RoomChanges {
    let mut room = Room::default();
    // Nothing is in its way: it is counted, not asked for.
    let _ = room.admit(entry, &QuarantineBounds::of_tenant(u64::MAX));
    room.changes()
}

/// A counter that miscounted downwards is no reason to fail.
fn counted(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What the ids of an hour begin with.
fn hour_prefix(at: i64) -> String {
    format!("{:08x}", at.div_euclid(HOUR_MS).max(0))
}

/// The first bytes of an id: in the order of ids, so that buckets follow each other as their entries do.
fn bucket_of(id: &str) -> &str {
    id.get(..BUCKET_BYTES)
        .unwrap_or_else(|| &id[..id.floor_char_boundary(BUCKET_BYTES)])
}

fn passes(filter: &QuarantineFilter, entry: &QuarantineEntry) -> bool {
    filter
        .venue
        .as_ref()
        .is_none_or(|venue| entry.venue.as_ref() == Some(venue))
        && filter.code.as_ref().is_none_or(|code| entry.code == *code)
        && filter
            .source
            .as_ref()
            .is_none_or(|source| entry.source == *source)
        && filter.state.is_none_or(|state| entry.state == state)
        && filter
            .sensor
            .as_ref()
            .is_none_or(|sensor| entry.sensor.as_ref() == Some(sensor))
        && filter.receipt.is_none_or(|receipt| entry.receipt == receipt)
        && filter.from.is_none_or(|from| from <= entry.received_at)
        && filter.until.is_none_or(|until| entry.received_at < until)
}

/// Values of [`INSERT`].
type NewRow<'a> = (
    &'a str,
    &'a str,
    &'a str,
    Option<&'a str>,
    CqlTimestamp,
    Vec<u8>,
    &'a str,
    i64,
    &'a str,
    &'a str,
    &'a str,
    &'static str,
    &'a [u8],
    &'static str,
    Option<&'a str>,
);

fn sized_row<'a>(tenant: &'a str, entry: &'a QuarantineEntry) -> Result<SizedRow<NewRow<'a>>> {
    let bytes = [
        &entry.id,
        &entry.source,
        &entry.code,
        &entry.message,
        &entry.format,
    ]
    .map(String::len);
    let values = (
        tenant,
        bucket_of(&entry.id),
        entry.id.as_str(),
        entry.venue.as_ref().map(VenueId::as_str),
        CqlTimestamp(entry.received_at),
        receipt_bytes(entry.receipt).to_vec(),
        entry.source.as_str(),
        to_stored(entry.index)?,
        entry.code.as_str(),
        entry.message.as_str(),
        entry.format.as_str(),
        encoding_word(entry.encoding),
        entry.bytes.as_slice(),
        state_word(entry.state),
        entry.sensor.as_deref(),
    );
    Ok(SizedRow {
        bytes: bytes.iter().sum::<usize>() + tenant.len() + entry.bytes.len(),
        values,
    })
}

type Columns = (
    String,
    Option<String>,
    Option<CqlTimestamp>,
    Option<Vec<u8>>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
    Option<String>,
    Option<String>,
    Option<String>,
);

fn from_row(tenant: &TenantId, row: Columns) -> Result<QuarantineEntry> {
    let (
        id,
        venue,
        received_at,
        receipt,
        source,
        line,
        code,
        message,
        format,
        encoding,
        bytes,
        state,
        settled,
        sensor,
    ) = row;
    let lacking = |what: &str| damaged_value(format_args!("the quarantine's entry {id} has no {what}"));
    let venue = venue
        .map(|venue| VenueId::new(&venue).map_err(damaged_value))
        .transpose()?;
    let state = settled.or(state).ok_or_else(|| lacking("state"))?;
    Ok(QuarantineEntry {
        tenant: tenant.clone(),
        venue,
        received_at: received_at.ok_or_else(|| lacking("time"))?.0,
        receipt: receipt_from(&receipt.ok_or_else(|| lacking("receipt"))?)?,
        source: source.ok_or_else(|| lacking("source"))?,
        index: from_stored(line.ok_or_else(|| lacking("line"))?)?,
        code: code.ok_or_else(|| lacking("code"))?,
        message: message.ok_or_else(|| lacking("message"))?,
        format: format.ok_or_else(|| lacking("format"))?,
        encoding: encoding_from(&encoding.ok_or_else(|| lacking("encoding"))?)?,
        bytes: bytes.unwrap_or_default(),
        sensor,
        state: state_from(&state)?,
        id,
    })
}

fn state_word(state: QuarantineState) -> &'static str {
    match state {
        QuarantineState::Open => "open",
        QuarantineState::Replayed => "replayed",
        QuarantineState::Dropped => "dropped",
    }
}

fn state_from(word: &str) -> Result<QuarantineState> {
    match word {
        "open" => Ok(QuarantineState::Open),
        "replayed" => Ok(QuarantineState::Replayed),
        "dropped" => Ok(QuarantineState::Dropped),
        _ => Err(damaged_value(format_args!("the state {word:?}"))),
    }
}

fn encoding_word(encoding: QuarantineEncoding) -> &'static str {
    match encoding {
        QuarantineEncoding::Plain => "plain",
        QuarantineEncoding::Encrypted => "encrypted",
    }
}

fn encoding_from(word: &str) -> Result<QuarantineEncoding> {
    match word {
        "plain" => Ok(QuarantineEncoding::Plain),
        "encrypted" => Ok(QuarantineEncoding::Encrypted),
        _ => Err(damaged_value(format_args!("the encoding {word:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_as_ids_do() {
        let ids = [
            "",
            "0",
            "01",
            "00079a3f-1",
            "00079a40-0",
            "00079a4f-9",
            "ü",
            "üüüüü",
            "ÿ",
            "0007",
        ];
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        assert!(sorted.is_sorted_by_key(|id| bucket_of(id)));
        assert_eq!(bucket_of("00079a3f-1"), "00079a3");
        assert_eq!(bucket_of("01"), "01");
        assert_eq!(bucket_of("üüüüü"), "üüü", "no character is cut in two");
    }
}
