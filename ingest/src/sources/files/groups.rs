//! Accepted events on their way to a road, grouped by what the road takes at once.
//!
//! The log takes a venue's events of one kind; the archive a venue-day's. A [`Group`] collects them in columns until it
//! is worth sending. Which group an event belongs to follows from its venue, kind and time; [`Groups::place`] answers
//! with the whole stretch of time for which the answer holds, so that readers ask once per stretch and not per event.

use std::sync::Arc;

use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS, TsMs};
use dwell_storage::api::DeliveredRows;
use hashbrown::HashSet;

use super::venues::VenueTable;

/// Where a stretch of a venue's events goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Destination {
    /// The event log.
    Log,
    /// A closed day of the archive.
    Archive(LocalDay),
    /// Nowhere: another pass over the files has taken care of them.
    Skip,
}

/// Which road an import takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Routing {
    /// Everything to the log.
    Log,
    /// Closed days to the archive; days that have not ended go to the log.
    Archive {
        /// The time at which a day must have ended.
        now: TsMs,
        /// These days of venues only, and nothing to the log: for a second pass.
        only: Option<Arc<HashSet<(u32, LocalDay)>>>,
    },
}

/// Events of one venue and kind with one destination.
#[derive(Debug)]
pub(super) struct Group {
    /// Number of the venue.
    pub(super) venue: u32,
    /// Where they go.
    pub(super) to: Destination,
    /// The events with their deliveries.
    pub(super) rows: DeliveredRows,
    /// Changes whenever the rows are taken away and with them their dictionary.
    pub(super) generation: u32,
}

impl Group {
    /// The events.
    pub(super) fn events(&mut self) -> &mut EventBatch {
        &mut self.rows.events
    }
}

/// A group's place in time: events of its venue and kind with `start <= ts < end` belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// First instant.
    pub(super) start: TsMs,
    /// First instant after it.
    pub(super) end: TsMs,
    /// Number of the group.
    pub(super) group: u32,
}

impl Place {
    /// A place that holds nothing, for caches.
    pub(super) const NOWHERE: Place = Place {
        start: 0,
        end: 0,
        group: 0,
    };
}

/// A stretch of a venue's time with one destination.
#[derive(Debug)]
struct Stretch {
    start: TsMs,
    end: TsMs,
    to: Destination,
    groups: [Option<u32>; Kind::ALL.len()],
}

/// All groups of an import.
#[derive(Debug)]
pub(super) struct Groups {
    venues: Arc<VenueTable>,
    routing: Routing,
    /// Events at or after this are from the future.
    future: TsMs,
    /// Per venue, ascending.
    stretches: Vec<Vec<Stretch>>,
    groups: Vec<Group>,
    generation: u32,
    delivery: Delivery,
    rows: usize,
}

impl Groups {
    /// No groups yet. `future` is the first instant that is refused.
    pub(super) fn new(venues: Arc<VenueTable>, routing: Routing, future: TsMs, delivery: Delivery) -> Self {
        let stretches = (0..venues.len()).map(|_| Vec::new()).collect();
        let future = future.clamp(MIN_TS, MAX_TS);
        Self {
            venues,
            routing,
            future,
            stretches,
            groups: Vec::new(),
            generation: 0,
            delivery,
            rows: 0,
        }
    }

    /// The venues.
    pub(super) fn venues(&self) -> &Arc<VenueTable> {
        &self.venues
    }

    /// From here on events were brought by another file.
    pub(super) fn set_delivery(&mut self, delivery: Delivery) {
        self.delivery = delivery;
    }

    /// The group of a venue's events of a kind at an instant; `None` for instants that are not taken.
    pub(super) fn place(&mut self, venue: u32, kind: Kind, ts: TsMs) -> Option<Place> {
        if !(MIN_TS..self.future).contains(&ts) {
            return None;
        }
        let stretches = &mut self.stretches[venue as usize];
        let mut at = stretches.partition_point(|stretch| stretch.end <= ts);
        if stretches.get(at).is_none_or(|stretch| ts < stretch.start) {
            let stretch = stretch_of(&self.venues, &self.routing, self.future, venue, ts);
            at = stretches.partition_point(|other| other.start < stretch.start);
            stretches.insert(at, stretch);
        }
        let stretch = &mut stretches[at];
        let group = match stretch.groups[kind as usize] {
            Some(group) => group,
            None => {
                let group = self.groups.len() as u32;
                self.generation += 1;
                let (to, generation) = (stretch.to, self.generation);
                self.groups.push(Group {
                    venue,
                    to,
                    rows: DeliveredRows::new(kind),
                    generation,
                });
                stretch.groups[kind as usize] = Some(group);
                group
            }
        };
        Some(Place {
            start: stretch.start,
            end: stretch.end,
            group,
        })
    }

    /// A group, to which `rows` events are about to be added by its columns; their deliveries are added here.
    pub(super) fn grow(&mut self, group: u32, rows: usize) -> &mut Group {
        let group = &mut self.groups[group as usize];
        let deliveries = &mut group.rows.deliveries;
        if deliveries.last() != Some(&self.delivery) {
            deliveries.push(self.delivery);
        }
        let number = (deliveries.len() - 1) as u32;
        group
            .rows
            .delivery
            .resize(group.rows.delivery.len() + rows, number);
        self.rows += rows;
        group
    }

    /// Number of groups; theirs are below it.
    pub(super) fn count(&self) -> usize {
        self.groups.len()
    }

    /// A group's generation (see [`Group::generation`]).
    pub(super) fn generation(&self, group: u32) -> u32 {
        self.groups[group as usize].generation
    }

    /// Adds all events of a batch. All must be acceptable; returns how many were not, and were left out.
    pub(super) fn add(&mut self, venue: u32, batch: &EventBatch) -> u64 {
        let mut refused = 0;
        let mut start = 0;
        while start < batch.len() {
            let Some(place) = self.place(venue, batch.kind, batch.ts[start]) else {
                refused += 1;
                start += 1;
                continue;
            };
            let inside = |ts: &&TsMs| (place.start..place.end).contains(*ts);
            let run = batch.ts[start..].iter().take_while(inside).count();
            let events = self.grow(place.group, run).events();
            if run == batch.len() {
                events.append(batch);
            } else {
                (start..start + run).for_each(|row| events.push_from(batch, row));
            }
            start += run;
        }
        refused
    }

    /// Events held.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes away the rows of all groups that hold at least `rows_min`.
    pub(super) fn take(&mut self, rows_min: usize) -> Vec<Group> {
        let mut taken = Vec::new();
        for group in self
            .groups
            .iter_mut()
            .filter(|group| group.rows.len() >= rows_min.max(1))
        {
            self.generation += 1;
            let empty = DeliveredRows::new(group.rows.events.kind);
            let rows = std::mem::replace(&mut group.rows, empty);
            self.rows -= rows.len();
            taken.push(Group {
                venue: group.venue,
                to: group.to,
                rows,
                generation: group.generation,
            });
            group.generation = self.generation;
        }
        taken
    }
}

fn stretch_of(venues: &VenueTable, routing: &Routing, future: TsMs, venue: u32, ts: TsMs) -> Stretch {
    let groups = [None; Kind::ALL.len()];
    let Routing::Archive { now, only } = routing else {
        return Stretch {
            start: MIN_TS,
            end: future,
            to: Destination::Log,
            groups,
        };
    };
    let calendar = venues.calendar(venue);
    let (open_from, _) = calendar.bounds(calendar.day_of(*now));
    if ts >= open_from {
        let to = if only.is_none() {
            Destination::Log
        } else {
            Destination::Skip
        };
        return Stretch {
            start: open_from,
            end: future,
            to,
            groups,
        };
    }
    let day = calendar.day_of(ts);
    let (start, end) = calendar.bounds(day);
    let is_wanted = only.as_ref().is_none_or(|only| only.contains(&(venue, day)));
    let to = if is_wanted {
        Destination::Archive(day)
    } else {
        Destination::Skip
    };
    Stretch {
        start: start.max(MIN_TS),
        end: end.min(open_from),
        to,
        groups,
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
    use dwell_model::testing::position_batch;
    use dwell_model::time::{HOUR_MS, VenueCalendar};

    use super::*;

    fn venues() -> Arc<VenueTable> {
        let tenant = TenantId::new("t").unwrap();
        let venue = |id: &str, tz: &str| {
            (
                VenueKey::new(tenant.clone(), VenueId::new(id).unwrap()),
                VenueCalendar::from_names(tz, 0).unwrap(),
            )
        };
        Arc::new(
            [venue("a", "UTC"), venue("b", "Asia/Kolkata")]
                .into_iter()
                .collect(),
        )
    }

    fn delivery(n: i64) -> Delivery {
        Delivery {
            received_at: n,
            receipt: Receipt::from_u128(n as u128),
        }
    }

    /// 2026-03-01T00:00Z.
    const DAY: TsMs = 1_772_323_200_000;

    #[test]
    fn events_of_closed_days_go_to_their_day_and_the_rest_to_the_log() {
        let now = DAY + 30 * HOUR_MS; // 06:00Z on 2 March, 11:30 in Kolkata
        let mut groups = Groups::new(
            venues(),
            Routing::Archive { now, only: None },
            now + HOUR_MS,
            delivery(1),
        );
        let hour = |h: i64| DAY + h * HOUR_MS;
        let batch = position_batch(&[
            ("s", "t", hour(0), 0.0, 0.0),
            ("s", "t", hour(23), 1.0, 0.0),
            ("s", "t", hour(-1), 2.0, 0.0),
            ("s", "t", hour(24), 3.0, 0.0),
            ("s", "t", hour(30), 4.0, 0.0),
            ("s", "t", hour(31), 5.0, 0.0),
            ("s", "t", hour(1), 6.0, 0.0),
        ]);
        assert_eq!(groups.add(0, &batch), 1, "an hour ahead is the future");
        assert_eq!(
            groups.add(
                1,
                &position_batch(&[("s", "t", hour(18) + HOUR_MS / 2, 7.0, 0.0)])
            ),
            0
        );
        assert_eq!(groups.rows(), 7);
        let seen: Vec<_> = groups
            .take(0)
            .into_iter()
            .map(|g| (g.venue, g.to, g.rows.events.f32s(0).to_vec()))
            .collect();
        let archive = |day: &str| Destination::Archive(day.parse().unwrap());
        assert_eq!(
            seen,
            [
                (0, archive("2026-03-01"), vec![0.0, 1.0, 6.0]),
                (0, archive("2026-02-28"), vec![2.0]),
                (0, Destination::Log, vec![3.0, 4.0]),
                // 00:00 of 2 March in Kolkata: open there, so to the log.
                (1, Destination::Log, vec![7.0]),
            ]
        );
        assert_eq!(groups.rows(), 0);

        let only = Some(Arc::new(HashSet::from_iter([(0, "2026-02-28".parse().unwrap())])));
        let mut groups = Groups::new(
            venues(),
            Routing::Archive { now, only },
            now + HOUR_MS,
            delivery(1),
        );
        groups.add(0, &batch);
        let kept: Vec<_> = groups
            .take(0)
            .into_iter()
            .filter(|g| g.to != Destination::Skip)
            .collect();
        assert_eq!(
            kept.iter()
                .map(|g| g.rows.events.f32s(0).to_vec())
                .collect::<Vec<_>>(),
            [[2.0]]
        );
    }

    #[test]
    fn deliveries_follow_their_rows_and_groups_are_taken_when_full() {
        let mut groups = Groups::new(venues(), Routing::Log, DAY, delivery(1));
        groups.add(
            0,
            &position_batch(&[("s", "t", 1, 0.0, 0.0), ("s", "t", 2, 0.0, 0.0)]),
        );
        groups.set_delivery(delivery(2));
        groups.add(0, &position_batch(&[("s", "t", 1, 0.0, 0.0)]));
        groups.add(1, &position_batch(&[("s", "t", 1, 0.0, 0.0)]));
        let before = groups.generation(0);
        let taken = groups.take(2);
        assert_eq!(taken.len(), 1, "the other group is not full");
        let rows = &taken[0].rows;
        rows.check().unwrap();
        assert_eq!(
            (0..3).map(|i| rows.delivery(i)).collect::<Vec<_>>(),
            [delivery(1), delivery(1), delivery(2)]
        );
        assert_ne!(
            groups.generation(0),
            before,
            "ids of the former dictionary must not be used any more"
        );
        assert_eq!(groups.rows(), 1);
    }
}
