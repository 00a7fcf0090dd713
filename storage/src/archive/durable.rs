//! A local folder as an object store that survives a power cut.
//!
//! `object_store`'s own local store does not flush. The Delta log lives by the rule that a commit, once seen, stays and
//! is whole, so here a put writes beside its place, flushes, moves, and flushes the folder. Listings are sorted, as those
//! of the clouds are and as the Delta reader expects of any store that is not `file:`.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use dwell_runtime::tasks::blocking;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};

use super::files::{create_dirs, sync_dir};

type Result<T> = std::result::Result<T, object_store::Error>;

/// Name of this store in errors.
const STORE: &str = "DurableLocal";

/// A folder whose puts are durable.
#[derive(Debug, Clone)]
pub(crate) struct DurableLocal {
    files: std::sync::Arc<LocalFileSystem>,
}

impl DurableLocal {
    /// The store of a folder, which must be there.
    pub(crate) fn new(root: &std::path::Path) -> Result<Self> {
        Ok(Self {
            files: std::sync::Arc::new(LocalFileSystem::new_with_prefix(root)?),
        })
    }

    async fn put_durably(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        let name = location.to_string();
        let put = move || match write_durably(&path, &payload, &mode) {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists {
                    path: name,
                    source: source.into(),
                })
            }
            Err(source) => Err(failed(source)),
        };
        blocking("archive put", put).await.map_err(failed)?
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: STORE,
        source: source.into(),
    }
}

fn write_durably(path: &std::path::Path, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let dirs = create_dirs(parent)?;
    // `object_store` leaves names that end in # and digits out of its listings.
    let random = getrandom::u64().map_err(io::Error::other)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!("#{random}"));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::options().write(true).create_new(true).open(&beside)?;
        payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()?;
        match mode {
            PutMode::Overwrite => fs::rename(&beside, path),
            PutMode::Create => fs::hard_link(&beside, path),
            PutMode::Update(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    let written = write();
    if written.is_err() || matches!(mode, PutMode::Create) {
        let _ = fs::remove_file(&beside);
    }
    written?;
    dirs.iter().try_for_each(|dir| sync_dir(dir))
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put_durably(location, payload, options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(HeldUpload {
            store: self.clone(),
            location: location.clone(),
            parts: Vec::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.files.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.files.list_with_delimiter(prefix).await?;
        listed.common_prefixes.sort();
        listed.objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.files)
    }
}

fn sorted(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let all = async move {
        let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, object_store::Error>(stream::iter(all.into_iter().map(Ok)))
    };
    stream::once(all).try_flatten().boxed()
}

/// An upload in parts (only large checkpoints of the log come so), held until it is complete.
#[derive(Debug)]
struct HeldUpload {
    store: DurableLocal,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for HeldUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = std::mem::take(&mut self.parts).into_iter().collect();
        self.store
            .put_durably(&self.location, payload, PutMode::Overwrite)
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn create() -> PutOptions {
        PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        }
    }

    #[tokio::test]
    async fn creating_what_is_there_is_refused_and_overwriting_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::new(dir.path()).unwrap();
        let path = Path::from("t/_delta_log/0.json");
        store.put_opts(&path, "one".into(), create()).await.unwrap();
        let again = store.put_opts(&path, "two".into(), create()).await;
        assert!(
            matches!(again, Err(object_store::Error::AlreadyExists { .. })),
            "{again:?}"
        );
        let read = || async { store.get(&path).await.unwrap().bytes().await.unwrap() };
        assert_eq!(read().await, "one");
        store.put(&path, "three".into()).await.unwrap();
        assert_eq!(read().await, "three");
        let left: Vec<_> = fs::read_dir(dir.path().join("t/_delta_log")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn listings_are_sorted_and_uploads_in_parts_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::new(dir.path()).unwrap();
        for name in ["c", "a", "d", "b"] {
            store
                .put(&Path::from(format!("t/{name}")), name.into())
                .await
                .unwrap();
        }
        let mut upload = store.put_multipart(&Path::from("t/e")).await.unwrap();
        upload.put_part("12".into()).await.unwrap();
        upload.put_part("34".into()).await.unwrap();
        upload.complete().await.unwrap();
        let names = |listed: Vec<ObjectMeta>| {
            listed
                .into_iter()
                .map(|meta| meta.location.filename().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let prefix = Path::from("t");
        let all = store.list(Some(&prefix)).try_collect().await.unwrap();
        assert_eq!(names(all), ["a", "b", "c", "d", "e"]);
        let after = store
            .list_with_offset(Some(&prefix), &Path::from("t/b"))
            .try_collect()
            .await
            .unwrap();
        assert_eq!(names(after), ["c", "d", "e"]);
        let whole = store
            .get(&Path::from("t/e"))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(whole, "1234");
    }
}
