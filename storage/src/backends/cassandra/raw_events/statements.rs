//! The CQL of each kind's table, made once of [`Kind::fields`].

use std::sync::LazyLock;

use dwell_model::event::Kind;

use super::super::cluster::Cql;

/// Values of an insert before the payload: tenant, venue, utc_date, slot, ts, sensor, key, payload_hash, received_at,
/// receipt, revision.
pub(super) const VALUES_BEFORE_PAYLOAD: usize = 11;

/// Columns of a scan before the payload: ts, sensor, key, payload_hash, received_at, receipt, revision.
pub(super) const COLUMNS_BEFORE_PAYLOAD: usize = 7;

/// Adds one delivery of one payload.
pub(super) fn insert(kind: Kind) -> Cql {
    Cql::write("add raw events", &texts(kind).insert)
}

/// The rows of a partition in a range of times.
pub(super) fn scan(kind: Kind) -> Cql {
    Cql::read("scan raw events", &texts(kind).scan)
}

/// One answer row for each payload of a partition in a range of times.
pub(super) fn count(kind: Kind) -> Cql {
    Cql::read("count raw events", &texts(kind).count)
}

/// Removes all deliveries of a payload.
pub(super) fn erase(kind: Kind) -> Cql {
    Cql::write("erase raw events", &texts(kind).erase)
}

/// Removes what a partition held that was written up to a write time.
pub(super) fn delete(kind: Kind) -> Cql {
    Cql::write("remove compared raw events", &texts(kind).delete)
}

struct Texts {
    insert: String,
    scan: String,
    count: String,
    delete: String,
    erase: String,
}

fn texts(kind: Kind) -> &'static Texts {
    static ALL: LazyLock<[Texts; Kind::ALL.len()]> = LazyLock::new(|| Kind::ALL.map(build));
    &ALL[kind as usize]
}

fn build(kind: Kind) -> Texts {
    let table = format!("{{ks}}.raw_{}", kind.name());
    let partition = "tenant, venue, utc_date, slot";
    let identity = "ts, sensor, key, payload_hash";
    let payload: String = kind
        .fields()
        .iter()
        .map(|field| format!(", {}", field.name))
        .collect();
    let values = vec!["?"; VALUES_BEFORE_PAYLOAD + kind.fields().len()].join(", ");
    let in_range = "tenant = ? AND venue = ? AND utc_date = ? AND slot = ? AND ts >= ? AND ts < ?";
    Texts {
        insert: format!(
            "INSERT INTO {table} ({partition}, {identity}, received_at, receipt, revision{payload}) VALUES ({values})"
        ),
        scan: format!(
            "SELECT {identity}, received_at, receipt, revision{payload} FROM {table} WHERE {in_range}"
        ),
        delete: format!(
            "DELETE FROM {table} USING TIMESTAMP ? WHERE tenant = ? AND venue = ? AND utc_date = ? AND slot = ?"
        ),
        erase: format!(
            "DELETE FROM {table} WHERE tenant = ? AND venue = ? AND utc_date = ? AND slot = ? AND ts = ? AND sensor = ? \
             AND key = ? AND payload_hash = ?"
        ),
        count: format!("SELECT payload_hash FROM {table} WHERE {in_range} GROUP BY {partition}, {identity}"),
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::event::FieldType;

    use super::*;

    /// The migration is written out, because it must never change; this holds it against the kinds.
    #[test]
    fn each_kind_has_a_table_with_its_fields() {
        let file = include_str!("../../../migrations/cql/0001_raw.cql");
        for kind in Kind::ALL {
            let start = format!("CREATE TABLE IF NOT EXISTS {{ks}}.raw_{} (", kind.name());
            let table = file.split_once(&start).unwrap().1;
            let table = table.split_once("PRIMARY KEY").unwrap().0;
            let columns: Vec<&str> = table
                .trim()
                .split(',')
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect();
            let mut expected: Vec<String> =
                "tenant text, venue text, utc_date date, slot smallint, ts bigint, sensor text, \
                key text, payload_hash bigint, received_at bigint, receipt blob, revision bigint"
                    .split(", ")
                    .map(str::to_owned)
                    .collect();
            expected.extend(kind.fields().iter().map(|field| {
                let ty = match field.ty {
                    FieldType::F32 => "float",
                    FieldType::F64 => "double",
                    FieldType::I64 => "bigint",
                    FieldType::Text => "text",
                };
                format!("{} {ty}", field.name)
            }));
            assert_eq!(columns, expected, "{kind}");
        }
    }

    #[test]
    fn an_insert_has_a_value_for_each_column() {
        for kind in Kind::ALL {
            let text = &texts(kind).insert;
            let (columns, values) = text.split_once(" VALUES ").unwrap();
            assert_eq!(
                columns.split_once(" (").unwrap().1.split(',').count(),
                values.matches('?').count(),
                "{text}"
            );
        }
    }
}
