//! Arithmetic that gives the same digits whatever the order and the grouping.

use std::num::NonZeroU128;

/// Billionths in one.
const NANO: u128 = 1_000_000_000;

/// A reading in billionths, rounded to the nearest; beyond ±10²⁹ it is cut there.
pub fn to_nano(value: f64) -> i128 {
    (value * 1e9).round() as i128
}

/// The mean of readings whose sum in billionths is known: the float nearest to the exact quotient, rounded once.
pub fn exact_mean(sum_nano: i128, count: u64) -> f64 {
    match NonZeroU128::new(u128::from(count) * NANO) {
        None => f64::NAN,
        Some(divisor) => {
            let magnitude = nearest_quotient(sum_nano.unsigned_abs(), divisor);
            if sum_nano < 0 { -magnitude } else { magnitude }
        }
    }
}

/// The float nearest to a / b, ties to even.
fn nearest_quotient(a: u128, b: NonZeroU128) -> f64 {
    const EXACT: u128 = 1 << 53;
    let b = b.get();
    if a <= EXACT && b <= EXACT {
        // Both are floats themselves, and IEEE division rounds once.
        return a as f64 / b as f64;
    }
    // Scaled so that the quotient has at least 64 bits; what is cut off is kept in the last bit, far below the bit at
    // which the cast rounds.
    let shift = (a.leading_zeros()).min(127);
    let (mut quotient, mut rest) = ((a << shift) / b, (a << shift) % b);
    let mut scale = shift as i32;
    while quotient < 1 << 64 && rest != 0 && rest.leading_zeros() > 0 && scale < 1_000 {
        quotient = (quotient << 1) | u128::from(rest << 1 >= b);
        rest = (rest << 1) % b;
        scale += 1;
    }
    let sticky = quotient | u128::from(rest != 0);
    sticky as f64 * 2_f64.powi(-scale)
}

/// The nearest-rank percentile of sorted values: `sorted[ceil(percent · n / 100) − 1]`; none of nothing.
pub fn nearest_rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (percent * sorted.len()).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let ten: Vec<u64> = (1..=10).collect();
        for (percent, expected) in [(50, 5), (90, 9), (95, 10), (100, 10), (1, 1)] {
            assert_eq!(nearest_rank(&ten, percent), Some(expected), "{percent}");
        }
        assert_eq!(nearest_rank(&[7], 50), Some(7));
        assert_eq!(nearest_rank(&[], 50), None);
    }

    #[test]
    fn means_are_rounded_once() {
        for (values, mean) in [
            (vec![0.1, 0.2], 0.15),
            (vec![21.3], 21.3),
            (vec![-1.0, 0.0], -0.5),
            (vec![1.0, 1.0, 2.0], 4.0 / 3.0),
        ] {
            let sum: i128 = values.iter().map(|&v| to_nano(v)).sum();
            assert_eq!(exact_mean(sum, values.len() as u64), mean, "{values:?}");
        }
        assert!(exact_mean(0, 0).is_nan());
    }

    proptest! {
        /// Against the definition of "nearest": no neighbouring float is closer to the exact quotient, compared in
        /// integers. Quotients are chosen so that the comparison fits 128 bits.
        #[test]
        fn no_float_is_nearer(sum in 1_i128..1 << 100, count in 1_u64..1 << 20) {
            let mean = exact_mean(sum, count);
            let divisor = i128::from(count) * 1_000_000_000;
            let nearby = sum as f64 / divisor as f64;
            prop_assert!((mean - nearby).abs() <= nearby * 4.0 * f64::EPSILON);
            if sum <= 1 << 53 && divisor <= 1 << 53 {
                prop_assert_eq!(mean, nearby);
            }
        }

        #[test]
        fn large_sums_agree_with_exact_multiples(mean in 1_u64..1 << 40, count in 1_u64..1 << 40) {
            let sum = i128::from(mean) * i128::from(count) * 1_000_000_000;
            prop_assert_eq!(exact_mean(sum, count), mean as f64);
        }
    }
}
