//! The archive on an S3 server, and what only happens over a network: many writers at once, answers that are lost, puts
//! that arrive late.
//!
//! `DWELL_TEST_S3` names the server (`deploy/local/up` starts one), `DWELL_TEST_S3_BUCKET` a bucket in it (default
//! `dwell`); the key comes from `AWS_…`. Without it the tests of a server say that they are skipped; the others run in
//! memory as well. Everything lies below a folder of its own, which is removed at the end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code outside of test functions, which says what it skips"
)]

mod unsure;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dwell_runtime::clock::{SharedClock, SystemClock};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::ArchiveReader;
use dwell_storage::archive::{ArchiveFinding, DeltaArchive, RemoteArchiveConfig, open_remote_archive};
use dwell_storage::backup::BackupPlace;
use dwell_storage::conformance::archive::{ArchiveUnderTest, suite};
use dwell_storage::conformance::backup_place::{self, PlaceUnderTest};
use dwell_storage::conformance::erasures;
use dwell_storage::conformance::samples::{DAY_START, shop};
use dwell_storage::resolver::StoreUri;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

/// A folder of a bucket.
struct Bucket {
    endpoint: String,
    bucket: String,
    folder: String,
    /// The bucket itself.
    store: Arc<dyn ObjectStore>,
    opened: AtomicU32,
}

impl Bucket {
    /// A new folder on the server; `None` without one.
    fn new() -> Option<Self> {
        let Ok(endpoint) = std::env::var("DWELL_TEST_S3") else {
            eprintln!("skipped: DWELL_TEST_S3 names no server");
            return None;
        };
        let bucket = std::env::var("DWELL_TEST_S3_BUCKET").unwrap_or_else(|_| "dwell".into());
        let random = getrandom::u64().unwrap();
        let store = AmazonS3Builder::from_env()
            .with_endpoint(&endpoint)
            .with_allow_http(true)
            .with_bucket_name(&bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .unwrap();
        Some(Self {
            endpoint,
            bucket,
            folder: format!("test-{random:016x}"),
            store: Arc::new(store),
            opened: AtomicU32::new(0),
        })
    }

    fn config(&self) -> RemoteArchiveConfig {
        RemoteArchiveConfig {
            endpoint: Some(self.endpoint.clone()),
            ..RemoteArchiveConfig::default()
        }
    }

    /// An archive in a folder below.
    fn archive(&self, name: &str) -> DeltaArchive {
        let location: Url = format!("s3://{}/{}/{name}", self.bucket, self.folder)
            .parse()
            .unwrap();
        open_remote_archive(&location, &self.config(), clock()).unwrap()
    }

    /// The store of such a folder.
    fn below(&self, name: &str) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(
            Arc::clone(&self.store),
            format!("{}/{name}", self.folder),
        ))
    }

    fn next(&self) -> String {
        self.opened.fetch_add(1, Ordering::Relaxed).to_string()
    }

    async fn remove(self) {
        let prefix = Path::from(self.folder.as_str());
        let listed: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.unwrap();
        let names = futures::stream::iter(listed.into_iter().map(|object| Ok(object.location)));
        let removed: Vec<_> = self
            .store
            .delete_stream(names.boxed())
            .try_collect()
            .await
            .unwrap();
        drop(removed);
    }
}

fn clock() -> SharedClock {
    SystemClock::shared()
}

/// The stores that a case runs on: memory, and a server where there is one.
fn stores() -> (Vec<Arc<dyn ObjectStore>>, Option<Bucket>) {
    let mut stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(InMemory::new())];
    let bucket = Bucket::new();
    stores.extend(bucket.as_ref().map(|bucket| bucket.below("case")));
    (stores, bucket)
}

async fn clear(bucket: Option<Bucket>) {
    if let Some(bucket) = bucket {
        bucket.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_on_s3_keeps_its_promises() {
    let Some(bucket) = Bucket::new() else { return };
    suite(|| async {
        let name = bucket.next();
        ArchiveUnderTest {
            archive: Arc::new(bucket.archive(&name)),
            other: Arc::new(bucket.archive(&name)),
            store: bucket.below(&name),
        }
    })
    .await;
    bucket.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_erasures_on_s3_keeps_its_promises() {
    let Some(bucket) = Bucket::new() else { return };
    erasures::suite(|| async {
        let name = bucket.next();
        erasures::LedgerUnderTest {
            ledger: bucket.archive(&name).erasures(),
            other: bucket.archive(&name).erasures(),
        }
    })
    .await;
    bucket.remove().await;
}

/// Every day goes through the road of days that are larger than memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_on_s3_that_holds_few_rows_at_once_keeps_its_promises() {
    let Some(bucket) = Bucket::new() else { return };
    suite(|| async {
        let name = bucket.next();
        ArchiveUnderTest {
            archive: Arc::new(bucket.archive(&name).with_stretch_rows(1)),
            other: Arc::new(bucket.archive(&name).with_stretch_rows(1)),
            store: bucket.below(&name),
        }
    })
    .await;
    bucket.remove().await;
}

#[tokio::test]
async fn a_server_that_can_hold_an_archive_is_found_well_and_nothing_is_left_of_the_check() {
    let Some(bucket) = Bucket::new() else { return };
    let findings = bucket.archive("checked").inspect().await;
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings.iter().all(ArchiveFinding::is_ok), "{findings:?}");
    let left: Vec<_> = bucket.below("checked").list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    bucket.remove().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_named_with_what_to_do() {
    let Some(bucket) = Bucket::new() else { return };
    let inspect = async |location: &str, config: RemoteArchiveConfig| {
        let archive = open_remote_archive(&location.parse().unwrap(), &config, clock()).unwrap();
        let findings = archive.inspect().await;
        assert_eq!(findings.len(), 1, "the rest is not looked at: {findings:?}");
        findings[0].remedy.clone().unwrap()
    };
    let remedy = inspect("s3://there-is-no-such-bucket/a", bucket.config()).await;
    assert_eq!(remedy, "make the bucket or folder");
    let wrong_key = RemoteArchiveConfig {
        access_key_id: Some("nobody".into()),
        secret_access_key: Some("wrong".into()),
        region: Some("us-east-1".into()),
        ..bucket.config()
    };
    let remedy = inspect(&format!("s3://{}/a", bucket.bucket), wrong_key).await;
    assert!(remedy.starts_with("correct the key"), "{remedy}");
    let nobody_there = RemoteArchiveConfig {
        endpoint: Some("http://127.0.0.1:9".into()),
        retry_ms: 300,
        ..bucket.config()
    };
    let remedy = inspect(&format!("s3://{}/a", bucket.bucket), nobody_there).await;
    assert!(remedy.starts_with("look whether the store is up"), "{remedy}");
}

/// `DWELL_TEST_PYTHON` names a Python that has deltalake and DuckDB; without it this is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn other_readers_find_the_same_rows_through_the_tables_log() {
    let (Some(bucket), Ok(python)) = (Bucket::new(), std::env::var("DWELL_TEST_PYTHON")) else {
        eprintln!("skipped: DWELL_TEST_S3 or DWELL_TEST_PYTHON is not set");
        return;
    };
    let archive = bucket.archive("read");
    // The second commit replaces the file of the first: who globs the folder would count its rows twice.
    writers::put(&archive, writers::rows("t1", 0, 10)).await;
    writers::put(&archive, writers::rows("t2", 100, 5)).await;
    let seconds: i64 = (0..10).chain(100..105).sum();
    let expected = format!("15 {} 2", 15 * DAY_START + seconds * 1_000);
    let table = format!(
        "s3://{}/{}/read/{}/position",
        bucket.bucket,
        bucket.folder,
        shop().tenant
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/read_back.py");
    let endpoint = bucket.endpoint.clone();
    let run = move || {
        std::process::Command::new(python)
            .args([script, &endpoint, &table])
            .output()
            .unwrap()
    };
    let output = blocking("python", run).await.unwrap();
    let (told, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [format!("deltalake {expected}"), format!("duckdb {expected}")],
        "{errors}"
    );
    bucket.remove().await;
}

/// A file of several parts.
#[tokio::test(flavor = "multi_thread")]
async fn large_files_go_up_in_parts() {
    let Some(bucket) = Bucket::new() else { return };
    let archive = bucket.archive("large");
    let rows = writers::large_day();
    let held = writers::put(&archive, rows).await;
    assert!(
        held.events[0].bytes > 16 << 20,
        "three parts at least: {}",
        held.events[0].bytes
    );
    archive.verify(&shop(), &held).await.unwrap();
    bucket.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_for_backups_on_a_server_keeps_its_promises() {
    let Some(bucket) = Bucket::new() else { return };
    backup_place::suite(|| async {
        let name = bucket.next();
        let location: Url = format!("s3://{}/{}/{name}", bucket.bucket, bucket.folder)
            .parse()
            .unwrap();
        let place = BackupPlace::open(&StoreUri::Objects(location), &bucket.config()).unwrap();
        PlaceUnderTest {
            place,
            store: bucket.below(&name),
        }
    })
    .await;
    bucket.remove().await;
}
