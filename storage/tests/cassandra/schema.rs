//! Bringing the schema up to date, and refusing another one.

use dwell_runtime::clock::SystemClock;
use dwell_storage::backends::cassandra::{
    CassandraConfig, CassandraStores, FindingLevel, SCHEMA_VERSION, inspect, migrate,
};
use dwell_storage::error::ErrorKind;

use super::{Keyspace, in_own_keyspace, in_unmade_keyspace};

async fn refused(config: &CassandraConfig) -> (ErrorKind, String) {
    let error = CassandraStores::open(config, SystemClock::shared())
        .await
        .unwrap_err();
    (error.kind(), error.to_string())
}

async fn pretend(keyspace: &Keyspace, version: u32) {
    let insert = "INSERT INTO {ks}.schema_version (part, version, name) VALUES ('dwell', {v}, 'pretended')";
    keyspace.cql(&insert.replace("{v}", &version.to_string())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_at_once_and_again_end_in_one_schema() {
    in_unmade_keyspace(async |keyspace| {
        let clock = SystemClock::shared;
        let both = futures::future::join(
            migrate(&keyspace.config, clock()),
            migrate(&keyspace.config, clock()),
        )
        .await;
        assert_eq!(
            (both.0.unwrap(), both.1.unwrap()),
            (SCHEMA_VERSION, SCHEMA_VERSION)
        );
        assert_eq!(migrate(&keyspace.config, clock()).await.unwrap(), SCHEMA_VERSION);
        let applied = keyspace.text("SELECT version FROM {ks}.schema_version WHERE part = 'dwell'");
        let applied = keyspace
            .session
            .query_unpaged(applied, ())
            .await
            .unwrap()
            .into_rows_result()
            .unwrap();
        let applied: Vec<i32> = applied
            .rows::<(i32,)>()
            .unwrap()
            .map(|row| row.unwrap().0)
            .collect();
        assert_eq!(applied, (1..=SCHEMA_VERSION as i32).collect::<Vec<_>>());
        keyspace.stores().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_missing_older_or_newer_is_refused() {
    in_unmade_keyspace(async |keyspace| {
        let (kind, message) = refused(&keyspace.config).await;
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains("run dwell migrate"), "{message}");

        migrate(&keyspace.config, SystemClock::shared()).await.unwrap();
        keyspace.stores().await;
        pretend(keyspace, SCHEMA_VERSION + 1).await;
        let (kind, message) = refused(&keyspace.config).await;
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains("newer Dwell"), "{message}");
        let error = migrate(&keyspace.config, SystemClock::shared())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("newer Dwell"), "{error}");

        keyspace
            .cql("DELETE FROM {ks}.schema_version WHERE part = 'dwell'")
            .await;
        let (kind, message) = refused(&keyspace.config).await;
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains("run dwell migrate"), "{message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_waits_for_one_that_holds_the_lock() {
    in_own_keyspace(async |keyspace| {
        keyspace
            .cql("DELETE FROM {ks}.schema_version WHERE part = 'dwell'")
            .await;
        keyspace
            .cql(
                "INSERT INTO {ks}.schema_lock (part, owner) VALUES ('dwell', 0x07) IF NOT EXISTS USING TTL 3",
            )
            .await;
        let clock = SystemClock::shared();
        let start = clock.monotonic();
        assert_eq!(
            migrate(&keyspace.config, SystemClock::shared()).await.unwrap(),
            SCHEMA_VERSION
        );
        let waited = clock.monotonic() - start;
        assert!(waited.as_millis() >= 1_500, "it did not wait: {waited:?}");
        keyspace.stores().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_away_is_told_in_time() {
    // Port 1 refuses; 192.0.2.1 is an address for documents, where nobody answers at all.
    for point in ["127.0.0.1:1", "192.0.2.1:9042"] {
        let config = CassandraConfig {
            contact_points: vec![point.to_owned()],
            connect_timeout_ms: 2_000,
            ..CassandraConfig::default()
        };
        let clock = SystemClock::shared();
        let start = clock.monotonic();
        let (kind, message) = refused(&config).await;
        assert_eq!(kind, ErrorKind::Unavailable, "{message}");
        assert!(message.contains(point), "{message}");
        assert!((clock.monotonic() - start).as_secs() < 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inspection_names_what_is_wrong() {
    in_unmade_keyspace(async |keyspace| {
        let errors = async |config: &CassandraConfig| -> Vec<String> {
            let findings = inspect(config, SystemClock::shared()).await;
            let bad = findings
                .into_iter()
                .filter(|finding| finding.level != FindingLevel::Good);
            bad.map(|finding| finding.what).collect()
        };
        let missing = errors(&keyspace.config).await;
        assert!(
            missing.iter().any(|what| what.contains("does not exist")),
            "{missing:?}"
        );

        migrate(&keyspace.config, SystemClock::shared()).await.unwrap();
        assert_eq!(errors(&keyspace.config).await, [""; 0]);

        let careful = CassandraConfig {
            single_node: false,
            ..keyspace.config.clone()
        };
        let few = errors(&careful).await;
        assert!(few.len() == 1 && few[0].contains("keeps 1 copies"), "{few:?}");

        let away = CassandraConfig {
            contact_points: vec!["127.0.0.1:1".to_owned()],
            ..keyspace.config.clone()
        };
        assert_eq!(errors(&away).await.len(), 1);
    })
    .await;
}
