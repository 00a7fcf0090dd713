//! Hours of the day, as queries name them: `10-14` means from 10:00 until 14:00.

use crate::problem::{Problem, clip};

/// A set of local hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoursOfDay(u32);

impl HoursOfDay {
    /// All hours.
    pub(crate) const ALL: Self = Self((1 << 24) - 1);

    /// Whether a local hour (0 to 23) is in the set.
    pub(crate) fn contains(self, hour: u8) -> bool {
        self.0 & (1 << hour) != 0
    }

    /// Whether nothing is left out.
    pub(crate) fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Reads `10-14`, `9`, `10-14,18-20` or, over midnight, `22-2`. The end is not included and may be 24.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let refuse = || {
            let detail = format!(
                "{:?} are no hours of the day; write 10-14 for 10:00 until 14:00, 9 for one hour, several joined by commas",
                clip(text)
            );
            Problem::parameter("hours", detail)
        };
        let mut set = 0_u32;
        for part in text.split(',') {
            let (from, to) = match part.trim().split_once('-') {
                Some((from, to)) => (hour(from, 23), hour(to, 24)),
                None => (hour(part, 23), hour(part, 23).map(|hour| hour + 1)),
            };
            let (Some(from), Some(to)) = (from, to) else {
                return Err(refuse());
            };
            if from == to {
                return Err(refuse());
            }
            let mut at = from;
            while at != to {
                set |= 1 << (at % 24);
                at += 1;
                // Over midnight, unless that is where the range ends.
                if at == 24 && to != 24 {
                    at = 0;
                }
            }
        }
        Ok(Self(set))
    }
}

fn hour(text: &str, max: u32) -> Option<u32> {
    let text = text.trim();
    let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|hour| plain && *hour <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Vec<u8> {
        let set = HoursOfDay::parse(text).unwrap();
        (0..24).filter(|&hour| set.contains(hour)).collect()
    }

    #[test]
    fn the_end_is_not_included_and_midnight_may_be_crossed() {
        assert_eq!(hours("10-14"), [10, 11, 12, 13]);
        assert_eq!(hours("9"), [9]);
        assert_eq!(hours("22-2"), [0, 1, 22, 23]);
        assert_eq!(hours("22-24"), [22, 23]);
        assert_eq!(hours("22-0"), [22, 23]);
        assert_eq!(hours("8-9, 18-20"), [8, 18, 19]);
        assert!(HoursOfDay::parse("0-24").unwrap().is_all());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "-", "10-", "-4", "24", "10-25", "10-10", "ten", "1-2-3", "+1", "1,,2", "100",
        ] {
            assert!(HoursOfDay::parse(text).is_err(), "{text:?}");
        }
    }
}
