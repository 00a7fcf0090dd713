//! The registry in `data.db`: tenants, venues with their layouts, access keys.

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::TsMs;
use rusqlite::{Connection, OptionalExtension};

use super::connection::Database;
use super::failure::Failure;
use super::values::{from_json, from_stored, tenant_from, to_json, to_stored};
use crate::api::{AccessKey, Flip, Registry, StoredVenue};
use crate::error::{ErrorKind, Result};

/// The embedded registry tables.
#[derive(Debug)]
pub struct SqliteRegistry {
    data: Database,
}

impl SqliteRegistry {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn create_tenant(&self, tenant: &TenantId) -> Result<()> {
        let tenant = tenant.clone();
        self.data
            .write("create a tenant", move |data| {
                data.prepare_cached("INSERT INTO tenants (id) VALUES (?1) ON CONFLICT DO NOTHING")?
                    .execute([tenant.as_str()])?;
                Ok(())
            })
            .await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>> {
        self.data
            .read("list tenants", |data| {
                let mut select = data.prepare_cached("SELECT id FROM tenants ORDER BY id")?;
                let mut rows = select.query([])?;
                let mut tenants = Vec::new();
                while let Some(row) = rows.next()? {
                    tenants.push(tenant_from(
                        row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?,
                    )?);
                }
                Ok(tenants)
            })
            .await
    }

    async fn put_venue(&self, tenant: &TenantId, venue: &Venue, version: Option<u64>) -> Result<Flip> {
        let (tenant, venue) = (tenant.clone(), venue.clone());
        self.data
            .write("store a venue", move |data| {
                let (id, json) = (venue.id.as_str(), to_json(&venue)?);
                let changed = match version {
                    None => data
                        .prepare_cached(
                            "INSERT INTO venues (tenant, id, version, venue) VALUES (?1, ?2, 1, ?3)
                             ON CONFLICT DO NOTHING",
                        )?
                        .execute((tenant.as_str(), id, json))?,
                    Some(version) => data
                        .prepare_cached(
                            "UPDATE venues SET version = version + 1, venue = ?3
                             WHERE tenant = ?1 AND id = ?2 AND version = ?4",
                        )?
                        .execute((tenant.as_str(), id, json, to_stored(version)?))?,
                };
                if changed == 0 {
                    return Ok(Flip::Lost);
                }
                raise_version(data)?;
                Ok(Flip::Done)
            })
            .await
    }

    async fn venue(&self, key: &VenueKey) -> Result<Option<StoredVenue>> {
        let key = key.clone();
        self.data
            .read("read a venue", move |data| {
                let mut select =
                    data.prepare_cached("SELECT version, venue FROM venues WHERE tenant = ?1 AND id = ?2")?;
                let mut rows = select.query((key.tenant.as_str(), key.venue.as_str()))?;
                rows.next()?.map(venue_from_row).transpose()
            })
            .await
    }

    async fn venues(&self, tenant: &TenantId) -> Result<Vec<StoredVenue>> {
        let tenant = tenant.clone();
        self.data
            .read("list venues", move |data| {
                let mut select =
                    data.prepare_cached("SELECT version, venue FROM venues WHERE tenant = ?1 ORDER BY id")?;
                let mut rows = select.query([tenant.as_str()])?;
                let mut venues = Vec::new();
                while let Some(row) = rows.next()? {
                    venues.push(venue_from_row(row)?);
                }
                Ok(venues)
            })
            .await
    }

    async fn version(&self) -> Result<u64> {
        self.data
            .read("read the registry's version", |data| {
                let mut select = data.prepare_cached("SELECT version FROM registry_version")?;
                from_stored(select.query_row([], |row| row.get(0))?)
            })
            .await
    }

    async fn put_key(&self, key: &AccessKey) -> Result<()> {
        let key = key.clone();
        self.data
            .write("store an access key", move |data| {
                let changed = data
                    .prepare_cached(
                        "INSERT INTO access_keys (id, tenant, access_key) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                    )?
                    .execute((&key.id, key.tenant.as_str(), to_json(&key)?))?;
                if changed == 0 {
                    let why = format!("there is an access key with the id {} already", key.id);
                    return Err(Failure::refuse(ErrorKind::Conflict, why));
                }
                raise_version(data)
            })
            .await
    }

    async fn key(&self, id: &str) -> Result<Option<AccessKey>> {
        let id = id.to_owned();
        self.data
            .read("read an access key", move |data| load_key(data, &id))
            .await
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<AccessKey>> {
        let tenant = tenant.clone();
        self.data
            .read("list access keys", move |data| {
                let mut select =
                    data.prepare_cached("SELECT access_key FROM access_keys WHERE tenant = ?1 ORDER BY id")?;
                let mut rows = select.query([tenant.as_str()])?;
                let mut keys = Vec::new();
                while let Some(row) = rows.next()? {
                    keys.push(from_json(
                        row.get_ref(0)?.as_str().map_err(Failure::damaged_row)?,
                    )?);
                }
                Ok(keys)
            })
            .await
    }

    async fn revoke_key(&self, tenant: &TenantId, id: &str, now: TsMs) -> Result<()> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.data
            .write("revoke an access key", move |data| {
                let Some(mut key) = load_key(data, &id)?.filter(|key| key.tenant == tenant) else {
                    return Err(Failure::refuse(
                        ErrorKind::NotFound,
                        format!("there is no access key with the id {id}"),
                    ));
                };
                // The first revocation stands.
                if key.revoked_at.is_some() {
                    return Ok(());
                }
                key.revoked_at = Some(now);
                data.prepare_cached("UPDATE access_keys SET access_key = ?2 WHERE id = ?1")?
                    .execute((&id, to_json(&key)?))?;
                raise_version(data)
            })
            .await
    }
}

fn venue_from_row(row: &rusqlite::Row<'_>) -> Result<StoredVenue, Failure> {
    let venue = from_json(row.get_ref(1)?.as_str().map_err(Failure::damaged_row)?)?;
    Ok(StoredVenue {
        venue,
        version: from_stored(row.get(0)?)?,
    })
}

fn load_key(data: &Connection, id: &str) -> Result<Option<AccessKey>, Failure> {
    let mut select = data.prepare_cached("SELECT access_key FROM access_keys WHERE id = ?1")?;
    let found: Option<String> = select.query_row([id], |row| row.get(0)).optional()?;
    found.as_deref().map(from_json).transpose()
}

fn raise_version(data: &Connection) -> Result<(), Failure> {
    data.prepare_cached("UPDATE registry_version SET version = version + 1")?
        .execute([])?;
    Ok(())
}
