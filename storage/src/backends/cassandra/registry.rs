//! The registry in Cassandra: tenants, venues with their layouts, access keys.
//!
//! Venues and keys are rows of their own, changed by conditional writes; ids of a tenant's venues and keys stand in
//! lists that are written before. The registry's version is a random number that is replaced before a change and after
//! it, both by conditional writes: caches that look at it once more after the change find another one, even when the
//! process died between the change and the second number.

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::TsMs;
use futures::TryStreamExt;
use scylla::value::CqlTimestamp;

use super::cluster::{Cluster, Cql};
use super::contention::{Contention, Stamp, is_stamp, random_number, stamp};
use super::encoding::{from_json, to_json};
use super::several;
use super::values::{damaged_value, from_stored, to_stored};
use crate::api::{AccessKey, Flip, Registry, StoredVenue};
use crate::error::{ErrorKind, Result, StorageError};

const ADD_TENANT: Cql = Cql::write(
    "create a tenant",
    "INSERT INTO {ks}.tenants (part, id) VALUES (0, ?)",
);
const TENANTS: Cql = Cql::read("list tenants", "SELECT id FROM {ks}.tenants WHERE part = 0");

const READ_VENUE: Cql = Cql::read(
    "read a venue",
    "SELECT version, venue, stamp FROM {ks}.venues WHERE tenant = ? AND id = ?",
);
const SETTLE_VENUE: Cql = Cql::serial_read(
    "read a venue",
    "SELECT version, venue, stamp FROM {ks}.venues WHERE tenant = ? AND id = ?",
);
const FIRST_VENUE: Cql = Cql::conditional(
    "store a venue",
    "INSERT INTO {ks}.venues (tenant, id, version, venue, stamp) VALUES (?, ?, 1, ?, ?) IF NOT EXISTS",
);
const NEXT_VENUE: Cql = Cql::conditional(
    "store a venue",
    "UPDATE {ks}.venues SET version = ?, venue = ?, stamp = ? WHERE tenant = ? AND id = ? IF version = ?",
);
const ADD_VENUE_ID: Cql = Cql::write(
    "list a venue",
    "INSERT INTO {ks}.venue_ids (tenant, id) VALUES (?, ?)",
);
const VENUE_IDS: Cql = Cql::read("list venues", "SELECT id FROM {ks}.venue_ids WHERE tenant = ?");

const READ_KEY: Cql = Cql::read(
    "read an access key",
    "SELECT access_key, revoked_at, stamp FROM {ks}.access_keys WHERE id = ?",
);
const SETTLE_KEY: Cql = Cql::serial_read(
    "read an access key",
    "SELECT access_key, revoked_at, stamp FROM {ks}.access_keys WHERE id = ?",
);
const ADD_KEY: Cql = Cql::conditional(
    "store an access key",
    "INSERT INTO {ks}.access_keys (id, tenant, access_key, revoked_at, stamp) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
);
const REVOKE_KEY: Cql = Cql::conditional(
    "revoke an access key",
    "UPDATE {ks}.access_keys SET revoked_at = ? WHERE id = ? IF tenant = ? AND revoked_at = null",
);
const ADD_KEY_ID: Cql = Cql::write(
    "list an access key",
    "INSERT INTO {ks}.access_key_ids (tenant, id) VALUES (?, ?)",
);
const KEY_IDS: Cql = Cql::read(
    "list access keys",
    "SELECT id FROM {ks}.access_key_ids WHERE tenant = ?",
);

const VERSION: Cql = Cql::read(
    "read the registry's version",
    "SELECT version FROM {ks}.registry_version WHERE part = 0",
);
const SETTLE_VERSION: Cql = Cql::serial_read(
    "read the registry's version",
    "SELECT version FROM {ks}.registry_version WHERE part = 0",
);
const REPLACE_VERSION: Cql = Cql::conditional(
    "change the registry's version",
    "UPDATE {ks}.registry_version SET version = ? WHERE part = 0 IF version != ?",
);

/// Rows of a list read at a time.
const READS_AT_ONCE: usize = 16;

/// The registry tables in Cassandra.
#[derive(Debug)]
pub struct CassandraRegistry {
    cluster: Cluster,
}

type Blob = Vec<u8>;

struct VenueRow {
    stored: StoredVenue,
    stamp: Option<Blob>,
}

struct KeyRow {
    key: AccessKey,
    stamp: Option<Blob>,
}

impl CassandraRegistry {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn venue_row(&self, cql: Cql, tenant: &str, id: &str) -> Result<Option<VenueRow>> {
        let row: Option<(Option<i64>, Option<String>, Option<Blob>)> =
            self.cluster.first(cql, (tenant, id)).await?;
        row.map(|(version, venue, stamp)| {
            let (Some(version), Some(venue)) = (version, venue) else {
                return Err(damaged_value(format_args!("the venue {tenant}/{id} is empty")));
            };
            let stored = StoredVenue {
                venue: from_json(&venue)?,
                version: from_stored(version)?,
            };
            Ok(VenueRow { stored, stamp })
        })
        .transpose()
    }

    async fn key_row(&self, cql: Cql, id: &str) -> Result<Option<KeyRow>> {
        let row: Option<(Option<String>, Option<CqlTimestamp>, Option<Blob>)> =
            self.cluster.first(cql, (id,)).await?;
        row.map(|(key, revoked_at, stamp)| {
            let key = key.ok_or_else(|| damaged_value(format_args!("the access key {id} is empty")))?;
            let key = AccessKey {
                revoked_at: revoked_at.map(|at| at.0),
                ..from_json(&key)?
            };
            Ok(KeyRow { key, stamp })
        })
        .transpose()
    }

    /// Stores a venue if it still has the version; `None` when others were in the way.
    async fn try_put_venue(
        &self,
        (tenant, id): (&str, &str),
        json: &str,
        version: Option<i64>,
        mine: &Stamp,
    ) -> Result<Option<Flip>> {
        let read_back = async {
            let found = self.venue_row(SETTLE_VENUE, tenant, id).await?;
            Ok(found.is_some_and(|row| is_stamp(row.stamp.as_ref(), mine)))
        };
        let stored = match version {
            None => {
                let row = (tenant, id, json, mine.as_slice());
                self.cluster.conditional(FIRST_VENUE, row, read_back).await?
            }
            Some(version) => {
                let row = (version + 1, json, mine.as_slice(), tenant, id, version);
                self.cluster.conditional(NEXT_VENUE, row, read_back).await?
            }
        };
        if stored {
            return Ok(Some(Flip::Done));
        }
        let found = self.venue_row(READ_VENUE, tenant, id).await?;
        if found
            .as_ref()
            .is_some_and(|row| is_stamp(row.stamp.as_ref(), mine))
        {
            return Ok(Some(Flip::Done));
        }
        let found = found.map(|row| to_stored(row.stored.version)).transpose()?;
        Ok((found != version).then_some(Flip::Lost))
    }

    /// Replaces the registry's version, whatever it was.
    async fn change_version(&self) -> Result<()> {
        let mut contention = Contention::new(&self.cluster, REPLACE_VERSION.doing());
        loop {
            let version = random_number()?;
            let read_back = async {
                let found: Option<(Option<i64>,)> = self.cluster.first(SETTLE_VERSION, ()).await?;
                Ok(found == Some((Some(version),)))
            };
            if self
                .cluster
                .conditional(REPLACE_VERSION, (version, version), read_back)
                .await?
            {
                return Ok(());
            }
            contention.wait().await?;
        }
    }
}

#[async_trait]
impl Registry for CassandraRegistry {
    async fn create_tenant(&self, tenant: &TenantId) -> Result<()> {
        self.cluster.execute(ADD_TENANT, (tenant.as_str(),)).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>> {
        let ids: Vec<(String,)> = self.cluster.all(TENANTS, ()).await?;
        ids.iter()
            .map(|(id,)| TenantId::new(id).map_err(damaged_value))
            .collect()
    }

    async fn put_venue(&self, tenant: &TenantId, venue: &Venue, version: Option<u64>) -> Result<Flip> {
        let key = (tenant.as_str(), venue.id.as_str());
        let (json, version) = (to_json(venue)?, version.map(to_stored).transpose()?);
        let found = self.venue_row(READ_VENUE, key.0, key.1).await?;
        if found.map(|row| to_stored(row.stored.version)).transpose()? != version {
            return Ok(Flip::Lost);
        }
        self.cluster.execute(ADD_VENUE_ID, key).await?;
        self.change_version().await?;
        let mine = stamp()?;
        let mut contention = Contention::new(&self.cluster, NEXT_VENUE.doing());
        loop {
            match self.try_put_venue(key, &json, version, &mine).await? {
                Some(Flip::Done) => {
                    self.change_version().await?;
                    return Ok(Flip::Done);
                }
                Some(Flip::Lost) => return Ok(Flip::Lost),
                None => contention.wait().await?,
            }
        }
    }

    async fn venue(&self, key: &VenueKey) -> Result<Option<StoredVenue>> {
        let row = self
            .venue_row(READ_VENUE, key.tenant.as_str(), key.venue.as_str())
            .await?;
        Ok(row.map(|row| row.stored))
    }

    async fn venues(&self, tenant: &TenantId) -> Result<Vec<StoredVenue>> {
        let ids: Vec<(String,)> = self.cluster.all(VENUE_IDS, (tenant.as_str(),)).await?;
        let reads = ids
            .iter()
            .map(|(id,)| self.venue_row(READ_VENUE, tenant.as_str(), id));
        let rows: Vec<Option<VenueRow>> = several::in_order(reads, READS_AT_ONCE).try_collect().await?;
        Ok(rows.into_iter().flatten().map(|row| row.stored).collect())
    }

    async fn version(&self) -> Result<u64> {
        let found: Option<(Option<i64>,)> = self.cluster.first(VERSION, ()).await?;
        from_stored(found.and_then(|(version,)| version).unwrap_or(0))
    }

    async fn put_key(&self, key: &AccessKey) -> Result<()> {
        let taken = || {
            let why = format!("there is an access key with the id {} already", key.id);
            StorageError::new(ErrorKind::Conflict, why)
        };
        if self.key_row(READ_KEY, &key.id).await?.is_some() {
            return Err(taken());
        }
        self.cluster
            .execute(ADD_KEY_ID, (key.tenant.as_str(), &key.id))
            .await?;
        self.change_version().await?;
        let (json, mine) = (to_json(key)?, stamp()?);
        let mut contention = Contention::new(&self.cluster, ADD_KEY.doing());
        loop {
            let read_back = async {
                let found = self.key_row(SETTLE_KEY, &key.id).await?;
                Ok(found.is_some_and(|row| is_stamp(row.stamp.as_ref(), &mine)))
            };
            let revoked_at = key.revoked_at.map(CqlTimestamp);
            let row = (&key.id, key.tenant.as_str(), &json, revoked_at, mine.as_slice());
            let is_added = self.cluster.conditional(ADD_KEY, row, read_back).await?;
            let found = match is_added {
                true => None,
                false => self.key_row(READ_KEY, &key.id).await?,
            };
            match found {
                Some(row) if !is_stamp(row.stamp.as_ref(), &mine) => return Err(taken()),
                None if !is_added => contention.wait().await?,
                _ => return self.change_version().await,
            }
        }
    }

    async fn key(&self, id: &str) -> Result<Option<AccessKey>> {
        Ok(self.key_row(READ_KEY, id).await?.map(|row| row.key))
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<AccessKey>> {
        let ids: Vec<(String,)> = self.cluster.all(KEY_IDS, (tenant.as_str(),)).await?;
        let reads = ids.iter().map(|(id,)| self.key_row(READ_KEY, id));
        let rows: Vec<Option<KeyRow>> = several::in_order(reads, READS_AT_ONCE).try_collect().await?;
        let keys = rows.into_iter().flatten().map(|row| row.key);
        // Whoever lost the race for an id has left an entry for a key of another tenant.
        Ok(keys.filter(|key| key.tenant == *tenant).collect())
    }

    async fn revoke_key(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<()> {
        let mut contention = Contention::new(&self.cluster, REVOKE_KEY.doing());
        let mut announced = false;
        loop {
            let found = self
                .key_row(READ_KEY, id)
                .await?
                .filter(|row| row.key.tenant == *tenant);
            let Some(KeyRow { key, .. }) = found else {
                let why = format!("there is no access key with the id {id}");
                return Err(StorageError::new(ErrorKind::NotFound, why));
            };
            // The first revocation stands. Whoever made it may have died before it was announced.
            if key.revoked_at.is_some() {
                return self.change_version().await;
            }
            if !announced {
                self.change_version().await?;
                announced = true;
            }
            // Whoever revoked it, it is seen above.
            let read_back = async { self.key_row(SETTLE_KEY, id).await.map(|_| false) };
            let row = (CqlTimestamp(now), id, tenant.as_str());
            if self.cluster.conditional(REVOKE_KEY, row, read_back).await? {
                return self.change_version().await;
            }
            contention.wait().await?;
        }
    }
}
