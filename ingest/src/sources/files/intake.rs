//! What readers give their rows to: the decoder for text, the groups for what it accepts, the outbox for the road.
//!
//! One [`Intake`] stands for one file while it is read, on the reading thread. Text that needs no mapping goes to the
//! decoder as it is. Mapped rows become NDJSON lines first and then take the same way, so that one piece of code decides
//! what an event is, whatever it came from.

use std::sync::Arc;

use dwell_model::event::Delivery;
use dwell_model::ids::Receipt;
use tokio::sync::mpsc;

use super::error::FileError;
use super::expansion::ExpansionLimit;
use super::groups::{Group, Groups};
use super::mapping::{Cells, Mapping, RowError, RowMapper};
use super::open::{Content, Format, Part};
use super::presence::Presence;
use super::progress::FileProgress;
use super::venues::VenueTable;
use super::{parquet_reader, text_reader};
use crate::decode::{self, Batches, DecodeRules, Decoder, VenueVerdict};
use crate::refusal::{Keep, Place, Problem, Refusal};

/// Mapped lines are decoded when there are so many bytes of them.
const LINES_BYTES: usize = 256 << 10;
/// Refusals are handed on when there are so many.
const REFUSED_AT_ONCE: usize = 256;
/// Rows in groups at which a log import hands them on.
const LOG_ROWS: usize = 32 << 10;
/// Rows in groups at which an archive import hands the larger ones on.
const ARCHIVE_ROWS: usize = 256 << 10;
/// A group of so many rows is large.
const LARGE_GROUP_ROWS: usize = 4 << 10;
/// First refusals of a file that its report shows.
pub(super) const FIRST_ERRORS: usize = 5;

/// What all files of an import share.
pub(super) struct IntakeContext {
    /// How columns become fields.
    pub(super) mapping: Arc<Mapping>,
    /// The venues.
    pub(super) venues: Arc<VenueTable>,
    /// Rules of the decoder, mapping aside.
    pub(super) rules: Arc<DecodeRules>,
    /// Makes pseudonyms.
    pub(super) presence: Arc<Presence>,
    /// How far compressed content may expand.
    pub(super) expansion: ExpansionLimit,
    /// Whether rows go to the log, which takes them sooner than the archive.
    pub(super) to_log: bool,
    /// The road's end of the channel.
    pub(super) outbox: mpsc::Sender<Work>,
}

/// What the reading thread gives the road.
#[derive(Debug)]
pub(super) enum Work {
    /// Accepted events.
    Groups(Vec<Group>),
    /// Rows that were not taken.
    Refused(Vec<RefusedRow>),
    /// A file is read; all its work has been given before, but for groups of the archive.
    FileDone {
        /// Number of the file.
        number: usize,
        /// Its rows.
        counts: FileCounts,
        /// Why it could not be read to its end.
        error: Option<String>,
    },
}

/// A row that was not taken, with the bytes to keep.
#[derive(Debug)]
pub(super) struct RefusedRow {
    /// Where it came from.
    pub(super) origin: RowOrigin,
    /// Why; its place's line is the file's.
    pub(super) refusal: Refusal,
    /// The row, or the event that the mapping made of it.
    pub(super) bytes: Vec<u8>,
}

/// What the rows of a part have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowOrigin {
    /// Name of the file, and of the member in a zip.
    pub(super) source: Arc<str>,
    /// Number of the part within its file, from 0.
    pub(super) part: u32,
    /// What brought the file.
    pub(super) delivery: Delivery,
    /// Format of the bytes.
    pub(super) format: decode::Format,
    /// The header that CSV rows belong to.
    pub(super) header: Option<Arc<str>>,
}

impl RowOrigin {
    /// The receipt under which the quarantine knows the part: it tells entries apart by receipt and line, and the
    /// members of a zip have the same lines.
    pub(super) fn entry_receipt(&self) -> Receipt {
        match self.part {
            0 => self.delivery.receipt,
            part => Receipt::derive(
                &self.delivery.receipt.to_u128().to_be_bytes(),
                &part.to_be_bytes(),
            ),
        }
    }
}

/// What became of a file's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileCounts {
    /// Events accepted.
    pub(super) accepted: u64,
    /// Rows or events refused.
    pub(super) refused: u64,
    /// The first of those, for people.
    pub(super) first_errors: Vec<String>,
}

/// Takes the rows of one file.
pub(super) struct Intake<'a> {
    context: &'a IntakeContext,
    groups: &'a mut Groups,
    progress: FileProgress<'a>,
    delivery: Delivery,
    batches: Batches,
    counts: FileCounts,
    part: PartState<'a>,
    parts: u32,
}

/// What belongs to the part that is being read.
struct PartState<'a> {
    source: Arc<str>,
    mapper: RowMapper<'a>,
    lines: Lines,
    refused: Vec<RefusedRow>,
    errors: Vec<RowError>,
}

/// Mapped rows on their way to the decoder.
struct Lines {
    text: Vec<u8>,
    /// For each line the row that it was made of.
    rows: Vec<u64>,
    /// Lines decoded before.
    decoded: u64,
    decoder: Decoder,
}

impl<'a> Intake<'a> {
    /// An intake for a file brought by `delivery`.
    pub(super) fn new(
        context: &'a IntakeContext,
        groups: &'a mut Groups,
        progress: FileProgress<'a>,
        delivery: Delivery,
    ) -> Self {
        groups.set_delivery(delivery);
        let venues = Arc::clone(&context.venues);
        let verdict = move |venue: &dwell_model::ids::VenueId| match venues.number(venue.as_str()) {
            Some(_) => VenueVerdict::Known,
            None => VenueVerdict::Unknown,
        };
        let batches = Batches::new(Arc::clone(&context.rules), Arc::new(verdict));
        let part = PartState::new(context, "".into());
        Self {
            context,
            groups,
            progress,
            delivery,
            batches,
            counts: FileCounts::default(),
            part,
            parts: 0,
        }
    }

    /// Reads a part to its end.
    pub(super) fn part(&mut self, part: Part<'_>) -> Result<(), FileError> {
        self.part = PartState::new(self.context, part.name.as_str().into());
        self.parts += 1;
        match part.content {
            Content::Parquet(file) => parquet_reader::read(&part.name, file, self)?,
            Content::Text(text) => match part.format {
                Format::Parquet => return Err(FileError::content(part.name, "not a Parquet file")),
                Format::Csv => text_reader::csv(&part.name, text, self)?,
                Format::Ndjson => text_reader::ndjson(&part.name, text, self)?,
                Format::Json => text_reader::json(&part.name, text, self)?,
            },
        }
        self.decode_lines()?;
        self.hand_on_refused()
    }

    /// Ends the file: hands on what the log is to get with this file's receipt, and tells the counts.
    pub(super) fn finish(mut self) -> (FileCounts, Result<(), FileError>) {
        self.progress.end();
        let sent = self.hand_on_refused().and_then(|()| {
            if self.context.to_log {
                send(self.context, Work::Groups(self.groups.take(0)))
            } else {
                Ok(())
            }
        });
        (self.counts, sent)
    }

    /// The mapping.
    pub(super) fn mapping(&self) -> &'a Mapping {
        &self.context.mapping
    }

    /// The decoder's rules, mapping aside.
    pub(super) fn rules(&self) -> &'a Arc<DecodeRules> {
        &self.context.rules
    }

    /// How far compressed content may expand.
    pub(super) fn expansion(&self) -> ExpansionLimit {
        self.context.expansion
    }

    /// The groups, for readers that fill them themselves.
    pub(super) fn groups(&mut self) -> &mut Groups {
        self.groups
    }

    /// Counts events that a reader put into groups itself.
    pub(super) fn accepted(&mut self, events: u64) {
        self.counts.accepted += events;
    }

    /// Decodes a piece of text; returns how many bytes of it were used (see [`Decoder::decode`]).
    pub(super) fn text(
        &mut self,
        decoder: &mut Decoder,
        format: decode::Format,
        bytes: &[u8],
        last: bool,
    ) -> Result<usize, FileError> {
        let outcome = decoder.decode(bytes, last, &mut self.batches);
        let refused = self.collect_accepted()?;
        let header = if refused.is_empty() {
            None
        } else {
            decoder.header().map(Arc::from)
        };
        for refusal in refused {
            let kept = refusal.place.of(bytes).to_vec();
            self.refuse(refusal, kept, format, header.clone());
        }
        self.hand_on_full_groups()?;
        let used = outcome.map_err(|error| FileError::content(&*self.part.source, error.to_string()))?;
        self.progress.read(self.counts.accepted + self.counts.refused);
        Ok(used)
    }

    /// Takes a row that the mapping makes events of. `number` is its line, or its number where rows have no lines.
    pub(super) fn row(&mut self, number: u64, cells: &Cells) -> Result<(), FileError> {
        let PartState {
            mapper,
            lines,
            errors,
            ..
        } = &mut self.part;
        let made = mapper.map(cells, &mut lines.text, errors);
        lines.rows.extend(std::iter::repeat_n(number, made));
        if !self.part.errors.is_empty() {
            for error in std::mem::take(&mut self.part.errors) {
                let bytes = cells.to_json(&self.context.mapping);
                self.refuse(error.at_row(number), bytes, decode::Format::Ndjson, None);
            }
        }
        if self.part.lines.text.len() >= LINES_BYTES {
            self.decode_lines()?;
            self.progress.read(self.counts.accepted + self.counts.refused);
        }
        self.hand_on_many_refused()
    }

    /// Refuses a row that could not even be cut into cells.
    pub(super) fn refuse_row(
        &mut self,
        number: u64,
        problem: Problem,
        bytes: Vec<u8>,
        format: decode::Format,
    ) -> Result<(), FileError> {
        self.refuse(problem.at_row(number), bytes, format, None);
        self.hand_on_many_refused()
    }

    /// Says how far a file is read whose bytes do not tell.
    pub(super) fn rows_done(&mut self, rows: u64, of: u64) -> Result<(), FileError> {
        self.decode_lines()?;
        self.hand_on_full_groups()?;
        self.progress
            .read_share(rows, of, self.counts.accepted + self.counts.refused);
        Ok(())
    }

    fn decode_lines(&mut self) -> Result<(), FileError> {
        let lines = &mut self.part.lines;
        if lines.text.is_empty() {
            return Ok(());
        }
        let outcome = lines.decoder.decode(&lines.text, false, &mut self.batches);
        // Lines that Dwell wrote itself are whole, and any number of them is allowed.
        outcome.map_err(|error| FileError::content(&*self.part.source, error.to_string()))?;
        let (text, rows) = (std::mem::take(&mut lines.text), std::mem::take(&mut lines.rows));
        let before = lines.decoded;
        lines.decoded += rows.len() as u64;
        for mut refusal in self.collect_accepted()? {
            let kept = refusal.place.of(&text).to_vec();
            let row = refusal
                .place
                .line
                .checked_sub(before + 1)
                .and_then(|line| rows.get(line as usize));
            refusal.place.line = row.copied().unwrap_or(refusal.place.line);
            self.refuse(refusal, kept, decode::Format::Ndjson, None);
        }
        let lines = &mut self.part.lines;
        (lines.text, lines.rows) = (text, rows);
        lines.text.clear();
        lines.rows.clear();
        self.hand_on_full_groups()
    }

    /// Puts what the decoder accepted into groups; returns what was refused.
    fn collect_accepted(&mut self) -> Result<Vec<Refusal>, FileError> {
        let mut refused = self.batches.take_refused();
        let mut batches = self.batches.take();
        refused.extend(self.context.presence.replace(&mut batches)?);
        for batch in batches {
            // The decoder asked the same table whether the venue is known, and takes no time that groups do not.
            let Some(venue) = self.context.venues.number(batch.venue.as_str()) else {
                continue;
            };
            self.counts.accepted += batch.events.len() as u64 - self.groups.add(venue, &batch.events);
        }
        Ok(refused)
    }

    fn refuse(&mut self, refusal: Refusal, bytes: Vec<u8>, format: decode::Format, header: Option<Arc<str>>) {
        self.counts.refused += 1;
        let source = Arc::clone(&self.part.source);
        if self.counts.first_errors.len() < FIRST_ERRORS {
            self.counts
                .first_errors
                .push(format!("{source}:{}: {}", refusal.place.line, refusal.message));
        }
        let part = self.parts.saturating_sub(1);
        let origin = RowOrigin {
            source,
            part,
            delivery: self.delivery,
            format,
            header,
        };
        self.part.refused.push(RefusedRow {
            origin,
            refusal,
            bytes,
        });
    }

    fn hand_on_full_groups(&mut self) -> Result<(), FileError> {
        self.hand_on_many_refused()?;
        let rows = self.groups.rows();
        if self.context.to_log {
            return if rows >= LOG_ROWS {
                send(self.context, Work::Groups(self.groups.take(0)))
            } else {
                Ok(())
            };
        }
        if rows < ARCHIVE_ROWS {
            return Ok(());
        }
        let mut taken = self.groups.take(LARGE_GROUP_ROWS);
        if self.groups.rows() > ARCHIVE_ROWS / 2 {
            // Many days of few events each: waiting longer would only take more memory.
            taken.extend(self.groups.take(0));
        }
        send(self.context, Work::Groups(taken))
    }

    fn hand_on_many_refused(&mut self) -> Result<(), FileError> {
        if self.part.refused.len() >= REFUSED_AT_ONCE {
            self.hand_on_refused()
        } else {
            Ok(())
        }
    }

    fn hand_on_refused(&mut self) -> Result<(), FileError> {
        match std::mem::take(&mut self.part.refused) {
            refused if refused.is_empty() => Ok(()),
            refused => send(self.context, Work::Refused(refused)),
        }
    }
}

impl<'a> PartState<'a> {
    fn new(context: &'a IntakeContext, source: Arc<str>) -> Self {
        let decoder = Decoder::new(decode::Format::Ndjson, Arc::clone(&context.rules));
        Self {
            source,
            mapper: RowMapper::new(&context.mapping, &*context.venues),
            lines: Lines {
                text: Vec::new(),
                rows: Vec::new(),
                decoded: 0,
                decoder,
            },
            refused: Vec::new(),
            errors: Vec::new(),
        }
    }
}

/// Makes a refusal of what is wrong with a row that the decoder has not seen.
trait AtRow {
    fn at_row(self, number: u64) -> Refusal;
}

impl AtRow for Problem {
    fn at_row(self, number: u64) -> Refusal {
        let place = Place {
            index: number.saturating_sub(1),
            line: number,
            start: 0,
            len: 0,
        };
        let Problem { code, message } = self;
        // Nothing tells where in it an identifier may stand.
        Refusal {
            place,
            code,
            message,
            venue: None,
            sensor: None,
            keep: Keep::Encrypted,
        }
    }
}

impl AtRow for RowError {
    fn at_row(self, number: u64) -> Refusal {
        Problem::new(self.code, format!("column {:?}: {}", self.column, self.what)).at_row(number)
    }
}

/// Hands work to the road; waits while it has enough.
pub(super) fn send(context: &IntakeContext, work: Work) -> Result<(), FileError> {
    context.outbox.blocking_send(work).map_err(|_| FileError::Stopped)
}
