//! The flip, and what follows it: nothing here can be taken back, everything can be repeated.
//!
//! The registry's venue gets the new cut; one commit per dataset puts the staged files in the place of the former ones;
//! each day's pointer goes to its staged generation, and into the feed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dwell_model::exclusion;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::time::LocalDay;
use dwell_runtime::failpoint;
use dwell_storage::api::recuts::{self, Recut, RecutPhase, StagedCutDay, flipping_holder};
use dwell_storage::api::{
    Committed, Flip, Generation, Marks, Projection, StagedDay, StillHeld, exclusions, publications,
};
use dwell_storage::error::Result as StorageResult;
use tokio_util::sync::CancellationToken;

use super::days::TwoCuts;
use super::{RecutOutcome, RecutReport, decided_at, fence_out, lease_of, release, stage, told};
use crate::archive_day;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::parts::DaySources;
use crate::run::DayRun;
use crate::runner::Progress;

/// Days announced at a time: the feed takes so many that are not listed.
const LIST_EVERY: usize = 100;
/// Tries of a day whose archive others go on changing, which nobody can any more.
const UNITES_MAX: u32 = 5;

impl BatchLayer {
    /// Publishes a recut that was decided: goes on from wherever it stands. `Cancelled` leaves the rest to the next try,
    /// and everybody else kept from the days until then.
    pub(super) async fn publish_recut(
        &self,
        venue: &VenueKey,
        recut: &Recut,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<RecutReport> {
        let RecutPhase::Flipping { days, .. } = &recut.phase else {
            return Ok(RecutReport::of(recut, RecutOutcome::Flipped));
        };
        let decided: BTreeMap<LocalDay, Generation> = days
            .iter()
            .filter_map(|(day, fence)| Some((LocalDay::from_epoch_days(*day)?, *fence)))
            .collect();
        let layer = self.under(flipping_holder(recut.number));
        let work = Publishing {
            stop: Stop::under(cancel),
            layer: &layer,
            venue,
            recut,
            decided,
            progress,
        };
        work.run().await
    }
}

struct Publishing<'a> {
    layer: &'a BatchLayer,
    venue: &'a VenueKey,
    recut: &'a Recut,
    decided: BTreeMap<LocalDay, Generation>,
    progress: Progress<'a>,
    stop: Stop,
}

impl Publishing<'_> {
    async fn run(&self) -> Result<RecutReport> {
        let total = self.decided.len();
        // Whoever had a lease that ran out while this was decided is through with it.
        fence_out(self.layer, self.venue, &self.stop, self.progress).await?;
        (self.progress)(told(total, total, "publishing"));
        let at = self.flip_venue().await?;
        failpoint!("recut.after_flip");
        let staged = self.staged().await?;
        let united = self.swap_files(&staged).await?;
        failpoint!("recut.after_commit");
        for (done, (day, of_day)) in staged.iter().enumerate() {
            self.stop.check()?;
            (self.progress)(told(done, total, &format!("publishing {day}")));
            self.point(*day, of_day, at).await?;
            failpoint!("recut.after_pointer");
            if done % LIST_EVERY == LIST_EVERY - 1 {
                self.layer.settle_feed(self.venue).await;
            }
        }
        self.layer.settle_feed(self.venue).await;
        self.carry_exclusions_over(&staged).await?;
        failpoint!("recut.before_done");
        recuts::finish(
            self.layer.stores().documents.as_ref(),
            self.venue,
            self.recut.number,
        )
        .await
        .doing("finish the recut")?;
        (self.progress)(told(total, total, ""));
        let mut report =
            RecutReport::of(self.recut, RecutOutcome::Flipped).naming(self.decided.keys().copied());
        report.united = united;
        Ok(report)
    }

    /// THE flip: the venue's calendar, by one conditional write. Returns when.
    async fn flip_venue(&self) -> Result<i64> {
        let (stores, to) = (self.layer.stores(), self.recut.to);
        let documents = stores.documents.as_ref();
        loop {
            let stored = stores
                .registry
                .venue(self.venue)
                .await
                .doing("read the venue")?
                .ok_or_else(|| Error::UnknownVenue(self.venue.clone()))?;
            if stored.venue.calendar == to {
                let stands = recuts::load(documents, self.venue).await;
                let stands = stands.doing("read the recut")?;
                return Ok(stands.map_or(decided_at(self.recut), |stands| decided_at(&stands.value)));
            }
            // Until now the former cut was answered.
            recuts::date_flip(documents, self.venue, self.recut.number, self.layer.now_ms())
                .await
                .doing("date the flip")?;
            failpoint!("recut.before_flip");
            let venue = Venue {
                calendar: to,
                ..stored.venue
            };
            let put = stores
                .registry
                .put_venue(&self.venue.tenant, &venue, Some(stored.version))
                .await;
            // Lost to a change of its layouts, or to an own try whose outcome is unknown: read it again.
            let (Flip::Done | Flip::Lost) = put.doing("publish the new cut")?;
        }
    }

    /// What was staged, day by day.
    async fn staged(&self) -> Result<BTreeMap<LocalDay, StagedCutDay>> {
        let documents = self.layer.stores().documents.as_ref();
        let mut staged = BTreeMap::new();
        for (&day, &fence) in &self.decided {
            let found = recuts::staged_day(documents, self.venue, day).await;
            let found = found.doing("read what was staged of a day")?;
            if let Some(found) = found
                .map(|stored| stored.value)
                .filter(|found| found.fence == fence)
            {
                staged.insert(day, found);
            }
        }
        Ok(staged)
    }

    /// Puts the staged files in the place of the former ones; returns how many days had to be united with what others
    /// wrote.
    async fn swap_files(&self, staged: &BTreeMap<LocalDay, StagedCutDay>) -> Result<u64> {
        let mut left: Vec<StagedDay> = staged.values().flat_map(|day| day.files.clone()).collect();
        let mut united = 0;
        for _ in 0..UNITES_MAX {
            if left.is_empty() {
                return Ok(united);
            }
            let committed = self.layer.stores().archive.commit(left.clone(), &Alone).await;
            let committed = committed.doing("commit to the archive")?;
            let stale = left
                .into_iter()
                .zip(committed)
                .filter(|(_, committed)| *committed == Committed::Stale);
            let mut again = Vec::new();
            for (day, _) in stale {
                tracing::warn!(venue = %self.venue, day = %day.day, kind = %day.kind, "archive changed after the decision");
                again.push(self.unite(&day).await?);
                united += 1;
            }
            left = again;
        }
        match left.is_empty() {
            true => Ok(united),
            false => Err(Error::Contended(UNITES_MAX)),
        }
    }

    /// Writes a day once more, with what somebody put into its archive after the decision.
    async fn unite(&self, staged: &StagedDay) -> Result<StagedDay> {
        let lease = lease_of(
            self.layer,
            self.venue,
            staged.day,
            &self.stop,
            self.progress,
            (0, 0),
        )
        .await?;
        let written = async {
            let run = DayRun::of_cut(
                self.layer,
                lease.clone(),
                self.recut.to,
                Marks::default(),
                false,
                self.stop.clone(),
            )
            .await?;
            let now = self
                .layer
                .stores()
                .archive
                .day(self.venue, staged.kind, staged.day)
                .await;
            let now = now.doing("look a day up in the archive")?;
            let sources = DaySources {
                layer: self.layer,
                venue: self.venue,
                day: staged.day,
                kind: staged.kind,
                range: run.range(),
                raw_rows: 0,
                archived: vec![staged.holds.clone(), now],
                erasures: &run.erasures,
                projection: Projection::EventsAndDeliveries,
            };
            archive_day::replace(&run, &sources).await
        };
        let written = written.await;
        release(self.layer, &lease).await;
        written
    }

    /// Writes the days of the new cut down with exclusions that were made, or whose days were found, since those were staged:
    /// the days of the former cut that such an exclusion has a part in are not these. What staging knew it has looked for.
    /// Who computes these days then looks whether it has a part in them indeed. A revert that ends its search later than
    /// this sees the new cut and searches again. Repeated after a death it may add a neighbouring day, which is then computed
    /// once for nothing.
    async fn carry_exclusions_over(&self, staged: &BTreeMap<LocalDay, StagedCutDay>) -> Result<()> {
        let in_force = self.layer.exclusions(self.venue).await?;
        let known = exclusion::fingerprint(&in_force);
        let cuts = TwoCuts {
            from: self.recut.from,
            to: self.recut.to,
            now: self.layer.now_ms(),
        };
        let later = staged
            .iter()
            .filter(|(_, of_day)| of_day.made_of.in_force != known);
        let later: Vec<(LocalDay, Vec<LocalDay>)> =
            later.map(|(day, _)| (*day, cuts.sources(*day))).collect();
        for exclusion in &in_force {
            let has_part = |former: &[LocalDay]| former.iter().any(|day| exclusion.days.contains(*day));
            let days: Vec<LocalDay> = later
                .iter()
                .filter(|(day, former)| !exclusion.days.contains(*day) && has_part(former))
                .map(|(day, _)| *day)
                .collect();
            if days.is_empty() {
                continue;
            }
            let documents = self.layer.stores().documents.as_ref();
            exclusions::add_days(documents, &self.venue.tenant, &exclusion.id, &days, false)
                .await
                .doing("write days down with an exclusion")?;
        }
        Ok(())
    }

    /// Lets a day's pointer follow.
    async fn point(&self, day: LocalDay, staged: &StagedCutDay, at: i64) -> Result<()> {
        if staged.has_generation {
            let lease = lease_of(self.layer, self.venue, day, &self.stop, self.progress, (0, 0)).await?;
            let pointed = self.point_under(&lease, staged, at).await;
            if !matches!(pointed, Err(Error::Injected(_))) {
                release(self.layer, &lease).await;
            }
            pointed?;
        } else if staged.files.is_empty() {
            return Ok(());
        }
        stage::settle(self.layer, self.venue, day, staged).await
    }

    async fn point_under(
        &self,
        lease: &dwell_storage::api::Lease,
        staged: &StagedCutDay,
        at: i64,
    ) -> Result<()> {
        let (stores, day) = (self.layer.stores(), lease.day);
        let row = stores.venue_days.get(self.venue, day).await;
        let row = row.doing("read the published generation")?;
        let before = row.and_then(|row| row.published).map(|info| info.generation);
        if before.is_some_and(|before| before > staged.fence) {
            // Published by somebody who held a lease as this was decided; the day is dirty, and readers find what was
            // staged until it is computed anew.
            tracing::warn!(venue = %self.venue, %day, "a generation of the former cut was published after the decision");
            return Ok(());
        }
        if before != Some(staged.fence) {
            let documents = stores.documents.as_ref();
            let days = stores.venue_days.as_ref();
            // Compared with nothing: an hour that went to a neighbouring day must not be told as gone by this one, so the
            // entry replaces the day as a whole.
            publications::announce(documents, days, self.venue, day, staged.fence, None)
                .await
                .doing("announce the generation")?;
            failpoint!("recut.after_announce");
            let flip = stores.venue_days.promote(lease, before, staged.fence, at).await;
            if flip.doing("publish a staged generation")? == Flip::Lost {
                return Err(Error::LeaseLost);
            }
        }
        Ok(())
    }
}

/// Nobody else has a lease.
struct Alone;

#[async_trait]
impl StillHeld for Alone {
    async fn still_held(&self, _: &StagedDay) -> StorageResult<bool> {
        Ok(true)
    }
}
