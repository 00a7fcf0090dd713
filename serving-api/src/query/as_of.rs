//! `as_of`: numbers as they were published once.

use dwell_model::time::{TsMs, parse_ts};
use dwell_storage::api::Generation;

use crate::problem::{Problem, clip};

/// Plain numbers below this name generations; others are milliseconds since 1970 (from March 1973 on).
const GENERATIONS_END: u64 = 100_000_000_000;

/// Which publication is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// Per day, the newest that had been published at an instant.
    Moment(TsMs),
    /// A generation of one day.
    Generation(Generation),
}

impl AsOf {
    /// Reads `as_of`: an instant that has come, or the number of a generation.
    pub(crate) fn parse(text: &str, now: TsMs) -> Result<Self, Problem> {
        if let Ok(number) = text.parse::<u64>()
            && (1..GENERATIONS_END).contains(&number)
        {
            return Ok(Self::Generation(number));
        }
        // A plus sign that was not escaped arrives as a space.
        let instant = parse_ts(text).or_else(|error| parse_ts(&text.replace(' ', "+")).map_err(|_| error));
        let ts = instant.map_err(|_| {
            let detail = format!(
                "{:?} is neither an instant (2026-03-01T09:00:00Z, or milliseconds since 1970) nor a generation (a small \
                 whole number, see /days)",
                clip(text)
            );
            Problem::parameter("as_of", detail)
        })?;
        if ts > now {
            return Err(Problem::parameter(
                "as_of",
                "as_of lies in the future; leave it out for the numbers of now",
            ));
        }
        Ok(Self::Moment(ts))
    }

    /// Reads it where it is given.
    pub(crate) fn parse_option(text: Option<&str>, now: TsMs) -> Result<Option<Self>, Problem> {
        text.map(|text| Self::parse(text, now)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_generations_and_others_instants_that_have_come() {
        let now = 1_800_000_000_000;
        let read = |text: &str| AsOf::parse(text, now).ok();
        assert_eq!(read("7"), Some(AsOf::Generation(7)));
        assert_eq!(read("1761346800000"), Some(AsOf::Moment(1_761_346_800_000)));
        assert_eq!(
            read("2026-03-01T10:00:00 01:00"),
            Some(AsOf::Moment(1_772_355_600_000)),
            "a plus sign that was not escaped"
        );
        for refused in ["", "yesterday", "-3", "1.5", "2099-01-01T00:00:00Z"] {
            assert_eq!(read(refused), None, "{refused}");
        }
    }
}
