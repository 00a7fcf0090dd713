//! The stores in Cassandra, on a real server: the conformance suite, and what it cannot ask of every backend.
//!
//! `DWELL_TEST_CASSANDRA` names contact points (`127.0.0.1:9042`); without it the tests say that they are skipped, and
//! pass. `DWELL_TEST_CASSANDRA_REPLICATION` says how many copies of each row there are. Tests share keyspaces, with names
//! made up, one after the other; the last one drops them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, and say when they skip"
)]

mod conformance;
mod lost_answers;
mod proxy;
mod races;
mod raw_events;
mod schema;
mod tables;

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_runtime::clock::SystemClock;
use dwell_storage::backends::cassandra::{CassandraConfig, CassandraStores, contact_points, migrate};
use futures::FutureExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::Semaphore;

/// Names the contact points.
const SERVER: &str = "DWELL_TEST_CASSANDRA";
/// Copies of each row, where there are nodes for them; 1 without it.
const COPIES: &str = "DWELL_TEST_CASSANDRA_REPLICATION";

/// A keyspace for one test.
struct Keyspace {
    config: CassandraConfig,
    /// For what no store does.
    session: Session,
}

/// Keyspaces that two tests at a time may use. Each table costs the server memory, that of dropped ones too, so hundreds
/// of keyspaces with forty tables each are more than a small server bears.
static ROOM: Semaphore = Semaphore::const_new(2);
/// Keyspaces that no test uses.
static IDLE: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Tests that use a keyspace or wait for one: the last one drops them all.
static TESTS: AtomicUsize = AtomicUsize::new(0);

/// Runs a test on a keyspace with all tables, empty.
async fn in_fresh_keyspace(test: impl AsyncFnOnce(&Keyspace)) {
    if is_skipped() {
        return;
    }
    TESTS.fetch_add(1, Ordering::SeqCst);
    let room = ROOM.acquire().await.unwrap();
    let idle = IDLE.lock().unwrap().pop();
    let keyspace = Keyspace::connect(idle.clone()).await;
    let outcome = AssertUnwindSafe(async {
        match idle {
            None => {
                migrate(&keyspace.config, SystemClock::shared()).await.unwrap();
            }
            Some(_) => {
                keyspace.emptied().await;
            }
        }
        test(&keyspace).await;
    });
    let outcome = outcome.catch_unwind().await;
    IDLE.lock().unwrap().push(keyspace.config.keyspace.clone());
    if TESTS.fetch_sub(1, Ordering::SeqCst) == 1 {
        let all = std::mem::take(&mut *IDLE.lock().unwrap());
        for name in all {
            keyspace.cql(&format!("DROP KEYSPACE IF EXISTS {name}")).await;
        }
    }
    drop(room);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test on a keyspace of its own with all tables, and drops it whatever the test's outcome.
async fn in_own_keyspace(test: impl AsyncFnOnce(&Keyspace)) {
    in_unmade_keyspace(async |keyspace| {
        migrate(&keyspace.config, SystemClock::shared()).await.unwrap();
        test(keyspace).await;
    })
    .await;
}

/// Like [`in_own_keyspace`], before the keyspace is created.
async fn in_unmade_keyspace(test: impl AsyncFnOnce(&Keyspace)) {
    if is_skipped() {
        return;
    }
    let keyspace = Keyspace::connect(None).await;
    let outcome = AssertUnwindSafe(test(&keyspace)).catch_unwind().await;
    keyspace.cql("DROP KEYSPACE IF EXISTS {ks}").await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn is_skipped() -> bool {
    let is_skipped = std::env::var(SERVER).is_err();
    if is_skipped {
        eprintln!("skipped: {SERVER} names no server");
    }
    is_skipped
}

impl Keyspace {
    /// A keyspace by its name, or by a new one.
    async fn connect(name: Option<String>) -> Self {
        let mut random = [0; 6];
        getrandom::fill(&mut random).unwrap();
        let config = CassandraConfig {
            contact_points: contact_points(&std::env::var(SERVER).unwrap()).unwrap(),
            keyspace: name.unwrap_or_else(|| format!("dwell_test_{}", hex::encode(random))),
            replication: std::env::var(COPIES).map_or(1, |copies| copies.parse().unwrap()),
            single_node: true,
            ..CassandraConfig::default()
        };
        let session = SessionBuilder::new()
            .known_nodes(&config.contact_points)
            .build()
            .await
            .unwrap();
        Self { config, session }
    }

    /// Its stores, on a connection of their own.
    async fn stores(&self) -> CassandraStores {
        CassandraStores::open(&self.config, SystemClock::shared())
            .await
            .unwrap()
    }

    /// Its stores with all tables empty: for the next case of a suite, since making a keyspace takes longer. The stores
    /// opened before must not be used any more, they remember what they wrote.
    async fn emptied(&self) -> CassandraStores {
        let select = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let tables = self
            .session
            .query_unpaged(select, (&self.config.keyspace,))
            .await
            .unwrap();
        let tables = tables.into_rows_result().unwrap();
        let tables = tables.rows::<(String,)>().unwrap().map(|row| row.unwrap().0);
        let truncate = tables
            .filter(|table| !table.starts_with("schema_"))
            .map(async |table| {
                let any = self
                    .session
                    .query_unpaged(self.text(&format!("SELECT * FROM {{ks}}.{table} LIMIT 1")), ())
                    .await;
                if any.unwrap().into_rows_result().unwrap().rows_num() > 0 {
                    self.cql(&format!("TRUNCATE {{ks}}.{table}")).await;
                }
            });
        futures::future::join_all(truncate).await;
        self.stores().await
    }

    /// Runs a statement; `{ks}` stands for the keyspace.
    async fn cql(&self, text: &str) {
        self.session.query_unpaged(self.text(text), ()).await.unwrap();
    }

    fn text(&self, text: &str) -> String {
        text.replace("{ks}", &self.config.keyspace)
    }
}
