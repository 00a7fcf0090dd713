//! How far a venue's event time is settled.
//!
//! The watermark is min(latest event time, now) − reorder window; it never falls. While a backlog is read, the time up
//! to which the log has been read stands in for now, so that reading one partition ahead of another makes nothing late
//! that was not. It is advanced at ticks, so that the events of one post are never late relative to each other. Events
//! before it are *late*.

use dwell_model::time::TsMs;

/// A venue's watermark.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watermark {
    window_ms: i64,
    latest_ts: TsMs,
    settled_before: TsMs,
}

impl Watermark {
    /// A watermark of a venue of which nothing has been seen.
    pub(crate) fn new(window_ms: i64) -> Self {
        Self {
            window_ms,
            latest_ts: TsMs::MIN,
            settled_before: TsMs::MIN,
        }
    }

    /// Goes on from what was stored, or from what a rebuild has seen.
    pub(crate) fn restore(&mut self, latest_ts: TsMs, settled_before: TsMs) {
        self.latest_ts = self.latest_ts.max(latest_ts);
        self.settled_before = self.settled_before.max(settled_before);
    }

    /// Takes note of an event time.
    #[inline]
    pub(crate) fn see(&mut self, ts: TsMs) {
        self.latest_ts = self.latest_ts.max(ts);
    }

    /// Moves on as far as the events seen and the time up to which the log was read allow; returns the time before which all is settled.
    pub(crate) fn advance(&mut self, log_time: TsMs) -> TsMs {
        if self.latest_ts > TsMs::MIN {
            self.raise(self.latest_ts.min(log_time).saturating_sub(self.window_ms));
        }
        self.settled_before
    }

    /// Moves on to a time at least, for lack of room.
    pub(crate) fn raise(&mut self, settled_before: TsMs) {
        self.settled_before = self.settled_before.max(settled_before);
    }

    /// The time before which all is settled.
    pub(crate) fn settled_before(&self) -> TsMs {
        self.settled_before
    }

    /// The latest event time seen.
    pub(crate) fn latest_ts(&self) -> TsMs {
        self.latest_ts
    }

    /// Whether an event comes too late for the reorder window.
    #[inline]
    pub(crate) fn is_late(&self, ts: TsMs) -> bool {
        ts < self.settled_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_latest_event_but_not_beyond_the_clock_and_never_falls() {
        let mut watermark = Watermark::new(5_000);
        assert_eq!(
            watermark.advance(1_000_000),
            TsMs::MIN,
            "nothing seen, nothing late"
        );
        watermark.see(100_000);
        watermark.see(90_000);
        assert_eq!(watermark.advance(1_000_000), 95_000);
        assert!(watermark.is_late(94_999) && !watermark.is_late(95_000));
        watermark.see(9_000_000);
        assert_eq!(
            watermark.advance(1_000_000),
            995_000,
            "a sensor ahead of its time makes nobody late"
        );
        assert_eq!(watermark.advance(900_000), 995_000, "the clock was set back");
    }
}
