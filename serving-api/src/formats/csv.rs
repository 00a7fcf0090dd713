//! CSV as RFC 4180 has it, UTF-8, with a head line.

use std::fmt::Write;

use dwell_model::time::format_rfc3339;

use super::{Table, TableColumn};

/// Writes a table. Numbers are the shortest texts that read back as the same number.
pub(crate) fn to_csv(table: &Table) -> String {
    let mut out = String::with_capacity(64 * (table.len() + 1));
    for (i, (name, _)) in table.columns.iter().enumerate() {
        separate(&mut out, i);
        out.push_str(name);
    }
    out.push_str("\r\n");
    for row in 0..table.len() {
        for (i, (_, column)) in table.columns.iter().enumerate() {
            separate(&mut out, i);
            field(&mut out, column, row);
        }
        out.push_str("\r\n");
    }
    out
}

fn separate(out: &mut String, column: usize) {
    if column > 0 {
        out.push(',');
    }
}

fn field(out: &mut String, column: &TableColumn, row: usize) {
    // Writing to a String cannot fail.
    let _ = match column {
        TableColumn::Text(values) => {
            values[row]
                .as_deref()
                .into_iter()
                .for_each(|text| quoted(out, text));
            Ok(())
        }
        TableColumn::Instant(values) => {
            values[row].map_or(Ok(()), |ts| write!(out, "{}", format_rfc3339(ts)))
        }
        TableColumn::Integer(values) => values[row].map_or(Ok(()), |value| write!(out, "{value}")),
        TableColumn::Number(values) => values[row].map_or(Ok(()), |value| write!(out, "{value}")),
        TableColumn::Flag(values) => values[row].map_or(Ok(()), |value| write!(out, "{value}")),
    };
}

fn quoted(out: &mut String, text: &str) {
    if !text.contains(['"', ',', '\r', '\n']) {
        return out.push_str(text);
    }
    out.push('"');
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_needed_and_absent_values_are_empty() {
        let table = Table {
            columns: vec![
                ("zone", TableColumn::Text(vec![Some("a,\"b\"".into()), None])),
                ("start", TableColumn::Instant(vec![Some(0), None])),
                ("value", TableColumn::Number(vec![Some(0.1), Some(3.0)])),
                ("generation", TableColumn::Integer(vec![None, Some(-7)])),
                ("provisional", TableColumn::Flag(vec![Some(true), None])),
            ],
        };
        let expected = "zone,start,value,generation,provisional\r\n\
                        \"a,\"\"b\"\"\",1970-01-01T00:00:00.000Z,0.1,,true\r\n\
                        ,,3,-7,\r\n";
        assert_eq!(to_csv(&table), expected);
    }
}
