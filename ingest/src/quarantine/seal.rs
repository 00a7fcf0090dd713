//! Bytes that may hold an identifier, kept readable for a week and not a day longer.
//!
//! XChaCha20-Poly1305 under a key per tenant and UTC day, which lives with the keys of pseudonyms under the reserved
//! venue `_quarantine` and is destroyed with them: after that the bytes mean nothing, in every copy and backup. The
//! entry's id is authenticated with them, so that no entry can pass for another.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use dwell_storage::api::{PseudonymKey, PseudonymKeys, SecretKey};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use hmac::Mac;

use crate::pseudonymise::keyed;

/// The venue under which sealing keys are kept. No layout is ever given to it.
const RESERVED_VENUE: &str = "_quarantine";
/// How long a day's key lives after the day.
const KEEP_MS: i64 = 7 * DAY_MS;
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
/// Version, day, nonce.
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sealer {
    keys: Arc<dyn PseudonymKeys>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(keys: Arc<dyn PseudonymKeys>) -> Self {
        Self { keys }
    }

    /// Seals the bytes of an entry with the key of the day of `now`.
    pub(super) async fn seal(&self, tenant: &TenantId, id: &str, now: TsMs, bytes: &[u8]) -> Result<Vec<u8>> {
        let epoch_days = now.div_euclid(DAY_MS) as i32;
        let Some(cipher) = self.cipher(tenant, epoch_days).await? else {
            return Err(StorageError::new(
                ErrorKind::Conflict,
                "the key that seals today's quarantine is destroyed",
            ));
        };
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
        let Some(cipher) = self.cipher(tenant, i32::from_be_bytes(day)).await? else {
            return Ok(None);
        };
        let payload = Payload {
            msg: body,
            aad: id.as_bytes(),
        };
        Ok(cipher.decrypt(XNonce::from_slice(nonce), payload).ok())
    }

    async fn cipher(&self, tenant: &TenantId, epoch_days: i32) -> Result<Option<XChaCha20Poly1305>> {
        let bug = |what: &str| StorageError::new(ErrorKind::Bug, format!("the quarantine's {what}"));
        let venue = VenueId::new(RESERVED_VENUE).map_err(|_| bug("reserved venue"))?;
        let Some(day) = LocalDay::from_epoch_days(epoch_days) else {
            return Ok(None);
        };
        let keep_until = (i64::from(epoch_days) + 1) * DAY_MS + KEEP_MS;
        let mut candidate = [0_u8; 32];
        getrandom::fill(&mut candidate).map_err(no_randomness)?;
        let venue = VenueKey::new(tenant.clone(), venue);
        let key = self
            .keys
            .get_or_create(&venue, day, SecretKey(candidate), keep_until)
            .await?;
        Ok(match key {
            PseudonymKey::Live(key) => {
                // A key of its own, should a tenant ever give a real venue the reserved name.
                let derived = keyed(&key.0)
                    .chain_update(b"dwell quarantine seal 1")
                    .finalize()
                    .into_bytes();
                Some(XChaCha20Poly1305::new(&derived))
            }
            PseudonymKey::Destroyed => None,
        })
    }
}

fn no_randomness(error: getrandom::Error) -> StorageError {
    StorageError::new(ErrorKind::Unavailable, format!("asking for randomness: {error}"))
}
