use proptest::prelude::*;

use super::super::{Decoder, Format, VenueVerdict};
use super::*;

/// The rows of a body as cells, cut here.
fn rows(body: &str, delimiter: u8) -> Vec<Vec<String>> {
    let (mut at, mut cells, mut rows) = (0, Vec::new(), Vec::new());
    while at < body.len() {
        let row = cut_row(body.as_bytes(), at, delimiter, true, &mut cells).unwrap();
        let text = &body[at..row.end];
        assert!(row.well_formed, "{text:?}");
        rows.push(cells.iter().map(|cell| cell.text(text).into_owned()).collect());
        at = row.next;
    }
    rows
}

proptest! {
    #[test]
    fn rows_are_cut_as_the_csv_crate_cuts_them(
        table in prop::collection::vec(prop::collection::vec("[a\"\n\r,; é]{0,6}", 2..4), 1..8),
        crlf in prop::bool::ANY,
    ) {
        let mut writer = ::csv::WriterBuilder::new()
            .flexible(true)
            .terminator(if crlf { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') })
            .from_writer(Vec::new());
        for row in &table {
            writer.write_record(row).unwrap();
        }
        let body = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        prop_assert_eq!(rows(&body, b','), table);
    }
}

#[test]
fn quotes_that_end_too_early_or_never_are_seen() {
    for (body, well_formed) in [
        ("\"a\"b,c\n", false),
        ("\"a\"\r\n", true),
        ("\"a\"\rb\n", false),
        ("a\"b,c\n", true),
        ("\"a,b\nc", false),
        ("\"a\"\"\"\n", true),
    ] {
        let row = cut_row(body.as_bytes(), 0, b',', true, &mut Vec::new()).unwrap();
        assert_eq!(row.well_formed, well_formed, "{body:?}");
    }
}

fn decode(body: &str) -> Result<Batches, BodyError> {
    let rules = Arc::new(DecodeRules {
        max_event_bytes: 4_096,
        ..DecodeRules::default()
    });
    let mut batches = Batches::new(Arc::clone(&rules), Arc::new(|_: &_| VenueVerdict::Known));
    Decoder::new(Format::Csv, rules)
        .decode(body.as_bytes(), true, &mut batches)
        .map(|_| batches)
}

#[test]
fn nonsense_gets_a_clear_code_and_harms_no_neighbour() {
    let header = "venue,sensor,track,ts,x,y";
    let good = "v1,s,t,5,1,2";
    for (bad, code) in [
        ("v1,s,t,5,1", Code::CsvColumns),
        ("v1,s,t,5,1,2,3", Code::CsvColumns),
        ("just text", Code::CsvColumns),
        ("v1,s,\"t\"x,5,1,2", Code::CsvSyntax),
        ("v1,s,t,5,NaN,2", Code::NotFinite),
        ("v1,s,t,5,inf,2", Code::NotFinite),
        ("v1,s,t,5,1.2.3,2", Code::WrongType),
        ("v1,s,t,soon,1,2", Code::TsUnreadable),
        ("v1,s,t,5.0,1,2", Code::TsUnreadable),
        ("v1,s,t,5,,2", Code::MissingField),
        ("v1,s,\u{7},5,1,2", Code::InvalidName),
        ("\u{0},s,t,5,1,2", Code::InvalidVenue),
    ] {
        let body = format!("{header}\r\n{good}\r\n{bad}\r\n\r\n{good}");
        let batches = decode(&body).unwrap();
        let refused: Vec<_> = batches
            .refused()
            .iter()
            .map(|r| (r.place.index, r.place.line, r.code))
            .collect();
        assert_eq!(refused, [(1, 3, code)], "{bad}");
        assert_eq!(batches.refused()[0].place.of(body.as_bytes()), bad.as_bytes());
        assert_eq!(batches.accepted(), 2, "{bad}");
    }
}

#[test]
fn a_header_that_cannot_be_used_ends_the_message() {
    for (header, what) in [
        ("venue,sensor,track,ts,x,y,mac", "\"mac\""),
        ("venue,sensor,ts,ts", "twice"),
        ("v1,s,t,5,1,2", "unknown columns"),
    ] {
        let error = decode(&format!("{header}\nv1,s,t,5,1,2\n")).unwrap_err();
        assert!(
            matches!(&error, BodyError::CsvHeader(message) if message.contains(what)),
            "{error}"
        );
    }
    assert_eq!(decode("").unwrap().accepted(), 0);
    let unclosed = format!("venue,sensor\n\"{}", "x\n".repeat(4_096));
    assert!(decode(&unclosed).unwrap().refused()[0].code == Code::LineTooLong);
}

#[test]
fn separators_are_guessed_from_the_header() {
    for separator in [",", ";", "\t", "|"] {
        let body = ["venue,sensor,track,ts,x,y", "v1,s,t,5,1,2"]
            .join("\n")
            .replace(',', separator);
        assert_eq!(decode(&body).unwrap().accepted(), 1, "{separator:?}");
    }
    // The header may be quoted, padded, and have a column without a name at its end.
    assert_eq!(
        decode("\"venue\", sensor,track,ts,x,y,\nv1,s,t,5,1,2,\n")
            .unwrap()
            .accepted(),
        1
    );
}
