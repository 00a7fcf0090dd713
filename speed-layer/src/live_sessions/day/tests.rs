//! Rows renewed hour by hour against the batch computation of all that was taken.

use dwell_model::event::Delivery;
use dwell_model::ids::{Receipt, TenantId, VenueId};
use proptest::prelude::*;

use super::*;
use crate::testing::events::{Event, assorted, walk};
use crate::testing::{Dice, ZONES, accumulate, assert_same_rows, day, venue_spec};

fn plan(of: &str) -> Arc<DayPlan> {
    let venue = venue_spec("Europe/Madrid", ZONES);
    let key = VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("shop").unwrap());
    Arc::new(DayPlan::new(
        key,
        venue.calendar,
        day(of),
        venue.layout_on(day(of)),
    ))
}

/// A day under test, and what it has taken.
struct Fed {
    state: DayState,
    watermark: Watermark,
    taken: Vec<(EventBatch, Delivery)>,
}

impl Fed {
    fn new(of: &str) -> Self {
        let state = DayState::new(plan(of), &Config::default());
        Self {
            state,
            watermark: Watermark::new(5_000),
            taken: Vec::new(),
        }
    }

    fn take(&mut self, batch: EventBatch) -> Taken {
        let (mut hasher, mut fresh) = (EventHasher::default(), Vec::new());
        hasher.prepare(&batch);
        let rows: Vec<u32> = (0..batch.len() as u32).collect();
        let taken = self
            .state
            .take(&hasher, &batch, &rows, &self.watermark, false, &mut fresh);
        fresh
            .iter()
            .for_each(|&row| self.watermark.see(batch.ts[row as usize]));
        // Only what is in: a rebuild would bring the rest.
        let delivery = Delivery {
            received_at: self.taken.len() as i64,
            receipt: Receipt::from_u128(1),
        };
        self.taken.push((batch.take(&fresh), delivery));
        taken
    }

    fn refresh(&mut self) -> bool {
        let before = self.watermark.advance(TsMs::MAX);
        self.state.refresh(before)
    }

    #[track_caller]
    fn assert_equals_batch(&self) {
        let (plan, carry) = (self.state.plan(), self.state.carry.clone());
        let batch = accumulate(&plan.cut, &plan.layout, &self.taken, carry);
        assert_same_rows(self.state.rows(), &batch.rows());
    }
}

proptest! {
    /// Events of all kinds from all over the day, in any order: each look shows exactly what has come so far.
    #[test]
    fn every_refresh_shows_what_the_batch_computation_makes_of_the_events_so_far(
        seed in any::<u64>(),
        visits in 1_usize..7,
        batch_len in 1_usize..40,
    ) {
        let mut dice = Dice(seed);
        let mut fed = Fed::new("2026-10-25");
        let cut = fed.state.plan().cut.clone();
        let mut events: Vec<Event> = Vec::new();
        for visit in 0..visits {
            let from = cut.start + dice.below(24 * 3_600_000) as i64;
            events.extend(walk(&format!("t{}", visit % 4), from, 25, &mut dice));
            if dice.below(2) == 0 {
                let from = cut.start + dice.below(24 * 3_600_000) as i64;
                events.extend(assorted(from, &mut dice));
            }
        }
        events.retain(|event| cut.contains(event.ts[0]));
        // Whole stretches change places, the rest keeps its order.
        let mut stretches: Vec<Vec<Event>> = events.chunks(batch_len).map(<[Event]>::to_vec).collect();
        dice.shuffle(&mut stretches);
        for stretch in stretches {
            for kind in Kind::ALL {
                let mut batch = EventBatch::new(kind);
                stretch.iter().filter(|event| event.kind == kind).for_each(|event| batch.append(event));
                if !batch.is_empty() {
                    fed.take(batch);
                }
            }
            fed.refresh();
            fed.assert_equals_batch();
        }
    }
}

#[test]
fn a_refresh_without_news_does_nothing() {
    let mut fed = Fed::new("2026-10-25");
    let start = fed.state.plan().cut.start;
    let batch = dwell_model::testing::position_batch(&[("s2", "t1", start + 7_200_000, 1.0, 1.0)]);
    assert_eq!(fed.take(batch.clone()).new, 1);
    assert!(fed.refresh());
    let rows = Arc::clone(fed.state.rows());
    assert_eq!(fed.take(batch).redelivered, 1);
    assert!(!fed.refresh());
    assert!(Arc::ptr_eq(&rows, fed.state.rows()), "the same rows are shown on");
}
