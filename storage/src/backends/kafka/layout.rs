//! Which topic and partition of Kafka is which partition of the log.
//!
//! Each kind has a topic, all topics have equally many partitions, and a venue's records lie under one partition number
//! in each: its shard. The log's partition numbers run through the kinds of a shard first.

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;

use crate::api::{Partition, Shard};
use crate::error::{ErrorKind, Result, StorageError};

const KINDS: u32 = Kind::ALL.len() as u32;

/// The topics of a log and how many partitions each has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    topics: Vec<String>,
    shards: u32,
}

/// A partition of Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) kind: Kind,
    /// The partition's number within the topic.
    pub(super) shard: Shard,
}

impl Place<'_> {
    /// The number as Kafka's clients take it.
    pub(super) fn number(&self) -> i32 {
        self.shard as i32
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} of topic {}", self.shard, self.topic)
    }
}

impl Layout {
    pub(super) fn new(prefix: &str, shards: u32) -> Self {
        Self {
            topics: Kind::ALL.map(|kind| topic_of(prefix, kind)).to_vec(),
            shards,
        }
    }

    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    pub(super) fn partitions(&self) -> u32 {
        self.shards * KINDS
    }

    /// The topics, in the order of [`Kind::ALL`].
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    pub(super) fn shard_of(&self, venue: &VenueKey) -> Shard {
        shard_of_key(key_of(venue).as_bytes(), self.shards)
    }

    pub(super) fn partition_of(&self, venue: &VenueKey, kind: Kind) -> Partition {
        partition(self.shard_of(venue), kind)
    }

    pub(super) fn partitions_of(&self, shard: Shard) -> Vec<Partition> {
        match shard < self.shards {
            true => Kind::ALL.map(|kind| partition(shard, kind)).to_vec(),
            false => Vec::new(),
        }
    }

    /// What a partition of the log is to Kafka.
    pub(super) fn place(&self, partition: Partition) -> Result<Place<'_>> {
        let (shard, kind) = (partition / KINDS, partition % KINDS);
        match Kind::from_number(kind as u8).filter(|_| shard < self.shards) {
            Some(kind) => Ok(Place {
                topic: &self.topics[kind as usize],
                kind,
                shard,
            }),
            None => Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "the event log has {} partitions; there is no partition {partition}",
                    self.partitions()
                ),
            )),
        }
    }

    /// The kind that a topic of this log holds.
    pub(super) fn kind_of_topic(&self, topic: &str) -> Option<Kind> {
        let number = self.topics.iter().position(|name| name == topic)?;
        Kind::from_number(number as u8)
    }
}

/// Name of a kind's topic.
pub(super) fn topic_of(prefix: &str, kind: Kind) -> String {
    format!("{prefix}.{kind}")
}

/// The key of a venue's records.
pub(super) fn key_of(venue: &VenueKey) -> String {
    venue.to_string()
}

/// The partition that Kafka's default partitioner gives to a key, so that other producers come to the same.
pub(super) fn shard_of_key(key: &[u8], shards: u32) -> Shard {
    (murmur2(key) & 0x7fff_ffff) % shards
}

fn partition(shard: Shard, kind: Kind) -> Partition {
    shard * KINDS + kind as u32
}

/// Murmur 2 with 32 bits as Kafka's Java client computes it.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::samples::venue;

    #[test]
    fn hashes_are_those_of_kafkas_java_client() {
        // From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn numbers_run_through_the_kinds_of_a_shard() {
        let layout = Layout::new("x", 3);
        assert_eq!(layout.partitions(), 21);
        assert_eq!(layout.partitions_of(1), (7..14).collect::<Vec<_>>());
        let place = layout.place(9).unwrap();
        assert_eq!(
            (place.topic, place.kind, place.shard),
            ("x.count", Kind::Count, 1)
        );
        assert_eq!(layout.place(21).unwrap_err().kind(), ErrorKind::Invalid);
        let shop = venue("acme", "shop");
        let shard = (murmur2(b"acme/shop") as i32 & i32::MAX) as u32 % 3;
        assert_eq!(layout.shard_of(&shop), shard);
        assert_eq!(layout.partition_of(&shop, Kind::Status), shard * 7 + 6);
        assert_eq!(layout.kind_of_topic("x.reading"), Some(Kind::Reading));
        assert_eq!(layout.kind_of_topic("x.log"), None);
    }
}
