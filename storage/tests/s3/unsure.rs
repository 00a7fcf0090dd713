//! A store behind a bad network: answers that are lost, puts that arrive late; and one that does not honour conditions.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dwell_storage::api::{ArchiveReader, ArchiveWriter, Committed};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::conformance::samples::{day, shop};
use dwell_storage::error::ErrorKind;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::writers::{AllHeld, DAY, rows, stage};
use super::{clear, clock, stores};

/// What happens to the next commit's put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is done, and the answer is lost.
    Unanswered,
    /// Its sender gives it up, and it arrives when it is let go.
    Late,
}

#[derive(Debug)]
struct Unsure {
    inner: Arc<dyn ObjectStore>,
    fate: Mutex<Option<Fate>>,
    late: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
    ignores_conditions: bool,
}

impl Unsure {
    fn new(inner: &Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            fate: Mutex::default(),
            late: Mutex::default(),
            ignores_conditions: false,
        })
    }

    fn next_commit(&self, fate: Fate) {
        *self.fate.lock().unwrap() = Some(fate);
    }

    /// Lets what was late arrive; tells how many of them were taken.
    async fn let_go(&self) -> usize {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        let mut taken = 0;
        for (path, payload, options) in late {
            match self.inner.put_opts(&path, payload, options).await {
                Ok(_) => taken += 1,
                Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        taken
    }
}

impl std::fmt::Display for Unsure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unsure({})", self.inner)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic {
        store: "Unsure",
        source: "the connection broke".into(),
    }
}

#[async_trait]
impl ObjectStore for Unsure {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let is_commit = matches!(options.mode, PutMode::Create);
        let fate = if is_commit {
            self.fate.lock().unwrap().take()
        } else {
            None
        };
        match fate {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fate::Unanswered) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(lost())
            }
            Some(Fate::Late) => {
                let mut late = self.late.lock().unwrap();
                late.push((location.clone(), payload, options));
                Err(lost())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn archive(store: &Arc<Unsure>) -> DeltaArchive {
    DeltaArchive::new(
        Arc::clone(store) as Arc<dyn ObjectStore>,
        Path::default(),
        clock(),
    )
}

/// Entries of all logs.
async fn commits(store: &Arc<dyn ObjectStore>) -> usize {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let is_commit = |object: &&ObjectMeta| object.location.as_ref().ends_with(".json");
    listed.iter().filter(is_commit).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_not_applied_twice() {
    let (stores, bucket) = stores();
    for store in stores {
        let unsure = Unsure::new(&store);
        let archive = archive(&unsure);
        let first = stage(&archive, rows("t1", 0, 10), 1).await;
        archive.commit(vec![first], &AllHeld).await.unwrap();
        let before = commits(&store).await;

        let staged = stage(&archive, rows("t2", 0, 10), 2).await;
        unsure.next_commit(Fate::Unanswered);
        let error = archive.commit(vec![staged.clone()], &AllHeld).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let again = archive.commit(vec![staged.clone()], &AllHeld).await.unwrap();
        assert_eq!(again, [Committed::Yes]);
        // A worker that starts anew, with nothing in memory.
        let other = DeltaArchive::new(Arc::clone(&store), Path::default(), clock());
        assert_eq!(
            other.commit(vec![staged], &AllHeld).await.unwrap(),
            [Committed::Yes]
        );
        assert_eq!(commits(&store).await, before + 1);
        let held = archive
            .day(&shop(), rows("t1", 0, 1).events.kind, day(DAY))
            .await
            .unwrap();
        assert_eq!(held.events[0].rows, 20);
        archive.verify(&shop(), &held).await.unwrap();
    }
    clear(bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_making_was_not_answered_is_made_once() {
    let (stores, bucket) = stores();
    for store in stores {
        let unsure = Unsure::new(&store);
        let archive = archive(&unsure);
        let staged = stage(&archive, rows("t1", 0, 10), 1).await;
        unsure.next_commit(Fate::Unanswered);
        archive.commit(vec![staged.clone()], &AllHeld).await.unwrap_err();
        assert_eq!(
            archive.commit(vec![staged], &AllHeld).await.unwrap(),
            [Committed::Yes]
        );
        assert_eq!(commits(&store).await, 2, "the table, and the day");
    }
    clear(bucket).await;
}

/// The worst order: the files of a commit that seemed to fail are removed, and then the commit arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_its_files_were_discarded_is_too_late() {
    let (stores, bucket) = stores();
    for store in stores {
        let unsure = Unsure::new(&store);
        let archive = archive(&unsure);
        let first = stage(&archive, rows("t1", 0, 10), 1).await;
        archive.commit(vec![first], &AllHeld).await.unwrap();

        let staged = stage(&archive, rows("t2", 0, 10), 2).await;
        unsure.next_commit(Fate::Late);
        archive.commit(vec![staged.clone()], &AllHeld).await.unwrap_err();
        archive.discard(vec![staged]).await.unwrap();
        assert_eq!(unsure.let_go().await, 0, "its place is taken");
        let other = DeltaArchive::new(Arc::clone(&store), Path::default(), clock());
        let held = other
            .day(&shop(), rows("t1", 0, 1).events.kind, day(DAY))
            .await
            .unwrap();
        assert_eq!(held.events[0].rows, 10);
        other.verify(&shop(), &held).await.unwrap();
    }
    clear(bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_late_and_is_tried_again_is_applied_once() {
    let (stores, bucket) = stores();
    for store in stores {
        let unsure = Unsure::new(&store);
        let archive = archive(&unsure);
        let first = stage(&archive, rows("t1", 0, 10), 1).await;
        archive.commit(vec![first], &AllHeld).await.unwrap();
        for arrives_before in [true, false] {
            let track = if arrives_before { "t2" } else { "t3" };
            let before = commits(&store).await;
            let staged = stage(&archive, rows(track, 0, 10), 2).await;
            unsure.next_commit(Fate::Late);
            archive.commit(vec![staged.clone()], &AllHeld).await.unwrap_err();
            if arrives_before {
                assert_eq!(unsure.let_go().await, 1);
            }
            assert_eq!(
                archive.commit(vec![staged], &AllHeld).await.unwrap(),
                [Committed::Yes]
            );
            assert_eq!(unsure.let_go().await, 0);
            assert_eq!(commits(&store).await, before + 1);
        }
        let held = archive
            .day(&shop(), rows("t1", 0, 1).events.kind, day(DAY))
            .await
            .unwrap();
        assert_eq!(held.events[0].rows, 30);
    }
    clear(bucket).await;
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out() {
    let inner: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let careless = Arc::new(Unsure {
        inner,
        fate: Mutex::default(),
        late: Mutex::default(),
        ignores_conditions: true,
    });
    let findings = archive(&careless).inspect().await;
    assert_eq!(findings.len(), 3);
    assert_eq!(findings[2].about, "conditional put");
    assert!(findings[2].remedy.as_ref().unwrap().contains("If-None-Match"));
}
