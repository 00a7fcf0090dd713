//! Showing the live view to other processes: the way from the ticks to a table.
//!
//! ```text
//! tick ─▶ TableQueue::offer (newest state per venue) ─▶ show_all: a few at a time, each again until it is there ─▶ table
//! ```
//!
//! A tick never waits for the table: it leaves the newest state of a venue in the queue, over the one that was waiting
//! there, so the queue is bounded by the number of venues and a slow table sees fewer states, never older ones. A venue
//! is shown by one call at a time, so that an old state cannot arrive after a newer one. What does not change is shown
//! again after `shown_again_every`, so that it neither expires nor looks abandoned.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_runtime::clock::{self, SharedClock, Stopwatch};
use dwell_storage::api::{LiveVenue, LiveViewWriter};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use crate::config::Config;
use crate::health::{Health, Part};
use crate::metrics;

/// Longest time that one call may take.
const SHOW_TIMEOUT: Duration = Duration::from_secs(10);
/// Delays between attempts while the table fails.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The states that are to be shown.
#[derive(Debug)]
pub(crate) struct TableQueue {
    queue: Mutex<Queue>,
    changed: Notify,
    venues_max: usize,
    shown_again_every: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    venues: HashMap<VenueKey, Entry>,
    /// Venues whose state is to be shown, longest waiting first.
    waiting: VecDeque<VenueKey>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    state: Arc<LiveVenue>,
    is_waiting: bool,
    is_being_shown: bool,
    /// The state is newer than what is, or is being, shown.
    is_due: bool,
    shown_at: Option<Duration>,
}

/// Shows what is offered until the queue is closed and empty.
pub(crate) async fn show_all(
    queue: &TableQueue,
    table: Arc<dyn LiveViewWriter>,
    config: &Config,
    clock: SharedClock,
    health: &Health,
) {
    let mut in_flight = FuturesUnordered::new();
    let mut failing: Option<Duration> = None;
    loop {
        // While the table fails, one call at a time finds out whether it is back.
        let at_once = if failing.is_some() {
            1
        } else {
            config.table_shows_max
        };
        while in_flight.len() < at_once
            && let Some(state) = queue.take()
        {
            in_flight.push(show(Arc::clone(&table), state, SharedClock::clone(&clock)));
        }
        if in_flight.is_empty() && failing.take().is_some() {
            // What failed has gone to another owner, and nothing of ours waits for the table.
            health.report(Part::LiveTable, None);
        }
        if in_flight.is_empty() && queue.is_done() {
            return;
        }
        tokio::select! {
            Some((state, result)) = in_flight.next() => {
                let outcome = queue.settle(&state, result.as_ref().err(), clock.monotonic());
                match result {
                    Err(error) if outcome == Outcome::Again => {
                        tracing::warn!(venue = %state.venue, %error, "the live view's table does not take a state");
                        health.report(Part::LiveTable, Some(format!("the live view's table: {error}")));
                        let delay = failing.map_or(RETRY_MIN, |delay| (delay * 2).min(RETRY_MAX));
                        failing = Some(delay);
                        clock.sleep(delay).await;
                    }
                    Err(error) => {
                        tracing::error!(venue = %state.venue, %error, "the live view's table refuses a state");
                    }
                    Ok(()) if failing.take().is_some() => health.report(Part::LiveTable, None),
                    Ok(()) => {}
                }
            }
            () = queue.changed.notified() => {}
        }
    }
}

async fn show(
    table: Arc<dyn LiveViewWriter>,
    state: Arc<LiveVenue>,
    clock: SharedClock,
) -> (Arc<LiveVenue>, Result<()>) {
    let stopwatch = Stopwatch::start();
    let result = match clock::timeout(&*clock, SHOW_TIMEOUT, table.show(&state)).await {
        Ok(result) => result,
        Err(late) => Err(StorageError::with_source(
            ErrorKind::Unavailable,
            "show a venue's state",
            late,
        )),
    };
    let outcome = match &result {
        Ok(()) => "shown",
        Err(error) if error.kind().is_retryable() => "failed",
        Err(_) => "refused",
    };
    metrics::table_shown(outcome, stopwatch.elapsed());
    (state, result)
}

/// What is to be done after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The same venue is to be shown once more.
    Again,
}

impl TableQueue {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            venues_max: config.venues_max,
            shown_again_every: config.shown_again_every.as_duration(),
        }
    }

    /// Takes a state to be shown, unless it is no news and the last one was shown not long ago.
    pub(crate) fn offer(&self, state: Arc<LiveVenue>, is_news: bool, at: Duration) {
        let mut queue = self.lock();
        let Some(entry) = queue.venues.get_mut(&state.venue) else {
            if queue.venues.len() >= self.venues_max {
                metrics::bound_reached("venues_max", 1);
                return;
            }
            let key = state.venue.clone();
            queue.venues.insert(key.clone(), Entry::new(state));
            queue.wait(key);
            drop(queue);
            self.changed.notify_one();
            return;
        };
        if state.fence < entry.state.fence {
            return;
        }
        let is_old = entry
            .shown_at
            .is_none_or(|shown_at| at.saturating_sub(shown_at) >= self.shown_again_every);
        entry.state = state;
        entry.is_due |= is_news || is_old;
        if entry.is_due && !entry.is_waiting && !entry.is_being_shown {
            let key = entry.state.venue.clone();
            queue.wait(key);
            drop(queue);
            self.changed.notify_one();
        }
    }

    /// Forgets a venue that is no longer ours to show, unless a later owner in this process has offered it.
    pub(crate) fn forget(&self, venue: &VenueKey, fence: u64) {
        let mut queue = self.lock();
        if queue
            .venues
            .get(venue)
            .is_some_and(|entry| entry.state.fence <= fence)
        {
            queue.venues.remove(venue);
            queue.waiting.retain(|waiting| waiting != venue);
        }
    }

    /// Nothing more will be offered.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Shows everything that waits, one after the other.
    #[cfg(test)]
    pub(crate) async fn show_waiting(&self, table: &dyn LiveViewWriter, at: Duration) {
        while let Some(state) = self.take() {
            let result = table.show(&state).await;
            self.settle(&state, result.as_ref().err(), at);
        }
    }

    fn is_done(&self) -> bool {
        let queue = self.lock();
        queue.is_closed && queue.waiting.is_empty()
    }

    /// The newest state of the venue that waits longest. It must be given back to [`settle`](Self::settle).
    fn take(&self) -> Option<Arc<LiveVenue>> {
        let mut queue = self.lock();
        let key = queue.waiting.pop_front()?;
        metrics::table_waiting(queue.waiting.len());
        let entry = queue.venues.get_mut(&key)?;
        entry.is_waiting = false;
        entry.is_being_shown = true;
        entry.is_due = false;
        Some(Arc::clone(&entry.state))
    }

    fn settle(&self, state: &LiveVenue, error: Option<&StorageError>, at: Duration) -> Outcome {
        let fails = error.is_some_and(|error| error.kind().is_retryable());
        let outcome = if fails { Outcome::Again } else { Outcome::Done };
        let mut queue = self.lock();
        // Gone, or a later owner's, if it was forgotten meanwhile.
        let Some(entry) = queue
            .venues
            .get_mut(&state.venue)
            .filter(|entry| entry.state.fence == state.fence)
        else {
            return outcome;
        };
        entry.is_being_shown = false;
        entry.is_due |= fails;
        if !fails {
            entry.shown_at = Some(at);
        }
        if entry.is_due && !entry.is_waiting {
            queue.wait(state.venue.clone());
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn wait(&mut self, venue: VenueKey) {
        if let Some(entry) = self.venues.get_mut(&venue) {
            entry.is_waiting = true;
            self.waiting.push_back(venue);
            metrics::table_waiting(self.waiting.len());
        }
    }
}

impl Entry {
    fn new(state: Arc<LiveVenue>) -> Self {
        Self {
            state,
            is_waiting: false,
            is_being_shown: false,
            is_due: true,
            shown_at: None,
        }
    }
}

#[cfg(test)]
mod tests;
