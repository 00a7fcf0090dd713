//! Durations as configuration writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::quantity::{Part, QuantityError};

/// Unit, and what it is in milliseconds; largest first.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const KNOWN: &str = "ms, s, m, h, d, w";

/// A duration in whole milliseconds, written `500ms`, `15m`, `1h30m` or `2.5s`. The unit is never left out, except of
/// zero. A day has 24 hours. In JSON and TOML it is such a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration {
    ms: u64,
}

impl HumanDuration {
    /// So many milliseconds.
    pub const fn millis(ms: u64) -> Self {
        Self { ms }
    }

    /// So many seconds; the longest there is where that is too many.
    pub const fn seconds(seconds: u64) -> Self {
        Self {
            ms: seconds.saturating_mul(1_000),
        }
    }

    /// So many minutes; the longest there is where that is too many.
    pub const fn minutes(minutes: u64) -> Self {
        Self {
            ms: minutes.saturating_mul(60_000),
        }
    }

    /// So many hours; the longest there is where that is too many.
    pub const fn hours(hours: u64) -> Self {
        Self {
            ms: hours.saturating_mul(3_600_000),
        }
    }

    /// So many times 24 hours; the longest there is where that is too many.
    pub const fn days(days: u64) -> Self {
        Self {
            ms: days.saturating_mul(86_400_000),
        }
    }

    /// As the standard library has it.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }

    /// In milliseconds, to be added to epoch milliseconds; the most there can be where it is longer.
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.ms).unwrap_or(i64::MAX)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.as_duration()
    }
}

impl FromStr for HumanDuration {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let not_a_number = || QuantityError::NotANumber {
            text: text.to_owned(),
            example: "15m, 500ms or 1h30m",
        };
        let out_of_range = || QuantityError::Range {
            text: text.to_owned(),
        };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::default());
        }
        let mut ms: u64 = 0;
        let mut smaller_than = u64::MAX;
        while !rest.is_empty() || smaller_than == u64::MAX {
            let (part, after) = Part::split_first(rest).ok_or_else(not_a_number)?;
            let known = UNITS.iter().find(|(name, _)| *name == part.unit);
            let (_, factor) = known.ok_or_else(|| QuantityError::Unit {
                text: text.to_owned(),
                unit: part.unit.to_owned(),
                known: KNOWN,
            })?;
            // Largest first and each once, so that "1m30m" is not taken for something.
            if *factor >= smaller_than {
                return Err(not_a_number());
            }
            let part_ms = part.in_smallest(*factor).ok_or_else(out_of_range)?;
            ms = ms.checked_add(part_ms).ok_or_else(out_of_range)?;
            smaller_than = *factor;
            rest = after.trim_start();
        }
        Ok(Self { ms })
    }
}

/// Exact, in parts from days down: `1h30m`, `90d`, `500ms`, `0s`.
impl fmt::Display for HumanDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return formatter.pad("0s");
        }
        let mut text = String::new();
        let mut rest_ms = self.ms;
        // Weeks are read but not printed: retention of 90 days is not "12w6d" to anyone.
        for (unit, factor) in UNITS.iter().skip(1) {
            let count = rest_ms / factor;
            rest_ms %= factor;
            if count > 0 {
                text.push_str(&format!("{count}{unit}"));
            }
        }
        formatter.pad(&text)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = HumanDuration;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a duration with its unit, such as \"15m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<HumanDuration, E> {
                if number == 0 {
                    return Ok(HumanDuration::default());
                }
                Err(E::invalid_type(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<HumanDuration, E> {
                if number == 0 {
                    return Ok(HumanDuration::default());
                }
                Err(E::invalid_type(de::Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("15m", 900_000),
            ("15 m", 900_000),
            ("2.5s", 2_500),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90d", 7_776_000_000),
            ("2w", 1_209_600_000),
            ("0.5d", 43_200_000),
        ];
        for (text, ms) in cases {
            assert_eq!(text.parse(), Ok(HumanDuration::millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for text in [
            "", " ", "m", "-1s", "1s1m", "1m1m", "1h-30m", "1,5s", "1.s", "1h30",
        ] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text:?}");
        }
        assert_eq!(
            "15".parse::<HumanDuration>().unwrap_err().to_string(),
            "\"15\" has the unit \"\", which is none of ms, s, m, h, d, w"
        );
        // Minutes and not months or mega: case matters.
        assert!(
            matches!("15M".parse::<HumanDuration>(), Err(QuantityError::Unit { unit, .. }) if unit == "M")
        );
        for text in ["0.5ms", "1.00001s", "99999999999999w", "18446744073709551615ms1"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn printing_is_exact_and_reads_back_the_same() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (500, "500ms"),
            (1_500, "1s500ms"),
            (60_000, "1m"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (7_776_000_000, "90d"),
        ];
        for (ms, text) in cases {
            assert_eq!(HumanDuration::millis(ms).to_string(), text);
        }
        let mut ms: u64 = 1;
        for step in 0..5_000_u64 {
            ms = ms.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 60);
            let duration = HumanDuration::millis(ms);
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }

    #[test]
    fn configuration_takes_text_and_no_number_but_zero() {
        let read = |json: &str| serde_json::from_str::<HumanDuration>(json);
        assert_eq!(read("\"15m\"").unwrap(), HumanDuration::minutes(15));
        assert_eq!(read("0").unwrap(), HumanDuration::default());
        assert!(read("15").is_err() && read("-15").is_err() && read("\"soon\"").is_err());
        assert_eq!(
            serde_json::to_string(&HumanDuration::days(90)).unwrap(),
            "\"90d\""
        );
        assert_eq!(Duration::from(HumanDuration::seconds(3)), Duration::from_secs(3));
        assert_eq!(
            (
                HumanDuration::hours(1).as_ms(),
                HumanDuration::days(u64::MAX).as_ms()
            ),
            (3_600_000, i64::MAX)
        );
    }
}
