//! For tests: a venue on the embedded stores, a clock that the test moves, a raw writer that it drives, and what the
//! batch computation makes of everything that was posted.

pub(crate) mod events;
pub(crate) mod kind_log;
pub(crate) mod live_table;

use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::{Delivery, EventBatch, Kind, RawRows, resolve};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::{Layout, Venue, VenueSpec};
use dwell_model::metrics::{AggregateRow, Carry, DayAccumulator, Family, Grain, Value, ZoneValue};
use dwell_model::session::{DayFold, FoldContext};
use dwell_model::time::{DayCut, LocalDay, TsMs, slot_of};
use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::{Clock, ManualClock};
use dwell_runtime::shutdown::ShutdownController;
use dwell_runtime::tasks::Tasks;
use dwell_storage::api::{
    Checkpoints, ConsumerPosition, EventLog, Flip, GenerationInfo, LateLedger, LiveVenue, LogRecord, Mark,
    MarkSource, Marks, OnlyMember, Partition, RawEventsReader, RawEventsWriter, RawWrite, Registry,
    VenueDaysReader, VenueDaysWriter,
};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use tempfile::TempDir;

use crate::config::Config;
use crate::handle::Handle;
use crate::rebuild::RAW_WRITER;
use crate::service::Deps;
use crate::shard::{Context, Shard};
use crate::testing::kind_log::KindLog;

/// Two zones side by side over 10 × 8 metres, and one of another layer across both.
pub(crate) const ZONES: &str = r#"
    {"id":"left","polygon":[[0,0],[5,0],[5,8],[0,8]]},
    {"id":"right","polygon":[[5,0],[10,0],[10,8],[5,8]]},
    {"id":"island","layer":"b","polygon":[[2.1,1.03],[7.4,1.5],[3.0,5.2]]}"#;

/// A venue of one tenant, and everything around it.
pub(crate) struct Shop {
    folder: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) stores: SqliteStores,
    pub(crate) deps: Deps,
    /// The log, where it was split.
    pub(crate) kind_log: Option<Arc<KindLog>>,
    pub(crate) config: Config,
    pub(crate) handle: Handle,
    pub(crate) venue: VenueKey,
    posted: std::sync::Mutex<Vec<(EventBatch, Delivery)>>,
    /// What the batch computation leaves out: the rule written down by the test.
    pub(crate) left_out: std::sync::Mutex<fn(&str, TsMs, &Delivery) -> bool>,
    receipts: std::sync::atomic::AtomicU64,
}

/// A venue's description with the given zones. It has opening hours, two nights' stretches among them, and staff, so that
/// every comparison with the batch computation compares the slices too.
pub(crate) fn venue_spec(tz: &str, zones: &str) -> Venue {
    let json = format!(
        r#"{{"id":"shop","tz":"{tz}","width":10,"height":8,"zones":[{zones}],
            "lines":[{{"id":"door","role":"entrance"}}],
            "sensors":[{{"id":"own","track_scope":"sensor"}},{{"id":"s1","interval_ms":60000}}],
            "opening_hours":{{"weekly":{{"sat":[["09:30","12:10"],["23:45","02:20"]],"sun":[["10:00","23:59"]],
                "mon":[["08:00","20:00"]],"tue":[["12:01","12:02"],["13:00","01:00"]]}}}},
            "staff_tags":["t3","t1"]}}"#
    );
    serde_json::from_str::<VenueSpec>(&json)
        .unwrap()
        .to_venue(None)
        .unwrap()
}

pub(crate) fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

impl Shop {
    /// A shop at a moment of a local day, given in hours after the day's start.
    pub(crate) async fn open(tz: &str, of: &str, hours: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(0);
        let stores = SqliteStores::open(&DataPaths::new(folder.path()), clock.shared())
            .await
            .unwrap();
        let controller = ShutdownController::default();
        let config = Config::default();
        let handle = Handle::new(&config, false);
        let deps = Deps {
            log: Arc::clone(&stores.log) as Arc<dyn EventLog>,
            raw: Arc::clone(&stores.raw) as Arc<dyn RawEventsReader>,
            checkpoints: Arc::clone(&stores.checkpoints) as Arc<dyn Checkpoints>,
            registry: Arc::clone(&stores.registry) as Arc<dyn Registry>,
            venue_days: Arc::clone(&stores.venue_days) as _,
            documents: Arc::clone(&stores.documents) as _,
            live_table: None,
            erasures: None,
            clock: clock.shared(),
            tasks: Tasks::new(controller.clone()),
            readiness: Readiness::new(&controller),
        };
        let tenant = TenantId::new("acme").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        let venue = VenueKey::new(tenant, VenueId::new("shop").unwrap());
        let shop = Self {
            folder,
            clock,
            stores,
            deps,
            kind_log: None,
            config,
            handle,
            venue,
            posted: Default::default(),
            left_out: std::sync::Mutex::new(|_, _, _| false),
            receipts: Default::default(),
        };
        shop.put_venue(&venue_spec(tz, ZONES)).await;
        shop.clock.set_ms(shop.at(of, hours).await);
        shop
    }

    pub(crate) async fn put_venue(&self, venue: &Venue) {
        let registry = &self.stores.registry;
        let version = registry
            .venue(&self.venue)
            .await
            .unwrap()
            .map(|stored| stored.version);
        assert_eq!(
            registry
                .put_venue(&self.venue.tenant, venue, version)
                .await
                .unwrap(),
            Flip::Done
        );
    }

    /// The venue as the registry has it.
    pub(crate) async fn described(&self) -> Venue {
        self.stores
            .registry
            .venue(&self.venue)
            .await
            .unwrap()
            .unwrap()
            .venue
    }

    /// The instant so many hours after a local day's start.
    pub(crate) async fn at(&self, of: &str, hours: f64) -> TsMs {
        self.described().await.calendar.bounds(day(of)).0 + (hours * 3_600_000.0) as i64
    }

    pub(crate) fn now(&self) -> TsMs {
        self.clock.now_ms()
    }

    pub(crate) fn pass(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
    }

    /// Appends events to the log as one request.
    pub(crate) async fn post(&self, events: EventBatch) {
        self.post_received(events, None).await;
    }

    /// The same for a file whose import began at a time.
    pub(crate) async fn post_received(&self, events: EventBatch, received_at: Option<TsMs>) {
        let number = self.receipts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.post_as(u128::from(number), events, received_at).await;
    }

    /// The same with the receipt of an earlier request.
    pub(crate) async fn post_again(&self, receipt: u128, events: EventBatch) {
        self.post_as(receipt, events, None).await;
    }

    async fn post_as(&self, receipt: u128, events: EventBatch, received_at: Option<TsMs>) {
        let receipt = Receipt::from_u128(receipt);
        let record = LogRecord {
            venue: self.venue.clone(),
            receipt,
            events: events.clone(),
            received_at,
        };
        let appended = self.deps.log.append(vec![record]).await.unwrap();
        let delivery = Delivery {
            received_at: appended[0].received_at,
            receipt,
        };
        self.posted.lock().unwrap().push((events, delivery));
    }

    /// Appends events of any venue, which the batch computation does not look at.
    pub(crate) async fn append_for(&self, venue: &VenueKey, events: EventBatch) {
        let receipt = Receipt::from_u128(u128::MAX);
        let record = LogRecord {
            venue: venue.clone(),
            receipt,
            events,
            received_at: None,
        };
        self.deps.log.append(vec![record]).await.unwrap();
    }

    /// Publishes a generation of a day with nothing in it but a carry.
    pub(crate) async fn publish(&self, of: &str, provisional: bool, carry: Carry) {
        let days = &self.stores.venue_days;
        let lease = days
            .acquire(&self.venue, day(of), "test", self.now(), 60_000)
            .await
            .unwrap()
            .unwrap();
        let before = days
            .get(&self.venue, day(of))
            .await
            .unwrap()
            .and_then(|row| row.published);
        let calendar = self.described().await.calendar;
        let (day_start, day_end) = calendar.bounds(day(of));
        let info = GenerationInfo {
            generation: lease.fence,
            published_at: self.now(),
            duration_ms: 0,
            provisional,
            lagging: false,
            reason: "test".into(),
            calendar,
            day_start,
            day_end,
            layout: 0,
            definitions: 1,
            marks: Marks::default(),
            events: Default::default(),
            conflicts: 0,
            rows: 0,
            sessions: 0,
            files: Vec::new(),
            late: LateLedger::default(),
            drift: None,
            changed: None,
            carry,
            carry_in: Carry::default(),
            exclusions: Default::default(),
            slices: None,
        };
        let flip = days
            .publish(&lease, before.map(|info| info.generation), info)
            .await
            .unwrap();
        assert_eq!(flip, Flip::Done);
        days.release(&lease).await.unwrap();
    }

    /// What the raw writer does: copies the log into raw with marks and positions.
    pub(crate) async fn write_raw(&self) {
        for partition in 0..self.deps.log.partitions() {
            self.write_raw_of(partition).await;
        }
    }

    /// The same for one partition.
    pub(crate) async fn write_raw_of(&self, partition: Partition) {
        let (log, raw) = (&self.deps.log, &self.stores.raw);
        let source = MarkSource::log(log.epoch(), partition);
        let start = log.bounds(partition).await.unwrap().start;
        let mut from = raw
            .position(RAW_WRITER, log.epoch(), partition)
            .await
            .unwrap()
            .unwrap_or(start);
        loop {
            let chunk = log.read(partition, from, 8 << 20).await.unwrap();
            if chunk.records.is_empty() {
                return;
            }
            let mut write = RawWrite::default();
            for record in chunk.records {
                let mut slots: Vec<i64> = record.events.ts.iter().map(|&ts| slot_of(ts)).collect();
                slots.dedup();
                let mark = |slot| Mark {
                    venue: record.venue.clone(),
                    slot,
                    source: source.clone(),
                    position: record.position,
                };
                write.marks.extend(slots.into_iter().map(mark));
                let delivery = Delivery {
                    received_at: record.received_at,
                    receipt: record.receipt,
                };
                write
                    .rows
                    .push((record.venue, RawRows::delivered_once(record.events, delivery)));
            }
            let (consumer, epoch) = (RAW_WRITER, log.epoch());
            write.position = Some(ConsumerPosition {
                consumer,
                epoch,
                partition,
                position: chunk.next,
            });
            raw.apply(write).await.unwrap();
            from = chunk.next;
        }
    }

    /// Puts rows of some tracks into raw that the raw writer has not copied, as a restore would.
    pub(crate) async fn write_lost_rows(&self, tracks: &[&str]) {
        let posted = self.posted.lock().unwrap().clone();
        let mut write = RawWrite::default();
        for (events, delivery) in posted {
            if !tracks.contains(&events.key(0)) {
                continue;
            }
            let slots = events.ts.iter().map(|&ts| slot_of(ts));
            write.marks.extend(slots.map(|slot| Mark {
                venue: self.venue.clone(),
                slot,
                source: MarkSource::job("restore"),
                position: 1,
            }));
            let rows = RawRows::delivered_once(events, delivery);
            write.rows.push((self.venue.clone(), rows));
        }
        self.stores.raw.apply(write).await.unwrap();
    }

    /// Registers a venue with the same description that lies in another shard.
    pub(crate) async fn put_venue_elsewhere(&self) -> VenueKey {
        let mine = self.deps.log.shard_of(&self.venue);
        let key = (0..)
            .map(|n| VenueId::new(&format!("shop{n}")).unwrap())
            .map(|id| VenueKey::new(self.venue.tenant.clone(), id))
            .find(|key| self.deps.log.shard_of(key) != mine)
            .unwrap();
        let mut venue = self.described().await;
        venue.id = key.venue.clone();
        let put = self.stores.registry.put_venue(&key.tenant, &venue, None).await;
        assert_eq!(put.unwrap(), Flip::Done);
        key
    }

    /// Spoils the bytes of a record of the embedded log.
    pub(crate) fn damage_record(&self, position: i64) {
        let log = rusqlite::Connection::open(DataPaths::new(self.folder.path()).log_db).unwrap();
        let spoiled = log.execute("UPDATE records SET batch = x'07' WHERE position = ?1", [position]);
        assert_eq!(spoiled.unwrap(), 1);
    }

    /// A log of several shards with a partition for each kind, in place of the embedded one.
    pub(crate) fn split_log(mut self, shards: u32) -> Self {
        let log = Arc::new(KindLog::open(self.folder.path(), shards, self.clock.shared()));
        self.deps.log = Arc::clone(&log) as Arc<dyn EventLog>;
        self.kind_log = Some(log);
        self
    }

    /// A speed layer that takes the venue's shard over, as after a start.
    pub(crate) async fn start(&self) -> Shard {
        let shard = self.deps.log.shard_of(&self.venue);
        Shard::open(shard, self.context()).await.unwrap()
    }

    /// What a shard that is opened by hand gets.
    pub(crate) fn context(&self) -> Context {
        self.context_of(&self.handle)
    }

    /// The same for another process, whose handle is given.
    pub(crate) fn context_of(&self, handle: &Handle) -> Context {
        Context {
            deps: self.deps.clone(),
            config: Arc::new(self.config.clone()),
            shared: Arc::clone(handle.shared()),
            member: Arc::new(OnlyMember::new([0].into())),
        }
    }

    /// Reads the log to its end and publishes.
    pub(crate) async fn catch_up(&self, shard: &mut Shard) {
        while shard.follow().await.unwrap() {}
        shard.tick().unwrap();
    }

    /// Lets time pass until no rebuild is wanted any more; returns how many there were.
    pub(crate) async fn rebuild(&self, shard: &mut Shard) -> usize {
        let mut rebuilds = 0;
        for _ in 0..20 {
            while let Some(job) = shard.next_rebuild().await.unwrap() {
                let outcome = job.run().await;
                shard.adopt(outcome).await.unwrap();
                rebuilds += 1;
            }
            self.pass(3.0);
            self.catch_up(shard).await;
        }
        rebuilds
    }

    /// What is shown of the venue.
    pub(crate) fn live(&self) -> Arc<LiveVenue> {
        self.handle
            .shared()
            .board
            .venue(&self.venue)
            .expect("nothing is shown of the venue")
    }

    /// The live rows of a day.
    pub(crate) fn rows(&self, of: &str) -> Arc<Vec<AggregateRow>> {
        let live = self.live();
        let shown = live.days.iter().find(|shown| shown.day == day(of));
        Arc::clone(&shown.unwrap_or_else(|| panic!("{of} is not live")).rows)
    }

    /// People shown to be in a zone.
    pub(crate) fn occupancy(&self, zone: &str) -> u64 {
        self.live()
            .occupancy
            .iter()
            .find(|(id, _)| id == zone)
            .expect("the zone is not shown")
            .1
    }

    /// What a batch computation makes of everything posted that lies in a day.
    pub(crate) async fn batch(&self, of: &str, carry: Carry) -> Vec<AggregateRow> {
        self.accumulated(of, carry).await.rows()
    }

    /// The counters' last samples by that computation.
    pub(crate) async fn carry_out(&self, of: &str, carry: Carry) -> Carry {
        self.accumulated(of, carry).await.carry_out()
    }

    async fn accumulated(&self, of: &str, carry: Carry) -> DayAccumulator {
        let venue = self.described().await;
        let cut = venue.calendar.cut(day(of));
        let left_out = *self.left_out.lock().unwrap();
        let posted = self.posted.lock().unwrap();
        let left: Vec<(EventBatch, Delivery)> = posted
            .iter()
            .map(|(events, delivery)| {
                let is_left = |row: &u32| {
                    let row = *row as usize;
                    !left_out(events.sensor(row), events.ts[row], delivery)
                };
                let rows: Vec<u32> = (0..events.len() as u32).filter(is_left).collect();
                (events.take(&rows), *delivery)
            })
            .collect();
        accumulate(&cut, venue.layout_on(day(of)), &left, carry)
    }

    /// Fails unless a day's live rows are those of the batch computation.
    pub(crate) async fn assert_equals_batch(&self, of: &str) {
        let (live, batch) = (self.rows(of), self.batch(of, Carry::default()).await);
        assert!(!batch.is_empty(), "nothing to compare");
        assert_same_rows(&live, &batch);
    }
}

/// The batch computation of a day: all deliveries resolved, one fold over the sorted day.
pub(crate) fn accumulate(
    cut: &DayCut,
    layout: &Layout,
    posted: &[(EventBatch, Delivery)],
    carry: Carry,
) -> DayAccumulator {
    let context = FoldContext::new(cut, layout);
    let mut accumulator = DayAccumulator::new(cut, layout);
    accumulator.set_carry(carry);
    for kind in Kind::ALL {
        let mut all = RawRows::new(EventBatch::new(kind));
        for (events, delivery) in posted.iter().filter(|(events, _)| events.kind == kind) {
            let rows: Vec<u32> = (0..events.len() as u32)
                .filter(|&row| cut.contains(events.ts[row as usize]))
                .collect();
            if !rows.is_empty() {
                all.append(&RawRows::delivered_once(events.take(&rows), *delivery));
            }
        }
        let winners = resolve(&all, |_, _| false).winners;
        if kind == Kind::Position {
            let mut fold = DayFold::new(&context);
            fold.push_chunk(&all.events, Some(&winners), &mut accumulator);
            fold.finish(&mut accumulator);
            accumulator.observe_positions(&all.events, Some(&winners));
        } else if !winners.is_empty() {
            accumulator.add_events(&all.events, Some(&winners));
        }
    }
    accumulator
}

/// Fails with the first row that differs, instead of printing all of them.
#[track_caller]
pub(crate) fn assert_same_rows(live: &[AggregateRow], batch: &[AggregateRow]) {
    let key = |row: &AggregateRow| {
        format!(
            "{:?} {} {:?} {:?} {:?}",
            row.grain, row.start, row.family, row.subject, row.slice
        )
    };
    for (a, b) in live.iter().zip(batch) {
        assert_eq!(
            key(a),
            key(b),
            "the live rows and the batch rows are not of the same buckets"
        );
        assert_eq!(a, b);
    }
    assert_eq!(
        live.len(),
        batch.len(),
        "one has more rows: {:?}",
        live.iter().chain(batch).next_back().map(key)
    );
}

/// A zone's row of the day.
pub(crate) fn zone_of_day(rows: &[AggregateRow], zone: &str) -> Option<ZoneValue> {
    let of_zone = |row: &&AggregateRow| {
        (row.grain, row.family, row.subject.as_str()) == (Grain::Day, Family::Zone, zone)
    };
    rows.iter().find(of_zone).map(|row| match &row.value {
        Value::Zone(value) => value.clone(),
        other => panic!("not a zone's value: {other:?}"),
    })
}

/// Numbers without a pattern, the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
