//! JSON: an array of events, or a single event. Where the text itself breaks, nothing after it can be found, so the
//! message as a whole is refused; an element that is JSON but no good event harms no other.

use std::sync::Arc;

use super::decoder::Cursor;
use super::json_object::read_event;
use super::ndjson::{too_long, what};
use super::{Batches, WireEvent};
use crate::refusal::BodyError;

/// Where a JSON message stands between two pieces.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonState {
    /// Before the array or the single event.
    #[default]
    Start,
    /// Behind the opening bracket.
    First,
    /// Behind a comma.
    Next,
    /// Behind an element.
    Between,
    /// Behind everything.
    End,
}

impl JsonState {
    pub(super) fn decode(
        &mut self,
        cursor: &mut Cursor,
        bytes: &[u8],
        skip: usize,
        last: bool,
        out: &mut Batches,
    ) -> Result<usize, BodyError> {
        let rules = Arc::clone(&cursor.rules);
        let text = text_of(bytes, last)?;
        let (mut at, mut event) = (skip, WireEvent::new());
        loop {
            let rest = text[at..].trim_ascii_start();
            let start = text.len() - rest.len();
            cursor.line += newlines(&text[at..start]);
            at = start;
            let Some(&byte) = rest.as_bytes().first() else {
                return match self {
                    JsonState::Start | JsonState::End => Ok(bytes.len()),
                    _ if !last => Ok(at),
                    _ => Err(syntax(cursor, "it ends within the array")),
                };
            };
            match (*self, byte) {
                (JsonState::Start, b'[') => (*self, at) = (JsonState::First, at + 1),
                (JsonState::First | JsonState::Between, b']') => (*self, at) = (JsonState::End, at + 1),
                (JsonState::Between, b',') => (*self, at) = (JsonState::Next, at + 1),
                (JsonState::Next, b']') => return Err(syntax(cursor, "a comma before the closing bracket")),
                (JsonState::Between, _) => {
                    return Err(syntax(cursor, "expected a comma or the closing bracket"));
                }
                (JsonState::End, b'{') => {
                    return Err(syntax(
                        cursor,
                        "a further event follows; an event per line is application/x-ndjson",
                    ));
                }
                (JsonState::End, _) => return Err(syntax(cursor, "more text follows the end")),
                (JsonState::Start | JsonState::First | JsonState::Next, _) => {
                    let read = match read_event(rest, &rules.names, &mut event) {
                        Ok(read) => read,
                        Err(error) if !last && may_go_on(rest, &error) => {
                            return whole_event_expected(cursor, rest.len(), rules.max_event_bytes, at);
                        }
                        Err(error) => return Err(syntax(cursor, &what(&error))),
                    };
                    // A number at the end of a piece may go on in the next.
                    if !last && read == rest.len() && !matches!(byte, b'{' | b'[' | b'"') {
                        return Ok(at);
                    }
                    let place = cursor.place(at, read)?;
                    if read > rules.max_event_bytes {
                        out.refuse_unread(place, too_long(&rules));
                    } else {
                        Cursor::complete(&rules, &mut event);
                        out.push(place, &event);
                    }
                    cursor.line += newlines(&rest[..read]);
                    at += read;
                    *self = if *self == JsonState::Start {
                        JsonState::End
                    } else {
                        JsonState::Between
                    };
                }
            }
        }
    }
}

/// The text of a piece; at its end a character may be cut.
fn text_of(bytes: &[u8], last: bool) -> Result<&str, BodyError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if !last && error.error_len().is_none() => {
            Ok(std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default())
        }
        Err(error) => Err(BodyError::InvalidUtf8 {
            offset: error.valid_up_to() as u64,
        }),
    }
}

/// Whether what is wrong may be only that the piece ends here. A number that is cut behind its sign, point or exponent
/// is not reported as an end.
fn may_go_on(rest: &str, error: &serde_json::Error) -> bool {
    error.is_eof() || rest.ends_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'))
}

fn whole_event_expected(
    cursor: &Cursor,
    present: usize,
    max_bytes: usize,
    at: usize,
) -> Result<usize, BodyError> {
    if present > max_bytes {
        Err(BodyError::EventTooLong {
            line: cursor.line,
            max_bytes,
        })
    } else {
        Ok(at)
    }
}

fn syntax(cursor: &Cursor, what: &str) -> BodyError {
    BodyError::JsonSyntax {
        line: cursor.line,
        index: cursor.index,
        what: what.to_owned(),
    }
}

fn newlines(text: &str) -> u64 {
    text.bytes().filter(|&byte| byte == b'\n').count() as u64
}
