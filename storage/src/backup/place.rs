//! A place for backups: objects by content, manifests, keys of pseudonyms, files of the archive.
//!
//! An object is written before what names it, a manifest last of all, so what is there of an interrupted backup is named
//! by nothing: the next one finds it, or [`BackupPlace::sweep`] takes it. Whatever is read is compared with the hash by
//! which it is named, the manifest with the one beside it.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::manifest::{BACKUP_FORMAT, BackupManifest, KeyObject, ObjectRef};
use crate::archive::{CopiedFile, DeltaArchive, DurableLocal, RemoteArchiveConfig, open_remote_store};
use crate::error::{ErrorKind, Result, StorageError};
use crate::paths::create_dir;
use crate::resolver::StoreUri;

/// The file that says whose backups lie here.
const OWNER: &str = "dwell-backups.json";
const MANIFESTS: &str = "manifests";
const OBJECTS: &str = "objects";
const KEYS: &str = "keys";
const ARCHIVE: &str = "archive";
const ZSTD_LEVEL: i32 = 3;
/// Longest content of an object.
const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// An object that nothing names is found again by a repeated backup when it is younger than this, milliseconds.
const FOUND_AGAIN_MS: i64 = 12 * 3_600_000;
/// Objects that nothing names are left alone for so long, milliseconds: a backup may be under way.
pub const SWEEP_AGE_MS: i64 = 24 * 3_600_000;

/// A place for backups.
#[derive(Clone)]
pub struct BackupPlace {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    name: String,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObject {
    /// How it is named.
    pub object: ObjectRef,
    /// Whether it was not there.
    pub is_new: bool,
    /// Bytes written.
    pub stored_bytes: u64,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Objects, files and keys.
    pub objects: u64,
    /// Their size at the place.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Owner {
    format: u32,
    installation: String,
}

/// A manifest's file: the manifest as it was written, and the hash of that text.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    sha256: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

impl BackupPlace {
    /// The same, made where it is a folder that is not there: closed to other users.
    pub fn make(uri: &StoreUri, objects: &RemoteArchiveConfig) -> Result<Self> {
        if let StoreUri::Folder(folder) = uri {
            create_dir(folder)?;
        }
        Self::open(uri, objects)
    }

    /// The place that a URI names: `file:///…`, `s3://…`, `gs://…`, `az://…`, reached as the archive's object store.
    /// `NotFound` when it is a folder that is not there; reaches no object store yet.
    pub fn open(uri: &StoreUri, objects: &RemoteArchiveConfig) -> Result<Self> {
        let name = uri.to_string();
        match uri {
            StoreUri::Folder(folder) => {
                if !folder.is_dir() {
                    let what = format!("there is no folder {}", folder.display());
                    return Err(StorageError::new(ErrorKind::NotFound, what));
                }
                let store = DurableLocal::new(folder)
                    .map_err(|error| failed("open", &Path::from(name.as_str()), error))?;
                Ok(Self::on(Arc::new(store), Path::default(), name))
            }
            StoreUri::Objects(location) => {
                let (store, folder) = open_remote_store(location, objects)?;
                Ok(Self::on(store, folder, name))
            }
            other => {
                let what = format!("{other} can hold no backups: file:///, s3://, gs:// and az:// can");
                Err(StorageError::new(ErrorKind::Invalid, what))
            }
        }
    }

    /// A place in a store.
    pub fn on(store: Arc<dyn ObjectStore>, folder: Path, name: String) -> Self {
        Self { store, folder, name }
    }

    /// Its URI.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the place an installation's, or finds that it is. `Conflict` when it is another's: the two would remove
    /// each other's objects.
    pub async fn claim(&self, installation: &str) -> Result<()> {
        let path = self.folder.clone().join(OWNER);
        let owner = Owner {
            format: BACKUP_FORMAT,
            installation: installation.to_owned(),
        };
        let text = serde_json::to_vec(&owner)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "claim a place", error))?;
        match self
            .store
            .put_opts(&path, text.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => return Ok(()),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(failed("claim", &path, error)),
        }
        let there: Owner = self.json(&path).await?;
        check_format(there.format, path.as_ref())?;
        if there.installation == installation {
            return Ok(());
        }
        let what = format!(
            "{} holds backups of the installation {}, and this one is {installation}: choose another folder",
            self.name, there.installation
        );
        Err(StorageError::new(ErrorKind::Conflict, what))
    }

    /// Stores an object unless it is there: among `known`, or left lately by a backup that did not end.
    pub async fn put_object(
        &self,
        content: Vec<u8>,
        known: &HashSet<ObjectRef>,
        now: TsMs,
    ) -> Result<PutObject> {
        let object = ObjectRef {
            sha256: hex::encode(Sha256::digest(&content)),
            bytes: content.len() as u64,
        };
        let there = |object| PutObject {
            object,
            is_new: false,
            stored_bytes: 0,
        };
        if known.contains(&object) {
            return Ok(there(object));
        }
        let path = self.object_path(&object);
        match self.store.head(&path).await {
            Ok(found) if now - found.last_modified.timestamp_millis() < FOUND_AGAIN_MS && found.size > 0 => {
                return Ok(there(object));
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(failed("look for", &path, error)),
        }
        let packed = zstd::bulk::compress(&content, ZSTD_LEVEL)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "compress an object", error))?;
        let stored_bytes = packed.len() as u64;
        self.put(&path, packed.into()).await?;
        Ok(PutObject {
            object,
            is_new: true,
            stored_bytes,
        })
    }

    /// An object's content. `NotFound` when it is missing, `Damaged` when it is not what it was; both name it.
    pub async fn object(&self, object: &ObjectRef) -> Result<Vec<u8>> {
        let path = self.object_path(object);
        let packed = self.get(&path).await?;
        let limit = object.bytes.min(OBJECT_BYTES_MAX) + 1;
        let mut content = Vec::new();
        let unpacked = zstd::stream::Decoder::new(&packed[..])
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut content));
        if let Err(error) = unpacked {
            return Err(StorageError::with_source(
                ErrorKind::Damaged,
                format!("backup object {path} cannot be unpacked"),
                error,
            ));
        }
        check_sum(&path, &content, &object.sha256)?;
        Ok(content)
    }

    /// Writes a manifest: from then on there is the backup. `Conflict` when one of its id is there.
    pub async fn put_manifest(&self, manifest: &BackupManifest) -> Result<()> {
        let bug = |error| StorageError::with_source(ErrorKind::Bug, "write a manifest", error);
        let text = serde_json::to_string(manifest).map_err(bug)?;
        let sha256 = hex::encode(Sha256::digest(&text));
        let manifest_text = RawValue::from_string(text).map_err(bug)?;
        let sealed = Sealed {
            sha256,
            manifest: &manifest_text,
        };
        let sealed = serde_json::to_vec(&sealed).map_err(bug)?;
        let path = self.manifest_path(&manifest.id);
        let put = self
            .store
            .put_opts(&path, sealed.clone().into(), PutMode::Create.into())
            .await;
        match put {
            Ok(_) => Ok(()),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                // Perhaps its own, whose answer was lost.
                if self.get(&path).await?[..] == sealed[..] {
                    return Ok(());
                }
                let what = format!("there is a backup {} at {} already", manifest.id, self.name);
                Err(StorageError::new(ErrorKind::Conflict, what))
            }
            Err(error) => Err(failed("write", &path, error)),
        }
    }

    /// Ids of the backups, oldest first.
    pub async fn backups(&self) -> Result<Vec<String>> {
        let listed = self.list(MANIFESTS).await?;
        let ids = listed
            .iter()
            .filter_map(|meta| meta.location.filename()?.strip_suffix(".json"));
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        ids.sort();
        Ok(ids)
    }

    /// A backup by its id. `Damaged` when its manifest is not what was written, `NotFound` when there is none.
    pub async fn backup(&self, id: &str) -> Result<BackupManifest> {
        let path = self.manifest_path(id);
        let bytes = self.get(&path).await?;
        let damaged =
            |error| StorageError::with_source(ErrorKind::Damaged, format!("backup manifest {path}"), error);
        let sealed: Sealed<'_> = serde_json::from_slice(&bytes).map_err(damaged)?;
        let text = sealed.manifest.get();
        check_sum(&path, text.as_bytes(), &sealed.sha256)?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(text).map_err(damaged)?;
        check_format(format, path.as_ref())?;
        serde_json::from_str(text).map_err(damaged)
    }

    /// Removes a manifest: the backup is no more. One that is not there is fine.
    pub async fn remove_backup(&self, id: &str) -> Result<()> {
        self.remove(&self.manifest_path(id)).await
    }

    /// Stores keys of pseudonyms, apart from the objects so that they can be destroyed.
    pub async fn put_keys(
        &self,
        backup: &str,
        number: usize,
        content: Vec<u8>,
        keys: u64,
        destroy_at: TsMs,
    ) -> Result<KeyObject> {
        let path = self.folder.clone().join(KEYS).join(backup);
        let path = path.join(format!("{number}.json"));
        let sha256 = hex::encode(Sha256::digest(&content));
        self.put(&path, content.into()).await?;
        let below = path.prefix_match(&self.folder).into_iter().flatten();
        let below = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>();
        Ok(KeyObject {
            path: below.join("/"),
            sha256,
            keys,
            destroy_at,
        })
    }

    /// Keys of pseudonyms; `None` when they were destroyed.
    pub async fn keys(&self, keys: &KeyObject) -> Result<Option<Bytes>> {
        let path = self.below(&keys.path);
        match self.get(&path).await {
            Ok(content) => {
                check_sum(&path, &content, &keys.sha256)?;
                Ok(Some(content))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Destroys keys of pseudonyms; whether they were there.
    pub async fn destroy_keys(&self, keys: &KeyObject) -> Result<bool> {
        let path = self.below(&keys.path);
        match self.store.head(&path).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed("look for", &path, error)),
        }
        self.remove(&path).await?;
        Ok(true)
    }

    /// Keeps a file of the archive; whether it was not there.
    pub async fn keep_file(
        &self,
        archive: &DeltaArchive,
        tenant: &TenantId,
        file: &CopiedFile,
    ) -> Result<bool> {
        let target = self.file_path(tenant, file);
        archive.keep_elsewhere(tenant, file, &*self.store, &target).await
    }

    /// Brings a file of the archive back to its place. `Damaged` or `NotFound` when the place has it no more as it was.
    pub async fn bring_back(
        &self,
        archive: &DeltaArchive,
        tenant: &TenantId,
        file: &CopiedFile,
    ) -> Result<()> {
        let source = self.file_path(tenant, file);
        archive.bring_back(tenant, file, &self.store, &source).await
    }

    /// Reads a kept file of the archive and compares its hash.
    pub async fn check_file(&self, tenant: &TenantId, file: &CopiedFile) -> Result<()> {
        crate::archive::check_kept(file, &self.store, &self.file_path(tenant, file)).await
    }

    /// Removes objects, keys and files that are not `named` and were written before `older_than`.
    pub async fn sweep(&self, named: &Named, older_than: TsMs) -> Result<Swept> {
        let mut swept = Swept::default();
        for folder in [OBJECTS, KEYS, ARCHIVE] {
            for meta in self.list(folder).await? {
                let is_named = named.paths.contains(meta.location.as_ref());
                if !is_named && meta.last_modified.timestamp_millis() < older_than {
                    self.remove(&meta.location).await?;
                    swept.objects += 1;
                    swept.bytes += meta.size;
                }
            }
        }
        Ok(swept)
    }

    /// Nothing named yet, for [`sweep`](Self::sweep).
    pub fn named(&self) -> Named {
        Named {
            place: self.clone(),
            paths: HashSet::new(),
        }
    }

    /// Bytes at the place by folder.
    pub async fn sizes(&self) -> Result<BTreeMap<&'static str, u64>> {
        let mut sizes = BTreeMap::new();
        for folder in [OBJECTS, ARCHIVE] {
            let listed = self.list(folder).await?;
            sizes.insert(folder, listed.iter().map(|meta| meta.size).sum());
        }
        Ok(sizes)
    }

    fn object_path(&self, object: &ObjectRef) -> Path {
        let folder = object.sha256.get(..2).unwrap_or("00");
        let path = self.folder.clone().join(OBJECTS).join(folder);
        path.join(format!("{}.zst", object.sha256))
    }

    fn manifest_path(&self, id: &str) -> Path {
        self.folder.clone().join(MANIFESTS).join(format!("{id}.json"))
    }

    fn file_path(&self, tenant: &TenantId, file: &CopiedFile) -> Path {
        file.below(&self.folder.clone().join(ARCHIVE), tenant)
    }

    fn below(&self, path: &str) -> Path {
        path.split('/')
            .fold(self.folder.clone(), |path, part| path.join(part))
    }

    async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let folder = self.folder.clone().join(folder);
        let listed = self.store.list(Some(&folder)).try_collect().await;
        match listed {
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            listed => listed.map_err(|error| failed("list", &folder, error)),
        }
    }

    async fn put(&self, path: &Path, content: Bytes) -> Result<()> {
        let put = self.store.put(path, content.into()).await;
        put.map(drop).map_err(|error| failed("write", path, error))
    }

    async fn get(&self, path: &Path) -> Result<Bytes> {
        let read = async { self.store.get(path).await?.bytes().await };
        read.await.map_err(|error| failed("read", path, error))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T> {
        let bytes = self.get(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            StorageError::with_source(ErrorKind::Damaged, format!("backup file {path}"), error)
        })
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", path, error)),
        }
    }
}

impl std::fmt::Debug for BackupPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupPlace")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What remaining backups name at a place.
#[derive(Debug, Clone)]
pub struct Named {
    place: BackupPlace,
    paths: HashSet<String>,
}

impl Named {
    /// An object.
    pub fn object(&mut self, object: &ObjectRef) {
        self.paths.insert(self.place.object_path(object).to_string());
    }

    /// Keys of pseudonyms.
    pub fn keys(&mut self, keys: &KeyObject) {
        self.paths.insert(self.place.below(&keys.path).to_string());
    }

    /// A file of the archive.
    pub fn file(&mut self, tenant: &TenantId, file: &CopiedFile) {
        self.paths.insert(self.place.file_path(tenant, file).to_string());
    }
}

fn check_sum(path: &Path, content: &[u8], sha256: &str) -> Result<()> {
    if hex::encode(Sha256::digest(content)) == sha256 {
        return Ok(());
    }
    let what = format!("backup file {path} is not what was written: its checksum is another");
    Err(StorageError::new(ErrorKind::Damaged, what))
}

fn check_format(format: u32, path: &str) -> Result<()> {
    if format == BACKUP_FORMAT {
        return Ok(());
    }
    let what =
        format!("{path} has the form {format} of backups; this version of Dwell reads {BACKUP_FORMAT}");
    Err(StorageError::new(ErrorKind::Invalid, what))
}

fn failed(doing: &str, path: &Path, error: StoreError) -> StorageError {
    let kind = match &error {
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        StoreError::InvalidPath { .. } | StoreError::NotSupported { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} backup file {path}"), error)
}
