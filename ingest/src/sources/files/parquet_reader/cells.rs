//! The long way: rows as texts, for the mapping and the decoder.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::sources::files::mapping::{Cells, Mapping};

/// Gives the rows of a file's batches as cells of a mapping.
#[derive(Debug)]
pub(super) struct RowCells {
    /// Per column of the mapping its name, where the file has it.
    names: Vec<Option<String>>,
    /// The same columns of the batch, in forms that print well.
    columns: Vec<Option<ArrayRef>>,
    text: String,
}

impl RowCells {
    /// For a file of this schema.
    pub(super) fn new(mapping: &Mapping, schema: &SchemaRef) -> Self {
        let name = |name: &String| schema.column_with_name(name).map(|_| name.clone());
        let names = mapping.columns.iter().map(|column| name(&column.name)).collect();
        Self {
            names,
            columns: Vec::new(),
            text: String::new(),
        }
    }

    /// Starts a batch.
    pub(super) fn begin(&mut self, batch: &RecordBatch) {
        let column = |name: &Option<String>| batch.column_by_name(name.as_ref()?).map(printable);
        self.columns = self.names.iter().map(column).collect();
    }

    /// Fills the cells with a row of the batch that was begun.
    pub(super) fn fill(&mut self, row: usize, cells: &mut Cells) {
        cells.start(self.columns.len());
        for (number, column) in self.columns.iter().enumerate() {
            let Some(column) = column else { continue };
            self.text.clear();
            if write_value(&mut self.text, column, row, false) {
                cells.set(number, &self.text);
            }
        }
    }
}

/// Times as milliseconds; everything else as it is.
fn printable(array: &ArrayRef) -> ArrayRef {
    let milliseconds = match array.data_type() {
        DataType::Timestamp(_, zone) => {
            let in_ms = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            cast(array, &in_ms)
                .and_then(|array| cast(&array, &DataType::Int64))
                .ok()
        }
        _ => None,
    };
    milliseconds.unwrap_or_else(|| ArrayRef::clone(array))
}

/// Writes a value as plain text, or as JSON; false when it is absent.
fn write_value(out: &mut String, array: &ArrayRef, row: usize, as_json: bool) -> bool {
    if array.is_null(row) {
        return false;
    }
    // Writing to a String cannot fail.
    match array.data_type() {
        DataType::Utf8 => write_text(out, array.as_string::<i32>().value(row), as_json),
        DataType::LargeUtf8 => write_text(out, array.as_string::<i64>().value(row), as_json),
        DataType::Utf8View => write_text(out, array.as_string_view().value(row), as_json),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            return match dictionary.normalized_keys().get(row) {
                Some(&key) => write_value(out, dictionary.values(), key, as_json),
                None => false,
            };
        }
        DataType::Int64 => drop(write!(out, "{}", array.as_primitive::<Int64Type>().value(row))),
        DataType::Float32 => write_float(out, array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => write_float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => write_list(out, &array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => write_list(out, &array.as_list::<i64>().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            out.push('{');
            let mut is_first = true;
            for (field, column) in fields.iter().zip(columns.columns()) {
                let before = out.len();
                if !is_first {
                    out.push(',');
                }
                write_text(out, field.name(), true);
                out.push(':');
                if write_value(out, column, row, true) {
                    is_first = false;
                } else {
                    out.truncate(before);
                }
            }
            out.push('}');
        }
        ty => {
            let options = FormatOptions::default();
            let Ok(formatter) = ArrayFormatter::try_new(array, &options) else {
                return false;
            };
            let text = formatter.value(row).to_string();
            let is_number = ty.is_numeric() || *ty == DataType::Boolean;
            write_text(out, &text, as_json && !is_number);
        }
    }
    true
}

fn write_list(out: &mut String, values: &ArrayRef) {
    out.push('[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(',');
        }
        if !write_value(out, values, row, true) {
            out.push_str("null");
        }
    }
    out.push(']');
}

fn write_text(out: &mut String, text: &str, as_json: bool) {
    if as_json {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push_str(text);
    }
}

/// Whole floats without a fraction, so that an integer that a tool made a float of is an integer again.
fn write_float(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}
