//! Sizes as configuration writes them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::quantity::{Part, QuantityError};

/// Unit, and what it is in bytes; largest first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];
const KNOWN: &str = "B, kB, KiB, MB, MiB, GB, GiB, TB, TiB";

/// A number of bytes, written `64MiB`, `1.5 GB` or, plainly, `4096`. Units are read in any case; a plain number counts
/// bytes. In JSON and TOML it is such a string or an integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB; the largest size there is where that is too many.
    pub const fn kib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// So many MiB; the largest size there is where that is too many.
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// So many GiB; the largest size there is where that is too many.
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes as memory counts them; the largest there is where the machine cannot count so far.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let not_a_number = || QuantityError::NotANumber {
            text: text.to_owned(),
            example: "64MiB",
        };
        let (part, rest) = Part::split_first(text.trim()).ok_or_else(not_a_number)?;
        if !rest.is_empty() {
            return Err(not_a_number());
        }
        let unit = if part.unit.is_empty() { "B" } else { part.unit };
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, factor) = known.ok_or_else(|| QuantityError::Unit {
            text: text.to_owned(),
            unit: unit.to_owned(),
            known: KNOWN,
        })?;
        part.in_smallest(*factor)
            .map(Self)
            .ok_or_else(|| QuantityError::Range {
                text: text.to_owned(),
            })
    }
}

/// Exact, in the largest unit that gives a whole number: `64MiB`, `1500kB`, `1025B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| divides(*factor))
            .unwrap_or(&("B", 1));
        formatter.pad(&format!("{}{unit}", self.0 / factor))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrInteger;

        impl Visitor<'_> for TextOrInteger {
            type Value = ByteSize;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a size such as \"64MiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }
        }

        deserializer.deserialize_any(TextOrInteger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("4096", 4_096),
            ("12B", 12),
            ("64MiB", 67_108_864),
            ("64 mib", 67_108_864),
            (" 1.5 GB ", 1_500_000_000),
            ("0.5KiB", 512),
            ("2kB", 2_000),
            ("1TiB", 1_099_511_627_776),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize::bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_reason() {
        for text in [
            "", "MiB", "-1", "1.", "1.MiB", "1MiB2", "1_000", "1e3MiB", "½MiB", "12 МiB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
        let unit = "64Mbit".parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(
            unit,
            "\"64Mbit\" has the unit \"Mbit\", which is none of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"
        );
        for text in [
            "0.5B",
            "1.0001KiB",
            "16777216TiB",
            "18446744073709551616",
            &format!("0.{}1B", "0".repeat(60)),
        ] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(
                error,
                QuantityError::Range {
                    text: text.to_owned()
                }
            );
        }
    }

    #[test]
    fn printing_is_exact_and_reads_back_the_same() {
        let cases = [
            (0, "0B"),
            (1, "1B"),
            (1_000, "1kB"),
            (1_024, "1KiB"),
            (1_025, "1025B"),
            (1_500_000, "1500kB"),
            (67_108_864, "64MiB"),
            (10_000_000_000, "10GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(ByteSize::bytes(bytes).to_string(), text);
        }
        let mut bytes: u64 = 1;
        for step in 0..5_000_u64 {
            bytes = bytes.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 60);
            let size = ByteSize::bytes(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn configuration_takes_text_and_integers() {
        let read = |json: &str| serde_json::from_str::<ByteSize>(json);
        assert_eq!(read("\"1MiB\"").unwrap(), ByteSize::mib(1));
        assert_eq!(read("2048").unwrap(), ByteSize::kib(2));
        assert!(read("-1").is_err() && read("1.5").is_err() && read("\"big\"").is_err());
        assert_eq!(serde_json::to_string(&ByteSize::gib(2)).unwrap(), "\"2GiB\"");
    }
}
