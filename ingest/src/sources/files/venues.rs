//! The tenant's venues, by number, for looking up names and days without touching the registry again.

use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::VenueCalendar;
use dwell_storage::api::Registry;
use dwell_storage::error::Result;
use hashbrown::HashMap;

use super::mapping::ZoneOfVenue;

/// All venues of the tenant as they were when the import began.
#[derive(Debug, Clone, Default)]
pub(super) struct VenueTable {
    venues: Vec<(VenueKey, VenueCalendar)>,
    numbers: HashMap<String, u32>,
}

impl VenueTable {
    /// Reads the registry.
    pub(super) async fn load(registry: &dyn Registry, tenant: &TenantId) -> Result<Self> {
        let stored = registry.venues(tenant).await?;
        Ok(stored
            .into_iter()
            .map(|stored| {
                (
                    VenueKey::new(tenant.clone(), stored.venue.id),
                    stored.venue.calendar,
                )
            })
            .collect())
    }

    /// Number of a venue; `None` when it is not known.
    pub(super) fn number(&self, venue: &str) -> Option<u32> {
        self.numbers.get(venue).copied()
    }

    /// A venue's key.
    pub(super) fn key(&self, number: u32) -> &VenueKey {
        &self.venues[number as usize].0
    }

    /// A venue's calendar.
    pub(super) fn calendar(&self, number: u32) -> VenueCalendar {
        self.venues[number as usize].1
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.venues.len()
    }
}

impl FromIterator<(VenueKey, VenueCalendar)> for VenueTable {
    fn from_iter<I: IntoIterator<Item = (VenueKey, VenueCalendar)>>(venues: I) -> Self {
        let venues: Vec<_> = venues.into_iter().collect();
        let numbers = venues
            .iter()
            .enumerate()
            .map(|(i, (key, _))| (key.venue.as_str().to_owned(), i as u32))
            .collect();
        Self { venues, numbers }
    }
}

impl ZoneOfVenue for VenueTable {
    fn calendar(&self, venue: &str) -> Option<VenueCalendar> {
        self.number(venue)
            .map(|number| VenueTable::calendar(self, number))
    }
}
