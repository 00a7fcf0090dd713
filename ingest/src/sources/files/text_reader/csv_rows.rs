//! Rows of CSV text with the line on which each begins (RFC 4180: quotes, doubled quotes, line ends within quotes).
//!
//! A library would do, but for the lines: those of the quarantine have to be right with blank lines, CRLF and quoted
//! line ends, and a row must not take more memory than it may.

use std::io::{self, BufRead};

/// Cuts text into rows.
pub(super) struct CsvRows<'t> {
    text: &'t mut dyn BufRead,
    delimiter: u8,
    bytes_max: usize,
    line: u64,
    row: CsvRow,
}

/// One row; reused for the next.
#[derive(Debug, Default)]
pub(super) struct CsvRow {
    /// The line on which it begins.
    pub(super) line: u64,
    /// Its bytes, without the line end.
    pub(super) bytes: Vec<u8>,
    /// Whether its quotes are as they should be.
    pub(super) is_well_formed: bool,
    cells: Vec<u8>,
    ends: Vec<usize>,
}

/// Why a row cannot be had.
#[derive(Debug)]
pub(super) enum RowFailure {
    /// The text cannot be read.
    Io(io::Error),
    /// A row that begins on this line is longer than allowed.
    TooLong(u64),
}

impl CsvRow {
    /// Number of cells.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A cell, unquoted.
    pub(super) fn cell(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)?;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        Some(&self.cells[start..end])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes: the end of the cell, or the first of two.
    Quote,
}

impl<'t> CsvRows<'t> {
    /// Rows of `text`, which begins after `lines_before` lines; none may be longer than `bytes_max`.
    pub(super) fn new(text: &'t mut dyn BufRead, delimiter: u8, lines_before: u64, bytes_max: usize) -> Self {
        Self {
            text,
            delimiter,
            bytes_max,
            line: lines_before + 1,
            row: CsvRow::default(),
        }
    }

    /// The next row that is not blank; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&CsvRow>, RowFailure> {
        loop {
            match self.read()? {
                false => return Ok(None),
                true if self.row.bytes.trim_ascii().is_empty() => {}
                true => return Ok(Some(&self.row)),
            }
        }
    }

    /// Reads the next row; false at the end.
    fn read(&mut self) -> Result<bool, RowFailure> {
        let Self {
            text,
            delimiter,
            bytes_max,
            line,
            row,
        } = self;
        row.line = *line;
        row.is_well_formed = true;
        row.bytes.clear();
        row.cells.clear();
        row.ends.clear();
        let mut within = Within::CellStart;
        loop {
            let piece = match text.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RowFailure::Io(error)),
            };
            if piece.is_empty() {
                if row.bytes.is_empty() {
                    return Ok(false);
                }
                row.is_well_formed &= within != Within::Quoted;
                row.end();
                return Ok(true);
            }
            let mut used = 0;
            let mut is_whole = false;
            for &byte in piece {
                used += 1;
                if byte == b'\n' {
                    *line += 1;
                    if within != Within::Quoted {
                        is_whole = true;
                        break;
                    }
                }
                row.bytes.push(byte);
                within = row.take(within, byte, *delimiter);
            }
            text.consume(used);
            if is_whole {
                row.end();
                return Ok(true);
            }
            if row.bytes.len() > *bytes_max {
                return Err(RowFailure::TooLong(row.line));
            }
        }
    }
}

impl CsvRow {
    fn take(&mut self, within: Within, byte: u8, delimiter: u8) -> Within {
        match (within, byte) {
            (Within::Quoted, b'"') => return Within::Quote,
            (Within::CellStart, b'"') => return Within::Quoted,
            (Within::Quote, b'"') => {
                self.cells.push(byte);
                return Within::Quoted;
            }
            (Within::Quoted, _) => {
                self.cells.push(byte);
                return Within::Quoted;
            }
            (_, byte) if byte == delimiter => {
                self.ends.push(self.cells.len());
                return Within::CellStart;
            }
            // The carriage return of a line end comes off with the row's end.
            (Within::Quote, b'\r') => {
                self.cells.push(byte);
                return Within::Quote;
            }
            (Within::Quote, _) => self.is_well_formed = false,
            (Within::CellStart | Within::Plain, _) => {}
        }
        self.cells.push(byte);
        Within::Plain
    }

    fn end(&mut self) {
        if self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
            self.cells.pop();
        }
        self.ends.push(self.cells.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(u64, Vec<String>, bool)> {
        // Pieces of three bytes: rows go over their ends.
        let mut text = io::BufReader::with_capacity(3, text.as_bytes());
        let mut rows = CsvRows::new(&mut text, b',', 1, 100);
        let mut seen = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let cell = |n| String::from_utf8(row.cell(n).unwrap().to_vec()).unwrap();
            seen.push((row.line, (0..row.len()).map(cell).collect(), row.is_well_formed));
        }
        seen
    }

    fn good(line: u64, cells: &[&str]) -> (u64, Vec<String>, bool) {
        (line, cells.iter().map(|cell| (*cell).to_owned()).collect(), true)
    }

    #[test]
    fn lines_are_counted_through_blank_ones_carriage_returns_and_quotes() {
        assert_eq!(
            rows("a,b\r\n\r\n\n\"x\ny\",\"say \"\"hi\"\"\"\r\n,\nlast,"),
            [
                good(2, &["a", "b"]),
                good(5, &["x\ny", "say \"hi\""]),
                good(7, &["", ""]),
                good(8, &["last", ""]),
            ]
        );
        assert_eq!(rows(""), []);
        assert_eq!(rows("5\" screen,b\n"), [good(2, &["5\" screen", "b"])]);
    }

    #[test]
    fn quotes_that_do_not_end_where_the_cell_does_are_told() {
        assert!(!rows("\"a\"b,c\n")[0].2);
        assert!(!rows("\"never closed\n")[0].2);
    }

    #[test]
    fn a_row_takes_no_more_memory_than_it_may() {
        let text = format!("a,b\n\"{}", "x\n".repeat(1_000));
        let mut text = text.as_bytes();
        let mut rows = CsvRows::new(&mut text, b',', 0, 500);
        assert!(rows.next().unwrap().is_some());
        assert!(matches!(rows.next(), Err(RowFailure::TooLong(2))));
    }
}
