//! Text row by row, for mappings that compute something.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer as _, SeqAccess, Visitor};
use serde_json::Value;

use super::csv_rows::{CsvRow, CsvRows, RowFailure};
use crate::decode::Format;
use crate::refusal::{Code, Problem};
use crate::sources::files::error::FileError;
use crate::sources::files::intake::Intake;
use crate::sources::files::mapping::{Cells, Mapping};

/// Rows of a CSV file behind its header, which took `lines_before` lines.
pub(super) fn csv(
    place: &str,
    names: &[String],
    delimiter: u8,
    lines_before: u64,
    text: &mut dyn BufRead,
    intake: &mut Intake<'_>,
) -> Result<(), FileError> {
    let mapping = intake.mapping();
    let places: Vec<Option<usize>> = mapping
        .columns
        .iter()
        .map(|column| names.iter().position(|name| *name == column.name))
        .collect();
    let mut rows = CsvRows::new(text, delimiter, lines_before, intake.rules().max_event_bytes);
    let mut cells = Cells::default();
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(RowFailure::Io(source)) => {
                return Err(FileError::Io {
                    place: place.to_owned(),
                    source,
                });
            }
            Err(RowFailure::TooLong(line)) => {
                return Err(FileError::content(
                    format!("{place}:{line}"),
                    "a row is longer than allowed",
                ));
            }
        };
        if let Err(problem) = fill_from_csv(row, names.len(), &places, &mut cells) {
            intake.refuse_row(row.line, problem, row.bytes.clone(), Format::Csv)?;
        } else {
            intake.row(row.line, &cells)?;
        }
    }
}

pub(super) fn fill_from_csv(
    row: &CsvRow,
    columns: usize,
    places: &[Option<usize>],
    cells: &mut Cells,
) -> Result<(), Problem> {
    if !row.is_well_formed {
        return Err(Problem::new(
            Code::CsvSyntax,
            "a quoted cell does not end where the cell ends",
        ));
    }
    if row.len() != columns {
        let found = row.len();
        let message = format!("the row has {found} cells where the header has {columns}");
        return Err(Problem::new(Code::CsvColumns, message));
    }
    cells.start(places.len());
    for (column, place) in places.iter().enumerate() {
        let Some(cell) = place.and_then(|place| row.cell(place)) else {
            continue;
        };
        cells.set(column, std::str::from_utf8(cell).map_err(|_| Code::InvalidUtf8)?);
    }
    Ok(())
}

/// An object per line.
pub(super) fn ndjson(place: &str, text: &mut dyn BufRead, intake: &mut Intake<'_>) -> Result<(), FileError> {
    let mapping = intake.mapping();
    let max_bytes = intake.rules().max_event_bytes;
    let (mut line, mut cells) = (Vec::new(), Cells::default());
    for number in 1.. {
        line.clear();
        let io_error = |source| FileError::Io {
            place: place.to_owned(),
            source,
        };
        let n = text
            .take(max_bytes as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(io_error)?;
        if n == 0 {
            break;
        }
        if n > max_bytes && !line.ends_with(b"\n") {
            skip_line(text).map_err(io_error)?;
            line.truncate(max_bytes);
            intake.refuse_row(
                number,
                Code::LineTooLong.into(),
                std::mem::take(&mut line),
                Format::Ndjson,
            )?;
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(Value::Object(object)) => {
                fill(mapping, &Value::Object(object), &mut cells);
                intake.row(number, &cells)?;
            }
            Ok(_) => intake.refuse_row(number, Code::NotAnObject.into(), line.clone(), Format::Ndjson)?,
            Err(_) => intake.refuse_row(number, Code::JsonSyntax.into(), line.clone(), Format::Ndjson)?,
        }
    }
    Ok(())
}

fn skip_line(text: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let (done, used) = {
            let bytes = text.fill_buf()?;
            match bytes.iter().position(|&byte| byte == b'\n') {
                Some(end) => (true, end + 1),
                None => (bytes.is_empty(), bytes.len()),
            }
        };
        text.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// An array of objects, or one object.
pub(super) fn json(place: &str, text: &mut dyn BufRead, intake: &mut Intake<'_>) -> Result<(), FileError> {
    let limit = RowLimit::new(intake.rules().max_event_bytes);
    let mut json = serde_json::Deserializer::from_reader(Bounded {
        inner: text,
        limit: limit.clone(),
    });
    let mut stopped = None;
    let rows = JsonRows {
        intake,
        limit: &limit,
        stopped: &mut stopped,
    };
    let read = json.deserialize_any(rows).and_then(|()| json.end());
    match (stopped, read) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(FileError::content(place, format!("not valid JSON: {error}"))),
    }
}

/// Walks over a JSON text and gives each object in it to the intake.
struct JsonRows<'r, 'i> {
    intake: &'r mut Intake<'i>,
    limit: &'r RowLimit,
    stopped: &'r mut Option<FileError>,
}

impl JsonRows<'_, '_> {
    fn row<E: serde::de::Error>(&mut self, line: u64, value: &Value) -> Result<(), E> {
        self.limit.row_done();
        let taken = if value.is_object() {
            let mut cells = Cells::default();
            fill(self.intake.mapping(), value, &mut cells);
            self.intake.row(line, &cells)
        } else {
            self.intake.refuse_row(
                line,
                Code::NotAnObject.into(),
                value.to_string().into_bytes(),
                Format::Json,
            )
        };
        taken.map_err(|error| {
            *self.stopped = Some(error);
            E::custom("stopped")
        })
    }
}

impl<'de> Visitor<'de> for JsonRows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects, or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some((line, value)) = elements.next_element_seed(Element { limit: self.limit })? {
            self.row(line, &value)?;
        }
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        use serde::Deserialize;
        let object = serde_json::Map::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        self.row(1, &Value::Object(object))
    }
}

/// An element with the line on which it begins.
struct Element<'l> {
    limit: &'l RowLimit,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = (u64, Value);

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(u64, Value), D::Error> {
        use serde::Deserialize;
        let line = self.limit.lines.get() + 1;
        Ok((line, Value::deserialize(deserializer)?))
    }
}

/// Fills the cells of a row from an object; columns are names, or paths joined by dots.
pub(super) fn fill(mapping: &Mapping, object: &Value, cells: &mut Cells) {
    cells.start(mapping.columns.len());
    for (number, column) in mapping.columns.iter().enumerate() {
        let found = object.get(&column.name).or_else(|| {
            column
                .name
                .split('.')
                .try_fold(object, |value, step| match value {
                    Value::Array(elements) => elements.get(step.parse::<usize>().ok()?),
                    value => value.get(step),
                })
        });
        match found {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => cells.set(number, text),
            Some(value) => cells.set(number, &value.to_string()),
        }
    }
}

/// Bytes that one row may take, and lines read so far.
#[derive(Debug, Clone)]
struct RowLimit {
    max_bytes: usize,
    since_row: Rc<Cell<usize>>,
    lines: Rc<Cell<u64>>,
}

impl RowLimit {
    fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            since_row: Rc::default(),
            lines: Rc::default(),
        }
    }

    fn row_done(&self) {
        self.since_row.set(0);
    }
}

/// Text that ends with an error when a row grows too long.
struct Bounded<'t> {
    inner: &'t mut dyn BufRead,
    limit: RowLimit,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let limit = &self.limit;
        // What was read ahead of the row counts too: the limit may be passed by a buffer, not by more.
        limit.since_row.set(limit.since_row.get() + n);
        if limit.since_row.get() > limit.max_bytes + (64 << 10) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a row is longer than {} bytes", limit.max_bytes),
            ));
        }
        let lines = buffer[..n].iter().filter(|&&byte| byte == b'\n').count();
        limit.lines.set(limit.lines.get() + lines as u64);
        Ok(n)
    }
}
