//! The event log on a real Kafka broker: the conformance suite, and what it cannot ask of every backend: groups, topics
//! and their life, records of other producers, an outage.
//!
//! `DWELL_TEST_KAFKA` names the broker (`deploy/local/up` starts one); without it the tests say that they are skipped.
//! `DWELL_TEST_PYTHON` and `DWELL_TEST_KAFKA_OUTAGE` let two more run (`interop`, `outage`). Every log has topics of its
//! own, deleted at the end of its test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and say what they skip"
)]

mod admin;
mod conformance;
mod groups;
mod interop;
mod outage;
mod records;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_runtime::clock::SystemClock;
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

/// The brokers of the environment, and all topics made there by one test.
struct Kafka {
    bootstrap: String,
    prefixes: Mutex<Vec<String>>,
}

/// The brokers to test with; `None` (and a line that says so) without any.
fn kafka() -> Option<Kafka> {
    match std::env::var("DWELL_TEST_KAFKA") {
        Ok(bootstrap) => Some(Kafka::at(bootstrap)),
        Err(_) => {
            eprintln!("skipped: DWELL_TEST_KAFKA names no broker");
            None
        }
    }
}

impl Kafka {
    fn at(bootstrap: String) -> Self {
        Self {
            bootstrap,
            prefixes: Mutex::default(),
        }
    }

    /// A configuration with a prefix of its own.
    fn config(&self, shards: u32) -> KafkaConfig {
        let mut random = [0; 6];
        getrandom::fill(&mut random).unwrap();
        let prefix = format!("dwelltest-{}", hex::encode(random));
        self.prefixes.lock().unwrap().push(prefix.clone());
        KafkaConfig {
            bootstrap: self.bootstrap.clone(),
            prefix,
            shards,
            single_node: true,
            session_timeout_ms: 6_000,
            ..KafkaConfig::default()
        }
    }

    /// A log with topics of its own.
    async fn fresh_log(&self, shards: u32) -> (Arc<KafkaEventLog>, KafkaConfig) {
        let config = self.config(shards);
        KafkaLogAdmin::create(&config, &SystemClock::new()).await.unwrap();
        (open(&config).await, config)
    }
}

async fn open(config: &KafkaConfig) -> Arc<KafkaEventLog> {
    Arc::new(KafkaEventLog::open(config, SystemClock::shared()).await.unwrap())
}

fn client(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.bootstrap);
    client
}

fn admin_client(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap()
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let topics: Vec<String> = self
            .prefixes
            .lock()
            .unwrap()
            .iter()
            .flat_map(|prefix| {
                let kinds = dwell_model::event::Kind::ALL.map(|kind| format!("{prefix}.{kind}"));
                kinds.into_iter().chain([format!("{prefix}.log")])
            })
            .collect();
        let bootstrap = self.bootstrap.clone();
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let admin = admin_client(&bootstrap);
            let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
            // A broker that is gone has taken its topics along.
            let _ = runtime.block_on(admin.delete_topics(&names, &options));
        };
        let _ = dwell_runtime::tasks::thread("test-cleanup", delete)
            .unwrap()
            .join();
    }
}
