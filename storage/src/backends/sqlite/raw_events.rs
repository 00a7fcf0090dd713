//! Raw events in `data.db`: a typed table per kind, clustered by (venue, time, sensor, key, payload hash).
//!
//! Names and deliveries are numbered ([`names`]), so that a position takes some fifty bytes. Rows, marks and the raw
//! writer's position commit together.

mod delete;
mod delivery_set;
mod erase;
mod names;
mod read;
mod statements;
mod write;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use rusqlite::OptionalExtension;

use self::names::{Interner, NameCache};
use super::connection::Database;
use super::failure::Failure;
use super::values::to_stored;
use crate::api::{
    ComparedSlot, Marks, NameTest, Partition, Position, RawApplied, RawEventsReader, RawEventsWriter,
    RawWrite,
};
use crate::error::Result;

/// The embedded raw table.
#[derive(Debug)]
pub struct SqliteRawEvents {
    data: Database,
    clock: SharedClock,
    names: Arc<Mutex<NameCache>>,
}

impl SqliteRawEvents {
    pub(super) fn new(data: Database, clock: SharedClock) -> Self {
        Self {
            data,
            clock,
            names: Arc::default(),
        }
    }
}

#[async_trait]
impl RawEventsWriter for SqliteRawEvents {
    async fn apply(&self, write: RawWrite) -> Result<RawApplied> {
        let names = Arc::clone(&self.names);
        let now = self.clock.now_ms();
        let (applied, met) = self
            .data
            .write("add raw events", move |data| {
                write::check(&write)?;
                let mut cache = names.lock().unwrap_or_else(PoisonError::into_inner);
                let mut interner = Interner::new(data, &mut cache);
                let applied = write::apply(data, &mut interner, &write, now)?;
                Ok::<_, Failure>((applied, interner.into_met()))
            })
            .await?;
        // Only now: numbers of a transaction that did not commit would point at nothing.
        names::remember(
            &mut self.names.lock().unwrap_or_else(PoisonError::into_inner),
            met,
        );
        Ok(applied)
    }

    async fn erase(&self, venue: &VenueKey, rows: &RawRows) -> Result<u64> {
        let (venue, rows) = (venue.clone(), rows.clone());
        self.data
            .write("erase raw events", move |data| erase::rows(data, &venue, &rows))
            .await
    }

    async fn forget_names(&self, venue: &VenueKey, is_forgotten: NameTest) -> Result<u64> {
        let (venue, names) = (venue.clone(), Arc::clone(&self.names));
        self.data
            .write("forget names", move |data| {
                let forgotten = erase::unused_names(data, &venue, &is_forgotten)?;
                // Numbers of names that are gone would point at nothing.
                names.lock().unwrap_or_else(PoisonError::into_inner).forget_all();
                Ok(forgotten)
            })
            .await
    }

    async fn delete_compared(&self, slot: ComparedSlot) -> Result<()> {
        let doing = "remove compared raw events";
        delete::check(&slot).map_err(|failure| failure.into_error(doing, std::path::Path::new("data.db")))?;
        let slot = Arc::new(slot);
        for start in (0..slot.rows.len()).step_by(delete::STEP_ROWS) {
            let step = start..(start + delete::STEP_ROWS).min(slot.rows.len());
            let slot = Arc::clone(&slot);
            self.data
                .write(doing, move |data| delete::remove(data, &slot, step))
                .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl RawEventsReader for SqliteRawEvents {
    async fn scan(&self, venue: &VenueKey, kind: Kind, range: Range<TsMs>) -> Result<RawRows> {
        let venue = venue.clone();
        self.data
            .read("scan raw events", move |data| {
                read::scan(data, &venue, kind, range)
            })
            .await
    }

    async fn count(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(Kind, u64)>> {
        let venue = venue.clone();
        self.data
            .read("count raw events", move |data| read::count(data, &venue, range))
            .await
    }

    async fn marks(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Marks> {
        let mut all = Marks::default();
        self.marked_slots(venue, range)
            .await?
            .iter()
            .for_each(|(_, marks)| all.merge(marks));
        Ok(all)
    }

    async fn marked_slots(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, Marks)>> {
        let venue = venue.clone();
        self.data
            .read("read marks", move |data| read::marked_slots(data, &venue, range))
            .await
    }

    async fn marked_at(&self, venue: &VenueKey, range: Range<TsMs>) -> Result<Vec<(i64, TsMs)>> {
        let venue = venue.clone();
        self.data
            .read("read when slots were marked", move |data| {
                read::marked_at(data, &venue, range)
            })
            .await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        Ok(self.clock.now_ms())
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        let consumer = consumer.to_owned();
        self.data
            .read("read a position", move |data| {
                let mut select = data.prepare_cached(
                    "SELECT position FROM consumer_positions WHERE consumer = ?1 AND epoch = ?2 AND partition = ?3",
                )?;
                Ok(select.query_row((consumer, to_stored(epoch)?, partition), |row| row.get(0)).optional()?)
            })
            .await
    }
}
