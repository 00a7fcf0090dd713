//! Sharing the shards out: Kafka's consumer groups, used for nothing but their answer.
//!
//! A member subscribes to all topics, is given partitions, and fetches none of them: to the consumer it assigns nothing,
//! whatever the group says, while [`Reader`](super::reader) reads by positions that Dwell keeps itself. The `range`
//! assignment gives a member the same partition numbers of each topic; a shard counts as given when all of its
//! partitions are.
//!
//! What was given last stays until something else is given: not for a rebalance, which begins by taking everything away
//! for a moment, and not while brokers are away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_runtime::clock::Stopwatch;
use dwell_runtime::tasks;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::config::KafkaConfig;
use super::context;
use super::failure;
use super::layout::Layout;
use super::writer::lock;
use crate::api::{GroupMember, Partition, Position, Shard};
use crate::error::{ErrorKind, Result, StorageError};
use crate::metrics;

const ROLE: &str = "group";
const POLL: Duration = Duration::from_millis(200);
/// Between two commits of positions.
const MIRROR_EVERY: Duration = Duration::from_secs(5);
/// For how long leaving is waited for; brokers that are away find out by themselves.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// A place in a consumer group.
pub(super) struct KafkaMember {
    shared: Arc<Shared>,
    shards: watch::Receiver<BTreeSet<Shard>>,
    /// Ends when the thread has left the group.
    left: Mutex<mpsc::Receiver<()>>,
}

struct Shared {
    layout: Arc<Layout>,
    stop: AtomicBool,
    /// Positions not committed yet.
    positions: Mutex<BTreeMap<Partition, Position>>,
}

impl KafkaMember {
    /// Joins a group; the answer comes through [`GroupMember::shards`]. Blocking, though not on brokers.
    pub(super) fn join(config: &KafkaConfig, layout: &Arc<Layout>, group: &'static str) -> Result<Self> {
        let joining = |error| failure::failed(format!("join the group {group}"), error);
        let (sender, shards) = watch::channel(BTreeSet::new());
        let context = Assignments {
            group,
            layout: Arc::clone(layout),
            shards: sender,
        };
        let consumer: BaseConsumer<Assignments> = config
            .member(group)
            .create_with_context(context)
            .map_err(joining)?;
        let topics: Vec<&str> = layout.topics().iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(joining)?;
        let shared = Arc::new(Shared {
            layout: Arc::clone(layout),
            stop: AtomicBool::new(false),
            positions: Mutex::default(),
        });
        let (leaving, left) = mpsc::channel();
        let attended = Arc::clone(&shared);
        tasks::thread("kafka-group", move || {
            attended.attend(&consumer);
            // Says goodbye to the group, which shares the shards out anew at once.
            drop(consumer);
            drop(leaving);
        })
        .map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "start a Kafka group's thread", error)
        })?;
        Ok(Self {
            shared,
            shards,
            left: Mutex::new(left),
        })
    }
}

impl GroupMember for KafkaMember {
    fn shards(&self) -> watch::Receiver<BTreeSet<Shard>> {
        self.shards.clone()
    }

    fn mirror(&self, partition: Partition, position: Position) {
        lock(&self.shared.positions).insert(partition, position);
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let left = lock(&self.left).recv_timeout(LEAVE_MAX);
        if left == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "brokers are slow to let go of a group's member; they will find out by themselves"
            );
        }
    }
}

impl Shared {
    /// Serves the group until asked to stop.
    fn attend(&self, consumer: &BaseConsumer<Assignments>) {
        let mut since_mirrored = Stopwatch::start();
        while !self.stop.load(Ordering::Acquire) {
            if let Some(Err(error)) = consumer.poll(POLL) {
                tracing::debug!(target: "librdkafka", role = ROLE, %error, "a member's error");
            }
            if since_mirrored.elapsed() >= MIRROR_EVERY {
                since_mirrored = Stopwatch::start();
                self.mirror(consumer);
            }
        }
        self.mirror(consumer);
    }

    fn mirror(&self, consumer: &BaseConsumer<Assignments>) {
        let positions = std::mem::take(&mut *lock(&self.positions));
        if positions.is_empty() {
            return;
        }
        let commit = || -> KafkaResult<()> {
            let mut offsets = TopicPartitionList::new();
            for (partition, position) in positions {
                if let Ok(place) = self.layout.place(partition) {
                    offsets.add_partition_offset(place.topic, place.number(), Offset::Offset(position))?;
                }
            }
            consumer.commit(&offsets, CommitMode::Async)
        };
        if let Err(error) = commit() {
            tracing::debug!(%error, "positions were not mirrored to the group");
        }
    }
}

/// Hears what the group gives.
struct Assignments {
    group: &'static str,
    layout: Arc<Layout>,
    shards: watch::Sender<BTreeSet<Shard>>,
}

impl Assignments {
    /// The shards of which all partitions are in an assignment.
    fn whole_shards(&self, assigned: &TopicPartitionList) -> BTreeSet<Shard> {
        whole_shards(
            &self.layout,
            assigned
                .elements()
                .iter()
                .map(|element| (element.topic(), element.partition())),
        )
    }
}

fn whole_shards<'a>(layout: &Layout, assigned: impl Iterator<Item = (&'a str, i32)>) -> BTreeSet<Shard> {
    let mut kinds: BTreeMap<Shard, BTreeSet<u8>> = BTreeMap::new();
    for (topic, partition) in assigned {
        if let (Some(kind), Ok(shard)) = (layout.kind_of_topic(topic), Shard::try_from(partition)) {
            kinds.entry(shard).or_default().insert(kind as u8);
        }
    }
    kinds
        .into_iter()
        .filter(|(shard, kinds)| *shard < layout.shards() && kinds.len() == layout.topics().len())
        .map(|(shard, _)| shard)
        .collect()
}

impl ClientContext for Assignments {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(ROLE, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_error(ROLE, &error, reason);
    }
}

impl ConsumerContext for Assignments {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        assigned: &mut TopicPartitionList,
    ) {
        // Assigning nothing keeps the membership and fetches nothing.
        let settled = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let shards = self.whole_shards(assigned);
                tracing::info!(group = self.group, ?shards, "the group has shared out the shards");
                metrics::kafka_shards(self.group, shards.len());
                // Most rebalances leave most members what they had: nobody needs to be woken for that.
                self.shards.send_if_modified(|held| {
                    let is_news = *held != shards;
                    *held = shards;
                    is_news
                });
                consumer.assign(&TopicPartitionList::new())
            }
            _ => {
                tracing::info!(
                    group = self.group,
                    is_lost = consumer.assignment_lost(),
                    "the group shares the shards out anew"
                );
                consumer.unassign()
            }
        };
        if let Err(error) = settled {
            tracing::warn!(group = self.group, %error, "the group's answer was not taken");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(group = self.group, %error, "positions were not mirrored to the group");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_given_when_all_its_partitions_are() {
        let layout = Layout::new("x", 3);
        let all = |shard: i32| layout.topics().iter().map(move |topic| (topic.as_str(), shard));
        let most = all(1).skip(1);
        let given = all(0).chain(most).chain(all(2)).chain([("other", 1)]);
        assert_eq!(whole_shards(&layout, given), BTreeSet::from([0, 2]));
        assert_eq!(whole_shards(&layout, all(7).chain(all(-1))), BTreeSet::new());
    }
}
