//! Keys of pseudonyms in Cassandra: a row per venue-day, and entries by the UTC day on which a key's time ends.
//!
//! An entry is written before the key, and before the key's time is raised, so that no key is forgotten. The entry of a
//! time that was raised meanwhile leads to a key that is not due yet, and is dropped.
//!
//! **What is left of a destroyed key.** Its row says that it is destroyed, and an empty value stands over its bytes: no
//! read gives them again, and no mark of a deletion has to outlive them. But Cassandra never writes in place. The bytes
//! stay in the table's older files until those are compacted, which the table's settings (memory written out hourly,
//! levelled compaction of few small files) let happen within hours while keys go on being made; in the commit log until
//! its segments are recycled; in `system.paxos` (the last conditional write of the row) until that is compacted after
//! `gc_grace_seconds`, a day; and in snapshots until they are cleared. On a cluster that is idle, `nodetool flush` and
//! `nodetool compact` of this table and of `system paxos` do it at once.
//!
//! The table lies in the keyspace of the others: leave it out of backups by name.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use futures::TryStreamExt;
use scylla::value::{CqlDate, CqlTimestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::cluster::{Cluster, Cql};
use super::contention::Contention;
use super::several;
use super::values::{damaged_value, date, date_of_epoch_days, epoch_days_of};
use crate::api::{PseudonymKey, PseudonymKeys, SecretKey, StoredPseudonymKey};
use crate::error::Result;

const READ: Cql = Cql::read(
    "read a pseudonym key",
    "SELECT key, destroyed, keep_until FROM {ks}.pseudonym_keys WHERE tenant = ? AND venue = ? AND day = ?",
);
const SETTLE: Cql = Cql::serial_read(
    "read a pseudonym key",
    "SELECT key, destroyed, keep_until FROM {ks}.pseudonym_keys WHERE tenant = ? AND venue = ? AND day = ?",
);
const CREATE: Cql = Cql::conditional(
    "create a pseudonym key",
    "INSERT INTO {ks}.pseudonym_keys (tenant, venue, day, key, destroyed, keep_until)
     VALUES (?, ?, ?, ?, false, ?) IF NOT EXISTS",
);
const KEEP_LONGER: Cql = Cql::conditional(
    "keep a pseudonym key longer",
    "UPDATE {ks}.pseudonym_keys SET keep_until = ? WHERE tenant = ? AND venue = ? AND day = ?
     IF destroyed = false AND keep_until < ?",
);
const DESTROY: Cql = Cql::conditional(
    "destroy a pseudonym key",
    "UPDATE {ks}.pseudonym_keys SET key = 0x, destroyed = true WHERE tenant = ? AND venue = ? AND day = ?
     IF destroyed = false AND keep_until <= ?",
);
const ADD_END_DAY: Cql = Cql::write(
    "note when a pseudonym key ends",
    "INSERT INTO {ks}.pseudonym_key_end_days (part, ends_on) VALUES (0, ?)",
);
const ADD_END: Cql = Cql::write(
    "note when a pseudonym key ends",
    "INSERT INTO {ks}.pseudonym_key_ends (ends_on, part, keep_until, tenant, venue, day) VALUES (?, ?, ?, ?, ?, ?)",
);
const END_DAYS: Cql = Cql::read(
    "look for pseudonym keys to destroy",
    "SELECT ends_on FROM {ks}.pseudonym_key_end_days WHERE part = 0 AND ends_on <= ?",
);
const ENDS: Cql = Cql::read(
    "look for pseudonym keys to destroy",
    "SELECT keep_until, tenant, venue, day FROM {ks}.pseudonym_key_ends
     WHERE ends_on = ? AND part = ? AND keep_until <= ?",
);
const DROP_END: Cql = Cql::write(
    "tidy up after pseudonym keys",
    "DELETE FROM {ks}.pseudonym_key_ends
     WHERE ends_on = ? AND part = ? AND keep_until = ? AND tenant = ? AND venue = ? AND day = ?",
);
const DROP_ENDS: Cql = Cql::write(
    "tidy up after pseudonym keys",
    "DELETE FROM {ks}.pseudonym_key_ends WHERE ends_on = ? AND part = ?",
);
const DROP_END_DAY: Cql = Cql::write(
    "tidy up after pseudonym keys",
    "DELETE FROM {ks}.pseudonym_key_end_days WHERE part = 0 AND ends_on = ?",
);

/// Parts of a day's entries.
const PARTS: i8 = 8;
/// Keys destroyed at a time.
const AT_ONCE: usize = 8;
/// How long after its end a day's entries are kept: nobody makes a key that has ended so long ago.
const END_DAYS_KEPT_MS: i64 = DAY_MS;

/// The key store in Cassandra.
#[derive(Debug)]
pub struct CassandraPseudonymKeys {
    cluster: Cluster,
}

struct KnownKey {
    key: PseudonymKey,
    keep_until: TsMs,
}

/// An entry of the keys by their end.
#[derive(Clone)]
struct End {
    ends_on: CqlDate,
    part: i8,
    keep_until: CqlTimestamp,
    tenant: String,
    venue: String,
    day: CqlDate,
}

impl CassandraPseudonymKeys {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn read(&self, cql: Cql, (tenant, venue, day): (&str, &str, CqlDate)) -> Result<Option<KnownKey>> {
        type Columns = (Option<Vec<u8>>, Option<bool>, Option<CqlTimestamp>);
        let row: Option<Columns> = self.cluster.first(cql, (tenant, venue, day)).await?;
        row.map(|(key, destroyed, keep_until)| {
            let key = match <[u8; 32]>::try_from(key.unwrap_or_default()) {
                _ if destroyed == Some(true) => PseudonymKey::Destroyed,
                Ok(key) => PseudonymKey::Live(SecretKey(key)),
                Err(_) => return Err(damaged_value("a pseudonym key has not 32 bytes")),
            };
            let keep_until = keep_until
                .ok_or_else(|| damaged_value("a pseudonym key has no end"))?
                .0;
            Ok(KnownKey { key, keep_until })
        })
        .transpose()
    }

    async fn note_end(&self, (tenant, venue, day): (&str, &str, CqlDate), keep_until: TsMs) -> Result<()> {
        let ends_on = utc_date(keep_until);
        self.cluster.execute(ADD_END_DAY, (ends_on,)).await?;
        let entry = (
            ends_on,
            part_of(tenant, venue),
            CqlTimestamp(keep_until),
            tenant,
            venue,
            day,
        );
        self.cluster.execute(ADD_END, entry).await
    }

    /// Destroys the key of an entry if its time is over; whether this call did.
    async fn destroy(&self, end: End, now: TsMs) -> Result<bool> {
        let key = (end.tenant.as_str(), end.venue.as_str(), end.day);
        let mut contention = Contention::new(&self.cluster, DESTROY.doing());
        let destroyed = loop {
            let read_back = async {
                let found = self.read(SETTLE, key).await?;
                Ok(found.is_some_and(|found| found.key == PseudonymKey::Destroyed))
            };
            let row = (key.0, key.1, key.2, CqlTimestamp(now));
            if self.cluster.conditional(DESTROY, row, read_back).await? {
                break true;
            }
            match self.read(READ, key).await? {
                // Its creation is under way, or was given up: the entry goes with its day.
                None => return Ok(false),
                Some(found) if found.key == PseudonymKey::Destroyed || found.keep_until > now => break false,
                Some(_) => contention.wait().await?,
            }
        };
        let entry = (
            end.ends_on,
            end.part,
            end.keep_until,
            &end.tenant,
            &end.venue,
            end.day,
        );
        self.cluster.execute(DROP_END, entry).await?;
        Ok(destroyed)
    }

    async fn destroy_of_part(&self, ends_on: CqlDate, part: i8, now: TsMs) -> Result<u64> {
        let entries: Vec<(CqlTimestamp, String, String, CqlDate)> =
            self.cluster.all(ENDS, (ends_on, part, CqlTimestamp(now))).await?;
        let ends = entries.into_iter().map(|(keep_until, tenant, venue, day)| End {
            ends_on,
            part,
            keep_until,
            tenant,
            venue,
            day,
        });
        several::as_ready(ends.map(|end| self.destroy(end, now)), AT_ONCE)
            .try_fold(0, async |sum, destroyed| Ok(sum + u64::from(destroyed)))
            .await
    }
}

#[async_trait]
impl PseudonymKeys for CassandraPseudonymKeys {
    async fn get_or_create(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        candidate: SecretKey,
        keep_until: TsMs,
    ) -> Result<PseudonymKey> {
        let key = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let until = CqlTimestamp(keep_until);
        let mut contention = Contention::new(&self.cluster, CREATE.doing());
        let mut found = self.read(READ, key).await?;
        loop {
            // Whatever a lost answer was, the row that stands is what counts.
            let read_back = async { self.read(SETTLE, key).await.map(|_| false) };
            match found {
                // Most calls end here, without a write.
                Some(known) if known.key == PseudonymKey::Destroyed || known.keep_until >= keep_until => {
                    return Ok(known.key);
                }
                Some(known) => {
                    self.note_end(key, keep_until).await?;
                    let row = (until, key.0, key.1, key.2, until);
                    if self.cluster.conditional(KEEP_LONGER, row, read_back).await? {
                        return Ok(known.key);
                    }
                }
                None => {
                    self.note_end(key, keep_until).await?;
                    let row = (key.0, key.1, key.2, candidate.0.as_slice(), until);
                    if self.cluster.conditional(CREATE, row, read_back).await? {
                        return Ok(PseudonymKey::Live(candidate));
                    }
                }
            }
            found = self.read(READ, key).await?;
            let is_settled =
                |known: &KnownKey| known.key == PseudonymKey::Destroyed || known.keep_until >= keep_until;
            if !found.as_ref().is_some_and(is_settled) {
                contention.wait().await?;
            }
        }
    }

    async fn look_up(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<StoredPseudonymKey>> {
        let key = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let known = self.read(READ, key).await?;
        Ok(known.map(|KnownKey { key, keep_until }| StoredPseudonymKey { key, keep_until }))
    }

    async fn destroy_expired(&self, now: TsMs) -> Result<u64> {
        let days: Vec<(CqlDate,)> = self.cluster.all(END_DAYS, (utc_date(now),)).await?;
        let mut destroyed = 0;
        for (ends_on,) in days {
            for part in 0..PARTS {
                destroyed += self.destroy_of_part(ends_on, part, now).await?;
            }
            let day_end = (i64::from(epoch_days_of(ends_on)) + 1).saturating_mul(DAY_MS);
            if day_end.saturating_add(END_DAYS_KEPT_MS) <= now {
                for part in 0..PARTS {
                    self.cluster.execute(DROP_ENDS, (ends_on, part)).await?;
                }
                self.cluster.execute(DROP_END_DAY, (ends_on,)).await?;
            }
        }
        Ok(destroyed)
    }
}

/// The UTC date of a moment; the first and the last one that CQL knows for moments beyond.
fn utc_date(at: TsMs) -> CqlDate {
    let days = at.div_euclid(DAY_MS);
    date_of_epoch_days(days.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
}

fn part_of(tenant: &str, venue: &str) -> i8 {
    (xxh3_64(format!("{tenant}/{venue}").as_bytes()) % PARTS as u64) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_on_the_day_that_holds_it() {
        let days = |at| epoch_days_of(utc_date(at));
        assert_eq!((days(0), days(DAY_MS - 1), days(DAY_MS), days(-1)), (0, 0, 1, -1));
        assert_eq!((days(i64::MAX), days(i64::MIN)), (i32::MAX, i32::MIN));
        assert!((0..PARTS).contains(&part_of("acme", "shop")));
    }
}
