//! Checkpoints in Cassandra: a row per name that says who owns it and where its last state lies, and the states in
//! chunks.
//!
//! A state is written in chunks under a number of its own first; then one conditional write makes it the last one, if
//! the owner's fence is still the highest. So a state is replaced at one time however large it is, and an owner that
//! was paused leaves at most chunks that nobody finds; the next state removes them, and all older ones.

use async_trait::async_trait;
use futures::{TryStreamExt, stream};

use super::chunks::{self, Outline};
use super::cluster::{Cluster, Cql};
use super::contention::{Contention, is_stamp, stamp};
use super::values::{damaged_value, from_stored, to_stored};
use crate::api::{Checkpoint, Checkpoints};
use crate::error::{ErrorKind, Result, StorageError};

const READ_OWNER: Cql = Cql::read(
    "read the owner of a checkpoint",
    "SELECT fence, owner, owner_state FROM {ks}.checkpoints WHERE name = ?",
);
const SETTLE_OWNER: Cql = Cql::serial_read(
    "read the owner of a checkpoint",
    "SELECT fence, owner, owner_state FROM {ks}.checkpoints WHERE name = ?",
);
const FIRST_OWNER: Cql = Cql::conditional(
    "take ownership of a checkpoint",
    "INSERT INTO {ks}.checkpoints (name, fence, owner, owner_state) VALUES (?, ?, ?, 0) IF NOT EXISTS",
);
const NEXT_OWNER: Cql = Cql::conditional(
    "take ownership of a checkpoint",
    "UPDATE {ks}.checkpoints SET fence = ?, owner = ?, owner_state = 0 WHERE name = ? IF fence = ?",
);
const STORE: Cql = Cql::conditional(
    "store a checkpoint",
    "UPDATE {ks}.checkpoints
     SET owner_state = ?, stored_fence = ?, stored_state = ?, chunks = ?, bytes = ?, digest = ?
     WHERE name = ? IF fence = ? AND owner_state < ?",
);
const LOAD: Cql = Cql::serial_read(
    "load a checkpoint",
    "SELECT stored_fence, stored_state, chunks, bytes, digest FROM {ks}.checkpoints WHERE name = ?",
);
const WRITE_CHUNK: Cql = Cql::write(
    "store a checkpoint",
    "INSERT INTO {ks}.checkpoint_chunks (name, fence, state, chunk, data) VALUES (?, ?, ?, ?, ?)",
);
const READ_CHUNKS: Cql = Cql::read(
    "load a checkpoint",
    "SELECT chunk, data FROM {ks}.checkpoint_chunks WHERE name = ? AND fence = ? AND state = ?",
);
const REMOVE_OLDER: Cql = Cql::write(
    "remove old checkpoints",
    "DELETE FROM {ks}.checkpoint_chunks WHERE name = ? AND (fence, state) < (?, ?)",
);

/// Chunks under way at a time.
const CHUNKS_AT_ONCE: usize = 4;
/// Loads that find the state replaced under their eyes, before giving up.
const LOADS_MAX: u32 = 5;

/// The checkpoints table in Cassandra.
#[derive(Debug)]
pub struct CassandraCheckpoints {
    cluster: Cluster,
}

struct Owner {
    fence: i64,
    owner: Option<Vec<u8>>,
    last_state: i64,
}

impl CassandraCheckpoints {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn owner(&self, cql: Cql, name: &str) -> Result<Option<Owner>> {
        type Columns = (Option<i64>, Option<Vec<u8>>, Option<i64>);
        let row: Option<Columns> = self.cluster.first(cql, (name,)).await?;
        row.map(|(fence, owner, last_state)| {
            Ok(Owner {
                fence: fence.ok_or_else(|| damaged_value("a checkpoint has no fence"))?,
                owner,
                last_state: last_state.unwrap_or(0),
            })
        })
        .transpose()
    }

    async fn write_chunks(&self, name: &str, fence: i64, state: i64, bytes: &[u8]) -> Result<()> {
        stream::iter(chunks::cut(bytes).map(Ok))
            .try_for_each_concurrent(CHUNKS_AT_ONCE, async |(chunk, data)| {
                self.cluster
                    .execute(WRITE_CHUNK, (name, fence, state, chunk, data))
                    .await
            })
            .await
    }
}

#[async_trait]
impl Checkpoints for CassandraCheckpoints {
    async fn take_ownership(&self, name: &str) -> Result<u64> {
        let mut contention = Contention::new(&self.cluster, FIRST_OWNER.doing());
        loop {
            let mine = stamp()?;
            let read_back = async {
                let owner = self.owner(SETTLE_OWNER, name).await?;
                Ok(owner.is_some_and(|row| is_stamp(row.owner.as_ref(), &mine)))
            };
            let (taken, fence) = match self.owner(READ_OWNER, name).await? {
                None => {
                    let row = (name, 1_i64, mine.as_slice());
                    (self.cluster.conditional(FIRST_OWNER, row, read_back).await?, 1)
                }
                Some(Owner { fence, .. }) => {
                    let row = (fence + 1, mine.as_slice(), name, fence);
                    (
                        self.cluster.conditional(NEXT_OWNER, row, read_back).await?,
                        fence + 1,
                    )
                }
            };
            if taken {
                return from_stored(fence);
            }
            contention.wait().await?;
        }
    }

    async fn load(&self, name: &str) -> Result<Option<Checkpoint>> {
        type Columns = (Option<i64>, Option<i64>, Option<i32>, Option<i32>, Option<i64>);
        let mut loads = 0;
        loop {
            let row: Option<Columns> = self.cluster.first(LOAD, (name,)).await?;
            let Some((Some(fence), Some(state), Some(chunks), Some(bytes), Some(digest))) = row else {
                return Ok(None);
            };
            let outline = Outline {
                chunks,
                bytes,
                digest,
            };
            let found: Vec<(i32, Vec<u8>)> = self.cluster.all(READ_CHUNKS, (name, fence, state)).await?;
            if let Some(bytes) = outline.join(&found) {
                let fence = from_stored(fence)?;
                return Ok(Some(Checkpoint { fence, bytes }));
            }
            // Its owner may have stored a newer one meanwhile, and removed this one.
            loads += 1;
            if loads == LOADS_MAX {
                return Err(damaged_value(format_args!(
                    "the state {state} of {name} has other chunks than its row says"
                )));
            }
        }
    }

    async fn store(&self, name: &str, checkpoint: Checkpoint) -> Result<()> {
        let fence = to_stored(checkpoint.fence)?;
        // A plain read may be late, never early: a higher fence in it has been given out.
        if let Some(owner) = self
            .owner(READ_OWNER, name)
            .await?
            .filter(|owner| owner.fence > fence)
        {
            return Err(taken_over(name, fence, owner.fence));
        }
        // Numbers of states only grow within a process, and a fence is owned by one process.
        let state = self.cluster.write_clock().await?.replacement().rows_us;
        let outline = Outline::of(&checkpoint.bytes)?;
        self.write_chunks(name, fence, state, &checkpoint.bytes).await?;
        let mut contention = Contention::new(&self.cluster, STORE.doing());
        loop {
            let read_back = async {
                let owner = self.owner(SETTLE_OWNER, name).await?;
                Ok(owner.is_some_and(|row| row.fence == fence && row.last_state >= state))
            };
            let row = (
                state,
                fence,
                state,
                outline.chunks,
                outline.bytes,
                outline.digest,
                name,
                fence,
                state,
            );
            if self.cluster.conditional(STORE, row, read_back).await? {
                break;
            }
            match self.owner(READ_OWNER, name).await? {
                Some(owner) if owner.fence > fence => return Err(taken_over(name, fence, owner.fence)),
                // A later state of the same owner has overtaken this one, or an earlier try of it was late.
                Some(owner) if owner.fence == fence && owner.last_state >= state => break,
                Some(owner) if owner.fence == fence => contention.wait().await?,
                found => {
                    let given_out = found.map_or(0, |owner| owner.fence);
                    let why =
                        format!("{name}: the fence {fence} was never given out; the highest is {given_out}");
                    return Err(StorageError::new(ErrorKind::Invalid, why));
                }
            }
        }
        // The state is stored; what cannot be removed now goes with the next one.
        if let Err(error) = self.cluster.execute(REMOVE_OLDER, (name, fence, state)).await {
            tracing::debug!(name, %error, "old checkpoints were not removed");
        }
        Ok(())
    }
}

fn taken_over(name: &str, fence: i64, given_out: i64) -> StorageError {
    let why = format!("{name}: another owner has taken over with fence {given_out}, this one has {fence}");
    StorageError::new(ErrorKind::Conflict, why)
}
