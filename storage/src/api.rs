//! The seams: a trait per store, reading and writing apart, the contract on each method.
//!
//! No contract asks more than Cassandra and Kafka can give: one partition is atomic, a conditional write can time out
//! with its outcome unknown (read it back), several tables are ordered writes that can be repeated. The conformance
//! suite ([`conformance`](crate::conformance)) holds every backend to what is written here.

mod aggregates;
mod archive;
pub mod audit;
mod checkpoints;
pub mod documents;
mod erasures;
mod event_log;
pub mod exclusions;
mod imports;
mod jobs;
mod live_view;
pub mod periods;
pub mod permits;
pub mod pins;
mod pseudonym_keys;
pub mod publications;
mod quarantine;
mod raw_events;
pub mod recuts;
mod registry;
mod sessions;
mod store_files;
mod venue_days;

pub use aggregates::*;
pub use archive::*;
pub use audit::AuditEntry;
pub use checkpoints::*;
pub(crate) use documents::text_of as document_text;
pub use documents::{DOCUMENT_BYTES_MAX, Document, DocumentKind, Documents, ListFrom};
pub use erasures::*;
pub use event_log::*;
pub use imports::*;
pub use jobs::*;
pub use live_view::*;
pub use pins::{HeldPins, Pin, Pinned, PinnedGeneration};
pub use pseudonym_keys::*;
pub(crate) use quarantine::room as quarantine_room;
pub use quarantine::*;
pub use raw_events::*;
pub use registry::*;
pub use sessions::*;
pub use store_files::*;
pub use venue_days::*;
pub(crate) use venue_days::{refuse_not_staged, refuse_other_fence, refuse_published};

use std::sync::Arc;

/// All stores of one installation, as the roles get them.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Stores {
    pub log: Arc<dyn EventLog>,
    pub raw: Arc<dyn RawEvents>,
    pub sessions: Arc<dyn Sessions>,
    pub aggregates: Arc<dyn Aggregates>,
    pub venue_days: Arc<dyn VenueDays>,
    pub checkpoints: Arc<dyn Checkpoints>,
    pub jobs: Arc<dyn Jobs>,
    pub quarantine: Arc<dyn Quarantine>,
    pub registry: Arc<dyn Registry>,
    pub pseudonym_keys: Arc<dyn PseudonymKeys>,
    pub imports: Arc<dyn Imports>,
    pub documents: Arc<dyn Documents>,
    pub archive: Arc<dyn Archive>,
    /// Whom to forget; lies beside the archive.
    pub erasures: Arc<dyn Erasures>,
    /// The files of embedded stores; `None` where servers keep the tables.
    pub files: Option<Arc<dyn StoreFiles>>,
    /// The live view as a table; `None` where speed layer and readers share a process.
    pub live: Option<Arc<dyn LiveViewTable>>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}
