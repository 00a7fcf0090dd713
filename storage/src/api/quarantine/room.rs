//! Whether there is room for an entry: the one rule of all backends, without I/O.
//!
//! A backend loads what waits of the tenant ([`Room::new`]) and of each venue and source that a call touches
//! ([`Room::load`]), asks for each new entry ([`Room::admit`]), and writes what came of it ([`Room::changes`]).

use std::collections::BTreeMap;

use super::{QuarantineBounds, QuarantineEntry, QuarantineScope, QuarantineSize};

/// Venue and source; the venue is empty where there is none.
pub(crate) type Origin = (String, String);
/// Sensor (empty where there is none) and code.
pub(crate) type Detail = (String, String);

/// What waits, as far as it is loaded, and what a call changes.
#[derive(Debug, Default)]
pub(crate) struct Room {
    tenant: QuarantineSize,
    origins: BTreeMap<Origin, BTreeMap<Detail, QuarantineSize>>,
    added: BTreeMap<(Origin, Detail), QuarantineSize>,
    left_out: BTreeMap<(Origin, Detail, QuarantineScope), u64>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct RoomChanges {
    /// Of the whole tenant.
    pub(crate) tenant: QuarantineSize,
    pub(crate) added: BTreeMap<(Origin, Detail), QuarantineSize>,
    pub(crate) left_out: BTreeMap<(Origin, Detail, QuarantineScope), u64>,
}

/// Venue and source of an entry.
pub(crate) fn origin_of(entry: &QuarantineEntry) -> Origin {
    let venue = entry.venue.as_ref().map_or("", |venue| venue.as_str());
    (venue.to_owned(), entry.source.clone())
}

/// Sensor and code of an entry.
pub(crate) fn detail_of(entry: &QuarantineEntry) -> Detail {
    (entry.sensor.clone().unwrap_or_default(), entry.code.clone())
}

impl Room {
    /// A tenant of which so much waits.
    pub(crate) fn new(tenant: QuarantineSize) -> Self {
        Self {
            tenant,
            ..Self::default()
        }
    }

    /// Whether a venue and source are loaded.
    pub(crate) fn knows(&self, origin: &Origin) -> bool {
        self.origins.contains_key(origin)
    }

    /// Says what waits of a venue and source.
    pub(crate) fn load(&mut self, origin: Origin, rows: impl IntoIterator<Item = (Detail, QuarantineSize)>) {
        self.origins.insert(origin, rows.into_iter().collect());
    }

    /// Takes an open entry, or says which bound is in the way; either is counted.
    ///
    /// Past the bound of its sensor or source an entry is still taken while fewer than the sample of its reason wait there,
    /// so that something can be looked at of everything that goes wrong. Past the tenant's bound nothing is taken.
    pub(crate) fn admit(
        &mut self,
        entry: &QuarantineEntry,
        bounds: &QuarantineBounds,
    ) -> Result<(), QuarantineScope> {
        let (origin, detail) = (origin_of(entry), detail_of(entry));
        let size = entry.size();
        let rows = self.origins.entry(origin.clone()).or_default();
        let mut of_source = QuarantineSize::default();
        let mut of_source_and_code = 0;
        let mut of_sensor = QuarantineSize::default();
        for ((sensor, code), row) in &*rows {
            of_source.add(*row);
            if *code == detail.1 {
                of_source_and_code += row.entries;
            }
            if *sensor == detail.0 {
                of_sensor.add(*row);
            }
        }
        let of_detail = rows.get(&detail).map_or(0, |row| row.entries);
        let refused = if !bounds.tenant.has_room(self.tenant, size) {
            Some(QuarantineScope::Tenant)
        } else if !bounds.sensor.has_room(of_sensor, size) && of_detail >= bounds.sample_entries {
            Some(QuarantineScope::Sensor)
        } else if !bounds.source.has_room(of_source, size) && of_source_and_code >= bounds.sample_entries {
            Some(QuarantineScope::Source)
        } else {
            None
        };
        if let Some(scope) = refused {
            // Beyond the sensor's own bound its name tells who it was; otherwise names would be rows without an end.
            let sensor = match scope {
                QuarantineScope::Sensor => detail.0,
                _ => String::new(),
            };
            *self
                .left_out
                .entry((origin, (sensor, detail.1), scope))
                .or_default() += 1;
            return Err(scope);
        }
        rows.entry(detail.clone()).or_default().add(size);
        self.tenant.add(size);
        self.added.entry((origin, detail)).or_default().add(size);
        Ok(())
    }

    /// What the call has changed.
    pub(crate) fn changes(self) -> RoomChanges {
        let mut tenant = QuarantineSize::default();
        self.added.values().for_each(|size| tenant.add(*size));
        RoomChanges {
            tenant,
            added: self.added,
            left_out: self.left_out,
        }
    }
}
