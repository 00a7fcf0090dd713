//! Checkpoints in `data.db`.

use async_trait::async_trait;
use rusqlite::OptionalExtension;

use super::connection::Database;
use super::failure::Failure;
use super::values::{from_stored, to_stored};
use crate::api::{Checkpoint, Checkpoints};
use crate::error::{ErrorKind, Result};

/// The embedded checkpoints table.
#[derive(Debug)]
pub struct SqliteCheckpoints {
    data: Database,
}

impl SqliteCheckpoints {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl Checkpoints for SqliteCheckpoints {
    async fn take_ownership(&self, name: &str) -> Result<u64> {
        let name = name.to_owned();
        self.data
            .write("take ownership of a checkpoint", move |data| {
                let mut raise = data.prepare_cached(
                    "INSERT INTO checkpoints (name, fence) VALUES (?1, 1)
                     ON CONFLICT DO UPDATE SET fence = fence + 1 RETURNING fence",
                )?;
                from_stored(raise.query_row([name], |row| row.get(0))?)
            })
            .await
    }

    async fn load(&self, name: &str) -> Result<Option<Checkpoint>> {
        let name = name.to_owned();
        self.data
            .read("load a checkpoint", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT stored_fence, state FROM checkpoints WHERE name = ?1 AND stored_fence IS NOT NULL",
                )?;
                let found: Option<(i64, Vec<u8>)> =
                    select.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                found.map(|(fence, bytes)| Ok(Checkpoint { fence: from_stored(fence)?, bytes })).transpose()
            })
            .await
    }

    async fn store(&self, name: &str, checkpoint: Checkpoint) -> Result<()> {
        let name = name.to_owned();
        self.data
            .write("store a checkpoint", move |data| {
                let fence = to_stored(checkpoint.fence)?;
                let given_out: Option<i64> = data
                    .prepare_cached("SELECT fence FROM checkpoints WHERE name = ?1")?
                    .query_row([&name], |row| row.get(0))
                    .optional()?;
                let given_out = given_out.unwrap_or(0);
                if fence < given_out {
                    let why = format!(
                        "{name}: another owner has taken over with fence {given_out}, this one has {fence}"
                    );
                    return Err(Failure::refuse(ErrorKind::Conflict, why));
                }
                if fence > given_out {
                    let why =
                        format!("{name}: the fence {fence} was never given out; the highest is {given_out}");
                    return Err(Failure::refuse(ErrorKind::Invalid, why));
                }
                data.prepare_cached(
                    "INSERT INTO checkpoints (name, fence, stored_fence, state) VALUES (?1, ?2, ?2, ?3)
                     ON CONFLICT DO UPDATE SET stored_fence = ?2, state = ?3",
                )?
                .execute((name, fence, checkpoint.bytes))?;
                Ok(())
            })
            .await
    }
}
