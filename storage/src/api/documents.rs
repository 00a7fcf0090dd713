//! Documents: the small things that operators make and the platform remembers (exclusions, legal holds, schedules, the
//! audit), as JSON, each with a version.
//!
//! They are few (thousands, not millions) and small, so one seam serves them all: what a collection holds is the
//! business of the type that implements [`DocumentKind`]. Whatever grows with the events has a table of its own.

use async_trait::async_trait;
use dwell_model::ids::TenantId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Flip;
use crate::error::{ErrorKind, Result, StorageError};

/// Longest document, as JSON text.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Documents read at a time by [`all`].
const PAGE: usize = 500;
/// Tries of [`update`] before it gives up.
const TRIES: u32 = 16;

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Unique within its collection.
    pub id: String,
    /// Raised by every write; 1 at first.
    pub version: u64,
    /// What it says.
    pub body: Value,
}

/// The order of a list, by id as bytes, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFrom<'a> {
    /// Ascending, after an id; from the first for `None`.
    After(Option<&'a str>),
    /// Descending, before an id; from the last for `None`.
    Before(Option<&'a str>),
}

/// The documents table.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Stores a document if its version is still the one read before (`None`: there was none). Conditional write.
    /// `Invalid` when it is longer than [`DOCUMENT_BYTES_MAX`].
    async fn put(
        &self,
        tenant: &TenantId,
        collection: &str,
        id: &str,
        body: &Value,
        version: Option<u64>,
    ) -> Result<Flip>;

    /// A document.
    async fn get(&self, tenant: &TenantId, collection: &str, id: &str) -> Result<Option<Document>>;

    /// Documents of a collection, at most `limit`.
    async fn list(
        &self,
        tenant: &TenantId,
        collection: &str,
        from: ListFrom<'_>,
        limit: usize,
    ) -> Result<Vec<Document>>;

    /// The collections of a tenant that ever had a document, ascending.
    async fn collections(&self, tenant: &TenantId) -> Result<Vec<String>>;
}

/// What a collection's documents say. Stored as JSON: fields may be added with a default, none changed.
pub trait DocumentKind: Serialize + DeserializeOwned + Send + Sync {
    /// Name of the collection, lower case with dashes.
    const COLLECTION: &'static str;
}

/// A document, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// Its id.
    pub id: String,
    /// Its version, for the next write.
    pub version: u64,
    /// What it says.
    pub value: T,
}

/// A document by its id. `Damaged` when it does not say what its kind says.
pub async fn load<T: DocumentKind>(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
) -> Result<Option<Stored<T>>> {
    let found = documents.get(tenant, T::COLLECTION, id).await?;
    found.map(read).transpose()
}

/// Stores a document if its version is still the one read before.
pub async fn store<T: DocumentKind>(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    value: &T,
    version: Option<u64>,
) -> Result<Flip> {
    let body = serde_json::to_value(value).map_err(|error| {
        StorageError::with_source(
            ErrorKind::Bug,
            format!("write a document of {}", T::COLLECTION),
            error,
        )
    })?;
    documents.put(tenant, T::COLLECTION, id, &body, version).await
}

/// All documents of a collection, ascending by id. For collections that fit in memory.
pub async fn all<T: DocumentKind>(documents: &dyn Documents, tenant: &TenantId) -> Result<Vec<Stored<T>>> {
    let mut found: Vec<Stored<T>> = Vec::new();
    loop {
        let after = found.last().map(|last| last.id.clone());
        let page = documents
            .list(tenant, T::COLLECTION, ListFrom::After(after.as_deref()), PAGE)
            .await?;
        let is_last = page.len() < PAGE;
        for document in page {
            found.push(read(document)?);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Changes a document, whoever else does: reads it, lets `change` make the new one of it, and writes that; again from
/// the start when another write came between. `change` returning `None` leaves it as it is. Returns what stands.
pub async fn update<T: DocumentKind>(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    mut change: impl FnMut(Option<&T>) -> Option<T>,
) -> Result<Option<Stored<T>>> {
    for _ in 0..TRIES {
        let found = load::<T>(documents, tenant, id).await?;
        let Some(value) = change(found.as_ref().map(|found| &found.value)) else {
            return Ok(found);
        };
        let version = found.map(|found| found.version);
        match store(documents, tenant, id, &value, version).await? {
            Flip::Done => {
                let (id, version) = (id.to_owned(), version.unwrap_or(0) + 1);
                return Ok(Some(Stored { id, version, value }));
            }
            Flip::Lost => {}
        }
    }
    let what = format!("change {} {id}: others change it all the time", T::COLLECTION);
    Err(StorageError::new(ErrorKind::Busy, what))
}

fn read<T: DocumentKind>(document: Document) -> Result<Stored<T>> {
    let Document { id, version, body } = document;
    let value = serde_json::from_value(body).map_err(|error| {
        let what = format!("read the document {id} of {}", T::COLLECTION);
        StorageError::with_source(ErrorKind::Damaged, what, error)
    })?;
    Ok(Stored { id, version, value })
}

/// Refuses a document that is too long; its JSON text otherwise.
pub(crate) fn text_of(collection: &str, id: &str, body: &Value) -> Result<String> {
    let text = body.to_string();
    if text.len() > DOCUMENT_BYTES_MAX {
        let what = format!(
            "the document {id} of {collection} has {} bytes; the most is {DOCUMENT_BYTES_MAX}",
            text.len()
        );
        return Err(StorageError::new(ErrorKind::Invalid, what));
    }
    Ok(text)
}
