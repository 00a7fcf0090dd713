//! The SQL of each kind's table, made once of [`Kind::fields`].

use std::sync::OnceLock;

use dwell_model::event::Kind;

/// Columns before the payload: venue_ref, ts, sensor_ref, key_ref, payload_hash, revision.
pub(super) const COLUMNS_BEFORE_PAYLOAD: usize = 6;

/// Statements on the table of one kind.
#[derive(Debug)]
pub(super) struct Statements {
    /// Adds a row; an identity and payload that is there is left alone.
    pub(super) insert: String,
    /// The deliveries of an identity and payload.
    pub(super) select_deliveries: String,
    /// Replaces the deliveries (`?6`) of an identity and payload.
    pub(super) update_deliveries: String,
    /// Removes an identity and payload that has exactly the deliveries `?6`.
    pub(super) delete: String,
    /// ts, sensor_ref, key_ref, revision, deliveries, payload … of a venue's rows in a range.
    pub(super) scan: String,
    /// Number of a venue's rows in a range.
    pub(super) count: String,
    /// Removes an identity and payload, whatever its deliveries.
    pub(super) erase: String,
    /// A row of a venue that uses a name (`?2`).
    pub(super) uses_name: String,
}

/// The statements of a kind.
pub(super) fn statements(kind: Kind) -> &'static Statements {
    static ALL: OnceLock<Vec<Statements>> = OnceLock::new();
    &ALL.get_or_init(|| Kind::ALL.into_iter().map(build).collect())[kind as usize]
}

fn build(kind: Kind) -> Statements {
    let table = format!("raw_{}", kind.name());
    let payload: String = kind
        .fields()
        .iter()
        .map(|field| format!("\"{}\", ", field.name))
        .collect();
    let values = vec!["?"; COLUMNS_BEFORE_PAYLOAD + kind.fields().len() + 1].join(", ");
    let one_row = "venue_ref = ?1 AND ts = ?2 AND sensor_ref = ?3 AND key_ref = ?4 AND payload_hash = ?5";
    let in_range = "venue_ref = ?1 AND ts >= ?2 AND ts < ?3";
    let payload_last = payload.trim_end_matches(", ");
    Statements {
        insert: format!(
            "INSERT INTO {table} (venue_ref, ts, sensor_ref, key_ref, payload_hash, revision, {payload}deliveries)
             VALUES ({values}) ON CONFLICT DO NOTHING"
        ),
        select_deliveries: format!("SELECT deliveries FROM {table} WHERE {one_row}"),
        update_deliveries: format!("UPDATE {table} SET deliveries = ?6 WHERE {one_row}"),
        delete: format!("DELETE FROM {table} WHERE {one_row} AND deliveries = ?6"),
        scan: format!(
            "SELECT ts, sensor_ref, key_ref, revision, deliveries, {payload_last} FROM {table}
             WHERE {in_range} ORDER BY venue_ref, ts, sensor_ref, key_ref, payload_hash"
        ),
        count: format!("SELECT count(*) FROM {table} WHERE {in_range}"),
        erase: format!("DELETE FROM {table} WHERE {one_row}"),
        uses_name: format!(
            "SELECT 1 FROM {table} WHERE venue_ref = ?1 AND (key_ref = ?2 OR sensor_ref = ?2) LIMIT 1"
        ),
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::event::FieldType;
    use rusqlite::Connection;

    use super::*;
    use crate::migrations;

    /// The migration is written out, because it must never change; this holds it against the kinds.
    #[test]
    fn each_kind_has_a_table_with_its_fields() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::migrate(&mut connection, &migrations::DATA).unwrap();
        for kind in Kind::ALL {
            let mut info = connection
                .prepare(&format!("PRAGMA table_info(raw_{})", kind.name()))
                .unwrap();
            let columns: Vec<(String, String, i64)> = info
                .query_map([], |row| Ok((row.get(1)?, row.get(2)?, row.get(5)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let integer = |name: &str, key| (name.to_owned(), "INTEGER".to_owned(), key);
            let mut expected = vec![
                integer("venue_ref", 1),
                integer("ts", 2),
                integer("sensor_ref", 3),
                integer("key_ref", 4),
                integer("payload_hash", 5),
                integer("revision", 0),
            ];
            expected.extend(kind.fields().iter().map(|field| {
                let ty = match field.ty {
                    FieldType::F32 | FieldType::F64 => "REAL",
                    FieldType::I64 => "INTEGER",
                    FieldType::Text => "TEXT",
                };
                (field.name.to_owned(), ty.to_owned(), 0)
            }));
            expected.push(("deliveries".to_owned(), "BLOB".to_owned(), 0));
            assert_eq!(columns, expected, "{kind}");
        }
    }

    #[test]
    fn scanning_and_counting_walk_the_key_without_sorting() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::migrate(&mut connection, &migrations::DATA).unwrap();
        for kind in Kind::ALL {
            for sql in [&statements(kind).scan, &statements(kind).count] {
                let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let steps: Vec<String> = explain
                    .query_map((1, 2, 3), |row| row.get(3))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect();
                let expected = format!(
                    "SEARCH raw_{} USING PRIMARY KEY (venue_ref=? AND ts>? AND ts<?)",
                    kind.name()
                );
                assert_eq!(steps, [expected]);
            }
        }
    }
}
