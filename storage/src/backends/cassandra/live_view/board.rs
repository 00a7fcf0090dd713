//! What readers of one process know of the live view: a cache of states, and one task for all subscriptions.
//!
//! A venue's state is looked up again when it is older than [`FRESH_FOR`], by one caller at a time; the others wait for
//! that one. While the table cannot be reached, the last known state goes on answering for [`ANSWERS_FOR`]; its `as_of`
//! says how old it is. A state is replaced by a newer one only.
//!
//! The task starts with the first subscription, looks once in [`LOOK_EVERY`] for every venue that somebody is
//! subscribed to, some at a time, and ends when nobody is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use futures::StreamExt;
use tokio::sync::watch;

use super::super::several;
use crate::api::LiveVenue;
use crate::error::{ErrorKind, Result, StorageError};

/// How long a state answers without another look.
pub(super) const FRESH_FOR: Duration = Duration::from_millis(500);
/// How long the last known state answers while the table cannot be reached.
pub(super) const ANSWERS_FOR: Duration = Duration::from_secs(60);
/// How often subscribed venues are looked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Venues looked for at a time.
const LOOKS_AT_ONCE: usize = 16;
/// Venues that one process may be subscribed to.
const SUBSCRIBED_MAX: usize = 10_000;
/// Venues known, from which on those that nobody is subscribed to are forgotten as soon as they are not fresh. Below
/// it they are forgotten when they would not answer any more.
const KNOWN_MAX: usize = 512;

/// Where states come from.
#[async_trait]
pub(super) trait Look: Send + Sync + 'static {
    /// The newest state of a venue.
    async fn newest(&self, venue: &VenueKey, known: Option<&LiveVenue>) -> Result<Newest>;
}

/// What [`Look::newest`] finds.
#[derive(Debug, Clone)]
pub(super) enum Newest {
    Nothing,
    /// The known one.
    AsKnown,
    State(Arc<LiveVenue>),
}

type State = Option<Arc<LiveVenue>>;

/// The states known to a process. Clones are the same board.
#[derive(Debug)]
pub(super) struct Board<L> {
    inner: Arc<Inner<L>>,
}

#[derive(Debug)]
struct Inner<L> {
    source: L,
    clock: SharedClock,
    tasks: Tasks,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    venues: BTreeMap<VenueKey, Arc<Entry>>,
    is_looking: bool,
}

#[derive(Debug)]
struct Entry {
    /// Held while looking.
    looking: tokio::sync::Mutex<()>,
    /// When the state was last looked for, with success.
    looked_at: Mutex<Option<Duration>>,
    state: watch::Sender<State>,
}

impl<L> Clone for Board<L> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<L: Look> Board<L> {
    pub(super) fn new(source: L, clock: SharedClock, tasks: Tasks) -> Self {
        let inner = Inner {
            source,
            clock,
            tasks,
            known: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A venue's state, at most [`FRESH_FOR`] old.
    pub(super) async fn venue(&self, venue: &VenueKey) -> Result<State> {
        let entry = self.inner.entry(venue);
        self.inner.look(venue, &entry, FRESH_FOR).await?;
        let state = entry.state.borrow().clone();
        Ok(state)
    }

    /// A channel that holds a venue's state, at most [`LOOK_EVERY`] old.
    pub(super) async fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<State>> {
        let entry = self.inner.entry(venue);
        self.inner.look(venue, &entry, FRESH_FOR).await?;
        let mut known = self.inner.known();
        // It may have been dropped as unwatched meanwhile.
        let entry = Arc::clone(known.venues.entry(venue.clone()).or_insert(entry));
        let subscribed = known.venues.values().filter(|entry| entry.is_watched()).count();
        if subscribed >= SUBSCRIBED_MAX && !entry.is_watched() {
            let why = format!("follow the live view of {venue}: {subscribed} venues are followed already");
            return Err(StorageError::new(ErrorKind::Busy, why));
        }
        let receiver = entry.state.subscribe();
        if !known.is_looking {
            known.is_looking = true;
            let looking = keep_looking(Arc::downgrade(&self.inner), Arc::clone(&self.inner.clock));
            self.inner.tasks.spawn("live view", TaskPolicy::Log, looking);
        }
        Ok(receiver)
    }
}

impl<L: Look> Inner<L> {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, venue: &VenueKey) -> Arc<Entry> {
        let mut known = self.known();
        if let Some(entry) = known.venues.get(venue) {
            return Arc::clone(entry);
        }
        // A state may be of megabytes: what nobody asks for any more goes when another venue comes.
        let (now, is_crowded) = (self.clock.monotonic(), known.venues.len() >= KNOWN_MAX);
        let kept_for = if is_crowded { FRESH_FOR } else { ANSWERS_FOR };
        known.venues.retain(|_, entry| {
            let is_young = entry.age(now).is_some_and(|age| age < kept_for);
            is_young || entry.is_watched() || entry.is_looked_for()
        });
        let entry = Arc::new(Entry {
            looking: tokio::sync::Mutex::new(()),
            looked_at: Mutex::new(None),
            state: watch::Sender::new(None),
        });
        known.venues.insert(venue.clone(), Arc::clone(&entry));
        entry
    }

    /// Looks for a venue's state unless somebody has within `fresh_for`.
    async fn look(&self, venue: &VenueKey, entry: &Entry, fresh_for: Duration) -> Result<()> {
        let is_fresh = |age: Option<Duration>| age.is_some_and(|age| age < fresh_for);
        if is_fresh(entry.age(self.clock.monotonic())) {
            return Ok(());
        }
        let _looking = entry.looking.lock().await;
        // What is found is as old as the beginning of the look.
        let now = self.clock.monotonic();
        if is_fresh(entry.age(now)) {
            return Ok(());
        }
        let known = entry.state.borrow().clone();
        match self.source.newest(venue, known.as_deref()).await {
            Ok(newest) => {
                entry.take(newest);
                *entry.looked_at() = Some(now);
                Ok(())
            }
            Err(error)
                if error.kind().is_retryable() && entry.age(now).is_some_and(|age| age < ANSWERS_FOR) =>
            {
                tracing::debug!(%venue, %error, "the last known live state goes on answering");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The venues that somebody is subscribed to; `None`, and no more looking, when there are none.
    fn watched(&self) -> Option<Vec<(VenueKey, Arc<Entry>)>> {
        let mut known = self.known();
        let watched: Vec<_> = known
            .venues
            .iter()
            .filter(|(_, entry)| entry.is_watched())
            .map(|(venue, entry)| (venue.clone(), Arc::clone(entry)))
            .collect();
        known.is_looking = !watched.is_empty();
        known.is_looking.then_some(watched)
    }
}

impl Entry {
    fn is_watched(&self) -> bool {
        self.state.receiver_count() > 0
    }

    fn is_looked_for(&self) -> bool {
        self.looking.try_lock().is_err()
    }

    fn looked_at(&self) -> MutexGuard<'_, Option<Duration>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self, now: Duration) -> Option<Duration> {
        self.looked_at().map(|at| now.saturating_sub(at))
    }

    fn take(&self, newest: Newest) {
        self.state.send_if_modified(|state| match newest {
            Newest::AsKnown => false,
            Newest::Nothing => state.take().is_some(),
            Newest::State(newer) => {
                let place = |state: &LiveVenue| (state.fence, state.as_of);
                let is_newer = state.as_deref().is_none_or(|known| place(known) < place(&newer));
                if is_newer {
                    *state = Some(newer);
                }
                is_newer
            }
        });
    }
}

/// Looks for all subscribed venues again and again, until nobody is subscribed or the board is gone.
async fn keep_looking<L: Look>(board: Weak<Inner<L>>, clock: SharedClock) {
    let mut is_failing = false;
    loop {
        clock.sleep(LOOK_EVERY).await;
        let Some(board) = board.upgrade() else { return };
        let Some(watched) = board.watched() else { return };
        let board = &board;
        let looks = watched
            .iter()
            .map(|(venue, entry)| async move { board.look(venue, entry, FRESH_FOR).await });
        let failed = several::as_ready(looks, LOOKS_AT_ONCE)
            .filter_map(async |outcome| outcome.err())
            .collect::<Vec<StorageError>>()
            .await;
        // Said once, not once a second.
        match failed.first() {
            Some(error) if !is_failing => {
                tracing::warn!(%error, venues = failed.len(), "the live view cannot be read; it is tried again");
            }
            None if is_failing => tracing::info!("the live view is read again"),
            _ => {}
        }
        is_failing = !failed.is_empty();
    }
}

#[cfg(test)]
mod tests;
