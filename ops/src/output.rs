//! What commands print: tables for people on a terminal, one JSON object for scripts.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

/// How a command's result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Tables and sentences.
    Human,
    /// One JSON object on stdout and nothing else anywhere.
    Json,
}

impl Output {
    /// The output that the `--json` flag asks for.
    pub(crate) fn from_flag(json: bool) -> Self {
        if json { Output::Json } else { Output::Human }
    }

    /// Prints the result: the table for people, the value for scripts.
    pub(crate) fn result<T: Serialize>(self, value: &T, human: impl FnOnce() -> String) -> Result<()> {
        match self {
            Output::Human => write_line(&human()),
            Output::Json => write_line(&serde_json::to_string(value)?),
        }
    }
}

impl Output {
    /// Tells people what is being done, on stderr; scripts hear nothing.
    pub(crate) fn note(self, doing: &str) {
        if self == Output::Human {
            // Nobody has to read it.
            let _ = writeln!(std::io::stderr(), "{doing}");
        }
    }
}

/// Writes a line to stdout. A reader that has seen enough and gone away (`| head`) is no failure of the command.
pub(crate) fn write_line(line: &str) -> Result<()> {
    write_line_to(&mut std::io::stdout().lock(), line)
}

fn write_line_to(out: &mut impl Write, line: &str) -> Result<()> {
    let written = out
        .write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// Lays out rows under a heading; columns whose index is in `right` are aligned right.
pub(crate) fn table(
    heading: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(heading.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for &index in right {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A count with separators: 1,234,567.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Values as a row of blocks of rising height, the largest one full.
pub(crate) fn sparkline(values: &[u64]) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let max = values.iter().copied().max().unwrap_or(0).max(1);
    values
        .iter()
        .map(|&value| BLOCKS[(value * 8).div_ceil(max) as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that fails in one way.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure_and_a_full_disk_is() {
        write_line_to(&mut Failing(ErrorKind::BrokenPipe), "a line").unwrap();
        let error = write_line_to(&mut Failing(ErrorKind::StorageFull), "a line").unwrap_err();
        assert_eq!(error.to_string(), "cannot write to stdout");
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn a_sparkline_shows_the_largest_full_and_nothing_for_zero() {
        assert_eq!(sparkline(&[0, 1, 8, 4]), " ▁█▄");
        assert_eq!(sparkline(&[0, 0]), "  ");
    }
}
