//! A place for whole files: a folder, or a folder of an object store.
//!
//! A file appears under its name when all of it is there, in place of the one before; a reader sees the one or the other.

use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dwell_runtime::tasks::{BlockingError, blocking};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};

use crate::archive::{RemoteArchiveConfig, open_remote_store};
use crate::error::{ErrorKind, Result, StorageError};
use crate::resolver::StoreUri;

/// Files up to this size are sent at once, longer ones in parts of it.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// A place for whole files.
#[derive(Debug, Clone)]
pub struct FilePlace {
    at: At,
    name: String,
}

#[derive(Debug, Clone)]
enum At {
    Folder(PathBuf),
    Objects {
        store: Arc<dyn ObjectStore>,
        folder: Path,
    },
}

/// A file at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl FilePlace {
    /// The place that a URI names: `file:///…`, `s3://…`, `gs://…`, `az://…`, reached as the archive's object store.
    /// `Invalid` for other URIs. Makes a folder that is not there; reaches no object store yet.
    pub fn make(uri: &StoreUri, objects: &RemoteArchiveConfig) -> Result<Self> {
        let name = uri.to_string();
        let at = match uri {
            StoreUri::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| failed_io("make", &name, error))?;
                At::Folder(folder.clone())
            }
            StoreUri::Objects(location) => {
                let (store, folder) = open_remote_store(location, objects)?;
                At::Objects { store, folder }
            }
            other => {
                let what = format!("{other} can hold no files: file:///, s3://, gs:// and az:// can");
                return Err(StorageError::new(ErrorKind::Invalid, what));
            }
        };
        Ok(Self { at, name })
    }

    /// Its URI.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Copies a file of this machine to `name` (names of folders and a file, with slashes between).
    pub async fn put_file(&self, name: &str, from: &FilePath) -> Result<PlacedFile> {
        match &self.at {
            At::Folder(folder) => {
                let (to, from) = (folder.join(name), from.to_owned());
                let doing = name.to_owned();
                blocking("file_place.put", move || {
                    let mut file =
                        std::fs::File::open(&from).map_err(|error| failed_io("read", &doing, error))?;
                    write_whole(&to, &mut file).map_err(|error| failed_io("write", &doing, error))
                })
                .await
                .map_err(lost)?
            }
            At::Objects { store, folder } => {
                let path = under(folder, name);
                upload(store.as_ref(), &path, from.to_owned()).await
            }
        }
    }

    /// Writes a short file.
    pub async fn put(&self, name: &str, content: Vec<u8>) -> Result<()> {
        match &self.at {
            At::Folder(folder) => {
                let (to, doing) = (folder.join(name), name.to_owned());
                blocking("file_place.put", move || {
                    let written = write_whole(&to, &mut content.as_slice());
                    written
                        .map(drop)
                        .map_err(|error| failed_io("write", &doing, error))
                })
                .await
                .map_err(lost)?
            }
            At::Objects { store, folder } => {
                let path = under(folder, name);
                let put = store.put(&path, content.into()).await;
                put.map(drop).map_err(|error| failed("write", &path, error))
            }
        }
    }

    /// A short file's content; `None` when it is not there.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        match &self.at {
            At::Folder(folder) => {
                let (at, doing) = (folder.join(name), name.to_owned());
                blocking("file_place.get", move || match std::fs::read(at) {
                    Ok(content) => Ok(Some(Bytes::from(content))),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed_io("read", &doing, error)),
                })
                .await
                .map_err(lost)?
            }
            At::Objects { store, folder } => {
                let path = under(folder, name);
                let read = async { store.get(&path).await?.bytes().await };
                match read.await {
                    Ok(content) => Ok(Some(content)),
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(failed("read", &path, error)),
                }
            }
        }
    }
}

fn under(folder: &Path, name: &str) -> Path {
    name.split('/').fold(folder.clone(), |path, part| path.join(part))
}

/// Sends a file to a store: at once, or in parts while the next is read.
async fn upload(store: &dyn ObjectStore, path: &Path, from: PathBuf) -> Result<PlacedFile> {
    let failed = |error| failed("write", path, error);
    let mut parts = Parts::open(from, path)?;
    let first = parts.next().await?;
    if first.len() < PART_BYTES {
        store.put(path, first.into()).await.map_err(failed)?;
        return Ok(parts.read_so_far());
    }
    let mut writing =
        WriteMultipart::new_with_chunk_size(store.put_multipart(path).await.map_err(failed)?, PART_BYTES);
    let mut part = first;
    while !part.is_empty() {
        writing.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
        writing.put(part.into());
        part = match parts.next().await {
            Ok(part) => part,
            Err(error) => {
                // What was sent so far costs until it is taken back.
                if let Err(error) = writing.abort().await {
                    tracing::warn!(%path, %error, "an upload that failed was not taken back");
                }
                return Err(error);
            }
        };
    }
    writing.finish().await.map_err(failed)?;
    Ok(parts.read_so_far())
}

/// A file of this machine, read part by part.
struct Parts {
    file: Option<std::fs::File>,
    hash: Sha256,
    bytes: u64,
    name: String,
}

impl Parts {
    fn open(from: PathBuf, path: &Path) -> Result<Self> {
        let name = path.to_string();
        let file = std::fs::File::open(from).map_err(|error| failed_io("read", &name, error))?;
        Ok(Self {
            file: Some(file),
            hash: Sha256::new(),
            bytes: 0,
            name,
        })
    }

    /// The next part; empty at the end.
    async fn next(&mut self) -> Result<Vec<u8>> {
        let Some(mut file) = self.file.take() else {
            return Ok(Vec::new());
        };
        let (file, read) = blocking("file_place.read", move || {
            let mut part = Vec::new();
            let read = Read::take(&mut file, PART_BYTES as u64).read_to_end(&mut part);
            (file, read.map(|_| part))
        })
        .await
        .map_err(lost)?;
        let part = read.map_err(|error| failed_io("read", &self.name, error))?;
        self.hash.update(&part);
        self.bytes += part.len() as u64;
        self.file = Some(file);
        Ok(part)
    }

    fn read_so_far(self) -> PlacedFile {
        PlacedFile {
            bytes: self.bytes,
            sha256: hex::encode(self.hash.finalize()),
        }
    }
}

/// Writes beside the name, durably, then gives the name.
fn write_whole(to: &FilePath, from: &mut dyn Read) -> std::io::Result<PlacedFile> {
    let folder = to.parent().unwrap_or(FilePath::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    let unfinished = to.with_file_name(name);
    let mut file = std::fs::File::create(&unfinished)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut part = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut part)?;
        if read == 0 {
            break;
        }
        hash.update(&part[..read]);
        bytes += read as u64;
        std::io::Write::write_all(&mut file, &part[..read])?;
    }
    file.sync_all()?;
    std::fs::rename(&unfinished, to)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(PlacedFile {
        bytes,
        sha256: hex::encode(hash.finalize()),
    })
}

fn failed(doing: &str, path: &Path, error: StoreError) -> StorageError {
    let kind = match &error {
        StoreError::InvalidPath { .. } | StoreError::NotSupported { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} the file {path}"), error)
}

fn lost(error: BlockingError) -> StorageError {
    StorageError::with_source(ErrorKind::Bug, "read or write a file", error)
}

fn failed_io(doing: &str, name: &str, error: std::io::Error) -> StorageError {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorKind::Full,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} the file {name}"), error)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn places() -> (tempfile::TempDir, [FilePlace; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let uri = StoreUri::Folder(folder.path().join("new"));
        let objects = At::Objects {
            store: Arc::new(InMemory::new()),
            folder: Path::from("exports"),
        };
        let of_folder = FilePlace::make(&uri, &RemoteArchiveConfig::default()).unwrap();
        let of_store = FilePlace {
            at: objects,
            name: "memory".to_owned(),
        };
        (folder, [of_folder, of_store])
    }

    #[tokio::test]
    async fn a_file_comes_back_as_it_was_put_and_the_last_one_stands() {
        let (scratch, places) = places();
        let from = scratch.path().join("from");
        for place in places {
            assert_eq!(place.get("day=1/a.txt").await.unwrap(), None);
            // Longer than two parts, and not a whole number of them.
            for content in [
                vec![7_u8; 2 * PART_BYTES + 5],
                vec![8; PART_BYTES],
                b"short".to_vec(),
                Vec::new(),
            ] {
                std::fs::write(&from, &content).unwrap();
                let placed = place.put_file("day=1/a.txt", &from).await.unwrap();
                assert_eq!(placed.bytes, content.len() as u64);
                assert_eq!(place.get("day=1/a.txt").await.unwrap().unwrap(), content);
            }
            let of_nothing = place.put_file("day=1/a.txt", &from).await.unwrap();
            // What sha256sum gives of an empty file, and of "abc".
            assert_eq!(
                of_nothing.sha256,
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            );
            std::fs::write(&from, "abc").unwrap();
            assert_eq!(
                place.put_file("b", &from).await.unwrap().sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            );
            place.put("b", b"other".to_vec()).await.unwrap();
            assert_eq!(place.get("b").await.unwrap().unwrap(), "other");
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_changes_nothing_at_the_place() {
        let (scratch, places) = places();
        for place in places {
            place.put("a", b"stands".to_vec()).await.unwrap();
            assert!(place.put_file("a", &scratch.path().join("none")).await.is_err());
            assert_eq!(place.get("a").await.unwrap().unwrap(), "stands");
        }
    }

    #[test]
    fn what_can_hold_no_files_is_refused() {
        let uri: StoreUri = "kafka://127.0.0.1:9092/dwell".parse().unwrap();
        let refused = FilePlace::make(&uri, &RemoteArchiveConfig::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}
