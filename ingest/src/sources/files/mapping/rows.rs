//! Applying a mapping: cells of a row in, events as JSON lines out.
//!
//! Mapped rows take the same way as posted events from there on: through the decoder, which knows what an event must
//! have. What goes wrong here is what the mapping itself does: times, factors, numbers.

use std::io::Write as _;

use dwell_model::event::Kind;

use crate::refusal::Code;

use super::fields::{self, FieldForm};
use super::times::{TimeReader, ZoneOfVenue};
use super::{EventRule, FieldRule, Mapping, Piece, Source};

/// The cells of one row, by the numbers of [`Mapping::columns`]; reused from row to row.
#[derive(Debug, Default)]
pub(in crate::sources::files) struct Cells {
    text: String,
    spans: Vec<Option<(usize, usize)>>,
}

impl Cells {
    /// Forgets the row before.
    pub(in crate::sources::files) fn start(&mut self, columns: usize) {
        self.text.clear();
        self.spans.clear();
        self.spans.resize(columns, None);
    }

    /// Sets a cell.
    pub(in crate::sources::files) fn set(&mut self, column: usize, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.spans[column] = Some((start, self.text.len()));
    }

    /// The cells that are there as a JSON object, for the quarantine.
    pub(in crate::sources::files) fn to_json(&self, mapping: &Mapping) -> Vec<u8> {
        let cells = mapping.columns.iter().enumerate().filter_map(|(number, column)| {
            Some((column.name.clone(), serde_json::Value::from(self.get(number)?)))
        });
        serde_json::Value::Object(cells.collect())
            .to_string()
            .into_bytes()
    }

    /// A cell's text; `None` where it is missing or blank.
    fn get(&self, column: usize) -> Option<&str> {
        let (start, end) = self.spans[column]?;
        Some(&self.text[start..end]).filter(|text| !text.trim().is_empty())
    }
}

/// What a mapping could not make of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources::files) struct RowError {
    /// Stable code.
    pub(in crate::sources::files) code: Code,
    /// The column, or the field where several columns or none make it.
    pub(in crate::sources::files) column: String,
    /// What is wrong. Repeats no value, so that no identifier travels through it into a log.
    pub(in crate::sources::files) what: String,
}

/// Applies a mapping to the rows of one file, in their order.
pub(in crate::sources::files) struct RowMapper<'m> {
    mapping: &'m Mapping,
    zones: &'m dyn ZoneOfVenue,
    times: TimeReader,
    /// For each kind which of the fields it has.
    of_kind: Vec<Vec<bool>>,
    scratch: String,
}

impl std::fmt::Debug for RowMapper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowMapper")
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

impl<'m> RowMapper<'m> {
    /// A mapper at the beginning of a file.
    pub(in crate::sources::files) fn new(mapping: &'m Mapping, zones: &'m dyn ZoneOfVenue) -> Self {
        let of_kind = Kind::ALL.iter().map(|kind| {
            fields::ALL
                .iter()
                .map(|(name, _)| has_field(*kind, name))
                .collect()
        });
        Self {
            mapping,
            zones,
            times: TimeReader::default(),
            of_kind: of_kind.collect(),
            scratch: String::new(),
        }
    }

    /// Appends the events of a row to `lines`, each a JSON object and a line end, and returns their number. An event that
    /// cannot be made is left out and named in `errors`.
    pub(in crate::sources::files) fn map(
        &mut self,
        cells: &Cells,
        lines: &mut Vec<u8>,
        errors: &mut Vec<RowError>,
    ) -> usize {
        let mapping = self.mapping;
        let mut made = 0;
        for event in mapping.events.iter().filter(|event| event.applies_to(cells)) {
            let start = lines.len();
            match self.event(event, cells, lines) {
                Ok(()) => made += 1,
                Err(error) => {
                    lines.truncate(start);
                    errors.push(error);
                }
            }
        }
        made
    }

    fn event(&mut self, event: &EventRule, cells: &Cells, out: &mut Vec<u8>) -> Result<(), RowError> {
        let Self {
            mapping,
            zones,
            times,
            of_kind,
            scratch,
        } = self;
        // The first fields are kind and venue: the others hang on them.
        let kind = match value(&event.fields[KIND], cells, scratch) {
            Some(kind) => kind.parse::<Kind>().ok(),
            None => Some(Kind::Position),
        };
        let venue = || {
            let mut scratch = String::new();
            match value(&event.fields[VENUE], cells, &mut scratch) {
                Some(venue) => zones.calendar(venue),
                None => zones.of_unnamed(),
            }
        };
        out.push(b'{');
        let opened = out.len();
        for (number, field) in event.fields.iter().enumerate() {
            // Without a mapping a field of another kind is the decoder's to refuse.
            if !mapping.is_identity() && kind.is_some_and(|kind| !of_kind[kind as usize][number]) {
                continue;
            }
            let Some(text) = value(field, cells, scratch) else {
                continue;
            };
            if out.len() > opened {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b"\":");
            let code = if field.form == FieldForm::Time {
                Code::TsUnreadable
            } else {
                Code::WrongType
            };
            let refuse = |what: String| RowError {
                code,
                column: column_of(mapping, field),
                what,
            };
            match field.form {
                FieldForm::Time => match times.read(&mapping.time, text, venue).map_err(refuse)? {
                    Some(ts) => append(out, ts),
                    None => write_time(out, text),
                },
                FieldForm::Text => write_text(out, text),
                FieldForm::Integer => append(out, integer(text, field.scale).map_err(refuse)?),
                // Tools that keep numbers as floats write a counter's 17 as 17.0.
                FieldForm::CountOrFloat if kind == Some(Kind::Count) => {
                    append(out, integer(text, field.scale).map_err(refuse)?);
                }
                FieldForm::Float | FieldForm::CountOrFloat => {
                    write_number(out, text, field.scale).map_err(refuse)?
                }
                FieldForm::Truth => out.extend_from_slice(truth(text).map_err(refuse)?),
                FieldForm::Json => write_json(out, text).map_err(refuse)?,
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Places of the fields that others hang on, in [`fields::ALL`].
const KIND: usize = 0;
const VENUE: usize = 1;

fn has_field(kind: Kind, name: &str) -> bool {
    matches!(name, "kind" | "venue" | "sensor" | "ts" | "revision")
        || kind.key_name() == name
        || kind.fields().iter().any(|field| field.name == name)
}

fn column_of(mapping: &Mapping, field: &FieldRule) -> String {
    match &field.source {
        Source::Column(column) => mapping.columns[*column].name.clone(),
        Source::Fixed(_) | Source::Pattern(_) => field.name.to_owned(),
    }
}

/// A field's text; `None` where it has none.
fn value<'a>(field: &'a FieldRule, cells: &'a Cells, scratch: &'a mut String) -> Option<&'a str> {
    let read = read(field, cells, scratch)?;
    if field.values.is_empty() {
        return Some(read);
    }
    Some(field.values.get(read.trim()).map_or(read, String::as_str))
}

/// A field's text as it stands in the row.
fn read<'a>(field: &'a FieldRule, cells: &'a Cells, scratch: &'a mut String) -> Option<&'a str> {
    match &field.source {
        Source::Column(column) => cells.get(*column),
        Source::Fixed(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
        Source::Pattern(pieces) => {
            scratch.clear();
            for piece in pieces {
                match piece {
                    Piece::Text(text) => scratch.push_str(text),
                    // A pattern with a hole names nothing.
                    Piece::Column(column) => scratch.push_str(cells.get(*column)?.trim()),
                }
            }
            Some(scratch)
        }
    }
}

impl EventRule {
    fn applies_to(&self, cells: &Cells) -> bool {
        let is_zero = |&column: &usize| {
            cells
                .get(column)
                .is_none_or(|text| text.trim().parse::<f64>().is_ok_and(|number| number == 0.0))
        };
        let fits = |(column, values): &(usize, Vec<String>)| {
            let cell = cells.get(*column).unwrap_or_default().trim();
            values.iter().any(|value| value == cell)
        };
        !self.unless_zero.iter().any(is_zero) && self.when.iter().all(fits)
    }
}

fn append(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{value}");
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // A string always serialises, and writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_time(out: &mut Vec<u8>, text: &str) {
    match text.trim().parse::<i64>() {
        Ok(ms) => append(out, ms),
        Err(_) => write_text(out, text.trim()),
    }
}

fn integer(text: &str, scale: Option<f64>) -> Result<i64, String> {
    let text = text.trim();
    if scale.is_none()
        && let Ok(integer) = text.parse::<i64>()
    {
        return Ok(integer);
    }
    let exact = scaled(text, scale)?;
    let rounded = exact.round();
    // Factors turn decimal fractions into whole numbers up to the noise of binary ones (0.29 × 100 = 28.999…).
    let noise = 1e-9 * rounded.abs().max(1.0);
    if (exact - rounded).abs() > noise || rounded.abs() > 9e15 {
        return Err(match scale {
            Some(scale) => format!("times {scale} it is not a whole number"),
            None => "not a whole number".to_owned(),
        });
    }
    Ok(rounded as i64)
}

fn write_number(out: &mut Vec<u8>, text: &str, scale: Option<f64>) -> Result<(), String> {
    let text = text.trim();
    let number = scaled(text, scale)?;
    if scale.is_none() && serde_json::from_str::<serde_json::Number>(text).is_ok() {
        out.extend_from_slice(text.as_bytes());
    } else {
        append(out, number);
    }
    Ok(())
}

fn scaled(text: &str, scale: Option<f64>) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !number.is_finite() {
        return Err("not a finite number".to_owned());
    }
    let Some(scale) = scale else { return Ok(number) };
    // 0.01 is no binary fraction but 100 is: dividing gives the float nearest to the decimal result.
    let inverse = (1.0 / scale).round();
    let product = if inverse != 0.0 && 1.0 / inverse == scale {
        number / inverse
    } else {
        number * scale
    };
    if product.is_finite() {
        Ok(product)
    } else {
        Err(format!("times {scale} it is too large"))
    }
}

fn truth(text: &str) -> Result<&'static [u8], String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(b"true"),
        "false" | "0" | "no" => Ok(b"false"),
        _ => Err("neither true nor false".to_owned()),
    }
}

fn write_json(out: &mut Vec<u8>, text: &str) -> Result<(), String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| "not JSON".to_owned())?;
    // Serialised anew, so that it stands on one line.
    serde_json::to_writer(out, &value).map_err(|error| error.to_string())
}
