//! Making the topics, what is refused, and what the doctor is told.

use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::clock::{ManualClock, Stopwatch, SystemClock};
use dwell_storage::api::EventLogReader;
use dwell_storage::backends::kafka::{KafkaConfig, KafkaEventLog, KafkaLogAdmin};
use dwell_storage::error::ErrorKind;
use rdkafka::admin::{
    AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};

use super::{admin_client, kafka, open};

async fn refusal(config: &KafkaConfig) -> String {
    let error = KafkaEventLog::open(config, SystemClock::shared())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error.to_string()
}

/// What the doctor finds wrong.
async fn wrong(config: &KafkaConfig) -> Vec<String> {
    let findings = KafkaLogAdmin::inspect(config).await;
    findings
        .into_iter()
        .filter(|finding| !finding.is_ok())
        .map(|finding| finding.about.replace(&config.prefix, "x"))
        .collect()
}

#[tokio::test]
async fn topics_are_made_once_and_a_lost_one_begins_a_new_life() {
    let Some(kafka) = kafka() else { return };
    let config = kafka.config(3);
    assert!(refusal(&config).await.contains("dwell migrate"));
    assert!(wrong(&config).await.contains(&"topics x.…".to_owned()));

    let clock = ManualClock::at_ms(1_774_742_400_999);
    let made = KafkaLogAdmin::create(&config, &clock).await.unwrap();
    assert_eq!(
        (made.topics.len(), made.epoch, made.shards),
        (8, 1_774_742_400, 3)
    );
    let log = open(&config).await;
    assert_eq!((log.epoch(), log.shards(), log.partitions()), (made.epoch, 3, 21));
    assert_eq!(wrong(&config).await, Vec::<String>::new());

    let again = KafkaLogAdmin::create(&config, &clock).await.unwrap();
    assert_eq!((again.topics.len(), again.epoch), (0, made.epoch));

    // A topic that is made anew starts at position 0 again: its old positions must mean nothing.
    let lost = format!("{}.{}", config.prefix, Kind::Count);
    let deleted = admin_client(&config.bootstrap);
    deleted
        .delete_topics(&[&lost], &AdminOptions::new())
        .await
        .unwrap();
    let message = refusal(&config).await;
    assert!(message.contains(&lost), "{message}");
    let anew = KafkaLogAdmin::create(&config, &clock).await.unwrap();
    assert_eq!(anew.topics, [lost]);
    assert_eq!(
        anew.epoch,
        made.epoch + 1,
        "another life, though the clock stands"
    );
    assert_eq!(open(&config).await.epoch(), anew.epoch);
}

#[tokio::test]
async fn partitions_that_were_added_are_refused() {
    let Some(kafka) = kafka() else { return };
    let (_, config) = kafka.fresh_log(2).await;
    let other = KafkaConfig {
        shards: 4,
        ..config.clone()
    };
    let refused = KafkaLogAdmin::create(&other, &SystemClock::new())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");

    let admin = admin_client(&config.bootstrap);
    let topics = Kind::ALL.map(|kind| format!("{}.{kind}", config.prefix));
    let add = async |topics: &[String]| {
        let more: Vec<_> = topics.iter().map(|topic| NewPartitions::new(topic, 4)).collect();
        admin
            .create_partitions(&more, &AdminOptions::new())
            .await
            .unwrap();
    };
    add(&topics[..1]).await;
    let message = refusal(&config).await;
    assert!(message.contains("equally many"), "{message}");
    add(&topics[1..]).await;
    let message = refusal(&config).await;
    assert!(
        message.contains("4 partitions each, but the log was made with 2"),
        "{message}"
    );
    assert_eq!(wrong(&config).await, ["partitions of each topic"]);
}

#[tokio::test]
async fn topics_of_the_wrong_kind_are_refused_and_named() {
    let Some(kafka) = kafka() else { return };
    let (_, config) = kafka.fresh_log(1).await;
    let topic = format!("{}.reading", config.prefix);
    let settings = [
        ("message.timestamp.type", "CreateTime"),
        ("retention.ms", "60000"),
        ("retention.bytes", "1000000"),
        ("cleanup.policy", "compact"),
    ];
    let change = settings.iter().fold(
        AlterConfig::new(ResourceSpecifier::Topic(&topic)),
        |change, (name, value)| change.set(name, value),
    );
    let admin = admin_client(&config.bootstrap);
    admin
        .alter_configs(&[change], &AdminOptions::new())
        .await
        .unwrap();
    let message = refusal(&config).await;
    assert!(
        message.contains(&topic) && message.contains("LogAppendTime"),
        "{message}"
    );
    let names: Vec<String> = [
        "retention.ms",
        "retention.bytes",
        "cleanup.policy",
        "message.timestamp.type",
    ]
    .map(|name| format!("topic x.reading, {name}"))
    .to_vec();
    assert_eq!(wrong(&config).await, names);
}

#[tokio::test]
async fn too_few_copies_are_refused_unless_they_are_meant() {
    let Some(kafka) = kafka() else { return };
    for replication in [1, 2] {
        let config = KafkaConfig {
            single_node: false,
            replication: Some(replication),
            ..kafka.config(1)
        };
        let error = KafkaLogAdmin::create(&config, &SystemClock::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("single_node"), "{error}");
    }
    let more_than_there_are = KafkaConfig {
        replication: Some(30),
        ..kafka.config(1)
    };
    let error = KafkaLogAdmin::create(&more_than_there_are, &SystemClock::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("fewer brokers than the 30 copies"),
        "{error}"
    );

    // One copy, made by somebody: the doctor says so unless it is meant.
    let (_, config) = kafka.fresh_log(1).await;
    assert_eq!(wrong(&config).await, Vec::<String>::new());
    let strict = KafkaConfig {
        single_node: false,
        ..config
    };
    let found = wrong(&strict).await;
    assert!(
        found.contains(&"topic x.position, copies".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"topic x.status, min.insync.replicas".to_owned()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_log_without_brokers_says_so_in_time() {
    let config = KafkaConfig {
        // Nobody listens there.
        bootstrap: "127.0.0.1:9".to_owned(),
        ..KafkaConfig::default()
    };
    let stopwatch = Stopwatch::start();
    let error = KafkaEventLog::open(&config, SystemClock::shared())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(wrong(&config).await, ["brokers"]);
    assert!(stopwatch.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_topic_that_somebody_else_made_is_taken_as_it_is() {
    let Some(kafka) = kafka() else { return };
    let config = kafka.config(2);
    let name = format!("{}.position", config.prefix);
    let by_hand =
        NewTopic::new(&name, 2, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    let admin = admin_client(&config.bootstrap);
    admin
        .create_topics(&[by_hand], &AdminOptions::new())
        .await
        .unwrap();
    let made = KafkaLogAdmin::create(&config, &SystemClock::new()).await.unwrap();
    assert_eq!(made.topics.len(), 7);
    assert_eq!(open(&config).await.shards(), 2);
}
