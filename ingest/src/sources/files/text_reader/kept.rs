//! Rows that were kept by themselves (in the quarantine), through a mapping: as the file's rows would have gone.

use serde_json::Value;

use super::csv_rows::{CsvRows, RowFailure};
use super::{guess_delimiter, header_names, lines_of, read_header, rows};
use crate::decode::Format;
use crate::refusal::{Code, Problem};
use crate::sources::files::mapping::{Cells, Mapping, RowMapper, ZoneOfVenue};

/// The events that a mapping makes of kept bytes, as NDJSON: of an object, of each object of an array, or of the rows under
/// a CSV header. The first thing that is wrong refuses all of it.
pub(in crate::sources::files) fn events_of(
    mapping: &Mapping,
    zones: &dyn ZoneOfVenue,
    format: Format,
    bytes: &[u8],
) -> Result<Vec<u8>, Problem> {
    let mut mapper = RowMapper::new(mapping, zones);
    let mut lines = Vec::new();
    let mut map = |cells: &Cells| {
        let mut errors = Vec::new();
        mapper.map(cells, &mut lines, &mut errors);
        match errors.into_iter().next() {
            None => Ok(()),
            Some(error) => Err(Problem::new(
                error.code,
                format!("column {:?}: {}", error.column, error.what),
            )),
        }
    };
    let mut cells = Cells::default();
    match format {
        Format::Csv => csv(mapping, bytes, &mut cells, &mut map)?,
        Format::Ndjson | Format::Json => {
            let value: Value = serde_json::from_slice(bytes).map_err(|_| Code::JsonSyntax)?;
            let objects = match value {
                Value::Array(elements) => elements,
                other => vec![other],
            };
            for object in objects {
                if !object.is_object() {
                    return Err(Code::NotAnObject.into());
                }
                rows::fill(mapping, &object, &mut cells);
                map(&cells)?;
            }
        }
    }
    Ok(lines)
}

fn csv(
    mapping: &Mapping,
    bytes: &[u8],
    cells: &mut Cells,
    map: &mut dyn FnMut(&Cells) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let refuse = |error: crate::sources::files::error::FileError| {
        tracing::debug!(%error, "a kept row has no header that can be read");
        Problem::from(Code::CsvSyntax)
    };
    let mut text = bytes;
    let header = read_header("kept", &mut text).map_err(refuse)?;
    let delimiter = mapping.delimiter.unwrap_or_else(|| guess_delimiter(&header));
    let names = header_names("kept", &header, delimiter).map_err(refuse)?;
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    mapping
        .check_columns(&known)
        .map_err(|what| Problem::new(Code::MissingField, what))?;
    let places: Vec<Option<usize>> = mapping
        .columns
        .iter()
        .map(|column| names.iter().position(|name| *name == column.name))
        .collect();
    let mut rows = CsvRows::new(&mut text, delimiter, lines_of(&header), bytes.len());
    loop {
        match rows.next() {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => {
                rows::fill_from_csv(row, names.len(), &places, cells)?;
                map(cells)?;
            }
            Err(RowFailure::Io(_) | RowFailure::TooLong(_)) => return Err(Code::CsvSyntax.into()),
        }
    }
}
