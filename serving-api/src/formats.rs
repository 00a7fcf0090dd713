//! Rows as tables: the same columns and values as CSV and as an Arrow IPC stream.

mod arrow_ipc;
mod csv;

use dwell_model::time::TsMs;

pub(crate) use arrow_ipc::to_arrow_stream;
pub(crate) use csv::to_csv;

/// A table: named columns of equal length.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Names and values, in order.
    pub(crate) columns: Vec<(&'static str, TableColumn)>,
}

/// The values of a column; absent ones are null in Arrow and empty in CSV.
#[derive(Debug)]
pub(crate) enum TableColumn {
    /// Texts.
    Text(Vec<Option<String>>),
    /// Instants: RFC 3339 in CSV, `timestamp(ms, UTC)` in Arrow.
    Instant(Vec<Option<TsMs>>),
    /// Whole numbers.
    Integer(Vec<Option<i64>>),
    /// Numbers.
    Number(Vec<Option<f64>>),
    /// Yes or no.
    Flag(Vec<Option<bool>>),
}

impl Table {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }
}

impl TableColumn {
    fn len(&self) -> usize {
        match self {
            TableColumn::Text(values) => values.len(),
            TableColumn::Instant(values) => values.len(),
            TableColumn::Integer(values) => values.len(),
            TableColumn::Number(values) => values.len(),
            TableColumn::Flag(values) => values.len(),
        }
    }
}
