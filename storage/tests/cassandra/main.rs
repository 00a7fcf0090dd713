//! The stores in Cassandra, on a real server: the conformance suite, and what it cannot ask of every backend.
//!
//! `DWELL_TEST_CASSANDRA` names contact points (`127.0.0.1:9042`); without it the tests say that they are skipped, and
//! pass. Each test has a keyspace of its own, with a name made up, and drops it at its end.
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

use dwell_runtime::clock::SystemClock;
use dwell_storage::backends::cassandra::{CassandraConfig, CassandraStores, contact_points, migrate};
use futures::FutureExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

/// A keyspace for one test.
struct Keyspace {
    config: CassandraConfig,
    /// For what no store does.
    session: Session,
}

/// Runs a test on a fresh keyspace with all tables, and drops it whatever the test's outcome.
async fn in_fresh_keyspace(test: impl AsyncFnOnce(&Keyspace)) {
    in_unmade_keyspace(async |keyspace| {
        migrate(&keyspace.config, SystemClock::shared()).await.unwrap();
        test(keyspace).await;
    })
    .await;
}

/// Like [`in_fresh_keyspace`], before the keyspace is created.
async fn in_unmade_keyspace(test: impl AsyncFnOnce(&Keyspace)) {
    let Ok(points) = std::env::var("DWELL_TEST_CASSANDRA") else {
        eprintln!("skipped: DWELL_TEST_CASSANDRA names no server");
        return;
    };
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    let config = CassandraConfig {
        contact_points: contact_points(&points).unwrap(),
        keyspace: format!("dwell_test_{}", hex::encode(random)),
        replication: 1,
        single_node: true,
        ..CassandraConfig::default()
    };
    let session = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .build()
        .await
        .unwrap();
    let keyspace = Keyspace { config, session };
    let outcome = AssertUnwindSafe(test(&keyspace)).catch_unwind().await;
    keyspace.cql("DROP KEYSPACE IF EXISTS {ks}").await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Keyspace {
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
