//! Keys of pseudonyms in `keys.db`, a file of its own.
//!
//! A key is destroyed by writing zeros of the same length over it, in place; then the WAL is copied into the file and
//! emptied. The table grows at its end only, so that no page is split and no copy of a key is left behind in one.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use rusqlite::{Connection, OptionalExtension};

use super::condition::FileCondition;
use super::connection::{Database, DatabaseOptions};
use super::failure::Failure;
use crate::api::{PseudonymKey, PseudonymKeys, SecretKey, StoredPseudonymKey};
use crate::error::Result;
use crate::migrations;

const OPTIONS: DatabaseOptions = DatabaseOptions {
    schema: &migrations::KEYS,
    writer_cache_kib: 2 * 1_024,
    reader_cache_kib: 1_024,
    checkpoint_pages: 256,
    readers: 2,
    secure_delete: true,
};

/// The embedded key store.
#[derive(Debug)]
pub struct SqlitePseudonymKeys {
    keys: Database,
}

impl SqlitePseudonymKeys {
    /// Opens the key store, making it where it is missing. Blocking.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            keys: Database::open(path, OPTIONS)?,
        })
    }

    /// What is known of the file.
    pub(super) fn condition(&self) -> Arc<FileCondition> {
        self.keys.condition()
    }
}

#[async_trait]
impl PseudonymKeys for SqlitePseudonymKeys {
    async fn get_or_create(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        candidate: SecretKey,
        keep_until: TsMs,
    ) -> Result<PseudonymKey> {
        let looked_for = venue.clone();
        let known = self
            .keys
            .read("read a pseudonym key", move |keys| find(keys, &looked_for, day))
            .await?;
        // Most calls end here, without a write.
        if let Some(known) = known
            && (known.key == PseudonymKey::Destroyed || known.keep_until >= keep_until)
        {
            return Ok(known.key);
        }
        let venue = venue.clone();
        self.keys
            .write("create a pseudonym key", move |keys| {
                let Some(known) = find(keys, &venue, day)? else {
                    keys.prepare_cached(
                        "INSERT INTO keys (tenant, venue, day, key, destroyed, keep_until)
                         VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                    )?
                    .execute((
                        venue.tenant.as_str(),
                        venue.venue.as_str(),
                        day.to_epoch_days(),
                        candidate.0,
                        keep_until,
                    ))?;
                    return Ok(PseudonymKey::Live(candidate));
                };
                keys.prepare_cached(
                    "UPDATE keys SET keep_until = ?2 WHERE id = ?1 AND destroyed = 0 AND keep_until < ?2",
                )?
                .execute((known.id, keep_until))?;
                Ok(known.key)
            })
            .await
    }

    async fn look_up(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<StoredPseudonymKey>> {
        let venue = venue.clone();
        self.keys
            .read("look up a pseudonym key", move |keys| {
                let known = find(keys, &venue, day)?;
                Ok(known.map(|KnownKey { key, keep_until, .. }| StoredPseudonymKey { key, keep_until }))
            })
            .await
    }

    async fn destroy_expired(&self, now: TsMs) -> Result<u64> {
        let destroyed = self
            .keys
            .write("destroy pseudonym keys", move |keys| {
                let destroyed = keys
                    .prepare_cached(
                        "UPDATE keys SET key = zeroblob(32), destroyed = 1 WHERE destroyed = 0 AND keep_until <= ?1",
                    )?
                    .execute([now])?;
                Ok(destroyed as u64)
            })
            .await?;
        // Always, not only after a destruction: an earlier call may have died between the two.
        self.keys.empty_wal("destroy pseudonym keys").await?;
        Ok(destroyed)
    }
}

struct KnownKey {
    id: i64,
    key: PseudonymKey,
    keep_until: TsMs,
}

fn find(keys: &Connection, venue: &VenueKey, day: LocalDay) -> Result<Option<KnownKey>, Failure> {
    let mut select = keys.prepare_cached(
        "SELECT id, key, destroyed, keep_until FROM keys WHERE tenant = ?1 AND venue = ?2 AND day = ?3",
    )?;
    let found: Option<(i64, Vec<u8>, bool, TsMs)> = select
        .query_row(
            (venue.tenant.as_str(), venue.venue.as_str(), day.to_epoch_days()),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()?;
    let Some((id, key, destroyed, keep_until)) = found else {
        return Ok(None);
    };
    let key = match <[u8; 32]>::try_from(key) {
        _ if destroyed => PseudonymKey::Destroyed,
        Ok(key) => PseudonymKey::Live(SecretKey(key)),
        Err(_) => return Err(Failure::damaged_row("a pseudonym key has not 32 bytes")),
    };
    Ok(Some(KnownKey { id, key, keep_until }))
}
