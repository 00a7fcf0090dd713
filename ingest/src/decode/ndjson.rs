//! NDJSON: an event per line. A line that cannot be read harms no other.

use super::decoder::Cursor;
use super::json_object::read_event;
use super::lines::Lines;
use super::{Batches, DecodeRules, WireEvent};
use crate::refusal::{BodyError, Code, Problem};

/// Where an NDJSON message stands between two pieces.
#[derive(Debug, Default)]
pub(super) struct NdjsonState {
    /// Inside a line that was refused for its length.
    skipping: bool,
}

impl NdjsonState {
    pub(super) fn decode(
        &mut self,
        cursor: &mut Cursor,
        bytes: &[u8],
        skip: usize,
        last: bool,
        out: &mut Batches,
    ) -> Result<usize, BodyError> {
        let rules = std::sync::Arc::clone(&cursor.rules);
        let mut event = WireEvent::new();
        let mut lines = Lines::new(bytes, skip, last);
        for line in lines.by_ref() {
            if std::mem::take(&mut self.skipping) {
                cursor.line += 1;
                continue;
            }
            let Some(text) = line.text else {
                let place = cursor.place(line.start, line.len)?;
                out.refuse_unread(place, Code::InvalidUtf8.into());
                cursor.line += 1;
                continue;
            };
            let text = text.trim_ascii();
            if !text.is_empty() {
                let start = text.as_ptr() as usize - bytes.as_ptr() as usize;
                let place = cursor.place(start, text.len())?;
                match read_line(text, &rules, &mut event) {
                    Ok(()) => out.push(place, &event),
                    Err(problem) => out.refuse_unread(place, problem),
                }
            }
            cursor.line += 1;
        }
        let used = lines.position();
        if !last && bytes.len() - used > rules.max_event_bytes {
            if !std::mem::replace(&mut self.skipping, true) {
                let place = cursor.place(used, 0)?;
                out.refuse_unread(place, too_long(&rules));
            }
            return Ok(bytes.len());
        }
        Ok(used)
    }
}

fn read_line<'a>(text: &'a str, rules: &'a DecodeRules, event: &mut WireEvent<'a>) -> Result<(), Problem> {
    if text.len() > rules.max_event_bytes {
        return Err(too_long(rules));
    }
    let read = read_event(text, &rules.names, event).map_err(|error| syntax(&error))?;
    if !text[read..].trim_ascii().is_empty() {
        return Err(Problem::new(
            Code::JsonSyntax,
            "more text follows the event on its line",
        ));
    }
    Cursor::complete(rules, event);
    Ok(())
}

pub(super) fn too_long(rules: &DecodeRules) -> Problem {
    Problem::new(
        Code::LineTooLong,
        format!("the event is longer than {} bytes", rules.max_event_bytes),
    )
}

fn syntax(error: &serde_json::Error) -> Problem {
    Problem::new(
        Code::JsonSyntax,
        format!("not valid JSON at byte {}: {}", error.column(), what(error)),
    )
}

/// What `serde_json` found wrong, without its own idea of the place.
pub(super) fn what(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}
