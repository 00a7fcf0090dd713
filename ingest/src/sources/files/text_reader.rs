//! CSV, NDJSON and JSON: text to the decoder as it is, or row by row through the mapping.
//!
//! Text is read in pieces that end with a line wherever lines are short enough; a row never takes more memory than the
//! decoder's limit allows. A file that breaks off, or whose structure breaks, ends there with an error that names the
//! line; the rows before it have been taken.

mod csv_rows;
mod kept;
mod rows;

pub(in crate::sources::files) use kept::events_of;

use std::io::{BufRead, Read};
use std::sync::Arc;

use super::error::FileError;
use super::intake::Intake;
use super::mapping::{Mapping, Source};
use crate::decode::{DecodeRules, Decoder, Format, WireField};

/// Text is read in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// Longest CSV header.
const HEADER_BYTES_MAX: usize = 256 << 10;

/// Reads NDJSON.
pub(super) fn ndjson(place: &str, text: &mut dyn BufRead, intake: &mut Intake<'_>) -> Result<(), FileError> {
    if intake.mapping().is_identity() {
        let rules = Arc::clone(intake.rules());
        decode(place, Vec::new(), text, Format::Ndjson, rules, intake)
    } else {
        rows::ndjson(place, text, intake)
    }
}

/// Reads JSON.
pub(super) fn json(place: &str, text: &mut dyn BufRead, intake: &mut Intake<'_>) -> Result<(), FileError> {
    if intake.mapping().is_identity() {
        let rules = Arc::clone(intake.rules());
        decode(place, Vec::new(), text, Format::Json, rules, intake)
    } else {
        rows::json(place, text, intake)
    }
}

/// Reads CSV.
pub(super) fn csv(place: &str, text: &mut dyn BufRead, intake: &mut Intake<'_>) -> Result<(), FileError> {
    let header = read_header(place, text)?;
    let delimiter = intake
        .mapping()
        .delimiter
        .unwrap_or_else(|| guess_delimiter(&header));
    let names = header_names(place, &header, delimiter)?;
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    intake
        .mapping()
        .check_columns(&refs)
        .map_err(|what| FileError::content(format!("{place}:1"), what))?;
    match renaming(intake.mapping(), intake.rules(), &refs, delimiter) {
        Some(rules) => decode(place, header, text, Format::Csv, Arc::new(rules), intake),
        None => rows::csv(place, &names, delimiter, lines_of(&header), text, intake),
    }
}

/// Feeds text to the decoder, `begin` first.
fn decode(
    place: &str,
    begin: Vec<u8>,
    text: &mut dyn BufRead,
    format: Format,
    rules: Arc<DecodeRules>,
    intake: &mut Intake<'_>,
) -> Result<(), FileError> {
    let mut decoder = Decoder::new(format, rules);
    let mut buffer = begin;
    let mut last = false;
    while !last {
        last = read_piece(place, text, &mut buffer)?;
        // A piece that ends with a line cuts no row and no character.
        let end = match buffer.iter().rposition(|&byte| byte == b'\n') {
            Some(end) if !last => end + 1,
            _ => buffer.len(),
        };
        let used = intake.text(&mut decoder, format, &buffer[..end], last)?;
        buffer.drain(..used);
    }
    Ok(())
}

/// Appends a piece of text; true at its end.
fn read_piece(place: &str, text: &mut dyn BufRead, buffer: &mut Vec<u8>) -> Result<bool, FileError> {
    let before = buffer.len();
    let mut piece = text.take(PIECE_BYTES as u64);
    match piece.read_to_end(buffer) {
        Ok(n) => Ok(n < PIECE_BYTES),
        // The rows before the damage are good: they are given to the decoder first, the error comes back next time.
        Err(_) if buffer.len() > before => Ok(false),
        Err(source) => Err(FileError::Io {
            place: place.to_owned(),
            source,
        }),
    }
}

/// Reads the first line that is not empty, with its end.
fn read_header(place: &str, text: &mut dyn BufRead) -> Result<Vec<u8>, FileError> {
    let io_error = |source| FileError::Io {
        place: place.to_owned(),
        source,
    };
    let mut header = Vec::new();
    let mut quotes = 0;
    loop {
        let start = header.len();
        let left = (HEADER_BYTES_MAX - start) as u64;
        let n = text.take(left).read_until(b'\n', &mut header).map_err(io_error)?;
        quotes += header[start..].iter().filter(|&&byte| byte == b'"').count();
        if n == 0 && start < HEADER_BYTES_MAX {
            return Ok(header);
        }
        if !header.ends_with(b"\n") && header.len() >= HEADER_BYTES_MAX {
            return Err(FileError::content(
                format!("{place}:1"),
                "the header is too long; is this CSV?",
            ));
        }
        // A line end within quotes belongs to a column's name.
        if quotes % 2 == 0 && !header.trim_ascii().is_empty() {
            return Ok(header);
        }
    }
}

fn header_names(place: &str, header: &[u8], delimiter: u8) -> Result<Vec<String>, FileError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .from_reader(header);
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(_) => Ok(record.iter().map(|name| name.trim().to_owned()).collect()),
        Err(error) => Err(FileError::content(
            format!("{place}:1"),
            format!("the header cannot be read: {error}"),
        )),
    }
}

/// The separator that the header holds most; a comma when it holds none.
fn guess_delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| header.iter().filter(|&&byte| byte == delimiter).count();
    [b'|', b'\t', b';', b',']
        .into_iter()
        .max_by_key(|&delimiter| count(delimiter))
        .unwrap_or(b',')
}

fn lines_of(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The decoder's rules for a mapping that only renames columns and sets constants; `None` for any other.
fn renaming(
    mapping: &Mapping,
    rules: &Arc<DecodeRules>,
    columns: &[&str],
    delimiter: u8,
) -> Option<DecodeRules> {
    let mut rules = DecodeRules {
        delimiter: Some(delimiter),
        ..DecodeRules::clone(rules)
    };
    if mapping.is_identity() {
        return Some(rules);
    }
    let mut used = vec![false; columns.len()];
    for field in mapping.plain_fields()? {
        let wire = WireField::from_name(field.name)?;
        match &field.source {
            Source::Fixed(text) => rules.defaults.push((wire, text.clone())),
            Source::Column(number) => {
                let name = &mapping.columns[*number].name;
                let Some(place) = columns.iter().position(|column| column == name) else {
                    continue;
                };
                // A column that feeds two fields is more than a name.
                if std::mem::replace(&mut used[place], true) {
                    return None;
                }
                rules.names = std::mem::take(&mut rules.names).map(name, wire);
            }
            Source::Pattern(_) => return None,
        }
    }
    for (name, _) in columns.iter().zip(&used).filter(|(_, used)| !**used) {
        rules.names = std::mem::take(&mut rules.names).ignore(name);
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_where_its_quotes_allow() {
        let header = |text: &str| {
            let mut bytes = text.as_bytes();
            (
                String::from_utf8(read_header("f", &mut bytes).unwrap()).unwrap(),
                bytes.len(),
            )
        };
        assert_eq!(header("a,b\n1,2\n"), ("a,b\n".to_owned(), 4));
        assert_eq!(header("\n\r\na;b\r\n1;2"), ("\n\r\na;b\r\n".to_owned(), 3));
        assert_eq!(header("\"a\nb\",c\n1,2"), ("\"a\nb\",c\n".to_owned(), 3));
        assert_eq!(header("a,b"), ("a,b".to_owned(), 0));
        assert_eq!(header(""), (String::new(), 0));
        let long = "x".repeat(HEADER_BYTES_MAX + 1);
        assert!(
            read_header("f", &mut long.as_bytes())
                .unwrap_err()
                .to_string()
                .starts_with("f:1: ")
        );
    }

    #[test]
    fn the_separator_is_the_one_that_the_header_holds_most() {
        for (header, delimiter) in [
            ("a,b;c,d", b','),
            ("a;b;c,d", b';'),
            ("a\tb", b'\t'),
            ("a|b", b'|'),
            ("a", b','),
        ] {
            assert_eq!(guess_delimiter(header.as_bytes()), delimiter, "{header}");
        }
    }
}
