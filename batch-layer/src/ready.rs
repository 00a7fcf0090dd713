//! Whether the raw writer has come far enough for days to be computed.
//!
//! The raw table follows the log. A night's computation of a day waits until the raw writer has passed the end that
//! the log had when the day's end and the grace had passed: then everything that arrived by then is in raw. Where that
//! takes too long the day is computed all the same, marked `lagging`; what comes after makes it dirty like any other
//! late event. A run on demand waits for the log's end as of its own start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{Partition, Position, Stores, raw_copied_to};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;

pub use dwell_storage::api::RAW_WRITER;
/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a night's log end is remembered.
const REMEMBERED_MS: i64 = 3 * 24 * 3_600_000;

/// Whether a closed day may be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Everything that arrived in time is in raw.
    Ready,
    /// The raw writer is behind, but the day must not wait any longer.
    Lagging,
    /// Not yet.
    NotYet,
}

/// When a venue's night begins, and when its numbers must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NightTimes {
    /// The end of the day that has closed.
    pub day_end: TsMs,
    /// By when it must be computed: so long after its end, or when the venue opens next, if that is earlier.
    pub ready_by: TsMs,
}

impl NightTimes {
    /// The night after a day of a venue. `ready_by_ms`: how long it may take at most.
    pub fn of(venue: &Venue, closed: LocalDay, ready_by_ms: i64) -> Self {
        let (_, day_end) = venue.calendar.bounds(closed);
        let next = closed.next();
        let opens = venue.layout_on(next).opening_hours.as_ref().and_then(|hours| {
            let open = hours.open_intervals(&venue.calendar.cut(next));
            // A venue that is open at the day's end has no time before it opens.
            open.into_iter()
                .map(|(opens, _)| opens)
                .find(|opens| *opens > day_end)
        });
        let latest = day_end.saturating_add(ready_by_ms);
        Self {
            day_end,
            ready_by: opens.map_or(latest, |opens| opens.min(latest)),
        }
    }
}

/// Remembers where the log ended when each day's grace was over. For one process; after a restart it remembers the
/// end at that moment, which only makes it wait for more.
#[derive(Debug, Default)]
pub struct NightWatch {
    ends: Mutex<BTreeMap<(TsMs, Partition), Position>>,
}

impl NightWatch {
    /// Whether the day that has closed may be computed at `now`. With a grace of 15 minutes a day is not ready before 15
    /// minutes past its end.
    pub async fn readiness(
        &self,
        layer: &BatchLayer,
        venue: &VenueKey,
        night: NightTimes,
        now: TsMs,
    ) -> Result<Readiness> {
        let stores = layer.stores();
        let deadline = night.day_end.saturating_add(layer.config().grace.as_ms());
        if now < deadline {
            return Ok(Readiness::NotYet);
        }
        let mut is_written = true;
        for partition in partitions_of(stores, venue) {
            let end = self.end_at(layer, deadline, partition, now).await?;
            is_written = is_written && written(stores, partition).await? >= end;
        }
        if is_written {
            Ok(Readiness::Ready)
        } else if now >= night.ready_by {
            Ok(Readiness::Lagging)
        } else {
            Ok(Readiness::NotYet)
        }
    }

    /// Where the log ended when a deadline had passed, as far as is remembered: else where it ends now.
    async fn end_at(
        &self,
        layer: &BatchLayer,
        deadline: TsMs,
        partition: Partition,
        now: TsMs,
    ) -> Result<Position> {
        if let Some(end) = self.lock().get(&(deadline, partition)) {
            return Ok(*end);
        }
        let end = log_end(layer.stores(), partition).await?;
        let mut ends = self.lock();
        ends.retain(|(night, _), _| *night > now - REMEMBERED_MS);
        Ok(*ends.entry((deadline, partition)).or_insert(end))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(TsMs, Partition), Position>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the raw writer has passed the log's end as of now, for the partitions of the given venues, but no
/// longer than `raw_writer_wait`.
pub async fn wait_for_raw_writer(
    layer: &BatchLayer,
    venues: &[VenueKey],
    cancel: &CancellationToken,
) -> Result<()> {
    let stores = layer.stores();
    let mut ends: BTreeMap<Partition, Position> = BTreeMap::new();
    for venue in venues {
        for partition in partitions_of(stores, venue) {
            if let std::collections::btree_map::Entry::Vacant(entry) = ends.entry(partition) {
                entry.insert(log_end(stores, partition).await?);
            }
        }
    }
    let started = layer.clock().monotonic();
    loop {
        let mut behind = 0;
        for (&partition, &end) in &ends {
            behind += u64::try_from(end - written(stores, partition).await?).unwrap_or(0);
        }
        if behind == 0 {
            return Ok(());
        }
        if layer.clock().monotonic().saturating_sub(started) >= layer.config().raw_writer_wait.as_duration() {
            return Err(Error::RawWriterBehind { behind });
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Cancelled),
            () = layer.clock().sleep(LOOK_EVERY) => {}
        }
    }
}

/// The partitions that hold a venue's events.
fn partitions_of(stores: &Stores, venue: &VenueKey) -> Vec<Partition> {
    stores.log.partitions_of(stores.log.shard_of(venue))
}

async fn log_end(stores: &Stores, partition: Partition) -> Result<Position> {
    let bounds = stores.log.bounds(partition).await;
    Ok(bounds.doing("read the log's bounds")?.end)
}

async fn written(stores: &Stores, partition: Partition) -> Result<Position> {
    let copied_to = raw_copied_to(&*stores.log, &*stores.raw, partition).await;
    copied_to.doing("read the raw writer's position")
}
