//! Backups at a place: a folder or an object store, apart from what they are of.
//!
//! ```text
//! PLACE/dwell-backups.json            whose backups these are: one installation's
//! PLACE/manifests/<id>.json           a backup: written last, it makes the backup exist
//! PLACE/objects/ab/<sha-256>.zst      what backups hold, by content: what has not changed is there already
//! PLACE/keys/<id>/<n>.json            keys of pseudonyms, removed when their time is over
//! PLACE/archive/<tenant>/<table>/…    data files of the archive, where backups include it
//! ```
//!
//! [`place`] reads and writes all of it, [`manifest`] says what a backup is, [`parts`] how tables become objects. What a
//! backup is made of, and how it comes back, is the business of who takes it.

pub mod manifest;
pub mod parts;
pub mod place;

pub use manifest::{BackupManifest, KeyObject, ObjectRef, TenantBackup};
pub use place::{BackupPlace, PutObject};
