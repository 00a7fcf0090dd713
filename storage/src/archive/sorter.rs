//! Sorts rows of many venue-days in bounded memory, on their way into the archive.
//!
//! Rows come in pieces, each of one venue-day and kind, in any order. A [`buffer`] per venue-day keeps them packed (20
//! bytes a position). When all buffers together pass the budget, the largest are sorted and written to a [`run`] each,
//! until half the budget is free. [`BulkSorter::finish`] gives the days one after the other, in the order (tenant, venue,
//! day, kind); a day that was never spilled and is not large comes as one part, any other is [merged](merge) part by part.
//!
//! Spilled runs live in a folder of their own below the spill folder and go with the sorter; what a killed process
//! left behind is removed by [`BulkSorter::clean`] at start-up.

mod buffer;
mod merge;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;

use self::buffer::DayBuffer;
use self::merge::{MergedDay, Source};
use self::run::{Run, SpillDir};
use crate::api::{DeliveredRows, IncomingDay};
use crate::error::{ErrorKind, Result, StorageError};

/// Rows of a part that a day is given in, roughly.
const PART_ROWS: usize = 1 << 20;

/// Sorts rows by venue-day within a budget of memory. All methods block: call them off the runtime.
#[derive(Debug)]
pub struct BulkSorter {
    budget_bytes: usize,
    spill_dir: PathBuf,
    spill: Option<Arc<SpillDir>>,
    days: BTreeMap<DayKey, Day>,
    held_bytes: usize,
    rows: u64,
    spilled_rows: u64,
}

/// A venue-day's events of one kind. The order is the one in which days are given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DayKey {
    venue: VenueKey,
    day: LocalDay,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Day {
    buffer: Option<DayBuffer>,
    runs: Vec<Run>,
}

/// A venue-day's rows of one kind, sorted.
pub struct SortedDay {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// Kind of the events.
    pub kind: Kind,
    /// The rows, for [`rewrite_day`](crate::api::ArchiveWriter::rewrite_day).
    pub rows: Box<dyn IncomingDay>,
}

/// The days of a finished sorter, in the order (tenant, venue, day, kind). Each day's memory and runs are given up when
/// its rows are dropped.
#[derive(Debug)]
pub struct SortedDays {
    days: std::collections::btree_map::IntoIter<DayKey, Day>,
    part_rows: usize,
}

impl BulkSorter {
    /// A sorter that holds about `budget_bytes` of rows (writing a day out takes some more, by its size) and spills to
    /// files below `spill_dir`, which is made when it is needed.
    pub fn new(spill_dir: &Path, budget_bytes: usize) -> Result<Self> {
        Ok(Self {
            budget_bytes,
            spill_dir: spill_dir.to_owned(),
            spill: None,
            days: BTreeMap::new(),
            held_bytes: 0,
            rows: 0,
            spilled_rows: 0,
        })
    }

    /// Removes what killed processes left in a spill folder. Only while no sorter uses it.
    pub fn clean(spill_dir: &Path) -> Result<()> {
        run::clean(spill_dir)
    }

    /// Adds rows of one venue-day. `Full` when the disk is full, `Invalid` for rows that contradict themselves.
    pub fn push(&mut self, venue: &VenueKey, day: LocalDay, rows: DeliveredRows) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        debug_assert!(rows.check().is_ok());
        let kind = rows.events.kind;
        let key = DayKey {
            venue: venue.clone(),
            day,
            kind,
        };
        let buffer = self
            .days
            .entry(key)
            .or_default()
            .buffer
            .get_or_insert_with(|| DayBuffer::new(kind));
        let before = buffer.memory_bytes();
        buffer.append(&rows)?;
        self.held_bytes += buffer.memory_bytes() - before;
        self.rows += rows.len() as u64;
        if self.held_bytes > self.budget_bytes {
            self.spill()?;
        }
        Ok(())
    }

    /// Rows taken so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that were written to disk for want of memory.
    pub fn spilled_rows(&self) -> u64 {
        self.spilled_rows
    }

    /// The days, sorted.
    pub fn finish(self) -> SortedDays {
        SortedDays {
            days: self.days.into_iter(),
            part_rows: PART_ROWS,
        }
    }

    /// Writes the largest buffers out until half the budget is free: a few long runs rather than many short ones.
    fn spill(&mut self) -> Result<()> {
        let spill = match &self.spill {
            Some(spill) => Arc::clone(spill),
            None => Arc::clone(self.spill.insert(Arc::new(SpillDir::create(&self.spill_dir)?))),
        };
        let mut buffers: Vec<(usize, &mut Day)> = self
            .days
            .values_mut()
            .filter_map(|day| Some((day.buffer.as_ref()?.memory_bytes(), day)))
            .collect();
        buffers.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut file = spill.create_file()?;
        for (bytes, day) in buffers {
            if self.held_bytes <= self.budget_bytes / 2 {
                break;
            }
            let Some(buffer) = day.buffer.take() else { continue };
            self.spilled_rows += buffer.len() as u64;
            day.runs.push(file.write_run(&buffer)?);
            self.held_bytes -= bytes;
        }
        file.finish()
    }
}

impl Iterator for SortedDays {
    type Item = SortedDay;

    fn next(&mut self) -> Option<SortedDay> {
        let (DayKey { venue, day, kind }, held) = self.days.next()?;
        Some(SortedDay {
            venue,
            day,
            kind,
            rows: held.into_incoming(kind, self.part_rows),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.days.size_hint()
    }
}

impl ExactSizeIterator for SortedDays {}

impl Day {
    fn into_incoming(self, kind: Kind, part_rows: usize) -> Box<dyn IncomingDay> {
        match self.buffer {
            Some(buffer) if self.runs.is_empty() && buffer.len() <= part_rows => {
                Box::new(OnePart(Some(buffer)))
            }
            buffer => {
                let memory = buffer.map(Source::memory);
                let sources = self.runs.into_iter().map(Source::disk).chain(memory).collect();
                Box::new(MergedDay::new(kind, sources, part_rows))
            }
        }
    }
}

/// A small day that was never spilled; kept packed until it is asked for.
struct OnePart(Option<DayBuffer>);

impl IncomingDay for OnePart {
    fn remaining(&self) -> u64 {
        self.0.as_ref().map_or(0, |buffer| buffer.len() as u64)
    }

    fn next_part(&mut self) -> Result<Option<DeliveredRows>> {
        Ok(self.0.take().map(DayBuffer::into_rows))
    }
}

impl std::fmt::Debug for SortedDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SortedDay")
            .field("venue", &self.venue)
            .field("day", &self.day)
            .field("kind", &self.kind)
            .field("rows", &self.rows.remaining())
            .finish()
    }
}

fn spill_error(doing: &str, path: &Path, error: std::io::Error) -> StorageError {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        std::io::ErrorKind::UnexpectedEof => ErrorKind::Damaged,
        _ => ErrorKind::Unavailable,
    };
    StorageError::with_source(kind, format!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests;
