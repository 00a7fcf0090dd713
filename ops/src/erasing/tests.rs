//! Erasures carried out on real files: what goes, and what of others stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use dwell_ingest::pseudonymise::{PRESENCE_LATE_MS, Pseudonymiser, Road};
use dwell_model::event::{Delivery, Kind};
use dwell_model::ids::Receipt;
use dwell_model::testing::position_batch;
use dwell_model::time::{DAY_MS, HOUR_MS, LocalDay, TsMs, VenueCalendar};
use dwell_storage::api::periods::{self, ClosedPeriod};
use dwell_storage::api::recuts::Wish;
use dwell_storage::api::{ErasedSubject, Erasure, SubjectClass};
use dwell_storage::erasure::ErasureWatch;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::deletion::{Deletion, filter_of};
use super::places::Search;
use super::receipt::ErasureReceipt;
use super::whom::{Named, Whom};
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
    let (ledger, documents) = (Arc::clone(&stores.erasures), Arc::clone(&stores.documents));
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

fn device(world: &World, until: TsMs) -> Whom {
    Whom {
        venue: world.venue.clone(),
        named: Named::Device("aa:bb:cc:00:11:22".to_owned()),
        sensor: None,
        from: TsMs::MIN,
        until,
    }
}

async fn subjects(world: &World, dry_run: bool) -> Vec<ErasedSubject> {
    let key = world.stores.erasures.key().await.unwrap();
    let calendar = VenueCalendar::from_names("Etc/UTC", 0).unwrap();
    let (subjects, not_findable) = device(world, NOW)
        .subjects(&eraser(world), calendar, &key, dry_run)
        .await
        .unwrap();
    assert!(not_findable.is_empty());
    subjects
}

/// What a gateway that brings the device now stores of it.
async fn pseudonym(world: &World, ts: TsMs) -> Option<String> {
    let keys = Arc::clone(&world.stores.pseudonym_keys);
    let made = Pseudonymiser::new(keys, world.clock(), PRESENCE_LATE_MS, 9);
    let calendar = VenueCalendar::from_names("Etc/UTC", 0).unwrap();
    let device = "AA-BB-CC-00-11-22";
    made.pseudonym(&world.venue, calendar, device, ts, Road::Gateway)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_erased_of_days_whose_first_events_come_after_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    assert!(subjects(&world, true).await.is_empty(), "a look makes no keys");
    let entered = subjects(&world, false).await;
    let key = world.stores.erasures.key().await.unwrap();
    // Today, and each day of which a gateway may bring presence still.
    for days_ago in 0..=3 {
        let ts = NOW - days_ago * DAY_MS - HOUR_MS;
        let brought = pseudonym(&world, ts).await.unwrap();
        let brought = key.hash(SubjectClass::Device, &world.venue, &brought);
        let covers = |subject: &&ErasedSubject| subject.from <= ts && ts < subject.until;
        let names: BTreeSet<_> = entered
            .iter()
            .filter(covers)
            .map(|subject| subject.name)
            .collect();
        assert!(names.contains(&brought), "{days_ago} days ago");
    }
    assert_eq!(pseudonym(&world, NOW - 5 * DAY_MS).await, None, "no longer taken");
    assert_eq!(entered.len(), 4, "{entered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_heard_before_the_venue_was_cut_anew_is_covered() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    // Eight in the evening of UTC is five in the morning of the next day in Tokyo.
    let ts = start_of(D2) + 20 * HOUR_MS;
    let stored = pseudonym(&world, ts).await.unwrap();
    let key = world.stores.erasures.key().await.unwrap();
    let tokyo = VenueCalendar::from_names("Asia/Tokyo", 0).unwrap();
    let (entered, _) = device(&world, NOW)
        .subjects(&eraser(&world), tokyo, &key, false)
        .await
        .unwrap();
    let stored = key.hash(SubjectClass::Device, &world.venue, &stored);
    let covers = |subject: &ErasedSubject| subject.name == stored && subject.from <= ts && ts < subject.until;
    assert!(entered.iter().any(covers), "{entered:?}");
    assert!(
        entered.iter().all(|subject| subject.until <= NOW),
        "never after the request"
    );
}

/// Files of a day's positions, replaced ones included.
fn files_of(folder: &TempDir, date: &str) -> BTreeSet<PathBuf> {
    let mut folders = vec![folder.path().join("archive")];
    let mut files = BTreeSet::new();
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path)),
            }
        }
    }
    files.retain(|path| {
        let text = path.to_string_lossy();
        text.contains(date) && text.ends_with(".parquet") && text.contains("position")
    });
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_of_a_former_cut_go_with_the_days_that_have_their_events_now() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder).await;
    let evening = start_of(D1) + 20 * HOUR_MS;
    let all = [
        seen("s1", "t1", evening, 60),
        seen("s1", "t2", start_of(D1) + HOUR_MS, 60),
    ];
    store(&world, &all.concat()).await;
    let generation = world.numbers().await[&day(D1)].0;
    let former = files_of(&folder, D1);
    assert_eq!(former.len(), 1);
    let tokyo = VenueCalendar::from_names("Asia/Tokyo", 0).unwrap();
    let wish = Wish {
        job: "recut".to_owned(),
        from: tokyo,
        to: tokyo,
        by: "operator".to_owned(),
        at: NOW,
    };
    let cancel = CancellationToken::new();
    let recut = world.layer.recut(&world.venue, &wish, None, &|_| {}, &cancel);
    recut.await.unwrap();
    assert!(
        files_of(&folder, D1).is_superset(&former),
        "readers may have it open"
    );
    // As with a device, of which there are no sessions: nothing but the file tells of the former day.
    let sessions = &world.stores.sessions;
    sessions.delete(&world.venue, day(D1), generation).await.unwrap();
    let entry = world.forget_track("t1", None, TsMs::MIN..NOW).await;
    let receipt = carry_out(&world, &entry).await;
    assert_eq!(receipt.days, [day(D2)]);
    let held = world
        .stores
        .archive
        .day(&world.venue, Kind::Position, day(D1))
        .await
        .unwrap();
    assert_eq!(held.events.len(), 1, "what t2 is in");
    assert!(files_of(&folder, D1).is_disjoint(&former));
}
