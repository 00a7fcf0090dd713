//! The ledger of erasures as objects beside the archive's tables: `.erasures/key.json` and an object per entry.
//!
//! No tenant's folder begins with a dot. Entries are numbered without gaps, so the next one is found by one look, and a
//! conditional put gives a number once.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::api::{Erasure, Erasures, LedgerKey, NewErasure};
use crate::error::{ErrorKind, Result, StorageError};

/// Folder of the ledger, in the archive's.
pub(crate) const FOLDER: &str = ".erasures";
const KEY: &str = "key.json";
/// Entries that are read at the same time.
const READ_AT_ONCE: usize = 16;

/// The ledger in a folder of an object store that has conditional puts.
pub struct ObjectLedger {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    key: OnceCell<LedgerKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    key: String,
}

impl ObjectLedger {
    /// The ledger of the archive in `archive`.
    pub fn new(store: Arc<dyn ObjectStore>, archive: &Path) -> Self {
        Self {
            store,
            folder: archive.clone().join(FOLDER),
            key: OnceCell::new(),
        }
    }

    fn place(&self, number: u64) -> Path {
        self.folder.clone().join(format!("{number:010}.json"))
    }

    async fn get(&self, place: &Path) -> Result<Option<Bytes>> {
        let got = match self.store.get(place).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", place, error)),
        }
    }

    async fn entry(&self, number: u64) -> Result<Option<Erasure>> {
        let place = self.place(number);
        let Some(bytes) = self.get(&place).await? else {
            return Ok(None);
        };
        let entry: Erasure = decode(&place, &bytes)?;
        if entry.number != number {
            let what = format!("{place} holds the entry {}", entry.number);
            return Err(StorageError::new(ErrorKind::Damaged, what));
        }
        Ok(Some(entry))
    }

    /// Puts an object where there is none; whether it was put.
    async fn put_new(&self, place: &Path, bytes: Vec<u8>) -> Result<bool> {
        match self
            .store
            .put_opts(place, bytes.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(failed("write", place, error)),
        }
    }

    async fn find_key(&self) -> Result<Option<LedgerKey>> {
        let place = self.folder.clone().join(KEY);
        let Some(bytes) = self.get(&place).await? else {
            return Ok(None);
        };
        let stored: StoredKey = decode(&place, &bytes)?;
        let mut key = [0_u8; 32];
        hex::decode_to_slice(stored.key, &mut key)
            .map_err(|error| StorageError::with_source(ErrorKind::Damaged, format!("read {place}"), error))?;
        Ok(Some(LedgerKey::new(key)))
    }

    async fn find_or_make_key(&self) -> Result<LedgerKey> {
        if let Some(key) = self.find_key().await? {
            return Ok(key);
        }
        let mut fresh = [0_u8; 32];
        getrandom::fill(&mut fresh).map_err(|error| {
            StorageError::with_source(
                ErrorKind::Unavailable,
                "no randomness for the ledger's key",
                error,
            )
        })?;
        let key = LedgerKey::new(fresh);
        let stored = StoredKey {
            key: hex::encode(key.bytes()),
        };
        self.put_new(&self.folder.clone().join(KEY), encode(&stored)?)
            .await?;
        // Whoever's put came first, and whatever became of ours: the one that is there counts.
        self.find_key()
            .await?
            .ok_or_else(|| StorageError::new(ErrorKind::Unavailable, "the ledger's key was not kept"))
    }
}

#[async_trait]
impl Erasures for ObjectLedger {
    async fn key(&self) -> Result<LedgerKey> {
        self.key
            .get_or_try_init(|| self.find_or_make_key())
            .await
            .cloned()
    }

    async fn append(&self, erasure: NewErasure) -> Result<Erasure> {
        let mut number = 1;
        loop {
            // What is there already may be this erasure: of an attempt that died, or whose answer was lost.
            for there in self.read(number).await? {
                if there.erasure.id == erasure.id {
                    return Ok(there);
                }
                number = there.number + 1;
            }
            let entry = Erasure {
                number,
                erasure: erasure.clone(),
            };
            if self.put_new(&self.place(number), encode(&entry)?).await? {
                return Ok(entry);
            }
        }
    }

    async fn read(&self, from: u64) -> Result<Vec<Erasure>> {
        let mut entries = Vec::new();
        // One look where there is nothing new, which is nearly always.
        let Some(first) = self.entry(from.max(1)).await? else {
            return Ok(entries);
        };
        let mut further = stream::iter(first.number + 1..)
            .map(|number| self.entry(number))
            .buffered(READ_AT_ONCE);
        entries.push(first);
        while let Some(entry) = further.try_next().await? {
            match entry {
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        Ok(entries)
    }
}

impl std::fmt::Debug for ObjectLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectLedger")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        StorageError::with_source(ErrorKind::Bug, "write an entry of the ledger of erasures", error)
    })
}

fn decode<T: DeserializeOwned>(place: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| StorageError::with_source(ErrorKind::Damaged, format!("read {place}"), error))
}

fn failed(doing: &str, place: &Path, error: object_store::Error) -> StorageError {
    StorageError::with_source(ErrorKind::Unavailable, format!("{doing} {place}"), error)
}
