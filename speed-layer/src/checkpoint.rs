//! Checkpoints: the little that cannot be made again from raw and log.
//!
//! Everything a venue's live numbers are made of stands in the raw table and in the log, so a checkpoint holds only
//! where we stand (a position in each partition of the shard), how far time is settled, and how many events came late;
//! the days are built anew from raw on start (see docs/decisions). It is a few dozen bytes per venue whatever the day
//! holds, so it can be stored every second.
//!
//! Form: one byte for the version, the state in postcard, eight bytes of xxh3 over both. Whatever does not read back
//! exactly is refused, and the shard starts from raw alone.

use std::collections::BTreeMap;

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{Checkpoints, EventLogReader, Partition, Position, Shard};
use dwell_storage::error::StorageError;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Version of the form. Older ones are not read: they are at most seconds old, and raw holds the rest.
const VERSION: u8 = 2;
const CHECKSUM_BYTES: usize = 8;

/// The state of a shard at a position in each of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardState {
    /// The next record to take of each partition, by its number.
    pub(crate) positions: Vec<(Partition, Position)>,
    /// Its venues with live state.
    pub(crate) venues: Vec<VenueCheckpoint>,
}

/// What is kept of a venue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VenueCheckpoint {
    pub(crate) venue: VenueKey,
    /// Latest event time seen.
    pub(crate) latest_ts: TsMs,
    /// Event time up to which the order is settled.
    pub(crate) watermark: TsMs,
    /// Late events since the start of a day.
    pub(crate) late: (LocalDay, u64),
}

/// Why stored bytes are no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("it is of version {0}, this Dwell reads version {VERSION}")]
    Version(u8),
    #[error("its checksum does not match")]
    Checksum,
    #[error("it does not decode: {0}")]
    Decode(postcard::Error),
}

impl ShardState {
    /// The position in a partition, if it was one of the shard's.
    pub(crate) fn position(&self, partition: Partition) -> Option<Position> {
        let known = self.positions.iter().find(|(known, _)| *known == partition);
        known.map(|(_, position)| *position)
    }
}

/// Where the speed layers stand in the log, as they have stored it: the next record of each partition. Partitions whose
/// shard has no checkpoint, or none that can be read, are left out: a speed layer begins there with raw.
pub async fn stored_positions(
    checkpoints: &dyn Checkpoints,
    log: &dyn EventLogReader,
) -> Result<BTreeMap<Partition, Position>, StorageError> {
    let mut positions = BTreeMap::new();
    for shard in 0..log.shards() {
        let stored = checkpoints.load(&name(log.epoch(), shard)).await?;
        if let Some(state) = stored.and_then(|stored| decode(&stored.bytes).ok()) {
            positions.extend(state.positions);
        }
    }
    Ok(positions)
}

/// Name of a shard's checkpoint. A log created anew begins without one.
pub(crate) fn name(epoch: u64, shard: Shard) -> String {
    format!("speed/{epoch}/{shard}")
}

/// A state as bytes.
pub(crate) fn encode(state: &ShardState) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(state, vec![VERSION])?;
    bytes.extend(xxh3_64(&bytes).to_be_bytes());
    Ok(bytes)
}

/// A state from bytes that a store gave back.
pub(crate) fn decode(bytes: &[u8]) -> Result<ShardState, CheckpointError> {
    let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(CheckpointError::Checksum);
    };
    let Some((&version, state)) = body.split_first() else {
        return Err(CheckpointError::Checksum);
    };
    if xxh3_64(body).to_be_bytes() != *checksum {
        return Err(CheckpointError::Checksum);
    }
    if version != VERSION {
        return Err(CheckpointError::Version(version));
    }
    postcard::from_bytes(state).map_err(CheckpointError::Decode)
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{TenantId, VenueId};

    use super::*;

    fn state() -> ShardState {
        let venue = VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("v1").unwrap());
        let late = ("2026-10-25".parse().unwrap(), 3);
        ShardState {
            positions: vec![(3, 42), (11, 7)],
            venues: vec![VenueCheckpoint {
                venue,
                latest_ts: 1_800_000_000_000,
                watermark: 1_799_999_995_000,
                late,
            }],
        }
    }

    #[test]
    fn a_state_reads_back_as_it_was() {
        assert_eq!(decode(&encode(&state()).unwrap()).unwrap(), state());
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let bytes = encode(&state()).unwrap();
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {i}");
            assert!(decode(&bytes[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut bytes = encode(&state()).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes[0] = 9;
        let checksum = xxh3_64(&bytes);
        bytes.extend(checksum.to_be_bytes());
        assert_eq!(decode(&bytes), Err(CheckpointError::Version(9)));
    }

    /// The bytes of version 2, written down when it was made: a change of the form must raise the version.
    #[test]
    fn version_2_is_what_it_was() {
        let body = [
            &[2_u8, 2, 3, 84, 11, 14][..], // version, two partitions with their positions 42 and 7 (zigzag)
            &[1],                          // one venue
            &[4],
            b"acme",
            &[2],
            b"v1",
            &[0x80, 0xc0, 0xe2, 0x85, 0xe3, 0x68], // latest_ts
            &[0xf0, 0xf1, 0xe1, 0x85, 0xe3, 0x68], // watermark
            &[10],
            b"2026-10-25",
            &[3],
        ]
        .concat();
        let mut bytes = body.clone();
        bytes.extend(xxh3_64(&body).to_be_bytes());
        assert_eq!(encode(&state()).unwrap(), bytes);
    }

    /// A checkpoint of version 1 (one partition at position 42, no venues), as former versions wrote it.
    #[test]
    fn version_1_is_refused_by_its_number() {
        let body = [1_u8, 84, 0];
        let mut bytes = body.to_vec();
        bytes.extend(xxh3_64(&body).to_be_bytes());
        assert_eq!(decode(&bytes), Err(CheckpointError::Version(1)));
    }
}
