//! One venue-day under its lease: from taking the lease to publishing, or to finding that nothing has changed.
//!
//! [`DayRun::begin`] takes the lease; [`group`](crate::group) archives several days together; [`DayRun::compute`] folds
//! and publishes one; [`DayRun::end`] gives the lease back. A failure at any point leaves something that the next run
//! simply does again: rows under a number that nobody reads, files that nobody sees.

mod compute;

pub(crate) use compute::Inputs;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use dwell_model::event::Kind;
use dwell_model::exclusion::{DayExclusions, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::time::{DayCut, LocalDay, TsMs, VenueCalendar};
use dwell_runtime::clock::Stopwatch;
use dwell_runtime::failpoint;
use dwell_storage::api::periods::Proposal;
use dwell_storage::api::{ArchivedDay, Flip, Generation, GenerationInfo, Lease, Marks, VenueDay};
use dwell_storage::erasure::ErasureFilter;
use tokio_util::sync::CancellationToken;

use crate::archive_day;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::report::{DayReport, Outcome};
use crate::spec::What;
use crate::what_if::Source;

/// Most fences whose rows are looked for after runs that died.
const ORPHANS_MAX: u64 = 32;

/// What to do with one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRequest {
    /// The day.
    pub day: LocalDay,
    /// Archive the day and no more.
    pub archive_only: bool,
    /// Publish a new generation even where nothing has changed.
    pub force: bool,
    /// Computed although the raw writer has not passed the day's end.
    pub lagging: bool,
    /// Why, if somebody said so.
    pub reason: Option<String>,
}

impl DayRequest {
    /// Archive and compute a day.
    pub fn recompute(day: LocalDay) -> Self {
        Self {
            day,
            archive_only: false,
            force: false,
            lagging: false,
            reason: None,
        }
    }

    /// The work as a word of a specification.
    pub fn what(&self) -> What {
        if self.archive_only {
            What::Archive
        } else {
            What::Recompute
        }
    }
}

/// A day being worked on.
#[derive(Debug)]
pub(crate) struct DayRun {
    pub(crate) venue: VenueKey,
    pub(crate) request: DayRequest,
    pub(crate) lease: Lease,
    pub(crate) stop: Stop,
    pub(crate) calendar: VenueCalendar,
    pub(crate) cut: DayCut,
    /// Whether the day had not ended when the run began.
    pub(crate) open: bool,
    /// The generation that was published when the lease was taken.
    pub(crate) before: Option<GenerationInfo>,
    /// Whether the day was closed when the lease was taken: what is computed now is proposed, not published.
    pub(crate) closed: bool,
    /// What was proposed before and waits.
    pub(crate) proposal: Option<Proposal>,
    /// Read before any row.
    pub(crate) marks: Marks,
    /// The venue's exclusions in force; read after the marks and before any row.
    pub(crate) venue_exclusions: Vec<Exclusion>,
    /// Those of them that may bear on the day.
    pub(crate) exclusions: DayExclusions,
    /// Whether raw may hold rows of the day that its archive does not, so that both are united to read it.
    pub(crate) unites_raw: bool,
    /// What the archive holds of the day, once that is settled.
    pub(crate) archived: BTreeMap<Kind, ArchivedDay>,
    /// Whom to leave out, as of the taking of the lease: whoever erases takes the lease after having said whom.
    pub(crate) erasures: Arc<ErasureFilter>,
    /// Whether a neighbouring day, or this one, was computed with another cut.
    recut: bool,
    stopwatch: Stopwatch,
}

/// How a run of a day began.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The lease is taken.
    Run(Box<DayRun>),
    /// There is nothing to do, or it cannot be done now.
    Skip(DayReport),
}

impl DayRun {
    /// Takes the lease of a day.
    pub(crate) async fn begin(
        layer: &BatchLayer,
        venue: &VenueKey,
        request: DayRequest,
        cancel: &CancellationToken,
    ) -> Result<Begun> {
        let stopwatch = Stopwatch::start();
        let calendar = layer.venue(venue).await?.calendar;
        let cut = calendar.cut(request.day);
        let now = layer.now_ms();
        let skip = |reason: &str, retryable| {
            let mut report = DayReport::new(
                venue,
                request.day,
                request.what(),
                Outcome::Skipped,
                reason.to_owned(),
            );
            report.retryable = retryable;
            Ok(Begun::Skip(report))
        };
        if now < cut.start {
            return skip("the day has not begun", false);
        }
        if now < cut.end && request.archive_only {
            return skip("the rows of an open day stay in raw", false);
        }
        let ttl_ms = layer.config().lease_ttl.as_ms();
        let holder = layer.new_holder();
        let days = &layer.stores().venue_days;
        let Some(lease) = days
            .acquire(venue, request.day, &holder, now, ttl_ms)
            .await
            .doing("take the lease")?
        else {
            return skip(HELD, true);
        };
        let cut_end = cut.end;
        let mut run = Self {
            venue: venue.clone(),
            lease,
            stop: Stop::under(cancel),
            calendar,
            open: now < cut_end,
            cut,
            before: None,
            closed: false,
            proposal: None,
            marks: Marks::default(),
            venue_exclusions: Vec::new(),
            exclusions: DayExclusions::default(),
            unites_raw: now < cut_end,
            archived: BTreeMap::new(),
            erasures: Arc::default(),
            recut: false,
            stopwatch,
            request,
        };
        match run.read_state(layer).await {
            Ok(()) => Ok(Begun::Run(Box::new(run))),
            Err(error) => {
                run.end(layer, &error).await;
                Err(error)
            }
        }
    }

    /// The day's bounds.
    pub(crate) fn range(&self) -> Range<TsMs> {
        self.cut.start..self.cut.end
    }

    /// A look at a day as a run would see it, without a lease: nothing of it can be published. The archive is left as it
    /// is, so that rows which it lacks come from raw.
    pub(crate) async fn look(
        layer: &BatchLayer,
        venue: &VenueKey,
        day: LocalDay,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let calendar = layer.venue(venue).await?.calendar;
        let cut = calendar.cut(day);
        let open = layer.now_ms() < cut.end;
        // Fences begin at 1: with this one nobody can publish.
        let lease = Lease {
            venue: venue.clone(),
            day,
            fence: 0,
            holder: String::new(),
            expires_at: 0,
        };
        let mut run = Self {
            venue: venue.clone(),
            request: DayRequest::recompute(day),
            lease,
            stop: Stop::under(cancel),
            calendar,
            cut,
            open,
            before: None,
            closed: false,
            proposal: None,
            marks: Marks::default(),
            venue_exclusions: Vec::new(),
            exclusions: DayExclusions::default(),
            unites_raw: true,
            archived: BTreeMap::new(),
            erasures: layer
                .erasures()
                .read_on()
                .await
                .doing("read the ledger of erasures")?,
            recut: false,
            stopwatch: Stopwatch::start(),
        };
        let near = run.near_days(layer).await?;
        run.before = near
            .into_iter()
            .find(|row| row.day == day)
            .and_then(|row| row.published);
        run.read_marks(layer).await?;
        run.unites_raw = run.open || run.may_have_new_rows();
        run.archived = archive_day::look_up(layer, &run).await?;
        Ok(run)
    }

    /// Leaves out what does not lie in one place: for looking at it, never for publishing.
    pub(crate) fn read_only_from(&mut self, source: Source) {
        match source {
            Source::Both => {}
            Source::Archive => self.unites_raw = false,
            Source::Raw => {
                self.unites_raw = true;
                self.archived.clear();
                self.recut = false;
            }
        }
    }

    /// A day of a cut that is not the published one, under its lease: its archive is being written anew, and what is
    /// computed of it is staged. With `unites_raw` its events are those of raw, too, and the generation is provisional.
    pub(crate) async fn of_cut(
        layer: &BatchLayer,
        lease: Lease,
        calendar: VenueCalendar,
        marks: Marks,
        unites_raw: bool,
        stop: Stop,
    ) -> Result<Self> {
        let mut run = Self {
            venue: lease.venue.clone(),
            request: DayRequest::recompute(lease.day),
            cut: calendar.cut(lease.day),
            lease,
            stop,
            calendar,
            open: unites_raw,
            before: None,
            closed: false,
            proposal: None,
            marks,
            venue_exclusions: Vec::new(),
            exclusions: DayExclusions::default(),
            unites_raw,
            archived: BTreeMap::new(),
            erasures: layer
                .erasures()
                .read_on()
                .await
                .doing("read the ledger of erasures")?,
            recut: false,
            stopwatch: Stopwatch::start(),
        };
        let in_force = layer.exclusions(&run.venue).await?;
        run.exclude(in_force);
        Ok(run)
    }

    /// Applies these exclusions of the venue.
    pub(crate) fn exclude(&mut self, in_force: Vec<Exclusion>) {
        self.exclusions = DayExclusions::of(&in_force, &self.range());
        self.venue_exclusions = in_force;
    }

    /// Reads the marks, then the exclusions: before any row, so that what is published never claims more than it
    /// includes.
    pub(crate) async fn read_marks(&mut self, layer: &BatchLayer) -> Result<()> {
        self.marks = layer
            .stores()
            .raw
            .marks(&self.venue, self.range())
            .await
            .doing("read the marks")?;
        let in_force = layer.exclusions(&self.venue).await?;
        self.exclude(in_force);
        Ok(())
    }

    /// Whether raw may hold something that the archive does not. The published generation of a closed day was made
    /// after everything up to its marks had been archived.
    pub(crate) fn may_have_new_rows(&self) -> bool {
        self.before.as_ref().is_none_or(|before| {
            self.request.archive_only
                || self.request.force
                || self.recut
                || before.provisional
                || self.marks.exceed(&before.marks)
        })
    }

    /// After the venue's cut was changed, rows of the day may lie in the archive under its neighbours' names.
    pub(crate) async fn neighbours(&self, layer: &BatchLayer, kind: Kind) -> Result<Vec<ArchivedDay>> {
        let mut held = Vec::new();
        if self.recut {
            for day in [self.request.day.prev(), self.request.day.next()] {
                let of_day = layer.stores().archive.day(&self.venue, kind, day).await;
                held.push(of_day.doing("look a neighbouring day up in the archive")?);
            }
        }
        held.retain(|day| !day.is_empty());
        Ok(held)
    }

    /// Whether the lease is still the last one taken, as the store has it.
    pub(crate) async fn check_fence(&self, layer: &BatchLayer) -> Result<()> {
        let row = layer
            .stores()
            .venue_days
            .get(&self.venue, self.request.day)
            .await
            .doing("read the fence")?;
        if row.is_some_and(|row| row.fence == self.lease.fence) {
            Ok(())
        } else {
            Err(Error::LeaseLost)
        }
    }

    /// The report of a day that was only archived.
    pub(crate) fn archived_report(&self) -> DayReport {
        let mut report = self.report(Outcome::Archived, "archived".to_owned());
        report.events = self
            .archived
            .values()
            .map(|held| held.events_checksum().rows)
            .sum();
        report
    }

    /// Ends the run after a failure: gives the lease back. An injected failure stands for a crash and leaves everything
    /// as it is.
    pub(crate) async fn end(&self, layer: &BatchLayer, error: &Error) {
        if !matches!(error, Error::Injected(_)) {
            self.release(layer).await;
        }
    }

    /// Gives the lease back. A failure only means that others wait for its end.
    pub(crate) async fn release(&self, layer: &BatchLayer) {
        if let Err(error) = layer.stores().venue_days.release(&self.lease).await {
            tracing::warn!(venue = %self.venue, day = %self.request.day, %error, "lease not given back");
        }
    }

    /// The report of a day that could not be done.
    pub(crate) fn failed_report(&self, error: &Error) -> DayReport {
        let mut report = DayReport::of_failure(&self.venue, self.request.day, self.request.what(), error);
        report.generation = self.before.as_ref().map(|before| before.generation);
        report.duration_ms = self.duration_ms();
        report
    }

    pub(crate) fn report(&self, outcome: Outcome, reason: String) -> DayReport {
        let mut report = DayReport::new(
            &self.venue,
            self.request.day,
            self.request.what(),
            outcome,
            reason,
        );
        report.generation = self.before.as_ref().map(|before| before.generation);
        report.duration_ms = self.duration_ms();
        report
    }

    fn duration_ms(&self) -> i64 {
        i64::try_from(self.stopwatch.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Reads what was published before, and clears up after runs of the day that died.
    async fn read_state(&mut self, layer: &BatchLayer) -> Result<()> {
        failpoint!("batch.after_lease");
        self.erasures = layer
            .erasures()
            .read_on()
            .await
            .doing("read the ledger of erasures")?;
        let day = self.request.day;
        let near = self.near_days(layer).await?;
        let row = near
            .into_iter()
            .find(|row| row.day == day)
            .ok_or(Error::LeaseLost)?;
        if row.fence != self.lease.fence {
            return Err(Error::LeaseLost);
        }
        self.before = row.published;
        self.read_proposal(layer).await?;
        self.remove_orphans(layer).await
    }

    /// The rows of the day and its neighbours; sees whether any was cut differently.
    async fn near_days(&mut self, layer: &BatchLayer) -> Result<Vec<VenueDay>> {
        let day = self.request.day;
        let near = layer
            .stores()
            .venue_days
            .list(&self.venue, day.prev(), day.next())
            .await;
        let near = near.doing("read the published generation")?;
        let others = |row: &VenueDay| {
            row.published
                .as_ref()
                .is_some_and(|info| info.calendar != self.calendar)
        };
        self.recut = near.iter().any(others);
        Ok(near)
    }

    /// Removes rows that runs wrote who died before they could publish: their fences can never publish any more. So may
    /// what a recut staged and did not publish: while it can, nobody else gets the lease.
    async fn remove_orphans(&self, layer: &BatchLayer) -> Result<()> {
        let published = self.before.as_ref().map_or(0, |before| before.generation);
        if published + 1 >= self.lease.fence {
            return Ok(());
        }
        let day = self.request.day;
        let kept = layer
            .stores()
            .venue_days
            .history(&self.venue, day)
            .await
            .doing("read the day's history")?;
        let (staged, kept): (Vec<_>, Vec<_>) = kept.into_iter().partition(|info| info.generation > published);
        if !staged.is_empty() {
            let staged: Vec<Generation> = staged.iter().map(|info| info.generation).collect();
            let forgotten = layer.stores().venue_days.forget(&self.lease, &staged).await;
            if forgotten.doing("forget staged generations")? == Flip::Lost {
                return Err(Error::LeaseLost);
            }
            for generation in staged {
                self.remove_rows(layer, generation).await?;
            }
        }
        let first = (published + 1).max(self.lease.fence.saturating_sub(ORPHANS_MAX));
        for fence in first..self.lease.fence {
            let is_proposed = |proposal: &Proposal| proposal.info.generation == fence;
            if kept.iter().all(|info| info.generation != fence)
                && !self.proposal.as_ref().is_some_and(is_proposed)
            {
                self.remove_rows(layer, fence).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn remove_rows(&self, layer: &BatchLayer, generation: Generation) -> Result<()> {
        let (stores, day) = (layer.stores(), self.request.day);
        stores
            .aggregates
            .delete(&self.venue, day, generation)
            .await
            .doing("remove unpublished aggregates")?;
        stores
            .sessions
            .delete(&self.venue, day, generation)
            .await
            .doing("remove unpublished sessions")
    }

    async fn remove_own_rows(&self, layer: &BatchLayer) {
        if let Err(error) = self.remove_rows(layer, self.lease.fence).await {
            tracing::warn!(venue = %self.venue, day = %self.request.day, %error, "unpublished rows not removed");
        }
    }
}

/// Why a held day was skipped.
pub(crate) const HELD: &str = "another worker holds the day";
