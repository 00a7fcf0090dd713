//! Making the topics, looking whether they are as they must be, and deleting what is over.

mod inspect;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::time::TsMs;
use dwell_runtime::clock::Clock;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

pub use self::inspect::KafkaFinding;
use self::topics::{Topics, look};
use super::config::KafkaConfig;
use super::context::Logging;
use super::epoch::{self, Epoch};
use super::failure;
use super::layout::{Place, topic_of};
use crate::api::Position;
use crate::error::{ErrorKind, Result, StorageError};

/// Longest time that a change may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time until all brokers know of a topic that was made.
const SPREAD_MAX: Duration = Duration::from_secs(30);
const SPREAD_STEP: Duration = Duration::from_millis(100);
/// Segments are deleted as a whole, so this much may be kept longer than the retention: a day.
const SEGMENT_MS: &str = "86400000";

/// The settings of a topic as the broker tells them.
type Settings = BTreeMap<String, String>;

/// What has been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaCreated {
    /// Topics that were missing.
    pub topics: Vec<String>,
    /// The log's epoch.
    pub epoch: u64,
    /// Partitions of each topic.
    pub shards: u32,
}

/// Administration of the topics, apart from a running log.
#[derive(Debug)]
pub struct KafkaLogAdmin;

impl KafkaLogAdmin {
    /// Makes the topics that are missing. Where one of a kind is, the log begins a new life: its epoch is raised, so
    /// that positions of the former one are never taken for its own. What is there is left as it is.
    ///
    /// `Invalid` when the configuration asks for less safety than it admits to (`single_node`), for more copies than
    /// there are brokers, or for another number of shards than the topics have.
    pub async fn create(config: &KafkaConfig, clock: &dyn Clock) -> Result<KafkaCreated> {
        config.check()?;
        if !config.single_node && config.min_insync_replicas() < 2 {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "replication {} would lose events with one broken disk: set at least 3, or single_node = true if that is accepted",
                    config.copies()
                ),
            ));
        }
        let there = look_at(config).await?;
        let missing: Vec<Kind> = there.missing_kinds().collect();
        // Without any topic of a kind it is a new log, of as many shards as is liked.
        if let Some(shards) = there.shards()?
            && shards != config.shards
        {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "the topics {}.… have {shards} partitions each and keep them, but {} shards are configured",
                    config.prefix, config.shards
                ),
            ));
        }
        let admin = Admin::start(config)?;
        let mut made = Vec::new();
        if !there.has_log() {
            admin.create_log_topic(config).await?;
            made.push(epoch::topic_of(&config.prefix));
            await_topics(config, clock, Topics::has_log).await?;
        }
        let last = load_epoch(config).await?;
        let life = match last {
            Some(life) if missing.is_empty() => life,
            last => {
                let now = clock.now_ms();
                let next = last.map_or(0, |last| last.epoch + 1);
                let life = Epoch {
                    epoch: next.max(now.max(0).unsigned_abs() / 1_000),
                    shards: config.shards,
                    created_at: now,
                };
                // Before the topics: were it after, an end in between would leave new topics under the old epoch.
                epoch::store(config, life).await?;
                life
            }
        };
        admin.create_kind_topics(config, &missing).await?;
        made.extend(missing.iter().map(|&kind| topic_of(&config.prefix, kind)));
        await_topics(config, clock, |topics| topics.missing_kinds().next().is_none()).await?;
        Ok(KafkaCreated {
            topics: made,
            epoch: life.epoch,
            shards: life.shards,
        })
    }

    /// Looks at brokers and topics for `dwell doctor`. Never fails: what cannot be looked at is a finding.
    pub async fn inspect(config: &KafkaConfig) -> Vec<KafkaFinding> {
        inspect::inspect(config).await
    }
}

/// Looks whether the topics are as a log needs them; returns its life.
pub(super) async fn look_at_topics(config: &KafkaConfig) -> Result<Epoch> {
    let refuse = |why: String| Err(StorageError::new(ErrorKind::Invalid, why));
    let there = look_at(config).await?;
    let mut missing: Vec<String> = there
        .missing_kinds()
        .map(|kind| topic_of(&config.prefix, kind))
        .collect();
    if !there.has_log() {
        missing.push(epoch::topic_of(&config.prefix));
    }
    if !missing.is_empty() {
        return refuse(format!(
            "these topics are missing on {}: {}; make them with `dwell migrate`",
            config.bootstrap,
            missing.join(", ")
        ));
    }
    let Some(life) = load_epoch(config).await? else {
        return refuse(format!(
            "topic {} holds no epoch; write one with `dwell migrate`",
            epoch::topic_of(&config.prefix)
        ));
    };
    match there.shards()? {
        Some(shards) if shards == life.shards => {}
        shards => {
            return refuse(format!(
                "the topics {}.… have {} partitions each, but the log was made with {}: keys would lie elsewhere than before",
                config.prefix,
                shards.unwrap_or(0),
                life.shards
            ));
        }
    }
    let settings = Admin::start(config)?.settings(config).await?;
    let wrong = Kind::ALL
        .into_iter()
        .zip(&settings)
        .find(|(_, settings)| settings.get(TIMESTAMP_TYPE).map(String::as_str) != Some(LOG_APPEND_TIME));
    match wrong {
        None => Ok(life),
        Some((kind, _)) => refuse(format!(
            "topic {} has not {TIMESTAMP_TYPE}={LOG_APPEND_TIME}, without which times of receipt are the producers' claim",
            topic_of(&config.prefix, kind)
        )),
    }
}

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

async fn look_at(config: &KafkaConfig) -> Result<Topics> {
    let config = config.clone();
    super::blocking("kafka-metadata", move || look(&config)).await
}

/// Raises the epoch of a log whose topics are there; returns it.
pub(super) async fn begin_new_life(config: &KafkaConfig, now: TsMs) -> Result<u64> {
    let last = look_at_topics(config).await?;
    let life = Epoch {
        epoch: (last.epoch + 1).max(now.max(0).unsigned_abs() / 1_000),
        created_at: now,
        ..last
    };
    epoch::store(config, life).await?;
    Ok(life.epoch)
}

async fn load_epoch(config: &KafkaConfig) -> Result<Option<Epoch>> {
    let config = config.clone();
    super::blocking("kafka-epoch", move || epoch::load(&config)).await
}

/// Waits until topics that were made are known and have leaders.
async fn await_topics(
    config: &KafkaConfig,
    clock: &dyn Clock,
    are_there: impl Fn(&Topics) -> bool,
) -> Result<()> {
    let until = clock.monotonic() + SPREAD_MAX;
    loop {
        let topics = look_at(config).await?;
        if are_there(&topics) && topics.have_leaders() {
            return Ok(());
        }
        if clock.monotonic() > until {
            return Err(StorageError::new(
                ErrorKind::Unavailable,
                "the topics were made, but some of their partitions have no leader yet",
            ));
        }
        clock.sleep(SPREAD_STEP).await;
    }
}

/// A client that may change topics.
#[derive(Debug)]
pub(super) struct Admin {
    client: AdminClient<Logging>,
}

impl Admin {
    pub(super) fn start(config: &KafkaConfig) -> Result<Self> {
        let client = config
            .client()
            .create_with_context(Logging { role: "admin" })
            .map_err(|error| failure::failed("start the Kafka admin client", error))?;
        Ok(Self { client })
    }

    /// Deletes a partition's records before a position.
    pub(super) async fn delete_records(&self, place: Place<'_>, before: Position) -> Result<()> {
        let delete = async || -> KafkaResult<()> {
            let mut until = TopicPartitionList::new();
            until.add_partition_offset(place.topic, place.number(), Offset::Offset(before))?;
            let deleted = self.client.delete_records(&until, &options()).await?;
            deleted.elements().iter().try_for_each(|element| element.error())
        };
        delete()
            .await
            .map_err(|error| failure::failed(format!("delete records of {place}"), error))
    }

    /// The settings of the kinds' topics, in the order of [`Kind::ALL`].
    async fn settings(&self, config: &KafkaConfig) -> Result<Vec<Settings>> {
        let names = Kind::ALL.map(|kind| topic_of(&config.prefix, kind));
        let topics: Vec<ResourceSpecifier<'_>> =
            names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let doing = "read the topics' settings";
        let described = self
            .client
            .describe_configs(&topics, &options())
            .await
            .map_err(|error| failure::failed(doing, error))?;
        described
            .into_iter()
            .map(|topic| {
                let topic = topic.map_err(|code| failure::failed_code(doing, code))?;
                Ok(topic
                    .entries
                    .into_iter()
                    .filter_map(|entry| Some((entry.name, entry.value?)))
                    .collect())
            })
            .collect()
    }

    async fn create_log_topic(&self, config: &KafkaConfig) -> Result<()> {
        let (name, insync) = (
            epoch::topic_of(&config.prefix),
            config.min_insync_replicas().to_string(),
        );
        let copies = TopicReplication::Fixed(i32::from(config.copies()));
        let topic = NewTopic::new(&name, 1, copies)
            .set("cleanup.policy", "compact")
            .set("min.insync.replicas", &insync)
            .set("unclean.leader.election.enable", "false");
        self.create(config, &[topic]).await
    }

    async fn create_kind_topics(&self, config: &KafkaConfig, kinds: &[Kind]) -> Result<()> {
        if kinds.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = kinds.iter().map(|&kind| topic_of(&config.prefix, kind)).collect();
        let (insync, retention) = (
            config.min_insync_replicas().to_string(),
            config.retention_ms.to_string(),
        );
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                let copies = TopicReplication::Fixed(i32::from(config.copies()));
                NewTopic::new(name, config.shards as i32, copies)
                    .set("cleanup.policy", "delete")
                    .set(TIMESTAMP_TYPE, LOG_APPEND_TIME)
                    .set("min.insync.replicas", &insync)
                    .set("unclean.leader.election.enable", "false")
                    .set("retention.ms", &retention)
                    .set("retention.bytes", "-1")
                    .set("segment.ms", SEGMENT_MS)
            })
            .collect();
        self.create(config, &topics).await
    }

    /// Makes topics; one that somebody else made meanwhile is as good.
    async fn create(&self, config: &KafkaConfig, topics: &[NewTopic<'_>]) -> Result<()> {
        let answers = self
            .client
            .create_topics(topics, &options())
            .await
            .map_err(|error| failure::failed("make the topics", error))?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    return Err(StorageError::new(
                        ErrorKind::Invalid,
                        format!(
                            "make topic {topic}: there are fewer brokers than the {} copies asked for; start more, or set replication (and single_node = true below 3)",
                            config.copies()
                        ),
                    ));
                }
                Err((topic, code)) => return Err(failure::failed_code(format!("make topic {topic}"), code)),
            }
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}
