//! Devices become pseudonyms on the reading thread, before anything leaves it: no channel, spill file or log record
//! ever holds one in clear.

use std::fmt;
use std::sync::Arc;

use dwell_model::event::Kind;
use dwell_model::ids::TenantId;
use dwell_storage::error::Result;
use tokio::runtime::Handle;

use super::{ImportDeps, ImportOptions};
use crate::decode::VenueBatch;
use crate::pseudonymise::{Pseudonymiser, Road};
use crate::refusal::Refusal;
use crate::venues::{TenantVenues, VenueDirectory};

/// Keys of venue-days remembered: a year of ten venues.
const KEYS_REMEMBERED: usize = 4_096;

/// Replaces devices by pseudonyms, from a thread that may block.
pub(super) struct Presence {
    tenant: TenantId,
    venues: Arc<TenantVenues>,
    pseudonymiser: Pseudonymiser,
    runtime: Handle,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

impl Presence {
    /// For an import; called on the runtime.
    pub(super) async fn new(options: &ImportOptions, deps: &ImportDeps) -> Result<Self> {
        let (registry, keys) = (
            Arc::clone(&deps.stores.registry),
            Arc::clone(&deps.stores.pseudonym_keys),
        );
        let venues = VenueDirectory::new(registry, Arc::clone(&deps.clock), 1)
            .venues(&options.tenant)
            .await?;
        let pseudonymiser = Pseudonymiser::new(
            keys,
            Arc::clone(&deps.clock),
            options.presence_late_ms,
            KEYS_REMEMBERED,
        );
        Ok(Self {
            tenant: options.tenant.clone(),
            venues,
            pseudonymiser,
            runtime: Handle::current(),
        })
    }

    /// The venues as they were when the import began.
    pub(super) fn venues(&self) -> &TenantVenues {
        &self.venues
    }

    /// For what the quarantine keeps.
    pub(super) fn pseudonymiser(&self) -> Pseudonymiser {
        self.pseudonymiser.clone()
    }

    /// Replaces the devices of presence batches; returns the events whose day's key is gone, which were taken out.
    /// Blocking, where there is presence.
    pub(super) fn replace(&self, batches: &mut Vec<VenueBatch>) -> Result<Vec<Refusal>> {
        if batches.iter().all(|batch| batch.events.kind != Kind::Presence) {
            return Ok(Vec::new());
        }
        self.runtime.block_on(
            self.pseudonymiser
                .apply(&self.tenant, &self.venues, batches, Road::Import),
        )
    }
}
