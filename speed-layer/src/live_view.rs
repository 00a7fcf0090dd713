//! Where the live view is published and read: a watch channel per venue.
//!
//! Shards [`publish`](LiveBoard::publish), readers look through the [`LiveView`](dwell_storage::api::LiveView) trait of
//! the [`Handle`](crate::Handle). A state with a lower fence than the one shown is refused, so a former owner of a shard
//! that wakes up late cannot put old numbers over new ones. The venues of a shard that another process follows are
//! [withdrawn](LiveBoard::withdraw).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use dwell_model::ids::VenueKey;
use dwell_storage::api::LiveVenue;
use dwell_storage::error::{ErrorKind, Result, StorageError};
use tokio::sync::watch;

type Shown = Option<Arc<LiveVenue>>;

/// The last published state of every venue.
#[derive(Debug)]
pub(crate) struct LiveBoard {
    venues: RwLock<HashMap<VenueKey, watch::Sender<Shown>>>,
    venues_max: usize,
    subscribers_max: usize,
}

/// What became of a published state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// It is shown.
    Shown,
    /// A state with a higher fence is there: the publisher has lost its shard.
    Fenced,
    /// There is no room for another venue.
    Full,
}

impl LiveBoard {
    pub(crate) fn new(venues_max: usize, subscribers_max: usize) -> Self {
        Self {
            venues: RwLock::default(),
            venues_max,
            subscribers_max,
        }
    }

    /// Shows a venue's state unless one with a higher fence is shown.
    pub(crate) fn publish(&self, state: Arc<LiveVenue>) -> Published {
        let venues = self.venues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = venues.get(&state.venue) {
            return show(sender, state);
        }
        drop(venues);
        let mut venues = self.venues.write().unwrap_or_else(PoisonError::into_inner);
        if !make_room(&mut venues, &state.venue, self.venues_max) {
            return Published::Full;
        }
        show(
            venues
                .entry(state.venue.clone())
                .or_insert_with(|| watch::Sender::new(None)),
            state,
        )
    }

    /// Shows nothing of a venue any more, unless its state has a higher fence.
    pub(crate) fn withdraw(&self, venue: &VenueKey, fence: u64) {
        let venues = self.venues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = venues.get(venue) {
            sender.send_if_modified(|shown| {
                let is_ours = shown.as_ref().is_some_and(|state| state.fence <= fence);
                if is_ours {
                    *shown = None;
                }
                is_ours
            });
        }
    }

    /// What is shown of a venue.
    pub(crate) fn venue(&self, venue: &VenueKey) -> Shown {
        let venues = self.venues.read().unwrap_or_else(PoisonError::into_inner);
        venues.get(venue).and_then(|sender| sender.borrow().clone())
    }

    /// A channel that always holds what is shown of a venue. `Busy` when there are too many subscribers.
    pub(crate) fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<Shown>> {
        let busy = |what: &str| StorageError::new(ErrorKind::Busy, format!("live view of {venue}: {what}"));
        let mut venues = self.venues.write().unwrap_or_else(PoisonError::into_inner);
        if !make_room(&mut venues, venue, self.venues_max) {
            return Err(busy("too many venues are watched"));
        }
        let sender = venues
            .entry(venue.clone())
            .or_insert_with(|| watch::Sender::new(None));
        if sender.receiver_count() >= self.subscribers_max {
            return Err(busy("too many subscribers"));
        }
        Ok(sender.subscribe())
    }
}

/// Makes room for a venue by forgetting those that were asked for, never shown, and are watched by nobody now.
fn make_room(
    venues: &mut HashMap<VenueKey, watch::Sender<Shown>>,
    wanted: &VenueKey,
    venues_max: usize,
) -> bool {
    if venues.contains_key(wanted) || venues.len() < venues_max {
        return true;
    }
    venues.retain(|_, sender| sender.receiver_count() > 0 || sender.borrow().is_some());
    venues.len() < venues_max
}

fn show(sender: &watch::Sender<Shown>, state: Arc<LiveVenue>) -> Published {
    let shown = sender.send_if_modified(|shown| {
        let newer = shown.as_ref().is_none_or(|before| before.fence <= state.fence);
        if newer {
            *shown = Some(state);
        }
        newer
    });
    if shown {
        Published::Shown
    } else {
        Published::Fenced
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{TenantId, VenueId};

    use super::*;

    fn key(venue: &str) -> VenueKey {
        VenueKey::new(TenantId::new("t").unwrap(), VenueId::new(venue).unwrap())
    }

    fn state(venue: &str, fence: u64, as_of: i64) -> Arc<LiveVenue> {
        Arc::new(LiveVenue {
            venue: key(venue),
            fence,
            as_of,
            watermark: 0,
            occupancy: Vec::new(),
            open_sessions: 0,
            late_events: 0,
            days: Vec::new(),
        })
    }

    #[test]
    fn a_paused_former_owner_cannot_put_its_numbers_over_those_of_the_new_one() {
        let board = LiveBoard::new(10, 10);
        assert_eq!(board.publish(state("v", 1, 10)), Published::Shown);
        assert_eq!(board.publish(state("v", 2, 20)), Published::Shown);
        assert_eq!(board.publish(state("v", 1, 30)), Published::Fenced);
        assert_eq!(board.venue(&key("v")).unwrap().as_of, 20);
    }

    #[tokio::test]
    async fn a_venue_that_another_process_took_over_is_no_longer_shown_here() {
        let board = LiveBoard::new(10, 10);
        board.publish(state("v", 2, 10));
        let mut watching = board.subscribe(&key("v")).unwrap();
        board.withdraw(&key("v"), 1);
        assert!(
            watching.borrow_and_update().is_some(),
            "an older owner's goodbye takes nothing from a newer one"
        );
        board.withdraw(&key("v"), 2);
        watching.changed().await.unwrap();
        assert!(watching.borrow().is_none() && board.venue(&key("v")).is_none());
    }

    #[tokio::test]
    async fn a_subscriber_sees_the_state_before_and_each_one_after() {
        let board = LiveBoard::new(10, 10);
        let mut watching = board.subscribe(&key("v")).unwrap();
        assert!(watching.borrow_and_update().is_none());
        board.publish(state("v", 1, 10));
        watching.changed().await.unwrap();
        assert_eq!(watching.borrow_and_update().as_ref().unwrap().as_of, 10);
        assert_eq!(
            board
                .subscribe(&key("v"))
                .unwrap()
                .borrow()
                .as_ref()
                .unwrap()
                .as_of,
            10
        );
    }

    #[test]
    fn venues_and_subscribers_are_bounded_and_idle_entries_give_way() {
        let board = LiveBoard::new(2, 1);
        let first = board.subscribe(&key("a")).unwrap();
        assert_eq!(board.subscribe(&key("a")).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(board.publish(state("b", 1, 1)), Published::Shown);
        assert_eq!(board.publish(state("c", 1, 1)), Published::Full);
        drop(first);
        assert_eq!(
            board.publish(state("c", 1, 1)),
            Published::Shown,
            "nobody watches a, which was never shown"
        );
        assert!(board.venue(&key("b")).is_some());
    }
}
