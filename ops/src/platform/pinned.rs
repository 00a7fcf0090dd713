//! Generations that pins hold: retention asks before it takes an old one.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use dwell_retention::GenerationGuard;
use dwell_storage::api::{Documents, Generation, pins};
use dwell_storage::error::Result;

/// The pins of the documents table.
pub(super) struct PinnedGenerations {
    documents: Arc<dyn Documents>,
}

impl PinnedGenerations {
    pub(super) fn new(documents: Arc<dyn Documents>) -> Self {
        Self { documents }
    }
}

impl std::fmt::Debug for PinnedGenerations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedGenerations").finish_non_exhaustive()
    }
}

#[async_trait]
impl GenerationGuard for PinnedGenerations {
    async fn needed(
        &self,
        tenant: &TenantId,
        venue: &VenueId,
        day: LocalDay,
        generations: &[Generation],
        now: TsMs,
    ) -> Result<Vec<Generation>> {
        let held = pins::held(self.documents.as_ref(), tenant, now).await?;
        let is_held = |generation: &&Generation| held.holds_generation(venue, day, **generation);
        Ok(generations.iter().filter(is_held).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::ManualClock;
    use dwell_storage::api::pins::{Pin, Pinned, PinnedGeneration};
    use dwell_storage::backends::sqlite::SqliteStores;
    use dwell_storage::paths::DataPaths;

    use super::*;

    #[tokio::test]
    async fn a_pinned_generation_is_needed_until_its_pin_ends() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(0);
        let stores = SqliteStores::open(&DataPaths::new(folder.path()), clock.shared())
            .await
            .unwrap();
        let (tenant, venue) = (TenantId::new("acme").unwrap(), VenueId::new("shop").unwrap());
        let day: LocalDay = "2026-03-10".parse().unwrap();
        let pin = Pin {
            holder: "backup".to_owned(),
            reason: "a backup is being made".to_owned(),
            set_at: 1_000,
            expires_at: 2_000,
            files: Pinned::None,
            generations: Pinned::These(
                [PinnedGeneration {
                    venue: venue.clone(),
                    day,
                    generation: 7,
                }]
                .into(),
            ),
        };
        let documents: Arc<dyn Documents> = stores.documents;
        pins::hold(documents.as_ref(), &tenant, "p", &pin).await.unwrap();
        let guard = PinnedGenerations::new(documents);
        let needed =
            async |of: LocalDay, now| guard.needed(&tenant, &venue, of, &[6, 7, 8], now).await.unwrap();
        assert_eq!(needed(day, 1_500).await, [7]);
        assert_eq!(needed(day.next(), 1_500).await, [0; 0]);
        assert_eq!(needed(day, 2_000).await, [0; 0], "the pin has ended");
    }
}
