//! Reading what a plan is made of.

use dwell_model::exclusion::Exclusion;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS};
use dwell_storage::api::exclusions;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::plan::{PlannedDay, VenueFacts, days_to_compute};
use crate::recompute::DEFINITIONS_VERSION;
use crate::spec::{RunSpec, Venues};

impl BatchLayer {
    /// The days of a venue that a run would work on now. Reads marks, exclusions, the archive's list of days and the
    /// venue's rows.
    pub async fn plan_venue(&self, key: &VenueKey, spec: &RunSpec) -> Result<Vec<PlannedDay>> {
        let stores = self.stores();
        let slots = stores
            .raw
            .marked_slots(key, MIN_TS..MAX_TS)
            .await
            .doing("read the marks")?;
        let exclusions = self.exclusions(key).await?;
        let archived = stores.archive.days(key).await.doing("list the archive's days")?;
        let archived: Vec<LocalDay> = archived.into_iter().map(|(day, _)| day).collect();
        let (first, last) = LocalDay::first_and_last();
        let mut days = stores
            .venue_days
            .list(key, first, last)
            .await
            .doing("list the venue's days")?;
        self.count_proposals(key, &mut days).await?;
        let venue = self.venue(key).await?;
        let facts = VenueFacts {
            venue: &venue,
            definitions: DEFINITIONS_VERSION,
            now: self.now_ms(),
            slots: &slots,
            archived: &archived,
            days: &days,
            exclusions: &exclusions,
        };
        let mut days = days_to_compute(&facts, spec);
        days.retain(|day| spec.picks(&key.venue, day.day));
        Ok(days)
    }

    /// What a run would work on now, venue by venue, those with nothing to do left out: a dry run.
    pub async fn plan_spec(
        &self,
        tenant: &TenantId,
        spec: &RunSpec,
    ) -> Result<Vec<(VenueKey, Vec<PlannedDay>)>> {
        spec.validate()?;
        let mut plans = Vec::new();
        for venue in self.venues_of(tenant, &spec.venues).await? {
            let days = self.plan_venue(&venue, spec).await?;
            if !days.is_empty() {
                plans.push((venue, days));
            }
        }
        Ok(plans)
    }

    /// The exclusions of a venue that are in force.
    pub(crate) async fn exclusions(&self, key: &VenueKey) -> Result<Vec<Exclusion>> {
        exclusions::in_force(&*self.stores().documents, key)
            .await
            .doing("read the exclusions")
    }

    /// The venues that a specification names; `UnknownVenue` when one is not there.
    pub(crate) async fn venues_of(&self, tenant: &TenantId, venues: &Venues) -> Result<Vec<VenueKey>> {
        let registry = &self.stores().registry;
        let known = registry.venues(tenant).await.doing("list the venues")?;
        let known = known
            .into_iter()
            .map(|stored| VenueKey::new(tenant.clone(), stored.venue.id));
        match venues {
            Venues::All => Ok(known.collect()),
            Venues::These(ids) => {
                let known: Vec<VenueKey> = known.collect();
                let find = |id| {
                    let key = VenueKey::new(tenant.clone(), id);
                    if known.contains(&key) {
                        Ok(key)
                    } else {
                        Err(Error::UnknownVenue(key))
                    }
                };
                let mut ids = ids.clone();
                ids.sort();
                ids.dedup();
                ids.into_iter().map(find).collect()
            }
        }
    }
}
