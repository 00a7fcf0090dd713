use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_runtime::clock::ManualClock;
use dwell_runtime::shutdown::{PhaseBounds, ShutdownController};

use super::*;
use crate::conformance::samples::{shop, venue};

/// A table in memory that counts looks and can be away.
#[derive(Debug, Clone, Default)]
struct Table {
    state: Arc<Mutex<State>>,
    looks: Arc<AtomicUsize>,
    is_away: Arc<Mutex<bool>>,
}

impl Table {
    fn show(&self, fence: u64, as_of: i64) {
        *self.state.lock().unwrap() = Some(Arc::new(state(fence, as_of)));
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Look for Table {
    async fn newest(&self, _: &VenueKey, _: Option<&LiveVenue>) -> Result<Newest> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if *self.is_away.lock().unwrap() {
            return Err(StorageError::new(ErrorKind::Unavailable, "away"));
        }
        Ok(self
            .state
            .lock()
            .unwrap()
            .clone()
            .map_or(Newest::Nothing, Newest::State))
    }
}

fn state(fence: u64, as_of: i64) -> LiveVenue {
    LiveVenue {
        venue: shop(),
        fence,
        as_of,
        watermark: as_of,
        occupancy: vec![],
        open_sessions: 0,
        late_events: 0,
        days: vec![],
    }
}

struct Setting {
    table: Table,
    clock: ManualClock,
    tasks: Tasks,
    board: Board<Table>,
}

fn setting() -> Setting {
    let (table, clock) = (Table::default(), ManualClock::at_ms(0));
    let tasks = Tasks::new(ShutdownController::new(PhaseBounds::default()));
    let board = Board::new(table.clone(), clock.shared(), tasks.clone());
    Setting {
        table,
        clock,
        tasks,
        board,
    }
}

impl Setting {
    async fn as_of(&self) -> Option<i64> {
        self.board.venue(&shop()).await.unwrap().map(|state| state.as_of)
    }

    /// Moves the clock, once the task sleeps.
    async fn pass(&self, duration: Duration) {
        while self.clock.sleepers() == 0 && !self.tasks.running().is_empty() {
            tokio::task::yield_now().await;
        }
        self.clock.advance(duration);
    }
}

#[tokio::test]
async fn a_venue_is_looked_for_at_most_twice_a_second_however_many_ask() {
    let setting = setting();
    setting.table.show(1, 10);
    let venue = shop();
    let asked = futures::future::join_all((0..20).map(|_| setting.board.venue(&venue))).await;
    assert!(asked.into_iter().all(|state| state.unwrap().unwrap().as_of == 10));
    assert_eq!(setting.table.looks(), 1, "the others wait for the first one");
    setting.table.show(1, 11);
    setting.clock.advance(Duration::from_millis(499));
    assert_eq!(setting.as_of().await, Some(10));
    setting.clock.advance(Duration::from_millis(1));
    assert_eq!(setting.as_of().await, Some(11));
    assert_eq!(setting.table.looks(), 2);
}

#[tokio::test]
async fn a_state_is_never_followed_by_an_older_one() {
    let setting = setting();
    for (fence, as_of, expected) in [
        (2, 10, (2, 10)),
        (1, 99, (2, 10)),
        (2, 9, (2, 10)),
        (3, 5, (3, 5)),
    ] {
        setting.table.show(fence, as_of);
        setting.clock.advance(FRESH_FOR);
        let shown = setting.board.venue(&shop()).await.unwrap().unwrap();
        assert_eq!((shown.fence, shown.as_of), expected);
    }
    *setting.table.state.lock().unwrap() = None;
    setting.clock.advance(FRESH_FOR);
    assert_eq!(setting.as_of().await, None, "its time to live is over");
}

#[tokio::test]
async fn the_last_known_state_answers_for_a_minute_while_the_table_is_away() {
    let setting = setting();
    *setting.table.is_away.lock().unwrap() = true;
    assert!(
        setting.board.venue(&shop()).await.is_err(),
        "nothing is known yet"
    );
    *setting.table.is_away.lock().unwrap() = false;
    setting.table.show(1, 10);
    assert_eq!(setting.as_of().await, Some(10));
    *setting.table.is_away.lock().unwrap() = true;
    setting.clock.advance(ANSWERS_FOR - Duration::from_millis(1));
    assert_eq!(setting.as_of().await, Some(10));
    setting.clock.advance(Duration::from_millis(1));
    let error = setting.board.venue(&shop()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn one_task_follows_all_subscriptions_and_ends_with_the_last_one() {
    let setting = setting();
    setting.table.show(1, 10);
    let mut first = setting.board.subscribe(&shop()).await.unwrap();
    let second = setting.board.subscribe(&shop()).await.unwrap();
    let other = setting.board.subscribe(&venue("acme", "other")).await.unwrap();
    assert_eq!(first.borrow_and_update().as_ref().unwrap().as_of, 10);
    assert_eq!(setting.tasks.running().len(), 1);

    setting.table.show(1, 11);
    setting.pass(LOOK_EVERY).await;
    first.changed().await.unwrap();
    assert_eq!(first.borrow_and_update().as_ref().unwrap().as_of, 11);
    assert_eq!(second.borrow().as_ref().unwrap().as_of, 11);

    drop((first, second));
    setting.pass(LOOK_EVERY).await;
    assert_eq!(
        setting.tasks.running().len(),
        1,
        "somebody still listens to the other venue"
    );
    drop(other);
    setting.pass(LOOK_EVERY).await;
    while !setting.tasks.running().is_empty() {
        tokio::task::yield_now().await;
    }
    let looks = setting.table.looks();
    setting.clock.advance(10 * LOOK_EVERY);
    assert_eq!(setting.table.looks(), looks, "nobody looks any more");

    let _again = setting.board.subscribe(&shop()).await.unwrap();
    assert_eq!(
        setting.tasks.running().len(),
        1,
        "the next subscription starts it anew"
    );
}

#[tokio::test]
async fn subscribers_keep_the_last_state_while_the_table_is_away_and_see_the_next_one() {
    let setting = setting();
    setting.table.show(1, 10);
    let mut states = setting.board.subscribe(&shop()).await.unwrap();
    states.borrow_and_update();
    *setting.table.is_away.lock().unwrap() = true;
    for _ in 0..3 {
        setting.pass(ANSWERS_FOR).await;
    }
    assert_eq!(states.borrow().as_ref().unwrap().as_of, 10);
    *setting.table.is_away.lock().unwrap() = false;
    setting.table.show(1, 12);
    setting.pass(LOOK_EVERY).await;
    states.changed().await.unwrap();
    assert_eq!(states.borrow().as_ref().unwrap().as_of, 12);
}

#[tokio::test]
async fn venues_that_nobody_asks_for_are_forgotten_and_subscribed_ones_are_not() {
    let setting = setting();
    let known = || setting.board.inner.known().venues.len();
    let _states = setting.board.subscribe(&shop()).await.unwrap();
    for n in 0..10 {
        setting.board.venue(&venue("acme", &n.to_string())).await.unwrap();
    }
    assert_eq!(known(), 11);
    setting.clock.advance(ANSWERS_FOR);
    setting.board.venue(&venue("acme", "next")).await.unwrap();
    assert_eq!(known(), 2);
    for n in 0..KNOWN_MAX - 2 {
        setting
            .board
            .venue(&venue("other", &n.to_string()))
            .await
            .unwrap();
    }
    assert_eq!(known(), KNOWN_MAX);
    setting.clock.advance(FRESH_FOR);
    setting.board.venue(&venue("acme", "last")).await.unwrap();
    assert_eq!(known(), 2, "a crowd is forgotten sooner");
}
