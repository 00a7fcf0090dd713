//! Schemas of the embedded databases, version by version.
//!
//! `PRAGMA user_version` holds the version of a file, `PRAGMA application_id` says that it is Dwell's and which of its
//! databases it is. A migration never changes once it is released: a new version is a new file. Each runs in one
//! transaction with its version number, so that a crash leaves the old or the new schema. A file made by a newer Dwell
//! is refused.

use rusqlite::{Connection, TransactionBehavior};

/// The schema of one database file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    /// Name for messages.
    pub(crate) name: &'static str,
    /// Marks the file as this database.
    pub(crate) application_id: i32,
    /// `versions[n]` takes the schema from version `n` to `n + 1`.
    pub(crate) versions: &'static [&'static str],
}

/// The event log.
pub(crate) const LOG: Schema = Schema {
    name: "event log",
    application_id: 0x4477_6c01,
    versions: &[include_str!("migrations/sql/log_0001.sql")],
};

/// All tables but those of the log and the keys.
pub(crate) const DATA: Schema = Schema {
    name: "data tables",
    application_id: 0x4477_6c02,
    versions: &[
        include_str!("migrations/sql/data_0001.sql"),
        include_str!("migrations/sql/data_0002.sql"),
        include_str!("migrations/sql/data_0003_quarantine.sql"),
    ],
};

/// Keys of pseudonyms.
pub(crate) const KEYS: Schema = Schema {
    name: "pseudonym keys",
    application_id: 0x4477_6c03,
    versions: &[include_str!("migrations/sql/keys_0001.sql")],
};

/// Why a file cannot be brought to the current schema.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrationError {
    #[error(
        "it has schema version {found}, this program knows up to {known}: it was written by a newer Dwell; run that \
         one, or restore a backup made by this one"
    )]
    Newer { found: i64, known: i64 },
    #[error("it is no {expected} file of Dwell (application id {found:#x})")]
    Foreign { expected: &'static str, found: i64 },
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Brings a database to the current version of its schema.
pub(crate) fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), MigrationError> {
    let known = schema.versions.len() as i64;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let application: i64 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let untouched = found == 0 && application == 0 && is_empty(&transaction)?;
        if !untouched && application != i64::from(schema.application_id) {
            return Err(MigrationError::Foreign {
                expected: schema.name,
                found: application,
            });
        }
        if found > known {
            return Err(MigrationError::Newer { found, known });
        }
        let Some(sql) = usize::try_from(found)
            .ok()
            .and_then(|version| schema.versions.get(version))
        else {
            return Ok(());
        };
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
        tracing::info!(
            schema = schema.name,
            version = found + 1,
            "schema brought up to date"
        );
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Schema = Schema {
        name: "test",
        application_id: 7,
        versions: &["CREATE TABLE a (x) STRICT_", "CREATE TABLE b (y)"],
    };
    const GOOD: Schema = Schema {
        versions: &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"],
        ..TWO
    };

    fn version(connection: &Connection) -> i64 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn versions_are_applied_one_after_the_other_and_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        let first = Schema {
            versions: &GOOD.versions[..1],
            ..GOOD
        };
        migrate(&mut connection, &first).unwrap();
        assert_eq!(version(&connection), 1);
        connection.execute("INSERT INTO a VALUES (1)", []).unwrap();
        migrate(&mut connection, &GOOD).unwrap();
        migrate(&mut connection, &GOOD).unwrap();
        assert_eq!(version(&connection), 2);
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM a WHERE y IS NULL", [], |r| r.get(0))
            .unwrap();
        assert_eq!(rows, 1, "rows of the old schema are kept");
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(matches!(
            migrate(&mut connection, &TWO),
            Err(MigrationError::Sql(_))
        ));
        assert_eq!(version(&connection), 0);
        assert!(is_empty(&connection).unwrap());
    }

    #[test]
    fn a_newer_schema_and_a_foreign_file_are_refused_with_what_to_do() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &GOOD).unwrap();
        let older = Schema {
            versions: &GOOD.versions[..1],
            ..GOOD
        };
        let error = migrate(&mut connection, &older).unwrap_err();
        assert!(
            matches!(error, MigrationError::Newer { found: 2, known: 1 }),
            "{error}"
        );
        assert!(error.to_string().contains("newer Dwell"), "{error}");

        let other = Schema {
            application_id: 8,
            ..GOOD
        };
        assert!(matches!(
            migrate(&mut connection, &other),
            Err(MigrationError::Foreign { found: 7, .. })
        ));
        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute("CREATE TABLE theirs (x)", []).unwrap();
        assert!(matches!(
            migrate(&mut foreign, &GOOD),
            Err(MigrationError::Foreign { found: 0, .. })
        ));
    }
}
