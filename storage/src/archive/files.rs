//! Data files on an object store, read and written from threads that may block.
//!
//! Local files take a shorter way than the object store's: written in place (nobody sees a file that no log names),
//! made durable together with the folders that lead to it, and read by position. Any other store is asked through its
//! runtime.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path as StorePath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use super::reader::{FileBytes, unreadable};
use crate::error::{ErrorKind, Result, StorageError, is_full};

/// Bytes of a part of an upload: stores want 5 MiB at least, and all but the last of one size.
const UPLOAD_PART_BYTES: usize = 8 << 20;

/// Where data files are.
#[derive(Debug, Clone)]
pub(super) struct DataFiles {
    store: Arc<dyn ObjectStore>,
    /// The folder that the store's root stands for, when it is a local one.
    local: Option<PathBuf>,
}

/// A data file being written. Nothing may rely on it before [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct FileSink {
    to: SinkTo,
    name: StorePath,
    bytes: u64,
}

#[derive(Debug)]
enum SinkTo {
    Local {
        file: File,
        dirs: Vec<PathBuf>,
    },
    Store {
        store: Arc<dyn ObjectStore>,
        runtime: Handle,
        held: Vec<u8>,
        upload: Option<PartedUpload>,
    },
}

/// An upload in parts, given up when it is dropped unfinished: stores keep, and bill, parts that belong to nothing.
#[derive(Debug)]
struct PartedUpload {
    upload: Box<dyn MultipartUpload>,
    runtime: Handle,
    is_finished: bool,
}

impl DataFiles {
    /// Files of a store whose root is a local folder, or of any store.
    pub(super) fn new(store: Arc<dyn ObjectStore>, local: Option<PathBuf>) -> Self {
        Self { store, local }
    }

    /// Starts a new file. Blocking; `runtime` is needed where the store is not local.
    pub(super) fn create(&self, name: &StorePath, runtime: &Handle) -> Result<FileSink> {
        let to = match self.local_path(name) {
            Some(path) => {
                let failed = |error| failed("make", name, error);
                let dirs = create_dirs(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
                let file = File::options()
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .map_err(failed)?;
                SinkTo::Local { file, dirs }
            }
            None => SinkTo::Store {
                store: Arc::clone(&self.store),
                runtime: runtime.clone(),
                held: Vec::new(),
                upload: None,
            },
        };
        Ok(FileSink {
            to,
            name: name.clone(),
            bytes: 0,
        })
    }

    /// Opens a file for reading. Blocking.
    pub(super) fn open(&self, name: &StorePath, runtime: &Handle) -> Result<Box<dyn FileBytes>> {
        match self.local_path(name) {
            Some(path) => {
                let open = || {
                    let file = File::open(&path)?;
                    let length = file.metadata()?.len();
                    Ok((file, length))
                };
                let (file, length) = open().map_err(|error| unreadable(name.as_ref(), error))?;
                Ok(Box::new(LocalBytes {
                    file: Mutex::new(file),
                    length,
                    name: name.clone(),
                }))
            }
            None => {
                let store = Arc::clone(&self.store);
                let head = runtime
                    .block_on(store.head(name))
                    .map_err(|error| store_failed("open", name, error))?;
                Ok(Box::new(StoreBytes {
                    store,
                    runtime: runtime.clone(),
                    length: head.size,
                    name: name.clone(),
                }))
            }
        }
    }

    /// Removes a file; one that is not there is fine.
    pub(super) async fn remove(&self, name: &StorePath) -> Result<()> {
        match self.store.delete(name).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_failed("remove", name, error)),
        }
    }

    /// Removes a file from a thread that may block.
    pub(super) fn remove_blocking(&self, name: &StorePath, runtime: &Handle) -> Result<()> {
        runtime.block_on(self.remove(name))
    }

    fn local_path(&self, name: &StorePath) -> Option<PathBuf> {
        let mut path = self.local.clone()?;
        // Names are built from checked ids and our own words, so no part is `..` or needs escaping.
        path.extend(name.parts().map(|part| part.as_ref().to_owned()));
        Some(path)
    }
}

impl FileSink {
    /// Makes the file durable, and the folders that lead to it; tells its size.
    pub(super) fn finish(self) -> Result<u64> {
        let Self { to, name, bytes } = self;
        match to {
            SinkTo::Local { file, dirs } => {
                let sync = || {
                    file.sync_all()?;
                    dirs.iter().try_for_each(|dir| sync_dir(dir))
                };
                sync().map_err(|error| failed("make durable", &name, error))?;
            }
            SinkTo::Store {
                store,
                runtime,
                held,
                upload,
            } => {
                let put = match upload {
                    None => runtime.block_on(store.put(&name, held.into())).map(|_| ()),
                    Some(upload) => upload.finish(held),
                };
                put.map_err(|error| store_failed("write", &name, error))?;
            }
        }
        Ok(bytes)
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            SinkTo::Local { file, .. } => file.write(bytes)?,
            SinkTo::Store {
                store,
                runtime,
                held,
                upload,
            } => {
                let taken = bytes.len().min(UPLOAD_PART_BYTES - held.len());
                held.extend_from_slice(&bytes[..taken]);
                if held.len() == UPLOAD_PART_BYTES {
                    let part = std::mem::take(held);
                    let upload = match upload {
                        Some(upload) => upload,
                        None => upload.insert(PartedUpload::begin(&**store, &self.name, runtime)?),
                    };
                    upload.put(part).map_err(io::Error::other)?;
                }
                taken
            }
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartedUpload {
    fn begin(store: &dyn ObjectStore, name: &StorePath, runtime: &Handle) -> io::Result<Self> {
        let upload = runtime.block_on(store.put_multipart(name));
        Ok(Self {
            upload: upload.map_err(io::Error::other)?,
            runtime: runtime.clone(),
            is_finished: false,
        })
    }

    fn put(&mut self, part: Vec<u8>) -> object_store::Result<()> {
        self.runtime.block_on(self.upload.put_part(part.into()))
    }

    fn finish(mut self, last: Vec<u8>) -> object_store::Result<()> {
        if !last.is_empty() {
            self.put(last)?;
        }
        self.runtime.block_on(self.upload.complete())?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for PartedUpload {
    /// Blocking, as all of a sink.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if let Err(error) = self.runtime.block_on(self.upload.abort()) {
            tracing::warn!(%error, "an unfinished upload was not given up: its parts stay on the store");
        }
    }
}

/// Makes a folder durable: the names in it.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and its entries need no flush of their own.
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

/// Makes a folder with those above it; returns all whose entries must be made durable.
pub(super) fn create_dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut changed = vec![dir.to_owned()];
    let mut missing = dir;
    while !missing.exists() {
        let Some(parent) = missing.parent() else { break };
        changed.push(parent.to_owned());
        missing = parent;
    }
    fs::create_dir_all(dir)?;
    Ok(changed)
}

struct LocalBytes {
    file: Mutex<File>,
    length: u64,
    name: StorePath,
}

impl FileBytes for LocalBytes {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = || {
            file.seek(SeekFrom::Start(range.start))?;
            let wanted = range.end - range.start;
            if Read::by_ref(&mut *file).take(wanted).read_to_end(&mut bytes)? as u64 == wanted {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        read().map_err(|error| unreadable(self.name(), error))?;
        Ok(bytes.into())
    }

    fn name(&self) -> &str {
        self.name.as_ref()
    }
}

struct StoreBytes {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    length: u64,
    name: StorePath,
}

impl FileBytes for StoreBytes {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let read = self.store.get_range(&self.name, range);
        self.runtime
            .block_on(read)
            .map_err(|error| store_failed("read", &self.name, error))
    }

    fn name(&self) -> &str {
        self.name.as_ref()
    }
}

fn failed(doing: &str, name: &StorePath, error: io::Error) -> StorageError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} archive file {name}"), error)
}

/// An object store's failure as ours.
pub(super) fn store_failed(doing: &str, name: &StorePath, error: object_store::Error) -> StorageError {
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            ErrorKind::Conflict
        }
        object_store::Error::InvalidPath { .. } | object_store::Error::NotSupported { .. } => {
            ErrorKind::Invalid
        }
        other if is_full(other) => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} archive file {name}"), error)
}
