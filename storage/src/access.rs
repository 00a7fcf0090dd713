//! Access keys: who sends a request, and what the sender may do.
//!
//! A key's text is `dwk_<id>_<secret>`. The id is public and finds the key's row; of the secret only the SHA-256 is
//! stored. That is enough, since the secret is 32 random bytes: there is no dictionary to try.
//!
//! - [`issue`] makes a key; its text is shown once and kept nowhere.
//! - [`KeyVerifier`] turns a presented text into a [`Principal`], from a bounded cache that follows
//!   [`Registry::version`], so that a key that is taken back stops working within [`REFRESH_MS`]. While the registry is
//!   away, keys that were known go on working for [`REGISTRY_AWAY_MAX_MS`].
//!
//! Nothing here knows HTTP: ingest and the serving API each read their own headers and share this.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use crate::api::{AccessKey, Registry, Role};
use crate::error::{ErrorKind, Result, StorageError};

/// The tenant that an installation begins with; its admins run the installation.
pub const INSTALLATION_TENANT: &str = "default";
/// What every key's text begins with: secret scanners look for it.
pub const KEY_PREFIX: &str = "dwk_";
/// How old the verifier's knowledge of the registry may be, in milliseconds.
pub const REFRESH_MS: u64 = 1_000;
/// How long known keys go on working while the registry is away, in milliseconds: an hour.
pub const REGISTRY_AWAY_MAX_MS: u64 = 3_600_000;
/// Longest text that is looked at.
const MAX_KEY_BYTES: usize = 256;
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose data the request may touch. No request touches another's.
    pub tenant: TenantId,
    /// Public id of the key.
    pub key_id: String,
    /// What the key may do.
    pub role: Role,
    /// For gateways: the venues that it may post to; `None`: all of the tenant.
    pub venues: Option<Vec<VenueId>>,
}

impl Principal {
    /// Whether it may post events at all.
    pub fn may_post(&self) -> bool {
        matches!(self.role, Role::Gateway | Role::Operator | Role::Admin)
    }

    /// Whether it may post events of a venue.
    pub fn may_post_to(&self, venue: &VenueId) -> bool {
        self.may_post() && self.venues.as_ref().is_none_or(|venues| venues.contains(venue))
    }

    /// Whether it may read numbers.
    pub fn may_read(&self) -> bool {
        matches!(self.role, Role::Viewer | Role::Operator | Role::Admin)
    }

    /// Whether it may run jobs, import, and work the quarantine.
    pub fn may_operate(&self) -> bool {
        matches!(self.role, Role::Operator | Role::Admin)
    }

    /// Whether it may change venues and keys.
    pub fn may_administer(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether it belongs to the operators of the whole installation: an admin of the tenant that it begins with.
    pub fn runs_installation(&self) -> bool {
        self.role == Role::Admin && self.tenant.as_str() == INSTALLATION_TENANT
    }
}

/// A key's text: shown once, printed by nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl KeyText {
    /// The text itself, to be handed to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// Makes a key: the row to store ([`Registry::put_key`]) and the text for its owner.
pub fn issue(
    tenant: TenantId,
    role: Role,
    venues: Option<Vec<VenueId>>,
    name: Option<String>,
    now: TsMs,
) -> Result<(AccessKey, KeyText)> {
    let mut random = [0_u8; ID_BYTES + SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        StorageError::new(ErrorKind::Unavailable, format!("asking for randomness: {error}"))
    })?;
    let (id, secret) = random.split_at(ID_BYTES);
    let (id, secret) = (hex::encode(id), hex::encode(secret));
    let text = KeyText(format!("{KEY_PREFIX}{id}_{secret}"));
    let hash = hash_of(&secret);
    Ok((
        AccessKey {
            id,
            hash,
            tenant,
            role,
            venues,
            name,
            created_at: now,
            revoked_at: None,
        },
        text,
    ))
}

/// SHA-256 of a key's secret part, hexadecimal, as [`AccessKey::hash`] holds it.
pub fn hash_of(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Verifies presented keys. Clones share the cache.
#[derive(Clone)]
pub struct KeyVerifier {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<dyn Registry>,
    /// The key that only this process knows (see [`KeyVerifier::trust`]).
    own: Mutex<Option<(String, Entry)>>,
    clock: SharedClock,
    generation_keys_max: usize,
    cache: Mutex<Cache>,
}

/// Keys by id, `None` for ids that do not exist. Two maps instead of a list by age: when the young one is full it
/// becomes the old one, and the old one is forgotten.
#[derive(Default)]
struct Cache {
    version: Option<u64>,
    /// When the registry last told its version.
    checked_at_ms: u64,
    /// When it was last asked, whatever came of it.
    asked_at_ms: u64,
    young: HashMap<String, Option<Entry>>,
    old: HashMap<String, Option<Entry>>,
}

#[derive(Clone)]
struct Entry {
    hash: [u8; 32],
    revoked: bool,
    principal: Arc<Principal>,
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVerifier").finish_non_exhaustive()
    }
}

impl KeyVerifier {
    /// A verifier that remembers at most `keys_max` keys, ids that do not exist included.
    pub fn new(registry: Arc<dyn Registry>, clock: SharedClock, keys_max: usize) -> Self {
        let inner = Inner {
            registry,
            own: Mutex::default(),
            clock,
            generation_keys_max: (keys_max / 2).max(1),
            cache: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes a key that is stored nowhere and that only this verifier knows, for callers inside this process. It takes
    /// the place of the one made before.
    pub fn trust(&self, tenant: TenantId, role: Role) -> Result<KeyText> {
        let (key, text) = issue(tenant, role, None, None, self.inner.clock.now_ms())?;
        let id = key.id.clone();
        if let Some(entry) = Entry::of(key) {
            *self.inner.own() = Some((id, entry));
        }
        Ok(text)
    }

    /// Who presents this text, as in `Authorization: Bearer <text>`. `None` when the text is no key, no such key
    /// exists, its secret is another, or it was taken back: which of them is not told.
    pub async fn verify(&self, text: &str) -> Result<Option<Principal>> {
        let Some((id, secret)) = parts(text) else {
            return Ok(None);
        };
        let own = self.inner.own().clone();
        if let Some((own_id, entry)) = own
            && own_id == id
        {
            return Ok(entry.opened_by(secret));
        }
        self.refresh().await?;
        let known = self.inner.cache().find(id, self.inner.generation_keys_max);
        let entry = match known {
            Some(entry) => entry,
            None => self.load(id).await?,
        };
        Ok(entry.and_then(|entry| entry.opened_by(secret)))
    }

    /// Forgets everything when the registry has changed; asks for that at most once in [`REFRESH_MS`].
    async fn refresh(&self) -> Result<()> {
        let now_ms = self.inner.clock.monotonic().as_millis() as u64;
        {
            let mut cache = self.inner.cache();
            if cache.version.is_some() && now_ms.saturating_sub(cache.asked_at_ms) < REFRESH_MS {
                return Ok(());
            }
            // One asks, the others go on meanwhile with what is known: a registry that hangs stalls nobody.
            cache.asked_at_ms = now_ms;
        }
        let version = match self.inner.registry.version().await {
            Ok(version) => version,
            Err(error) => {
                let cache = self.inner.cache();
                let age_ms = now_ms.saturating_sub(cache.checked_at_ms);
                return match cache.version.is_some() && error.kind().is_retryable() {
                    true if age_ms < REGISTRY_AWAY_MAX_MS => Ok(()),
                    _ => Err(error),
                };
            }
        };
        let mut cache = self.inner.cache();
        if cache.version != Some(version) {
            cache.young.clear();
            cache.old.clear();
        }
        cache.version = Some(version);
        cache.checked_at_ms = now_ms;
        Ok(())
    }

    async fn load(&self, id: &str) -> Result<Option<Entry>> {
        let before = self.inner.cache().version;
        let key = self.inner.registry.key(id).await?;
        let entry = key.and_then(Entry::of);
        let mut cache = self.inner.cache();
        // What was read before a change must not outlive the cache that the change has emptied.
        if cache.version == before {
            cache.insert(id.to_owned(), entry.clone(), self.inner.generation_keys_max);
        }
        Ok(entry)
    }
}

impl Inner {
    fn own(&self) -> MutexGuard<'_, Option<(String, Entry)>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn find(&mut self, id: &str, generation_max: usize) -> Option<Option<Entry>> {
        if let Some(entry) = self.young.get(id) {
            return Some(entry.clone());
        }
        let (id, entry) = self.old.remove_entry(id)?;
        self.insert(id, entry.clone(), generation_max);
        Some(entry)
    }

    fn insert(&mut self, id: String, entry: Option<Entry>, generation_max: usize) {
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, entry);
    }
}

impl Entry {
    /// Whose key it is, if the secret is the right one and the key was not taken back.
    fn opened_by(&self, secret: &str) -> Option<Principal> {
        let presented: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let opens = equal_in_constant_time(&self.hash, &presented) && !self.revoked;
        opens.then(|| Principal::clone(&self.principal))
    }

    /// A stored key as the verifier needs it; `None` for one whose hash is damaged, which opens nothing.
    fn of(key: AccessKey) -> Option<Self> {
        let mut hash = [0_u8; 32];
        hex::decode_to_slice(&key.hash, &mut hash).ok()?;
        let AccessKey {
            id,
            tenant,
            role,
            venues,
            revoked_at,
            ..
        } = key;
        let venues = if role == Role::Gateway { venues } else { None };
        let principal = Arc::new(Principal {
            tenant,
            key_id: id,
            role,
            venues,
        });
        Some(Self {
            hash,
            revoked: revoked_at.is_some(),
            principal,
        })
    }
}

/// Id and secret of a key's text.
fn parts(text: &str) -> Option<(&str, &str)> {
    if text.len() > MAX_KEY_BYTES {
        return None;
    }
    let (id, secret) = text.strip_prefix(KEY_PREFIX)?.rsplit_once('_')?;
    (!id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

/// Compares without telling by its duration where the difference lies.
fn equal_in_constant_time(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

#[cfg(test)]
mod tests;
