//! The keyspace and its tables, brought up to date by command.
//!
//! [`migrate`] creates the keyspace if it is missing and applies the files of `migrations/cql` that it lacks, one after
//! the other, each statement followed by waiting for the nodes to agree. A file's statements can be repeated (`IF NOT
//! EXISTS`), so a migration that died midway is simply run again. Released files never change: a new version is a new
//! file.
//!
//! `schema_version` holds the versions applied. Two migrations at once are kept apart by `schema_lock`, a conditional
//! write with a time to live; all schema changes go to one node, the same one for everybody, because nodes that change
//! the schema at the same time can disagree for good.

use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::clock::SharedClock;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{
    LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::unprepared::Statement;

use super::cluster::{Cluster, Cql};
use super::config::CassandraConfig;
use super::errors;
use crate::error::{ErrorKind, Result, StorageError};

mod inspection;

pub use inspection::{Finding, FindingLevel, inspect};

/// The files in their order; the first one makes version 1.
const FILES: &[File] = &[
    File {
        name: "0001_raw",
        cql: include_str!("../../migrations/cql/0001_raw.cql"),
    },
    File {
        name: "0002_tables",
        cql: include_str!("../../migrations/cql/0002_tables.cql"),
    },
    File {
        name: "0003_documents",
        cql: include_str!("../../migrations/cql/0003_documents.cql"),
    },
    File {
        name: "0004_quarantine",
        cql: include_str!("../../migrations/cql/0004_quarantine.cql"),
    },
];

/// The schema version that this program works with.
pub const SCHEMA_VERSION: u32 = FILES.len() as u32;

/// A schema change waits for all nodes, so it takes seconds.
const SCHEMA_CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a lock outlives who holds it. Renewed before each statement, which takes less than that.
const LOCK_SECONDS: i32 = 120;
/// How long to wait for another migration to end.
const LOCK_WAIT_MS_MAX: u64 = 180_000;
const LOCK_POLL_MS: u64 = 500;

const BOOKS: &str = "
CREATE TABLE IF NOT EXISTS {ks}.schema_version (
    part text, version int, name text, applied_at_ms bigint, PRIMARY KEY (part, version)
) WITH comment = 'Migrations applied, one row each.';
CREATE TABLE IF NOT EXISTS {ks}.schema_lock (
    part text PRIMARY KEY, owner blob
) WITH comment = 'Held while a migration runs.';
";
const PART: &str = "dwell";

const VERSIONS: Cql = Cql::read(
    "read the schema version",
    "SELECT version FROM {ks}.schema_version WHERE part = ?",
);
const RECORD: Cql = Cql::write(
    "record a migration",
    "INSERT INTO {ks}.schema_version (part, version, name, applied_at_ms) VALUES (?, ?, ?, ?)",
);
const LOCK: Cql = Cql::conditional(
    "lock the schema",
    "INSERT INTO {ks}.schema_lock (part, owner) VALUES (?, ?) IF NOT EXISTS USING TTL ?",
);
const RENEW: Cql = Cql::conditional(
    "keep the schema locked",
    "UPDATE {ks}.schema_lock USING TTL ? SET owner = ? WHERE part = ? IF owner = ?",
);
const UNLOCK: Cql = Cql::conditional(
    "unlock the schema",
    "DELETE FROM {ks}.schema_lock WHERE part = ? IF owner = ?",
);
const LOCK_OWNER: Cql = Cql::serial_read(
    "read the schema's lock",
    "SELECT owner FROM {ks}.schema_lock WHERE part = ?",
);

struct File {
    name: &'static str,
    cql: &'static str,
}

/// Creates the keyspace and brings its tables up to date; returns the version they have then. Running it again, or
/// twice at a time, changes nothing. A keyspace that exists keeps its replication.
pub async fn migrate(config: &CassandraConfig, clock: SharedClock) -> Result<u32> {
    let cluster = Cluster::connect(config, clock).await?;
    let migration = Migration::new(&cluster).await?;
    migration.create_keyspace(config.replication).await?;
    for statement in statements(BOOKS, migration.compaction) {
        migration
            .change("create the tables of the schema's books", statement)
            .await?;
    }
    let lock = Lock::take(&cluster).await?;
    let outcome = migration.apply(&lock).await;
    // A lock that is not given back ends by itself.
    if let Err(error) = lock.release().await {
        tracing::warn!(%error, "the lock of the schema was not given back; it ends by itself");
    }
    outcome
}

/// Refuses a keyspace of another version than this program's.
pub(super) async fn check_version(cluster: &Cluster) -> Result<()> {
    let found = version(cluster).await?;
    let keyspace = cluster.keyspace();
    let refuse = |why: String| Err(StorageError::new(ErrorKind::Invalid, why));
    match found {
        Some(found) if found == SCHEMA_VERSION => Ok(()),
        Some(found) if found > SCHEMA_VERSION => refuse(format!(
            "the keyspace {keyspace} has schema version {found}, this program knows up to {SCHEMA_VERSION}: it was written \
             by a newer Dwell; run that one"
        )),
        Some(found) => refuse(format!(
            "the keyspace {keyspace} has schema version {found}, this program needs {SCHEMA_VERSION}: run dwell migrate"
        )),
        None => refuse(format!(
            "the keyspace {keyspace} has no tables of Dwell: run dwell migrate"
        )),
    }
}

/// The version of the keyspace's tables; `None` without tables.
async fn version(cluster: &Cluster) -> Result<Option<u32>> {
    let tables = Statement::new(format!(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{}' AND table_name = 'schema_version'",
        cluster.keyspace()
    ));
    let found = cluster.run_once("look for the schema's version", tables).await?;
    let found = found
        .into_rows_result()
        .map_err(|error| errors::not_rows("look for the schema's version", error))?;
    if found.rows_num() == 0 {
        return Ok(None);
    }
    let versions: Vec<(i32,)> = cluster.all(VERSIONS, (PART,)).await?;
    Ok(versions
        .iter()
        .filter_map(|(version,)| u32::try_from(*version).ok())
        .max())
}

struct Migration<'a> {
    cluster: &'a Cluster,
    /// The node that all schema changes go to.
    node: Arc<dyn LoadBalancingPolicy>,
    is_scylla: bool,
    compaction: Compaction,
}

/// Which compaction the servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compaction {
    /// Cassandra 5 and later.
    Unified,
    /// Before that, and ScyllaDB.
    Tiered,
}

impl Compaction {
    fn word(self) -> &'static str {
        match self {
            Compaction::Unified => "unified",
            Compaction::Tiered => "tiered",
        }
    }

    /// By the version that a node tells. ScyllaDB tells that of the Cassandra it resembles: 3.
    async fn of(cluster: &Cluster) -> Result<Self> {
        let doing = "read the servers' version";
        let select = Statement::new("SELECT release_version FROM system.local");
        let rows = cluster.run_once(doing, select).await?;
        let rows = rows
            .into_rows_result()
            .map_err(|error| errors::not_rows(doing, error))?;
        let (version,) = rows
            .first_row::<(&str,)>()
            .map_err(|error| errors::damaged(doing, error))?;
        let major: u32 = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0);
        Ok(if major >= 5 { Self::Unified } else { Self::Tiered })
    }
}

impl<'a> Migration<'a> {
    async fn new(cluster: &'a Cluster) -> Result<Self> {
        let state = cluster.session().get_cluster_state();
        let nearby = |node: &&Arc<Node>| {
            node.is_connected() && node.datacenter.as_deref() == Some(cluster.local_datacenter())
        };
        let first = state
            .get_nodes_info()
            .iter()
            .filter(nearby)
            .min_by_key(|node| node.host_id);
        let first = first
            .ok_or_else(|| StorageError::new(ErrorKind::Unavailable, "no node of Cassandra is connected"))?;
        Ok(Self {
            cluster,
            node: SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(first)), None),
            is_scylla: first.sharder().is_some(),
            compaction: Compaction::of(cluster).await?,
        })
    }

    async fn create_keyspace(&self, replication: u32) -> Result<()> {
        let doing = "create the keyspace";
        let create = format!(
            "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', '{}': {replication}}}",
            self.cluster.keyspace(),
            self.cluster.local_datacenter().replace('\'', "''"),
        );
        if self.is_scylla {
            // Conditional writes need a keyspace without tablets on most versions of ScyllaDB; versions before
            // tablets do not know the option.
            match self
                .change(doing, format!("{create} AND tablets = {{'enabled': false}}"))
                .await
            {
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Bug) => {}
                done => return done,
            }
        }
        self.change(doing, create).await
    }

    async fn apply(&self, lock: &Lock<'_>) -> Result<u32> {
        let found = version(self.cluster).await?.unwrap_or(0);
        if found > SCHEMA_VERSION {
            check_version(self.cluster).await?;
        }
        for (file, number) in FILES.iter().zip(1..).skip(found as usize) {
            for statement in statements(file.cql, self.compaction) {
                lock.renew().await?;
                self.change_or_find(&format!("apply {}", file.name), &statement)
                    .await?;
            }
            let now_ms = self.cluster.clock().now_ms();
            self.cluster
                .execute(RECORD, (PART, number, file.name, now_ms))
                .await?;
            tracing::info!(
                keyspace = self.cluster.keyspace(),
                version = number,
                file = file.name,
                "schema brought up to date"
            );
        }
        Ok(SCHEMA_VERSION)
    }

    /// Makes one change that can be repeated. Older servers, and ScyllaDB, cannot add a column only if it is missing: there
    /// it is added, and one that is there already is fine.
    async fn change_or_find(&self, doing: &str, statement: &str) -> Result<()> {
        let refused = match self.change(doing, statement).await {
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Bug) => error,
            done => return done,
        };
        let Some(plain) = without_condition(statement) else {
            return Err(refused);
        };
        match self.change(doing, plain).await {
            Err(error) if says_that_it_is_there(&error.to_string()) => Ok(()),
            done => done,
        }
    }

    /// Makes one change to the schema; returns when all nodes agree. The driver waits for that after every change.
    async fn change(&self, doing: &str, text: impl AsRef<str>) -> Result<()> {
        let mut statement = Statement::new(self.cluster.text(text.as_ref()));
        statement.set_request_timeout(Some(SCHEMA_CHANGE_TIMEOUT));
        statement.set_load_balancing_policy(Some(Arc::clone(&self.node)));
        statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        self.cluster
            .run_once("change the schema", statement)
            .await
            .map_err(|error| error.while_doing(doing))?;
        Ok(())
    }
}

/// The lock of the schema, held.
struct Lock<'a> {
    cluster: &'a Cluster,
    owner: [u8; 16],
}

impl<'a> Lock<'a> {
    async fn take(cluster: &'a Cluster) -> Result<Self> {
        let mut owner = [0_u8; 16];
        getrandom::fill(&mut owner)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, "make up a name for a lock", error))?;
        let lock = Self { cluster, owner };
        let mut waited_ms = 0;
        loop {
            if cluster
                .conditional(LOCK, (PART, owner.as_slice(), LOCK_SECONDS), lock.is_held())
                .await?
            {
                return Ok(lock);
            }
            if waited_ms >= LOCK_WAIT_MS_MAX {
                let why = "another migration has been running for minutes; look at schema_lock";
                return Err(StorageError::new(ErrorKind::Busy, why));
            }
            cluster.clock().sleep(Duration::from_millis(LOCK_POLL_MS)).await;
            waited_ms += LOCK_POLL_MS;
        }
    }

    async fn renew(&self) -> Result<()> {
        let owner = self.owner.as_slice();
        if self
            .cluster
            .conditional(RENEW, (LOCK_SECONDS, owner, PART, owner), self.is_held())
            .await?
        {
            return Ok(());
        }
        // Contention shows as not applied, too.
        match self.is_held().await? {
            true => Ok(()),
            false => Err(StorageError::new(
                ErrorKind::Conflict,
                "another migration has taken the schema's lock",
            )),
        }
    }

    async fn release(&self) -> Result<()> {
        let gone = async { Ok(!self.is_held().await?) };
        self.cluster
            .conditional(UNLOCK, (PART, self.owner.as_slice()), gone)
            .await?;
        Ok(())
    }

    async fn is_held(&self) -> Result<bool> {
        let owner: Option<(Option<Vec<u8>>,)> = self.cluster.first(LOCK_OWNER, (PART,)).await?;
        Ok(owner
            .and_then(|(owner,)| owner)
            .is_some_and(|owner| owner == self.owner))
    }
}

/// A statement that adds a column, without its condition; `None` for any other.
fn without_condition(statement: &str) -> Option<String> {
    let adds = statement.starts_with("ALTER TABLE") && statement.contains(" ADD IF NOT EXISTS ");
    adds.then(|| statement.replace(" ADD IF NOT EXISTS ", " ADD "))
}

/// Whether servers say of a column that it is there, each in its words.
fn says_that_it_is_there(message: &str) -> bool {
    ["already exist", "conflicts with an existing column"]
        .iter()
        .any(|words| message.contains(words))
}

/// The statements of a file: comments go, a semicolon at the end of a line ends one.
///
/// A comment `-- @NAME: TEXT` defines what `@NAME` stands for in the statements after it; `-- @NAME unified: TEXT` does so
/// where there is unified compaction, `-- @NAME tiered: TEXT` where there is none.
fn statements(cql: &str, compaction: Compaction) -> Vec<String> {
    let mut definitions: Vec<(&str, &str)> = Vec::new();
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in cql.lines() {
        if let Some((name, meant)) = definition(line, compaction) {
            definitions.push((name, meant));
        }
        let line = line.split("--").next().unwrap_or_default().trim_end();
        if line.is_empty() {
            continue;
        }
        let line = definitions
            .iter()
            .fold(line.to_owned(), |line, (name, meant)| line.replace(name, meant));
        match line.strip_suffix(';') {
            Some(last) => {
                current.push_str(last);
                statements.push(std::mem::take(&mut current));
            }
            None => {
                current.push_str(&line);
                current.push('\n');
            }
        }
    }
    debug_assert!(current.is_empty(), "a statement does not end: {current}");
    statements
}

/// The definition in a line, with the `@` of its name, if it is meant for this compaction.
fn definition(line: &str, compaction: Compaction) -> Option<(&str, &str)> {
    let (head, meant) = line.strip_prefix("-- ")?.split_once(": ")?;
    let mut words = head.split(' ');
    let name = words.next().filter(|name| name.starts_with('@'))?;
    match (words.next(), words.next()) {
        (None, _) => Some((name, meant)),
        (Some(word), None) if word == compaction.word() => Some((name, meant)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_statements_without_its_comments() {
        let file = "-- a; b\nCREATE TABLE x (\n  a int, -- why;\n  b int\n);\n\nALTER TABLE x;\n";
        let cut = statements(file, Compaction::Tiered);
        assert_eq!(cut, ["CREATE TABLE x (\n  a int,\n  b int\n)", "ALTER TABLE x"]);
    }

    #[test]
    fn a_definition_stands_for_its_text_where_it_is_meant() {
        let file = "-- @how unified: {'u': 1}\n-- @how tiered: {'t': 1}\n-- @all: {'a': 1}\nCREATE x WITH @how AND @all;\n";
        assert_eq!(
            statements(file, Compaction::Unified),
            ["CREATE x WITH {'u': 1} AND {'a': 1}"]
        );
        assert_eq!(
            statements(file, Compaction::Tiered),
            ["CREATE x WITH {'t': 1} AND {'a': 1}"]
        );
    }

    #[test]
    fn a_column_can_be_added_where_servers_know_no_condition() {
        let all = statements(
            include_str!("../../migrations/cql/0004_quarantine.cql"),
            Compaction::Tiered,
        );
        let plain: Vec<_> = all
            .iter()
            .filter_map(|statement| without_condition(statement))
            .collect();
        assert_eq!(plain, ["ALTER TABLE {ks}.quarantine ADD sensor text"]);
        assert!(says_that_it_is_there("Column with name 'sensor' already exists"));
        assert!(says_that_it_is_there(
            "Invalid column name sensor because it conflicts with an existing column"
        ));
        assert!(!says_that_it_is_there("unconfigured table"));
    }

    #[test]
    fn every_statement_of_the_files_can_be_repeated_and_names_its_keyspace() {
        for (file, compaction) in FILES
            .iter()
            .flat_map(|file| [(file, Compaction::Unified), (file, Compaction::Tiered)])
        {
            let all = statements(file.cql, compaction);
            assert!(!all.is_empty(), "{}", file.name);
            for statement in all {
                assert!(!statement.contains('@'), "{}: {statement}", file.name);
                assert!(statement.contains("IF NOT EXISTS"), "{}: {statement}", file.name);
                assert!(statement.contains("{ks}."), "{}: {statement}", file.name);
            }
        }
    }
}
