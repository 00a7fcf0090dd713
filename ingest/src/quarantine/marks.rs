//! Where in an entry's bytes the reason stands: the field, the value, the character.
//!
//! The field is the one that the reason names, or that its code is always about. A reason that concerns no single field
//! (a missing one, too many cells) marks the whole event.

use crate::decode::{Format, WireField};
use crate::refusal::Code;

/// A place in an entry's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its first byte.
    pub start: usize,
    /// How many bytes.
    pub len: usize,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The byte of that line, from 1.
    pub column: usize,
    /// The field, where the reason concerns one.
    pub field: Option<String>,
}

/// The place of a reason in bytes.
pub fn mark(format: Format, bytes: &[u8], code: &str, message: &str) -> Mark {
    let field = field_of(code, message);
    let span = match std::str::from_utf8(bytes) {
        Err(error) => Some((error.valid_up_to(), 1)),
        Ok(text) => match format {
            Format::Csv => csv_span(text, field.as_deref()),
            Format::Ndjson | Format::Json => json_span(text, field.as_deref()),
        },
    };
    let whole = || {
        let start = if format == Format::Csv { body_of(bytes) } else { 0 };
        (start, bytes.len() - start)
    };
    let (start, len) = span.unwrap_or_else(whole);
    let start = start.min(bytes.len());
    let before = &bytes[..start];
    let line_start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    Mark {
        start,
        len: len.min(bytes.len() - start),
        line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
        column: start - line_start + 1,
        field,
    }
}

/// The field that a reason is about: named in quotes, or known from the code.
fn field_of(code: &str, message: &str) -> Option<String> {
    let named = ["field \"", "column \""].iter().find_map(|before| {
        let (_, name) = message.split_once(before)?;
        name.split('"').next().filter(|name| !name.is_empty())
    });
    let first = || {
        message
            .split([' ', ':'])
            .next()
            .filter(|word| WireField::from_name(word).is_some())
    };
    if let Some(name) = named.or_else(first) {
        return Some(name.to_owned());
    }
    let code = Code::ALL.iter().find(|known| known.as_str() == code)?;
    let always = match code {
        Code::TsUnreadable | Code::TsOutOfRange | Code::TsInFuture | Code::TsTooOld => "ts",
        Code::PresenceKeyDestroyed => "ts",
        Code::InvalidVenue | Code::UnknownVenue | Code::VenueMismatch | Code::VenueNotAllowed => "venue",
        Code::UnknownKind => "kind",
        Code::InvalidCurrency => "currency",
        Code::InvalidUnit => "unit",
        Code::InvalidItems => "items",
        _ => return None,
    };
    Some(always.to_owned())
}

/// Where the rows under a CSV header begin.
fn body_of(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1)
}

/// The value of a field, or the character at which the text is no JSON any more; `None` for the whole.
fn json_span(text: &str, field: Option<&str>) -> Option<(usize, usize)> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let line_start = match error.line() {
            0 | 1 => 0,
            line => text.match_indices('\n').nth(line - 2).map_or(0, |(at, _)| at + 1),
        };
        let start = (line_start + error.column().saturating_sub(1)).min(text.len());
        return Some((start, 1));
    }
    value_span(text, field?)
}

/// The value of a field of the outermost object. The text is valid JSON.
fn value_span(text: &str, field: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_u32);
    let mut awaited: Option<bool> = None;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at)?;
                let is_key = depth == 1 && text[end..].trim_start().starts_with(':') && awaited.is_none();
                if is_key {
                    let name: String = serde_json::from_str(&text[at..end]).ok()?;
                    let colon = end + text[end..].find(':')? + 1;
                    let start = colon + (text[colon..].len() - text[colon..].trim_start().len());
                    if name == field {
                        return Some((start, value_end(bytes, start)? - start));
                    }
                    awaited = Some(true);
                    at = start;
                    continue;
                }
                at = end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => awaited = None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The end of a JSON string that begins at a quote.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The end of a JSON value.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_u32);
    loop {
        match bytes.get(at) {
            None => return Some(at),
            Some(b'"') => {
                at = string_end(bytes, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') if depth == 0 => break,
            Some(b'}' | b']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            Some(b',') if depth == 0 => break,
            Some(_) => {}
        }
        at += 1;
    }
    let value = bytes.get(start..at)?;
    Some(start + value.trim_ascii_end().len())
}

/// The cell of a field in the first row under the header; `None` for the whole row.
fn csv_span(text: &str, field: Option<&str>) -> Option<(usize, usize)> {
    let field = field?;
    let (header, _) = text.split_once('\n')?;
    let delimiter = [b'|', b'\t', b';', b',']
        .into_iter()
        .max_by_key(|&delimiter| header.bytes().filter(|&byte| byte == delimiter).count())?;
    let cells = |from: usize, line: &str| -> Vec<(usize, usize)> {
        let (mut cells, mut start, mut quoted) = (Vec::new(), 0, false);
        for (at, byte) in line.bytes().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                byte if byte == delimiter && !quoted => {
                    cells.push((from + start, at - start));
                    start = at + 1;
                }
                _ => {}
            }
        }
        cells.push((from + start, line.len() - start));
        cells
    };
    let is_named =
        |&(start, len): &(usize, usize)| text[start..start + len].trim().trim_matches('"') == field;
    let number = cells(0, header).iter().position(is_named)?;
    let from = header.len() + 1;
    let row = text[from..].lines().next()?;
    cells(from, row).get(number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The marked text, and its field.
    fn marked(format: Format, text: &str, code: &str, message: &str) -> (String, Option<String>) {
        let mark = mark(format, text.as_bytes(), code, message);
        (text[mark.start..mark.start + mark.len].to_owned(), mark.field)
    }

    #[test]
    fn the_value_that_is_wrong_is_marked() {
        let event = r#"{"venue" : "v1","x":{"ts":1,"a":[2]},"ts": "so\"on" ,"y":3.5}"#;
        for (code, message, text, field) in [
            ("ts_unreadable", "ts cannot be read", r#""so\"on""#, Some("ts")),
            ("unknown_venue", "venue v1 is not known", r#""v1""#, Some("venue")),
            (
                "unknown_field",
                "the field \"x\" is not known",
                r#"{"ts":1,"a":[2]}"#,
                Some("x"),
            ),
            ("wrong_type", "the field \"y\" must be text", "3.5", Some("y")),
            (
                "missing_field",
                "the field \"sensor\" is missing",
                event,
                Some("sensor"),
            ),
            ("not_finite", "a number is not finite", event, None),
        ] {
            let expected = (text.to_owned(), field.map(str::to_owned));
            assert_eq!(marked(Format::Ndjson, event, code, message), expected, "{code}");
        }
        // A text that holds what looks like a field is none.
        let tricky = r#"{"a":"\"ts\":1","ts":2}"#;
        assert_eq!(marked(Format::Json, tricky, "ts_in_future", "").0, "2");
    }

    #[test]
    fn what_is_no_json_is_marked_where_it_breaks() {
        let mark = mark(Format::Json, b"{\"a\":1,\n \"b\":x}", "json_syntax", "");
        assert_eq!((mark.line, mark.column, mark.len), (2, 6, 1));
        let mark = super::mark(Format::Ndjson, b"ab\xffcd", "invalid_utf8", "");
        assert_eq!((mark.start, mark.len), (2, 1));
    }

    #[test]
    fn the_cell_under_its_header_is_marked() {
        let rows = "venue;ts;\"x\"\nv1;\"a;b\";7\n";
        assert_eq!(marked(Format::Csv, rows, "ts_unreadable", "").0, "\"a;b\"");
        assert_eq!(
            marked(Format::Csv, rows, "wrong_type", "the field \"x\" must be").0,
            "7"
        );
        assert_eq!(
            marked(Format::Csv, rows, "csv_columns", "the row has 3 cells").0,
            "v1;\"a;b\";7\n"
        );
        let mark = mark(Format::Csv, rows.as_bytes(), "wrong_type", "the field \"x\"");
        assert_eq!((mark.line, mark.column), (2, 10));
    }
}
