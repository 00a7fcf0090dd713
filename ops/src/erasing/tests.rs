//! Erasures carried out on real files: what goes, and what of others stays.

use std::collections::BTreeMap;

use dwell_ingest::pseudonymise::PRESENCE_LATE_MS;
use dwell_model::event::Delivery;
use dwell_model::ids::Receipt;
use dwell_model::testing::position_batch;
use dwell_model::time::{DAY_MS, HOUR_MS, LocalDay, TsMs};
use dwell_storage::api::periods::{self, ClosedPeriod};
use dwell_storage::api::Erasure;
use dwell_storage::erasure::ErasureWatch;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::deletion::{Deletion, filter_of};
use super::places::Search;
use super::receipt::ErasureReceipt;
use super::*;
use crate::test_world::{NOW, World, day};

const D1: &str = "2026-03-08";
const D2: &str = "2026-03-09";

fn start_of(date: &str) -> TsMs {
    i64::from(day(date).to_epoch_days()) * DAY_MS
}

/// A person whom a sensor sees once a second from an hour on, both ends included.
fn seen(sensor: &'static str, track: &'static str, from: TsMs, seconds: i64) -> Vec<Seen> {
    (0..=seconds)
        .map(|s| (sensor, track, from + s * 1_000, 5.0, 5.0))
        .collect()
}

type Seen = (&'static str, &'static str, TsMs, f32, f32);

/// Stores what was seen, and computes its days.
pub(crate) async fn store(world: &World, seen: &[Seen]) {
    let delivery = Delivery {
        received_at: NOW,
        receipt: Receipt::from_u128(77),
    };
    world.store(position_batch(seen), delivery).await;
    world.recompute().await;
}

async fn world(folder: &TempDir) -> World {
    let world = World::open(&folder.path().join("data"), &folder.path().join("archive")).await;
    world.add_venue().await;
    world
}

fn eraser(world: &World) -> Eraser {
    let stores = &world.stores;
    let (ledger, documents) = (stores.erasures.clone(), stores.documents.clone());
    Eraser {
        bare: stores.clone(),
        watch: ErasureWatch::new("test", ledger, documents, world.clock()),
        batch: world.layer.clone(),
        clock: world.clock(),
        log_retention_ms: DAY_MS,
        presence_late_ms: PRESENCE_LATE_MS,
    }
}

/// Carries an entry of the ledger out, as the job does.
pub(crate) async fn carry_out(world: &World, entry: &Erasure) -> ErasureReceipt {
    let eraser = eraser(world);
    let stored = world.stores.registry.venue(&world.venue).await.unwrap().unwrap();
    let subjects = &entry.erasure.subjects;
    let mut receipt = ErasureReceipt::of_ledger(entry, NOW + DAY_MS).unwrap();
    let mut deletion = Deletion {
        eraser: &eraser,
        entry,
        search: Search {
            eraser: &eraser,
            venue: &world.venue,
            calendar: stored.venue.calendar,
            filter: filter_of(&eraser, entry).await.unwrap(),
            range: subjects[0].from..subjects[0].until,
            with_archive: true,
            computed_without: BTreeMap::new(),
        },
        receipt: &mut receipt,
        texts: Vec::new(),
        tell: &|_, _| {},
        cancel: &CancellationToken::new(),
    };
    assert!(deletion.run().await.unwrap());
    receipt
}

/// Track, begin and end of each session that is shown of a day.
pub(crate) async fn shown(world: &World, of: LocalDay) -> Vec<(String, TsMs, TsMs)> {
    let (_, _, sessions) = world.numbers().await.remove(&of).unwrap();
    let shown = sessions.into_iter().map(|stored| {
        let session = stored.session;
        (session.subject.track, session.start, session.end)
    });
    shown.collect()
}

/// The visitor `t1` of the sensor `s1` on the first day, who is somebody else at `s2`, there and on the day after.
pub(crate) fn two_of_a_name() -> Vec<Seen> {
    let (d1, d2) = (start_of(D1), start_of(D2));
    [
        seen("s1", "t1", d1 + 10 * HOUR_MS, 60),
        seen("s2", "t1", d1 + 12 * HOUR_MS, 60),
        seen("s1", "t2", d1 + 14 * HOUR_MS, 60),
        seen("s2", "t1", d2 + 10 * HOUR_MS, 60),
    ]
    .concat()
}

fn session(track: &str, date: &str, hour: i64) -> (String, TsMs, TsMs) {
    let start = start_of(date) + hour * HOUR_MS;
    (track.to_owned(), start, start + 60_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_another_sensor_saw_under_the_same_name_stays() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    store(&world, &two_of_a_name()).await;
    let before = world.numbers().await;
    let entry = world.forget_track("t1", Some("s1"), TsMs::MIN..NOW).await;
    let receipt = carry_out(&world, &entry).await;
    assert!(receipt.is_clean(), "{receipt:?}");
    assert_eq!(receipt.days, [day(D1)], "nothing of theirs is on the other day");
    assert_eq!(
        shown(&world, day(D1)).await,
        [session("t1", D1, 12), session("t2", D1, 14)]
    );
    let after = world.numbers().await;
    assert_eq!(
        after.get(&day(D2)),
        before.get(&day(D2)),
        "a day of others stays as it is"
    );
    // Carried out once more nothing else goes.
    assert!(carry_out(&world, &entry).await.is_clean());
    assert_eq!(world.numbers().await, after);
    // The generation that had them does not tell which session was theirs, and lost both.
    let former = before.get(&day(D1)).unwrap().0;
    let left = world
        .stores
        .sessions
        .list(&world.venue, day(D1), former, None, 9)
        .await
        .unwrap();
    let left: Vec<&str> = left
        .iter()
        .map(|stored| stored.session.subject.track.as_str())
        .collect();
    assert_eq!(left, ["t2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_day_loses_every_session_that_is_perhaps_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    store(&world, &two_of_a_name()).await;
    let period = ClosedPeriod {
        venues: None,
        from: day(D1),
        to: day(D2),
        reason: "invoiced".into(),
        closed_by: "key".into(),
        closed_at: NOW,
        opened: None,
    };
    let documents = world.stores.documents.as_ref();
    periods::close(documents, world.tenant(), &period).await.unwrap();
    let entry = world.forget_track("t1", Some("s1"), TsMs::MIN..NOW).await;
    assert!(carry_out(&world, &entry).await.is_clean());
    assert_eq!(shown(&world, day(D1)).await, [session("t2", D1, 14)]);
    assert_eq!(shown(&world, day(D2)).await, [session("t1", D2, 10)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_around_an_erased_second_stays_without_that_second() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    let start = start_of(D1) + 10 * HOUR_MS;
    store(&world, &seen("s1", "t1", start, 60)).await;
    let points = async || {
        world.numbers().await.remove(&day(D1)).unwrap().2[0]
            .session
            .points
    };
    assert_eq!(points().await, 61);
    let entry = world
        .forget_track("t1", None, start + 20_000..start + 21_000)
        .await;
    assert!(carry_out(&world, &entry).await.is_clean());
    assert_eq!(shown(&world, day(D1)).await, [session("t1", D1, 10)]);
    assert_eq!(points().await, 60);
}
