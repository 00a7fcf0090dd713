use std::sync::Arc;

use dwell_model::ids::{TenantId, VenueId};
use dwell_runtime::admin::Readiness;
use dwell_runtime::clock::{Clock, ManualClock, SystemClock};
use dwell_runtime::limits::HumanDuration;
use dwell_runtime::shutdown::ShutdownController;

use super::*;
use crate::testing::live_table::MemoryLiveTable;

fn key(venue: &str) -> VenueKey {
    VenueKey::new(TenantId::new("t").unwrap(), VenueId::new(venue).unwrap())
}

fn state(venue: &str, fence: u64, as_of: i64) -> Arc<LiveVenue> {
    Arc::new(LiveVenue {
        venue: key(venue),
        fence,
        as_of,
        watermark: 0,
        occupancy: Vec::new(),
        open_sessions: 0,
        late_events: 0,
        days: Vec::new(),
    })
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A queue with the task that empties it, on the machine's clock.
struct Showing {
    queue: Arc<TableQueue>,
    table: Arc<MemoryLiveTable>,
    readiness: Readiness,
    clock: SharedClock,
    task: tokio::task::JoinHandle<()>,
}

impl Showing {
    fn start(table: MemoryLiveTable) -> Self {
        let config = Config {
            table_shows_max: 3,
            ..Config::default()
        };
        let (queue, table) = (Arc::new(TableQueue::new(&config)), Arc::new(table));
        let readiness = Readiness::new(&ShutdownController::default());
        let health = Health::new(readiness.register("speed layer"));
        health.report(Part::Group, Some("joining".into()));
        health.report(Part::Group, None);
        let clock = SystemClock::shared();
        let (shown, writer, time) = (Arc::clone(&queue), Arc::clone(&table), Arc::clone(&clock));
        #[allow(clippy::disallowed_methods, reason = "a test's own task")]
        let task = tokio::spawn(async move { show_all(&shown, writer, &config, time, &health).await });
        Self {
            queue,
            table,
            readiness,
            clock,
            task,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                self.clock.sleep(Duration::from_millis(2)).await;
            }
        };
        clock::timeout(&*self.clock, seconds(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

#[tokio::test]
async fn a_slow_table_sees_the_newest_state_and_no_more_than_a_few_at_once() {
    let showing = Showing::start(MemoryLiveTable::gated());
    let gate = Arc::clone(showing.table.gate.as_ref().unwrap());
    for as_of in 1..=100 {
        for venue in ["a", "b", "c", "d", "e"] {
            showing.queue.offer(state(venue, 1, as_of), true, seconds(1));
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(showing.table.calls(), 3, "the others wait, and no tick did");
    gate.add_permits(1_000);
    let venues = ["a", "b", "c", "d", "e"];
    let all = || {
        let as_of = |venue: &&str| showing.table.row(&key(venue)).map(|row| row.as_of);
        venues.iter().all(|venue| as_of(venue) == Some(100))
    };
    showing.until("the newest of all", all).await;
    assert!(showing.table.calls() <= 10, "{}", showing.table.calls());
}

#[tokio::test]
async fn a_table_that_is_away_is_named_and_gets_the_newest_state_when_it_is_back() {
    let showing = Showing::start(MemoryLiveTable::default());
    showing.table.set_away(true);
    showing.queue.offer(state("v", 1, 1), true, seconds(1));
    let check = || showing.readiness.report().checks[0].state.clone();
    showing.until("not ready", || !check().ok).await;
    assert!(check().detail.unwrap().contains("the table is away"));
    showing.queue.offer(state("v", 1, 2), true, seconds(2));
    showing.until("tried again", || showing.table.calls() >= 3).await;
    showing.table.set_away(false);
    let shown = || showing.table.row(&key("v")).is_some_and(|row| row.as_of == 2);
    showing.until("shown", shown).await;
    showing.until("ready", || check().ok).await;
}

#[tokio::test]
async fn whoever_loses_its_only_venue_while_the_table_is_away_is_ready_again() {
    let showing = Showing::start(MemoryLiveTable::default());
    showing.table.set_away(true);
    showing.queue.offer(state("v", 1, 1), true, seconds(1));
    let check = || showing.readiness.report().checks[0].state.clone();
    showing.until("not ready", || !check().ok).await;
    showing.queue.forget(&key("v"), 1);
    showing.until("ready", || check().ok).await;
    assert!(showing.table.row(&key("v")).is_none());
}

#[tokio::test]
async fn closing_shows_what_waits_and_then_ends() {
    let showing = Showing::start(MemoryLiveTable::default());
    for n in 0..50 {
        showing
            .queue
            .offer(state(&format!("v{n}"), 1, 1), true, seconds(1));
    }
    showing.queue.close();
    showing.until("ended", || showing.task.is_finished()).await;
    assert!((0..50).all(|n| showing.table.row(&key(&format!("v{n}"))).is_some()));
}

#[tokio::test]
async fn a_state_without_news_is_shown_again_after_a_while_and_not_before() {
    let config = Config {
        shown_again_every: HumanDuration::seconds(30),
        ..Config::default()
    };
    let (queue, table, clock) = (
        TableQueue::new(&config),
        MemoryLiveTable::default(),
        ManualClock::at_ms(0),
    );
    for second in 0..=90 {
        queue.offer(state("v", 1, second), false, clock.monotonic());
        queue.show_waiting(&table, clock.monotonic()).await;
        clock.advance(seconds(1));
    }
    assert_eq!(table.calls(), 4, "at once, then after 30, 60 and 90 seconds");
    assert_eq!(table.row(&key("v")).unwrap().as_of, 90);
    queue.offer(state("v", 1, 91), true, clock.monotonic());
    queue.show_waiting(&table, clock.monotonic()).await;
    assert_eq!(table.row(&key("v")).unwrap().as_of, 91, "news does not wait");
}

#[tokio::test]
async fn a_lost_venue_is_forgotten_and_an_older_owner_takes_nothing_from_a_newer() {
    let (queue, table) = (TableQueue::new(&Config::default()), MemoryLiveTable::default());
    queue.offer(state("v", 1, 1), true, seconds(1));
    queue.forget(&key("v"), 1);
    queue.show_waiting(&table, seconds(1)).await;
    assert_eq!(table.calls(), 0);
    queue.offer(state("v", 3, 2), true, seconds(2));
    queue.offer(state("v", 2, 3), true, seconds(2));
    queue.forget(&key("v"), 2);
    queue.show_waiting(&table, seconds(2)).await;
    assert_eq!(table.row(&key("v")).unwrap().as_of, 2);
}

#[test]
fn venues_are_bounded() {
    let config = Config {
        venues_max: 2,
        ..Config::default()
    };
    let queue = TableQueue::new(&config);
    for venue in ["a", "b", "c"] {
        queue.offer(state(venue, 1, 1), true, seconds(1));
    }
    let taken: Vec<VenueKey> = std::iter::from_fn(|| queue.take())
        .map(|state| state.venue.clone())
        .collect();
    assert_eq!(taken, [key("a"), key("b")]);
}
