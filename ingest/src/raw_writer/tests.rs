use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dwell_model::event::{EventBatch, Kind, RawRows};
use dwell_model::ids::{Receipt, VenueKey};
use dwell_model::testing::position_batch;
use dwell_model::time::{SLOT_MS, TsMs};
use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::SystemClock;
use dwell_runtime::failpoints;
use dwell_runtime::shutdown::{Phase, PhaseBounds, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_storage::api::{
    EventLogAdmin, EventLogWriter, LogBounds, LogChunk, LogLag, LogRecord, LoggedRecord, MarkSource,
    OnlyMember, Partition, Position, RawApplied, RawEventsReader, RawEventsWriter, RawWrite, Shard,
};
use dwell_storage::error::{ErrorKind, Result as StorageResult};

use super::*;
use crate::testing::{NOW, World, key, receipt};

/// Failpoints are global: tests that pass the raw writer's take turns.
static FAILPOINTS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

fn stores(world: &World) -> RawWriterStores {
    RawWriterStores {
        log: Arc::clone(&world.stores.log) as _,
        raw: Arc::clone(&world.stores.raw) as _,
        quarantine: Arc::clone(&world.stores.quarantine) as _,
    }
}

fn only_member() -> Arc<dyn GroupMember> {
    Arc::new(OnlyMember::new(BTreeSet::from([0])))
}

fn writer(world: &World) -> Service {
    writer_with(world, Config::default())
}

fn writer_with(world: &World, config: Config) -> Service {
    Service::new(config, stores(world), only_member(), world.clock.shared(), None).0
}

type Event = (&'static str, &'static str, TsMs, f32, f32);

async fn append(world: &World, venue: &str, number: u128, events: &[Event]) {
    let record = LogRecord {
        venue: key(venue),
        receipt: receipt(number),
        events: position_batch(events),
        received_at: None,
    };
    world.stores.log.append(vec![record]).await.unwrap();
}

/// Rows of a venue as `(ts, track, x, receipts)`, from the raw table.
async fn rows(world: &World, venue: &str) -> Vec<(TsMs, String, f32, Vec<Receipt>)> {
    let day = NOW - 86_400_000..NOW + 86_400_000;
    let found = world
        .stores
        .raw
        .scan(&key(venue), Kind::Position, day)
        .await
        .unwrap();
    found.check().unwrap();
    (0..found.len())
        .map(|row| {
            let receipts = found
                .deliveries(row)
                .iter()
                .map(|delivery| delivery.receipt)
                .collect();
            (
                found.events.ts[row],
                found.events.key(row).to_owned(),
                found.events.f32s(0)[row],
                receipts,
            )
        })
        .collect()
}

async fn marks(world: &World, venue: &str) -> BTreeMap<i64, i64> {
    let source = MarkSource::log(world.stores.log.epoch(), 0);
    let day: Range<TsMs> = NOW - 86_400_000..NOW + 86_400_000;
    let slots = world.stores.raw.marked_slots(&key(venue), day).await.unwrap();
    slots
        .into_iter()
        .map(|(slot, marks)| (slot, marks.0[&source]))
        .collect()
}

/// A few records with a redelivery, a correction and two venues; what the raw table must hold of them.
async fn append_samples(world: &World) -> Vec<(TsMs, String, f32, Vec<Receipt>)> {
    append(
        world,
        "v1",
        1,
        &[("s", "a", NOW, 1.0, 1.0), ("s", "b", NOW + 5, 2.0, 2.0)],
    )
    .await;
    append(world, "v2", 2, &[("s", "z", NOW, 9.0, 9.0)]).await;
    append(
        world,
        "v1",
        3,
        &[("s", "a", NOW, 1.0, 1.0), ("s", "a", NOW - SLOT_MS, 3.0, 3.0)],
    )
    .await;
    append(world, "v1", 4, &[("s", "b", NOW + 5, 2.5, 2.0)]).await;
    let row = |ts, track: &str, x, receipts: &[u128]| {
        (
            ts,
            track.to_owned(),
            x,
            receipts.iter().map(|&number| receipt(number)).collect(),
        )
    };
    vec![
        row(NOW - SLOT_MS, "a", 3.0, &[3]),
        row(NOW, "a", 1.0, &[1, 3]),
        row(NOW + 5, "b", 2.0, &[1]),
        row(NOW + 5, "b", 2.5, &[4]),
    ]
}

/// Rows in one order, whatever order the store gives equal times and tracks.
fn sorted(mut rows: Vec<(TsMs, String, f32, Vec<Receipt>)>) -> Vec<(TsMs, String, f32, Vec<Receipt>)> {
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)).then(a.2.total_cmp(&b.2)));
    rows.iter_mut().for_each(|row| row.3.sort());
    rows
}

#[tokio::test]
async fn the_log_is_copied_with_deliveries_marks_and_position() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let expected = append_samples(&world).await;
    let mut service = writer(&world);
    let progress = service.run_once().await.unwrap();
    assert_eq!((progress.steps, progress.new_rows), (1, 5));
    assert_eq!(sorted(rows(&world, "v1").await), expected);
    assert_eq!(rows(&world, "v2").await.len(), 1);
    // The first record of the log stands at its start.
    let start = world.stores.log.bounds(0).await.unwrap().start;
    let slot = NOW / SLOT_MS;
    assert_eq!(
        marks(&world, "v1").await,
        BTreeMap::from([(slot - 1, start + 2), (slot, start + 3)])
    );
    assert_eq!(marks(&world, "v2").await, BTreeMap::from([(slot, start + 1)]));
    let epoch = world.stores.log.epoch();
    assert_eq!(
        world.stores.raw.position(CONSUMER, epoch, 0).await.unwrap(),
        Some(start + 4)
    );
    assert_eq!(service.run_once().await.unwrap(), Progress::default());
    assert_eq!(writer(&world).run_once().await.unwrap(), Progress::default());
}

#[tokio::test]
async fn steps_of_any_size_end_in_the_same_rows() {
    let _shared = FAILPOINTS.read().await;
    for step_bytes in [1, 150, 1 << 20] {
        let world = World::new().await;
        let expected = append_samples(&world).await;
        let progress = writer_with(
            &world,
            Config {
                step_bytes,
                ..Config::default()
            },
        )
        .run_once()
        .await
        .unwrap();
        assert!(step_bytes > 1 || progress.steps == 4);
        assert_eq!(sorted(rows(&world, "v1").await), expected);
    }
}

#[tokio::test]
async fn a_crash_before_or_after_a_write_changes_nothing_in_the_end() {
    let _alone = FAILPOINTS.write().await;
    for point in ["raw_writer.before_apply", "raw_writer.after_apply"] {
        for step in 1..=4 {
            let world = World::new().await;
            let expected = append_samples(&world).await;
            {
                let _set = failpoints::set(point, &format!("{}*off->error", step - 1)).unwrap();
                let config = Config {
                    step_bytes: 1,
                    ..Config::default()
                };
                // The service that failed is dropped with everything it knew, as by the death of its process.
                assert!(matches!(
                    writer_with(&world, config).run_once().await,
                    Err(Error::Injected(_))
                ));
            }
            writer(&world).run_once().await.unwrap();
            assert_eq!(sorted(rows(&world, "v1").await), expected, "{point} {step}");
            let start = world.stores.log.bounds(0).await.unwrap().start;
            assert_eq!(
                marks(&world, "v1").await.into_values().collect::<Vec<_>>(),
                [start + 2, start + 3]
            );
        }
    }
}

#[tokio::test]
async fn a_position_that_the_log_no_longer_has_stops_the_partition_and_is_named() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    append(&world, "v1", 1, &[("s", "a", NOW, 1.0, 1.0)]).await;
    writer(&world).run_once().await.unwrap();
    append(&world, "v1", 2, &[("s", "b", NOW, 1.0, 1.0)]).await;
    append(&world, "v1", 3, &[("s", "c", NOW, 1.0, 1.0)]).await;
    let end = world.stores.log.bounds(0).await.unwrap().end;
    assert_eq!(world.stores.log.trim(0, NOW + 1, end - 1).await.unwrap(), 2);

    let controller = ShutdownController::new(PhaseBounds::default());
    let readiness = Readiness::new(&controller);
    let check = readiness.register("raw writer");
    let (service, handle) = Service::new(
        Config::default(),
        stores(&world),
        only_member(),
        world.clock.shared(),
        Some(check),
    );
    let error = service
        .run(controller.register(Phase::DrainIngest, "raw writer"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("events may be missing"), "{error}");
    assert!(matches!(
        handle.caught_up_to(0, end).await,
        Err(WaitError::Stopped { partition: 0, .. })
    ));
    assert!(handle.status(0).unwrap().stopped.is_some());
    // What is behind the gap was not copied as if nothing were missing.
    assert_eq!(rows(&world, "v1").await.len(), 1);
}

#[tokio::test]
async fn a_running_writer_follows_the_log_and_says_how_far_it_is() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let controller = ShutdownController::default();
    let readiness = Readiness::new(&controller);
    let check = readiness.register("raw writer");
    let clock = SystemClock::shared();
    let (service, handle) = Service::new(
        Config::default(),
        stores(&world),
        only_member(),
        SharedClock::clone(&clock),
        Some(check),
    );
    let tasks = Tasks::new(controller.clone());
    let token = controller.register(Phase::DrainIngest, "raw writer");
    let running = tasks.spawn("raw writer", TaskPolicy::Essential, service.run(token));
    for number in 0..20_u128 {
        append(&world, "v1", number, &[("s", "a", NOW + number as i64, 1.0, 1.0)]).await;
        handle.caught_up(&*world.stores.log).await.unwrap();
        assert_eq!(rows(&world, "v1").await.len(), number as usize + 1);
    }
    assert!(readiness.report().ready, "{:?}", readiness.report());
    assert_eq!(
        handle.position(0),
        Some(world.stores.log.bounds(0).await.unwrap().end)
    );
    // What was appended before the end is copied before it.
    append(&world, "v1", 99, &[("s", "late", NOW, 1.0, 1.0)]).await;
    controller
        .run_to_completion(std::time::Duration::from_secs(10), &*clock)
        .await;
    running.join().await.unwrap();
    assert_eq!(rows(&world, "v1").await.len(), 21);
    assert!(matches!(
        handle.caught_up_to(0, i64::MAX).await,
        Err(WaitError::Ended)
    ));
}

#[tokio::test]
async fn the_lag_counts_events_and_their_age() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let (mut service, handle) = Service::new(
        Config::default(),
        stores(&world),
        only_member(),
        world.clock.shared(),
        None,
    );
    service.run_once().await.unwrap();
    assert_eq!(handle.lag(), RawLag::default());
    append(
        &world,
        "v1",
        1,
        &[("s", "a", NOW, 1.0, 1.0), ("s", "b", NOW, 1.0, 1.0)],
    )
    .await;
    append(&world, "v1", 2, &[("s", "c", NOW, 1.0, 1.0)]).await;
    measure(&service.end.0, &*service.stores.log).await;
    world.clock.advance(std::time::Duration::from_secs(7));
    assert_eq!(handle.lag(), RawLag { events: 3, ms: 7_000 });
    service.run_once().await.unwrap();
    assert_eq!(handle.lag(), RawLag::default());
}

/// A group whose assignment the test decides.
struct Assigned(tokio::sync::watch::Sender<BTreeSet<Shard>>);

impl GroupMember for Assigned {
    fn shards(&self) -> tokio::sync::watch::Receiver<BTreeSet<Shard>> {
        self.0.subscribe()
    }
    fn mirror(&self, _: Partition, _: Position) {}
}

#[tokio::test]
async fn a_shard_that_is_taken_away_is_left_alone_and_one_that_comes_back_goes_on_where_raw_stands() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let controller = ShutdownController::default();
    let member = Arc::new(Assigned(tokio::sync::watch::Sender::new(BTreeSet::new())));
    let (service, handle) = Service::new(
        Config::default(),
        stores(&world),
        Arc::clone(&member) as _,
        SystemClock::shared(),
        None,
    );
    let tasks = Tasks::new(controller.clone());
    let token = controller.register(Phase::DrainIngest, "raw writer");
    let running = tasks.spawn("raw writer", TaskPolicy::Essential, service.run(token));
    let is_copied = |expected: bool| {
        let handle = handle.clone();
        async move {
            while handle.status(0).is_some() != expected {
                tokio::task::yield_now().await;
            }
        }
    };

    append(&world, "v1", 1, &[("s", "a", NOW, 1.0, 1.0)]).await;
    assert!(matches!(
        handle.caught_up(&*world.stores.log).await,
        Err(WaitError::NotMine(0))
    ));
    member.0.send_replace(BTreeSet::from([0]));
    is_copied(true).await;
    handle.caught_up(&*world.stores.log).await.unwrap();
    assert_eq!(rows(&world, "v1").await.len(), 1);

    member.0.send_replace(BTreeSet::new());
    is_copied(false).await;
    append(&world, "v1", 2, &[("s", "b", NOW, 1.0, 1.0)]).await;
    // Another raw writer goes on meanwhile.
    writer(&world).run_once().await.unwrap();
    append(&world, "v1", 3, &[("s", "c", NOW, 1.0, 1.0)]).await;
    assert_eq!(rows(&world, "v1").await.len(), 2);

    member.0.send_replace(BTreeSet::from([0]));
    is_copied(true).await;
    handle.caught_up(&*world.stores.log).await.unwrap();
    let rows = sorted(rows(&world, "v1").await);
    assert_eq!(
        rows.iter().map(|row| row.3.len()).collect::<Vec<_>>(),
        [1, 1, 1],
        "nothing was copied twice: {rows:?}"
    );
    controller
        .run_to_completion(std::time::Duration::from_secs(10), &*SystemClock::shared())
        .await;
    running.join().await.unwrap();
}

#[tokio::test]
async fn the_lag_is_seen_from_stored_positions_by_a_process_without_a_raw_writer() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let seen = StoredLag::new(world.clock.shared());
    assert_eq!(seen.lag(), RawLag::default());
    append(
        &world,
        "v1",
        1,
        &[("s", "a", NOW, 1.0, 1.0), ("s", "b", NOW, 1.0, 1.0)],
    )
    .await;
    seen.run_once(&*world.stores.log, &*world.stores.raw)
        .await
        .unwrap();
    world.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(seen.lag(), RawLag { events: 2, ms: 5_000 });
    writer(&world).run_once().await.unwrap();
    seen.run_once(&*world.stores.log, &*world.stores.raw)
        .await
        .unwrap();
    assert_eq!(seen.lag(), RawLag::default());
}

/// A log in memory in which some records are damaged: unreadable, or with columns that do not fit.
#[derive(Debug, Default)]
struct DamagedLog {
    events: Vec<EventBatch>,
    unreadable: Vec<Position>,
}

impl DamagedLog {
    fn record(&self, position: Position) -> StorageResult<LoggedRecord> {
        if self.unreadable.contains(&position) {
            return Err(StorageError::new(
                ErrorKind::Damaged,
                format!("the record at position {position}"),
            ));
        }
        let events = self.events[position as usize].clone();
        Ok(LoggedRecord {
            position,
            received_at: NOW,
            venue: key("v1"),
            receipt: receipt(1),
            events,
        })
    }
}

#[async_trait]
impl EventLogReader for DamagedLog {
    fn partitions(&self) -> u32 {
        1
    }
    fn shards(&self) -> u32 {
        1
    }

    fn shard_of(&self, _: &VenueKey) -> Shard {
        0
    }

    fn partitions_of(&self, _: Shard) -> Vec<Partition> {
        vec![0]
    }

    fn partition_of(&self, _: &VenueKey, _: Kind) -> Partition {
        0
    }
    fn epoch(&self) -> u64 {
        7
    }
    async fn read(&self, _: Partition, from: Position, max_bytes: usize) -> StorageResult<LogChunk> {
        let end = self.events.len() as Position;
        let to = if max_bytes == 1 { (from + 1).min(end) } else { end };
        let records = (from..to)
            .map(|position| self.record(position))
            .collect::<StorageResult<Vec<_>>>()?;
        Ok(LogChunk { records, next: to })
    }
    async fn bounds(&self, _: Partition) -> StorageResult<LogBounds> {
        Ok(LogBounds {
            start: 0,
            end: self.events.len() as Position,
        })
    }
    async fn lag(&self, _: Partition, _: Position) -> StorageResult<LogLag> {
        Ok(LogLag::default())
    }
    async fn wait(&self, _: Partition, _: Position, _: std::time::Duration) -> StorageResult<bool> {
        Ok(false)
    }
}

#[tokio::test]
async fn damaged_records_are_named_in_the_quarantine_and_stall_nobody() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let good = |n: i64| position_batch(&[("s", "a", NOW + n, 1.0, 1.0)]);
    let mut misfit = good(2);
    misfit.key[0] = 99;
    let log = DamagedLog {
        events: vec![good(0), good(1), misfit, good(3), good(4), good(5)],
        unreadable: vec![1, 4],
    };
    let damaged = || RawWriterStores {
        log: Arc::new(DamagedLog {
            events: log.events.clone(),
            unreadable: log.unreadable.clone(),
        }),
        ..stores(&world)
    };
    let (mut service, _) = Service::new(
        Config::default(),
        damaged(),
        only_member(),
        world.clock.shared(),
        None,
    );
    service.run_once().await.unwrap();
    assert_eq!(
        rows(&world, "v1")
            .await
            .iter()
            .map(|row| row.0 - NOW)
            .collect::<Vec<_>>(),
        [0, 3, 5]
    );
    assert_eq!(world.stores.raw.position(CONSUMER, 7, 0).await.unwrap(), Some(6));
    // The one that could be read belongs to somebody; the others to nobody.
    let mine = world.quarantined().await;
    assert_eq!(
        (mine.len(), mine[0].code.as_str(), mine[0].index),
        (1, "damaged_record", 2)
    );
    assert!(mine[0].message.contains("7/0/2"), "{}", mine[0].message);
    let nobody = dwell_model::ids::TenantId::new("_dwell").unwrap();
    let all = dwell_storage::api::QuarantineFilter::default();
    let others = world
        .stores
        .quarantine
        .list(&nobody, &all, None, 10)
        .await
        .unwrap();
    let mut positions: Vec<u64> = others.iter().map(|entry| entry.index).collect();
    positions.sort_unstable();
    assert_eq!(positions, [1, 4]);
}

#[tokio::test]
async fn a_log_that_is_damaged_through_and_through_is_not_skipped_over() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let events = vec![position_batch(&[("s", "a", NOW, 1.0, 1.0)]); 300];
    let log = DamagedLog {
        events,
        unreadable: (0..300).collect(),
    };
    let damaged = RawWriterStores {
        log: Arc::new(log),
        ..stores(&world)
    };
    let (mut service, _) = Service::new(
        Config::default(),
        damaged,
        only_member(),
        world.clock.shared(),
        None,
    );
    let error = service.run_once().await.unwrap_err();
    assert!(
        matches!(&error, Error::Stuck(what) if what.contains("100 records in a row")),
        "{error}"
    );
}

/// A raw table that is out of reach for the first few calls.
struct Flaky {
    raw: Arc<dyn RawEvents>,
    failures: AtomicUsize,
}

#[async_trait]
impl RawEventsWriter for Flaky {
    async fn apply(&self, write: RawWrite) -> StorageResult<RawApplied> {
        let left = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            // Half of the write may have happened: here all of it has, and the answer got lost.
            self.raw.apply(write).await?;
            return Err(StorageError::new(ErrorKind::Unavailable, "the answer got lost"));
        }
        self.raw.apply(write).await
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> StorageResult<u64> {
        self.raw.erase(venue, rows).await
    }

    async fn delete_compared(&self, slot: dwell_storage::api::ComparedSlot) -> StorageResult<()> {
        self.raw.delete_compared(slot).await
    }
}

#[async_trait]
impl RawEventsReader for Flaky {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> StorageResult<RawRows> {
        self.raw.scan(venue, kind, range).await
    }
    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> StorageResult<Vec<(Kind, u64)>> {
        self.raw.count(venue, range).await
    }
    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> StorageResult<dwell_storage::api::Marks> {
        self.raw.marks(venue, range).await
    }
    async fn marked_slots(
        &self,
        venue: &VenueKey,
        range: Range<TsMs>,
    ) -> StorageResult<Vec<(i64, dwell_storage::api::Marks)>> {
        self.raw.marked_slots(venue, range).await
    }
    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> StorageResult<Vec<(i64, TsMs)>> {
        self.raw.marked_at(venue, range).await
    }
    async fn now_ms(&self) -> StorageResult<TsMs> {
        self.raw.now_ms().await
    }
    async fn position(
        &self,
        consumer: &str,
        epoch: u64,
        partition: Partition,
    ) -> StorageResult<Option<Position>> {
        self.raw.position(consumer, epoch, partition).await
    }
}

#[tokio::test]
async fn failures_that_pass_are_waited_out() {
    let _shared = FAILPOINTS.read().await;
    let world = World::new().await;
    let expected = append_samples(&world).await;
    let flaky = Flaky {
        raw: Arc::clone(&world.stores.raw) as _,
        failures: AtomicUsize::new(3),
    };
    let controller = ShutdownController::default();
    let stores = RawWriterStores {
        raw: Arc::new(flaky),
        ..stores(&world)
    };
    let (service, handle) = Service::new(
        Config::default(),
        stores,
        only_member(),
        SystemClock::shared(),
        None,
    );
    let tasks = Tasks::new(controller.clone());
    let running = tasks.spawn(
        "raw writer",
        TaskPolicy::Log,
        service.run(controller.register(Phase::DrainIngest, "raw writer")),
    );
    handle.caught_up(&*world.stores.log).await.unwrap();
    assert_eq!(handle.status(0).unwrap().waiting, None);
    assert_eq!(sorted(rows(&world, "v1").await), expected);
    controller
        .run_to_completion(std::time::Duration::from_secs(10), &SystemClock::new())
        .await;
    running.join().await.unwrap();
}
