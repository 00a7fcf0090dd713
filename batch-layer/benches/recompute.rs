//! What computing an archived venue-day costs: CPU per event, beside reading the same day and throwing it away.
//!
//! `cargo bench -p dwell-batch-layer --bench recompute [-- EVENTS]` (default 1,000,000 positions in one day). Tracks are
//! walks through thirty zones, whole centimetres, an event every 200 ms; one event in twenty is delivered twice. CPU is
//! that of all threads, user and system, from the operating system's books (Linux; elsewhere only wall time is shown).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails loudly and prints its figures"
)]

use std::sync::Arc;

use async_trait::async_trait;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, Config};
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::{Layout, Polygon, Venue, Zone};
use dwell_model::testing::position_batch;
use dwell_model::time::{VenueCalendar, slot_of};
use dwell_runtime::clock::{Stopwatch, SystemClock};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{
    Committed, DeliveredRows, Flip, Mark, MarkSource, Projection, RawWrite, Rewrite, StagedDay, StillHeld,
    Stores,
};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::error::Result as StorageResult;
use dwell_storage::paths::DataPaths;
use tokio_util::sync::CancellationToken;

const DAY: &str = "2026-03-09";
const EVENTS_PER_TRACK: usize = 500;

fn main() {
    let events = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(run(folder.path(), events));
}

async fn run(folder: &std::path::Path, events: usize) {
    let paths = DataPaths::new(folder);
    let clock = SystemClock::shared();
    let stores = SqliteStores::open(&paths, Arc::clone(&clock)).await.unwrap();
    let archive = DeltaArchive::local(&paths.archive, Arc::clone(&clock)).unwrap();
    let stores = stores.with_archive(Arc::new(archive));
    let venue = make_venue(&stores).await;
    let rows = rows(events);
    println!("{} positions, {} delivered twice", events, rows.len() - events);

    let cost = Cost::start();
    import(&stores, &venue, rows, clock.now_ms()).await;
    cost.report("write to the archive", events);

    let cost = Cost::start();
    read(&stores, &venue, events).await;
    cost.report("read the archived day and throw it away", events);

    let layer = BatchLayer::new(stores, clock, Config::default(), "bench").unwrap();
    let plain = RunSpec::all_dirty(What::Recompute);
    let forced = RunSpec {
        force: true,
        ..plain.clone()
    };
    let mut named = plain.clone();
    named.from = Some(DAY.parse().unwrap());
    for (name, spec) in [
        ("first computation", &plain),
        ("computation again, forced", &forced),
        ("unchanged day", &named),
    ] {
        let cost = Cost::start();
        let report = layer
            .run_spec(&venue.tenant, spec, &|_| {}, &CancellationToken::new())
            .await
            .unwrap();
        cost.report(name, events);
        assert_eq!(
            (report.failed, report.skipped, report.days.len()),
            (0, 0, 1),
            "{report:?}"
        );
    }
}

/// A venue with thirty zones of four by four metres.
async fn make_venue(stores: &Stores) -> VenueKey {
    let zone = |n: u32| {
        let (x, y) = (f64::from(n % 6) * 6.0, f64::from(n / 6) * 6.0);
        let corners = vec![[x, y], [x + 4.0, y], [x + 4.0, y + 4.0], [x, y + 4.0]];
        Zone {
            id: format!("zone-{n:02}"),
            name: None,
            polygon: Polygon::new(corners).unwrap(),
            floor: None,
            layer: "default".into(),
            engaged_after_ms: 10_000,
            tags: vec![],
        }
    };
    let layout = Layout {
        zones: (0..30).map(zone).collect(),
        ..Layout::empty()
    };
    let key = VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("shop").unwrap());
    let calendar = VenueCalendar::from_names("Europe/Madrid", 0).unwrap();
    let venue = Venue {
        id: key.venue.clone(),
        name: None,
        calendar,
        tags: vec![],
        layouts: vec![layout],
    };
    stores.registry.create_tenant(&key.tenant).await.unwrap();
    assert_eq!(
        stores
            .registry
            .put_venue(&key.tenant, &venue, None)
            .await
            .unwrap(),
        Flip::Done
    );
    key
}

/// Walks, one event in twenty twice, by two deliveries.
fn rows(events: usize) -> DeliveredRows {
    let (start, _) = VenueCalendar::from_names("Europe/Madrid", 0)
        .unwrap()
        .bounds(DAY.parse().unwrap());
    let tracks = events.div_ceil(EVENTS_PER_TRACK);
    let apart_ms = 20 * 3_600_000 / tracks as i64;
    let mut dice = 7_u64;
    let mut below = |limit: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % limit
    };
    let mut once = DeliveredRows::new(Kind::Position);
    let mut twice = EventBatch::new(Kind::Position);
    for track in 0..tracks {
        let name = format!("t-{track:08x}");
        let (mut x, mut y) = (below(3_600) as f32 / 100.0, below(3_000) as f32 / 100.0);
        let count = EVENTS_PER_TRACK.min(events - track * EVENTS_PER_TRACK);
        let walk: Vec<_> = (0..count)
            .map(|step| {
                x = ((x * 100.0).round() + below(61) as f32 - 30.0).clamp(0.0, 3_600.0) / 100.0;
                y = ((y * 100.0).round() + below(61) as f32 - 30.0).clamp(0.0, 3_000.0) / 100.0;
                let ts = start + track as i64 * apart_ms + step as i64 * 200;
                ("cam-1", name.as_str(), ts, x, y)
            })
            .collect();
        let batch = position_batch(&walk);
        let again: Vec<u32> = (0..count as u32).step_by(20).collect();
        twice.append(&batch.take(&again));
        once.append(&DeliveredRows::delivered_once(batch, delivery(1)));
    }
    once.append(&DeliveredRows::delivered_once(twice, delivery(2)));
    once
}

fn delivery(number: u128) -> Delivery {
    Delivery {
        received_at: number as i64,
        receipt: Receipt::from_u128(number),
    }
}

struct Held;

#[async_trait]
impl StillHeld for Held {
    async fn still_held(&self, _: &StagedDay) -> StorageResult<bool> {
        Ok(true)
    }
}

async fn import(stores: &Stores, venue: &VenueKey, rows: DeliveredRows, now: i64) {
    let day = DAY.parse().unwrap();
    let slot = slot_of(rows.events.ts[0]);
    let mark = Mark {
        venue: venue.clone(),
        slot,
        source: MarkSource::job("bench"),
        position: 1,
    };
    stores
        .raw
        .apply(RawWrite {
            marks: vec![mark],
            ..RawWrite::default()
        })
        .await
        .unwrap();
    let lease = stores
        .venue_days
        .acquire(venue, day, "bench", now, 600_000)
        .await
        .unwrap()
        .unwrap();
    let rewritten = stores
        .archive
        .rewrite_day(venue, Kind::Position, day, lease.fence, Box::new(rows))
        .await
        .unwrap();
    let Rewrite::Staged(staged) = rewritten else {
        panic!("the day is new")
    };
    let committed = stores.archive.commit(vec![staged], &Held).await.unwrap();
    assert_eq!(committed, [Committed::Yes]);
    stores.venue_days.release(&lease).await.unwrap();
}

async fn read(stores: &Stores, venue: &VenueKey, events: usize) {
    let held = stores
        .archive
        .day(venue, Kind::Position, DAY.parse().unwrap())
        .await
        .unwrap();
    let mut reader = stores
        .archive
        .open(venue, &held, Projection::Events)
        .await
        .unwrap();
    let seen = blocking("read", move || {
        let mut seen = 0;
        while let Some(chunk) = reader.next_chunk().unwrap() {
            seen += chunk.events.len();
        }
        seen
    });
    assert_eq!(seen.await.unwrap(), events);
}

/// CPU and wall time since its start.
struct Cost {
    wall: Stopwatch,
    cpu_us: Option<f64>,
}

impl Cost {
    fn start() -> Self {
        Self {
            wall: Stopwatch::start(),
            cpu_us: cpu_us(),
        }
    }

    fn report(self, name: &str, events: usize) {
        let wall = self.wall.elapsed_seconds() * 1e6 / events as f64;
        let cpu = self
            .cpu_us
            .zip(cpu_us())
            .map(|(before, now)| (now - before) / events as f64);
        let cpu = cpu.map_or_else(|| "unknown".to_owned(), |cpu| format!("{cpu:.3}"));
        println!("{name:42} {cpu} µs CPU, {wall:.3} µs wall per event");
    }
}

/// CPU time of this process in microseconds.
fn cpu_us() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    // Linux counts in hundredths of a second for user space.
    Some(ticks * 10_000.0)
}
