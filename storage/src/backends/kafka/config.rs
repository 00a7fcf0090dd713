//! What is configured of the Kafka log, and the librdkafka settings made from it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{ErrorKind, StorageError};

/// Most shards of a log: with a topic per kind there are seven times as many Kafka partitions.
const SHARDS_MAX: u32 = 4_096;
/// Kafka's own limit on the length of a topic's name.
const TOPIC_BYTES_MAX: usize = 249;
/// Longest ending of a topic's name, the dot included.
const TOPIC_ENDING_BYTES: usize = ".transaction".len();

/// Settings that correctness rests upon, which `properties` may not change.
const FIXED: [&str; 16] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "client.rack",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// Where the log is and how it is made. All but `bootstrap` and `prefix` have defaults fit for three brokers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first: `host:port`, several with commas between.
    pub bootstrap: String,
    /// What the names of topics and groups begin with: `<prefix>.position`, …
    pub prefix: String,
    /// Partitions of each topic, when they are made. Fixed for the log's life; every shard is read by one process
    /// of a role, so it bounds how many of them can share the work.
    pub shards: u32,
    /// Copies of each partition, when the topics are made; all but one of them must have a record before it counts.
    /// Left out it is 3, or 1 with `single_node`.
    pub replication: Option<i16>,
    /// Says that few brokers are meant: allows replication 1 and 2, with which one broken disk loses events.
    pub single_node: bool,
    /// For how long Kafka keeps records, when the topics are made, in milliseconds (30 days).
    pub retention_ms: i64,
    /// After how long a record that was not acknowledged makes its append fail, in milliseconds.
    pub delivery_timeout_ms: u64,
    /// After how long of silence a process loses its shards to others, in milliseconds. Brokers accept 6 seconds to
    /// 30 minutes unless told otherwise.
    pub session_timeout_ms: u64,
    /// Further settings of librdkafka for every client, for example `security.protocol` and `sasl.*`. Those that
    /// correctness rests upon are refused. Values of passwords and keys are not shown.
    #[serde(serialize_with = "without_secrets")]
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".to_owned(),
            prefix: "dwell".to_owned(),
            shards: 12,
            replication: None,
            single_node: false,
            retention_ms: 30 * 24 * 60 * 60 * 1_000,
            delivery_timeout_ms: 10_000,
            session_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("replication", &self.replication)
            .field("single_node", &self.single_node)
            .field("retention_ms", &self.retention_ms)
            .field("delivery_timeout_ms", &self.delivery_timeout_ms)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("properties", &shown(&self.properties))
            .finish()
    }
}

/// A configuration that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaConfigError {
    /// The text is not of the form.
    #[error("{0:?} is not of the form kafka://host:port,host:port/prefix")]
    Uri(String),
    /// A broker's address is not `host:port`.
    #[error("{0:?} is not the address of a broker: host:port is expected")]
    Broker(String),
    /// Topics cannot be named so.
    #[error("topics cannot be named {0:?}.…: letters, digits, dots, dashes and underscores, at most {max} of them", max = TOPIC_BYTES_MAX - TOPIC_ENDING_BYTES)]
    Prefix(String),
    /// A number out of its range.
    #[error("{name} is {value}, but must lie between {min} and {max}")]
    Range {
        /// Of the setting.
        name: &'static str,
        /// What was set.
        value: i64,
        /// Least that is allowed.
        min: i64,
        /// Most that is allowed.
        max: i64,
    },
    /// A property that Dwell sets itself.
    #[error("properties may not set {0:?}, which the log's promises rest upon")]
    Fixed(String),
}

impl From<KafkaConfigError> for StorageError {
    fn from(error: KafkaConfigError) -> Self {
        StorageError::with_source(ErrorKind::Invalid, "configuration of the Kafka log", error)
    }
}

impl FromStr for KafkaConfig {
    type Err = KafkaConfigError;

    /// Reads `kafka://host:port,host2:port2/prefix`; the prefix may be left out.
    fn from_str(uri: &str) -> Result<Self, KafkaConfigError> {
        Self::from_uri(uri)
    }
}

impl KafkaConfig {
    /// Reads `kafka://host:port,host2:port2/prefix`; the prefix is `dwell` when it is left out, all else as in
    /// [`Default`].
    pub fn from_uri(uri: &str) -> Result<Self, KafkaConfigError> {
        let refuse = || KafkaConfigError::Uri(uri.chars().take(256).collect());
        let rest = uri.strip_prefix("kafka://").ok_or_else(refuse)?;
        let (bootstrap, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let defaults = Self::default();
        let config = Self {
            bootstrap: bootstrap.to_owned(),
            prefix: match prefix {
                "" => defaults.prefix,
                prefix => prefix.to_owned(),
            },
            ..defaults
        };
        config.check()?;
        Ok(config)
    }

    /// Checks every value.
    pub fn check(&self) -> Result<(), KafkaConfigError> {
        for broker in self.bootstrap.split(',') {
            let port = broker
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@', ' ']));
            if port.is_none_or(|(_, port)| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(KafkaConfigError::Broker(broker.chars().take(256).collect()));
            }
        }
        let topic_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if self.prefix.is_empty()
            || self.prefix.len() + TOPIC_ENDING_BYTES > TOPIC_BYTES_MAX
            || !self.prefix.bytes().all(topic_byte)
        {
            return Err(KafkaConfigError::Prefix(self.prefix.chars().take(256).collect()));
        }
        let millis = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        for (name, value, min, max) in [
            ("shards", i64::from(self.shards), 1, i64::from(SHARDS_MAX)),
            ("replication", i64::from(self.copies()), 1, 32),
            ("retention_ms", self.retention_ms, 60_000, i64::MAX),
            (
                "delivery_timeout_ms",
                millis(self.delivery_timeout_ms),
                100,
                600_000,
            ),
            (
                "session_timeout_ms",
                millis(self.session_timeout_ms),
                1_000,
                1_800_000,
            ),
        ] {
            if !(min..=max).contains(&value) {
                return Err(KafkaConfigError::Range {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        match self.properties.keys().find(|name| FIXED.contains(&name.as_str())) {
            Some(name) => Err(KafkaConfigError::Fixed(name.clone())),
            None => Ok(()),
        }
    }

    /// Copies of each partition.
    pub(super) fn copies(&self) -> i16 {
        match (self.replication, self.single_node) {
            (Some(copies), _) => copies,
            (None, false) => 3,
            (None, true) => 1,
        }
    }

    /// Copies that must have a record before it counts: all but one, at least one.
    pub(super) fn min_insync_replicas(&self) -> i16 {
        (self.copies() - 1).max(1)
    }

    /// For how long an append may take.
    pub(super) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms)
    }

    /// What all clients have.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("client.id", "dwell")
            .set("log.connection.close", "false")
            // After an outage of whatever length: try again within a second or two.
            .set("reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", &self.bootstrap)
            .set("allow.auto.create.topics", "false");
        client
    }

    /// The producer of [`writer`](super::writer).
    pub(super) fn producer(&self) -> ClientConfig {
        let mut producer = ClientConfig::new();
        producer
            // A third fewer bytes than lz4, at the same cost here and at the broker, which takes batches as they are.
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            // Larger ones are no smaller per event, and a reader always fetches a whole one.
            .set("batch.size", "256000")
            .set("batch.num.messages", "10000")
            // The bound is the writer's own, which knows it before anything is enqueued; this one stands behind it.
            .set("queue.buffering.max.messages", "0")
            .set(
                "queue.buffering.max.kbytes",
                (4 * super::writer::WAITING_BYTES_MAX / 1_024).to_string(),
            );
        merge(&mut producer, &self.client());
        producer
            .set("message.timeout.ms", self.delivery_timeout_ms.to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all");
        producer
    }

    /// A consumer of [`reader`](super::reader): reads what it is told to, from where it is told to.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut reader = ClientConfig::new();
        reader
            // Bounds on what is fetched ahead, per partition: about 512 KiB, overshot by one response of 64 KiB or one
            // batch, compressed.
            .set("queued.max.messages.kbytes", "512")
            .set("queued.min.messages", "4000")
            .set("max.partition.fetch.bytes", "65536")
            .set("fetch.max.bytes", "16777216")
            // When the bound is reached, look again soon: the default of a second would be the throughput.
            .set("fetch.queue.backoff.ms", "5")
            // A partition that is newly read waits for the answer to the broker's fetch of the others.
            .set("fetch.wait.max.ms", "100");
        merge(&mut reader, &self.client());
        reader
            // Only a name: nothing is subscribed, no offset is stored under it.
            .set("group.id", format!("{}.reader", self.prefix))
            .set("group.protocol", "classic")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Neither end of the log is right for a position that is gone: the reader must be told.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true");
        reader
    }

    /// A member of a group, which reads nothing.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut member = self.reader();
        let heartbeat_ms = (self.session_timeout_ms / 4).clamp(100, 3_000);
        member
            .set("group.id", format!("{}.{group}", self.prefix))
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", heartbeat_ms.to_string())
            .set(
                "max.poll.interval.ms",
                self.session_timeout_ms.max(300_000).to_string(),
            );
        member
    }
}

fn merge(into: &mut ClientConfig, from: &ClientConfig) {
    // Passwords are hidden in `config_map`, so the values are asked for one by one.
    for name in from.config_map().keys() {
        if let Some(value) = from.get(name) {
            into.set(*name, value);
        }
    }
}

/// The properties as they may be shown.
fn shown(properties: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["password", "secret", "key", "pem", "token", "oauthbearer", "jaas"]
            .iter()
            .any(|word| name.contains(word))
    };
    properties
        .iter()
        .map(|(name, value)| match secret(name) {
            true => (name.as_str(), "(hidden)"),
            false => (name.as_str(), value.as_str()),
        })
        .collect()
}

fn without_secrets<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    shown(properties).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_brokers_and_prefix() {
        let config = KafkaConfig::from_uri("kafka://a:9092,[::1]:9093/shops-eu").unwrap();
        assert_eq!(
            (config.bootstrap.as_str(), config.prefix.as_str(), config.shards),
            ("a:9092,[::1]:9093", "shops-eu", 12)
        );
        for short in ["kafka://a:9092", "kafka://a:9092/"] {
            assert_eq!(short.parse::<KafkaConfig>().unwrap().prefix, "dwell");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            "a:9092",
            "kafka://",
            "kafka:///x",
            "kafka://a/x",
            "kafka://a:0/x",
            "kafka://a:9092,,b:9092",
            "kafka://a:70000",
            "kafka://user@a:9092",
            "kafka://a:9092/x/y",
            "kafka://a:9092/x?y=1",
        ] {
            assert!(KafkaConfig::from_uri(bad).is_err(), "{bad}");
        }
        let with = |change: fn(&mut KafkaConfig)| {
            let mut config = KafkaConfig::default();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert!(with(|config| config.shards = 0).is_err());
        assert!(with(|config| config.replication = Some(0)).is_err());
        assert!(with(|config| config.session_timeout_ms = u64::MAX).is_err());
        assert!(with(|config| config.prefix = "x".repeat(240)).is_err());
        let acks = with(|config| drop(config.properties.insert("acks".to_owned(), "1".to_owned())));
        assert_eq!(acks, Err(KafkaConfigError::Fixed("acks".to_owned())));
    }

    #[test]
    fn unknown_settings_are_refused_and_secrets_are_not_shown() {
        assert!(serde_json::from_str::<KafkaConfig>(r#"{"bootstraps": "a:1"}"#).is_err());
        let text = r#"{"bootstrap": "a:1", "properties": {"sasl.password": "hush", "sasl.username": "me"}}"#;
        let config: KafkaConfig = serde_json::from_str(text).unwrap();
        for shown in [format!("{config:?}"), serde_json::to_string(&config).unwrap()] {
            assert!(!shown.contains("hush") && shown.contains("me"), "{shown}");
        }
        assert_eq!(config.producer().get("sasl.password"), Some("hush"));
    }

    #[test]
    fn properties_can_change_the_tuning_and_not_the_promises() {
        let mut config = KafkaConfig::default();
        for (name, value) in [("compression.type", "gzip"), ("linger.ms", "50")] {
            config.properties.insert(name.to_owned(), value.to_owned());
        }
        let producer = config.producer();
        assert_eq!(producer.get("compression.type"), Some("gzip"));
        assert_eq!(
            (producer.get("acks"), producer.get("enable.idempotence")),
            (Some("all"), Some("true"))
        );
        assert_eq!(config.reader().get("auto.offset.reset"), Some("error"));
    }
}
