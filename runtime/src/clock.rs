//! Time for the whole program: the only module that may ask the machine what time it is, or wait.
//!
//! * [`Clock`] is what parts are given: the wall clock (epoch milliseconds, UTC), a monotonic clock, and sleep.
//! * [`SystemClock`] is the machine's time.
//! * [`ManualClock`] is a test's time: it stands still until the test moves it, and then wakes the sleepers.
//! * [`Stopwatch`] measures what something cost on this machine, for metrics and logs. It is real time on purpose, a
//!   cost is not simulated.
//!
//! The lints forbid `SystemTime::now`, `tokio::time::sleep` and their kin everywhere else. That is what lets a test
//! walk through a change of the clocks, a nightly run and a session gap without waiting for any of them.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::{BoxFuture, Either, select};

mod manual;

pub use manual::ManualClock;

/// How a clock is handed around.
pub type SharedClock = Arc<dyn Clock>;

/// Where a part takes its time from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall clock: milliseconds since 1970-01-01T00:00:00Z. It may jump, in both directions.
    fn now_ms(&self) -> i64;

    /// Time since an origin that stays the same for the life of this clock; it never goes back. For deadlines,
    /// rates and leases held in memory; not comparable between processes.
    fn monotonic(&self) -> Duration;

    /// Waits for `duration` of monotonic time, counted from this call and not from the first poll. Dropping the
    /// future ends the wait.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Sleeps until the wall clock shows `at_ms` (epoch milliseconds); returns at once when it already does.
///
/// Waits in steps of at most a minute and looks at the wall clock again after each, so that a corrected clock or a
/// laptop that was asleep delays the end by no more than that.
pub async fn sleep_until_ms(clock: &dyn Clock, at_ms: i64) {
    const STEP_MS_MAX: u64 = 60_000;
    loop {
        let left_ms = at_ms.saturating_sub(clock.now_ms());
        let Ok(left_ms @ 1..) = u64::try_from(left_ms) else {
            return;
        };
        clock.sleep(Duration::from_millis(left_ms.min(STEP_MS_MAX))).await;
    }
}

/// Runs `future` for at most `limit`; an error means that it was dropped unfinished. A future that is ready at the
/// moment the limit ends still wins.
pub async fn timeout<F: Future>(
    clock: &dyn Clock,
    limit: Duration,
    future: F,
) -> Result<F::Output, TimedOut> {
    match select(pin!(future), clock.sleep(limit)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(TimedOut { limit }),
    }
}

/// [`timeout`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not finished after {limit:?}")]
pub struct TimedOut {
    /// The limit that was set.
    pub limit: Duration,
}

/// The machine's time.
#[derive(Clone, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is told to use"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// The same, ready to be handed around.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is told to use"
    )]
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is told to use"
    )]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The timer itself is made at the first poll: making it needs a running tokio, this call does not.
        match Instant::now().checked_add(duration) {
            Some(deadline) => Box::pin(async move { tokio::time::sleep_until(deadline.into()).await }),
            None => Box::pin(futures::future::pending()),
        }
    }
}

/// Holds this thread for `duration` of real time.
///
/// For threads that are not tokio's (a writer that waits for a lock, say); asynchronous code uses [`Clock::sleep`].
#[allow(
    clippy::disallowed_methods,
    reason = "the one door to it, so that its use can be found"
)]
pub fn sleep_blocking(duration: Duration) {
    std::thread::sleep(duration);
}

/// Measures how long something takes on this machine.
///
/// ```
/// let stopwatch = dwell_runtime::clock::Stopwatch::start();
/// let took_seconds: f64 = stopwatch.elapsed_seconds();
/// assert!(took_seconds >= 0.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    /// Starts measuring.
    #[allow(
        clippy::disallowed_methods,
        reason = "measures real cost; nothing decides by it"
    )]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The same in seconds, as histograms take it.
    pub fn elapsed_seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Time since the start, and starts again: for the stages of one piece of work.
    pub fn lap(&mut self) -> Duration {
        let lap = self.elapsed();
        self.started += lap;
        lap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_lies_after_this_project_began_and_before_the_year_2200() {
        let now_ms = SystemClock::new().now_ms();
        assert!(now_ms > 1_735_689_600_000, "2025-01-01 is past, got {now_ms}");
        assert!(now_ms < 7_258_118_400_000, "2200-01-01 is not, got {now_ms}");
    }

    #[tokio::test]
    async fn system_sleep_lasts_at_least_as_long_as_asked() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(20)).await;
        assert!(clock.monotonic() - before >= Duration::from_millis(20));
    }

    #[tokio::test]
    async fn a_sleep_too_long_for_the_machine_does_not_panic() {
        let clock = SystemClock::new();
        let outcome = timeout(&clock, Duration::from_millis(5), clock.sleep(Duration::MAX)).await;
        assert_eq!(
            outcome,
            Err(TimedOut {
                limit: Duration::from_millis(5)
            })
        );
    }

    #[tokio::test]
    async fn a_ready_future_beats_a_limit_of_zero() {
        let clock = SystemClock::new();
        assert_eq!(timeout(&clock, Duration::ZERO, async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn sleeping_until_an_instant_follows_a_wall_clock_that_is_corrected() {
        let clock = ManualClock::at_ms(0);
        let mut sleeping = pin!(sleep_until_ms(&clock, 600_000));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.advance(Duration::from_secs(60));
        assert!(
            futures::poll!(&mut sleeping).is_pending(),
            "nine minutes are left"
        );
        clock.set_ms(30_000); // stepped back by 30 s: no sleeper is touched
        clock.advance(Duration::from_secs(60));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.set_ms(600_000);
        assert!(futures::poll!(&mut sleeping).is_ready());
    }

    #[tokio::test]
    async fn sleeping_until_an_instant_that_is_past_returns_at_once() {
        let clock = ManualClock::at_ms(1_000);
        assert!(futures::poll!(pin!(sleep_until_ms(&clock, 1_000))).is_ready());
        assert!(futures::poll!(pin!(sleep_until_ms(&clock, i64::MIN))).is_ready());
    }

    #[test]
    fn laps_add_up_to_no_more_than_the_whole() {
        let whole = Stopwatch::start();
        let mut laps = Stopwatch::start();
        let sum: Duration = (0..3).map(|_| laps.lap()).sum();
        assert!(sum <= whole.elapsed());
    }
}
