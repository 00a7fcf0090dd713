//! What the brokers know of the log's topics.

use dwell_model::event::Kind;
use rdkafka::consumer::Consumer;
use rdkafka::metadata::MetadataTopic;

use super::super::config::KafkaConfig;
use super::super::context::Logging;
use super::super::epoch;
use super::super::failure;
use super::super::layout::topic_of;
use super::super::reader::{LogConsumer, REQUEST_TIMEOUT};
use crate::error::{ErrorKind, Result, StorageError};

/// A topic as the brokers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: u32,
    /// Fewest copies of a partition.
    pub(super) copies: usize,
    /// Fewest copies of a partition that are up to date.
    pub(super) in_sync: usize,
    pub(super) has_leaders: bool,
}

/// The topics of a log that are there.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) brokers: usize,
    pub(super) kinds: Vec<(Kind, Option<Topic>)>,
    pub(super) log: Option<Topic>,
}

/// Asks the brokers. Blocking.
pub(super) fn look(config: &KafkaConfig) -> Result<Topics> {
    let looking = |error| failure::failed(format!("ask the brokers {} for topics", config.bootstrap), error);
    let consumer: LogConsumer = config
        .reader()
        .create_with_context(Logging { role: "metadata" })
        .map_err(looking)?;
    // All at once: asking for one by one would have missing ones made where the broker is set to.
    let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).map_err(looking)?;
    let find = |name: String| {
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        found.map(|topic| describe(name, topic))
    };
    Ok(Topics {
        brokers: metadata.brokers().len(),
        kinds: Kind::ALL
            .map(|kind| (kind, find(topic_of(&config.prefix, kind))))
            .to_vec(),
        log: find(epoch::topic_of(&config.prefix)),
    })
}

fn describe(name: String, topic: &MetadataTopic) -> Topic {
    let partitions = topic.partitions();
    Topic {
        name,
        partitions: partitions.len() as u32,
        copies: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        in_sync: partitions.iter().map(|p| p.isr().len()).min().unwrap_or(0),
        has_leaders: topic.error().is_none()
            && partitions.iter().all(|p| p.error().is_none() && p.leader() >= 0),
    }
}

impl Topics {
    pub(super) fn missing_kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.kinds
            .iter()
            .filter(|(_, topic)| topic.is_none())
            .map(|(kind, _)| *kind)
    }

    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// The topics that are there.
    pub(super) fn there(&self) -> impl Iterator<Item = &Topic> + '_ {
        self.kinds
            .iter()
            .filter_map(|(_, topic)| topic.as_ref())
            .chain(&self.log)
    }

    pub(super) fn have_leaders(&self) -> bool {
        self.there().all(|topic| topic.has_leaders)
    }

    /// Partitions of each kind's topic; `None` when none is there.
    pub(super) fn shards(&self) -> Result<Option<u32>> {
        let mut kinds = self.kinds.iter().filter_map(|(_, topic)| topic.as_ref());
        let Some(first) = kinds.next() else {
            return Ok(None);
        };
        match kinds.find(|topic| topic.partitions != first.partitions) {
            None => Ok(Some(first.partitions)),
            Some(other) => Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "topics {} and {} have {} and {} partitions; all must have equally many",
                    first.name, other.name, first.partitions, other.partitions
                ),
            )),
        }
    }
}
