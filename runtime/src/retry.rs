//! Trying again, a bounded number of times, at growing random distances.
//!
//! The delay before attempt *n* + 1 is drawn evenly from zero to `min(delay_max, delay_base · 2ⁿ⁻¹)` ("full jitter"),
//! so that many that failed together do not come back together. An error may ask for a longer delay, as a
//! `Retry-After` does.
//!
//! Only what can be repeated without harm should be retried; that is for the caller to know.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use crate::clock::Clock;

/// How often and how fast to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; zero counts as one.
    pub attempts_max: u32,
    /// Upper end of the first delay.
    pub delay_base: Duration,
    /// Upper end of any delay, one that an error asks for included.
    pub delay_max: Duration,
    /// No new attempt begins when the delay before it would end later than this after the first attempt's begin.
    pub total_max: Duration,
    /// Where the randomness of the delays comes from.
    pub jitter: Jitter,
}

/// How delays are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// By the system's randomness.
    Random,
    /// By a fixed sequence that follows from this seed, for runs that must be repeatable.
    Seeded(u64),
    /// Not at all: always the upper end.
    None,
}

impl Default for RetryPolicy {
    /// Five attempts, the first delay up to 100 ms, none over 5 s, none begun after 30 s.
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_base: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            total_max: Duration::from_secs(30),
            jitter: Jitter::Random,
        }
    }
}

/// What to do about an error. A `bool` will do where no error names a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Trying again cannot help.
    GiveUp,
    /// Try again.
    Retry,
    /// Try again, but not before this time has passed.
    RetryAfter(Duration),
}

impl From<bool> for RetryDecision {
    fn from(is_retryable: bool) -> Self {
        if is_retryable { Self::Retry } else { Self::GiveUp }
    }
}

/// Calls `operation` with the number of the attempt, from 1, until it succeeds, its error is not to be retried, or
/// the policy's bounds are reached; then returns the last result.
pub async fn retry<T, E, Operation, Attempt, Decision>(
    policy: &RetryPolicy,
    clock: &dyn Clock,
    mut operation: Operation,
    decide: impl Fn(&E) -> Decision,
) -> Result<T, E>
where
    Operation: FnMut(u32) -> Attempt,
    Attempt: Future<Output = Result<T, E>>,
    Decision: Into<RetryDecision>,
    E: Debug,
{
    let started = clock.monotonic();
    let mut attempt: u32 = 1;
    loop {
        let error = match operation(attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let at_least = match decide(&error).into() {
            RetryDecision::GiveUp => return Err(error),
            RetryDecision::Retry => Duration::ZERO,
            RetryDecision::RetryAfter(delay) => delay,
        };
        let delay = policy.delay(attempt).max(at_least).min(policy.delay_max);
        let elapsed = clock.monotonic().saturating_sub(started);
        if attempt >= policy.attempts_max || elapsed.saturating_add(delay) > policy.total_max {
            tracing::debug!(?error, attempt, "giving up after retries");
            return Err(error);
        }
        tracing::debug!(?error, attempt, ?delay, "trying again");
        clock.sleep(delay).await;
        attempt += 1;
    }
}

impl RetryPolicy {
    /// The delay after `attempt` (from 1) failed, with jitter.
    fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let upper = self.delay_base.saturating_mul(1 << doublings).min(self.delay_max);
        let random = match self.jitter {
            Jitter::None => return upper,
            Jitter::Seeded(seed) => mixed(seed.wrapping_add(u64::from(attempt))),
            // Without randomness the full delay is safe, only less spread.
            Jitter::Random => getrandom::u64().unwrap_or(u64::MAX),
        };
        // Evenly over 0..=upper: the high half of the product of the two.
        let upper_nanos = u64::try_from(upper.as_nanos()).unwrap_or(u64::MAX);
        let nanos = (u128::from(random) * (u128::from(upper_nanos) + 1)) >> 64;
        Duration::from_nanos(nanos as u64)
    }
}

/// SplitMix64: turns neighbouring numbers into unrelated ones.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::clock::ManualClock;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Refused {
        Busy,
        BusyFor(u64),
        Malformed,
    }

    fn decide(error: &Refused) -> RetryDecision {
        match error {
            Refused::Busy => RetryDecision::Retry,
            Refused::BusyFor(ms) => RetryDecision::RetryAfter(Duration::from_millis(*ms)),
            Refused::Malformed => RetryDecision::GiveUp,
        }
    }

    const EVEN: RetryPolicy = RetryPolicy {
        attempts_max: 6,
        delay_base: Duration::from_millis(100),
        delay_max: Duration::from_millis(500),
        total_max: Duration::from_secs(60),
        jitter: Jitter::None,
    };

    /// Runs the answers through `retry` on a clock that is moved whenever it is slept on. Returns the result and the
    /// milliseconds at which attempts were made.
    async fn run(
        policy: &RetryPolicy,
        answers: &[Result<&'static str, Refused>],
    ) -> (Result<&'static str, Refused>, Vec<i64>) {
        let clock = ManualClock::at_ms(0);
        let attempts_ms = RefCell::new(Vec::new());
        let operation = |attempt: u32| {
            attempts_ms.borrow_mut().push(clock.now_ms());
            let answer = answers[attempt as usize - 1];
            async move { answer }
        };
        let moving = async {
            loop {
                clock.sleepers_reach(1).await;
                clock.advance(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        let result = tokio::select! {
            result = retry(policy, &clock, operation, decide) => result,
            () = moving => unreachable!("moves the clock for ever"),
        };
        (result, attempts_ms.into_inner())
    }

    #[tokio::test]
    async fn delays_double_up_to_their_bound_until_it_succeeds() {
        let busy = Err(Refused::Busy);
        let (result, attempts_ms) = run(&EVEN, &[busy, busy, busy, busy, busy, Ok("stored")]).await;
        assert_eq!(result, Ok("stored"));
        assert_eq!(attempts_ms, [0, 100, 300, 700, 1_200, 1_700]);
    }

    #[tokio::test]
    async fn the_last_error_is_returned_when_the_attempts_are_used_up() {
        let policy = RetryPolicy {
            attempts_max: 3,
            ..EVEN
        };
        let answers = [
            Err(Refused::Busy),
            Err(Refused::Busy),
            Err(Refused::BusyFor(1)),
            Ok("too late"),
        ];
        let (result, attempts_ms) = run(&policy, &answers).await;
        assert_eq!(result, Err(Refused::BusyFor(1)));
        assert_eq!(attempts_ms.len(), 3);
        let once = run(
            &RetryPolicy {
                attempts_max: 0,
                ..EVEN
            },
            &[Err(Refused::Busy)],
        )
        .await;
        assert_eq!(once, (Err(Refused::Busy), vec![0]));
    }

    #[tokio::test]
    async fn an_error_that_is_not_to_be_retried_comes_back_at_once() {
        let (result, attempts_ms) = run(&EVEN, &[Err(Refused::Busy), Err(Refused::Malformed)]).await;
        assert_eq!((result, attempts_ms), (Err(Refused::Malformed), vec![0, 100]));
    }

    #[tokio::test]
    async fn a_delay_that_the_error_asks_for_is_kept_within_the_bound() {
        let answers = [
            Err(Refused::BusyFor(250)),
            Err(Refused::BusyFor(60_000)),
            Err(Refused::BusyFor(1)),
            Ok(""),
        ];
        let (result, attempts_ms) = run(&EVEN, &answers).await;
        assert_eq!((result, attempts_ms), (Ok(""), vec![0, 250, 750, 1_150]));
    }

    #[tokio::test]
    async fn no_attempt_begins_after_the_total_time() {
        let policy = RetryPolicy {
            total_max: Duration::from_millis(699),
            ..EVEN
        };
        let (result, attempts_ms) = run(&policy, &[Err(Refused::Busy); 6]).await;
        assert_eq!((result, attempts_ms), (Err(Refused::Busy), vec![0, 100, 300]));
    }

    #[test]
    fn jitter_spreads_evenly_between_zero_and_the_upper_end_and_repeats_with_its_seed() {
        let upper = Duration::from_millis(500);
        let delays: Vec<Duration> = (0..4_000)
            .map(|seed| {
                RetryPolicy {
                    jitter: Jitter::Seeded(seed),
                    ..EVEN
                }
                .delay(4)
            })
            .collect();
        assert!(delays.iter().all(|delay| *delay <= upper));
        for quarter in 0..4 {
            let (from, to) = (upper * quarter / 4, upper * (quarter + 1) / 4);
            let share = delays.iter().filter(|delay| (from..to).contains(*delay)).count();
            assert!(
                (850..1_150).contains(&share),
                "quarter {quarter} has {share} of 4000"
            );
        }
        let again = RetryPolicy {
            jitter: Jitter::Seeded(17),
            ..EVEN
        }
        .delay(4);
        assert_eq!(again, delays[17]);
        let random = RetryPolicy {
            jitter: Jitter::Random,
            ..EVEN
        };
        assert!((0..100).all(|_| random.delay(1) <= Duration::from_millis(100)));
    }

    #[test]
    fn a_policy_of_extremes_does_not_overflow() {
        let policy = RetryPolicy {
            attempts_max: u32::MAX,
            delay_base: Duration::MAX,
            delay_max: Duration::MAX,
            total_max: Duration::MAX,
            jitter: Jitter::Seeded(1),
        };
        assert!(policy.delay(u32::MAX) > Duration::ZERO);
    }

    #[test]
    fn a_plain_yes_or_no_decides_as_well() {
        assert_eq!(RetryDecision::from(true), RetryDecision::Retry);
        assert_eq!(RetryDecision::from(false), RetryDecision::GiveUp);
    }
}
