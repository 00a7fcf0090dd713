//! What a [`BackupPlace`] promises, on any store.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::samples::tenant;
use super::{assert_kind, run_cases};
use crate::backup::manifest::{BACKUP_FORMAT, BackupManifest, TenantBackup};
use crate::backup::{BackupPlace, ObjectRef};
use crate::error::ErrorKind;

/// A fresh place, and the store below it.
#[derive(Debug, Clone)]
pub struct PlaceUnderTest {
    /// The place.
    pub place: BackupPlace,
    /// The store whose root is the place's folder.
    pub store: Arc<dyn ObjectStore>,
}

/// Runs all cases, each on a fresh place that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = PlaceUnderTest>,
{
    run_cases!(
        "backup place",
        make,
        [
            an_object_comes_back_and_is_written_once,
            a_damaged_and_a_missing_object_are_named,
            a_backup_is_there_when_its_manifest_is,
            a_manifest_that_was_changed_is_refused,
            a_place_belongs_to_one_installation,
            keys_can_be_destroyed,
            a_sweep_takes_what_nobody_names_and_is_old,
        ]
    );
}

fn nothing_known() -> HashSet<ObjectRef> {
    HashSet::new()
}

/// A moment near enough to the store's own clock.
fn now(meta: &object_store::ObjectMeta) -> i64 {
    meta.last_modified.timestamp_millis() + 1_000
}

fn manifest(id: &str, object: &ObjectRef) -> BackupManifest {
    BackupManifest {
        format: BACKUP_FORMAT,
        id: id.to_owned(),
        installation: "here".to_owned(),
        taken_at: 1,
        finished_at: 2,
        dwell: "0".to_owned(),
        log_epoch: u64::MAX,
        archive: "file:///a".to_owned(),
        tenants: vec![TenantBackup {
            tenant: tenant("acme"),
            archive: Vec::new(),
            registry: object.clone(),
            documents: Vec::new(),
            imports: Vec::new(),
            quarantine: Vec::new(),
            destroyed_keys: Vec::new(),
            days: Vec::new(),
            files: None,
        }],
        keys: Vec::new(),
        days: 0,
        generations: 0,
        objects: 1,
        bytes: object.bytes,
        new_objects: 1,
        problems: Vec::new(),
    }
}

async fn files(store: &dyn ObjectStore, folder: &str) -> Vec<object_store::ObjectMeta> {
    store
        .list(Some(&Path::from(folder)))
        .try_collect()
        .await
        .unwrap_or_default()
}

async fn an_object_comes_back_and_is_written_once(test: PlaceUnderTest) {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let put = test
        .place
        .put_object(content.clone(), &nothing_known(), 0)
        .await
        .unwrap();
    assert!(put.is_new && put.object.bytes == 400_000 && put.stored_bytes > 0);
    assert_eq!(test.place.object(&put.object).await.unwrap(), content);
    let written = files(&*test.store, "objects").await;
    assert_eq!(written.len(), 1);
    let again = test
        .place
        .put_object(content.clone(), &nothing_known(), now(&written[0]))
        .await
        .unwrap();
    assert!(!again.is_new && again.object == put.object);
    // One left long ago by a backup that did not end may be swept at any moment, unless a backup names it.
    let late = now(&written[0]) + 13 * 3_600_000;
    let old = test
        .place
        .put_object(content.clone(), &nothing_known(), late)
        .await
        .unwrap();
    assert!(old.is_new);
    let known = HashSet::from([put.object.clone()]);
    assert!(!test.place.put_object(content, &known, late).await.unwrap().is_new);
    assert_eq!(files(&*test.store, "objects").await.len(), 1);
    let empty = test
        .place
        .put_object(Vec::new(), &nothing_known(), 0)
        .await
        .unwrap();
    assert_eq!(test.place.object(&empty.object).await.unwrap(), b"");
}

async fn a_damaged_and_a_missing_object_are_named(test: PlaceUnderTest) {
    let put = test
        .place
        .put_object(vec![7; 1_000], &nothing_known(), 0)
        .await
        .unwrap();
    let path = files(&*test.store, "objects").await[0].location.clone();
    let bytes = test.store.get(&path).await.unwrap().bytes().await.unwrap();
    let other = zstd::bulk::compress(&[8; 1_000], 1).unwrap();
    for damaged in [&bytes[..bytes.len() - 1], &other, b"", b"rubbish"] {
        test.store.put(&path, damaged.to_vec().into()).await.unwrap();
        let error = test.place.object(&put.object).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(&put.object.sha256), "{error}");
    }
    test.store.delete(&path).await.unwrap();
    let error = test.place.object(&put.object).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&put.object.sha256), "{error}");
}

async fn a_backup_is_there_when_its_manifest_is(test: PlaceUnderTest) {
    assert!(test.place.backups().await.unwrap().is_empty());
    assert_kind(test.place.backup("a").await, ErrorKind::NotFound);
    let put = test.place.put_object(vec![1], &nothing_known(), 0).await.unwrap();
    assert!(test.place.backups().await.unwrap().is_empty());
    let (first, second) = (manifest("2026-b", &put.object), manifest("2026-a", &put.object));
    test.place.put_manifest(&first).await.unwrap();
    test.place.put_manifest(&second).await.unwrap();
    assert_eq!(test.place.backups().await.unwrap(), ["2026-a", "2026-b"]);
    assert_eq!(test.place.backup("2026-b").await.unwrap(), first);
    test.place.put_manifest(&first).await.unwrap();
    let mut other = first.clone();
    other.taken_at = 9;
    assert_kind(test.place.put_manifest(&other).await, ErrorKind::Conflict);
    test.place.remove_backup("2026-b").await.unwrap();
    test.place.remove_backup("2026-b").await.unwrap();
    assert_eq!(test.place.backups().await.unwrap(), ["2026-a"]);
}

async fn a_manifest_that_was_changed_is_refused(test: PlaceUnderTest) {
    let put = test.place.put_object(vec![1], &nothing_known(), 0).await.unwrap();
    test.place
        .put_manifest(&manifest("one", &put.object))
        .await
        .unwrap();
    let path = Path::from("manifests/one.json");
    let bytes = test.store.get(&path).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let changed = text.replace("\"taken_at\":1", "\"taken_at\":3");
    assert_ne!(changed, text);
    for damaged in [changed, text[..text.len() / 2].to_owned(), String::new()] {
        test.store.put(&path, damaged.into()).await.unwrap();
        let error = test.place.backup("one").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("manifests/one.json"), "{error}");
    }
}

async fn a_place_belongs_to_one_installation(test: PlaceUnderTest) {
    test.place.claim("one").await.unwrap();
    test.place.claim("one").await.unwrap();
    let error = test.place.claim("two").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("one"), "{error}");
}

async fn keys_can_be_destroyed(test: PlaceUnderTest) {
    let keys = test
        .place
        .put_keys("b", 0, b"secret".to_vec(), 1, 77)
        .await
        .unwrap();
    assert_eq!((keys.keys, keys.destroy_at), (1, 77));
    assert_eq!(test.place.keys(&keys).await.unwrap().unwrap(), "secret");
    let path = Path::from(keys.path.as_str());
    test.store.put(&path, "other!".into()).await.unwrap();
    assert_kind(test.place.keys(&keys).await, ErrorKind::Damaged);
    assert!(test.place.destroy_keys(&keys).await.unwrap());
    assert!(!test.place.destroy_keys(&keys).await.unwrap());
    assert_eq!(test.place.keys(&keys).await.unwrap(), None);
    assert!(files(&*test.store, "keys").await.is_empty());
}

async fn a_sweep_takes_what_nobody_names_and_is_old(test: PlaceUnderTest) {
    let mut objects = Vec::new();
    for byte in 0..3 {
        let put = test.place.put_object(vec![byte], &nothing_known(), 0).await;
        objects.push(put.unwrap().object);
    }
    test.place
        .put_manifest(&manifest("one", &objects[0]))
        .await
        .unwrap();
    let mut named = test.place.named();
    named.object(&objects[0]);
    assert_eq!(
        test.place.sweep(&named, 0).await.unwrap().objects,
        0,
        "all are young"
    );
    let swept = test.place.sweep(&named, i64::MAX).await.unwrap();
    assert_eq!(swept.objects, 2);
    assert_eq!(test.place.object(&objects[0]).await.unwrap(), [0]);
    assert_kind(test.place.object(&objects[1]).await, ErrorKind::NotFound);
    assert_eq!(
        test.place.backups().await.unwrap(),
        ["one"],
        "manifests are not swept"
    );
}
