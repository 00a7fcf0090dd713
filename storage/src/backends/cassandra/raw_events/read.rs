//! Reading rows back as columns.
//!
//! The pages of some slots are fetched at the same time and decoded in order, straight into the columns of the answer:
//! a row costs no allocation.

use std::ops::Range;

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_I64, NO_TEXT, RawRows, StringId, Strings};
use dwell_model::ids::{Receipt, VenueKey};
use dwell_model::time::TsMs;
use futures::stream::{self, StreamExt, TryStreamExt};
use scylla::deserialize::row::ColumnIterator;
use scylla::response::query_result::QueryRowsResult;

use super::super::cluster::Cluster;
use super::super::errors;
use super::super::values::damaged_value;
use super::index::SlotIndex;
use super::slots::{Span, date, stored_slot};
use super::statements::{self, COLUMNS_BEFORE_PAYLOAD};
use crate::error::{ErrorKind, Result, StorageError};

/// Up to so many slots are read without asking first which of them have rows.
const SLOTS_DIRECT_MAX: usize = 6;
/// Slots whose pages are fetched at the same time. They wait in memory until those before them are decoded.
const SLOTS_AT_ONCE: usize = 6;
/// Slots counted at the same time; their answers are small.
const COUNTS_AT_ONCE: usize = 16;

/// All rows of a kind in a range.
pub(super) async fn scan(
    cluster: &Cluster,
    index: &SlotIndex,
    venue: &VenueKey,
    kind: Kind,
    range: Range<TsMs>,
) -> Result<RawRows> {
    let mut decoder = Decoder::new(kind);
    let Some(span) = Span::of(&range) else {
        return decoder.finish();
    };
    let slots: Vec<i64> = if span.slots().count() <= SLOTS_DIRECT_MAX {
        span.slots().collect()
    } else {
        std::mem::take(&mut index.slots(venue, span).await?[kind as usize])
    };
    let mut answers = stream::iter(slots)
        .map(|slot| pages(cluster, venue, kind, slot, span))
        .buffered(SLOTS_AT_ONCE);
    while let Some(pages) = answers.try_next().await? {
        for page in pages {
            decoder.page(&page)?;
        }
    }
    decoder.finish()
}

/// Number of rows of each kind in a range.
pub(super) async fn count(
    cluster: &Cluster,
    index: &SlotIndex,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(Kind, u64)>> {
    let Some(span) = Span::of(&range) else {
        return Ok(Vec::new());
    };
    let slots = index.slots(venue, span).await?;
    let of_kinds = Kind::ALL
        .into_iter()
        .zip(slots)
        .flat_map(|(kind, slots)| slots.into_iter().map(move |slot| (kind, slot)));
    let mut counts = [0_u64; Kind::ALL.len()];
    let mut answers = stream::iter(of_kinds)
        .map(|(kind, slot)| async move {
            Ok::<_, StorageError>((kind, count_slot(cluster, venue, kind, slot, span).await?))
        })
        .buffer_unordered(COUNTS_AT_ONCE);
    while let Some((kind, rows)) = answers.try_next().await? {
        counts[kind as usize] += rows;
    }
    Ok(Kind::ALL
        .into_iter()
        .zip(counts)
        .filter(|&(_, rows)| rows > 0)
        .collect())
}

async fn pages(
    cluster: &Cluster,
    venue: &VenueKey,
    kind: Kind,
    slot: i64,
    span: Span,
) -> Result<Vec<QueryRowsResult>> {
    let mut pages = Vec::new();
    let (days, number) = stored_slot(slot);
    let ts = span.ts();
    let values = (
        venue.tenant.as_str(),
        venue.venue.as_str(),
        date(days),
        number,
        ts.start,
        ts.end,
    );
    cluster
        .pages(statements::scan(kind), values, |page| {
            pages.push(page);
            Ok(())
        })
        .await?;
    Ok(pages)
}

async fn count_slot(cluster: &Cluster, venue: &VenueKey, kind: Kind, slot: i64, span: Span) -> Result<u64> {
    let mut rows = 0;
    let (days, number) = stored_slot(slot);
    let ts = span.ts();
    let values = (
        venue.tenant.as_str(),
        venue.venue.as_str(),
        date(days),
        number,
        ts.start,
        ts.end,
    );
    cluster
        .pages(statements::count(kind), values, |page| {
            rows += page.rows_num() as u64;
            Ok(())
        })
        .await?;
    Ok(rows)
}

/// Stored rows to the rows of an answer: neighbours of one identity and payload become one row with their deliveries.
struct Decoder {
    out: RawRows,
    /// Payload hash of the last row.
    last_hash: i64,
    sensor: LastName,
    key: LastName,
}

impl Decoder {
    fn new(kind: Kind) -> Self {
        Self {
            out: RawRows::new(EventBatch::new(kind)),
            last_hash: 0,
            sensor: LastName::default(),
            key: LastName::default(),
        }
    }

    fn page(&mut self, page: &QueryRowsResult) -> Result<()> {
        if page.column_specs().len() != COLUMNS_BEFORE_PAYLOAD + self.out.events.payload.len() {
            return Err(damaged_value("a scan has other columns than its kind"));
        }
        let damaged = |error| errors::damaged("scan raw events", error);
        let rows = page
            .rows::<ColumnIterator<'_, '_>>()
            .map_err(|error| errors::damaged("scan raw events", error))?;
        for row in rows {
            self.row(Cells(row.map_err(damaged)?))?;
        }
        Ok(())
    }

    fn row(&mut self, mut cells: Cells<'_, '_>) -> Result<()> {
        let ts = i64::from_be_bytes(cells.fixed()?);
        let events = &mut self.out.events;
        let sensor = self.sensor.intern(&mut events.strings, cells.text()?)?;
        let key = self.key.intern(&mut events.strings, cells.text()?)?;
        let hash = i64::from_be_bytes(cells.fixed()?);
        let delivery = Delivery {
            received_at: i64::from_be_bytes(cells.fixed()?),
            receipt: Receipt::from_u128(u128::from_be_bytes(cells.fixed()?)),
        };
        self.out.deliveries.push(delivery);
        let end = u32::try_from(self.out.deliveries.len()).map_err(|_| too_many())?;
        let repeats = events.ts.last() == Some(&ts)
            && events.key.last() == Some(&key)
            && events.sensor.last() == Some(&sensor)
            && self.last_hash == hash;
        if repeats && let Some(last) = self.out.ends.last_mut() {
            *last = end;
            return Ok(());
        }
        self.last_hash = hash;
        self.out.ends.push(end);
        events.ts.push(ts);
        events.sensor.push(sensor);
        events.key.push(key);
        events
            .revision
            .push(cells.optional()?.map_or(0, i64::from_be_bytes));
        for column in &mut events.payload {
            match column {
                Column::F32(values) => values.push(cells.optional()?.map_or(f32::NAN, f32::from_be_bytes)),
                Column::F64(values) => values.push(cells.optional()?.map_or(f64::NAN, f64::from_be_bytes)),
                Column::I64(values) => values.push(cells.optional()?.map_or(NO_I64, i64::from_be_bytes)),
                Column::Text(values) => values.push(match cells.next()? {
                    Some(text) => events.strings.intern(utf8(text)?),
                    None => NO_TEXT,
                }),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<RawRows> {
        self.out.check().map_err(damaged_value)?;
        Ok(self.out)
    }
}

/// The name met last, since neighbours mostly have the same one.
#[derive(Default)]
struct LastName {
    id: Option<StringId>,
}

impl LastName {
    fn intern(&mut self, strings: &mut Strings, name: &[u8]) -> Result<StringId> {
        if let Some(id) = self.id
            && strings.get(id).as_bytes() == name
        {
            return Ok(id);
        }
        let id = strings.intern(utf8(name)?);
        self.id = Some(id);
        Ok(id)
    }
}

/// The cells of a stored row, from first to last.
struct Cells<'f, 'm>(ColumnIterator<'f, 'm>);

impl<'f> Cells<'f, '_> {
    fn next(&mut self) -> Result<Option<&'f [u8]>> {
        match self.0.next() {
            Some(Ok(column)) => Ok(column.slice.map(|slice| slice.as_slice())),
            Some(Err(error)) => Err(errors::damaged("scan raw events", error)),
            None => Err(damaged_value("it has too few columns")),
        }
    }

    fn optional<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        let Some(bytes) = self.next()? else {
            return Ok(None);
        };
        let length = bytes.len();
        let sized = bytes
            .try_into()
            .map_err(|_| damaged_value(format_args!("a value of {N} bytes has {length}")))?;
        Ok(Some(sized))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.optional()?
            .ok_or_else(|| damaged_value("a part of its key is missing"))
    }

    fn text(&mut self) -> Result<&'f [u8]> {
        self.next()?
            .ok_or_else(|| damaged_value("a part of its key is missing"))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(damaged_value)
}

fn too_many() -> StorageError {
    StorageError::new(ErrorKind::Invalid, "too many raw events: ask for a shorter range")
}
