//! Two speed layers on a Kafka broker: they share the shards of a log, and one takes over what the other leaves.
//!
//! `DWELL_TEST_KAFKA` names the broker; without it this says that it is skipped. Tables are embedded.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test fail by panicking and say what they skip"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::VenueSpec;
use dwell_model::testing::position_batch;
use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::{Clock, SharedClock, SystemClock, timeout};
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use dwell_speed_layer::{Config, Deps, Handle, Service, Stage};
use dwell_storage::api::{
    EventLog, EventLogReader, EventLogWriter, Flip, LiveView, LogRecord, Registry, Shard,
};
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

const SHARDS: u32 = 4;

/// One process, as far as the log can tell: consumers, a member of the group, a handle.
struct Process {
    controller: ShutdownController,
    handle: Handle,
    clock: SharedClock,
}

impl Process {
    async fn start(kafka: &KafkaConfig, stores: &SqliteStores) -> Self {
        let clock = SystemClock::shared();
        let controller = ShutdownController::default();
        let tasks = Tasks::new(controller.clone());
        let log: Arc<dyn EventLog> = Arc::new(KafkaEventLog::open(kafka, Arc::clone(&clock)).await.unwrap());
        let deps = Deps {
            erasures: None,
            log,
            raw: Arc::clone(&stores.raw) as _,
            checkpoints: Arc::clone(&stores.checkpoints) as _,
            registry: Arc::clone(&stores.registry) as _,
            venue_days: Arc::clone(&stores.venue_days) as _,
            documents: Arc::clone(&stores.documents) as _,
            live_table: None,
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            readiness: Readiness::new(&controller),
        };
        let service = Service::new(deps, Config::default()).unwrap();
        let handle = service.handle();
        let token = controller.register(Phase::CheckpointSessions, "speed layer");
        tasks.spawn("speed layer service", TaskPolicy::Log, service.run(token));
        Self {
            controller,
            handle,
            clock,
        }
    }

    /// The shards that it follows.
    fn following(&self) -> BTreeSet<Shard> {
        let shards = self.handle.shards().into_iter();
        shards
            .filter(|status| status.stage == Stage::Following)
            .map(|status| status.shard)
            .collect()
    }

    /// How many people it shows in a venue; `None` where it shows nothing of it.
    async fn people(&self, venue: &VenueKey) -> Option<u64> {
        let live = self.handle.venue(venue).await.unwrap()?;
        let whole = live.occupancy.iter().find(|(zone, _)| zone == "_venue");
        whole.map(|(_, people)| *people)
    }

    async fn stop(self) {
        self.controller.trigger();
        let report = self
            .controller
            .run_to_completion(Duration::from_secs(20), &*self.clock)
            .await;
        assert!(report.late.is_empty(), "{report}");
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let clock = SystemClock::new();
    let waiting = async {
        while !holds().await {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(&clock, Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Registers venues, some for each shard.
async fn register_venues(stores: &SqliteStores, log: &KafkaEventLog) -> Vec<VenueKey> {
    let tenant = TenantId::new("acme").unwrap();
    stores.registry.create_tenant(&tenant).await.unwrap();
    let mut venues = Vec::new();
    for n in 0..16 {
        let json = format!(r#"{{"id":"v{n}","tz":"Europe/Madrid","width":10,"height":8}}"#);
        let venue = serde_json::from_str::<VenueSpec>(&json)
            .unwrap()
            .to_venue(None)
            .unwrap();
        let put = stores.registry.put_venue(&tenant, &venue, None).await;
        assert_eq!(put.unwrap(), Flip::Done);
        venues.push(VenueKey::new(
            tenant.clone(),
            VenueId::new(&format!("v{n}")).unwrap(),
        ));
    }
    let shards: BTreeSet<Shard> = venues.iter().map(|venue| log.shard_of(venue)).collect();
    assert_eq!(shards, (0..SHARDS).collect(), "each shard has a venue");
    venues
}

async fn remove_topics(kafka: &KafkaConfig) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .create()
        .unwrap();
    let kinds = Kind::ALL.map(|kind| format!("{}.{kind}", kafka.prefix));
    let topics: Vec<String> = kinds
        .into_iter()
        .chain([format!("{}.log", kafka.prefix)])
        .collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_speed_layers_share_the_shards_and_one_takes_over_what_the_other_leaves() {
    let Ok(bootstrap) = std::env::var("DWELL_TEST_KAFKA") else {
        eprintln!("skipped: DWELL_TEST_KAFKA names no broker");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let stores = SqliteStores::open(&DataPaths::new(folder.path()), Arc::clone(&clock))
        .await
        .unwrap();
    let kafka = KafkaConfig {
        bootstrap,
        prefix: format!("dwelltest-speed-{}", clock.now_ms()),
        shards: SHARDS,
        single_node: true,
        session_timeout_ms: 6_000,
        ..KafkaConfig::default()
    };
    KafkaLogAdmin::create(&kafka, &*clock).await.unwrap();
    let log = KafkaEventLog::open(&kafka, Arc::clone(&clock)).await.unwrap();
    let venues = register_venues(&stores, &log).await;
    let post = async |track: &str| {
        let ts = clock.now_ms();
        let record = |venue: &VenueKey| LogRecord {
            venue: venue.clone(),
            receipt: Receipt::derive(b"test", format!("{venue}/{track}").as_bytes()),
            events: position_batch(&[("s", track, ts, 1.0, 1.0)]),
            received_at: None,
        };
        log.append(venues.iter().map(record).collect()).await.unwrap();
    };

    let one = Process::start(&kafka, &stores).await;
    let two = Process::start(&kafka, &stores).await;
    until("shared", async || {
        let (of_one, of_two) = (one.following(), two.following());
        of_one.len() == 2 && of_two.len() == 2 && of_one.is_disjoint(&of_two)
    })
    .await;
    post("t1").await;
    until("each venue is seen by who follows it", async || {
        for venue in &venues {
            let shown = (one.people(venue).await, two.people(venue).await);
            let expected = match one.following().contains(&log.shard_of(venue)) {
                true => (Some(1), None),
                false => (None, Some(1)),
            };
            if shown != expected {
                return false;
            }
        }
        true
    })
    .await;

    one.stop().await;
    post("t2").await;
    until("the other has all, with what the first had seen", async || {
        for venue in &venues {
            if two.people(venue).await != Some(2) {
                return false;
            }
        }
        two.following().len() == SHARDS as usize
    })
    .await;
    for venue in &venues {
        let live = two.handle.venue(venue).await.unwrap().unwrap();
        assert_eq!(live.late_events, 0, "{venue}");
    }
    two.stop().await;
    drop(log);
    remove_topics(&kafka).await;
}
