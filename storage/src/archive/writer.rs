//! Writes a data file: sorted rows in, Parquet out.
//!
//! Rows come in the order (key, ts, sensor) with their names as numbers, and leave as pages: per page and column the
//! values are gathered, encoded ([`encoding`](super::encoding)), compressed, and kept until the row group is full,
//! since a column's pages must follow each other in the file. All columns break their pages at the same rows, so that
//! a reader can take the file page by page.
//!
//! Statistics exist for `ts` alone, and only per row group: names in statistics would outlive an erasure.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dwell_model::event::{Delivery, EventBatch, Kind, NO_I64, NO_TEXT, Strings};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::encoding::{hybrid, integers};
use super::parquet_schema::{ColumnSpec, FileSchema, Holds, Stored};

/// Rows of a page, and of a reader's chunk; few under test, so that small files have several.
pub(super) const PAGE_ROWS: usize = if cfg!(test) { 37 } else { 32_768 };
/// Rows of a row group: what is encoded in memory before it goes out.
const ROW_GROUP_ROWS: usize = if cfg!(test) { 150 } else { 1_000_000 };
/// Bytes of a row group's texts: bounds the memory of days whose rows have long texts of their own.
const ROW_GROUP_TEXT_BYTES: usize = 64 << 20;
/// Zstandard level: 3 costs 5 % more time for 0.3 % less room.
const ZSTD_LEVEL: i32 = 1;

/// Sorted rows with their deliveries, as [`DayFileWriter`] takes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct SortedRows<'a> {
    /// In the order (key, ts, sensor).
    pub(super) events: &'a EventBatch,
    /// For each row the number of its delivery.
    pub(super) delivery: &'a [u32],
    pub(super) deliveries: &'a [Delivery],
}

/// A data file being written.
pub(super) struct DayFileWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<ColumnWriter>,
    packer: Packer,
    rows_in_group: usize,
}

impl<W: Write + Send> DayFileWriter<W> {
    /// Starts a file.
    pub(super) fn new(kind: Kind, sink: W) -> Result<Self, ParquetError> {
        let schema = FileSchema::of(kind);
        let sorting = (0..3).map(|column_idx| SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        });
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_created_by(
                concat!("dwell version ", env!("CARGO_PKG_VERSION"), " (build archive)").to_owned(),
            )
            .set_sorting_columns(Some(sorting.collect()))
            .build();
        let file = SerializedFileWriter::new(sink, schema.parquet.root_schema_ptr(), Arc::new(properties))?;
        let columns = schema.columns.iter().zip(schema.parquet.columns());
        Ok(Self {
            file,
            columns: columns
                .map(|(spec, descr)| ColumnWriter::new(spec, Arc::clone(descr)))
                .collect(),
            packer: Packer::new()?,
            rows_in_group: 0,
        })
    }

    /// Appends rows that come after all rows before, in order.
    pub(super) fn write(&mut self, rows: SortedRows<'_>) -> Result<(), ParquetError> {
        self.columns.iter_mut().for_each(ColumnWriter::forget_numbers);
        let mut start = 0;
        while start < rows.events.len() {
            let end = (start + PAGE_ROWS).min(rows.events.len());
            for column in &mut self.columns {
                column.page(rows, start..end, &mut self.packer)?;
            }
            self.rows_in_group += end - start;
            start = end;
            let text_bytes: usize = self
                .columns
                .iter()
                .map(|column| column.texts.memory_bytes())
                .sum();
            if self.rows_in_group >= ROW_GROUP_ROWS || text_bytes >= ROW_GROUP_TEXT_BYTES {
                self.close_row_group()?;
            }
        }
        Ok(())
    }

    /// Ends the file, with `metadata` in its footer, and gives back the sink.
    pub(super) fn finish(
        mut self,
        metadata: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<W, ParquetError> {
        self.close_row_group()?;
        for (key, value) in metadata {
            self.file
                .append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.file.into_inner()
    }

    fn close_row_group(&mut self) -> Result<(), ParquetError> {
        if self.rows_in_group == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for column in &mut self.columns {
            let (bytes, close) = column.close_chunk(&mut self.packer)?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        self.rows_in_group = 0;
        Ok(())
    }
}

impl<W: Write + Send> std::fmt::Debug for DayFileWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DayFileWriter")
            .field("rows_in_group", &self.rows_in_group)
            .finish_non_exhaustive()
    }
}

/// The hundredths of a float, rounded, and whether they give the float back: then `hundredths / 100` has the same
/// bits in any engine, in single or double precision. Up to 2^24 both numbers are exact floats, and the quotient of
/// two exact floats is rounded correctly.
#[inline]
pub(super) fn to_hundredths(value: f32) -> (i32, bool) {
    // Adding 1.5 × 2^52 leaves no bits below the point: rounds without a call, in the low bits of the sum.
    const ROUNDING: f64 = 6_755_399_441_055_744.0;
    const LIMIT: f64 = 999_999_999.0;
    let scaled = (f64::from(value) * 100.0).clamp(-LIMIT, LIMIT);
    let hundredths = (scaled + ROUNDING).to_bits() as i32;
    let exact =
        from_hundredths(hundredths).to_bits() == value.to_bits() && hundredths.unsigned_abs() <= 1 << 24;
    (hundredths, exact)
}

/// The float of hundredths that [`to_hundredths`] called exact.
#[inline]
pub(super) fn from_hundredths(hundredths: i32) -> f32 {
    hundredths as f32 / 100.0
}

/// What is needed to turn values into a page, with buffers that are used again.
struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    encoded: Vec<u8>,
    levels: Vec<u8>,
    present: Vec<u32>,
    numbers: Vec<u32>,
    hundredths: Vec<i32>,
    integers: Vec<i64>,
}

impl Packer {
    fn new() -> Result<Self, ParquetError> {
        let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        // Four bytes a page, and any reader notices a damaged one.
        zstd.include_checksum(true)?;
        Ok(Self {
            zstd,
            compressed: Vec::new(),
            encoded: Vec::new(),
            levels: Vec::new(),
            present: Vec::new(),
            numbers: Vec::new(),
            hundredths: Vec::new(),
            integers: Vec::new(),
        })
    }

    fn compress(&mut self) -> Result<(), ParquetError> {
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(self.encoded.len()));
        self.zstd
            .compress_to_buffer(&self.encoded, &mut self.compressed)?;
        Ok(())
    }

    /// A data page of the encoded values and levels. Values that hardly shrink stay as they are, which spares readers
    /// the work.
    fn data_page(
        &mut self,
        rows: usize,
        values: usize,
        encoding: Encoding,
    ) -> Result<CompressedPage, ParquetError> {
        self.compress()?;
        let is_compressed = self.compressed.len() + self.encoded.len() / 64 < self.encoded.len();
        let stored = if is_compressed {
            &self.compressed
        } else {
            &self.encoded
        };
        let mut buf = Vec::with_capacity(self.levels.len() + stored.len());
        buf.extend_from_slice(&self.levels);
        buf.extend_from_slice(stored);
        let page = Page::DataPageV2 {
            buf: Bytes::from(buf),
            num_values: rows as u32,
            encoding,
            num_nulls: (rows - values) as u32,
            num_rows: rows as u32,
            def_levels_byte_len: self.levels.len() as u32,
            rep_levels_byte_len: 0,
            is_compressed,
            statistics: None,
        };
        Ok(CompressedPage::new(page, self.levels.len() + self.encoded.len()))
    }
}

/// A column of the row group being written.
struct ColumnWriter {
    spec: &'static ColumnSpec,
    descr: ColumnDescPtr,
    pages: Vec<CompressedPage>,
    rows: usize,
    /// The dictionary of a text column, and for each number that rows carry its number in there.
    texts: Strings,
    translated: Vec<u32>,
    ts_range: Option<(i64, i64)>,
}

/// A number whose text has not been looked up yet.
const UNKNOWN: u32 = u32::MAX;

impl ColumnWriter {
    fn new(spec: &'static ColumnSpec, descr: ColumnDescPtr) -> Self {
        Self {
            spec,
            descr,
            pages: Vec::new(),
            rows: 0,
            texts: Strings::new(),
            translated: Vec::new(),
            ts_range: None,
        }
    }

    /// The next rows come with another dictionary.
    fn forget_numbers(&mut self) {
        self.translated.clear();
    }

    fn page(
        &mut self,
        rows: SortedRows<'_>,
        range: Range<usize>,
        packer: &mut Packer,
    ) -> Result<(), ParquetError> {
        let events = rows.events;
        let count = range.len();
        packer.encoded.clear();
        packer.levels.clear();
        let (values, encoding) = match (self.spec.holds, self.spec.stored) {
            (Holds::Key, _) => self.texts(&events.key[range], &events.strings, packer)?,
            (Holds::Sensor, _) => self.texts(&events.sensor[range], &events.strings, packer)?,
            (Holds::Field(field), Stored::Text) => {
                self.texts(&events.text_ids(field)[range], &events.strings, packer)?
            }
            (Holds::Receipt, _) => self.receipts(&rows.delivery[range], rows.deliveries, packer),
            (Holds::Ts, _) => {
                let values = &events.ts[range];
                if let (Some(&least), Some(&most)) = (values.iter().min(), values.iter().max()) {
                    let (low, high) = self.ts_range.unwrap_or((least, most));
                    self.ts_range = Some((low.min(least), high.max(most)));
                }
                integers::encode(values, &mut packer.encoded);
                (count, Encoding::DELTA_BINARY_PACKED)
            }
            (Holds::ReceivedAt, _) => {
                let received = |&number: &u32| rows.deliveries[number as usize].received_at;
                packer.integers.clear();
                packer.integers.extend(rows.delivery[range].iter().map(received));
                integers::encode(&packer.integers, &mut packer.encoded);
                (count, Encoding::DELTA_BINARY_PACKED)
            }
            (Holds::Revision, _) => self.integers(&events.revision[range], 0, packer),
            (Holds::Field(field), Stored::Integer) => {
                self.integers(&events.i64s(field)[range], NO_I64, packer)
            }
            (Holds::Field(field), Stored::Hundredths) => self.hundredths(&events.f32s(field)[range], packer),
            (Holds::Field(field), _) => self.doubles(&events.f64s(field)[range], packer),
            (Holds::ExactFloat(field), _) => {
                let required = events.kind.fields()[field].required;
                self.exact_floats(&events.f32s(field)[range], required, packer)
            }
        };
        self.pages.push(packer.data_page(count, values, encoding)?);
        self.rows += count;
        Ok(())
    }

    fn texts(
        &mut self,
        ids: &[u32],
        strings: &Strings,
        packer: &mut Packer,
    ) -> Result<(usize, Encoding), ParquetError> {
        self.translated.resize(strings.len(), UNKNOWN);
        packer.numbers.clear();
        let mut absent = false;
        for &id in ids {
            if id == NO_TEXT {
                absent = true;
                continue;
            }
            let number = &mut self.translated[id as usize];
            if *number == UNKNOWN {
                *number = self.texts.intern(strings.get(id));
            }
            packer.numbers.push(*number);
        }
        if absent && self.spec.required {
            return Err(ParquetError::General(format!(
                "an event has no {}",
                self.spec.name
            )));
        }
        if absent {
            packer.present.clear();
            packer
                .present
                .extend(ids.iter().map(|&id| u32::from(id != NO_TEXT)));
        }
        self.levels(ids.len(), absent, packer);
        Ok(self.numbers(packer))
    }

    fn receipts(
        &mut self,
        numbers: &[u32],
        deliveries: &[Delivery],
        packer: &mut Packer,
    ) -> (usize, Encoding) {
        self.translated.resize(deliveries.len(), UNKNOWN);
        packer.numbers.clear();
        for &delivery in numbers {
            let number = &mut self.translated[delivery as usize];
            if *number == UNKNOWN {
                *number = self
                    .texts
                    .intern(&deliveries[delivery as usize].receipt.to_string());
            }
            packer.numbers.push(*number);
        }
        self.numbers(packer)
    }

    /// Encodes dictionary numbers, led by the width of their bits.
    fn numbers(&mut self, packer: &mut Packer) -> (usize, Encoding) {
        let width = hybrid::width_for(self.texts.len());
        packer.encoded.push(width as u8);
        hybrid::encode(&packer.numbers, width, &mut packer.encoded);
        (packer.numbers.len(), Encoding::RLE_DICTIONARY)
    }

    /// Encodes which of a page's values are there, by `packer.present` where some are `absent`.
    fn levels(&self, count: usize, absent: bool, packer: &mut Packer) {
        if self.spec.required {
            return;
        }
        if absent {
            hybrid::encode(&packer.present, 1, &mut packer.levels);
        } else {
            hybrid::encode_run(1, count, 1, &mut packer.levels);
        }
    }

    fn integers(&mut self, values: &[i64], absent: i64, packer: &mut Packer) -> (usize, Encoding) {
        if self.spec.required {
            integers::encode(values, &mut packer.encoded);
            return (values.len(), Encoding::DELTA_BINARY_PACKED);
        }
        packer.present.clear();
        packer
            .present
            .extend(values.iter().map(|&value| u32::from(value != absent)));
        packer.integers.clear();
        packer
            .integers
            .extend(values.iter().filter(|&&value| value != absent));
        self.levels(values.len(), true, packer);
        integers::encode(&packer.integers, &mut packer.encoded);
        (packer.integers.len(), Encoding::DELTA_BINARY_PACKED)
    }

    fn hundredths(&mut self, values: &[f32], packer: &mut Packer) -> (usize, Encoding) {
        packer.hundredths.clear();
        if self.spec.required {
            packer
                .hundredths
                .extend(values.iter().map(|&value| to_hundredths(value).0));
        } else {
            packer.present.clear();
            packer
                .present
                .extend(values.iter().map(|value| u32::from(!value.is_nan())));
            let there = values.iter().filter(|value| !value.is_nan());
            packer
                .hundredths
                .extend(there.map(|&value| to_hundredths(value).0));
            self.levels(values.len(), true, packer);
        }
        integers::encode(&packer.hundredths, &mut packer.encoded);
        (packer.hundredths.len(), Encoding::DELTA_BINARY_PACKED)
    }

    /// A page of the floats that their hundredths do not give back; most have none.
    fn exact_floats(&mut self, values: &[f32], required: bool, packer: &mut Packer) -> (usize, Encoding) {
        packer.present.clear();
        let inexact = |&value: &f32| u32::from(!to_hundredths(value).1 && (required || !value.is_nan()));
        packer.present.extend(values.iter().map(inexact));
        self.levels(values.len(), true, packer);
        let mut there = 0;
        for (value, _) in values
            .iter()
            .zip(&packer.present)
            .filter(|(_, present)| **present == 1)
        {
            packer.encoded.extend_from_slice(&value.to_le_bytes());
            there += 1;
        }
        (there, Encoding::PLAIN)
    }

    fn doubles(&mut self, values: &[f64], packer: &mut Packer) -> (usize, Encoding) {
        packer.present.clear();
        packer
            .present
            .extend(values.iter().map(|value| u32::from(!value.is_nan())));
        self.levels(values.len(), true, packer);
        let mut there = 0;
        for value in values
            .iter()
            .filter(|value| self.spec.required || !value.is_nan())
        {
            packer.encoded.extend_from_slice(&value.to_le_bytes());
            there += 1;
        }
        (there, Encoding::PLAIN)
    }

    /// Puts the pages of the row group together, behind their dictionary, and starts anew.
    fn close_chunk(&mut self, packer: &mut Packer) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut sizes = ChunkSizes::default();
        let mut encodings = vec![Encoding::RLE];
        let mut dictionary_offset = None;
        if self.spec.stored == Stored::Text {
            dictionary_offset = Some(0);
            encodings.push(Encoding::PLAIN);
            sizes.add(&writer.write_page(self.dictionary_page(packer)?)?);
        }
        let data_offset = sizes.compressed;
        for page in self.pages.drain(..) {
            if !encodings.contains(&page.encoding()) {
                encodings.push(page.encoding());
            }
            sizes.add(&writer.write_page(page)?);
        }
        writer.close()?;
        let mut metadata = ColumnChunkMetaData::builder(Arc::clone(&self.descr))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_encodings(encodings)
            .set_total_compressed_size(sizes.compressed)
            .set_total_uncompressed_size(sizes.uncompressed)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(data_offset)
            .set_dictionary_page_offset(dictionary_offset);
        if let Some((least, most)) = self.ts_range.take() {
            metadata =
                metadata.set_statistics(Statistics::int64(Some(least), Some(most), None, Some(0), false));
        }
        let close = ColumnCloseResult {
            bytes_written: sizes.compressed as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        self.rows = 0;
        self.texts = Strings::new();
        self.translated.clear();
        Ok((Bytes::from(sink.into_inner()?), close))
    }

    fn dictionary_page(&self, packer: &mut Packer) -> Result<CompressedPage, ParquetError> {
        packer.encoded.clear();
        for text in self.texts.iter() {
            packer
                .encoded
                .extend_from_slice(&(text.len() as u32).to_le_bytes());
            packer.encoded.extend_from_slice(text.as_bytes());
        }
        packer.compress()?;
        let page = Page::DictionaryPage {
            buf: Bytes::copy_from_slice(&packer.compressed),
            num_values: self.texts.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        Ok(CompressedPage::new(page, packer.encoded.len()))
    }
}

#[derive(Default)]
struct ChunkSizes {
    compressed: i64,
    uncompressed: i64,
}

impl ChunkSizes {
    fn add(&mut self, page: &parquet::column::page::PageWriteSpec) {
        self.compressed += page.compressed_size as i64;
        self.uncompressed += page.uncompressed_size as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_centimetres_are_exact_and_nothing_else_is() {
        for n in (-(1_i32 << 24)..=1 << 24)
            .step_by(997)
            .chain([-1, 0, 1, 33, -(1 << 24), 1 << 24])
        {
            // The nearest float, found by way of the decimal text.
            let text = format!(
                "{}{}.{:02}",
                if n < 0 { "-" } else { "" },
                n.abs() / 100,
                n.abs() % 100
            );
            let value: f32 = text.parse().unwrap();
            // Farther out several hundredths share a float.
            let is_fine = n.abs() < 1 << 22;
            let (hundredths, exact) = to_hundredths(value);
            assert!(exact, "{text}");
            assert_eq!(from_hundredths(hundredths).to_bits(), value.to_bits(), "{text}");
            assert!(!is_fine || hundredths == n, "{text}");
        }
        for value in [
            -0.0,
            0.005,
            1.0 / 3.0,
            0.1 + f32::EPSILON,
            200_000.0,
            f32::MAX,
            f32::NAN,
            f32::INFINITY,
        ] {
            assert!(!to_hundredths(value).1, "{value}");
        }
        assert_eq!(to_hundredths(f32::MAX).0, 999_999_999);
        assert_eq!(to_hundredths(f32::NEG_INFINITY).0, -999_999_999);
    }
}
