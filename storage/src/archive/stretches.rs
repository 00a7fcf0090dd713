//! Cuts a day's sources of rows into stretches that can be united one by one.
//!
//! Sources are the incoming rows and the archived files, each in the order (key, ts). Of each a part is held. What is
//! still to come of a source lies at or after the last (key, ts) held of it, so everything before the least of those
//! places is complete: that is a stretch. A day that is small enough is one stretch, cut nowhere.

use std::cmp::Ordering;

use dwell_model::event::{Column, EventBatch, Kind, NO_TEXT};
use dwell_model::time::TsMs;

use super::day_files::FileRows;
use crate::api::{DeliveredRows, IncomingDay};
use crate::error::Result;

/// All rows of a stretch of a day.
pub(super) struct Stretch {
    /// In no particular order, but for those that the archive holds as superseded: they come last.
    pub(super) rows: DeliveredRows,
    /// The first of those.
    pub(super) superseded_from: usize,
    /// Whether this is the whole day.
    pub(super) is_whole: bool,
}

/// A day's sources, cut alike.
pub(super) struct Stretches {
    kind: Kind,
    /// Superseded rows last.
    sources: Vec<Source>,
    stretch_rows: usize,
    fits_at_once: bool,
    has_begun: bool,
}

struct Source {
    from: From,
    is_superseded: bool,
    held: DeliveredRows,
    has_ended: bool,
}

enum From {
    Incoming(Box<dyn IncomingDay>),
    File(Box<FileRows>),
}

impl Stretches {
    /// `rows` of the day are expected in all.
    pub(super) fn new(
        kind: Kind,
        incoming: Box<dyn IncomingDay>,
        events: Vec<FileRows>,
        superseded: Vec<FileRows>,
        stretch_rows: usize,
        rows: u64,
    ) -> Self {
        let file = |is_superseded| move |rows| Source::new(kind, From::File(Box::new(rows)), is_superseded);
        let sources = std::iter::once(Source::new(kind, From::Incoming(incoming), false))
            .chain(events.into_iter().map(file(false)))
            .chain(superseded.into_iter().map(file(true)));
        let fits_at_once = rows <= 2 * stretch_rows as u64;
        Self {
            kind,
            sources: sources.collect(),
            stretch_rows,
            fits_at_once,
            has_begun: false,
        }
    }

    /// The next stretch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Stretch>> {
        let mut wanted = if self.fits_at_once {
            2 * self.stretch_rows + 1
        } else {
            self.stretch_rows
        };
        loop {
            for source in &mut self.sources {
                source.fill(wanted)?;
            }
            let open = self.sources.iter().filter(|source| !source.has_ended);
            let end = open
                .filter_map(Source::last_place)
                .min_by(|a, b| compare(a.0.as_bytes(), a.1, b));
            let mut stretch = Stretch {
                rows: DeliveredRows::new(self.kind),
                superseded_from: 0,
                is_whole: false,
            };
            for source in &mut self.sources {
                let rows = source.take_before(end.as_ref());
                if stretch.rows.is_empty() {
                    stretch.rows = rows;
                } else {
                    stretch.rows.append(&rows);
                }
                if !source.is_superseded {
                    stretch.superseded_from = stretch.rows.len();
                }
            }
            stretch.is_whole = !self.has_begun && end.is_none();
            if !stretch.rows.is_empty() {
                self.has_begun = true;
                return Ok(Some(stretch));
            }
            if end.is_none() {
                return Ok(None);
            }
            // A source holds one place only and goes on: more of it has to be seen.
            wanted *= 2;
        }
    }
}

impl Source {
    fn new(kind: Kind, from: From, is_superseded: bool) -> Self {
        Self {
            from,
            is_superseded,
            held: DeliveredRows::new(kind),
            has_ended: false,
        }
    }

    fn fill(&mut self, rows: usize) -> Result<()> {
        while !self.has_ended && self.held.len() < rows {
            let more = match &mut self.from {
                From::Incoming(incoming) => incoming.next_part()?,
                From::File(file) => file.next(rows - self.held.len())?,
            };
            match more {
                None => self.has_ended = true,
                Some(more) => {
                    more.check()?;
                    if self.held.is_empty() {
                        self.held = more;
                    } else {
                        self.held.append(&more);
                    }
                }
            }
        }
        Ok(())
    }

    /// The greatest (key, ts) held.
    fn last_place(&self) -> Option<(String, TsMs)> {
        let events = &self.held.events;
        let mut is_used = vec![false; events.strings.len()];
        events.key.iter().for_each(|&key| is_used[key as usize] = true);
        let used = (0..events.strings.len() as u32).filter(|&id| is_used[id as usize]);
        let key = used.max_by(|&a, &b| {
            events
                .strings
                .get(a)
                .as_bytes()
                .cmp(events.strings.get(b).as_bytes())
        })?;
        let times = events
            .key
            .iter()
            .zip(&events.ts)
            .filter(|(other, _)| **other == key);
        Some((
            events.strings.get(key).to_owned(),
            times.map(|(_, &ts)| ts).max()?,
        ))
    }

    /// Takes the rows before a place, or all.
    fn take_before(&mut self, end: Option<&(String, TsMs)>) -> DeliveredRows {
        let kind = self.held.events.kind;
        let Some(end) = end else {
            return std::mem::replace(&mut self.held, DeliveredRows::new(kind));
        };
        let events = &self.held.events;
        let sides: Vec<Ordering> = events
            .strings
            .iter()
            .map(|key| key.as_bytes().cmp(end.0.as_bytes()))
            .collect();
        let is_before = |row: &u32| {
            let row = *row as usize;
            sides[events.key[row] as usize].then(events.ts[row].cmp(&end.1)) == Ordering::Less
        };
        let (before, after): (Vec<u32>, Vec<u32>) = (0..events.len() as u32).partition(is_before);
        if before.is_empty() {
            return DeliveredRows::new(kind);
        }
        let rest = pick(&self.held, &after);
        let before = pick(&self.held, &before);
        self.held = rest;
        before
    }
}

fn compare(key: &[u8], ts: TsMs, other: &(String, TsMs)) -> Ordering {
    key.cmp(other.0.as_bytes()).then(ts.cmp(&other.1))
}

/// Some of the rows, with a dictionary and deliveries of their own, so that what is left over from stretch to stretch
/// does not drag along the names of the whole day.
fn pick(rows: &DeliveredRows, numbers: &[u32]) -> DeliveredRows {
    let theirs = &rows.events;
    let mut picked = DeliveredRows::new(theirs.kind);
    let mut names = vec![NO_TEXT; theirs.strings.len()];
    let EventBatch {
        strings,
        ts,
        sensor,
        key,
        revision,
        payload,
        ..
    } = &mut picked.events;
    let mut name = |id: u32| {
        if id == NO_TEXT {
            return NO_TEXT;
        }
        let name = &mut names[id as usize];
        if *name == NO_TEXT {
            *name = strings.intern(theirs.strings.get(id));
        }
        *name
    };
    let at = |row: &u32| *row as usize;
    *ts = numbers.iter().map(|row| theirs.ts[at(row)]).collect();
    *sensor = numbers.iter().map(|row| name(theirs.sensor[at(row)])).collect();
    *key = numbers.iter().map(|row| name(theirs.key[at(row)])).collect();
    *revision = numbers.iter().map(|row| theirs.revision[at(row)]).collect();
    for (mine, theirs) in payload.iter_mut().zip(&theirs.payload) {
        *mine = match theirs {
            Column::F32(values) => Column::F32(numbers.iter().map(|row| values[at(row)]).collect()),
            Column::F64(values) => Column::F64(numbers.iter().map(|row| values[at(row)]).collect()),
            Column::I64(values) => Column::I64(numbers.iter().map(|row| values[at(row)]).collect()),
            Column::Text(ids) => Column::Text(numbers.iter().map(|row| name(ids[at(row)])).collect()),
        };
    }
    let mut known = vec![NO_TEXT; rows.deliveries.len()];
    picked.delivery = numbers
        .iter()
        .map(|row| {
            let number = rows.delivery[at(row)] as usize;
            if known[number] == NO_TEXT {
                known[number] = picked.deliveries.len() as u32;
                picked.deliveries.push(rows.deliveries[number]);
            }
            known[number]
        })
        .collect();
    picked
}
