//! What [`LiveViewTable`] promises.
//!
//! The contract lets a reader be late (it may look once a second), so the suite waits for what must show itself, and
//! gives what must not the time in which it would.

use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_model::metrics::{
    AggregateRow, CellValue, Family, Grain, ReadingValue, Slice, TransactionValue, Value, ZoneValue,
};
use dwell_model::time::{HOUR_MS, TsMs};
use dwell_runtime::clock::{Clock, SystemClock};

use super::run_cases;
use super::samples::{DAY_START, Dice, day, shop, strangers, venue};
use crate::api::{LiveDay, LiveVenue, LiveViewTable};

/// Runs all cases, each on a fresh table that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn LiveViewTable>>,
{
    run_cases!(
        "live view",
        make,
        [
            a_venue_that_was_never_shown_is_not_there,
            a_state_comes_back_as_it_was,
            the_state_shown_last_is_read,
            showing_a_state_again_changes_nothing,
            a_higher_fence_wins_whatever_its_time,
            a_state_of_a_lower_fence_is_kept_from_readers,
            a_large_state_comes_back_whole,
            states_that_replace_each_other_are_never_mixed,
            subscribers_see_what_is_shown,
            venues_are_kept_apart,
        ]
    );
}

/// Longest time until a reader must see what was shown.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long what must not show itself is given.
const WOULD_BE_SEEN_WITHIN: Duration = Duration::from_millis(1_500);
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn row(grain: Grain, family: Family, subject: &str, value: Value) -> AggregateRow {
    AggregateRow {
        grain,
        start: DAY_START,
        length_ms: HOUR_MS,
        family,
        subject: subject.to_owned(),
        slice: Slice::All,
        value,
    }
}

/// A state in which every part carries the number.
fn state(venue: VenueKey, fence: u64, as_of: TsMs, number: u64) -> LiveVenue {
    let zone = |dwells: u64| {
        Value::Zone(ZoneValue {
            visits: number,
            visitors: Some(number),
            dwells_ms: (0..dwells).map(|n| n * n + number).collect(),
            ..ZoneValue::default()
        })
    };
    let reading = Value::Reading(ReadingValue {
        count: number,
        min: -0.1,
        max: f64::MAX,
        sum_nano: i128::MIN + i128::from(number),
        last: 1.0 / 3.0,
        last_ts: DAY_START,
        unit: "°C".to_owned(),
    });
    let receipts = Value::Transaction(TransactionValue {
        sales: number,
        returns: 0,
        voids: 1,
        amount: i128::MAX,
    });
    let rows = vec![
        row(Grain::Hour, Family::Zone, "_venue", zone(3)),
        row(Grain::Hour, Family::Reading, "s\u{1f}t", reading),
        row(Grain::Day, Family::Zone, "", zone(9)),
        row(Grain::Day, Family::Transaction, "EUR", receipts),
    ];
    LiveVenue {
        venue,
        fence,
        as_of,
        watermark: as_of - 5_000,
        occupancy: vec![("_venue".to_owned(), number), ("Süd 🛒".to_owned(), 0)],
        open_sessions: number,
        late_events: u64::MAX,
        days: vec![
            LiveDay {
                day: day("2026-03-28"),
                layout: u64::MAX,
                rows: Arc::new(vec![]),
            },
            LiveDay {
                day: day("2026-03-29"),
                layout: 7,
                rows: Arc::new(rows),
            },
        ],
    }
}

/// A state of some megabytes that do not compress, each of its rows with the number.
fn large(fence: u64, as_of: TsMs, number: u64) -> LiveVenue {
    let mut dice = Dice::new(number);
    let cells = |dice: &mut Dice| {
        let cell = |dice: &mut Dice| {
            (
                dice.below(1 << 31) as i32,
                dice.below(1 << 31) as i32,
                dice.below(u64::from(u32::MAX)),
            )
        };
        Value::Cell(CellValue {
            cell_cm: number as u32,
            cells: (0..20_000).map(|_| cell(dice)).collect(),
        })
    };
    let rows = (0..8).map(|n| row(Grain::Hour, Family::Cell, &n.to_string(), cells(&mut dice)));
    let mut state = state(shop(), fence, as_of, number);
    state.days[1].rows = Arc::new(rows.collect());
    state
}

async fn read(table: &dyn LiveViewTable, venue: &VenueKey) -> Option<LiveVenue> {
    table.venue(venue).await.unwrap().map(|state| (*state).clone())
}

/// Waits until a reader sees a state.
async fn sees(table: &dyn LiveViewTable, expected: &LiveVenue) {
    let clock = SystemClock::new();
    while clock.monotonic() < SEEN_WITHIN {
        if read(table, &expected.venue).await.as_ref() == Some(expected) {
            return;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    let seen = read(table, &expected.venue)
        .await
        .map(|state| (state.fence, state.as_of));
    panic!("expected {:?}, saw {seen:?}", (expected.fence, expected.as_of));
}

/// Gives readers the time to see what they must not, and looks what they see.
async fn still_sees(table: &dyn LiveViewTable, expected: &LiveVenue) {
    let clock = SystemClock::new();
    while clock.monotonic() < WOULD_BE_SEEN_WITHIN {
        assert_eq!(read(table, &expected.venue).await.as_ref(), Some(expected));
        clock.sleep(LOOK_EVERY).await;
    }
}

async fn a_venue_that_was_never_shown_is_not_there(table: Arc<dyn LiveViewTable>) {
    assert_eq!(read(&*table, &shop()).await, None);
    assert_eq!(*table.subscribe(&shop()).await.unwrap().borrow(), None);
}

async fn a_state_comes_back_as_it_was(table: Arc<dyn LiveViewTable>) {
    let shown = state(shop(), 3, DAY_START, 5);
    table.show(&shown).await.unwrap();
    sees(&*table, &shown).await;
    let empty = LiveVenue {
        occupancy: vec![],
        days: vec![],
        late_events: 0,
        as_of: DAY_START + 1,
        ..shown
    };
    table.show(&empty).await.unwrap();
    sees(&*table, &empty).await;
}

async fn the_state_shown_last_is_read(table: Arc<dyn LiveViewTable>) {
    for n in 0..30 {
        let shown = state(shop(), 1, DAY_START + n * 1_000, n as u64);
        table.show(&shown).await.unwrap();
        if n % 10 == 9 {
            sees(&*table, &shown).await;
        }
    }
}

async fn showing_a_state_again_changes_nothing(table: Arc<dyn LiveViewTable>) {
    let shown = state(shop(), 1, DAY_START, 1);
    for _ in 0..3 {
        table.show(&shown).await.unwrap();
    }
    sees(&*table, &shown).await;
    still_sees(&*table, &shown).await;
}

async fn a_higher_fence_wins_whatever_its_time(table: Arc<dyn LiveViewTable>) {
    table
        .show(&state(shop(), 1, DAY_START + 60_000, 1))
        .await
        .unwrap();
    // The clock of the new owner is behind.
    let owner = state(shop(), 2, DAY_START, 2);
    table.show(&owner).await.unwrap();
    sees(&*table, &owner).await;
    still_sees(&*table, &owner).await;
}

async fn a_state_of_a_lower_fence_is_kept_from_readers(table: Arc<dyn LiveViewTable>) {
    let owner = state(shop(), 2, DAY_START, 2);
    table.show(&owner).await.unwrap();
    sees(&*table, &owner).await;
    let states = table.subscribe(&shop()).await.unwrap();
    // The former owner was paused and wakes up.
    for n in 1..4 {
        table
            .show(&state(shop(), 1, DAY_START + n * 20_000, 1))
            .await
            .unwrap();
    }
    still_sees(&*table, &owner).await;
    assert_eq!(states.borrow().as_deref(), Some(&owner));
    let later = state(shop(), 2, DAY_START + 1_000, 3);
    table.show(&later).await.unwrap();
    sees(&*table, &later).await;
}

async fn a_large_state_comes_back_whole(table: Arc<dyn LiveViewTable>) {
    let shown = large(1, DAY_START, 1);
    table.show(&shown).await.unwrap();
    sees(&*table, &shown).await;
    let small = state(shop(), 1, DAY_START + 60_000, 2);
    table.show(&small).await.unwrap();
    sees(&*table, &small).await;
}

async fn states_that_replace_each_other_are_never_mixed(table: Arc<dyn LiveViewTable>) {
    let last = 6;
    let showing = async {
        for n in 0..=last {
            // Far enough apart that the ones before are removed under the readers' eyes.
            table
                .show(&large(1, DAY_START + n as i64 * 60_000, n))
                .await
                .unwrap();
        }
    };
    let reading = async {
        let clock = SystemClock::new();
        loop {
            let seen = read(&*table, &shop()).await;
            if let Some(seen) = seen {
                let number = seen.open_sessions;
                assert!(
                    seen == large(1, DAY_START + number as i64 * 60_000, number),
                    "state {number}"
                );
                if number == last {
                    return;
                }
            }
            assert!(
                clock.monotonic() < 12 * SEEN_WITHIN,
                "the last state never showed itself"
            );
            clock.sleep(LOOK_EVERY).await;
        }
    };
    futures::join!(showing, reading);
}

async fn subscribers_see_what_is_shown(table: Arc<dyn LiveViewTable>) {
    let mut early = table.subscribe(&shop()).await.unwrap();
    assert_eq!(*early.borrow_and_update(), None);
    let first = state(shop(), 1, DAY_START, 1);
    table.show(&first).await.unwrap();
    early
        .wait_for(|state| state.as_deref() == Some(&first))
        .await
        .unwrap();
    sees(&*table, &first).await;
    let late = table.subscribe(&shop()).await.unwrap();
    assert_eq!(
        late.borrow().as_deref(),
        Some(&first),
        "a channel holds the state from its beginning"
    );
    for n in 2..4 {
        let next = state(shop(), 1, DAY_START + n * 1_000, n as u64);
        table.show(&next).await.unwrap();
        for mut states in [early.clone(), late.clone()] {
            states
                .wait_for(|state| state.as_deref() == Some(&next))
                .await
                .unwrap();
        }
    }
}

async fn venues_are_kept_apart(table: Arc<dyn LiveViewTable>) {
    let mut places = strangers();
    places.extend([shop(), venue("acme", "kiosk")]);
    let states: Vec<LiveVenue> = places
        .iter()
        .zip(1..)
        .map(|(place, n)| state(place.clone(), n, DAY_START, n))
        .collect();
    for state in &states {
        table.show(state).await.unwrap();
    }
    for state in &states {
        sees(&*table, state).await;
    }
    assert_eq!(read(&*table, &venue("acme", "nowhere")).await, None);
}
