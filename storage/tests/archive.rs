//! The archive on a local folder and on another store, and what goes beyond the suite: other readers, days larger than
//! memory, vacuum, checkpoints.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::path::Path as LocalPath;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Float32Type, Int64Type};
use async_trait::async_trait;
use dwell_model::event::{Column, EventBatch, Kind};
use dwell_runtime::clock::{ManualClock, SharedClock};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{
    Archive, ArchiveKeeper, ArchiveReader, ArchiveWriter, ArchivedDay, Committed, DeliveredRows, Projection,
    Rewrite, StagedDay, StillHeld,
};
use dwell_storage::archive::{BulkSorter, DeltaArchive, RemoteArchiveConfig};
use dwell_storage::backup::BackupPlace;
use dwell_storage::conformance::archive::{ArchiveUnderTest, suite};
use dwell_storage::conformance::backup_place::{self, PlaceUnderTest};
use dwell_storage::conformance::erasures;
use dwell_storage::conformance::samples::{
    DAY_START, Dice, day, delivery, describe, events, position, shop, tenant,
};
use dwell_storage::error::Result;
use dwell_storage::resolver::StoreUri;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const DAY: &str = "2026-03-29";

fn clock() -> SharedClock {
    Arc::new(ManualClock::at_ms(DAY_START))
}

fn local(dir: &LocalPath) -> DeltaArchive {
    DeltaArchive::local(dir, clock()).unwrap()
}

/// Keeps the folder for as long as the test runs.
fn kept_folder() -> std::path::PathBuf {
    tempfile::tempdir().unwrap().keep()
}

fn under_test(dir: &LocalPath, open: impl Fn() -> DeltaArchive) -> ArchiveUnderTest {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir).unwrap());
    ArchiveUnderTest {
        archive: Arc::new(open()),
        other: Arc::new(open()),
        store,
    }
}

struct AllHeld;

#[async_trait]
impl StillHeld for AllHeld {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_archive_keeps_its_promises() {
    let root = kept_folder();
    suite(|| async {
        let dir = tempfile::tempdir_in(&root).unwrap().keep();
        under_test(&dir, || local(&dir))
    })
    .await;
    std::fs::remove_dir_all(root).unwrap();
}

/// Every day goes through the road of days that are larger than memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_holds_few_rows_at_once_keeps_its_promises() {
    let root = kept_folder();
    suite(|| async {
        let dir = tempfile::tempdir_in(&root).unwrap().keep();
        under_test(&dir, || local(&dir).with_stretch_rows(1))
    })
    .await;
    std::fs::remove_dir_all(root).unwrap();
}

/// Nothing rests on files being local.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_on_another_store_keeps_its_promises() {
    suite(|| async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let open = || Arc::new(DeltaArchive::new(Arc::clone(&store), Path::default(), clock()));
        ArchiveUnderTest {
            archive: open(),
            other: open(),
            store: Arc::clone(&store),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_erasures_keeps_its_promises() {
    let root = kept_folder();
    erasures::suite(|| async {
        let dir = tempfile::tempdir_in(&root).unwrap().keep();
        erasures::LedgerUnderTest {
            ledger: local(&dir).erasures(),
            other: local(&dir).erasures(),
        }
    })
    .await;
    std::fs::remove_dir_all(root).unwrap();
}

async fn put(archive: &DeltaArchive, rows: DeliveredRows) -> ArchivedDay {
    let kind = rows.events.kind;
    let rewrite = archive
        .rewrite_day(&shop(), kind, day(DAY), 1, Box::new(rows))
        .await
        .unwrap();
    let Rewrite::Staged(staged) = rewrite else {
        panic!("unchanged")
    };
    assert_eq!(
        archive.commit(vec![staged], &AllHeld).await.unwrap(),
        [Committed::Yes]
    );
    archive.day(&shop(), kind, day(DAY)).await.unwrap()
}

async fn read(archive: &DeltaArchive, held: &ArchivedDay) -> Vec<String> {
    let mut reader = archive.open(&shop(), held, Projection::Events).await.unwrap();
    let read = move || {
        let mut all = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            all.extend((0..chunk.events.len()).map(|row| describe(chunk.events, row)));
        }
        all
    };
    blocking("test", read).await.unwrap()
}

/// The Arrow reader knows nothing of Dwell: what it sees is what any engine sees.
#[tokio::test]
async fn other_readers_see_decimals_exact_floats_and_nulls() {
    let dir = tempfile::tempdir().unwrap();
    let archive = local(dir.path());
    let mut batch = EventBatch::new(Kind::Position);
    for (i, (x, y)) in [(1.25, -3.5), (0.333, 0.0), (-0.0, 12.34)]
        .into_iter()
        .enumerate()
    {
        batch.append(&position("s", "t", DAY_START + i as i64 * 1000, x, y));
    }
    let floor = batch.strings.intern("upper");
    let Column::Text(floors) = &mut batch.payload[2] else {
        panic!("floor is a text")
    };
    floors[1] = floor;
    batch.revision[2] = 4;
    let held = put(
        &archive,
        DeliveredRows::delivered_once(batch, delivery(77, 0xabc)),
    )
    .await;

    let file = std::fs::File::open(dir.path().join("acme/position").join(&held.events[0].path)).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let statistics = |column: usize| {
        builder
            .metadata()
            .row_group(0)
            .column(column)
            .statistics()
            .is_some()
    };
    assert_eq!(
        (0..11).filter(|&column| statistics(column)).collect::<Vec<_>>(),
        [1],
        "of the times alone"
    );
    let rows = builder.build().unwrap().next().unwrap().unwrap();
    let texts = |name: &str| {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        (0..3)
            .map(|row| column.is_valid(row).then(|| column.value(row).to_owned()))
            .collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts("track"), [some("t"), some("t"), some("t")]);
    assert_eq!(texts("floor"), [None, some("upper"), None]);
    assert_eq!(texts("receipt")[0], some("00000000000000000000000000000abc"));
    let longs = |name: &str| {
        rows.column_by_name(name)
            .unwrap()
            .as_primitive::<Int64Type>()
            .iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        longs("ts"),
        [Some(DAY_START), Some(DAY_START + 1000), Some(DAY_START + 2000)]
    );
    assert_eq!(longs("revision"), [None, None, Some(4)]);
    assert_eq!(longs("received_at"), [Some(77); 3]);
    let decimals = |name: &str| {
        let column = rows
            .column_by_name(name)
            .unwrap()
            .as_primitive::<Decimal128Type>()
            .clone();
        assert_eq!((column.precision(), column.scale()), (9, 2));
        column.iter().map(|value| value.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(decimals("x"), [125, 33, 0]);
    assert_eq!(decimals("y"), [-350, 0, 1234]);
    let floats = |name: &str| {
        let column = rows
            .column_by_name(name)
            .unwrap()
            .as_primitive::<Float32Type>()
            .clone();
        column
            .iter()
            .map(|value| value.map(f32::to_bits))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        floats("x_f32"),
        [None, Some(0.333_f32.to_bits()), Some((-0.0_f32).to_bits())]
    );
    assert_eq!(floats("y_f32"), [None, None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_in_many_parts_ends_as_one_that_comes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let archive = local(dir.path()).with_stretch_rows(300);
    let mut dice = Dice::new(7);
    let pieces: Vec<DeliveredRows> = (0..20_u8)
        .map(|i| {
            let mut batch = events(Kind::Position, DAY_START + i64::from(i / 2) * 40_000, 100, i % 3);
            batch
                .key
                .iter_mut()
                .for_each(|key| *key = (*key + dice.below(2) as u32).min(2));
            DeliveredRows::delivered_once(batch, delivery(i64::from(i), u128::from(i)))
        })
        .collect();
    let mut whole = DeliveredRows::new(Kind::Position);
    pieces.iter().for_each(|piece| whole.append(piece));
    // A budget of nothing: every piece becomes a run on disk.
    let mut sorter = BulkSorter::new(&dir.path().join("spill"), 1).unwrap();
    for piece in pieces {
        sorter.push(&shop(), day(DAY), piece).unwrap();
    }
    let sorted = sorter.finish().next().unwrap();
    let rewrite = archive
        .rewrite_day(&shop(), Kind::Position, day(DAY), 1, sorted.rows)
        .await
        .unwrap();
    let Rewrite::Staged(staged) = rewrite else {
        panic!("unchanged")
    };
    assert_eq!(
        archive.commit(vec![staged], &AllHeld).await.unwrap(),
        [Committed::Yes]
    );
    let in_parts = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
    archive.verify(&shop(), &in_parts).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    let at_once = local(other.path());
    let held = put(&at_once, whole.clone()).await;
    assert_eq!(in_parts.deliveries, held.deliveries);
    assert_eq!(read(&archive, &in_parts).await, read(&at_once, &held).await);
    // And both find that nothing is new.
    for archive in [&archive, &at_once] {
        let again = archive
            .rewrite_day(&shop(), Kind::Position, day(DAY), 2, Box::new(whole.clone()))
            .await
            .unwrap();
        assert!(matches!(again, Rewrite::Unchanged(_)));
    }
}

#[tokio::test]
async fn a_replaced_file_is_old_only_when_its_replacement_is_too() {
    let dir = tempfile::tempdir().unwrap();
    let archive = local(dir.path());
    let row =
        |ts: i64| DeliveredRows::delivered_once(position("s", "t", DAY_START + ts, 1.0, 2.0), delivery(1, 1));
    let first = put(&archive, row(1)).await;
    let second = put(&archive, row(2)).await;
    let third = put(&archive, row(3)).await;
    let path = |day: &ArchivedDay| day.events[0].path.clone();
    let date = |below: &str, ms: u64| {
        let file = std::fs::File::options()
            .write(true)
            .open(dir.path().join("acme/position").join(below))
            .unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
        file.set_modified(at).unwrap();
    };
    // Written long ago, all of them; the second commit (which took the first file away) long ago too, the third lately.
    [&first, &second, &third]
        .into_iter()
        .for_each(|held| date(&path(held), 1_000));
    for (version, ms) in [(0, 1_000), (1, 1_000), (2, 2_000), (3, 9_000)] {
        date(&format!("_delta_log/{version:020}.json"), ms);
    }
    let found = async |older_than| {
        let found = archive.unnamed_files(&tenant("acme"), older_than).await.unwrap();
        found.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(found(2_000).await, Vec::<String>::new());
    assert_eq!(
        found(5_000).await,
        [path(&first)],
        "the second was read until 9,000"
    );
    let mut both = [path(&first), path(&second)];
    both.sort();
    assert_eq!(found(9_001).await, both);
    archive.verify(&shop(), &third).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_checkpoints_opens_to_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let archive = local(dir.path());
    let mut expected = Vec::new();
    for i in 0..104_u64 {
        let date = day("2026-01-01").plus(i % 30);
        let rows =
            DeliveredRows::delivered_once(position("s", "t", DAY_START + i as i64, 1.0, 2.0), delivery(1, 1));
        let rewrite = archive
            .rewrite_day(&shop(), Kind::Position, date, 1, Box::new(rows))
            .await
            .unwrap();
        let Rewrite::Staged(staged) = rewrite else {
            panic!("unchanged")
        };
        assert_eq!(
            archive.commit(vec![staged], &AllHeld).await.unwrap(),
            [Committed::Yes]
        );
    }
    for i in 0..30 {
        let date = day("2026-01-01").plus(i);
        expected.push(archive.day(&shop(), Kind::Position, date).await.unwrap());
    }
    let log: Vec<_> = std::fs::read_dir(dir.path().join("acme/position/_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        log.iter().any(|name| name.ends_with(".checkpoint.parquet")),
        "{log:?}"
    );
    let reopened = local(dir.path());
    for (i, expected) in (0..30).zip(&expected) {
        let held = reopened
            .day(&shop(), Kind::Position, day("2026-01-01").plus(i))
            .await
            .unwrap();
        assert_eq!(&held, expected);
        assert_eq!(held.events[0].rows, if i < 14 { 4 } else { 3 });
    }
    // Both keep up with each other.
    let rows = DeliveredRows::delivered_once(position("s", "u", DAY_START, 1.0, 2.0), delivery(1, 1));
    let rewrite = reopened
        .rewrite_day(&shop(), Kind::Position, day("2026-01-05"), 2, Box::new(rows))
        .await
        .unwrap();
    let Rewrite::Staged(staged) = rewrite else {
        panic!("unchanged")
    };
    assert_eq!(
        reopened.commit(vec![staged.clone()], &AllHeld).await.unwrap(),
        [Committed::Yes]
    );
    assert_eq!(
        archive
            .day(&shop(), Kind::Position, day("2026-01-05"))
            .await
            .unwrap(),
        staged.holds
    );
}

/// Eight rivals add to the same four days at once; each redoes what is stale until all is in.
#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_redo_what_is_stale_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rival = |number: i64| {
        let archive: Arc<dyn Archive> = Arc::new(local(dir.path()));
        async move {
            let mut left: Vec<u64> = (0..4).collect();
            while !left.is_empty() {
                let mut all = Vec::new();
                for &date in &left {
                    let batch = position("s", &format!("t{number}"), DAY_START, 1.0, 2.0);
                    let rows = Box::new(DeliveredRows::delivered_once(batch, delivery(number, 1)));
                    let date = day("2026-01-01").plus(date);
                    let rewrite = archive
                        .rewrite_day(&shop(), Kind::Position, date, 1, rows)
                        .await
                        .unwrap();
                    let Rewrite::Staged(staged) = rewrite else {
                        panic!("unchanged")
                    };
                    all.push(staged);
                }
                let outcomes = archive.commit(all, &AllHeld).await.unwrap();
                let stale = left
                    .into_iter()
                    .zip(outcomes)
                    .filter(|(_, outcome)| *outcome == Committed::Stale);
                left = stale.map(|(date, _)| date).collect();
            }
        }
    };
    futures::future::join_all((0..8).map(rival)).await;
    let archive = local(dir.path());
    for date in 0..4 {
        let held = archive
            .day(&shop(), Kind::Position, day("2026-01-01").plus(date))
            .await
            .unwrap();
        archive.verify(&shop(), &held).await.unwrap();
        assert_eq!(held.events[0].rows, 8);
    }
}

#[tokio::test]
async fn a_place_for_backups_keeps_its_promises_in_a_folder_and_in_memory() {
    let root = kept_folder();
    backup_place::suite(|| async {
        let dir = tempfile::tempdir_in(&root).unwrap().keep();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&dir).unwrap());
        let uri = StoreUri::Folder(dir);
        let place = BackupPlace::open(&uri, &RemoteArchiveConfig::default()).unwrap();
        PlaceUnderTest { place, store }
    })
    .await;
    std::fs::remove_dir_all(root).unwrap();
    backup_place::suite(|| async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let place = BackupPlace::on(Arc::clone(&store), Path::default(), "memory".to_owned());
        PlaceUnderTest { place, store }
    })
    .await;
}
