//! Sessions of each generation in Cassandra, by start and id; beside them a table from ids to starts.
//!
//! Writing a generation again replaces it: a deletion just before the new rows takes the former ones (see
//! [`write_clock`](super::write_clock)).

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::session::Session;
use dwell_model::time::{LocalDay, TsMs};
use scylla::value::CqlTimestamp;

use super::cluster::{Cluster, Cql};
use super::encoding::{from_blob, to_blob};
use super::rows::{self, SizedRow};
use super::values::{date, to_stored};
use crate::api::{Generation, SessionCursor, SessionsReader, SessionsWriter, StoredSession};
use crate::error::Result;

/// Version of the blob that holds a session: postcard of [`Session`].
const SESSION_VERSION: u8 = 1;

const INSERT: Cql = Cql::write(
    "write sessions",
    "INSERT INTO {ks}.sessions (tenant, venue, day, generation, start, id, session)
     VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
);
const INSERT_START: Cql = Cql::write(
    "write sessions",
    "INSERT INTO {ks}.session_starts (tenant, venue, day, generation, id, start)
     VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
);
const DELETE: Cql = Cql::write(
    "delete sessions",
    "DELETE FROM {ks}.sessions USING TIMESTAMP ? WHERE tenant = ? AND venue = ? AND day = ? AND generation = ?",
);
const DELETE_STARTS: Cql = Cql::write(
    "delete sessions",
    "DELETE FROM {ks}.session_starts USING TIMESTAMP ? WHERE tenant = ? AND venue = ? AND day = ? AND generation = ?",
);
const ERASE: Cql = Cql::write(
    "erase sessions",
    "DELETE FROM {ks}.sessions USING TIMESTAMP ?
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND start = ? AND id = ?",
);
const ERASE_START: Cql = Cql::write(
    "erase sessions",
    "DELETE FROM {ks}.session_starts USING TIMESTAMP ?
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND id = ?",
);
const LIST: Cql = Cql::read(
    "list sessions",
    "SELECT id, session FROM {ks}.sessions
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND (start, id) > (?, ?) LIMIT ?",
);
const FIND_START: Cql = Cql::read(
    "read a session",
    "SELECT start FROM {ks}.session_starts
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND id = ?",
);
const GET: Cql = Cql::read(
    "read a session",
    "SELECT id, session FROM {ks}.sessions
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND start = ? AND id = ?",
);

/// The sessions table in Cassandra.
#[derive(Debug)]
pub struct CassandraSessions {
    cluster: Cluster,
}

impl CassandraSessions {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn delete_before(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        time_us: i64,
    ) -> Result<()> {
        let (tenant, venue, day) = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let key = (time_us, tenant, venue, day, to_stored(generation)?);
        futures::try_join!(
            self.cluster.execute(DELETE, key),
            self.cluster.execute(DELETE_STARTS, key)
        )?;
        Ok(())
    }
}

#[async_trait]
impl SessionsWriter for CassandraSessions {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<StoredSession>,
    ) -> Result<()> {
        let time = self.cluster.write_clock().await?.replacement();
        self.delete_before(venue, day, generation, time.deletion_us)
            .await?;
        let (tenant, venue, day) = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let generation = to_stored(generation)?;
        let (mut in_order, mut starts) = (Vec::new(), Vec::new());
        for StoredSession { id, session } in &sessions {
            let (start, blob) = (CqlTimestamp(session.start), to_blob(SESSION_VERSION, session)?);
            let bytes = tenant.len() + venue.len() + id.len();
            starts.push(SizedRow {
                bytes,
                values: (tenant, venue, day, generation, id.as_str(), start, time.rows_us),
            });
            in_order.push(SizedRow {
                bytes: bytes + blob.len(),
                values: (
                    tenant,
                    venue,
                    day,
                    generation,
                    start,
                    id.as_str(),
                    blob,
                    time.rows_us,
                ),
            });
        }
        rows::write(&self.cluster, INSERT, in_order).await?;
        rows::write(&self.cluster, INSERT_START, starts).await
    }

    async fn erase(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<SessionCursor>,
    ) -> Result<()> {
        let (tenant, venue, day) = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let generation = to_stored(generation)?;
        for SessionCursor { start, id } in &sessions {
            let time_us = self.cluster.write_clock().await?.replacement().rows_us;
            let (start, id) = (CqlTimestamp(*start), id.as_str());
            futures::try_join!(
                self.cluster
                    .execute(ERASE, (time_us, tenant, venue, day, generation, start, id)),
                self.cluster
                    .execute(ERASE_START, (time_us, tenant, venue, day, generation, id))
            )?;
        }
        Ok(())
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        let time = self.cluster.write_clock().await?.replacement();
        self.delete_before(venue, day, generation, time.rows_us).await
    }
}

#[async_trait]
impl SessionsReader for CassandraSessions {
    async fn list(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        after: Option<&SessionCursor>,
        limit: usize,
    ) -> Result<Vec<StoredSession>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (start, id) = after.map_or((TsMs::MIN, ""), |after| (after.start, after.id.as_str()));
        let key = (
            venue.tenant.as_str(),
            venue.venue.as_str(),
            date(day),
            to_stored(generation)?,
            CqlTimestamp(start),
            id,
            i32::try_from(limit).unwrap_or(i32::MAX),
        );
        let rows: Vec<(String, Vec<u8>)> = self.cluster.all(LIST, key).await?;
        rows.into_iter().map(from_row).collect()
    }

    async fn get(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        id: &str,
    ) -> Result<Option<StoredSession>> {
        let (tenant, venue, day) = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let generation = to_stored(generation)?;
        let start: Option<(CqlTimestamp,)> = self
            .cluster
            .first(FIND_START, (tenant, venue, day, generation, id))
            .await?;
        let Some((start,)) = start else { return Ok(None) };
        let row: Option<(String, Vec<u8>)> = self
            .cluster
            .first(GET, (tenant, venue, day, generation, start, id))
            .await?;
        row.map(from_row).transpose()
    }
}

fn from_row((id, blob): (String, Vec<u8>)) -> Result<StoredSession> {
    let session: Session = from_blob(SESSION_VERSION, &blob)?;
    Ok(StoredSession { id, session })
}
