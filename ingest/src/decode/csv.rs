//! CSV with a header that names the fields (RFC 4180: quotes, doubled quotes, line ends within quotes).
//!
//! Rows are cut here and not by a library, because a piece of a message may end anywhere, cells are borrowed, and the
//! verdict on a row needs to know where its bytes and those of the device stand.

use std::borrow::Cow;
use std::sync::Arc;

use super::decoder::Cursor;
use super::wire::shown;
use super::{Batches, DecodeRules, FieldSet, Target, Value, WireEvent, WireField};
use crate::refusal::{BodyError, Code, Problem};

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Where a CSV message stands between two pieces.
#[derive(Debug, Default)]
pub(super) struct CsvState {
    columns: Option<Columns>,
    cells: Vec<Cell>,
}

/// What the header said.
#[derive(Debug)]
struct Columns {
    header: String,
    delimiter: u8,
    targets: Vec<Option<WireField>>,
}

/// A cell among a row's bytes, quotes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    start: u32,
    end: u32,
    quoted: bool,
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Where it ends, its line end left out.
    end: usize,
    /// Where the next one begins.
    next: usize,
    /// Line ends that it holds, its own included.
    lines: u64,
    /// Its quotes are as they should be.
    well_formed: bool,
}

impl CsvState {
    pub(super) fn header(&self) -> Option<&str> {
        self.columns.as_ref().map(|columns| columns.header.as_str())
    }

    pub(super) fn decode(
        &mut self,
        cursor: &mut Cursor,
        bytes: &[u8],
        skip: usize,
        last: bool,
        out: &mut Batches,
    ) -> Result<usize, BodyError> {
        let rules = Arc::clone(&cursor.rules);
        let whole = std::str::from_utf8(bytes).ok();
        let (mut at, mut event) = (skip, WireEvent::new());
        while at < bytes.len() {
            let delimiter = match &self.columns {
                Some(columns) => columns.delimiter,
                None => rules.delimiter.unwrap_or_else(|| guess_delimiter(&bytes[at..])),
            };
            let Some(row) = cut_row(bytes, at, delimiter, last, &mut self.cells) else {
                if bytes.len() - at > rules.max_event_bytes {
                    return Err(BodyError::EventTooLong {
                        line: cursor.line,
                        max_bytes: rules.max_event_bytes,
                    });
                }
                return Ok(at);
            };
            let row_bytes = &bytes[at..row.end];
            let text = match whole {
                Some(whole) => Some(&whole[at..row.end]),
                None => std::str::from_utf8(row_bytes).ok(),
            };
            if !row_bytes.trim_ascii().is_empty() {
                match &self.columns {
                    None => {
                        let text = text.ok_or(BodyError::InvalidUtf8 { offset: at as u64 })?;
                        self.columns = Some(Columns::read(text, &self.cells, delimiter, &rules)?);
                    }
                    Some(columns) => {
                        let place = cursor.place(at, row_bytes.len())?;
                        match columns.read_row(row, text, &self.cells, &rules, &mut event) {
                            Ok(()) => out.push(place, &event),
                            Err(problem) => out.refuse_unread(place, problem),
                        }
                    }
                }
            }
            cursor.line += row.lines;
            at = row.next;
        }
        Ok(at)
    }
}

impl Columns {
    fn read(text: &str, cells: &[Cell], delimiter: u8, rules: &DecodeRules) -> Result<Self, BodyError> {
        let mut seen = FieldSet::default();
        let mut unknown = Vec::new();
        let mut targets = Vec::with_capacity(cells.len());
        for cell in cells {
            let name = cell.text(text);
            let name = name.trim();
            let target = if name.is_empty() {
                Some(Target::Ignored)
            } else {
                rules.names.resolve(name)
            };
            match target {
                Some(Target::Field(field)) => {
                    if !seen.insert(field) {
                        return Err(BodyError::CsvHeader(format!(
                            "the column {:?} stands twice",
                            field.name()
                        )));
                    }
                    targets.push(Some(field));
                }
                Some(Target::Ignored) => targets.push(None),
                None => unknown.push(format!("{:?}", shown(name))),
            }
        }
        if !unknown.is_empty() {
            unknown.truncate(10);
            return Err(BodyError::CsvHeader(format!(
                "unknown columns: {}; map them to fields, or list them as ignored",
                unknown.join(", ")
            )));
        }
        Ok(Self {
            header: text.to_owned(),
            delimiter,
            targets,
        })
    }

    fn read_row<'a>(
        &self,
        row: Row,
        text: Option<&'a str>,
        cells: &[Cell],
        rules: &'a DecodeRules,
        event: &mut WireEvent<'a>,
    ) -> Result<(), Problem> {
        let text = text.ok_or(Code::InvalidUtf8)?;
        if text.len() > rules.max_event_bytes {
            return Err(super::ndjson::too_long(rules));
        }
        if !row.well_formed {
            return Err(Problem::new(
                Code::CsvSyntax,
                "a quoted cell does not end where the cell ends",
            ));
        }
        if cells.len() != self.targets.len() {
            let (found, expected) = (cells.len(), self.targets.len());
            return Err(Problem::new(
                Code::CsvColumns,
                format!("the row has {found} cells where the header has {expected}"),
            ));
        }
        event.clear();
        for (cell, target) in cells.iter().zip(&self.targets) {
            let Some(field) = *target else { continue };
            let value = cell.text(text);
            if value.is_empty() {
                continue;
            }
            if field == WireField::Device {
                event.set_device_place(cell.start, cell.end - cell.start);
            }
            event.set(field, Value::Cell(value));
        }
        Cursor::complete(rules, event);
        Ok(())
    }
}

impl Cell {
    fn text<'a>(&self, row: &'a str) -> Cow<'a, str> {
        let text = &row[self.start as usize..self.end as usize];
        if !self.quoted {
            return Cow::Borrowed(text);
        }
        let inner = text.strip_prefix('"').unwrap_or(text);
        let inner = inner.strip_suffix('"').unwrap_or(inner);
        if inner.contains('"') {
            Cow::Owned(inner.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(inner)
        }
    }
}

/// Where the reader stands within a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: the cell's end, or the first of two.
    Quote,
}

/// Finds the row at `at`, with its cells; `None` when it does not end within the bytes and more may follow.
fn cut_row(bytes: &[u8], at: usize, delimiter: u8, last: bool, cells: &mut Vec<Cell>) -> Option<Row> {
    cells.clear();
    let (mut within, mut quoted, mut well_formed) = (Within::CellStart, false, true);
    let (mut cell_start, mut lines) = (at, 0);
    let mut end_cell = |start: usize, end: usize, quoted: bool| {
        cells.push(Cell {
            start: (start - at) as u32,
            end: (end - at) as u32,
            quoted,
        });
    };
    for (offset, &byte) in bytes[at..].iter().enumerate() {
        let here = at + offset;
        within = match (within, byte) {
            (Within::Quoted, b'"') => Within::Quote,
            (Within::Quoted, b'\n') => {
                lines += 1;
                Within::Quoted
            }
            (Within::Quoted, _) => Within::Quoted,
            (Within::Quote, b'"') => Within::Quoted,
            (Within::CellStart, b'"') => {
                quoted = true;
                Within::Quoted
            }
            (_, b'\n') => {
                let end = if bytes[at..here].ends_with(b"\r") {
                    here - 1
                } else {
                    here
                };
                end_cell(cell_start, end.max(cell_start), quoted);
                return Some(Row {
                    end,
                    next: here + 1,
                    lines: lines + 1,
                    well_formed,
                });
            }
            (_, byte) if byte == delimiter => {
                end_cell(cell_start, here, quoted);
                (cell_start, quoted) = (here + 1, false);
                Within::CellStart
            }
            (Within::Quote, byte) => {
                // Behind a closing quote only the end of the cell may come; the carriage return is the line's.
                well_formed &= byte == b'\r' && bytes.get(here + 1).is_none_or(|&next| next == b'\n');
                if byte == b'\r' {
                    Within::Quote
                } else {
                    Within::Plain
                }
            }
            (Within::CellStart | Within::Plain, _) => Within::Plain,
        };
    }
    if !last {
        return None;
    }
    let end = if bytes[at..].ends_with(b"\r") {
        bytes.len() - 1
    } else {
        bytes.len()
    };
    well_formed &= within != Within::Quoted;
    end_cell(cell_start, end.max(cell_start), quoted);
    Some(Row {
        end,
        next: bytes.len(),
        lines: lines + 1,
        well_formed,
    })
}

/// The separator that the header's line holds most; a comma when it holds none.
fn guess_delimiter(bytes: &[u8]) -> u8 {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| line.iter().filter(|&&byte| byte == delimiter).count();
    // Of equals the last one would be taken: turned round, so that the comma wins.
    DELIMITERS
        .into_iter()
        .rev()
        .max_by_key(|&delimiter| count(delimiter))
        .unwrap_or(b',')
}

#[cfg(test)]
mod tests;
