//! Sharing the shards among processes.

use std::collections::BTreeSet;
use std::time::Duration;

use dwell_runtime::clock::{self, Clock, SystemClock};
use dwell_storage::api::{EventLogGroups, EventLogReader, EventLogWriter, GroupMember, Shard};
use dwell_storage::backends::kafka::KafkaConfig;
use dwell_storage::conformance::samples::{DAY_START, events, record, shop};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{admin_client, client, kafka, open};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the members hold what is wanted; returns it.
async fn settled(
    members: &[&dyn GroupMember],
    wanted: impl Fn(&[BTreeSet<Shard>]) -> bool,
) -> Vec<BTreeSet<Shard>> {
    let clock = SystemClock::new();
    let watch = async {
        loop {
            let held: Vec<BTreeSet<Shard>> = members
                .iter()
                .map(|member| member.shards().borrow().clone())
                .collect();
            if wanted(&held) {
                return held;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    };
    clock::timeout(&clock, PATIENCE, watch)
        .await
        .expect("the group settles")
}

/// Whether every shard is held by exactly one member, and by each about as many.
fn is_shared_out(held: &[BTreeSet<Shard>], shards: u32) -> bool {
    let mut all: Vec<Shard> = held.iter().flatten().copied().collect();
    all.sort_unstable();
    let fair = |mine: &BTreeSet<Shard>| mine.len().abs_diff(shards as usize / held.len()) <= 1;
    all == (0..shards).collect::<Vec<_>>() && held.iter().all(fair)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_shards_and_take_over_those_of_one_that_leaves() {
    let Some(kafka) = kafka() else { return };
    let (log, config) = kafka.fresh_log(5).await;
    let other = open(&config).await;
    let one = log.join("raw-writer").await.unwrap();
    settled(&[&*one], |held| is_shared_out(held, 5)).await;
    let two = other.join("raw-writer").await.unwrap();
    // Another purpose is another group, which has all shards for itself.
    let speed = other.join("speed").await.unwrap();
    settled(&[&*one, &*two], |held| is_shared_out(held, 5)).await;
    settled(&[&*speed], |held| is_shared_out(held, 5)).await;
    drop(two);
    settled(&[&*one], |held| is_shared_out(held, 5)).await;
}

/// The offsets that a group has stored, by topic and partition.
fn offsets_of(config: &KafkaConfig, group: &str) -> Vec<(String, i32, i64)> {
    let consumer: BaseConsumer = client(config)
        .set("group.id", format!("{}.{group}", config.prefix))
        .create()
        .unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&format!("{}.count", config.prefix), 0, 0);
    let found = consumer.committed_offsets(asked, PATIENCE).unwrap();
    found
        .elements()
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.topic().to_owned(), element.partition(), offset)),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_mirrored_to_the_group_and_do_not_depend_on_it() {
    let Some(kafka) = kafka() else { return };
    let (log, config) = kafka.fresh_log(1).await;
    let batch = || {
        vec![record(
            &shop(),
            1,
            events(dwell_model::event::Kind::Count, DAY_START, 4, 0),
        )]
    };
    log.append(batch()).await.unwrap();
    let partition = log.partition_of(&shop(), dwell_model::event::Kind::Count);
    let next = log.read(partition, 0, usize::MAX).await.unwrap().next;
    assert_eq!(next, 4);

    let member = log.join("raw-writer").await.unwrap();
    settled(&[&*member], |held| is_shared_out(held, 1)).await;
    member.mirror(partition, 2);
    member.mirror(partition, next);
    // What was told last is told to the group when leaving, if not before.
    drop(member);
    let topic = format!("{}.count", config.prefix);
    let clock = SystemClock::new();
    let mut stored = offsets_of(&config, "raw-writer");
    for _ in 0..50 {
        if !stored.is_empty() {
            break;
        }
        clock.sleep(Duration::from_millis(100)).await;
        stored = offsets_of(&config, "raw-writer");
    }
    assert_eq!(stored, [(topic, 0, 4)]);

    // The offsets are gone, as after seven days without members: reading goes on where Dwell says.
    let group = format!("{}.raw-writer", config.prefix);
    let admin = admin_client(&config.bootstrap);
    let deleted = admin
        .delete_groups(&[&group], &AdminOptions::new())
        .await
        .unwrap();
    assert_eq!(deleted, [Ok(group)]);
    assert_eq!(offsets_of(&config, "raw-writer"), []);
    log.append(batch()).await.unwrap();
    let log = open(&config).await;
    let member = log.join("raw-writer").await.unwrap();
    settled(&[&*member], |held| is_shared_out(held, 1)).await;
    let chunk = log.read(partition, next, usize::MAX).await.unwrap();
    assert_eq!((chunk.records[0].position, chunk.next), (4, 8));
}
