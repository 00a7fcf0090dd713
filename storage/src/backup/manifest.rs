//! What a backup is: a list of objects with their checksums. Stored as JSON: fields may be added with a default, none
//! changed.

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use crate::api::{Generation, GenerationInfo, TableVersion};

/// Version of the form of backups that this build writes, and the only one that it reads.
pub const BACKUP_FORMAT: u32 = 1;

/// An object at a place, by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Length of its content.
    pub bytes: u64,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// See [`BACKUP_FORMAT`].
    pub format: u32,
    /// Unique at its place; sorts by time.
    pub id: String,
    /// Whose backup it is.
    pub installation: String,
    /// The moment that it shows: generations published later are not in it.
    pub taken_at: TsMs,
    /// When it was complete.
    pub finished_at: TsMs,
    /// Version of Dwell that took it.
    pub dwell: String,
    /// Epoch of the event log at the time.
    pub log_epoch: u64,
    /// Where the archive was, for people.
    pub archive: String,
    /// What there is of each tenant.
    pub tenants: Vec<TenantBackup>,
    /// Keys of pseudonyms whose time had not run out.
    pub keys: Vec<KeyObject>,
    /// Venue-days in it.
    pub days: u64,
    /// Generations in it.
    pub generations: u64,
    /// Objects in it, manifest apart.
    pub objects: u64,
    /// Length of their contents.
    pub bytes: u64,
    /// Objects that no earlier backup had.
    pub new_objects: u64,
    /// What could not be read and is therefore not in it, for people.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What a backup has of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantBackup {
    /// Whose.
    pub tenant: TenantId,
    /// The archive's tables at the moment of the backup.
    pub archive: Vec<TableVersion>,
    /// Venues and access keys.
    pub registry: ObjectRef,
    /// Documents by collection.
    pub documents: Vec<CollectionPart>,
    /// Claims of imported files.
    pub imports: Vec<ObjectRef>,
    /// What was refused.
    pub quarantine: Vec<ObjectRef>,
    /// Keys of pseudonyms that were destroyed: which, nothing else is left of them.
    pub destroyed_keys: Vec<ObjectRef>,
    /// Venue-days, a venue's month in each.
    pub days: Vec<DaysPart>,
    /// Files of the archive that lie beside the backup; `None` when it goes without them.
    #[serde(default)]
    pub files: Option<Vec<ObjectRef>>,
}

/// Documents of a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionPart {
    /// Its name.
    pub collection: String,
    /// Its documents, some hundred in each.
    pub objects: Vec<ObjectRef>,
}

/// Days of a venue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaysPart {
    /// Whose.
    pub venue: VenueId,
    /// Which month: `2026-11`.
    pub month: String,
    /// How many days.
    pub days: u64,
    /// A list of [`BackedUpDay`].
    pub object: ObjectRef,
}

/// A venue-day in a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackedUpDay {
    /// The day.
    pub day: LocalDay,
    /// Highest fence given out.
    pub fence: Generation,
    /// The published generation.
    pub published: Option<Generation>,
    /// All generations that were kept.
    pub generations: Vec<BackedUpGeneration>,
}

/// A generation in a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackedUpGeneration {
    /// What it was made of.
    pub info: GenerationInfo,
    /// Its rows.
    pub rows: ObjectRef,
    /// Its sessions, where they were there and it was published.
    pub sessions: Option<ObjectRef>,
}

/// Keys of pseudonyms in a backup, apart from its objects so that they can be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyObject {
    /// Path at the place.
    pub path: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Keys in it.
    pub keys: u64,
    /// When the time of the last of them is over, and the object is removed.
    pub destroy_at: TsMs,
}
