//! The running service, on the machine's clock.

mod groups;
mod outages;

use std::time::Duration;

use dwell_model::testing::position_batch;
use dwell_runtime::clock::{SystemClock, timeout};
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_storage::api::{LiveVenue, LiveView};

use super::*;
use crate::checkpoint;
use crate::testing::Shop;

struct Running {
    shop: Shop,
    controller: ShutdownController,
    clock: SharedClock,
    readiness: Readiness,
    handle: Handle,
    task: dwell_runtime::tasks::TaskHandle,
    result: tokio::sync::oneshot::Receiver<Result<()>>,
}

impl Running {
    async fn start(prepare: impl AsyncFnOnce(&Shop)) -> Self {
        let shop = Shop::open("Europe/Madrid", "2026-03-10", 12.0).await;
        Self::start_in(shop, prepare).await
    }

    /// The same on a log of two shards with a partition for each kind.
    async fn start_split(prepare: impl AsyncFnOnce(&Shop)) -> Self {
        let shop = Shop::open("Europe/Madrid", "2026-03-10", 12.0).await;
        Self::start_in(shop.split_log(2), prepare).await
    }

    async fn start_in(shop: Shop, prepare: impl AsyncFnOnce(&Shop)) -> Self {
        let (controller, clock) = (ShutdownController::default(), SystemClock::shared());
        shop.clock.set_ms(clock.now_ms());
        prepare(&shop).await;
        let tasks = Tasks::new(controller.clone());
        let readiness = Readiness::new(&controller);
        let deps = Deps {
            erasures: None,
            clock: SharedClock::clone(&clock),
            tasks: tasks.clone(),
            readiness: readiness.clone(),
            ..shop.deps.clone()
        };
        let service = Service::new(deps, Config::default()).unwrap();
        let handle = service.handle();
        let token = controller.register(Phase::CheckpointSessions, "speed layer");
        let (sender, result) = tokio::sync::oneshot::channel();
        let task = tasks.spawn("service", TaskPolicy::Log, async move {
            let _ = sender.send(service.run(token).await);
        });
        Self {
            shop,
            controller,
            clock,
            readiness,
            handle,
            task,
            result,
        }
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !holds().await {
                self.clock.sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(&*self.clock, Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// What the check says, once there is one: without any the process counts as ready.
    fn is_ready(&self) -> Option<bool> {
        let report = self.readiness.report();
        (!report.checks.is_empty()).then_some(report.ready)
    }

    async fn until_ready(&self) {
        self.until("ready", async || self.is_ready() == Some(true)).await;
    }

    async fn stop(self) -> Result<()> {
        self.controller.trigger();
        let report = self
            .controller
            .run_to_completion(Duration::from_secs(10), &*self.clock)
            .await;
        assert!(report.late.is_empty(), "{report}");
        self.task.join().await.unwrap();
        self.result.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posted_event_is_seen_within_a_second_and_a_stop_leaves_a_checkpoint_of_it() {
    let running = Running::start(async |_| {}).await;
    running.until_ready().await;
    let mut watching = running.handle.subscribe(&running.shop.venue).await.unwrap();
    let occupied = |receiver: &mut tokio::sync::watch::Receiver<Option<Arc<LiveVenue>>>| {
        let shown = receiver.borrow_and_update();
        shown
            .as_ref()
            .is_some_and(|live| live.occupancy.contains(&("_venue".to_owned(), 1)))
    };
    let now = running.clock.now_ms();
    running
        .shop
        .post(position_batch(&[("s1", "t1", now, 1.0, 1.0)]))
        .await;
    let seen = async {
        while !occupied(&mut watching) {
            watching.changed().await.unwrap();
        }
    };
    timeout(&*running.clock, Duration::from_secs(1), seen)
        .await
        .expect("not shown within a second");
    let (checkpoints, epoch) = (
        Arc::clone(&running.shop.deps.checkpoints),
        running.shop.deps.log.epoch(),
    );
    let end = running.shop.deps.log.bounds(0).await.unwrap().end;
    running.stop().await.unwrap();
    let stored = checkpoints
        .load(&checkpoint::name(epoch, 0))
        .await
        .unwrap()
        .unwrap();
    let state = checkpoint::decode(&stored.bytes).unwrap();
    assert_eq!((state.position(0), state.venues[0].latest_ts), (Some(end), now));
}
