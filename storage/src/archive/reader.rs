//! Reads a data file of the archive, page by page.
//!
//! All columns of a file break their pages at the same rows (see [`writer`](super::writer)), so a chunk is one page of
//! each. A row group's projected columns lie side by side, in one stretch or two, and a stretch is fetched with one read. Each text of a dictionary is
//! looked up once per row group; rows carry numbers.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use dwell_model::event::{Column, EventBatch, Kind, NO_I64, NO_TEXT};
use dwell_model::ids::Receipt;
use dwell_model::time::TsMs;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use parquet::file::statistics::Statistics;

use super::encoding::{Malformed, hybrid, integers};
use super::parquet_schema::{ColumnSpec, FORMAT_VERSION, FileSchema, Holds, Stored};
use super::writer::from_hundredths;
use crate::api::Projection;
use crate::error::{ErrorKind, Result, StorageError};

/// Bytes at the end of a file that are read first; the footer is usually in there.
const TAIL_BYTES: u64 = 32 << 10;
/// Most rows that one page may claim to have: bounds memory against damaged headers.
const PAGE_ROWS_MAX: usize = 1 << 20;

/// Bytes of a stored file.
pub(super) trait FileBytes: Send {
    /// Size of the file.
    fn len(&self) -> u64;
    /// The bytes of a range. Blocking.
    fn read(&self, range: Range<u64>) -> Result<Bytes>;
    /// Name for errors.
    fn name(&self) -> &str;
}

/// First deliveries of a reader's rows, column by column.
#[derive(Debug, Default)]
pub(super) struct DeliveryColumns {
    pub(super) received_at: Vec<TsMs>,
    /// Numbers of [`receipts`](Self::receipts).
    pub(super) receipt: Vec<u32>,
    /// Grows with the file's row groups.
    pub(super) receipts: Vec<Receipt>,
}

impl DeliveryColumns {
    /// Drops the rows and keeps the receipts.
    pub(super) fn clear(&mut self) {
        self.received_at.clear();
        self.receipt.clear();
    }
}

/// A data file being read.
pub(super) struct DayFileReader {
    file: Box<dyn FileBytes>,
    kind: Kind,
    metadata: ParquetMetaData,
    schema: &'static FileSchema,
    projection: Projection,
    next_group: usize,
    open: Vec<OpenColumn>,
    scratch: Scratch,
}

impl DayFileReader {
    /// Reads the footer.
    pub(super) fn open(file: Box<dyn FileBytes>, kind: Kind, projection: Projection) -> Result<Self> {
        let metadata = read_footer(&*file)?;
        let schema = FileSchema::of(kind);
        if metadata.file_metadata().schema_descr().columns() != schema.parquet.columns() {
            return Err(damaged(&*file, "its columns are not those of the kind"));
        }
        let reader = Self {
            file,
            kind,
            metadata,
            schema,
            projection,
            next_group: 0,
            open: Vec::new(),
            scratch: Scratch::default(),
        };
        if reader.footer_value("dwell.format") != Some(FORMAT_VERSION) {
            return Err(damaged(&*reader.file, "its format version is unknown"));
        }
        Ok(reader)
    }

    /// A value of the footer's metadata.
    pub(super) fn footer_value(&self, key: &str) -> Option<&str> {
        let pairs = self.metadata.file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// Rows of the file, as the footer says.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(0)
    }

    /// First and last event time, by the statistics of the row groups.
    pub(super) fn ts_range(&self) -> Option<(TsMs, TsMs)> {
        let of_group = |group: &RowGroupMetaData| match group.column(1).statistics() {
            Some(Statistics::Int64(range)) => Some((*range.min_opt()?, *range.max_opt()?)),
            _ => None,
        };
        let ranges: Option<Vec<_>> = self.metadata.row_groups().iter().map(of_group).collect();
        ranges?.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Appends the next page's rows; returns how many, 0 at the end. Names go into the batch's dictionary.
    pub(super) fn next_page(
        &mut self,
        events: &mut EventBatch,
        deliveries: &mut DeliveryColumns,
    ) -> Result<usize> {
        debug_assert_eq!(events.kind, self.kind);
        loop {
            if self.open.is_empty() {
                if self.next_group == self.metadata.num_row_groups() {
                    return Ok(0);
                }
                self.open_group()?;
            }
            let mut rows = None;
            for column in &mut self.open {
                let read = column
                    .read_page(events, deliveries, &mut self.scratch)
                    .map_err(|error| named(&*self.file, column.spec, error))?;
                if *rows.get_or_insert(read) != read {
                    return Err(damaged(
                        &*self.file,
                        "its columns break their pages at different rows",
                    ));
                }
            }
            match rows {
                Some(Some(rows)) => {
                    if self.projection == Projection::IdentitiesAndDeliveries {
                        fill_with_absent(events);
                    }
                    return Ok(rows);
                }
                _ => self.open.clear(),
            }
        }
    }

    fn open_group(&mut self) -> Result<()> {
        let group = self.metadata.row_group(self.next_group);
        self.next_group += 1;
        for columns in self.schema.stretches(self.projection) {
            let chunks = &group.columns()[columns.clone()];
            let (mut first, mut end) = (u64::MAX, 0);
            for chunk in chunks {
                let (start, length) =
                    checked_range(chunk).ok_or_else(|| damaged(&*self.file, "a chunk has no place"))?;
                first = first.min(start);
                end = end.max(start.saturating_add(length));
            }
            if end > self.file.len() || first >= end {
                return Err(damaged(&*self.file, "a row group lies outside the file"));
            }
            let bytes = self.file.read(first..end)?;
            let bytes = Arc::new(Window { bytes, start: first });
            for (spec, chunk) in self.schema.columns[columns].iter().zip(chunks) {
                let rows = group.num_rows().max(0) as usize;
                let pages = SerializedPageReader::new(Arc::clone(&bytes), chunk, rows, None)
                    .map_err(|error| named(&*self.file, spec, error.into()))?;
                self.open.push(OpenColumn {
                    spec,
                    pages,
                    texts: Vec::new(),
                });
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for DayFileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DayFileReader")
            .field("file", &self.file.name())
            .finish_non_exhaustive()
    }
}

/// What was not read stands as absent.
fn fill_with_absent(events: &mut EventBatch) {
    let rows = events.ts.len();
    events.revision.resize(rows, 0);
    for column in &mut events.payload {
        (column.len()..rows).for_each(|_| column.push_absent());
    }
}

fn read_footer(file: &dyn FileBytes) -> Result<ParquetMetaData> {
    let parse = |error: ParquetError| {
        StorageError::with_source(
            ErrorKind::Damaged,
            format!("archive file {}: footer", file.name()),
            error,
        )
    };
    let length = file.len();
    let mut tail = file.read(length.saturating_sub(TAIL_BYTES)..length)?;
    let Some(end) = tail.len().checked_sub(8) else {
        return Err(damaged(file, "it is too short"));
    };
    if &tail[end + 4..] != b"PAR1" {
        return Err(damaged(file, "it does not end like a Parquet file"));
    }
    let footer_length = (&tail[end..]).get_u32_le() as usize;
    if footer_length as u64 + 8 > length {
        return Err(damaged(file, "its footer is longer than the file"));
    }
    if footer_length > end {
        tail = file.read(length - 8 - footer_length as u64..length)?;
    }
    let end = tail.len() - 8;
    ParquetMetaDataReader::decode_metadata(&tail[end - footer_length..end]).map_err(parse)
}

/// A chunk's place in the file. The crate's own `byte_range` panics on negative numbers.
fn checked_range(chunk: &parquet::file::metadata::ColumnChunkMetaData) -> Option<(u64, u64)> {
    let start = chunk
        .dictionary_page_offset()
        .unwrap_or_else(|| chunk.data_page_offset());
    Some((
        u64::try_from(start).ok()?,
        u64::try_from(chunk.compressed_size()).ok()?,
    ))
}

fn damaged(file: &dyn FileBytes, what: &str) -> StorageError {
    StorageError::new(
        ErrorKind::Damaged,
        format!("archive file {}: {what}", file.name()),
    )
}

fn named(file: &dyn FileBytes, column: &ColumnSpec, error: PageError) -> StorageError {
    StorageError::with_source(
        ErrorKind::Damaged,
        format!("archive file {}, column {}", file.name(), column.name),
        error,
    )
}

#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Encoding(#[from] Malformed),
    #[error("{0}")]
    Content(&'static str),
}

/// A column of the row group being read.
struct OpenColumn {
    spec: &'static ColumnSpec,
    pages: SerializedPageReader<Window>,
    /// For each number of the column's dictionary the number in the reader's.
    texts: Vec<u32>,
}

/// Buffers that are used again.
#[derive(Default)]
struct Scratch {
    numbers: Vec<u32>,
    present: Vec<u32>,
    hundredths: Vec<i32>,
    integers: Vec<i64>,
}

/// A data page taken apart.
struct PageParts {
    rows: usize,
    values: usize,
    levels: Bytes,
    data: Bytes,
    encoding: Encoding,
}

impl PageParts {
    fn of(page: Page) -> Result<Self, PageError> {
        let Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            ..
        } = page
        else {
            return Err(PageError::Content("a page of another version"));
        };
        let (rows, nulls, levels) = (
            num_rows as usize,
            num_nulls as usize,
            def_levels_byte_len as usize,
        );
        if num_values != num_rows || nulls > rows || rows > PAGE_ROWS_MAX || levels > buf.len() {
            return Err(PageError::Content("a page with an impossible header"));
        }
        let data = buf.slice(levels..);
        Ok(Self {
            rows,
            values: rows - nulls,
            levels: buf.slice(..levels),
            data,
            encoding,
        })
    }

    fn expect(&self, encoding: Encoding) -> Result<(), PageError> {
        if self.encoding == encoding {
            Ok(())
        } else {
            Err(PageError::Content("a page of another encoding"))
        }
    }

    fn integers<T: integers::Integer>(&self, out: &mut Vec<T>) -> Result<(), PageError> {
        self.expect(Encoding::DELTA_BINARY_PACKED)?;
        Ok(integers::decode(&self.data, self.values, out)?)
    }

    /// Reads the levels into `present`; checks that they name as many values as the header.
    fn present(&self, present: &mut Vec<u32>) -> Result<(), PageError> {
        present.clear();
        hybrid::decode(&self.levels, 1, self.rows, present)?;
        if present.iter().sum::<u32>() as usize == self.values {
            Ok(())
        } else {
            Err(PageError::Content("levels and values do not match"))
        }
    }

    /// Appends a value per row to `out`: those of `values` where one is there, `absent` elsewhere.
    fn spread<V: Copy, T: Copy>(
        &self,
        values: &[V],
        absent: T,
        convert: impl Fn(V) -> T,
        present: &mut Vec<u32>,
        out: &mut Vec<T>,
    ) -> Result<(), PageError> {
        if self.values == self.rows {
            out.extend(values.iter().map(|&value| convert(value)));
            return Ok(());
        }
        if self.values == 0 {
            out.resize(out.len() + self.rows, absent);
            return Ok(());
        }
        self.present(present)?;
        let mut values = values.iter();
        out.extend(present.iter().map(|&there| match there {
            0 => absent,
            _ => values.next().map_or(absent, |&value| convert(value)),
        }));
        Ok(())
    }
}

impl OpenColumn {
    /// Reads the next data page; `None` at the chunk's end.
    fn read_page(
        &mut self,
        events: &mut EventBatch,
        deliveries: &mut DeliveryColumns,
        scratch: &mut Scratch,
    ) -> Result<Option<usize>, PageError> {
        let page = loop {
            match self.pages.get_next_page()? {
                None => return Ok(None),
                Some(Page::DictionaryPage { buf, num_values, .. }) => {
                    self.read_dictionary(&buf, num_values as usize, events, deliveries)?;
                }
                Some(page) => break PageParts::of(page)?,
            }
        };
        let rows = page.rows;
        if self.spec.required && page.values != rows {
            return Err(PageError::Content("a required value is missing"));
        }
        match (self.spec.holds, self.spec.stored) {
            (Holds::Ts, _) => page.integers(&mut events.ts)?,
            (Holds::ReceivedAt, _) => page.integers(&mut deliveries.received_at)?,
            (Holds::Revision, _) => integers(&page, 0, scratch, &mut events.revision)?,
            (Holds::Key, _) => self.texts(&page, scratch, &mut events.key)?,
            (Holds::Sensor, _) => self.texts(&page, scratch, &mut events.sensor)?,
            (Holds::Receipt, _) => self.texts(&page, scratch, &mut deliveries.receipt)?,
            (Holds::Field(field) | Holds::ExactFloat(field), stored) => {
                match (&mut events.payload[field], stored) {
                    (Column::Text(out), Stored::Text) => self.texts(&page, scratch, out)?,
                    (Column::I64(out), Stored::Integer) => integers(&page, NO_I64, scratch, out)?,
                    (Column::F32(out), Stored::Hundredths) => hundredths(&page, scratch, out)?,
                    (Column::F32(out), Stored::Float) => exact_floats(&page, scratch, out)?,
                    (Column::F64(out), Stored::Double) => doubles(&page, scratch, out)?,
                    _ => return Err(PageError::Content("a batch of another kind")),
                }
            }
        }
        Ok(Some(rows))
    }

    fn read_dictionary(
        &mut self,
        mut bytes: &[u8],
        count: usize,
        events: &mut EventBatch,
        deliveries: &mut DeliveryColumns,
    ) -> Result<(), PageError> {
        self.texts.clear();
        for _ in 0..count {
            let (length, rest) = bytes
                .split_at_checked(4)
                .ok_or(PageError::Content("a dictionary that ends early"))?;
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            let (text, rest) = rest
                .split_at_checked(length)
                .ok_or(PageError::Content("a dictionary that ends early"))?;
            bytes = rest;
            let text =
                std::str::from_utf8(text).map_err(|_| PageError::Content("a text that is not UTF-8"))?;
            self.texts.push(match self.spec.holds {
                Holds::Receipt => {
                    let receipt = text
                        .parse()
                        .map_err(|_| PageError::Content("a text that is no receipt"))?;
                    deliveries.receipts.push(receipt);
                    deliveries.receipts.len() as u32 - 1
                }
                _ => events.strings.intern(text),
            });
        }
        Ok(())
    }

    fn texts(&self, page: &PageParts, scratch: &mut Scratch, out: &mut Vec<u32>) -> Result<(), PageError> {
        page.expect(Encoding::RLE_DICTIONARY)?;
        let numbers = &mut scratch.numbers;
        numbers.clear();
        if page.values > 0 {
            let (&width, packed) = page
                .data
                .split_first()
                .ok_or(PageError::Content("an empty page"))?;
            hybrid::decode(packed, usize::from(width), page.values, numbers)?;
        }
        if numbers
            .iter()
            .max()
            .is_some_and(|&highest| highest as usize >= self.texts.len())
        {
            return Err(PageError::Content("a number beyond the dictionary"));
        }
        page.spread(
            numbers,
            NO_TEXT,
            |number| self.texts[number as usize],
            &mut scratch.present,
            out,
        )
    }
}

fn integers(
    page: &PageParts,
    absent: i64,
    scratch: &mut Scratch,
    out: &mut Vec<i64>,
) -> Result<(), PageError> {
    if page.values == page.rows {
        return page.integers(out);
    }
    scratch.integers.clear();
    page.integers(&mut scratch.integers)?;
    page.spread(
        &scratch.integers,
        absent,
        |value| value,
        &mut scratch.present,
        out,
    )
}

fn hundredths(page: &PageParts, scratch: &mut Scratch, out: &mut Vec<f32>) -> Result<(), PageError> {
    scratch.hundredths.clear();
    page.integers(&mut scratch.hundredths)?;
    page.spread(
        &scratch.hundredths,
        f32::NAN,
        from_hundredths,
        &mut scratch.present,
        out,
    )
}

/// Puts the floats that their hundredths do not give back in their places; the hundredths' page has been read.
fn exact_floats(page: &PageParts, scratch: &mut Scratch, out: &mut [f32]) -> Result<(), PageError> {
    page.expect(Encoding::PLAIN)?;
    if page.values == 0 {
        return Ok(());
    }
    let exact = fixed::<4>(&page.data, page.values)?.map(f32::from_le_bytes);
    let first = out
        .len()
        .checked_sub(page.rows)
        .ok_or(PageError::Content("too many exact floats"))?;
    if page.values == page.rows {
        out[first..]
            .iter_mut()
            .zip(exact)
            .for_each(|(value, exact)| *value = exact);
        return Ok(());
    }
    page.present(&mut scratch.present)?;
    let there = out[first..]
        .iter_mut()
        .zip(&scratch.present)
        .filter(|(_, there)| **there == 1);
    there.zip(exact).for_each(|((value, _), exact)| *value = exact);
    Ok(())
}

fn doubles(page: &PageParts, scratch: &mut Scratch, out: &mut Vec<f64>) -> Result<(), PageError> {
    page.expect(Encoding::PLAIN)?;
    let values: Vec<f64> = fixed::<8>(&page.data, page.values)?
        .map(f64::from_le_bytes)
        .collect();
    page.spread(&values, f64::NAN, |value| value, &mut scratch.present, out)
}

fn fixed<const N: usize>(
    bytes: &[u8],
    count: usize,
) -> Result<impl Iterator<Item = [u8; N]> + '_, PageError> {
    if bytes.len() != count * N {
        return Err(PageError::Content("another number of values"));
    }
    Ok(bytes.as_chunks::<N>().0.iter().copied())
}

/// A stretch of a file, addressed by places in the file.
struct Window {
    bytes: Bytes,
    start: u64,
}

impl Window {
    fn at(&self, start: u64) -> Result<usize, ParquetError> {
        let at = start
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        at.filter(|&at| at <= self.bytes.len())
            .ok_or_else(|| ParquetError::EOF(format!("no byte {start}")))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.bytes.slice(self.at(start)?..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let at = self.at(start)?;
        if length > self.bytes.len() - at {
            return Err(ParquetError::EOF(format!("no {length} bytes at {start}")));
        }
        Ok(self.bytes.slice(at..at + length))
    }
}

/// Keeps `io` in one place: what a file could not give.
pub(super) fn unreadable(name: &str, error: io::Error) -> StorageError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::UnexpectedEof => ErrorKind::Damaged,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("archive file {name}"), error)
}

#[cfg(test)]
mod tests;
