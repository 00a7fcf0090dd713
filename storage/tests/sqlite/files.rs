//! The files: opened again, swapped, foreign, damaged, newer, private.

use std::path::Path;

use dwell_model::event::Kind;
use dwell_runtime::clock::ManualClock;
use dwell_storage::api::{
    AccessKey, Checkpoint, Checkpoints, ConsumerPosition, EventLogReader, ImportClaim, Imports, Job,
    JobProgress, JobState, Jobs, Mark, MarkSource, PseudonymKey, PseudonymKeys, Quarantine, QuarantineFilter,
    RawEventsReader, RawEventsWriter, RawWrite, Registry, Role, SecretKey, VenueDaysReader, VenueDaysWriter,
};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::conformance::samples::{
    DAY_START, day, delivered, delivery, events, receipt, shop, tenant,
};
use dwell_storage::error::{ErrorKind, StorageError};
use dwell_storage::paths::DataPaths;
use rusqlite::Connection;

use super::open;

const ALL_TIME: std::ops::Range<i64> = 0..7_258_118_400_000;

async fn refusal(dir: &Path) -> StorageError {
    SqliteStores::open(&DataPaths::new(dir), ManualClock::at_ms(DAY_START).shared())
        .await
        .unwrap_err()
}

fn write_of(number: i64) -> RawWrite {
    let mark = Mark {
        venue: shop(),
        slot: DAY_START / 600_000,
        source: MarkSource::log(1, 0),
        position: number,
    };
    let rows = delivered(
        events(Kind::Position, DAY_START + number * 60_000, 40, 0),
        delivery(number, number as u128),
    );
    RawWrite {
        rows: vec![(shop(), rows)],
        marks: vec![mark],
        position: Some(ConsumerPosition {
            consumer: "raw-writer",
            epoch: 1,
            partition: 0,
            position: number + 1,
        }),
    }
}

#[tokio::test]
async fn opening_again_gives_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let d = day("2026-03-29");
    let key = AccessKey {
        id: "k".into(),
        hash: "00".into(),
        tenant: tenant("acme"),
        role: Role::Admin,
        venues: None,
        name: None,
        created_at: 1,
        revoked_at: None,
    };
    let stores = open(dir.path()).await;
    let epoch = stores.log.epoch();
    stores.raw.apply(write_of(0)).await.unwrap();
    stores.raw.apply(write_of(1)).await.unwrap();
    let lease = stores
        .venue_days
        .acquire(&shop(), d, "a", 0, 100)
        .await
        .unwrap()
        .unwrap();
    let fence = stores.checkpoints.take_ownership("speed").await.unwrap();
    let state = Checkpoint {
        fence,
        bytes: vec![1, 2, 3],
    };
    stores.checkpoints.store("speed", state.clone()).await.unwrap();
    stores.registry.put_key(&key).await.unwrap();
    let secret = SecretKey([7; 32]);
    stores
        .pseudonym_keys
        .get_or_create(&shop(), d, secret.clone(), DAY_START)
        .await
        .unwrap();
    let rows = stores.raw.scan(&shop(), Kind::Position, ALL_TIME).await.unwrap();
    drop(stores);

    let stores = open(dir.path()).await;
    assert_eq!(stores.log.epoch(), epoch);
    let again = stores.raw.scan(&shop(), Kind::Position, ALL_TIME).await.unwrap();
    assert_eq!(format!("{again:?}"), format!("{rows:?}"));
    assert_eq!(stores.raw.position("raw-writer", 1, 0).await.unwrap(), Some(2));
    assert_eq!(
        stores.venue_days.get(&shop(), d).await.unwrap().unwrap().fence,
        lease.fence
    );
    assert_eq!(
        stores.venue_days.acquire(&shop(), d, "b", 99, 100).await.unwrap(),
        None,
        "the lease is still held"
    );
    assert_eq!(stores.checkpoints.load("speed").await.unwrap(), Some(state));
    assert!(stores.checkpoints.take_ownership("speed").await.unwrap() > fence);
    assert_eq!(stores.registry.key("k").await.unwrap(), Some(key));
    let found = stores
        .pseudonym_keys
        .get_or_create(&shop(), d, SecretKey([8; 32]), DAY_START)
        .await
        .unwrap();
    assert_eq!(found, PseudonymKey::Live(secret));
    // Names that were numbered before keep their numbers.
    let repeated = stores.raw.apply(write_of(1)).await.unwrap();
    assert_eq!((repeated.new_rows, repeated.repeated_rows), (0, 40));
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_to_do() {
    for file in ["log.db", "data.db", "keys.db"] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).await);
        let connection = Connection::open(dir.path().join(file)).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(connection);
        let error = refusal(dir.path()).await;
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let text = error.to_string();
        assert!(
            text.contains(file) && text.contains("99") && text.contains("newer Dwell"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn files_that_are_not_what_they_are_named_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    let file = |name: &str| dir.path().join(name);
    std::fs::remove_file(file("log.db")).unwrap();
    std::fs::copy(file("keys.db"), file("log.db")).unwrap();
    let error = refusal(dir.path()).await;
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("log.db"), "{error}");

    let text = b"this is a text that somebody put here, long enough to be taken for a database".repeat(20);
    std::fs::write(file("log.db"), &text).unwrap();
    let error = refusal(dir.path()).await;
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("log.db") && error.to_string().contains("docs/faults.md"),
        "{error}"
    );
    assert_eq!(std::fs::read(file("log.db")).unwrap(), text);
}

#[tokio::test]
async fn damaged_rows_are_refused_not_guessed() {
    for damage in [
        "DELETE FROM names WHERE id = 1",
        "DELETE FROM deliveries",
        "UPDATE raw_position SET deliveries = x''",
        "UPDATE raw_position SET deliveries = x'80'",
        "UPDATE raw_position SET ts = -5 WHERE ts = (SELECT min(ts) FROM raw_position)",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let stores = open(dir.path()).await;
        stores.raw.apply(write_of(0)).await.unwrap();
        let changed = Connection::open(dir.path().join("data.db"))
            .unwrap()
            .execute(damage, [])
            .unwrap();
        assert!(changed > 0, "{damage}");
        let error = stores
            .raw
            .scan(&shop(), Kind::Position, -10..ALL_TIME.end)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{damage}: {error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).await;
    stores.raw.apply(write_of(0)).await.unwrap();
    for file in ["log.db", "data.db", "data.db-wal", "keys.db"] {
        let mode = std::fs::metadata(dir.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// A backup tool or a curious operator reads the files of a running instance.
#[tokio::test]
async fn reading_from_outside_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).await;
    stores.raw.apply(write_of(0)).await.unwrap();
    let outside = Connection::open(dir.path().join("data.db")).unwrap();
    outside.execute_batch("BEGIN").unwrap();
    let count = || -> i64 {
        outside
            .query_row("SELECT count(*) FROM raw_position", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(), 40);
    for number in 1..20 {
        stores.raw.apply(write_of(number)).await.unwrap();
    }
    assert_eq!(count(), 40, "its own moment in time");
    outside.execute_batch("COMMIT").unwrap();
    assert_eq!(count(), 800);
}

/// Readers and one writer at once, more than there are connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_see_whole_writes_only() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).await;
    let write = async {
        for number in 0..30 {
            stores.raw.apply(write_of(number)).await.unwrap();
        }
    };
    let read = |_| async {
        for _ in 0..30 {
            let rows = stores
                .raw
                .scan(&shop(), Kind::Position, ALL_TIME)
                .await
                .unwrap()
                .len();
            assert_eq!(rows % 40, 0, "half a write was seen");
        }
    };
    futures::join!(write, futures::future::join_all((0..12).map(read)));
    assert_eq!(
        stores.raw.count(&shop(), ALL_TIME).await.unwrap(),
        [(Kind::Position, 1_200)]
    );
}

#[tokio::test]
async fn what_an_error_undid_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).await;
    // A trigger stands for whatever may go wrong in the middle of a transaction.
    let outside = Connection::open(dir.path().join("data.db")).unwrap();
    outside
        .execute_batch(
            "CREATE TRIGGER fail AFTER INSERT ON consumer_positions
             BEGIN SELECT raise(ABORT, 'made to fail'); END",
        )
        .unwrap();
    let error = stores.raw.apply(write_of(0)).await.unwrap_err();
    assert!(
        error.to_string().contains("data.db") && error.to_string().contains("made to fail"),
        "{error}"
    );
    assert_eq!(stores.raw.count(&shop(), ALL_TIME).await.unwrap(), []);
    assert!(stores.raw.marks(&shop(), ALL_TIME).await.unwrap().0.is_empty());
    outside.execute_batch("DROP TRIGGER fail").unwrap();
    // The numbers that the undone write gave to names are not used: the rows read back with their names.
    let applied = stores.raw.apply(write_of(0)).await.unwrap();
    assert_eq!(applied.new_rows, 40);
    let rows = stores.raw.scan(&shop(), Kind::Position, ALL_TIME).await.unwrap();
    assert_eq!((rows.events.sensor(0), rows.events.key(0)), ("s-1", "k0"));
}

#[tokio::test]
async fn the_other_tables_stay_too() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path()).await;
    let job = Job {
        id: "01".into(),
        tenant: tenant("acme"),
        kind: "verify".into(),
        lane: Default::default(),
        spec: serde_json::json!({}),
        state: JobState::Queued,
        progress: JobProgress::default(),
        requested_by: "me".into(),
        reason: None,
        created_at: 1,
        started_at: None,
        finished_at: None,
        attempts: 0,
        cancel_requested: false,
        report: None,
        error: None,
        fence: 0,
        leased_until: None,
    };
    let claim = ImportClaim {
        receipt: receipt(1),
        name: "f".into(),
        road: "log".into(),
        received_at: 1,
        finished_at: None,
        accepted: 0,
        refused: 0,
    };
    stores.jobs.create(&job).await.unwrap();
    stores.imports.claim(&tenant("acme"), &claim).await.unwrap();
    drop(stores);
    let stores = open(dir.path()).await;
    assert_eq!(stores.jobs.get(&tenant("acme"), "01").await.unwrap(), Some(job));
    assert_eq!(stores.imports.list(&tenant("acme"), 9).await.unwrap(), [claim]);
    let nothing = stores
        .quarantine
        .list(&tenant("acme"), &QuarantineFilter::default(), None, 9)
        .await
        .unwrap();
    assert_eq!(nothing, []);
}
