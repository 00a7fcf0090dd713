//! Numbers with units, as people write them.

/// Why a size or a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// There is nothing, or no number where one should be.
    #[error("{text:?} is not a number with a unit, such as {example}")]
    NotANumber {
        /// The text as given.
        text: String,
        /// What it could look like.
        example: &'static str,
    },
    /// The unit is missing or unknown.
    #[error("{text:?} has the unit {unit:?}, which is none of {known}")]
    Unit {
        /// The text as given.
        text: String,
        /// The unit found in it; empty when there is none.
        unit: String,
        /// The units that exist.
        known: &'static str,
    },
    /// The value is no whole number of the smallest unit, or too large.
    #[error("{text:?} is too large or too fine")]
    Range {
        /// The text as given.
        text: String,
    },
}

/// A number, possibly with a decimal fraction, followed by its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'text> {
    digits: &'text str,
    fraction: &'text str,
    pub(super) unit: &'text str,
}

impl<'text> Part<'text> {
    /// Splits the first part off; none when the text does not begin with a digit.
    pub(super) fn split_first(text: &'text str) -> Option<(Self, &'text str)> {
        let (digits, rest) = split_while(text, |byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return None;
        }
        let (fraction, rest) = match rest.strip_prefix('.') {
            None => ("", rest),
            Some(rest) => match split_while(rest, |byte| byte.is_ascii_digit()) {
                ("", _) => return None,
                found => found,
            },
        };
        let (unit, rest) = split_while(rest.trim_start(), |byte| byte.is_ascii_alphabetic());
        Some((
            Self {
                digits,
                fraction,
                unit,
            },
            rest,
        ))
    }

    /// The value in the smallest unit, of which this part's unit is `factor`; none when that is not whole or too
    /// large.
    pub(super) fn in_smallest(&self, factor: u64) -> Option<u64> {
        let whole = self.digits.parse::<u64>().ok()?.checked_mul(factor)?;
        let fraction = self.fraction.trim_end_matches('0');
        if fraction.is_empty() {
            return Some(whole);
        }
        let denominator = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let numerator = fraction.parse::<u128>().ok()?.checked_mul(u128::from(factor))?;
        if !numerator.is_multiple_of(denominator) {
            return None;
        }
        whole.checked_add(u64::try_from(numerator / denominator).ok()?)
    }
}

/// Splits an ASCII prefix off.
fn split_while(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at(end)
}
