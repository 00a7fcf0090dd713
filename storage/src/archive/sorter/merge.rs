//! Gives a large venue-day part by part, in the order (key, ts).
//!
//! Each source (a run on disk, or the rows still in memory) is sorted and read in blocks, whose beginnings are known. A
//! part's end is the beginning of some block, chosen so that the blocks that begin before it hold about as many rows as a
//! part should: the rows before the end are given, a block that reaches across it is kept for the next part. So memory
//! holds one part and one block per source. Within a part rows are not merged: the archive's writer sorts them anyway.

use std::cmp::Ordering;

use dwell_model::event::{Column, EventBatch, Kind, NO_TEXT, Strings};
use dwell_model::time::TsMs;

use super::buffer::DayBuffer;
use super::run::{BLOCK_ROWS, Block, BlockPlace, Run, RunHead, sorted_strings};
use crate::api::{DeliveredRows, IncomingDay};
use crate::error::Result;

/// A sorted source of a day's rows.
pub(super) struct Source {
    rows: Rows,
    /// The next block to read.
    next: usize,
    /// A block that reaches beyond the last part, and its first row that was not given.
    held: Option<(Block, usize)>,
}

enum Rows {
    Unread(Run),
    Disk { run: Run, head: RunHead },
    Memory(Box<MemoryRows>),
}

struct MemoryRows {
    buffer: DayBuffer,
    order: Vec<u32>,
    ranks: Vec<u32>,
    /// In the order of their bytes.
    strings: Strings,
}

/// A place in the order: everything before it is given.
type Bound = (String, TsMs);

impl Source {
    pub(super) fn disk(run: Run) -> Self {
        Self {
            rows: Rows::Unread(run),
            next: 0,
            held: None,
        }
    }

    pub(super) fn memory(buffer: DayBuffer) -> Self {
        let ranks = buffer.strings.ranks();
        let order = buffer.order(&ranks);
        let strings = sorted_strings(&buffer.strings, &ranks);
        Self {
            rows: Rows::Memory(Box::new(MemoryRows {
                buffer,
                order,
                ranks,
                strings,
            })),
            next: 0,
            held: None,
        }
    }

    fn rows(&self) -> usize {
        match &self.rows {
            Rows::Unread(run) | Rows::Disk { run, .. } => run.rows,
            Rows::Memory(memory) => memory.order.len(),
        }
    }

    /// Reads what is needed to know where blocks begin.
    fn open(self) -> Result<Self> {
        let rows = match self.rows {
            Rows::Unread(run) => Rows::Disk {
                head: run.head()?,
                run,
            },
            rows => rows,
        };
        Ok(Self { rows, ..self })
    }

    fn strings(&self) -> Option<&Strings> {
        match &self.rows {
            Rows::Unread(_) => None,
            Rows::Disk { head, .. } => Some(&head.strings),
            Rows::Memory(memory) => Some(&memory.strings),
        }
    }

    fn blocks(&self) -> usize {
        match &self.rows {
            Rows::Unread(run) | Rows::Disk { run, .. } => run.blocks.len(),
            Rows::Memory(memory) => memory.order.len().div_ceil(BLOCK_ROWS),
        }
    }

    /// First key and time of a block, and its rows.
    fn block_start(&self, number: usize) -> Option<((&str, TsMs), usize)> {
        match &self.rows {
            Rows::Unread(_) => None,
            Rows::Disk { run, head } => {
                let BlockPlace {
                    first_key,
                    first_ts,
                    rows,
                    ..
                } = *run.blocks.get(number)?;
                Some(((head.strings.get(first_key), first_ts), rows))
            }
            Rows::Memory(memory) => {
                let rows = memory.order.chunks(BLOCK_ROWS).nth(number)?;
                let (buffer, first) = (&memory.buffer, rows[0] as usize);
                let ts = buffer.ts_base + TsMs::from(buffer.ts.get(first));
                Some(((buffer.strings.get(buffer.key.get(first)), ts), rows.len()))
            }
        }
    }

    /// Where the next row stands.
    fn next_start(&self) -> Option<(&str, TsMs)> {
        match (&self.held, self.strings()) {
            (Some((block, row)), Some(strings)) => Some((strings.get(block.key.get(*row)), block.ts[*row])),
            _ => self.block_start(self.next).map(|(start, _)| start),
        }
    }

    fn read_block(&self, number: usize) -> Result<Option<Block>> {
        match &self.rows {
            Rows::Unread(_) => Ok(None),
            Rows::Disk { run, head } => match run.blocks.get(number) {
                Some(&place) => run.block(head, place).map(Some),
                None => Ok(None),
            },
            Rows::Memory(memory) => Ok(memory
                .order
                .chunks(BLOCK_ROWS)
                .nth(number)
                .map(|rows| memory.block(rows))),
        }
    }

    /// Appends all rows before the bound, or all that are left, to a part.
    fn give(&mut self, bound: Option<&Bound>, part: &mut DeliveredRows) -> Result<()> {
        let Some(strings) = self.strings() else {
            return Ok(());
        };
        let texts: Vec<u32> = vec![NO_TEXT; strings.len()];
        let base = part.deliveries.len() as u32;
        let deliveries = match &self.rows {
            Rows::Disk { head, .. } => &head.deliveries,
            Rows::Memory(memory) => &memory.buffer.deliveries,
            Rows::Unread(_) => return Ok(()),
        };
        part.deliveries.extend_from_slice(deliveries);
        let mut translation = Translation { texts, base };
        while let Some((block, from)) = self.next_held(bound)? {
            let to = bound.map_or(block.ts.len(), |bound| self.end_before(&block, from, bound));
            if let Some(strings) = self.strings() {
                translation.append(&block, from, to, strings, part);
            }
            if to < block.ts.len() {
                self.held = Some((block, to));
                return Ok(());
            }
        }
        Ok(())
    }

    /// The block that was kept, or the next one if it begins before the bound.
    fn next_held(&mut self, bound: Option<&Bound>) -> Result<Option<(Block, usize)>> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        let begins_before = match (self.block_start(self.next), bound) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((start, _)), Some((key, ts))) => compare(start, (key, *ts)) == Ordering::Less,
        };
        if !begins_before {
            return Ok(None);
        }
        let block = self.read_block(self.next)?;
        self.next += 1;
        Ok(block.map(|block| (block, 0)))
    }

    /// The first row of a block, from `from` on, that is not before the bound.
    fn end_before(&self, block: &Block, from: usize, (key, ts): &Bound) -> usize {
        let Some(strings) = self.strings() else {
            return from;
        };
        let (mut low, mut high) = (from, block.ts.len());
        while low < high {
            let middle = (low + high) / 2;
            let row = (strings.get(block.key.get(middle)), block.ts[middle]);
            match compare(row, (key, *ts)) {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

fn compare(a: (&str, TsMs), b: (&str, TsMs)) -> Ordering {
    a.0.as_bytes().cmp(b.0.as_bytes()).then(a.1.cmp(&b.1))
}

impl MemoryRows {
    /// Rows as a run's block would hold them: names as places in the sorted dictionary.
    fn block(&self, rows: &[u32]) -> Block {
        let buffer = &self.buffer;
        let rank = |id: u32| self.ranks[id as usize];
        let base = buffer.ts_base;
        let payload = buffer
            .payload
            .iter()
            .zip(buffer.kind.fields())
            .map(|(column, field)| {
                let gathered = column.gather(rows);
                match (gathered, field.ty) {
                    (super::buffer::PackedColumn::Narrow(ids), dwell_model::event::FieldType::Text) => {
                        let ids = ids.map(|id| if id == NO_TEXT { NO_TEXT } else { rank(id) });
                        super::buffer::PackedColumn::Narrow(ids)
                    }
                    (gathered, _) => gathered,
                }
            });
        Block {
            ts: buffer
                .ts
                .gather(rows)
                .map(|offset| base + TsMs::from(offset))
                .unpack(),
            key: buffer.key.gather(rows).map(rank),
            sensor: buffer.sensor.gather(rows).map(rank),
            revision: buffer.revision.gather(rows),
            payload: payload.collect(),
            delivery: buffer.delivery.gather(rows),
        }
    }
}

/// From a source's numbers to a part's.
struct Translation {
    texts: Vec<u32>,
    base: u32,
}

impl Translation {
    fn append(&mut self, block: &Block, from: usize, to: usize, strings: &Strings, part: &mut DeliveredRows) {
        let EventBatch {
            strings: names,
            ts,
            sensor,
            key,
            revision,
            payload,
            ..
        } = &mut part.events;
        let mut text = |id: u32| {
            if id == NO_TEXT {
                return NO_TEXT;
            }
            let known = &mut self.texts[id as usize];
            if *known == NO_TEXT {
                *known = names.intern(strings.get(id));
            }
            *known
        };
        ts.extend_from_slice(&block.ts[from..to]);
        key.extend((from..to).map(|row| text(block.key.get(row))));
        sensor.extend((from..to).map(|row| text(block.sensor.get(row))));
        revision.extend((from..to).map(|row| block.revision.get(row) as i64));
        for (out, column) in payload.iter_mut().zip(&block.payload) {
            use super::buffer::PackedColumn::{Narrow, Wide};
            match (out, column) {
                (Column::F32(out), Narrow(bits)) => {
                    out.extend((from..to).map(|row| f32::from_bits(bits.get(row))))
                }
                (Column::Text(out), Narrow(ids)) => out.extend((from..to).map(|row| text(ids.get(row)))),
                (Column::F64(out), Wide(bits)) => {
                    out.extend((from..to).map(|row| f64::from_bits(bits.get(row))))
                }
                (Column::I64(out), Wide(bits)) => out.extend((from..to).map(|row| bits.get(row) as i64)),
                (out, _) => (from..to).for_each(|_| out.push_absent()),
            }
        }
        part.delivery
            .extend((from..to).map(|row| self.base + block.delivery.get(row)));
    }
}

/// A day given part by part.
pub(super) struct MergedDay {
    kind: Kind,
    sources: Vec<Source>,
    is_open: bool,
    part_rows: usize,
    remaining: u64,
}

impl MergedDay {
    pub(super) fn new(kind: Kind, sources: Vec<Source>, part_rows: usize) -> Self {
        let remaining = sources.iter().map(|source| source.rows() as u64).sum();
        Self {
            kind,
            sources,
            is_open: false,
            part_rows,
            remaining,
        }
    }

    /// Where the next part ends; `None` when it takes all that is left.
    fn bound(&self) -> Option<Bound> {
        let first = self
            .sources
            .iter()
            .filter_map(Source::next_start)
            .min_by(|a, b| compare(*a, *b))?;
        let unread = |source: &'_ Source| source.next..source.blocks();
        let mut starts: Vec<((&str, TsMs), usize)> = self
            .sources
            .iter()
            .flat_map(|source| unread(source).filter_map(move |number| source.block_start(number)))
            .collect();
        starts.sort_by(|a, b| compare(a.0, b.0));
        let mut rows = self.sources.iter().filter_map(|source| source.held.as_ref());
        let mut rows: usize = rows.by_ref().map(|(block, from)| block.ts.len() - from).sum();
        for (start, block_rows) in starts {
            // A part must take something, so it cannot end where it begins.
            if rows >= self.part_rows && compare(start, first) == Ordering::Greater {
                return Some((start.0.to_owned(), start.1));
            }
            rows += block_rows;
        }
        None
    }
}

impl IncomingDay for MergedDay {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn next_part(&mut self) -> Result<Option<DeliveredRows>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        if !self.is_open {
            self.sources = std::mem::take(&mut self.sources)
                .into_iter()
                .map(Source::open)
                .collect::<Result<_>>()?;
            self.is_open = true;
        }
        let bound = self.bound();
        let mut part = DeliveredRows::new(self.kind);
        for source in &mut self.sources {
            source.give(bound.as_ref(), &mut part)?;
        }
        self.remaining = self.remaining.saturating_sub(part.len() as u64);
        Ok(Some(part))
    }
}
