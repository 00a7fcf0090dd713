//! One value of an event as its format gave it, and reading it as what a field asks for.
//!
//! Numbers keep their text until a field says what it wants, so that an integer never passes through a float and
//! every format reads the same digits the same way. A coordinate is read as `f64` and then rounded to `f32`, as
//! every tool does that has no 32-bit parser of its own.

use std::borrow::Cow;

use dwell_model::time::{MAX_TS, MIN_TS, TsError, TsMs, parse_ts};

use super::WireField;
use crate::refusal::{Code, Problem};

/// A value on the wire.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value<'a> {
    /// Not there, `null`, or an empty cell.
    #[default]
    Absent,
    /// `true` or `false`.
    Bool(bool),
    /// A JSON number, as text.
    Number(&'a str),
    /// An integer of a typed source.
    Int(i64),
    /// A float of a typed source.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A CSV cell: text, number or truth value, whatever the field asks for.
    Cell(Cow<'a, str>),
    /// A JSON array or object, as text.
    Json(&'a str),
}

impl Value<'_> {
    /// Whether there is nothing.
    pub fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }

    /// Reads a text. Integers are taken as names, too: many sensors number their tracks and lines.
    pub fn text(&self, field: WireField) -> Result<Option<Cow<'_, str>>, Problem> {
        match self {
            Value::Absent => Ok(None),
            Value::Text(text) | Value::Cell(text) => Ok(Some(Cow::Borrowed(text))),
            Value::Number(digits) if is_integer(digits) => Ok(Some(Cow::Borrowed(digits))),
            Value::Int(number) => Ok(Some(Cow::Owned(number.to_string()))),
            other => Err(wrong_type(field, "a text", other)),
        }
    }

    /// Reads an integer.
    pub fn integer(&self, field: WireField) -> Result<Option<i64>, Problem> {
        match self {
            Value::Absent => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            Value::Number(digits) => integer_of(field, digits).map(Some),
            Value::Cell(cell) => integer_of(field, cell.trim()).map(Some),
            other => Err(wrong_type(field, "an integer", other)),
        }
    }

    /// Reads a finite number.
    pub fn float(&self, field: WireField) -> Result<Option<f64>, Problem> {
        let number = match self {
            Value::Absent => return Ok(None),
            Value::Float(number) => *number,
            Value::Int(number) => *number as f64,
            Value::Number(digits) => float_of(field, digits)?,
            Value::Cell(cell) => float_of(field, cell.trim())?,
            other => return Err(wrong_type(field, "a number", other)),
        };
        if number.is_finite() {
            Ok(Some(number))
        } else {
            Err(Problem::new(
                Code::NotFinite,
                format!("{} must be a finite number", field.name()),
            ))
        }
    }

    /// Reads a truth value: `true`, `false`, 1 or 0.
    pub fn truth(&self, field: WireField) -> Result<Option<bool>, Problem> {
        match self {
            Value::Absent => Ok(None),
            Value::Bool(truth) => Ok(Some(*truth)),
            Value::Number("1") | Value::Int(1) => Ok(Some(true)),
            Value::Number("0") | Value::Int(0) => Ok(Some(false)),
            Value::Cell(cell) => match cell.trim() {
                "true" | "TRUE" | "True" | "1" => Ok(Some(true)),
                "false" | "FALSE" | "False" | "0" => Ok(Some(false)),
                _ => Err(wrong_type(field, "true or false", self)),
            },
            other => Err(wrong_type(field, "true or false", other)),
        }
    }

    /// Reads an instant: integer milliseconds since 1970, or RFC 3339 with an offset.
    pub fn instant(&self, field: WireField) -> Result<Option<TsMs>, Problem> {
        let unreadable = || {
            let expected = "an integer of milliseconds since 1970, or RFC 3339 with an offset";
            Problem::new(Code::TsUnreadable, format!("{} must be {expected}", field.name()))
        };
        let read = match self {
            Value::Absent => return Ok(None),
            Value::Text(text) | Value::Cell(text) => parse_ts(text),
            Value::Number(digits) => parse_ts(digits),
            Value::Int(ms) if (MIN_TS..MAX_TS).contains(ms) => Ok(*ms),
            Value::Int(ms) => Err(TsError::OutOfRange(*ms)),
            _ => return Err(unreadable()),
        };
        match read {
            Ok(ts) => Ok(Some(ts)),
            // Too many digits for an integer of 64 bits: certainly a number, certainly no time.
            Err(TsError::Unreadable(text)) if !is_integer(&text) => Err(unreadable()),
            Err(_) => Err(Problem::new(
                Code::TsOutOfRange,
                format!(
                    "{} lies outside 1970 to 2199; it must be in milliseconds",
                    field.name()
                ),
            )),
        }
    }

    /// What it is, for messages.
    fn describe(&self) -> &'static str {
        match self {
            Value::Absent => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Number(_) | Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) | Value::Cell(_) => "a text",
            Value::Json(text) if text.starts_with('[') => "a list",
            Value::Json(_) => "an object",
        }
    }
}

/// The problem of a value that has another type than its field asks for.
pub(crate) fn wrong_type(field: WireField, expected: &str, found: &Value<'_>) -> Problem {
    Problem::new(
        Code::WrongType,
        format!("{} must be {expected}, not {}", field.name(), found.describe()),
    )
}

fn is_integer(digits: &str) -> bool {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit())
}

fn integer_of(field: WireField, digits: &str) -> Result<i64, Problem> {
    digits.parse().map_err(|_| {
        if is_integer(digits) {
            Problem::new(
                Code::NumberOutOfRange,
                format!("{} does not fit 64 bits", field.name()),
            )
        } else {
            Problem::new(Code::WrongType, format!("{} must be an integer", field.name()))
        }
    })
}

fn float_of(field: WireField, digits: &str) -> Result<f64, Problem> {
    // A hand-made float like 1e999 parses to infinity, the words "nan" and "inf" parse as well: `float` refuses all.
    digits
        .parse()
        .map_err(|_| Problem::new(Code::WrongType, format!("{} must be a number", field.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_never_read_through_a_float() {
        let read = |digits| {
            Value::Number(digits)
                .integer(WireField::Amount)
                .map_err(|p| p.code)
        };
        assert_eq!(read("9007199254740993"), Ok(Some(9_007_199_254_740_993)));
        assert_eq!(read("-7"), Ok(Some(-7)));
        assert_eq!(read("99999999999999999999"), Err(Code::NumberOutOfRange));
        assert_eq!(read("12.5"), Err(Code::WrongType));
        assert_eq!(read("1e3"), Err(Code::WrongType));
        assert_eq!(
            Value::Text("5".into())
                .integer(WireField::Count)
                .map_err(|p| p.code),
            Err(Code::WrongType)
        );
        assert_eq!(Value::Cell(" 5 ".into()).integer(WireField::Count), Ok(Some(5)));
    }

    #[test]
    fn floats_are_read_to_the_nearest_and_must_be_finite() {
        let read = |digits| Value::Number(digits).float(WireField::Value).map_err(|p| p.code);
        assert_eq!(read("0.1"), Ok(Some(0.1)));
        // Needs correct rounding; a naive digit loop is one unit off.
        assert_eq!(read("9007199254740993.0"), Ok(Some(9_007_199_254_740_992.0)));
        assert_eq!(read("1e999"), Err(Code::NotFinite));
        for word in ["NaN", "inf", "-Infinity"] {
            assert_eq!(
                Value::Cell(word.into()).float(WireField::X).map_err(|p| p.code),
                Err(Code::NotFinite)
            );
        }
        assert_eq!(
            Value::Cell("1,5".into()).float(WireField::X).map_err(|p| p.code),
            Err(Code::WrongType)
        );
        assert_eq!(
            Value::Text("1.5".into()).float(WireField::X).map_err(|p| p.code),
            Err(Code::WrongType)
        );
        assert_eq!(
            Value::Float(f64::NAN).float(WireField::X).map_err(|p| p.code),
            Err(Code::NotFinite)
        );
    }

    #[test]
    fn instants_come_as_milliseconds_or_rfc3339() {
        let ts = Some(1_645_780_665_470);
        assert_eq!(Value::Number("1645780665470").instant(WireField::Ts), Ok(ts));
        assert_eq!(
            Value::Text("2022-02-25T10:17:45.470+01:00".into()).instant(WireField::Ts),
            Ok(ts)
        );
        assert_eq!(Value::Cell("1645780665470".into()).instant(WireField::Ts), Ok(ts));
        assert_eq!(Value::Int(1_645_780_665_470).instant(WireField::Ts), Ok(ts));
        for (value, code) in [
            (Value::Number("1.5"), Code::TsUnreadable),
            (Value::Bool(true), Code::TsUnreadable),
            (Value::Text("yesterday".into()), Code::TsUnreadable),
            (Value::Number("-1"), Code::TsOutOfRange),
            (Value::Number("1645780665470000"), Code::TsOutOfRange),
            (Value::Number("99999999999999999999999"), Code::TsOutOfRange),
        ] {
            assert_eq!(
                value.instant(WireField::Ts).map_err(|p| p.code),
                Err(code),
                "{value:?}"
            );
        }
    }

    #[test]
    fn whole_numbers_are_taken_as_names_and_fractions_are_not() {
        assert_eq!(
            Value::Number("2147529095")
                .text(WireField::Track)
                .unwrap()
                .unwrap(),
            "2147529095"
        );
        assert!(Value::Number("1.5").text(WireField::Track).is_err());
        assert!(Value::Json("{}").text(WireField::Track).is_err());
    }

    #[test]
    fn truth_has_few_spellings() {
        assert_eq!(
            Value::Cell("false".into()).truth(WireField::Void),
            Ok(Some(false))
        );
        assert_eq!(Value::Number("1").truth(WireField::Void), Ok(Some(true)));
        assert!(Value::Number("2").truth(WireField::Void).is_err());
        assert!(Value::Text("true".into()).truth(WireField::Void).is_err());
    }
}
