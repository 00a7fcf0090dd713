//! An installation for tests inside this crate: embedded tables in a folder, an archive in another, a clock that the test
//! moves, one venue with two zones.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, Config};
use dwell_model::event::{Delivery, EventBatch, RawRows};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::{Layout, Polygon, Venue, Zone};
use dwell_model::metrics::AggregateRow;
use dwell_model::testing::walkers;
use dwell_model::time::{DAY_MS, LocalDay, TsMs, VenueCalendar, slot_of};
use dwell_runtime::clock::{ManualClock, SharedClock};
use dwell_storage::api::{
    ErasedSubject, Erasure, Generation, Mark, MarkSource, NewErasure, RawWrite, RowFilter, SessionsReader,
    StoredSession, Stores, SubjectClass,
};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use tokio_util::sync::CancellationToken;

/// 2026-03-10, noon UTC.
pub(crate) const NOW: TsMs = 1_773_144_000_000;

/// An installation.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) stores: Stores,
    pub(crate) archive: DeltaArchive,
    pub(crate) layer: BatchLayer,
    pub(crate) venue: VenueKey,
    position: AtomicI64,
}

/// What a venue shows: each day's published generation, rows and sessions.
pub(crate) type Numbers = BTreeMap<LocalDay, (Generation, Vec<AggregateRow>, Vec<StoredSession>)>;

pub(crate) fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

impl World {
    /// Opens an installation on two folders. It has no venue yet.
    pub(crate) async fn open(data: &Path, archive: &Path) -> Self {
        let clock = ManualClock::at_ms(NOW);
        std::fs::create_dir_all(archive).unwrap();
        let tables = SqliteStores::open(&DataPaths::new(data), clock.shared())
            .await
            .unwrap();
        let opened = || DeltaArchive::local(archive, clock.shared()).unwrap();
        let stores = tables.with_archive(Arc::new(opened()));
        let layer = BatchLayer::new(stores.clone(), clock.shared(), Config::default(), "test").unwrap();
        let tenant = TenantId::new("default").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        Self {
            archive: opened(),
            layer,
            venue: VenueKey::new(tenant, VenueId::new("shop").unwrap()),
            stores,
            clock,
            position: AtomicI64::new(0),
        }
    }

    /// The same with its venue, and events of some days archived and computed.
    pub(crate) async fn with_days(data: &Path, archive: &Path, days: &[&str]) -> Self {
        let world = Self::open(data, archive).await;
        world.add_venue().await;
        for (seed, day) in days.iter().enumerate() {
            world.events(day, seed as u64).await;
        }
        world.recompute().await;
        world
    }

    pub(crate) fn clock(&self) -> SharedClock {
        self.clock.shared()
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.venue.tenant
    }

    pub(crate) async fn add_venue(&self) {
        let zone = |id: &str, left: f64| Zone {
            id: id.into(),
            name: None,
            polygon: Polygon::new(vec![
                [left, 0.0],
                [left + 9.0, 0.0],
                [left + 9.0, 20.0],
                [left, 20.0],
            ])
            .unwrap(),
            floor: None,
            layer: "default".into(),
            engaged_after_ms: 10_000,
            tags: vec![],
        };
        let venue = Venue {
            id: self.venue.venue.clone(),
            name: Some("Shop".to_owned()),
            calendar: VenueCalendar::from_names("Etc/UTC", 0).unwrap(),
            tags: vec![],
            layouts: vec![Layout {
                zones: vec![zone("left", 0.0), zone("right", 10.0)],
                ..Layout::empty()
            }],
        };
        let put = self.stores.registry.put_venue(self.tenant(), &venue, None).await;
        assert_eq!(put.unwrap(), dwell_storage::api::Flip::Done);
    }

    /// Puts two thousand events of a day into raw, as the raw writer would.
    pub(crate) async fn events(&self, of: &str, seed: u64) {
        let start = i64::from(day(of).to_epoch_days()) * DAY_MS;
        let events = walkers(2_000, start + 3_600_000, start + 20 * 3_600_000, seed + 1);
        let delivery = Delivery {
            received_at: start + DAY_MS,
            receipt: Receipt::from_u128(u128::from(seed) + 1),
        };
        self.store(events, delivery).await;
    }

    /// Puts events into raw.
    pub(crate) async fn store(&self, events: EventBatch, delivery: Delivery) {
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let source = MarkSource::log(self.stores.log.epoch(), 0);
        let mut slots: Vec<i64> = events.ts.iter().map(|&ts| slot_of(ts)).collect();
        slots.sort_unstable();
        slots.dedup();
        let marks = slots.into_iter().map(|slot| Mark {
            venue: self.venue.clone(),
            slot,
            source: source.clone(),
            position,
        });
        let write = RawWrite {
            marks: marks.collect(),
            rows: vec![(self.venue.clone(), RawRows::delivered_once(events, delivery))],
            position: None,
        };
        self.stores.raw.apply(write).await.unwrap();
    }

    /// Enters a track into the ledger of erasures, and nothing more.
    pub(crate) async fn forget_track(
        &self,
        track: &str,
        sensor: Option<&str>,
        times: Range<TsMs>,
    ) -> Erasure {
        let (ledger, venue) = (&self.stores.erasures, &self.venue);
        let key = ledger.key().await.unwrap();
        let erasure = NewErasure {
            id: format!("erase-{track}"),
            venue: venue.clone(),
            requested_at: times.end,
            subjects: vec![ErasedSubject {
                class: SubjectClass::Track,
                name: key.hash(SubjectClass::Track, venue, track),
                sensor: sensor.map(|sensor| key.hash(SubjectClass::Sensor, venue, sensor)),
                from: times.start,
                until: times.end,
            }],
        };
        ledger.append(erasure).await.unwrap()
    }

    /// Archives and computes what is dirty.
    pub(crate) async fn recompute(&self) -> RunReport {
        let spec = RunSpec::all_dirty(What::Recompute);
        let report = self
            .layer
            .run_spec(self.tenant(), &spec, &|_| {}, &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!((report.failed, report.dirty_left), (0, 0), "{report:?}");
        report
    }

    /// The days that a run would work on.
    pub(crate) async fn dirty(&self) -> Vec<String> {
        let spec = RunSpec::all_dirty(What::Recompute);
        let plan = self.layer.plan_venue(&self.venue, &spec).await.unwrap();
        plan.into_iter().map(|day| day.day.to_string()).collect()
    }

    pub(crate) async fn numbers(&self) -> Numbers {
        let (first, last) = (day("2026-01-01"), day("2026-12-31"));
        let days = self
            .stores
            .venue_days
            .list(&self.venue, first, last)
            .await
            .unwrap();
        let mut numbers = Numbers::new();
        for row in days {
            let Some(info) = row.published else { continue };
            let all = RowFilter::default();
            let rows = self
                .stores
                .aggregates
                .read(&self.venue, row.day, info.generation, &all)
                .await
                .unwrap();
            assert_eq!(rows.len() as u64, info.rows);
            let sessions = SessionsReader::list(
                self.stores.sessions.as_ref(),
                &self.venue,
                row.day,
                info.generation,
                None,
                100_000,
            )
            .await
            .unwrap();
            numbers.insert(row.day, (info.generation, rows, sessions));
        }
        numbers
    }
}
