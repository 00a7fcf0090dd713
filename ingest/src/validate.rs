//! What a value must be to be taken, whichever road it comes on. Pure checks; the roads share them.
//!
//! Every check names the field in its problem and never the value.

mod items;

pub use items::{MAX_ITEMS, MAX_ITEMS_BYTES, canonical_items};

use dwell_model::event::{CountMode, Direction, SensorState};
use dwell_model::ids::{NameError, check_name};
use dwell_model::time::{MAX_TS, MIN_TS, TsMs};

use crate::decode::{TimeRules, WireField};
use crate::refusal::{Code, Problem};

/// Largest coordinate, in metres: whole centimetres up to it fit an archive column of 32 bits.
pub const MAX_COORDINATE_M: f64 = 9_999_999.99;
/// Largest integer in a payload: the largest that every JSON tool carries exactly. Sums of a venue's lifetime fit 64
/// bits with room to spare.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// Largest magnitude of a reading: its nano-units fit the 128 bits in which they are summed, 10^11 times over.
pub const MAX_READING: f64 = 1e18;
/// Longest unit, in bytes.
pub const MAX_UNIT_BYTES: usize = 32;
/// Separates the parts of a composite identity key; no name can hold it.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// Checks a name (sensor, track, line, …): 1 to 256 bytes without control characters.
pub fn name(field: WireField, text: &str) -> Result<(), Problem> {
    check_name(text).map_err(|error| {
        let what = match error {
            NameError::Empty => "must not be empty".to_owned(),
            NameError::TooLong { got, max } => format!("is {got} bytes long; at most {max} are allowed"),
            NameError::Character(_) => "holds a control character".to_owned(),
        };
        Problem::new(Code::InvalidName, format!("{} {what}", field.name()))
    })
}

/// Checks a coordinate in metres and rounds it to 32 bits; −0 becomes 0.
pub fn coordinate(field: WireField, metres: f64) -> Result<f32, Problem> {
    if !metres.is_finite() {
        return Err(Problem::new(
            Code::NotFinite,
            format!("{} must be a finite number", field.name()),
        ));
    }
    if metres.abs() > MAX_COORDINATE_M {
        let message = format!("{} lies beyond ±{MAX_COORDINATE_M} m", field.name());
        return Err(Problem::new(Code::CoordinateOutOfRange, message));
    }
    Ok(metres as f32 + 0.0)
}

/// Checks an integer against the least value that makes sense for its field, and [`MAX_INTEGER`].
pub fn integer(field: WireField, number: i64, at_least: i64) -> Result<i64, Problem> {
    if (at_least..=MAX_INTEGER).contains(&number) {
        Ok(number)
    } else {
        let message = format!("{} must lie between {at_least} and {MAX_INTEGER}", field.name());
        Err(Problem::new(Code::NumberOutOfRange, message))
    }
}

/// Checks the value of a reading; −0 becomes 0.
pub fn reading(value: f64) -> Result<f64, Problem> {
    if !value.is_finite() {
        return Err(Problem::new(Code::NotFinite, "value must be a finite number"));
    }
    if value.abs() > MAX_READING {
        return Err(Problem::new(
            Code::NumberOutOfRange,
            format!("value lies beyond ±{MAX_READING:e}"),
        ));
    }
    Ok(value + 0.0)
}

/// Checks a currency: three upper-case letters (ISO 4217).
pub fn currency(text: &str) -> Result<(), Problem> {
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(Code::InvalidCurrency.into())
    }
}

/// Checks a unit: 1 to 32 bytes without control characters.
pub fn unit(text: &str) -> Result<(), Problem> {
    if (1..=MAX_UNIT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Code::InvalidUnit.into())
    }
}

/// Reads which way a line was crossed.
pub fn direction(word: &str) -> Result<Direction, Problem> {
    Direction::from_word(word).ok_or(Problem::new(
        Code::UnknownWord,
        "direction must be \"in\" or \"out\"",
    ))
}

/// Reads what a counter's value means.
pub fn count_mode(word: &str) -> Result<CountMode, Problem> {
    let message = "mode must be \"delta\", \"cumulative\" or \"state\"";
    CountMode::from_word(word).ok_or(Problem::new(Code::UnknownWord, message))
}

/// Reads what a sensor says of itself.
pub fn sensor_state(word: &str) -> Result<SensorState, Problem> {
    let message = "state must be \"ok\", \"degraded\" or \"offline\"";
    SensorState::from_word(word).ok_or(Problem::new(Code::UnknownWord, message))
}

/// Checks the value of a counter: any state or difference, but nothing negative that was counted since a reset.
pub fn count_value(mode: CountMode, value: i64) -> Result<i64, Problem> {
    integer(
        WireField::Value,
        value,
        if mode == CountMode::Cumulative {
            0
        } else {
            -MAX_INTEGER
        },
    )
}

/// Checks an event time: 1970 to 2199, and by the rules for gateways where there are any.
pub fn event_time(ts: TsMs, rules: Option<&TimeRules>) -> Result<(), Problem> {
    if !(MIN_TS..MAX_TS).contains(&ts) {
        return Err(Code::TsOutOfRange.into());
    }
    let Some(rules) = rules else { return Ok(()) };
    if ts > rules.now.saturating_add(rules.max_future_ms) {
        let message = format!(
            "ts lies more than {} s in the future; is the sensor's clock right?",
            rules.max_future_ms / 1_000
        );
        return Err(Problem::new(Code::TsInFuture, message));
    }
    if ts < rules.now.saturating_sub(rules.max_age_ms) {
        let days = rules.max_age_ms / dwell_model::time::DAY_MS;
        return Err(Problem::new(
            Code::TsTooOld,
            format!("ts is more than {days} days old; history is brought by import"),
        ));
    }
    Ok(())
}

/// What tells crossings of one line, direction and instant apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossingPart<'a> {
    /// The track.
    Track(&'a str),
    /// The sensor's own sequence number.
    Sequence(i64),
    /// Neither was sent: the ordinal among equals within the message, from 1. Such an identity is weak.
    Ordinal(u32),
}

/// Writes the identity key of a crossing: line, direction and what tells it apart, joined by [`KEY_SEPARATOR`].
pub fn crossing_key(out: &mut String, line: &str, direction: Direction, part: CrossingPart<'_>) {
    use std::fmt::Write;
    out.clear();
    out.push_str(line);
    out.push(KEY_SEPARATOR);
    out.push_str(direction.word());
    out.push(KEY_SEPARATOR);
    // Writing to a String cannot fail.
    let _ = match part {
        CrossingPart::Track(track) => write!(out, "t{track}"),
        CrossingPart::Sequence(seq) => write!(out, "s{seq}"),
        CrossingPart::Ordinal(ordinal) => write!(out, "o{ordinal}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, Problem>) -> Option<Code> {
        result.err().map(|problem| problem.code)
    }

    #[test]
    fn coordinates_end_beyond_any_floor_plan() {
        for good in [0.0, -0.0, 9_999_999.99, -9_999_999.99, 1e-30] {
            assert_eq!(coordinate(WireField::X, good), Ok(good as f32));
        }
        assert!(coordinate(WireField::X, -0.0).unwrap().is_sign_positive());
        assert_eq!(
            code(coordinate(WireField::X, 10_000_000.0)),
            Some(Code::CoordinateOutOfRange)
        );
        assert_eq!(code(coordinate(WireField::Y, f64::NAN)), Some(Code::NotFinite));
        assert_eq!(
            code(coordinate(WireField::Y, f64::NEG_INFINITY)),
            Some(Code::NotFinite)
        );
    }

    #[test]
    fn words_and_texts_are_checked() {
        for (text, good) in [
            ("EUR", true),
            ("eur", false),
            ("EURO", false),
            ("€", false),
            ("", false),
        ] {
            assert_eq!(currency(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("°C", true),
            ("kWh", true),
            ("", false),
            ("a\tb", false),
            (&"x".repeat(33), false),
        ] {
            assert_eq!(unit(text).is_ok(), good, "{text}");
        }
        assert_eq!(direction("in"), Ok(Direction::In));
        assert_eq!(code(direction("IN")), Some(Code::UnknownWord));
        assert_eq!(code(count_mode("sum")), Some(Code::UnknownWord));
        assert_eq!(code(sensor_state("")), Some(Code::UnknownWord));
        assert_eq!(code(name(WireField::Sensor, "a\u{1f}b")), Some(Code::InvalidName));
    }

    #[test]
    fn sentinels_cannot_be_sent() {
        assert_eq!(
            code(integer(WireField::Amount, i64::MIN, -MAX_INTEGER)),
            Some(Code::NumberOutOfRange)
        );
        assert_eq!(code(reading(f64::NAN)), Some(Code::NotFinite));
        assert_eq!(code(reading(1e19)), Some(Code::NumberOutOfRange));
    }

    #[test]
    fn what_was_counted_since_a_reset_is_not_negative() {
        assert_eq!(count_value(CountMode::State, -3), Ok(-3));
        assert_eq!(count_value(CountMode::Delta, -3), Ok(-3));
        assert_eq!(
            code(count_value(CountMode::Cumulative, -3)),
            Some(Code::NumberOutOfRange)
        );
    }

    #[test]
    fn times_are_bounded_on_both_sides_for_gateways_only() {
        let now = 1_700_000_000_000;
        let rules = TimeRules::at(now);
        assert_eq!(event_time(now + 300_000, Some(&rules)), Ok(()));
        assert_eq!(
            code(event_time(now + 300_001, Some(&rules))),
            Some(Code::TsInFuture)
        );
        assert_eq!(event_time(now - 90 * 86_400_000, Some(&rules)), Ok(()));
        assert_eq!(
            code(event_time(now - 90 * 86_400_000 - 1, Some(&rules))),
            Some(Code::TsTooOld)
        );
        assert_eq!(event_time(0, None), Ok(()));
        assert_eq!(code(event_time(-1, None)), Some(Code::TsOutOfRange));
    }

    #[test]
    fn crossing_keys_tell_their_parts_apart() {
        let mut key = String::from("old");
        crossing_key(&mut key, "door", Direction::In, CrossingPart::Track("7"));
        assert_eq!(key, "door\u{1f}in\u{1f}t7");
        crossing_key(&mut key, "door", Direction::Out, CrossingPart::Sequence(7));
        assert_eq!(key, "door\u{1f}out\u{1f}s7");
        crossing_key(&mut key, "door", Direction::In, CrossingPart::Ordinal(1));
        assert_eq!(key, "door\u{1f}in\u{1f}o1");
    }
}
