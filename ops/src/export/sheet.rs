//! A Parquet file written row by row.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::ExportedFile;

/// Rows held before they are handed to the writer.
const ROWS_PER_BATCH: usize = 16_384;

/// Type of a column.
#[derive(Debug, Clone, Copy)]
pub(super) enum SheetColumn {
    Text,
    Integer,
    Float,
}

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Absent,
}

impl Cell<'_> {
    /// An integer, or nothing.
    pub(super) fn optional(value: Option<i64>) -> Self {
        value.map_or(Cell::Absent, Cell::Integer)
    }
}

enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Float(Float64Builder),
}

impl Builder {
    fn new(column: SheetColumn) -> Self {
        match column {
            SheetColumn::Text => Builder::Text(StringBuilder::new()),
            SheetColumn::Integer => Builder::Integer(Int64Builder::new()),
            SheetColumn::Float => Builder::Float(Float64Builder::new()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Integer(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A Parquet file that is being written under a temporary name.
pub(super) struct Sheet {
    path: PathBuf,
    unfinished: PathBuf,
    schema: SchemaRef,
    builders: Vec<Builder>,
    waiting: usize,
    rows: u64,
    writer: ArrowWriter<File>,
}

impl Sheet {
    pub(super) fn create(path: &Path, columns: &[(&str, SheetColumn)]) -> Result<Self> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| {
                let ty = match column {
                    SheetColumn::Text => DataType::Utf8,
                    SheetColumn::Integer => DataType::Int64,
                    SheetColumn::Float => DataType::Float64,
                };
                Field::new(*name, ty, true)
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let unfinished = path.with_extension("parquet.unfinished");
        let file =
            File::create(&unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        let builders = columns.iter().map(|(_, column)| Builder::new(*column)).collect();
        Ok(Self {
            path: path.to_owned(),
            unfinished,
            schema,
            builders,
            waiting: 0,
            rows: 0,
            writer,
        })
    }

    /// Appends a row; its cells must match the columns.
    pub(super) fn push(&mut self, cells: &[Cell<'_>]) -> Result<()> {
        if cells.len() != self.builders.len() {
            bail!(
                "{}: a row of {} cells for {} columns",
                self.path.display(),
                cells.len(),
                self.builders.len()
            );
        }
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            match (builder, *cell) {
                (Builder::Text(builder), Cell::Text(text)) => builder.append_value(text),
                (Builder::Text(builder), Cell::Absent) => builder.append_null(),
                (Builder::Integer(builder), Cell::Integer(value)) => builder.append_value(value),
                (Builder::Integer(builder), Cell::Absent) => builder.append_null(),
                (Builder::Float(builder), Cell::Float(value)) => builder.append_value(value),
                (Builder::Float(builder), Cell::Absent) => builder.append_null(),
                (_, cell) => bail!("{}: {cell:?} does not fit its column", self.path.display()),
            }
        }
        self.rows += 1;
        self.waiting += 1;
        if self.waiting == ROWS_PER_BATCH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        self.waiting = 0;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        Ok(self.writer.write(&batch)?)
    }

    /// Finishes the file and gives it its name.
    pub(super) fn close(mut self) -> Result<ExportedFile> {
        if self.waiting > 0 {
            self.flush()?;
        }
        let file = self.writer.into_inner()?;
        let bytes = file.metadata()?.len();
        drop(file);
        std::fs::rename(&self.unfinished, &self.path)
            .with_context(|| format!("cannot name {}", self.path.display()))?;
        Ok(ExportedFile {
            path: self.path,
            rows: self.rows,
            bytes,
        })
    }
}
