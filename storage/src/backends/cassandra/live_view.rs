//! The live view in Cassandra: what the speed layer shows, for serving processes anywhere.
//!
//! A state is compressed, written in chunks, and then given a head ([`encoding`], [`chunks`]). Readers
//! take the head with the highest fence and the newest moment, and the chunks that belong to it; if those are gone
//! already they look for the head again. Whoever shows a state removes those that are [`STATES_KEPT_MS`] older, and
//! those of lower fences; lost removals do no harm, since order hides old states and a day's time to live ends them.
//!
//! Reading goes through a [`Board`]: a venue is asked for at most twice a second however many ask, and
//! one task looks after all venues that somebody is subscribed to.

mod board;
mod encoding;

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_runtime::tasks::Tasks;
use futures::{TryStreamExt, stream};
use scylla::value::CqlTimestamp;
use tokio::sync::watch;

use self::board::{Board, Look, Newest};
use super::chunks::{self, Outline};
use super::cluster::{Cluster, Cql};
use super::values::{damaged_value, from_stored, to_stored};
use crate::api::{LIVE_STATE_KEPT_MS, LiveVenue, LiveView, LiveViewWriter};
use crate::error::Result;

const WRITE_CHUNK: Cql = Cql::write(
    "show a live state",
    "INSERT INTO {ks}.live_chunks (tenant, venue, fence, as_of, chunk, data) VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
);
const WRITE_HEAD: Cql = Cql::write(
    "show a live state",
    "INSERT INTO {ks}.live_heads (tenant, venue, fence, as_of, chunks, bytes, digest) VALUES (?, ?, ?, ?, ?, ?, ?)
     USING TTL ?",
);
const REMOVE_CHUNKS: Cql = Cql::write(
    "remove old live states",
    "DELETE FROM {ks}.live_chunks WHERE tenant = ? AND venue = ? AND (fence, as_of) < (?, ?)",
);
const REMOVE_HEADS: Cql = Cql::write(
    "remove old live states",
    "DELETE FROM {ks}.live_heads WHERE tenant = ? AND venue = ? AND (fence, as_of) < (?, ?)",
);
const READ_HEAD: Cql = Cql::read(
    "read a live state",
    "SELECT fence, as_of, chunks, bytes, digest FROM {ks}.live_heads WHERE tenant = ? AND venue = ? LIMIT 1",
);
const READ_CHUNKS: Cql = Cql::read(
    "read a live state",
    "SELECT chunk, data FROM {ks}.live_chunks WHERE tenant = ? AND venue = ? AND fence = ? AND as_of = ?",
);

/// How long a state is kept after a newer one was shown, for those who are reading it.
const STATES_KEPT_MS: i64 = 10_000;
/// Chunks under way at a time.
const CHUNKS_AT_ONCE: usize = 4;
/// Reads that find the state replaced under their eyes, before giving up.
const READS_MAX: u32 = 5;

/// The live view in Cassandra. Clones are the same.
#[derive(Debug, Clone)]
pub struct CassandraLiveView {
    table: LiveTable,
    board: Board<LiveTable>,
}

impl CassandraLiveView {
    /// The task that looks after subscriptions runs among `tasks`, as long as there are any.
    pub(super) fn new(cluster: Cluster, tasks: Tasks) -> Self {
        let clock = Arc::clone(cluster.clock());
        let table = LiveTable { cluster };
        let board = Board::new(table.clone(), clock, tasks);
        Self { table, board }
    }
}

#[async_trait]
impl LiveView for CassandraLiveView {
    async fn venue(&self, venue: &VenueKey) -> Result<Option<Arc<LiveVenue>>> {
        self.board.venue(venue).await
    }

    async fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<Option<Arc<LiveVenue>>>> {
        self.board.subscribe(venue).await
    }
}

#[async_trait]
impl LiveViewWriter for CassandraLiveView {
    async fn show(&self, state: &LiveVenue) -> Result<()> {
        self.table.show(state).await
    }
}

/// The tables.
#[derive(Debug, Clone)]
struct LiveTable {
    cluster: Cluster,
}

impl LiveTable {
    async fn show(&self, state: &LiveVenue) -> Result<()> {
        let bytes = encoding::encode(state)?;
        let outline = Outline::of(&bytes)?;
        let (tenant, venue) = (state.venue.tenant.as_str(), state.venue.venue.as_str());
        let (fence, as_of) = (to_stored(state.fence)?, CqlTimestamp(state.as_of));
        let ttl_s = (LIVE_STATE_KEPT_MS / 1_000) as i32;
        stream::iter(chunks::cut(&bytes).map(Ok))
            .try_for_each_concurrent(CHUNKS_AT_ONCE, async |(chunk, data)| {
                let row = (tenant, venue, fence, as_of, chunk, data, ttl_s);
                self.cluster.execute(WRITE_CHUNK, row).await
            })
            .await?;
        let Outline {
            chunks,
            bytes,
            digest,
        } = outline;
        let head = (tenant, venue, fence, as_of, chunks, bytes, digest, ttl_s);
        self.cluster.execute(WRITE_HEAD, head).await?;
        // The state is shown; what cannot be removed now goes with the next one.
        let older = (
            tenant,
            venue,
            fence,
            CqlTimestamp(state.as_of.saturating_sub(STATES_KEPT_MS)),
        );
        let removed = futures::try_join!(
            self.cluster.execute(REMOVE_HEADS, older),
            self.cluster.execute(REMOVE_CHUNKS, older)
        );
        if let Err(error) = removed {
            tracing::debug!(venue = %state.venue, %error, "old live states were not removed");
        }
        Ok(())
    }
}

#[async_trait]
impl Look for LiveTable {
    async fn newest(&self, venue: &VenueKey, known: Option<&LiveVenue>) -> Result<Newest> {
        type Head = (i64, CqlTimestamp, Option<i32>, Option<i32>, Option<i64>);
        let (tenant, id) = (venue.tenant.as_str(), venue.venue.as_str());
        let mut reads = 0;
        loop {
            let head: Option<Head> = self.cluster.first(READ_HEAD, (tenant, id)).await?;
            let Some((fence, as_of, Some(chunks), Some(bytes), Some(digest))) = head else {
                return Ok(Newest::Nothing);
            };
            let place = (from_stored(fence)?, as_of.0);
            if known.is_some_and(|known| (known.fence, known.as_of) == place) {
                return Ok(Newest::AsKnown);
            }
            let outline = Outline {
                chunks,
                bytes,
                digest,
            };
            let found: Vec<(i32, Vec<u8>)> =
                self.cluster.all(READ_CHUNKS, (tenant, id, fence, as_of)).await?;
            if let Some(bytes) = outline.join(&found) {
                let state = encoding::decode(&bytes, venue, place)?;
                return Ok(Newest::State(Arc::new(state)));
            }
            reads += 1;
            if reads == READS_MAX {
                return Err(damaged_value(format_args!(
                    "the live state of {venue} has other chunks than its head says"
                )));
            }
        }
    }
}
