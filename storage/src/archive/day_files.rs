//! A day's data files as rows: written, read whole or in stretches, and verified.

use dwell_model::event::{Checksum, Column, Delivery, EventBatch, Fingerprinter, Kind, delivery_hash};
use dwell_model::time::TsMs;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use object_store::path::Path;
use parquet::errors::ParquetError;
use tokio::runtime::Handle;
use xxhash_rust::xxh3::Xxh3;

use super::files::{DataFiles, FileSink};
use super::parquet_schema::FORMAT_VERSION;
use super::reader::{DayFileReader, DeliveryColumns};
use super::unite::Sums;
use super::writer::{DayFileWriter, SortedRows};
use crate::api::{DeliveredRows, Projection};
use crate::error::{ErrorKind, Result, StorageError, is_full};

/// How the system's refusal for want of room ends in words (ENOSPC).
const NO_SPACE: &str = "(os error 28)";

/// Keys of a footer's metadata, and of an added file's tags in the log.
pub(super) mod footer {
    pub(in crate::archive) const FORMAT: &str = "dwell.format";
    pub(in crate::archive) const TENANT: &str = "dwell.tenant";
    pub(in crate::archive) const VENUE: &str = "dwell.venue";
    pub(in crate::archive) const DAY: &str = "dwell.day";
    pub(in crate::archive) const KIND: &str = "dwell.kind";
    pub(in crate::archive) const DATASET: &str = "dwell.dataset";
    pub(in crate::archive) const FENCE: &str = "dwell.fence";
    pub(in crate::archive) const ROWS: &str = "dwell.rows";
    /// Sum of the hashes of identities and payloads.
    pub(in crate::archive) const EVENTS_SUM: &str = "dwell.events_sum";
    /// Sum of the hashes of identities, payloads and deliveries.
    pub(in crate::archive) const DELIVERIES_SUM: &str = "dwell.deliveries_sum";
    /// Of the whole file: only a tag in the log.
    pub(in crate::archive) const FILE_XXH3: &str = "dwell.file_xxh3";
}

/// A data file that is being filled with a dataset's rows.
#[derive(Debug)]
pub(super) struct FileOut {
    writer: DayFileWriter<FileSink>,
    name: Path,
    sums: Sums,
}

/// A data file that is written and durable.
#[derive(Debug, Clone)]
pub(super) struct WrittenFile {
    pub(super) sums: Sums,
    pub(super) bytes: u64,
}

impl FileOut {
    /// Starts a file. Blocking, as all here.
    pub(super) fn create(files: &DataFiles, name: &Path, kind: Kind, runtime: &Handle) -> Result<Self> {
        let sink = files.create(name, runtime)?;
        let writer = DayFileWriter::new(kind, sink).map_err(|error| not_written(name, error))?;
        Ok(Self {
            writer,
            name: name.clone(),
            sums: Sums::default(),
        })
    }

    /// Appends rows that come after all before, sorted; `sums` are theirs.
    pub(super) fn write(&mut self, rows: &DeliveredRows, sums: Sums) -> Result<()> {
        self.sums.merge(sums);
        let sorted = SortedRows {
            events: &rows.events,
            delivery: &rows.delivery,
            deliveries: &rows.deliveries,
        };
        self.writer
            .write(sorted)
            .map_err(|error| not_written(&self.name, error))
    }

    /// Ends the file with `labels` and its sums in the footer, and makes it durable.
    pub(super) fn finish(self, labels: &[(&'static str, String)]) -> Result<WrittenFile> {
        let Self { writer, name, sums } = self;
        let own = [
            (footer::FORMAT, FORMAT_VERSION.to_owned()),
            (footer::ROWS, sums.events.rows.to_string()),
            (footer::EVENTS_SUM, sum_text(sums.events)),
            (footer::DELIVERIES_SUM, sum_text(sums.deliveries)),
        ];
        let sink = writer.finish(own.into_iter().chain(labels.iter().cloned()));
        let bytes = sink.map_err(|error| not_written(&name, error))?.finish()?;
        Ok(WrittenFile { sums, bytes })
    }
}

/// What a data file's footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FooterFacts {
    pub(super) sums: Sums,
    /// First and last event time.
    pub(super) ts_range: Option<(TsMs, TsMs)>,
}

/// Reads a file's footer.
pub(super) fn read_footer(
    files: &DataFiles,
    name: &Path,
    kind: Kind,
    runtime: &Handle,
) -> Result<FooterFacts> {
    facts_of(
        &DayFileReader::open(files.open(name, runtime)?, kind, Projection::Events)?,
        name,
    )
}

fn facts_of(reader: &DayFileReader, name: &Path) -> Result<FooterFacts> {
    let rows = reader.rows();
    let sum = |key| {
        let sum = reader.footer_value(key).and_then(|text| parse_sum(rows, text));
        sum.ok_or_else(|| StorageError::new(ErrorKind::Damaged, format!("archive file {name} has no {key}")))
    };
    let sums = Sums {
        events: sum(footer::EVENTS_SUM)?,
        deliveries: sum(footer::DELIVERIES_SUM)?,
    };
    Ok(FooterFacts {
        sums,
        ts_range: reader.ts_range(),
    })
}

/// Hash of a file's bytes.
pub(super) fn hash_file(files: &DataFiles, name: &Path, runtime: &Handle) -> Result<u64> {
    const READ_BYTES: u64 = 8 << 20;
    let file = files.open(name, runtime)?;
    let mut hash = Xxh3::new();
    let mut at = 0;
    while at < file.len() {
        let end = (at + READ_BYTES).min(file.len());
        hash.update(&file.read(at..end)?);
        at = end;
    }
    Ok(hash.digest())
}

/// A checksum's sum as the footer has it.
pub(super) fn sum_text(sum: Checksum) -> String {
    format!("{:032x}", sum.sum)
}

/// The checksum of so many rows, from the footer's text.
pub(super) fn parse_sum(rows: u64, text: &str) -> Option<Checksum> {
    Some(Checksum {
        rows,
        sum: u128::from_str_radix(text, 16).ok()?,
    })
}

/// A file's rows with their deliveries, stretch by stretch.
#[derive(Debug)]
pub(super) struct FileRows {
    reader: DayFileReader,
    events: EventBatch,
    columns: DeliveryColumns,
}

impl FileRows {
    pub(super) fn open(files: &DataFiles, name: &Path, kind: Kind, runtime: &Handle) -> Result<Self> {
        let reader = DayFileReader::open(files.open(name, runtime)?, kind, Projection::EventsAndDeliveries)?;
        Ok(Self {
            reader,
            events: EventBatch::new(kind),
            columns: DeliveryColumns::default(),
        })
    }

    /// The next rows, about `rows` of them; `None` at the end.
    pub(super) fn next(&mut self, rows: usize) -> Result<Option<DeliveredRows>> {
        while self.events.len() < rows {
            if self.reader.next_page(&mut self.events, &mut self.columns)? == 0 {
                break;
            }
        }
        if self.events.is_empty() {
            return Ok(None);
        }
        // The reader's numbers go on in the same dictionary.
        let next = EventBatch::with_strings(self.events.kind, self.events.strings.clone());
        let events = std::mem::replace(&mut self.events, next);
        let (delivery, deliveries) = number_deliveries(&self.columns);
        self.columns.clear();
        Ok(Some(DeliveredRows {
            events,
            delivery,
            deliveries,
        }))
    }
}

/// Numbers the distinct deliveries of rows.
fn number_deliveries(columns: &DeliveryColumns) -> (Vec<u32>, Vec<Delivery>) {
    let mut numbers: HashMap<(TsMs, u32), u32, FixedState> = HashMap::default();
    let mut deliveries = Vec::new();
    let mut last = None;
    let pairs = columns
        .received_at
        .iter()
        .copied()
        .zip(columns.receipt.iter().copied());
    let number = |pair: (TsMs, u32)| {
        if let Some((known, number)) = last
            && known == pair
        {
            return number;
        }
        let number = *numbers.entry(pair).or_insert_with(|| {
            deliveries.push(Delivery {
                received_at: pair.0,
                receipt: columns.receipts[pair.1 as usize],
            });
            deliveries.len() as u32 - 1
        });
        last = Some((pair, number));
        number
    };
    let delivery = pairs.map(number).collect();
    (delivery, deliveries)
}

/// Reads a file back and compares it, value by value, with the rows that went into it.
pub(super) fn verify_equal(
    files: &DataFiles,
    name: &Path,
    rows: &DeliveredRows,
    runtime: &Handle,
) -> Result<()> {
    let kind = rows.events.kind;
    let mut reader = DayFileReader::open(files.open(name, runtime)?, kind, Projection::EventsAndDeliveries)?;
    let mut page = EventBatch::new(kind);
    let mut columns = DeliveryColumns::default();
    // For each number of the reader's dictionary that of the rows' own.
    let mut names: Vec<u32> = Vec::new();
    let mut start = 0;
    loop {
        page.clear();
        columns.clear();
        let count = reader.next_page(&mut page, &mut columns)?;
        if count == 0 {
            break;
        }
        let known = names.len();
        names.extend(
            page.strings
                .iter()
                .skip(known)
                .map(|text| rows.events.strings.find(text).unwrap_or(u32::MAX - 1)),
        );
        let end = start + count;
        if end > rows.len() || !same_events(&page, &names, &rows.events, start..end) {
            return Err(reads_back_wrong(name));
        }
        let deliveries = columns
            .received_at
            .iter()
            .zip(&columns.receipt)
            .zip(&rows.delivery[start..end]);
        let mut last = None;
        let same = |((&received_at, &receipt), &number): ((&TsMs, &u32), &u32)| {
            let these = (received_at, receipt, number);
            last == Some(these) || {
                let expected = rows.deliveries[number as usize];
                last = Some(these);
                expected
                    == Delivery {
                        received_at,
                        receipt: columns.receipts[receipt as usize],
                    }
            }
        };
        if !deliveries.into_iter().all(same) {
            return Err(reads_back_wrong(name));
        }
        start = end;
    }
    if start == rows.len() {
        Ok(())
    } else {
        Err(reads_back_wrong(name))
    }
}

fn same_events(page: &EventBatch, names: &[u32], rows: &EventBatch, range: std::ops::Range<usize>) -> bool {
    let same_names = |page: &[u32], rows: &[u32]| {
        page.iter()
            .zip(rows)
            .all(|(&page, &row)| names.get(page as usize).map_or(page == row, |&name| name == row))
    };
    page.ts == rows.ts[range.clone()]
        && page.revision == rows.revision[range.clone()]
        && same_names(&page.key, &rows.key[range.clone()])
        && same_names(&page.sensor, &rows.sensor[range.clone()])
        && page
            .payload
            .iter()
            .zip(&rows.payload)
            .all(|(page, rows)| match (page, rows) {
                (Column::F32(page), Column::F32(rows)) => page
                    .iter()
                    .zip(&rows[range.clone()])
                    .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()),
                (Column::F64(page), Column::F64(rows)) => page
                    .iter()
                    .zip(&rows[range.clone()])
                    .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()),
                (Column::I64(page), Column::I64(rows)) => page[..] == rows[range.clone()],
                (Column::Text(page), Column::Text(rows)) => same_names(page, &rows[range.clone()]),
                _ => false,
            })
}

/// Reads a file back and compares its checksums with those of the rows that it should hold.
pub(super) fn verify_sums(
    files: &DataFiles,
    name: &Path,
    kind: Kind,
    sums: Sums,
    runtime: &Handle,
) -> Result<()> {
    if read_sums(files, name, kind, runtime)? == sums {
        Ok(())
    } else {
        Err(reads_back_wrong(name))
    }
}

/// Checksums of what a file holds, from its rows; `Damaged` when its footer says something else.
pub(super) fn read_sums(files: &DataFiles, name: &Path, kind: Kind, runtime: &Handle) -> Result<Sums> {
    let mut reader = DayFileReader::open(files.open(name, runtime)?, kind, Projection::EventsAndDeliveries)?;
    let mut page = EventBatch::new(kind);
    let mut columns = DeliveryColumns::default();
    let mut fingerprinter = Fingerprinter::new();
    let mut sums = Sums::default();
    let mut ts_range: Option<(TsMs, TsMs)> = None;
    while reader.next_page(&mut page, &mut columns)? > 0 {
        fingerprinter.event_hashes(&page, |row, hash| {
            let receipt = columns.receipts[columns.receipt[row] as usize];
            let delivery = Delivery {
                received_at: columns.received_at[row],
                receipt,
            };
            sums.events.add(hash);
            sums.deliveries.add(delivery_hash(hash, &delivery));
        });
        if let (Some(&least), Some(&most)) = (page.ts.iter().min(), page.ts.iter().max()) {
            let (low, high) = ts_range.unwrap_or((least, most));
            ts_range = Some((low.min(least), high.max(most)));
        }
        page.clear();
        columns.clear();
    }
    if facts_of(&reader, name)? == (FooterFacts { sums, ts_range }) {
        Ok(sums)
    } else {
        Err(StorageError::new(
            ErrorKind::Damaged,
            format!("archive file {name}: rows and footer do not match"),
        ))
    }
}

fn reads_back_wrong(name: &Path) -> StorageError {
    StorageError::new(
        ErrorKind::Damaged,
        format!("archive file {name} does not hold what was written"),
    )
}

fn not_written(name: &Path, error: ParquetError) -> StorageError {
    let kind = match &error {
        full if is_full(full) => ErrorKind::Full,
        // Of a failure to write the end of a file the library keeps the words alone.
        ParquetError::General(words) if words.starts_with("fail to get inner writer") => {
            match words.contains(NO_SPACE) {
                true => ErrorKind::Full,
                false => ErrorKind::Unavailable,
            }
        }
        ParquetError::General(_) => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("write archive file {name}"), error)
}
