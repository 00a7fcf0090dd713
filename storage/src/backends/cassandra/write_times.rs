//! Write times of rows that a repetition replaces.
//!
//! Cassandra keeps of two writes the one with the later time, whichever comes first. Replacing rows is therefore a
//! deletion just before the new ones: it takes what an earlier attempt wrote, be it still on its way, and leaves the
//! new rows alone.

use std::sync::atomic::{AtomicI64, Ordering};

use dwell_runtime::clock::SharedClock;

/// Gives out write times that only grow within a process, even if its clock is set back. A generation or a state is
/// written by one process only (its fence is another's otherwise), so that is enough.
#[derive(Debug)]
pub(super) struct WriteTimes {
    clock: SharedClock,
    last_us: AtomicI64,
}

/// The times of one replacement, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteTime {
    /// Of the deletion of what was there.
    pub(super) deletion_us: i64,
    /// Of the new rows.
    pub(super) rows_us: i64,
}

impl WriteTimes {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            last_us: AtomicI64::new(0),
        }
    }

    pub(super) fn next(&self) -> WriteTime {
        let now_us = self.clock.now_ms().saturating_mul(1_000);
        let later = |last_us: i64| Some(now_us.max(last_us.saturating_add(2)));
        let last_us = self
            .last_us
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, later)
            .unwrap_or_else(|last_us| last_us);
        let rows_us = now_us.max(last_us.saturating_add(2));
        WriteTime {
            deletion_us: rows_us - 1,
            rows_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::ManualClock;

    use super::*;

    #[test]
    fn a_later_replacement_deletes_what_an_earlier_one_wrote_on_a_clock_set_back_too() {
        let clock = ManualClock::at_ms(5_000);
        let times = WriteTimes::new(clock.shared());
        let first = times.next();
        assert_eq!(
            first,
            WriteTime {
                deletion_us: 4_999_999,
                rows_us: 5_000_000
            }
        );
        let second = times.next();
        assert!(second.deletion_us > first.rows_us && second.rows_us > second.deletion_us);
        clock.set_ms(1_000);
        let third = times.next();
        assert!(third.deletion_us > second.rows_us);
    }
}
