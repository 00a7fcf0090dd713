//! What every conditional write needs beside the write itself: a stamp of its own, and patience with others.
//!
//! A write that was refused has seen the row at its newest, and brought it to a majority of its nodes; so what it rested
//! on is read again by a plain read. SERIAL reads, which stand in the way of conditional writes as those do of each
//! other, are for unknown outcomes, and for what is published.

use std::time::Duration;

use super::cluster::Cluster;
use crate::error::{ErrorKind, Result, StorageError};

/// Tries of a write that others get in the way of. Among n who want the same row at once one of them gets on in each
/// round, so this is about how many may want it.
const TRIES_MAX: u32 = 40;

/// Longest wait before the first further try; doubled each time.
const WAIT_BASE_MS: u64 = 4;
const WAIT_MS_MAX: u64 = 250;

/// Sixteen random bytes that a conditional write leaves in its row. They say afterwards whose write stands there, and
/// the next write rests on them: a write that the network delayed finds another stamp and changes nothing.
pub(super) type Stamp = [u8; 16];

/// A new stamp.
pub(super) fn stamp() -> Result<Stamp> {
    let mut stamp = Stamp::default();
    fill(&mut stamp)?;
    Ok(stamp)
}

/// A random number of 63 bits, never 0.
pub(super) fn random_number() -> Result<i64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok((i64::from_be_bytes(bytes) & i64::MAX).max(1))
}

/// Whether a stamp read back is this one.
pub(super) fn is_stamp(stored: Option<&Vec<u8>>, mine: &Stamp) -> bool {
    stored.is_some_and(|stored| stored[..] == mine[..])
}

/// The rounds of one call.
#[derive(Debug)]
pub(super) struct Contention<'a> {
    cluster: &'a Cluster,
    doing: &'static str,
    tries: u32,
}

impl<'a> Contention<'a> {
    pub(super) fn new(cluster: &'a Cluster, doing: &'static str) -> Self {
        Self {
            cluster,
            doing,
            tries: 0,
        }
    }

    /// Waits a random while before the next round; `Busy` when there were too many: every round found the row as it
    /// was, or another's.
    pub(super) async fn wait(&mut self) -> Result<()> {
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            let why = format!("{} in Cassandra: too many want the same row at once", self.doing);
            return Err(StorageError::new(ErrorKind::Busy, why));
        }
        let longest_ms = (WAIT_BASE_MS << self.tries.min(10)).min(WAIT_MS_MAX);
        let wait_ms = random_number()?.unsigned_abs() % longest_ms;
        self.cluster.clock().sleep(Duration::from_millis(wait_ms)).await;
        Ok(())
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| StorageError::new(ErrorKind::Unavailable, format!("asking for randomness: {error}")))
}
