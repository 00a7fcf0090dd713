//! Backups on real files. Failpoints are the process's, so these tests run one after the other.

mod erased;
mod recuts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_batch_layer::spec::{RunSpec, What};
use dwell_model::ids::{Receipt, VenueId};
use dwell_model::time::{DAY_MS, TsMs};
use dwell_runtime::failpoints;
use dwell_storage::api::{
    AccessKey, Flip, ImportClaim, PseudonymKey, QuarantineEncoding, QuarantineEntry, QuarantineFilter,
    QuarantineState, Role, RowFilter, SecretKey, pins, publications,
};
use dwell_storage::archive::{DeltaArchive, RemoteArchiveConfig};
use dwell_storage::backup::manifest::BackedUpDay;
use dwell_storage::backup::parts;
use dwell_storage::resolver::StoreUri;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::pruning::{self, Keep, not_kept};
use super::restoring::{self, How, Restored};
use super::taking::{self, Taken};
use super::*;
use crate::test_world::{NOW, World, day};

static ALONE: Mutex<()> = Mutex::const_new(());

const DAYS: [&str; 4] = ["2026-03-01", "2026-03-02", "2026-03-08", "2026-03-09"];
const REALLY: How = How {
    force: false,
    dry_run: false,
    is_drill: false,
};

/// Folders of a test, and the right to be alone.
struct Ground {
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Ground {
    async fn new() -> Self {
        Self {
            _alone: ALONE.lock().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn place(&self) -> BackupPlace {
        let uri = StoreUri::Folder(self.path("backups"));
        BackupPlace::make(&uri, &RemoteArchiveConfig::default()).unwrap()
    }

    /// The installation that is backed up.
    async fn original(&self) -> World {
        World::with_days(&self.path("data"), &self.path("archive"), &DAYS).await
    }

    /// An empty one, on the same archive.
    async fn empty(&self) -> World {
        World::open(&self.path("new"), &self.path("archive")).await
    }
}

/// Does something with a side.
async fn with_side<T>(
    world: &World,
    archive: &DeltaArchive,
    place: &BackupPlace,
    job: &str,
    act: impl AsyncFnOnce(&Side<'_>) -> T,
) -> T {
    let (clock, cancel) = (world.clock(), CancellationToken::new());
    let side = Side {
        stores: &world.stores,
        archive: Some(archive),
        archive_name: "file:///archive",
        place,
        clock: &clock,
        job,
        repeat_erasures_ms: dwell_model::time::DAY_MS,
        tell: &|_, _, _| {},
        cancel: &cancel,
    };
    act(&side).await
}

async fn try_take(world: &World, place: &BackupPlace, id: &str) -> Result<Taken> {
    with_side(world, &world.archive, place, id, async |side| {
        taking::take(side, id, false).await
    })
    .await
}

async fn take(world: &World, place: &BackupPlace, id: &str) -> Taken {
    let taken = try_take(world, place, id).await.unwrap();
    assert_eq!(taken.problems, Vec::<String>::new());
    taken
}

async fn try_restore(world: &World, place: &BackupPlace, how: How) -> Result<Restored> {
    with_side(world, &world.archive, place, "restore", async |side| {
        let manifest = restoring::find(side, None).await?;
        restoring::restore(side, &manifest, how).await
    })
    .await
}

async fn restore(world: &World, place: &BackupPlace) -> Restored {
    try_restore(world, place, REALLY).await.unwrap()
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}

fn claim(number: u128, finished_at: Option<TsMs>) -> ImportClaim {
    ImportClaim {
        receipt: Receipt::from_u128(number),
        name: format!("{number}.csv"),
        road: "log".into(),
        received_at: NOW - 1_000 * number as i64,
        finished_at,
        accepted: 0,
        refused: 0,
    }
}

fn refused(number: u32) -> QuarantineEntry {
    QuarantineEntry {
        id: format!("{number:08x}-1"),
        tenant: TenantId::new("default").unwrap(),
        venue: Some(VenueId::new("shop").unwrap()),
        received_at: NOW - DAY_MS * i64::from(number),
        receipt: Receipt::from_u128(7),
        source: "http".into(),
        sensor: None,
        index: 3,
        code: "bad_time".into(),
        message: "no".into(),
        format: "ndjson".into(),
        encoding: QuarantineEncoding::Plain,
        bytes: b"{\"ts\":\"x\"}".to_vec(),
        state: QuarantineState::Open,
    }
}

/// Puts something into every table that a backup has beside days.
async fn fill(world: &World) {
    let (stores, tenant) = (&world.stores, world.tenant());
    let key = |id: &str, revoked_at| AccessKey {
        id: id.to_owned(),
        hash: "00".into(),
        tenant: tenant.clone(),
        role: Role::Viewer,
        venues: None,
        name: None,
        created_at: 1,
        revoked_at,
    };
    stores.registry.put_key(&key("k1", None)).await.unwrap();
    stores.registry.put_key(&key("k2", None)).await.unwrap();
    stores.registry.revoke_key(tenant, "k2", 5).await.unwrap();
    for (collection, id) in [("remarks", "a"), ("notes", "b"), ("audit-2026-03", "c")] {
        let put = stores
            .documents
            .put(tenant, collection, id, &json!({ "id": id }), None)
            .await;
        assert_eq!(put.unwrap(), Flip::Done);
    }
    stores.imports.claim(tenant, &claim(1, None)).await.unwrap();
    stores.imports.claim(tenant, &claim(2, None)).await.unwrap();
    let at_once = ImportClaim {
        road: "archive".into(),
        ..claim(3, None)
    };
    stores.imports.claim(tenant, &at_once).await.unwrap();
    for (number, accepted, refused) in [(2, 10, 1), (3, 7, 0)] {
        let receipt = Receipt::from_u128(number);
        let finished = stores.imports.finish(tenant, receipt, NOW, accepted, refused);
        finished.await.unwrap();
    }
    stores
        .quarantine
        .add(vec![refused(1), refused(2)], 100)
        .await
        .unwrap();
    let keys = &stores.pseudonym_keys;
    let (d1, d2) = (day("2026-03-08"), day("2026-03-09"));
    keys.get_or_create(&world.venue, d1, SecretKey([1; 32]), NOW - 5)
        .await
        .unwrap();
    assert_eq!(keys.destroy_expired(NOW).await.unwrap(), 1);
    keys.get_or_create(&world.venue, d2, SecretKey([2; 32]), NOW + DAY_MS)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_comes_back_whole_into_an_empty_installation() {
    let ground = Ground::new().await;
    let original = ground.original().await;
    fill(&original).await;
    // A worker of the former life, in the middle of a day.
    let days = &original.stores.venue_days;
    let paused = days
        .acquire(&original.venue, day(DAYS[0]), "former", NOW, 1_000_000)
        .await;
    let paused = paused.unwrap().unwrap();
    let taken = take(&original, &ground.place(), "b1").await;
    assert_eq!((taken.days, taken.generations), (4, 4));

    let new = ground.empty().await;
    let dry = How {
        dry_run: true,
        ..REALLY
    };
    let looked_at = try_restore(&new, &ground.place(), dry).await.unwrap();
    assert_eq!((looked_at.objects_checked, looked_at.venues), (taken.objects, 0));
    assert!(new.numbers().await.is_empty(), "a dry run writes nothing");

    let restored = restore(&new, &ground.place()).await;
    assert_eq!(
        (restored.days, restored.generations, restored.dirty_days),
        (4, 4, 0)
    );
    assert_eq!(new.numbers().await, original.numbers().await);
    assert!(!new.numbers().await.is_empty());
    assert_eq!(new.dirty().await, Vec::<String>::new());
    let (tenant, here, there) = (new.tenant(), &new.stores, &original.stores);
    assert_eq!(
        here.registry.venue(&new.venue).await.unwrap().unwrap().venue,
        there.registry.venue(&new.venue).await.unwrap().unwrap().venue
    );
    assert_eq!(
        here.registry.keys(tenant).await.unwrap(),
        there.registry.keys(tenant).await.unwrap()
    );
    assert_eq!(
        here.registry.key("k2").await.unwrap().unwrap().revoked_at,
        Some(5)
    );
    for (collection, id) in [("remarks", "a"), ("notes", "b"), ("audit-2026-03", "c")] {
        let document = here.documents.get(tenant, collection, id).await.unwrap().unwrap();
        assert_eq!(document.body, json!({ "id": id }));
    }
    // What went through the log may be lost with it: the file is taken again, as the delivery that it was.
    let mut claims = there.imports.list(tenant, 9).await.unwrap();
    assert_eq!(
        claims.iter().filter(|claim| claim.finished_at.is_some()).count(),
        2
    );
    let of_log = claims.iter_mut().filter(|claim| claim.road == "log");
    of_log.for_each(|claim| claim.finished_at = None);
    assert_eq!(here.imports.list(tenant, 9).await.unwrap(), claims);
    let all = QuarantineFilter::default();
    assert_eq!(
        here.quarantine.list(tenant, &all, None, 9).await.unwrap(),
        there.quarantine.list(tenant, &all, None, 9).await.unwrap()
    );
    let keys = &here.pseudonym_keys;
    let gone = keys
        .look_up(&new.venue, day("2026-03-08"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(gone.key, PseudonymKey::Destroyed);
    let lives = keys
        .look_up(&new.venue, day("2026-03-09"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (lives.key, lives.keep_until),
        (PseudonymKey::Live(SecretKey([2; 32])), NOW + DAY_MS)
    );

    // Nothing of the former life can publish, on a day of the backup or on any other.
    let history = here.venue_days.history(&new.venue, day(DAYS[0])).await.unwrap();
    let mut late = history[0].clone();
    late.generation = paused.fence;
    let before = Some(history[0].generation);
    assert_eq!(
        here.venue_days.publish(&paused, before, late).await.unwrap(),
        Flip::Lost
    );
    for date in ["2026-03-01", "2026-03-03", "2026-03-10", "2026-03-11"] {
        let row = here.venue_days.get(&new.venue, day(date)).await.unwrap().unwrap();
        assert!(row.fence >= restored.fence && row.fence > paused.fence, "{date}");
    }
    let (former, life) = (there.log.epoch(), here.log.epoch());
    assert_ne!(former, life);
    // The feed of publications goes on far above whatever was given since the backup, and tells each day as it is now.
    let last = publications::head(there.documents.as_ref(), &original.venue).await;
    let (documents, goes_on) = (here.documents.as_ref(), last.unwrap().last + 500_000);
    let head = publications::head(documents, &new.venue).await.unwrap();
    let told = publications::list(documents, &new.venue, &head, goes_on, 100).await;
    let (told, numbers) = (told.unwrap(), new.numbers().await);
    assert_eq!(told.len(), numbers.len());
    for entry in told {
        assert_eq!((entry.generation, entry.before), (numbers[&entry.day].0, None));
    }
    // Its backups go on at the same place.
    take(&new, &ground.place(), "b2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_backup_writes_only_what_has_changed() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    fill(&world).await;
    let first = take(&world, &ground.place(), "b1").await;
    assert_eq!(first.new_objects, first.objects);
    let same = take(&world, &ground.place(), "b2").await;
    assert_eq!((same.new_objects, same.objects), (0, first.objects));
    world.events(DAYS[3], 9).await;
    world.recompute().await;
    let third = take(&world, &ground.place(), "b3").await;
    // The month's list, the new generation's rows and sessions; the head of the feed of publications and its entries.
    assert_eq!((third.new_objects, third.generations), (5, 5));
    assert_eq!(ground.place().backups().await.unwrap(), ["b1", "b2", "b3"]);
    assert_eq!(
        take(&world, &ground.place(), "b3").await.new_objects,
        5,
        "it was done"
    );
    assert_eq!(ground.place().backups().await.unwrap().len(), 3);
    let held = pins::held(world.stores.documents.as_ref(), world.tenant(), NOW)
        .await
        .unwrap();
    assert!(held.pins().is_empty(), "nothing stays pinned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_later_than_the_backup_are_computed_anew_from_the_archive() {
    let ground = Ground::new().await;
    let original = ground.original().await;
    take(&original, &ground.place(), "b1").await;
    let former = original.numbers().await;
    // After the backup: a new day, and late events of an old one.
    original.events("2026-03-07", 20).await;
    original.events(DAYS[1], 21).await;
    original.recompute().await;
    let last = original.numbers().await;
    assert_ne!(
        former.get(&day(DAYS[1])).unwrap().1,
        last.get(&day(DAYS[1])).unwrap().1
    );

    let new = ground.empty().await;
    let restored = restore(&new, &ground.place()).await;
    assert_eq!(restored.dirty_days, 2);
    assert_eq!(new.dirty().await, [DAYS[1], "2026-03-07"]);
    assert_eq!(new.numbers().await, former);
    new.recompute().await;
    let numbers = |all: crate::test_world::Numbers| {
        all.into_iter()
            .map(|(day, (_, rows, sessions))| (day, (rows, sessions)))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(new.numbers().await), numbers(last.clone()));
    for (day, (generation, ..)) in new.numbers().await {
        let before = last.get(&day).unwrap().0;
        let is_new = [DAYS[1], "2026-03-07"].contains(&day.to_string().as_str());
        assert_eq!(generation > restored.fence, is_new, "{day}");
        assert!(!is_new || generation != before, "a number is used once");
    }
    assert_eq!(new.dirty().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backup_taken_while_generations_are_published_shows_one_moment() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    let force = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    let (stop, stop_not) = (CancellationToken::new(), CancellationToken::new());
    let publishing = async {
        let mut rounds = 0;
        while !stop.is_cancelled() {
            world.clock.advance(Duration::from_millis(10));
            let done = world.layer.run_spec(world.tenant(), &force, &|_| {}, &stop_not);
            assert_eq!(done.await.unwrap().failed, 0);
            rounds += 1;
        }
        rounds
    };
    let backing_up = async {
        for number in 0..6 {
            take(&world, &ground.place(), &format!("b{number}")).await;
        }
        stop.cancel();
    };
    let (rounds, ()) = tokio::join!(publishing, backing_up);
    assert!(rounds > 0);
    let place = ground.place();
    let mut generations = 0;
    for id in place.backups().await.unwrap() {
        let manifest = place.backup(&id).await.unwrap();
        for part in &manifest.tenants[0].days {
            let days: Vec<BackedUpDay> =
                parts::from_json(&place.object(&part.object).await.unwrap()).unwrap();
            assert_eq!(days.len(), DAYS.len());
            for day in days {
                let of_then = |generation: &dwell_storage::backup::manifest::BackedUpGeneration| {
                    generation.info.published_at
                };
                let published = day.published.unwrap();
                let newest = day
                    .generations
                    .iter()
                    .max_by_key(|one| one.info.generation)
                    .unwrap();
                assert_eq!(newest.info.generation, published);
                for generation in &day.generations {
                    assert!(of_then(generation) <= manifest.taken_at);
                    let rows = place.object(&generation.rows).await.unwrap();
                    let rows = parts::decode_rows(&rows).unwrap();
                    assert_eq!(rows.len() as u64, generation.info.rows);
                    let real = world
                        .stores
                        .aggregates
                        .read(
                            &world.venue,
                            day.day,
                            generation.info.generation,
                            &RowFilter::default(),
                        )
                        .await
                        .unwrap();
                    assert_eq!(rows, real);
                    generations += 1;
                }
            }
        }
    }
    assert!(generations >= 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_dies_is_none_and_goes_on_where_it_was() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    let place = ground.place();
    for point in ["backup.after_pin", "backup.before_manifest"] {
        let guard = failpoints::set(point, "error").unwrap();
        assert!(try_take(&world, &place, "b1").await.is_err(), "{point}");
        assert!(place.backups().await.unwrap().is_empty(), "{point}");
        drop(guard);
        let held = pins::held(world.stores.documents.as_ref(), world.tenant(), NOW)
            .await
            .unwrap();
        assert!(
            held.holds_generation(&world.venue.venue, day(DAYS[0]), 1),
            "held until it is taken up"
        );
    }
    let guard = failpoints::set("backup.after_manifest", "error").unwrap();
    assert!(try_take(&world, &place, "b1").await.is_err());
    drop(guard);
    assert_eq!(place.backups().await.unwrap(), ["b1"]);
    let written = files(&ground.path("backups")).len();
    take(&world, &place, "b1").await;
    assert_eq!(
        files(&ground.path("backups")).len(),
        written,
        "found again, not written again"
    );
    // Another job may not write there meanwhile, and may once the former one is known to be dead.
    let guard = failpoints::set("backup.before_manifest", "error").unwrap();
    assert!(try_take(&world, &place, "b2").await.is_err());
    drop(guard);
    let error = try_take(&world, &place, "b3").await.unwrap_err();
    assert!(
        format!("{error:#}").contains("the job b2 is writing"),
        "{error:#}"
    );
    world.clock.advance(Duration::from_secs(600));
    take(&world, &place, "b3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_dies_anywhere_is_done_again() {
    let ground = Ground::new().await;
    let original = ground.original().await;
    fill(&original).await;
    take(&original, &ground.place(), "b1").await;
    let new = ground.empty().await;
    for point in [
        "restore_backup.before_tables",
        "restore_backup.after_month",
        "restore_backup.after_tables",
    ] {
        let guard = failpoints::set(point, "error").unwrap();
        assert!(
            try_restore(&new, &ground.place(), REALLY).await.is_err(),
            "{point}"
        );
        drop(guard);
        new.clock.advance(Duration::from_secs(1));
    }
    restore(&new, &ground.place()).await;
    assert_eq!(new.numbers().await, original.numbers().await);
    assert_eq!(new.dirty().await, Vec::<String>::new());
    // Once it has ended, what is here is no longer the restore's own.
    let error = try_restore(&new, &ground.place(), REALLY).await.unwrap_err();
    assert!(format!("{error:#}").contains("not empty"), "{error:#}");
    new.events(DAYS[0], 9).await;
    new.recompute().await;
    assert_ne!(new.numbers().await, original.numbers().await);
    let force = How {
        force: true,
        ..REALLY
    };
    let forced = try_restore(&new, &ground.place(), force).await.unwrap();
    assert_eq!(new.numbers().await, original.numbers().await);
    assert_eq!(
        (forced.dirty_days, new.dirty().await),
        (1, vec![DAYS[0].to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_named_and_nothing_is_written() {
    let ground = Ground::new().await;
    let original = ground.original().await;
    take(&original, &ground.place(), "b1").await;
    for object in files(&ground.path("backups/objects")) {
        let bytes = std::fs::read(&object).unwrap();
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        let new = World::open(&ground.path("new"), &ground.path("archive")).await;
        for content in [Some(damaged), None] {
            match content {
                Some(content) => std::fs::write(&object, content).unwrap(),
                None => std::fs::remove_file(&object).unwrap(),
            }
            let error = try_restore(&new, &ground.place(), REALLY).await.unwrap_err();
            let name = object.file_name().unwrap().to_str().unwrap();
            assert!(format!("{error:#}").contains(name), "{error:#} must name {name}");
            assert!(new.stores.registry.venues(new.tenant()).await.unwrap().is_empty());
        }
        std::fs::write(&object, bytes).unwrap();
    }
    restore(&ground.empty().await, &ground.place()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_archive_beside_it_a_backup_alone_brings_everything_back() {
    let ground = Ground::new().await;
    let original = ground.original().await;
    let place = ground.place();
    let with_archive = async |id: &str| {
        with_side(&original, &original.archive, &place, id, async |side| {
            taking::take(side, id, true).await.unwrap()
        })
        .await
    };
    let taken = with_archive("b1").await;
    assert_eq!((taken.archive_files, taken.new_archive_files), (4, 4));
    assert_eq!(with_archive("b2").await.new_archive_files, 0);
    std::fs::remove_dir_all(ground.path("archive")).unwrap();

    let new = ground.empty().await;
    let guard = failpoints::set("restore_backup.before_adopt", "error").unwrap();
    assert!(try_restore(&new, &place, REALLY).await.is_err());
    drop(guard);
    let restored = restore(&new, &place).await;
    assert_eq!((restored.archive_files, restored.dirty_days), (4, 0));
    assert_eq!(restored.without_archive, Vec::<String>::new());
    for date in DAYS {
        let report = new.layer.verify_day(&new.venue, day(date)).await;
        assert_eq!(
            report.outcome,
            dwell_batch_layer::report::Outcome::Verified,
            "{report:?}"
        );
    }
    let before = new.numbers().await;
    let force = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    new.layer
        .run_spec(new.tenant(), &force, &|_| {}, &CancellationToken::new())
        .await
        .unwrap();
    for (date, (_, rows, sessions)) in new.numbers().await {
        let known = before.get(&date).unwrap();
        assert!(rows == known.1 && sessions == known.2, "{date} from the archive");
    }

    // A file beside the backup that was damaged is named.
    let kept = files(&ground.path("backups/archive"));
    assert_eq!(kept.len(), 4);
    let mut bytes = std::fs::read(&kept[0]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&kept[0], bytes).unwrap();
    let third = World::open(&ground.path("third"), &ground.path("other-archive")).await;
    let error = try_restore(&third, &place, REALLY).await.unwrap_err();
    let name = kept[0].file_name().unwrap().to_str().unwrap();
    assert!(format!("{error:#}").contains(name), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_compares_rows_and_computes_days_from_the_archive() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    let place = ground.place();
    take(&world, &place, "b1").await;
    let scratch = ground.path("scratch");
    let drilled = async || {
        let manifest = place.backup("b1").await.unwrap();
        with_side(&world, &world.archive, &place, "d", async |side| {
            let config = world.layer.config();
            drill::drill(side, &manifest, config, &scratch, 3).await.unwrap()
        })
        .await
    };
    let archive_before = files(&ground.path("archive"));
    let good = drilled().await;
    assert_eq!(good.differences, Vec::<String>::new());
    assert_eq!((good.days_compared, good.days_recomputed), (4, 3));
    let rows: usize = world
        .numbers()
        .await
        .values()
        .map(|(_, rows, _)| rows.len())
        .sum();
    assert_eq!(good.rows_compared, rows as u64);
    assert!(!scratch.exists(), "the scratch folder is gone");
    assert_eq!(
        files(&ground.path("archive")),
        archive_before,
        "the archive was only read"
    );

    // Somebody changed a row since: the backup says so.
    let (_, mut rows, _) = world.numbers().await.remove(&day(DAYS[0])).unwrap();
    let generation = world.numbers().await.get(&day(DAYS[0])).unwrap().0;
    rows.pop();
    world
        .stores
        .aggregates
        .write(&world.venue, day(DAYS[0]), generation, rows)
        .await
        .unwrap();
    let bad = drilled().await;
    assert_eq!(bad.differing, 1);
    assert!(bad.differences[0].contains(DAYS[0]), "{:?}", bad.differences);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_backups_go_and_what_others_name_stays() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    let place = ground.place();
    take(&world, &place, "b1").await;
    world.events(DAYS[0], 9).await;
    world.recompute().await;
    world.clock.advance(Duration::from_secs(3 * 86_400));
    take(&world, &place, "b2").await;
    let objects = files(&ground.path("backups/objects")).len();
    let keep = Keep {
        count: Some(1),
        days: None,
    };
    // Their files are dated by the machine's clock, which nobody moves.
    let later = i64::MAX / 2;
    let pruned = pruning::prune(&place, keep, later).await.unwrap();
    assert_eq!(pruned.backups, ["b1"]);
    assert!(pruned.swept.objects > 0);
    assert_eq!(
        files(&ground.path("backups/objects")).len() as u64,
        objects as u64 - pruned.swept.objects
    );
    let new = ground.empty().await;
    restore(&new, &place).await;
    assert_eq!(new.numbers().await, world.numbers().await);
    // A manifest that cannot be read keeps everything.
    std::fs::write(ground.path("backups/manifests/b3.json"), "rubbish").unwrap();
    assert!(pruning::prune(&place, keep, later).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_pseudonyms_leave_old_backups_when_their_time_is_over() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    fill(&world).await;
    let place = ground.place();
    take(&world, &place, "b1").await;
    assert_eq!(files(&ground.path("backups/keys")).len(), 1);
    let secret = hex::encode([2_u8; 32]);
    let holds_secret =
        |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(&secret);
    assert!(files(&ground.path("backups/keys")).iter().any(holds_secret));
    world.clock.advance(Duration::from_secs(3 * 86_400));
    let second = take(&world, &place, "b2").await;
    assert_eq!(second.destroyed_keys, 1);
    assert!(!files(&ground.path("backups")).iter().any(holds_secret));
    // The older backup can still be brought back, without them.
    let new = ground.empty().await;
    let manifest = place.backup("b1").await.unwrap();
    let restored = with_side(&new, &new.archive, &place, "r", async |side| {
        restoring::restore(side, &manifest, REALLY).await.unwrap()
    })
    .await;
    assert_eq!(restored.pseudonym_keys, 0);
    assert_eq!(
        new.stores
            .pseudonym_keys
            .look_up(&new.venue, day("2026-03-09"))
            .await
            .unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_mix_two_installations_is_refused() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    take(&world, &ground.place(), "b1").await;
    let stranger = World::with_days(&ground.path("other"), &ground.path("others"), &DAYS[..1]).await;
    let error = try_take(&stranger, &ground.place(), "b2").await.unwrap_err();
    assert!(
        format!("{error:#}").contains("choose another folder"),
        "{error:#}"
    );
    let error = try_restore(&stranger, &ground.place(), REALLY).await.unwrap_err();
    assert!(format!("{error:#}").contains("default/shop"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_cannot_be_read_is_named_and_the_rest_is_taken() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    let generation = world.numbers().await.get(&day(DAYS[0])).unwrap().0;
    world
        .stores
        .aggregates
        .delete(&world.venue, day(DAYS[0]), generation)
        .await
        .unwrap();
    let taken = try_take(&world, &ground.place(), "b1").await.unwrap();
    assert_eq!((taken.problems.len(), taken.generations), (1, 3));
    assert!(taken.problems[0].contains(DAYS[0]), "{:?}", taken.problems);
    let new = ground.empty().await;
    restore(&new, &ground.place()).await;
    assert_eq!(new.dirty().await, [DAYS[0]], "computed anew from the archive");
    new.recompute().await;
    assert_eq!(new.numbers().await.len(), 4);
}

#[test]
fn the_newest_backups_and_the_young_ones_are_kept() {
    let manifests: Vec<_> = (0..6_i64)
        .map(|age| {
            let text = json!({
                "format": 1, "id": format!("b{}", 9 - age), "installation": "i", "taken_at": NOW - age * DAY_MS,
                "finished_at": 0, "dwell": "", "log_epoch": 0, "archive": "", "tenants": [], "keys": [], "days": 0,
                "generations": 0, "objects": 0, "bytes": 0, "new_objects": 0
            });
            serde_json::from_value(text).unwrap()
        })
        .collect();
    let gone = |count, days| not_kept(&manifests, Keep { count, days }, NOW);
    assert_eq!(gone(None, None), Vec::<String>::new(), "nothing was asked for");
    assert_eq!(gone(Some(4), None), ["b4", "b5"]);
    assert_eq!(gone(Some(0), None).len(), 5, "the newest stays");
    assert_eq!(gone(None, Some(2)), ["b4", "b5", "b6"]);
    assert_eq!(gone(Some(5), Some(2)), ["b4"]);
    assert_eq!(gone(None, Some(u64::MAX)), Vec::<String>::new());
}
