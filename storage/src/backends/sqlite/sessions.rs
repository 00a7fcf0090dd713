//! Sessions of each generation in `data.db`, by (venue, day, generation, start, id).

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::session::Session;
use dwell_model::time::{LocalDay, TsMs};
use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::Database;
use super::failure::Failure;
use super::values::{find_venue, from_blob, intern_venue, sql_limit, to_blob, to_stored};
use crate::api::{Generation, SessionCursor, SessionsReader, SessionsWriter, StoredSession};
use crate::error::Result;

/// Version of the blob that holds a session: postcard of [`Session`].
const SESSION_VERSION: u8 = 1;

/// The embedded sessions table.
#[derive(Debug)]
pub struct SqliteSessions {
    data: Database,
}

impl SqliteSessions {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl SessionsWriter for SqliteSessions {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<StoredSession>,
    ) -> Result<()> {
        let venue = venue.clone();
        self.data
            .write("write sessions", move |data| {
                let (venue_ref, generation) = (intern_venue(data, &venue)?, to_stored(generation)?);
                delete(data, venue_ref, day, generation)?;
                let mut insert =
                    data.prepare_cached("INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                let day = day.to_epoch_days();
                for StoredSession { id, session } in &sessions {
                    let blob = to_blob(SESSION_VERSION, session)?;
                    insert.execute((venue_ref, day, generation, session.start, id, blob))?;
                }
                Ok(())
            })
            .await
    }

    async fn erase(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<SessionCursor>,
    ) -> Result<()> {
        let venue = venue.clone();
        self.data
            .write("erase sessions", move |data| {
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(());
                };
                let mut delete = data.prepare_cached(
                    "DELETE FROM sessions WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3 AND start = ?4 AND id = ?5",
                )?;
                let (day, generation) = (day.to_epoch_days(), to_stored(generation)?);
                for SessionCursor { start, id } in &sessions {
                    delete.execute((venue_ref, day, generation, start, id))?;
                }
                Ok(())
            })
            .await
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        let venue = venue.clone();
        self.data
            .write("delete sessions", move |data| match find_venue(data, &venue)? {
                Some(venue_ref) => delete(data, venue_ref, day, to_stored(generation)?),
                None => Ok(()),
            })
            .await
    }
}

#[async_trait]
impl SessionsReader for SqliteSessions {
    async fn list(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        after: Option<&SessionCursor>,
        limit: usize,
    ) -> Result<Vec<StoredSession>> {
        let (venue, after) = (venue.clone(), after.cloned());
        self.data
            .read("list sessions", move |data| {
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(Vec::new());
                };
                let after = after.unwrap_or(SessionCursor {
                    start: TsMs::MIN,
                    id: String::new(),
                });
                let mut select = data.prepare_cached(
                    "SELECT id, session FROM sessions
                     WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3 AND (start, id) > (?4, ?5)
                     ORDER BY start, id LIMIT ?6",
                )?;
                let mut rows = select.query((
                    venue_ref,
                    day.to_epoch_days(),
                    to_stored(generation)?,
                    after.start,
                    after.id,
                    sql_limit(limit),
                ))?;
                let mut sessions = Vec::new();
                while let Some(row) = rows.next()? {
                    sessions.push(from_row(row)?);
                }
                Ok(sessions)
            })
            .await
    }

    async fn get(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        id: &str,
    ) -> Result<Option<StoredSession>> {
        let (venue, id) = (venue.clone(), id.to_owned());
        self.data
            .read("read a session", move |data| {
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(None);
                };
                let mut select = data.prepare_cached(
                    "SELECT id, session FROM sessions
                     WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3 AND id = ?4",
                )?;
                let key = (venue_ref, day.to_epoch_days(), to_stored(generation)?, id);
                select
                    .query_row(key, |row| Ok(from_row(row)))
                    .optional()?
                    .transpose()
            })
            .await
    }
}

fn delete(data: &Connection, venue_ref: i64, day: LocalDay, generation: i64) -> Result<(), Failure> {
    data.prepare_cached("DELETE FROM sessions WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3")?
        .execute((venue_ref, day.to_epoch_days(), generation))?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<StoredSession, Failure> {
    let blob = row.get_ref(1)?.as_blob().map_err(Failure::damaged_row)?;
    let session: Session = from_blob(SESSION_VERSION, blob)?;
    Ok(StoredSession {
        id: row.get(0)?,
        session,
    })
}
