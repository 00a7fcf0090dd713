//! The quarantine in Cassandra: entries by tenant and stretch of time, newest first.
//!
//! An entry is written once and never changed; what became of it stands in a column of its own. Entries that are there
//! are looked for before anything is written, so a retry adds nothing.
//!
//! The bound of a tenant's entries rests on a counter that is read before entries are written and raised after. So it is
//! kept by one process after the other; processes that add for one tenant at the same moment may together go beyond it
//! by what they add at that moment, and entries whose counting failed are counted never, or twice.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use scylla::value::{Counter, CqlTimestamp};

use super::cluster::{Cluster, Cql};
use super::rows::{self, SizedRow};
use super::values::{damaged_value, from_stored, receipt as receipt_from, receipt_bytes, to_stored};
use crate::api::{Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineFilter, QuarantineState};
use crate::error::{ErrorKind, Result, StorageError};

const KNOWN: Cql = Cql::read(
    "look for entries of the quarantine",
    "SELECT id FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id IN ?",
);
const INSERT: Cql = Cql::write(
    "add to the quarantine",
    "INSERT INTO {ks}.quarantine
     (tenant, bucket, id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
const LIST: Cql = Cql::read(
    "list the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? LIMIT ?",
);
const LIST_BEFORE: Cql = Cql::read(
    "list the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id < ? LIMIT ?",
);
const GET: Cql = Cql::read(
    "read the quarantine",
    "SELECT id, venue, received_at, receipt, source, line, code, message, format, encoding, bytes, state, settled
     FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id = ?",
);
const ERASE: Cql = Cql::write(
    "erase entries of the quarantine",
    "DELETE FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id = ?",
);
const FIND: Cql = Cql::read(
    "look for an entry of the quarantine",
    "SELECT id FROM {ks}.quarantine WHERE tenant = ? AND bucket = ? AND id = ?",
);
const SETTLE: Cql = Cql::write(
    "settle an entry of the quarantine",
    "UPDATE {ks}.quarantine SET settled = ? WHERE tenant = ? AND bucket = ? AND id = ?",
);

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

    /// Adds one tenant's entries; returns how many were kept or there.
    async fn add_of(&self, tenant: &str, entries: &[&QuarantineEntry], max_entries: u64) -> Result<u64> {
        let known = self.known(tenant, entries).await?;
        let count: Option<(Counter,)> = self.cluster.first(COUNT, (tenant,)).await?;
        // A counter that miscounted downwards is no reason to fail.
        let count = u64::try_from(count.map_or(0, |(count,)| count.0)).unwrap_or(0);
        let room = usize::try_from(max_entries.saturating_sub(count)).unwrap_or(usize::MAX);
        let mut taken: BTreeMap<&str, &QuarantineEntry> = BTreeMap::new();
        let mut kept = 0;
        for &entry in entries {
            let id = entry.id.as_str();
            if known.contains(id) || taken.contains_key(id) {
                kept += 1;
            } else if taken.len() < room {
                taken.insert(id, entry);
                kept += 1;
            }
        }
        if taken.is_empty() {
            return Ok(kept);
        }
        let mut buckets: BTreeMap<&str, Vec<SizedRow<_>>> = BTreeMap::new();
        for entry in taken.values() {
            let row = sized_row(tenant, entry)?;
            buckets.entry(bucket_of(&entry.id)).or_default().push(row);
        }
        let added = Counter(i64::try_from(taken.len()).unwrap_or(i64::MAX));
        for (bucket, rows) in buckets {
            self.cluster.execute(ADD_BUCKET, (tenant, bucket)).await?;
            rows::write(&self.cluster, INSERT, rows).await?;
        }
        // The entries are there: a count that failed is no reason to send them again.
        if let Err(error) = self.cluster.execute(RAISE_COUNT, (added, tenant)).await {
            tracing::warn!(tenant, added = added.0, %error, "entries of the quarantine may not have been counted");
        }
        Ok(kept)
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
    async fn add(&self, entries: Vec<QuarantineEntry>, max_entries: u64) -> Result<u64> {
        let mut tenants: BTreeMap<&TenantId, Vec<&QuarantineEntry>> = BTreeMap::new();
        for entry in &entries {
            tenants.entry(&entry.tenant).or_default().push(entry);
        }
        let mut kept = 0;
        for (tenant, entries) in tenants {
            kept += self.add_of(tenant.as_str(), &entries, max_entries).await?;
        }
        Ok(kept)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &QuarantineFilter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<QuarantineEntry>> {
        let name = tenant.as_str();
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
                let is_last = rows.len() < asked;
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
            if listed.len() >= limit {
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
        let tenant = tenant.as_str();
        for id in &ids {
            let key = (tenant, bucket_of(id), id.as_str());
            let there: Option<(String,)> = self.cluster.first(FIND, key).await?;
            if there.is_none() {
                continue;
            }
            self.cluster.execute(ERASE, key).await?;
            // A count that failed only means that the quarantine seems fuller than it is.
            if let Err(error) = self.cluster.execute(RAISE_COUNT, (Counter(-1), tenant)).await {
                tracing::warn!(tenant, %error, "an erased entry of the quarantine is still counted");
            }
        }
        Ok(())
    }

    async fn set_state(&self, tenant: &TenantId, id: &str, state: QuarantineState) -> Result<()> {
        if self.get(tenant, id).await?.is_none() {
            let why = format!("there is no entry with the id {id}");
            return Err(StorageError::new(ErrorKind::NotFound, why));
        }
        let row = (state_word(state), tenant.as_str(), bucket_of(id), id);
        self.cluster.execute(SETTLE, row).await
    }
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
