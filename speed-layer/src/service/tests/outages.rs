//! Stores that are away for a while.

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::TsMs;
use dwell_storage::api::{
    AccessKey, EventLog, EventLogAdmin, EventLogReader, EventLogWriter, Flip, RawEvents, StoredVenue,
};
use dwell_storage::decorators::failing::{Failing, Faults};
use dwell_storage::error::{ErrorKind, StorageError};

use super::*;
use crate::handle::Stage;

/// Calls that fail before the store is back, with growing pauses between them.
const AWAY: u64 = 3;

/// A registry that is away while told so.
struct AwayRegistry {
    inner: Arc<dyn Registry>,
    is_away: std::sync::atomic::AtomicBool,
}

impl AwayRegistry {
    fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, std::sync::atomic::Ordering::Relaxed);
    }

    fn here(&self) -> dwell_storage::error::Result<&Arc<dyn Registry>> {
        match self.is_away.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(StorageError::new(ErrorKind::Unavailable, "the registry is away")),
            false => Ok(&self.inner),
        }
    }
}

#[async_trait]
impl Registry for AwayRegistry {
    async fn create_tenant(&self, tenant: &TenantId) -> dwell_storage::error::Result<()> {
        self.here()?.create_tenant(tenant).await
    }
    async fn tenants(&self) -> dwell_storage::error::Result<Vec<TenantId>> {
        self.here()?.tenants().await
    }
    async fn put_venue(
        &self,
        tenant: &TenantId,
        venue: &Venue,
        version: Option<u64>,
    ) -> dwell_storage::error::Result<Flip> {
        self.here()?.put_venue(tenant, venue, version).await
    }
    async fn venue(&self, key: &VenueKey) -> dwell_storage::error::Result<Option<StoredVenue>> {
        self.here()?.venue(key).await
    }
    async fn venues(&self, tenant: &TenantId) -> dwell_storage::error::Result<Vec<StoredVenue>> {
        self.here()?.venues(tenant).await
    }
    async fn version(&self) -> dwell_storage::error::Result<u64> {
        self.here()?.version().await
    }
    async fn put_key(&self, key: &AccessKey) -> dwell_storage::error::Result<()> {
        self.here()?.put_key(key).await
    }
    async fn key(&self, id: &str) -> dwell_storage::error::Result<Option<AccessKey>> {
        self.here()?.key(id).await
    }
    async fn keys(&self, tenant: &TenantId) -> dwell_storage::error::Result<Vec<AccessKey>> {
        self.here()?.keys(tenant).await
    }
    async fn revoke_key(&self, tenant: &TenantId, id: &str, now: TsMs) -> dwell_storage::error::Result<()> {
        self.here()?.revoke_key(tenant, id, now).await
    }
}

struct Outage {
    running: Running,
    faults: Faults,
    registry: Arc<AwayRegistry>,
}

impl Outage {
    /// A service on stores that can be made to fail; `plan` says how they do at the start.
    async fn start(plan: impl FnOnce(&Faults, &AwayRegistry)) -> Self {
        let mut shop = Shop::open("Europe/Madrid", "2026-03-10", 12.0).await;
        let faults = Faults::none();
        let log: Arc<dyn EventLog> = Arc::clone(&shop.stores.log) as _;
        let raw: Arc<dyn RawEvents> = Arc::clone(&shop.stores.raw) as _;
        let registry = Arc::new(AwayRegistry {
            inner: Arc::clone(&shop.deps.registry),
            is_away: false.into(),
        });
        shop.deps.log = Arc::new(Failing::new(log, &faults));
        shop.deps.raw = Arc::new(Failing::new(raw, &faults));
        shop.deps.checkpoints = Arc::new(Failing::new(Arc::clone(&shop.deps.checkpoints), &faults));
        shop.deps.registry = Arc::clone(&registry) as Arc<dyn Registry>;
        let running = Running::start_in(shop, async |_| plan(&faults, &registry)).await;
        Self {
            running,
            faults,
            registry,
        }
    }

    async fn until_ready(&self, is_ready: bool) {
        let said = || self.running.is_ready();
        let what = if is_ready { "ready" } else { "not ready" };
        self.running.until(what, async || said() == Some(is_ready)).await;
    }

    /// What the check says.
    fn said(&self) -> String {
        let report = self.running.readiness.report();
        let check = report.checks.first();
        check
            .and_then(|check| check.state.detail.clone())
            .unwrap_or_default()
    }

    async fn post_and_see(&self, track: &str, people: u64) {
        let now = self.running.clock.now_ms();
        let shop = &self.running.shop;
        shop.post(position_batch(&[("s1", track, now, 1.0, 1.0)])).await;
        let seen = || {
            let live = self.running.handle.shared().board.venue(&shop.venue);
            live.is_some_and(|live| live.occupancy.contains(&("_venue".to_owned(), people)))
        };
        self.running.until("seen", async || seen()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_away_at_the_start_is_waited_for() {
    for method in [
        "event_log.join",
        "checkpoints.take_ownership",
        "event_log.bounds",
        "raw_events.position",
        "raw_events.marks",
    ] {
        let outage = Outage::start(|faults, _| faults.fail(method, ErrorKind::Unavailable, 3)).await;
        let word = method.to_owned();
        outage
            .running
            .until("named", async || outage.said().contains(&word))
            .await;
        outage.until_ready(true).await;
        outage.post_and_see("t1", 1).await;
        outage.running.stop().await.unwrap();
    }
    let outage = Outage::start(|_, registry| registry.set_away(true)).await;
    outage
        .running
        .until("named", async || outage.said().contains("the registry is away"))
        .await;
    outage.registry.set_away(false);
    outage.until_ready(true).await;
    outage.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_goes_away_is_waited_for_and_read_on() {
    let outage = Outage::start(|_, _| {}).await;
    outage.until_ready(true).await;
    outage.post_and_see("t1", 1).await;
    for method in ["event_log.read", "event_log.wait"] {
        outage.faults.fail(method, ErrorKind::Unavailable, AWAY);
    }
    outage.until_ready(false).await;
    assert!(
        outage.said().starts_with("shard 0: event_log."),
        "{}",
        outage.said()
    );
    assert_eq!(outage.running.handle.shards()[0].stage, Stage::Following);
    outage.until_ready(true).await;
    outage.post_and_see("t2", 2).await;
    outage.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_goes_on_while_checkpoints_or_the_registry_are_away() {
    let outage = Outage::start(|_, _| {}).await;
    outage.until_ready(true).await;
    outage
        .faults
        .fail("checkpoints.store", ErrorKind::Unavailable, u64::MAX);
    outage.registry.set_away(true);
    outage.until_ready(false).await;
    let began = outage.running.clock.monotonic();
    for (track, people) in [("t1", 1), ("t2", 2), ("t3", 3)] {
        outage.post_and_see(track, people).await;
    }
    let took = outage.running.clock.monotonic() - began;
    assert!(took < Duration::from_secs(3), "each within a second: {took:?}");
    assert!(
        !outage.running.readiness.report().ready,
        "and it is said all the time"
    );
    outage.faults.clear();
    outage.registry.set_away(false);
    outage.until_ready(true).await;
    outage.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_what_comes_next_is_left_for_raw_and_the_gap_is_named() {
    let outage = Outage::start(|_, _| {}).await;
    outage.until_ready(true).await;
    let shop = &outage.running.shop;
    outage.post_and_see("t1", 1).await;
    // While the log cannot be read, it gets records and loses them again; raw never had them.
    for method in ["event_log.read", "event_log.wait"] {
        outage.faults.fail(method, ErrorKind::Unavailable, u64::MAX);
    }
    outage.until_ready(false).await;
    let now = outage.running.clock.now_ms();
    let from = shop.stores.log.bounds(0).await.unwrap().end;
    for track in ["t2", "t3"] {
        shop.post(position_batch(&[("s1", track, now, 1.0, 1.0)])).await;
    }
    let to = shop.stores.log.bounds(0).await.unwrap().end;
    shop.stores.log.trim(0, i64::MAX, to).await.unwrap();
    outage.faults.clear();
    outage.until_ready(true).await;
    let gaps = || {
        let shards = outage.running.handle.shards();
        shards
            .first()
            .map(|status| status.gaps.clone())
            .unwrap_or_default()
    };
    outage.running.until("named", async || !gaps().is_empty()).await;
    let gap = gaps()[0];
    assert_eq!((gap.to, gap.is_complete), (to, false));
    assert!(gap.from <= from);
    outage
        .running
        .until("remarked", async || outage.said().contains("the event log lost"))
        .await;
    assert!(
        outage.running.readiness.report().ready,
        "it works, and says what it lacks"
    );
    shop.stores
        .log
        .append(vec![dwell_storage::api::LogRecord {
            venue: shop.venue.clone(),
            receipt: dwell_model::ids::Receipt::from_u128(77),
            events: position_batch(&[("s1", "t4", outage.running.clock.now_ms(), 6.0, 1.0)]),
            received_at: None,
        }])
        .await
        .unwrap();
    let right = || {
        let live = outage.running.handle.shared().board.venue(&shop.venue);
        live.is_some_and(|live| live.occupancy.contains(&("right".to_owned(), 1)))
    };
    outage.running.until("followed on", async || right()).await;
    outage.running.stop().await.unwrap();
}
