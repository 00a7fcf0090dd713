//! Sessions of each generation of a venue-day.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::session::Session;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::Generation;
use crate::error::Result;

/// A session with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// Its id (see [`dwell_model::session::session_id`]).
    pub id: String,
    /// The session.
    pub session: Session,
}

/// Where a page of sessions begins: after this session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionCursor {
    /// Start of the last session of the page before.
    pub start: TsMs,
    /// Its id.
    pub id: String,
}

/// Writing sessions.
#[async_trait]
pub trait SessionsWriter: Send + Sync {
    /// Stores all sessions of a generation; repeating it replaces them. Nobody reads them before publication.
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<StoredSession>,
    ) -> Result<()>;

    /// Removes some sessions of a generation for good, each by its start and id; removing nothing is fine.
    async fn erase(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        sessions: Vec<SessionCursor>,
    ) -> Result<()>;

    /// Removes the sessions of a generation; removing nothing is fine.
    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()>;
}

/// Reading sessions.
#[async_trait]
pub trait SessionsReader: Send + Sync {
    /// Sessions of a generation by (start, id), after a cursor, at most `limit`.
    async fn list(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        after: Option<&SessionCursor>,
        limit: usize,
    ) -> Result<Vec<StoredSession>>;

    /// One session of a generation.
    async fn get(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        id: &str,
    ) -> Result<Option<StoredSession>>;
}

/// The sessions table.
pub trait Sessions: SessionsWriter + SessionsReader {}

impl<T: SessionsWriter + SessionsReader> Sessions for T {}
