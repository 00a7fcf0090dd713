//! A venue on the embedded stores, with a clock that the test moves and a raw writer that it drives.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod naive;

use std::sync::Arc;
use std::time::Duration;

use dwell_batch_layer::report::{DayReport, Outcome, RunReport};
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, Config, DayRequest};
use dwell_model::event::{Delivery, EventBatch, RawRows};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::{Layout, Polygon, Venue, Zone};
use dwell_model::metrics::{AggregateRow, Family, Grain, Value};
use dwell_model::time::{LocalDay, TsMs, VenueCalendar, slot_of};
use dwell_runtime::clock::{Clock, ManualClock};
use dwell_storage::api::{
    Committed, ConsumerPosition, DeliveredRows, Flip, GenerationInfo, LogRecord, Mark, MarkSource, RawWrite,
    Rewrite, RowFilter, StagedDay, StillHeld, Stores,
};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::decorators::recutting::honour_recuts;
use dwell_storage::paths::DataPaths;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A venue and everything around it.
pub(crate) struct Shop {
    folder: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) stores: Stores,
    pub(crate) layer: BatchLayer,
    pub(crate) venue: VenueKey,
    pub(crate) calendar: VenueCalendar,
}

/// A day.
pub(crate) fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

/// A layout with one zone: the square from (0, 0) to (10, 10).
pub(crate) fn one_zone(engaged_after_ms: i64) -> Layout {
    let corners = vec![[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]];
    let zone = Zone {
        id: "square".into(),
        name: None,
        polygon: Polygon::new(corners).unwrap(),
        floor: None,
        layer: "default".into(),
        engaged_after_ms,
        tags: vec![],
    };
    Layout {
        zones: vec![zone],
        ..Layout::empty()
    }
}

impl Shop {
    /// A new venue in Madrid at noon of 2026-03-10.
    pub(crate) async fn open() -> Self {
        Self::open_with("Europe/Madrid", Config::default()).await
    }

    pub(crate) async fn open_with(zone: &str, config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(0);
        let paths = DataPaths::new(folder.path());
        let stores = SqliteStores::open(&paths, clock.shared()).await.unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let stores = honour_recuts(stores.with_archive(Arc::new(archive)));
        let layer = BatchLayer::new(stores.clone(), clock.shared(), config, "test").unwrap();
        let tenant = TenantId::new("acme").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        let calendar = VenueCalendar::from_names(zone, 0).unwrap();
        let venue = VenueKey::new(tenant, VenueId::new("shop").unwrap());
        let shop = Self {
            folder,
            clock,
            stores,
            layer,
            venue,
            calendar,
        };
        shop.put_layouts(vec![one_zone(10_000)]).await;
        shop.clock.set_ms(shop.local("2026-03-10", 12.0));
        shop
    }

    /// The same stores under another layer: a second worker, as in another process.
    pub(crate) fn second_worker(&self) -> BatchLayer {
        let config = self.layer.config().clone();
        BatchLayer::new(self.stores.clone(), self.clock.shared(), config, "second").unwrap()
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The instant so many hours after a day's start.
    pub(crate) fn local(&self, of: &str, hours: f64) -> TsMs {
        self.calendar.bounds(day(of)).0 + (hours * 3_600_000.0) as i64
    }

    /// Replaces the venue's layouts.
    pub(crate) async fn put_layouts(&self, layouts: Vec<Layout>) {
        self.put_venue(self.calendar, layouts).await;
    }

    pub(crate) async fn put_venue(&self, calendar: VenueCalendar, layouts: Vec<Layout>) {
        let registry = &self.stores.registry;
        let version = registry
            .venue(&self.venue)
            .await
            .unwrap()
            .map(|stored| stored.version);
        let venue = Venue {
            id: self.venue.venue.clone(),
            name: None,
            calendar,
            tags: vec![],
            layouts,
        };
        let flip = registry
            .put_venue(&self.venue.tenant, &venue, version)
            .await
            .unwrap();
        assert_eq!(flip, Flip::Done);
    }

    /// Appends events to the log as one request, and lets the raw writer catch up.
    pub(crate) async fn post(&self, events: EventBatch, receipt: u128) {
        self.append(events, receipt).await;
        self.write_raw().await;
    }

    /// Appends events to the log; the raw writer stays where it is.
    pub(crate) async fn append(&self, events: EventBatch, receipt: u128) {
        let record = LogRecord {
            venue: self.venue.clone(),
            receipt: Receipt::from_u128(receipt),
            events,
            received_at: None,
        };
        self.stores.log.append(vec![record]).await.unwrap();
    }

    /// The same for another venue, which must share the log partition of the first.
    pub(crate) async fn append_to(&self, venue: &VenueKey, events: EventBatch, receipt: u128) {
        assert_eq!(
            self.stores.log.shard_of(venue),
            self.stores.log.shard_of(&self.venue)
        );
        let receipt = Receipt::from_u128(receipt);
        let record = LogRecord {
            venue: venue.clone(),
            receipt,
            events,
            received_at: None,
        };
        self.stores.log.append(vec![record]).await.unwrap();
    }

    /// What an import to the archive does: rows of a closed day straight into it, marked before and after.
    pub(crate) async fn import(&self, of: LocalDay, rows: Vec<DeliveredRows>, attempt: i64) {
        let mark = async || {
            let slots = rows
                .iter()
                .flat_map(|rows| &rows.events.ts)
                .map(|&ts| slot_of(ts));
            let marks = slots.map(|slot| Mark {
                venue: self.venue.clone(),
                slot,
                source: MarkSource::job("import"),
                position: attempt,
            });
            let write = RawWrite {
                marks: marks.collect(),
                ..RawWrite::default()
            };
            self.stores.raw.apply(write).await.unwrap();
        };
        mark().await;
        let days = &self.stores.venue_days;
        let lease = days
            .acquire(&self.venue, of, "import", self.now(), 60_000)
            .await
            .unwrap()
            .unwrap();
        let mut staged = Vec::new();
        for rows in &rows {
            let kind = rows.events.kind;
            let incoming = Box::new(rows.clone());
            let archive = &self.stores.archive;
            match archive
                .rewrite_day(&self.venue, kind, of, lease.fence, incoming)
                .await
                .unwrap()
            {
                Rewrite::Staged(day) => staged.push(day),
                Rewrite::Unchanged(_) => panic!("the rows are new"),
            }
        }
        let committed = self.stores.archive.commit(staged, &Held).await.unwrap();
        assert!(committed.iter().all(|committed| *committed == Committed::Yes));
        days.release(&lease).await.unwrap();
        mark().await;
    }

    /// What the raw writer does: copies the log into raw, with marks and position.
    pub(crate) async fn write_raw(&self) {
        let (log, raw) = (&self.stores.log, &self.stores.raw);
        let (epoch, partition) = (
            log.epoch(),
            log.partition_of(&self.venue, dwell_model::event::Kind::Position),
        );
        let source = MarkSource::log(epoch, partition);
        let start = log.bounds(partition).await.unwrap().start;
        let mut from = raw
            .position("raw-writer", epoch, partition)
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
                write.marks.extend(slots.into_iter().map(|slot| Mark {
                    venue: record.venue.clone(),
                    slot,
                    source: source.clone(),
                    position: record.position,
                }));
                let delivery = Delivery {
                    received_at: record.received_at,
                    receipt: record.receipt,
                };
                write
                    .rows
                    .push((record.venue, RawRows::delivered_once(record.events, delivery)));
            }
            let consumer = "raw-writer";
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

    /// Runs a specification to its end.
    pub(crate) async fn run(&self, spec: &RunSpec) -> RunReport {
        let cancel = CancellationToken::new();
        self.layer
            .run_spec(&self.venue.tenant, spec, &|_| {}, &cancel)
            .await
            .unwrap()
    }

    /// Computes all dirty days; none may fail.
    pub(crate) async fn recompute(&self) -> RunReport {
        let report = self.run(&RunSpec::all_dirty(What::Recompute)).await;
        assert_eq!((report.failed, report.dirty_left), (0, 0), "{report:?}");
        report
    }

    /// Computes one day, whatever its state.
    pub(crate) async fn compute(&self, layer: &BatchLayer, of: &str) -> DayReport {
        let requests = vec![DayRequest::recompute(day(of))];
        layer
            .run_group(&self.venue, requests, &CancellationToken::new())
            .await
            .remove(0)
    }

    /// The published generation of a day.
    pub(crate) async fn published(&self, of: &str) -> GenerationInfo {
        self.generation(of)
            .await
            .unwrap_or_else(|| panic!("nothing is published of {of}"))
    }

    pub(crate) async fn generation(&self, of: &str) -> Option<GenerationInfo> {
        self.stores
            .venue_days
            .get(&self.venue, day(of))
            .await
            .unwrap()
            .and_then(|row| row.published)
    }

    /// The rows of a day's published generation.
    pub(crate) async fn rows(&self, of: &str) -> Vec<AggregateRow> {
        let generation = self.published(of).await.generation;
        self.rows_of(of, generation).await
    }

    pub(crate) async fn rows_of(&self, of: &str, generation: u64) -> Vec<AggregateRow> {
        let all = RowFilter::default();
        self.stores
            .aggregates
            .read(&self.venue, day(of), generation, &all)
            .await
            .unwrap()
    }

    /// Whether a day would be computed by a run over all dirty days.
    pub(crate) async fn is_dirty(&self, of: &str) -> bool {
        let spec = RunSpec::all_dirty(What::Recompute);
        let planned = self.layer.plan_venue(&self.venue, &spec).await.unwrap();
        planned.iter().any(|planned| planned.day == day(of))
    }

    /// Lets so much time pass.
    pub(crate) fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    pub(crate) fn now(&self) -> TsMs {
        self.clock.now_ms()
    }
}

/// Says that every fence is held: the test has no rival.
struct Held;

#[async_trait::async_trait]
impl StillHeld for Held {
    async fn still_held(&self, _: &StagedDay) -> dwell_storage::error::Result<bool> {
        Ok(true)
    }
}

/// A day's visits of the one zone.
pub(crate) fn visits(rows: &[AggregateRow]) -> u64 {
    let zone = rows
        .iter()
        .find(|row| row.grain == Grain::Day && row.family == Family::Zone && row.subject == "square")
        .map(|row| &row.value);
    match zone {
        Some(Value::Zone(zone)) => zone.visits,
        Some(other) => panic!("not a zone: {other:?}"),
        None => 0,
    }
}

#[track_caller]
pub(crate) fn assert_outcome(report: &DayReport, outcome: Outcome) {
    assert_eq!(report.outcome, outcome, "{report:?}");
}

/// The value of a counter in a day.
pub(crate) fn counted(rows: &[AggregateRow]) -> Option<i64> {
    let row = rows
        .iter()
        .find(|row| row.grain == Grain::Day && row.family == Family::Counter)?;
    match &row.value {
        Value::Counter(counter) => Some(counter.value),
        other => panic!("not a counter: {other:?}"),
    }
}

/// Posts everything, a second apart, and tells what was delivered when.
pub(crate) async fn deliver(shop: &Shop, posts: Vec<EventBatch>) -> Vec<(EventBatch, Delivery)> {
    let mut delivered = Vec::new();
    for (receipt, events) in (1..).zip(posts) {
        shop.clock.set_ms(shop.now() + 1_000);
        let delivery = Delivery {
            received_at: shop.now(),
            receipt: Receipt::from_u128(receipt),
        };
        shop.append(events.clone(), receipt).await;
        delivered.push((events, delivery));
    }
    shop.write_raw().await;
    delivered
}
