//! What `dwell doctor` wants to know.

use dwell_model::event::Kind;

use super::topics::{Topic, Topics};
use super::{Admin, LOG_APPEND_TIME, Settings, TIMESTAMP_TYPE, load_epoch, look_at};
use crate::backends::kafka::config::KafkaConfig;
use crate::error::Result;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaFinding {
    /// What was looked at, for example `topic dwell.position, copies`.
    pub about: String,
    /// What was found.
    pub found: String,
    /// What to do about it; `None` when all is well.
    pub remedy: Option<String>,
}

impl KafkaFinding {
    fn new(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            found: found.into(),
            remedy: None,
        }
    }

    /// Gives the remedy unless all is well.
    fn unless(mut self, is_well: bool, remedy: impl Into<String>) -> Self {
        if !is_well {
            self.remedy = Some(remedy.into());
        }
        self
    }

    /// Whether nothing needs to be done.
    pub fn is_ok(&self) -> bool {
        self.remedy.is_none()
    }
}

pub(super) async fn inspect(config: &KafkaConfig) -> Vec<KafkaFinding> {
    let mut findings = Vec::new();
    if let Err(error) = config.check() {
        let finding = KafkaFinding::new("configuration", error.to_string());
        return vec![finding.unless(false, "correct the configuration")];
    }
    let topics = match look_at(config).await {
        Ok(topics) => topics,
        Err(error) => {
            let remedy = "start the brokers, or correct the address, the network or the credentials";
            return vec![KafkaFinding::new("brokers", error.to_string()).unless(false, remedy)];
        }
    };
    findings.push(KafkaFinding::new(
        "brokers",
        format!("{} at {}", topics.brokers, config.bootstrap),
    ));
    findings.extend(topics_are_there(config, &topics));
    findings.push(partitions(config, &topics).await);
    findings.extend(topics.there().flat_map(|topic| copies(config, topic)));
    if topics.missing_kinds().next().is_none() {
        let settings = match Admin::start(config) {
            Ok(admin) => admin.settings(config).await,
            Err(error) => Err(error),
        };
        findings.extend(settings_of_all(config, settings));
    }
    findings
}

fn topics_are_there(config: &KafkaConfig, topics: &Topics) -> Vec<KafkaFinding> {
    let mut missing: Vec<String> = topics.missing_kinds().map(|kind| kind.to_string()).collect();
    if !topics.has_log() {
        missing.push("log".to_owned());
    }
    let found = match missing.is_empty() {
        true => "all are there".to_owned(),
        false => format!("missing: {}", missing.join(", ")),
    };
    let finding = KafkaFinding::new(format!("topics {}.…", config.prefix), found);
    vec![finding.unless(missing.is_empty(), "make them with `dwell migrate`")]
}

async fn partitions(config: &KafkaConfig, topics: &Topics) -> KafkaFinding {
    let about = "partitions of each topic";
    let shards = match topics.shards() {
        Ok(Some(shards)) => shards,
        Ok(None) => {
            return KafkaFinding::new(about, "no topic").unless(false, "make them with `dwell migrate`");
        }
        Err(error) => {
            let remedy = "partitions cannot be taken away: move to topics with another prefix";
            return KafkaFinding::new(about, error.to_string()).unless(false, remedy);
        }
    };
    let life = match topics.has_log() {
        true => load_epoch(config).await,
        false => Ok(None),
    };
    match life {
        Ok(Some(life)) => KafkaFinding::new(about, format!("{shards}, epoch {}", life.epoch)).unless(
            life.shards == shards && config.shards == shards,
            format!(
                "the log was made with {} and {} shards are configured: set shards to that; if partitions were added, move to topics with another prefix",
                life.shards, config.shards
            ),
        ),
        Ok(None) => KafkaFinding::new(about, format!("{shards}, but no epoch"))
            .unless(false, "write one with `dwell migrate`"),
        Err(error) => KafkaFinding::new(about, error.to_string()).unless(false, "look at the topic of the epoch"),
    }
}

fn copies(config: &KafkaConfig, topic: &Topic) -> Vec<KafkaFinding> {
    let about = |what: &str| format!("topic {}, {what}", topic.name);
    let copies = KafkaFinding::new(about("copies"), topic.copies.to_string()).unless(
        config.single_node || topic.copies >= 3,
        "with fewer than 3 a broken disk or a restart stops or loses events: add replicas with kafka-reassign-partitions, or set single_node = true if that is accepted",
    );
    let in_sync = KafkaFinding::new(about("copies in sync"), topic.in_sync.to_string()).unless(
        topic.in_sync >= topic.copies && topic.has_leaders,
        "a broker is away or behind: look at its log",
    );
    vec![copies, in_sync]
}

fn settings_of_all(config: &KafkaConfig, settings: Result<Vec<Settings>>) -> Vec<KafkaFinding> {
    match settings {
        Ok(settings) => Kind::ALL
            .into_iter()
            .zip(&settings)
            .flat_map(|(kind, settings)| settings_of(config, kind, settings))
            .collect(),
        Err(error) => {
            let finding = KafkaFinding::new("settings of topics", error.to_string());
            vec![finding.unless(false, "allow this user DescribeConfigs on the topics")]
        }
    }
}

fn settings_of(config: &KafkaConfig, kind: Kind, settings: &Settings) -> Vec<KafkaFinding> {
    let finding = |name: &str, is_well: &dyn Fn(&str) -> bool, remedy: String| {
        let found = settings.get(name).map_or("unknown", String::as_str);
        let about = format!("topic {}.{kind}, {name}", config.prefix);
        KafkaFinding::new(about, found).unless(is_well(found), remedy)
    };
    let number = |text: &str| text.parse::<i64>().ok();
    let least = if config.single_node { 1 } else { 2 };
    let set = |name: &str, value: &str| format!("set it to {value} with kafka-configs ({name}={value})");
    vec![
        finding(
            "min.insync.replicas",
            &|found| number(found).is_some_and(|found| found >= least),
            set("min.insync.replicas", "2"),
        ),
        finding(
            "retention.ms",
            &|found| number(found).is_some_and(|found| found < 0 || found >= config.retention_ms),
            set("retention.ms", &config.retention_ms.to_string()),
        ),
        finding(
            "retention.bytes",
            &|found| number(found).is_some_and(|found| found < 0),
            set("retention.bytes", "-1"),
        ),
        finding(
            "cleanup.policy",
            &|found| found == "delete",
            set("cleanup.policy", "delete"),
        ),
        finding(
            TIMESTAMP_TYPE,
            &|found| found == LOG_APPEND_TIME,
            set(TIMESTAMP_TYPE, LOG_APPEND_TIME),
        ),
        finding(
            "unclean.leader.election.enable",
            &|found| found == "false",
            set("unclean.leader.election.enable", "false"),
        ),
    ]
}
