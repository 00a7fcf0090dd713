//! Generations that somebody needs: retention asks before it takes an old one.
//!
//! Pins hold what a backup or a drill works with. Of a day in a closed period the generation that was published when it
//! was closed stays, with all that were approved since, and what is proposed with the one that it would replace: they are
//! what the closing promised, and what an auditor asks for.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use dwell_retention::GenerationGuard;
use dwell_storage::api::periods::{self, ClosedPeriods};
use dwell_storage::api::{Documents, Generation, VenueDays, VenueDaysReader, pins};
use dwell_storage::error::Result;

/// The pins and closed periods of the documents table.
pub(super) struct PinnedGenerations {
    documents: Arc<dyn Documents>,
    days: Arc<dyn VenueDays>,
}

impl PinnedGenerations {
    pub(super) fn new(documents: Arc<dyn Documents>, days: Arc<dyn VenueDays>) -> Self {
        Self { documents, days }
    }

    /// The lowest generation of a day that its closing holds, and its proposal; `None` where the day is not closed.
    async fn closed(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<(Generation, Vec<Generation>)>> {
        let closed = ClosedPeriods::read(self.documents.as_ref(), &venue.tenant).await?;
        let Some(since) = closed.closed_since(&venue.venue, day) else {
            return Ok(None);
        };
        let history = VenueDaysReader::history(self.days.as_ref(), venue, day).await?;
        let then = history.iter().filter(|info| info.published_at <= since);
        // Numbers rise with time: what was approved later has a higher one.
        let first = then.map(|info| info.generation).max().unwrap_or(0);
        let proposal = periods::proposal(self.documents.as_ref(), venue, day).await?;
        let proposed = proposal.filter(|stored| stored.value.is_open());
        let proposed = proposed.map(|stored| vec![stored.value.info.generation, stored.value.base]);
        Ok(Some((first, proposed.unwrap_or_default())))
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
        let key = VenueKey::new(tenant.clone(), venue.clone());
        let closed = self.closed(&key, day).await?;
        let is_closed = |generation: Generation| {
            closed
                .as_ref()
                .is_some_and(|(first, proposed)| generation >= *first || proposed.contains(&generation))
        };
        let is_held = |generation: &&Generation| {
            held.holds_generation(venue, day, **generation) || is_closed(**generation)
        };
        Ok(generations.iter().filter(is_held).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::ManualClock;
    use dwell_storage::api::periods::{ClosedPeriod, Opened};
    use dwell_storage::api::pins::{Pin, Pinned, PinnedGeneration};
    use dwell_storage::backends::sqlite::SqliteStores;
    use dwell_storage::paths::DataPaths;

    use super::*;
    use crate::test_world::{World, day};

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
        let guard = PinnedGenerations::new(documents, stores.venue_days);
        let needed =
            async |of: LocalDay, now| guard.needed(&tenant, &venue, of, &[6, 7, 8], now).await.unwrap();
        assert_eq!(needed(day, 1_500).await, [7]);
        assert_eq!(needed(day.next(), 1_500).await, [0; 0]);
        assert_eq!(needed(day, 2_000).await, [0; 0], "the pin has ended");
    }

    #[tokio::test]
    async fn what_a_closed_day_showed_and_was_approved_since_is_needed_until_it_is_opened() {
        let (data, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let world = World::with_days(data.path(), archive.path(), &["2026-03-01", "2026-03-02"]).await;
        let (day, other) = (day("2026-03-01"), day("2026-03-02"));
        let published = async || world.numbers().await[&day].0;
        let of_old = published().await;
        // A second generation, which is the one that is published when the period is closed.
        world.clock.advance(std::time::Duration::from_secs(60));
        world.events("2026-03-01", 7).await;
        world.recompute().await;
        let when_closed = published().await;
        world.clock.advance(std::time::Duration::from_secs(60));
        let documents = Arc::clone(&world.stores.documents);
        let period = ClosedPeriod {
            venues: None,
            from: day,
            to: day,
            reason: "invoiced".to_owned(),
            closed_by: "key".to_owned(),
            closed_at: world.clock().now_ms(),
            opened: None,
        };
        let id = periods::close(documents.as_ref(), world.tenant(), &period)
            .await
            .unwrap();
        world.clock.advance(std::time::Duration::from_secs(60));
        world.events("2026-03-01", 8).await;
        world.recompute().await;
        let proposal = periods::proposal(documents.as_ref(), &world.venue, day)
            .await
            .unwrap()
            .unwrap();
        let proposed = proposal.value.info.generation;
        assert!(
            of_old < when_closed && when_closed < proposed,
            "{of_old} {when_closed} {proposed}"
        );

        let guard = PinnedGenerations::new(Arc::clone(&documents), Arc::clone(&world.stores.venue_days));
        let now = world.clock().now_ms();
        let all = [of_old, when_closed, proposed];
        let needed = async |of| {
            let (tenant, venue) = (world.tenant(), &world.venue.venue);
            guard.needed(tenant, venue, of, &all, now).await.unwrap()
        };
        assert_eq!(needed(day).await, [when_closed, proposed]);
        assert_eq!(needed(other).await, [0; 0], "a day that is not closed");
        let opened = Opened {
            at: now,
            by: "key".to_owned(),
            reason: "corrected".to_owned(),
        };
        periods::open(documents.as_ref(), world.tenant(), &id, &opened)
            .await
            .unwrap();
        assert_eq!(needed(day).await, [0; 0]);
    }
}
