//! A clock that a test moves by hand.
//!
//! Sleepers are kept in order of their deadlines; moving the clock wakes those whose deadline has come. A test that
//! wants to move time under a running task first waits until that task really sleeps
//! ([`ManualClock::sleepers_reach`]), else it could move too early.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{Clock, SharedClock};

/// A [`Clock`] that stands still until it is moved. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    sleepers_changed: Notify,
}

#[derive(Debug)]
struct State {
    wall_ms: i64,
    /// Less than a millisecond, carried between advances so that many small ones add up.
    wall_rest: Duration,
    monotonic: Duration,
    sleeper_next: u64,
    sleepers: BTreeMap<SleeperKey, Waker>,
}

/// Deadline first, so that the due ones are a prefix; the number keeps equal deadlines apart.
type SleeperKey = (Duration, u64);

impl ManualClock {
    /// A clock that shows `wall_ms` (epoch milliseconds).
    pub fn at_ms(wall_ms: i64) -> Self {
        let state = State {
            wall_ms,
            wall_rest: Duration::ZERO,
            monotonic: Duration::ZERO,
            sleeper_next: 0,
            sleepers: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                sleepers_changed: Notify::new(),
            }),
        }
    }

    /// This clock as parts take it.
    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }

    /// Lets `duration` pass and wakes the sleepers whose time has come.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.inner.lock();
        let whole = state.wall_rest.saturating_add(duration);
        let ms = i64::try_from(whole.as_millis()).unwrap_or(i64::MAX);
        state.wall_rest = Duration::from_nanos(u64::from(whole.subsec_nanos() % 1_000_000));
        state.wall_ms = state.wall_ms.saturating_add(ms);
        state.monotonic = state.monotonic.saturating_add(duration);
        self.wake_due(state);
    }

    /// Sets the wall clock. Forward, the time in between passes (sleepers wake); backward, only the wall clock is
    /// stepped, as when an operator corrects it.
    pub fn set_ms(&self, wall_ms: i64) {
        let mut state = self.inner.lock();
        let forward_ms = u64::try_from(wall_ms.saturating_sub(state.wall_ms)).unwrap_or(0);
        state.wall_ms = wall_ms;
        state.wall_rest = Duration::ZERO;
        state.monotonic = state.monotonic.saturating_add(Duration::from_millis(forward_ms));
        self.wake_due(state);
    }

    /// How many sleeps have been polled and wait for this clock.
    pub fn sleepers(&self) -> usize {
        self.inner.lock().sleepers.len()
    }

    /// Waits until at least `count` sleepers wait for this clock.
    pub async fn sleepers_reach(&self, count: usize) {
        loop {
            let changed = self.inner.sleepers_changed.notified();
            if self.sleepers() >= count {
                return;
            }
            changed.await;
        }
    }

    fn wake_due(&self, mut state: MutexGuard<'_, State>) {
        let now = state.monotonic;
        let later = state.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.sleepers, later);
        // Wakers may run code of others: never under the lock.
        drop(state);
        due.into_values().for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.inner.lock().wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.inner.lock().monotonic
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.inner.lock();
        let key = (state.monotonic.saturating_add(duration), state.sleeper_next);
        state.sleeper_next += 1;
        drop(state);
        Box::pin(Sleep {
            clock: Arc::clone(&self.inner),
            key,
        })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sleep {
    clock: Arc<Inner>,
    key: SleeperKey,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.lock();
        if state.monotonic >= self.key.0 {
            state.sleepers.remove(&self.key);
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, context.waker().clone());
        drop(state);
        self.clock.sleepers_changed.notify_waiters();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.lock().sleepers.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::poll;
    use futures::task::ArcWake;

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl ArcWake for CountingWaker {
        fn wake_by_ref(counter: &Arc<Self>) {
            counter.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_sleepers_whose_deadline_came_are_woken() {
        let clock = ManualClock::at_ms(0);
        let (early, late) = (
            Arc::new(CountingWaker::default()),
            Arc::new(CountingWaker::default()),
        );
        let mut sleep_early = clock.sleep(Duration::from_secs(1));
        let mut sleep_late = clock.sleep(Duration::from_secs(2));
        let (early_waker, late_waker) = (
            futures::task::waker(Arc::clone(&early)),
            futures::task::waker(Arc::clone(&late)),
        );
        assert!(
            sleep_early
                .as_mut()
                .poll(&mut Context::from_waker(&early_waker))
                .is_pending()
        );
        assert!(
            sleep_late
                .as_mut()
                .poll(&mut Context::from_waker(&late_waker))
                .is_pending()
        );

        clock.advance(Duration::from_millis(999));
        assert_eq!(
            (early.0.load(Ordering::SeqCst), late.0.load(Ordering::SeqCst)),
            (0, 0)
        );
        clock.advance(Duration::from_millis(1));
        assert_eq!(
            (early.0.load(Ordering::SeqCst), late.0.load(Ordering::SeqCst)),
            (1, 0)
        );
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(
            (early.0.load(Ordering::SeqCst), late.0.load(Ordering::SeqCst)),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn a_sleep_counts_from_the_call_not_from_the_first_poll() {
        let clock = ManualClock::at_ms(0);
        let mut sleep = clock.sleep(Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert!(poll!(&mut sleep).is_ready());
    }

    #[test]
    fn advancing_moves_wall_and_monotonic_time_alike_down_to_fractions() {
        let clock = ManualClock::at_ms(1_000);
        for _ in 0..10 {
            clock.advance(Duration::from_micros(250));
        }
        assert_eq!(clock.now_ms(), 1_002);
        assert_eq!(clock.monotonic(), Duration::from_micros(2_500));
    }

    #[tokio::test]
    async fn setting_forward_wakes_and_setting_back_only_steps_the_wall_clock() {
        let clock = ManualClock::at_ms(10_000);
        let mut sleep = clock.sleep(Duration::from_secs(5));
        clock.set_ms(0);
        assert_eq!((clock.now_ms(), clock.monotonic()), (0, Duration::ZERO));
        assert!(poll!(&mut sleep).is_pending());
        clock.set_ms(5_000);
        assert!(poll!(&mut sleep).is_ready());
    }

    #[tokio::test]
    async fn a_dropped_sleep_leaves_no_sleeper_behind() {
        let clock = ManualClock::at_ms(0);
        {
            let mut sleep = pin!(clock.sleep(Duration::from_secs(1)));
            assert!(poll!(&mut sleep).is_pending());
            assert_eq!(clock.sleepers(), 1);
        }
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn waiting_for_sleepers_ends_when_they_sleep() {
        let clock = ManualClock::at_ms(0);
        let mut waiting = pin!(clock.sleepers_reach(2));
        let mut first = clock.sleep(Duration::from_secs(1));
        let mut second = clock.sleep(Duration::from_secs(1));
        assert!(poll!(&mut waiting).is_pending());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut waiting).is_pending());
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut waiting).is_ready());
    }
}
