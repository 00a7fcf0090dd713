//! Write times: what the nodes' clocks say, whatever this machine's clock says.
//!
//! Cassandra keeps of two writes the one with the later time, whichever comes first, and writers date their writes
//! themselves, so that a process's writes take effect in the order in which it made them. A machine whose clock is
//! hours ahead would so delete what others write hours later, and one that is behind would write below deletions:
//! acknowledged, and never seen. So each process asks the nodes for their time when it connects, and again every
//! [`COMPARED_EVERY`] and when its own clock has jumped, before it writes anything; where the two are apart, it counts
//! by theirs. What is left is how far the nodes' own clocks are apart, [`TOLERANCE_MS`], and how long a request was on
//! its way.
//!
//! Replacing rows is a deletion just before the new ones: it takes what an earlier attempt wrote, be it still on its
//! way, and leaves the new rows alone. A generation or a state is written by one process only (its fence is another's
//! otherwise), and within a process write times only grow, so that is enough.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use scylla::policies::timestamp_generator::TimestampGenerator;

/// Clocks so far apart are as good as together: more than synchronised ones are ever apart.
const TOLERANCE_MS: i64 = 500;
/// How long a comparison of the clocks is good for, if this machine's does not jump.
const COMPARED_EVERY: Duration = Duration::from_secs(30);

/// What dates this process's writes.
#[derive(Debug)]
pub(super) struct WriteClock {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    compared: Option<Compared>,
    /// The last time given out, microseconds.
    last_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct Compared {
    /// How far the nodes' clocks are ahead of this machine's; 0 while they are as good as together.
    offset_ms: i64,
    /// By the monotonic clock.
    at: Duration,
    /// The wall clock less the monotonic one: it stays the same until the wall clock jumps, or the machine sleeps.
    origin_ms: i64,
}

/// Whether the clocks must be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// They were compared a moment ago.
    No,
    /// It is time, but what is known will do for now.
    Soon,
    /// They never were, or this machine's has jumped since: nothing may be written before.
    Now,
}

/// What a node said that the time was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// This machine's clock when it was asked.
    pub(super) asked_ms: TsMs,
    /// The node's clock.
    pub(super) theirs_ms: TsMs,
    /// This machine's clock when the answer was there.
    pub(super) answered_ms: TsMs,
}

impl Reading {
    /// How far the node's clock is ahead of this machine's.
    pub(super) fn ahead_ms(&self) -> i64 {
        self.theirs_ms - self.asked_ms.midpoint(self.answered_ms)
    }

    /// The same, 0 where the answer's way and the tolerance may explain it.
    fn offset_ms(&self) -> i64 {
        let unsure_ms = (self.answered_ms - self.asked_ms).abs() / 2 + TOLERANCE_MS;
        match self.ahead_ms() {
            ahead_ms if ahead_ms.abs() <= unsure_ms => 0,
            ahead_ms => ahead_ms,
        }
    }
}

/// The times of one replacement, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteTime {
    /// Of the deletion of what was there.
    pub(super) deletion_us: i64,
    /// Of the new rows.
    pub(super) rows_us: i64,
}

impl WriteClock {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Milliseconds since 1970 by the nodes' clocks.
    pub(super) fn now_ms(&self) -> TsMs {
        self.clock.now_ms().saturating_add(self.state().offset_ms())
    }

    /// Times for a replacement; later than all that were given out before.
    pub(super) fn replacement(&self) -> WriteTime {
        let deletion_us = self.take(2);
        WriteTime {
            deletion_us,
            rows_us: deletion_us + 1,
        }
    }

    /// Whether the nodes have to be asked.
    pub(super) fn due(&self) -> Due {
        let (now, origin_ms) = self.monotonic();
        match self.state().compared {
            Some(compared) if (origin_ms - compared.origin_ms).abs() > TOLERANCE_MS => Due::Now,
            Some(compared) if now.saturating_sub(compared.at) < COMPARED_EVERY => Due::No,
            Some(_) => Due::Soon,
            None => Due::Now,
        }
    }

    /// By what a jump of this machine's clock is noticed: the same as long as it goes as it should.
    pub(super) fn origin_ms(&self) -> i64 {
        self.monotonic().1
    }

    /// Counts by the middle one of the clocks of `nodes` nodes from now on. With fewer readings than a majority, or when
    /// this machine's clock has jumped since `began_ms` ([`origin_ms`](Self::origin_ms) before they were asked), nothing is
    /// known; what was, counts for another while.
    pub(super) fn compare(&self, readings: &[Reading], nodes: usize, began_ms: i64) {
        let (at, origin_ms) = self.monotonic();
        if (origin_ms - began_ms).abs() > TOLERANCE_MS {
            return;
        }
        let mut state = self.state();
        let before_ms = state.offset_ms();
        let Some(offset_ms) = middle(readings).filter(|_| readings.len() * 2 > nodes) else {
            let same = |compared: &&mut Compared| (compared.origin_ms - origin_ms).abs() <= TOLERANCE_MS;
            if let Some(compared) = state.compared.as_mut().filter(same) {
                compared.at = at;
            }
            return;
        };
        state.compared = Some(Compared {
            offset_ms,
            at,
            origin_ms,
        });
        drop(state);
        if (offset_ms - before_ms).abs() > TOLERANCE_MS {
            tracing::warn!(
                offset_ms,
                "this machine's clock and those of Cassandra's nodes are apart: writes are dated by theirs; keep clocks \
                 together by NTP"
            );
        }
    }

    /// The first of `n` times in a row, later than all before.
    fn take(&self, n: i64) -> i64 {
        let (due, now_ms) = (self.due(), self.clock.now_ms());
        let mut state = self.state();
        let mut now_us = now_ms.saturating_add(state.offset_ms()).saturating_mul(1_000);
        if due == Due::Now {
            // Statements that only read ask for a time, too: what a wrong clock says must not bind the writes that follow.
            if state.compared.is_none() {
                return now_us;
            }
            now_us = state.last_us;
        }
        let first_us = now_us.max(state.last_us.saturating_add(1));
        state.last_us = first_us.saturating_add(n - 1);
        first_us
    }

    fn monotonic(&self) -> (Duration, i64) {
        let monotonic = self.clock.monotonic();
        let monotonic_ms = i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX);
        (monotonic, self.clock.now_ms().saturating_sub(monotonic_ms))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The middle offset; of two in the middle the one with which this machine is least wrong.
fn middle(readings: &[Reading]) -> Option<i64> {
    let mut offsets: Vec<i64> = readings.iter().map(Reading::offset_ms).collect();
    offsets.sort_unstable();
    let upper = *offsets.get(offsets.len() / 2)?;
    match offsets.len() % 2 {
        0 => {
            let lower = offsets[offsets.len() / 2 - 1];
            Some(if lower.abs() < upper.abs() { lower } else { upper })
        }
        _ => Some(upper),
    }
}

impl State {
    fn offset_ms(&self) -> i64 {
        self.compared.map_or(0, |compared| compared.offset_ms)
    }
}

/// For statements that are not dated one by one.
impl TimestampGenerator for WriteClock {
    fn next_timestamp(&self) -> i64 {
        self.take(1)
    }
}

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::{Clock, ManualClock};

    use super::*;

    fn write_clock(at_ms: i64) -> (ManualClock, WriteClock) {
        let clock = ManualClock::at_ms(at_ms);
        let write_clock = WriteClock::new(clock.shared());
        (clock, write_clock)
    }

    /// A node that is so far ahead answers at once.
    fn ahead(clock: &ManualClock, by_ms: i64) -> Reading {
        let now_ms = clock.now_ms();
        Reading {
            asked_ms: now_ms,
            theirs_ms: now_ms + by_ms,
            answered_ms: now_ms,
        }
    }

    fn compare(times: &WriteClock, readings: &[Reading]) {
        times.compare(readings, readings.len(), times.origin_ms());
    }

    #[test]
    fn a_later_replacement_deletes_what_an_earlier_one_wrote_on_a_clock_set_back_too() {
        let (clock, times) = write_clock(5_000);
        compare(&times, &[ahead(&clock, 0)]);
        let first = times.replacement();
        assert_eq!((first.deletion_us, first.rows_us), (5_000_000, 5_000_001));
        let second = times.replacement();
        assert!(second.deletion_us > first.rows_us && second.rows_us > second.deletion_us);
        clock.set_ms(1_000);
        assert!(times.next_timestamp() > second.rows_us);
        assert!(times.replacement().deletion_us > second.rows_us + 1);
    }

    #[test]
    fn a_clock_that_is_wrong_counts_by_the_middle_one_of_the_nodes() {
        for wrong_ms in [7_200_000, -7_200_000] {
            let (clock, times) = write_clock(10_000_000 + wrong_ms);
            // Nothing is written before the clocks were compared; statements that read ask for a time as well.
            times.next_timestamp();
            let readings = [0, 700, -900].map(|apart| ahead(&clock, apart - wrong_ms));
            compare(&times, &readings);
            assert_eq!(times.now_ms(), 10_000_000);
            assert_eq!(times.next_timestamp(), 10_000_000_000);
            // Set right, and compared again.
            clock.set_ms(10_000_100);
            compare(&times, &[ahead(&clock, 0)]);
            assert_eq!(times.next_timestamp(), 10_000_100_000);
        }
    }

    #[test]
    fn what_the_answers_way_may_explain_moves_nothing() {
        let (clock, times) = write_clock(1_000_000);
        let slow = Reading {
            asked_ms: 996_000,
            theirs_ms: 996_100,
            answered_ms: 1_000_000,
        };
        compare(&times, &[slow]);
        assert_eq!(times.now_ms(), 1_000_000);
        compare(&times, &[ahead(&clock, 499)]);
        assert_eq!(times.now_ms(), 1_000_000);
        compare(&times, &[ahead(&clock, 501)]);
        assert_eq!(times.now_ms(), 1_000_501);
        let two = [ahead(&clock, 7_200_000), ahead(&clock, 600)];
        compare(&times, &two);
        assert_eq!(
            times.now_ms(),
            1_000_600,
            "of two the one with which less is wrong"
        );
    }

    #[test]
    fn clocks_are_compared_at_first_from_time_to_time_and_after_a_jump() {
        let (clock, times) = write_clock(1_000_000);
        assert_eq!(times.due(), Due::Now);
        compare(&times, &[ahead(&clock, 0)]);
        assert_eq!(times.due(), Due::No);
        clock.advance(COMPARED_EVERY);
        assert_eq!(times.due(), Due::Soon);
        // One of three that is wrong is not believed.
        times.compare(&[ahead(&clock, 7_200_000)], 3, times.origin_ms());
        assert_eq!((times.due(), times.now_ms()), (Due::No, 1_030_000));
        // Its monotonic clock goes on.
        let last_us = times.next_timestamp();
        clock.set_ms(400_000);
        assert_eq!(times.due(), Due::Now);
        assert_eq!(
            times.next_timestamp(),
            last_us + 1,
            "nobody knows what time it is"
        );
        times.compare(&[ahead(&clock, 630_000)], 3, times.origin_ms());
        assert_eq!(times.due(), Due::Now, "one of three says too little");
        let began_ms = times.origin_ms();
        let readings = [ahead(&clock, 630_000)];
        clock.set_ms(100_000);
        times.compare(&readings, 1, began_ms);
        assert_eq!(times.due(), Due::Now, "it has jumped while they were asked");
        compare(&times, &[ahead(&clock, 930_000)]);
        assert_eq!((times.due(), times.now_ms()), (Due::No, 1_030_000));
    }
}
