//! A token bucket for each key.
//!
//! All arithmetic is in whole thousandths of a token and whole milliseconds: a rate of *n* per second adds exactly *n*
//! thousandths per millisecond, so nothing is lost to rounding however often a bucket is asked.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;

const THOUSANDTHS: u64 = 1_000;

/// How much a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens that come back each second. Zero: none do, the burst is all there ever is.
    pub per_second: u32,
    /// Most tokens that a key can have at a time; a new key has them all.
    pub burst: u32,
}

/// Token buckets, one for each key.
///
/// Remembers at least `keys_max / 2` of the keys used last, and never more than `keys_max`. A key that was forgotten
/// starts again with a full bucket, so `keys_max` should be well above the number of clients that are busy at the
/// same time.
#[derive(Debug)]
pub struct RateLimiter<K> {
    limit: RateLimit,
    generation_keys_max: usize,
    buckets: Mutex<Generations<K>>,
}

/// Two maps instead of a list by age: keys move to the young map when used; when that is full it becomes the old one
/// and the old one is forgotten. Forgetting so costs nothing per request.
#[derive(Debug)]
struct Generations<K> {
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    thousandths: u64,
    filled_at_ms: i64,
}

/// The answer to a request, with what `RateLimit-*` and `Retry-After` headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateDecision {
    /// It may go on, and its cost has been taken.
    pub allowed: bool,
    /// Tokens that a full bucket has.
    pub limit: u32,
    /// Whole tokens left.
    pub remaining: u32,
    /// Milliseconds until the bucket is full again; none when it never will be.
    pub reset_ms: Option<u64>,
    /// When refused: milliseconds after which the same request would be allowed, nothing else happening; none when it
    /// never will be.
    pub retry_after_ms: Option<u64>,
}

impl RateDecision {
    /// For the header `Retry-After`: whole seconds, rounded up.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_ms.map(|ms| ms.div_ceil(1_000))
    }

    /// For the header `RateLimit-Reset`: whole seconds, rounded up.
    pub fn reset_seconds(&self) -> Option<u64> {
        self.reset_ms.map(|ms| ms.div_ceil(1_000))
    }
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// The same limit for every key.
    pub fn new(limit: RateLimit, keys_max: usize) -> Self {
        let buckets = Mutex::new(Generations {
            young: HashMap::new(),
            old: HashMap::new(),
        });
        Self {
            limit,
            generation_keys_max: (keys_max / 2).max(1),
            buckets,
        }
    }

    /// Takes `cost` tokens of the key's bucket, or none when there are too few. `now_ms` is any clock's milliseconds,
    /// the same clock's each time; when it goes back, buckets stand still.
    pub fn check<Q>(&self, key: &Q, cost: u32, now_ms: i64) -> RateDecision
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match buckets.young.get_mut(key) {
            Some(bucket) => bucket,
            None => {
                let bucket = buckets.old.remove(key).unwrap_or(self.limit.full(now_ms));
                if buckets.young.len() >= self.generation_keys_max {
                    buckets.old = std::mem::take(&mut buckets.young);
                }
                buckets.young.entry(key.to_owned()).or_insert(bucket)
            }
        };
        self.limit.take(bucket, cost, now_ms)
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.young.len() + buckets.old.len()
    }
}

impl RateLimit {
    fn full(&self, now_ms: i64) -> Bucket {
        Bucket {
            thousandths: self.capacity(),
            filled_at_ms: now_ms,
        }
    }

    fn capacity(&self) -> u64 {
        u64::from(self.burst) * THOUSANDTHS
    }

    fn take(&self, bucket: &mut Bucket, cost: u32, now_ms: i64) -> RateDecision {
        let elapsed_ms = u64::try_from(now_ms.saturating_sub(bucket.filled_at_ms)).unwrap_or(0);
        let filled = elapsed_ms.saturating_mul(u64::from(self.per_second));
        bucket.thousandths = bucket.thousandths.saturating_add(filled).min(self.capacity());
        bucket.filled_at_ms = bucket.filled_at_ms.max(now_ms);

        let cost = u64::from(cost) * THOUSANDTHS;
        let allowed = cost <= bucket.thousandths;
        if allowed {
            bucket.thousandths -= cost;
        }
        // Counted from now, also when the clock went back: the bucket stands still until it has caught up.
        let behind_ms = u64::try_from(bucket.filled_at_ms.saturating_sub(now_ms)).unwrap_or(0);
        let wait_ms = |missing: u64| match missing {
            0 => Some(0),
            _ if self.per_second == 0 => None,
            _ => Some(
                missing
                    .div_ceil(u64::from(self.per_second))
                    .saturating_add(behind_ms),
            ),
        };
        let refused_and_possible = !allowed && cost <= self.capacity();
        RateDecision {
            allowed,
            limit: self.burst,
            remaining: u32::try_from(bucket.thousandths / THOUSANDTHS).unwrap_or(u32::MAX),
            reset_ms: wait_ms(self.capacity() - bucket.thousandths),
            retry_after_ms: if refused_and_possible {
                wait_ms(cost - bucket.thousandths)
            } else {
                None
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_PER_SECOND: RateLimit = RateLimit {
        per_second: 10,
        burst: 20,
    };

    #[test]
    fn a_burst_passes_then_the_rate_binds_and_the_answer_says_when_to_come_back() {
        let limiter = RateLimiter::<String>::new(TEN_PER_SECOND, 100);
        for used in 1..=20 {
            let decision = limiter.check("gateway", 1, 1_000);
            assert!(decision.allowed);
            assert_eq!(decision.remaining, 20 - used);
            assert_eq!(decision.reset_ms, Some(u64::from(used) * 100));
        }
        let refused = limiter.check("gateway", 1, 1_000);
        assert_eq!(
            refused,
            RateDecision {
                allowed: false,
                limit: 20,
                remaining: 0,
                reset_ms: Some(2_000),
                retry_after_ms: Some(100)
            }
        );
        assert_eq!(
            (refused.retry_after_seconds(), refused.reset_seconds()),
            (Some(1), Some(2))
        );
        assert!(!limiter.check("gateway", 1, 1_099).allowed);
        assert!(limiter.check("gateway", 1, 1_100).allowed);
        assert!(!limiter.check("gateway", 1, 1_100).allowed);
    }

    #[test]
    fn keys_do_not_share_a_bucket() {
        let limiter = RateLimiter::<String>::new(
            RateLimit {
                per_second: 1,
                burst: 1,
            },
            100,
        );
        assert!(limiter.check("a", 1, 0).allowed);
        assert!(!limiter.check("a", 1, 0).allowed);
        assert!(limiter.check("b", 1, 0).allowed);
    }

    #[test]
    fn asking_often_loses_nothing_to_rounding() {
        // 333 ms are not quite a token: a limiter that rounds would lose a little each time. In 100 s exactly 300
        // come back, on top of the burst of 10.
        let limiter = RateLimiter::<u32>::new(
            RateLimit {
                per_second: 3,
                burst: 10,
            },
            10,
        );
        let allowed = (0..=100_000)
            .filter(|now_ms| limiter.check(&7, 1, *now_ms).allowed)
            .count();
        assert_eq!(allowed, 310);
    }

    #[test]
    fn a_request_larger_than_the_burst_is_never_allowed_and_says_so() {
        let limiter = RateLimiter::<u32>::new(TEN_PER_SECOND, 10);
        let decision = limiter.check(&1, 21, 0);
        assert_eq!(
            (decision.allowed, decision.retry_after_ms, decision.remaining),
            (false, None, 20)
        );
    }

    #[test]
    fn a_bucket_that_never_fills_is_a_quota() {
        let limiter = RateLimiter::<u32>::new(
            RateLimit {
                per_second: 0,
                burst: 1,
            },
            10,
        );
        assert!(limiter.check(&1, 1, 0).allowed);
        let decision = limiter.check(&1, 1, i64::MAX);
        assert_eq!(
            (decision.allowed, decision.reset_ms, decision.retry_after_ms),
            (false, None, None)
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_tokens_and_takes_none_away() {
        let limiter = RateLimiter::<u32>::new(
            RateLimit {
                per_second: 1,
                burst: 2,
            },
            10,
        );
        assert!(limiter.check(&1, 1, 10_000).allowed);
        let back = limiter.check(&1, 1, 4_000);
        assert!(back.allowed);
        let refused = limiter.check(&1, 1, 4_000);
        assert_eq!((refused.allowed, refused.retry_after_ms), (false, Some(7_000)));
        assert!(!limiter.check(&1, 1, 10_999).allowed);
        assert!(limiter.check(&1, 1, 11_000).allowed);
        limiter.check(&2, 1, i64::MIN);
        assert!(limiter.check(&2, 1, i64::MAX).allowed);
    }

    #[test]
    fn keys_are_bounded_and_a_busy_key_is_not_forgotten() {
        let limiter = RateLimiter::<u32>::new(
            RateLimit {
                per_second: 1,
                burst: 1,
            },
            100,
        );
        assert!(limiter.check(&0, 1, 0).allowed);
        for key in 1..10_000 {
            limiter.check(&key, 1, 0);
            assert!(
                !limiter.check(&0, 1, 0).allowed,
                "forgotten after {key} other keys"
            );
            assert!(limiter.keys() <= 100, "{} keys", limiter.keys());
        }
    }
}
