//! Numbers for names and deliveries.
//!
//! Names that sensors send (sensors, tracks, devices, …) repeat from row to row, so rows carry numbers. The writer keeps
//! the numbers of the names it met lately in memory. Numbers given out by a transaction enter that cache only once it has
//! committed.

use std::hash::BuildHasher;

use dwell_model::event::Delivery;
use hashbrown::{HashMap, HashTable};
use rusqlite::{Connection, OptionalExtension};

use super::super::failure::Failure;
use super::super::values::receipt_bytes;

/// Names kept in memory, twice: the recent ones and those before them.
const GENERATION_NAMES_MAX: usize = 64 * 1_024;

type Hasher = foldhash::fast::FixedState;

/// Numbers of the names met lately. When the recent ones reach their limit they become the former ones, and what was
/// not asked for since is forgotten.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    recent: NameTable,
    former: NameTable,
    /// How often everything was forgotten.
    life: u64,
}

#[derive(Debug, Default)]
struct NameTable {
    entries: HashTable<CachedName>,
    hasher: Hasher,
}

#[derive(Debug)]
struct CachedName {
    venue_ref: i64,
    name: Box<str>,
    id: i64,
}

impl NameCache {
    fn find(&mut self, venue_ref: i64, name: &str) -> Option<i64> {
        if let Some(id) = self.recent.find(venue_ref, name) {
            return Some(id);
        }
        let id = self.former.find(venue_ref, name)?;
        self.keep(venue_ref, name, id);
        Some(id)
    }

    /// Forgets all numbers, those too that a write has met whose names are yet to be remembered.
    pub(super) fn forget_all(&mut self) {
        *self = Self {
            life: self.life + 1,
            ..Self::default()
        };
    }

    fn keep(&mut self, venue_ref: i64, name: &str, id: i64) {
        if self.recent.entries.len() >= GENERATION_NAMES_MAX {
            self.former = std::mem::take(&mut self.recent);
        }
        self.recent.insert(venue_ref, name, id);
    }
}

impl NameTable {
    fn find(&self, venue_ref: i64, name: &str) -> Option<i64> {
        let hash = self.hasher.hash_one((venue_ref, name));
        let same = |entry: &CachedName| entry.venue_ref == venue_ref && *entry.name == *name;
        self.entries.find(hash, same).map(|entry| entry.id)
    }

    fn insert(&mut self, venue_ref: i64, name: &str, id: i64) {
        let Self { entries, hasher } = self;
        let hash = |entry: &CachedName| hasher.hash_one((entry.venue_ref, &*entry.name));
        let entry = CachedName {
            venue_ref,
            name: name.into(),
            id,
        };
        entries.insert_unique(hash(&entry), entry, hash);
    }
}

/// Gives numbers to names and deliveries within one transaction.
pub(super) struct Interner<'a> {
    connection: &'a Connection,
    cache: &'a mut NameCache,
    /// Names numbered by this transaction, or read by it: for the cache, after the commit.
    met: Vec<CachedName>,
    deliveries: HashMap<Delivery, i64, Hasher>,
    last_delivery: Option<(Delivery, i64)>,
}

impl<'a> Interner<'a> {
    pub(super) fn new(connection: &'a Connection, cache: &'a mut NameCache) -> Self {
        Self {
            connection,
            cache,
            met: Vec::new(),
            deliveries: HashMap::default(),
            last_delivery: None,
        }
    }

    /// The number of a name of a venue. Called once per name and batch.
    pub(super) fn name(&mut self, venue_ref: i64, name: &str) -> Result<i64, Failure> {
        if let Some(id) = self.cache.find(venue_ref, name) {
            return Ok(id);
        }
        let mut find = self
            .connection
            .prepare_cached("SELECT id FROM names WHERE venue_ref = ?1 AND name = ?2")?;
        let known: Option<i64> = find.query_row((venue_ref, name), |row| row.get(0)).optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                let mut insert = self
                    .connection
                    .prepare_cached("INSERT INTO names (venue_ref, name) VALUES (?1, ?2)")?;
                insert.execute((venue_ref, name))?;
                self.connection.last_insert_rowid()
            }
        };
        self.met.push(CachedName {
            venue_ref,
            name: name.into(),
            id,
        });
        Ok(id)
    }

    /// The number of a delivery.
    pub(super) fn delivery(&mut self, delivery: Delivery) -> Result<i64, Failure> {
        if let Some((last, id)) = self.last_delivery
            && last == delivery
        {
            return Ok(id);
        }
        let id = match self.deliveries.get(&delivery) {
            Some(&id) => id,
            None => {
                let id = self.find_or_insert_delivery(delivery)?;
                self.deliveries.insert(delivery, id);
                id
            }
        };
        self.last_delivery = Some((delivery, id));
        Ok(id)
    }

    fn find_or_insert_delivery(&self, delivery: Delivery) -> Result<i64, Failure> {
        let row = (delivery.received_at, receipt_bytes(delivery.receipt));
        let mut find = self
            .connection
            .prepare_cached("SELECT id FROM deliveries WHERE received_at = ?1 AND receipt = ?2")?;
        if let Some(id) = find.query_row(row, |row| row.get(0)).optional()? {
            return Ok(id);
        }
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO deliveries (received_at, receipt) VALUES (?1, ?2)")?;
        insert.execute(row)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// What to [`remember`] once the transaction has committed.
    pub(super) fn into_met(self) -> MetNames {
        MetNames {
            names: self.met,
            life: self.cache.life,
        }
    }
}

/// Names with numbers that hold once their transaction has committed.
pub(super) struct MetNames {
    names: Vec<CachedName>,
    life: u64,
}

/// Puts the names of a committed transaction into the cache.
pub(super) fn remember(cache: &mut NameCache, met: MetNames) {
    if met.life != cache.life {
        return;
    }
    for CachedName { venue_ref, name, id } in met.names {
        // A name that stood in two batches of one write was met twice.
        if cache.find(venue_ref, &name).is_none() {
            cache.keep(venue_ref, &name, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let mut cache = NameCache::default();
        cache.keep(1, "sensor", 7);
        for i in 0..3 * GENERATION_NAMES_MAX as i64 {
            cache.keep(1, &format!("track-{i}"), i);
            assert_eq!(cache.find(1, "sensor"), Some(7));
        }
        assert!(cache.recent.entries.len() + cache.former.entries.len() <= 2 * GENERATION_NAMES_MAX);
        assert_eq!(cache.find(1, "track-0"), None);
        assert_eq!(cache.find(2, "sensor"), None, "names are a venue's own");
    }
}
