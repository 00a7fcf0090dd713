//! Bytes that may hold an identifier, kept readable for a week and not a day longer.
//!
//! XChaCha20-Poly1305 under a key per tenant and UTC day, which lives with the keys of pseudonyms under the reserved
//! venue `_quarantine` and is destroyed with them: after that the bytes mean nothing, in every copy and backup. The
//! entry's id is authenticated with them, so that no entry can pass for another.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use dwell_storage::api::{PseudonymKey, PseudonymKeys, SecretKey};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use hmac::Mac;

use crate::pseudonymise::keyed;
use crate::recent::Recent;

/// The venue under which sealing keys are kept. No layout is ever given to it.
const RESERVED_VENUE: &str = "_quarantine";
/// How long a day's key lives after the day.
const KEEP_MS: i64 = 7 * DAY_MS;
/// Tenants whose key of the day is remembered.
const TENANTS_REMEMBERED: usize = 1_024;
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
/// Version, day, nonce.
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sealer {
    keys: Arc<dyn PseudonymKeys>,
    /// The keys of today, for sealing only: what is opened asks the store, which knows what was destroyed.
    sealing: Arc<Mutex<Recent<(TenantId, i32), SecretKey>>>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(keys: Arc<dyn PseudonymKeys>) -> Self {
        Self {
            keys,
            sealing: Arc::new(Mutex::new(Recent::new(TENANTS_REMEMBERED))),
        }
    }

    /// Seals the bytes of an entry with the key of the day of `now`.
    pub(super) async fn seal(&self, tenant: &TenantId, id: &str, now: TsMs, bytes: &[u8]) -> Result<Vec<u8>> {
        let epoch_days = now.div_euclid(DAY_MS) as i32;
        let cipher = cipher(&self.sealing_key(tenant, epoch_days).await?);
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(no_randomness)?;
        let payload = Payload {
            msg: bytes,
            aad: id.as_bytes(),
        };
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| StorageError::new(ErrorKind::Bug, "sealing an entry of the quarantine"))?;
        let mut out = Vec::with_capacity(HEAD_BYTES + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&epoch_days.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// The bytes of a sealed entry; `None` when its key is destroyed, or the entry was tampered with.
    pub(super) async fn open(&self, tenant: &TenantId, id: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((head, body)) = sealed.split_at_checked(HEAD_BYTES) else {
            return Ok(None);
        };
        let (day, nonce) = head[1..].split_at(4);
        let Ok(day) = <[u8; 4]>::try_from(day) else {
            return Ok(None);
        };
        if head[0] != VERSION {
            return Ok(None);
        }
        let Some(key) = self.key(tenant, i32::from_be_bytes(day)).await? else {
            return Ok(None);
        };
        let payload = Payload {
            msg: body,
            aad: id.as_bytes(),
        };
        Ok(cipher(&key).decrypt(XNonce::from_slice(nonce), payload).ok())
    }

    /// The key of a day that has not ended long ago, from memory where it is known.
    async fn sealing_key(&self, tenant: &TenantId, epoch_days: i32) -> Result<SecretKey> {
        let name = (tenant.clone(), epoch_days);
        let known = self
            .sealing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name);
        if let Some(key) = known {
            return Ok(key);
        }
        let Some(key) = self.key(tenant, epoch_days).await? else {
            return Err(StorageError::new(
                ErrorKind::Conflict,
                "the key that seals today's quarantine is destroyed",
            ));
        };
        self.sealing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, key.clone());
        Ok(key)
    }

    /// The key of a day, made where there is none; `None` when it is destroyed.
    async fn key(&self, tenant: &TenantId, epoch_days: i32) -> Result<Option<SecretKey>> {
        let Some(day) = LocalDay::from_epoch_days(epoch_days) else {
            return Ok(None);
        };
        let reserved = VenueId::new(RESERVED_VENUE).map_err(|error| {
            StorageError::with_source(ErrorKind::Bug, "name the quarantine's keys", error)
        })?;
        let keep_until = (i64::from(epoch_days) + 1) * DAY_MS + KEEP_MS;
        let mut candidate = [0_u8; 32];
        getrandom::fill(&mut candidate).map_err(no_randomness)?;
        let venue = VenueKey::new(tenant.clone(), reserved);
        let key = self
            .keys
            .get_or_create(&venue, day, SecretKey(candidate), keep_until)
            .await?;
        Ok(match key {
            PseudonymKey::Live(key) => Some(key),
            PseudonymKey::Destroyed => None,
        })
    }
}

/// The cipher of a day's key: under a key of its own, should a tenant ever give a real venue the reserved name.
fn cipher(key: &SecretKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(
        &keyed(&key.0)
            .chain_update(b"dwell quarantine seal 1")
            .finalize()
            .into_bytes(),
    )
}

fn no_randomness(error: getrandom::Error) -> StorageError {
    StorageError::new(ErrorKind::Unavailable, format!("asking for randomness: {error}"))
}
