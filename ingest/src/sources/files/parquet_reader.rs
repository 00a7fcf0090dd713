//! Parquet files, straight into columns.
//!
//! Nearly all rows of nearly all files are well-formed positions. They take the short way ([`positions`]): texts arrive as
//! dictionary codes, each distinct one is looked up once, and the columns of a batch are spread over the groups without a
//! look at any single text. Rows that are anything else (another kind, an absent or doubtful value, an unknown venue) and
//! files whose mapping computes something take the long way: each becomes an NDJSON line ([`cells`]) and goes through the
//! same decoder as everything else, which also says what is wrong with it and keeps it.
//!
//! Columns are those of NDJSON, by name. Types are taken liberally: any integer, float or decimal for numbers;
//! timestamps of any unit for times (those without a zone are read as UTC); plain, large or dictionary-encoded text, and
//! integers, for names; lists of structs for `items`.

mod cells;
mod positions;

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use self::cells::RowCells;
use self::positions::{PositionColumns, PositionReader};
use super::error::FileError;
use super::expansion::ExpansionLimit;
use super::intake::Intake;
use super::mapping::{Cells, Mapping};

/// Rows per batch: the columns of a batch fit the processor's cache.
const BATCH_ROWS: usize = 16_384;

/// Reads a Parquet file. Well-formed positions go to the intake's groups, other rows through its decoder. Blocking.
pub(super) fn read(place: &str, file: File, intake: &mut Intake<'_>) -> Result<(), FileError> {
    let damaged =
        |error: &dyn std::fmt::Display| FileError::content(place, format!("damaged Parquet: {error}"));
    let mapping = intake.mapping();
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
        .map_err(|error| damaged(&error))?;
    check_expansion(place, metadata.metadata(), intake.expansion())?;
    let schema = with_dictionaries(metadata.schema());
    let projection = wanted_columns(place, &schema, mapping)?;
    let rows_total = u64::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
    let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
        .map_err(|error| damaged(&error))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let mask = ProjectionMask::roots(builder.parquet_schema(), projection);
    let reader = builder
        .with_batch_size(BATCH_ROWS)
        .with_projection(mask)
        .build()
        .map_err(|error| damaged(&error))?;

    let mut positions = PositionReader::new(mapping, intake.groups());
    let mut row_cells = RowCells::new(mapping, &schema);
    let (mut cells, mut odd) = (Cells::default(), Vec::new());
    let mut rows_before = 0;
    for batch in reader {
        let batch = batch.map_err(|error| damaged(&error))?;
        odd.clear();
        match positions
            .as_mut()
            .and_then(|reader| Some((PositionColumns::of(reader, &batch)?, reader)))
        {
            Some((columns, reader)) => {
                reader.read(&columns, intake.groups(), &mut odd);
                intake.accepted(batch.num_rows() as u64 - odd.len() as u64);
            }
            None => odd.extend(0..batch.num_rows() as u32),
        }
        if !odd.is_empty() {
            row_cells.begin(&batch);
        }
        for &row in &odd {
            row_cells.fill(row as usize, &mut cells);
            intake.row(rows_before + u64::from(row) + 1, &cells)?;
        }
        rows_before += batch.num_rows() as u64;
        intake.rows_done(rows_before, rows_total)?;
    }
    Ok(())
}

/// The schema with which to read: texts as dictionaries, so that no row carries one.
fn with_dictionaries(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(Field::new(field.name(), dictionary, field.is_nullable()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Numbers of the columns to read. A column that the mapping names must be there; without a mapping every column must
/// be a field.
fn wanted_columns(place: &str, schema: &Schema, mapping: &Mapping) -> Result<Vec<usize>, FileError> {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    mapping
        .check_columns(&names)
        .map_err(|what| FileError::content(place, what))?;
    let wanted = |name: &&str| mapping.columns.iter().any(|column| column.name == **name);
    Ok(names
        .iter()
        .enumerate()
        .filter(|(_, name)| wanted(name))
        .map(|(number, _)| number)
        .collect())
}

/// Refuses a file whose columns claim to expand beyond reason.
fn check_expansion(place: &str, metadata: &ParquetMetaData, limit: ExpansionLimit) -> Result<(), FileError> {
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let sizes = [column.compressed_size(), column.uncompressed_size()]
            .map(|size| u64::try_from(size).unwrap_or(0));
        let [packed, unpacked] = sizes;
        if unpacked
            > limit
                .free_bytes
                .saturating_add(packed.saturating_mul(limit.ratio_max))
        {
            let what = format!(
                "the column {} expands from {packed} to {unpacked} bytes",
                column.column_path()
            );
            return Err(FileError::content(
                place,
                format!("{what}: refused as a decompression bomb"),
            ));
        }
    }
    Ok(())
}
