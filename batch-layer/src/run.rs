//! One venue-day under its lease: from taking the lease to publishing, or to finding that nothing has changed.
//!
//! [`DayRun::begin`] takes the lease; [`group`](crate::group) archives several days together; [`DayRun::compute`] folds
//! and publishes one; [`DayRun::end`] gives the lease back. A failure at any point leaves something that the next run
//! simply does again: rows under a number that nobody reads, files that nobody sees.

use std::collections::BTreeMap;
use std::ops::Range;

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::layout::Layout;
use dwell_model::metrics::Carry;
use dwell_model::time::{DayCut, LocalDay, TsMs, VenueCalendar};
use dwell_runtime::clock::Stopwatch;
use dwell_runtime::failpoint;
use dwell_storage::api::{
    ArchiveFile, ArchivedDay, Dataset, Flip, Generation, GenerationInfo, Lease, Marks, RowFilter, VenueDay,
};
use tokio_util::sync::CancellationToken;

use crate::drift::drift;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::publish;
use crate::recompute::{self, Computed};
use crate::report::{DayReport, Outcome};
use crate::rows;
use crate::spec::What;
use crate::{archive_day, metrics};

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
    /// Read before any row.
    pub(crate) marks: Marks,
    /// What the archive holds of the day, once that is settled.
    pub(crate) archived: BTreeMap<Kind, ArchivedDay>,
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
        let mut run = Self {
            venue: venue.clone(),
            lease,
            stop: Stop::under(cancel),
            calendar,
            open: now < cut.end,
            cut,
            before: None,
            marks: Marks::default(),
            archived: BTreeMap::new(),
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

    /// Reads the marks: before any row, so that what is published never claims more than it includes.
    pub(crate) async fn read_marks(&mut self, layer: &BatchLayer) -> Result<()> {
        self.marks = layer
            .stores()
            .raw
            .marks(&self.venue, self.range())
            .await
            .doing("read the marks")?;
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

    /// Folds the day and publishes it, or raises the published marks where nothing has changed.
    pub(crate) async fn compute(&mut self, layer: &BatchLayer) -> Result<DayReport> {
        self.stop.check()?;
        let venue = layer.venue(&self.venue).await?;
        if venue.calendar != self.calendar {
            return Err(Error::CutChanged);
        }
        let layout = venue.layout_on(self.request.day).clone();
        let inputs = Inputs {
            layout: layout.fingerprint(),
            definitions: recompute::DEFINITIONS_VERSION,
            carry_in: self.carry_in(layer).await?,
            files: self.files(),
        };
        if !self.open {
            let events = checksums(&self.archived);
            if let Some(before) = self.same_input(&inputs, &events) {
                return self.keep(layer, before, &events).await;
            }
        }
        let computed = recompute::compute(layer, self, &layout, inputs.carry_in.clone()).await?;
        // An open day's events are known only now, and so are those of a day that shares files with its neighbours.
        if let Some(before) = self.same_input(&inputs, &computed.events) {
            return self.keep(layer, before, &computed.events).await;
        }
        self.stop.check()?;
        let published = self.write_and_publish(layer, &layout, &inputs, computed).await;
        if let Err(error) = &published
            && !matches!(error, Error::Injected(_))
        {
            self.remove_own_rows(layer).await;
        }
        published
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

    fn report(&self, outcome: Outcome, reason: String) -> DayReport {
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
        let row = near
            .into_iter()
            .find(|row| row.day == day)
            .ok_or(Error::LeaseLost)?;
        if row.fence != self.lease.fence {
            return Err(Error::LeaseLost);
        }
        self.before = row.published;
        self.remove_orphans(layer).await
    }

    /// Removes rows that runs wrote who died before they could publish: their fences can never publish any more.
    async fn remove_orphans(&self, layer: &BatchLayer) -> Result<()> {
        let published = self.before.as_ref().map_or(0, |before| before.generation);
        let first = (published + 1).max(self.lease.fence.saturating_sub(ORPHANS_MAX));
        if first >= self.lease.fence {
            return Ok(());
        }
        let day = self.request.day;
        let kept = layer
            .stores()
            .venue_days
            .history(&self.venue, day)
            .await
            .doing("read the day's history")?;
        for fence in first..self.lease.fence {
            if kept.iter().all(|info| info.generation != fence) {
                self.remove_rows(layer, fence).await?;
            }
        }
        Ok(())
    }

    async fn remove_rows(&self, layer: &BatchLayer, generation: Generation) -> Result<()> {
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

    /// The counters' samples that the nearest earlier computed day hands on.
    async fn carry_in(&self, layer: &BatchLayer) -> Result<Carry> {
        let days = &layer.stores().venue_days;
        let mut to = self.request.day.prev();
        // Nearly always the day before was computed; a long pause costs a few more reads.
        for days_back in [3, 30, 300, 3_000, 30_000] {
            let from = earlier(to, days_back);
            let rows = days
                .list(&self.venue, from, to)
                .await
                .doing("read the days before")?;
            if let Some(info) = rows.into_iter().rev().find_map(|row| row.published) {
                return Ok(info.carry);
            }
            to = from.prev();
        }
        Ok(Carry::default())
    }

    /// Files of the winners: what a generation is made of.
    fn files(&self) -> Vec<ArchiveFile> {
        let mut files: Vec<ArchiveFile> = self
            .archived
            .values()
            .flat_map(|held| held.events.iter().cloned())
            .collect();
        debug_assert!(files.iter().all(|file| file.dataset == Dataset::Events));
        files.sort();
        files
    }

    /// The published generation, if it was made of just this input.
    fn same_input(&self, inputs: &Inputs, events: &BTreeMap<Kind, Checksum>) -> Option<GenerationInfo> {
        let same = |before: &&GenerationInfo| {
            before.provisional == self.open
                && before.layout == inputs.layout
                && before.definitions == inputs.definitions
                && before.calendar == self.calendar
                && before.carry_in == inputs.carry_in
                && before.files == inputs.files
                && before.events == *events
        };
        self.before
            .as_ref()
            .filter(|_| !self.request.force)
            .filter(same)
            .cloned()
    }

    /// Nothing has changed: the published generation includes everything up to the marks.
    async fn keep(
        &self,
        layer: &BatchLayer,
        before: GenerationInfo,
        events: &BTreeMap<Kind, Checksum>,
    ) -> Result<DayReport> {
        failpoint!("batch.before_publish");
        match publish::raise_marks(layer, self, &before).await? {
            Flip::Done => {}
            Flip::Lost => return Err(Error::LeaseLost),
        }
        failpoint!("batch.after_publish");
        let mut report = self.report(Outcome::Unchanged, "nothing has changed".to_owned());
        report.events = events.values().map(|sum| sum.rows).sum();
        report.rows = before.rows;
        report.sessions = before.sessions;
        Ok(report)
    }

    async fn write_and_publish(
        &self,
        layer: &BatchLayer,
        layout: &Layout,
        inputs: &Inputs,
        computed: Computed,
    ) -> Result<DayReport> {
        let (stores, day, generation) = (layer.stores(), self.request.day, self.lease.fence);
        let Computed {
            rows: aggregates,
            sessions,
            carry,
            events,
            conflicts,
            late,
        } = computed;
        let changed = match &self.before {
            None => None,
            Some(before) => {
                let all = RowFilter::default();
                let former = stores
                    .aggregates
                    .read(&self.venue, day, before.generation, &all)
                    .await;
                Some(rows::change(
                    &former.doing("read the generation before")?,
                    &aggregates,
                ))
            }
        };
        let found = self
            .live_rows(layer, inputs.layout)
            .await
            .map(|live| drift(&live, &aggregates));
        let session_count = sessions.len() as u64;
        let row_count = aggregates.len() as u64;
        stores
            .sessions
            .write(&self.venue, day, generation, sessions)
            .await
            .doing("write sessions")?;
        stores
            .aggregates
            .write(&self.venue, day, generation, aggregates)
            .await
            .doing("write aggregates")?;
        failpoint!("batch.after_rows");
        let reason = publish::reason(
            self,
            inputs.layout,
            inputs.definitions,
            &inputs.carry_in,
            &events,
            &late,
        );
        let ledger = publish::ledger(self.before.as_ref(), &events, &late);
        let late_events = ledger.events - self.before.as_ref().map_or(0, |before| before.late.events);
        let info = GenerationInfo {
            generation,
            published_at: layer.now_ms(),
            duration_ms: self.duration_ms(),
            provisional: self.open,
            lagging: self.request.lagging,
            reason: reason.clone(),
            calendar: self.calendar,
            day_start: self.cut.start,
            day_end: self.cut.end,
            layout: layout.fingerprint(),
            definitions: inputs.definitions,
            marks: self.marks.clone(),
            events,
            conflicts,
            rows: row_count,
            sessions: session_count,
            files: inputs.files.clone(),
            late: ledger,
            drift: found.clone(),
            changed: changed.clone(),
            carry,
            carry_in: inputs.carry_in.clone(),
        };
        let event_count = info.events.values().map(|sum| sum.rows).sum();
        failpoint!("batch.before_publish");
        self.stop.check()?;
        match publish::publish(layer, self, info).await? {
            Flip::Done => {}
            Flip::Lost => return Err(Error::LeaseLost),
        }
        failpoint!("batch.after_publish");
        found.iter().for_each(metrics::compared_with_live);
        let mut report = self.report(Outcome::Computed, reason);
        report.generation = Some(generation);
        report.events = event_count;
        report.rows = row_count;
        report.sessions = session_count;
        report.late_events = late_events;
        report.changed = changed;
        Ok(report)
    }

    /// What the live view shows of the day, if it was made with the same layout. A view that cannot be read costs the
    /// comparison, not the run.
    async fn live_rows(
        &self,
        layer: &BatchLayer,
        layout: u64,
    ) -> Option<std::sync::Arc<Vec<dwell_model::metrics::AggregateRow>>> {
        let view = match layer.live()?.venue(&self.venue).await {
            Ok(view) => view?,
            Err(error) => {
                tracing::warn!(venue = %self.venue, %error, "live view not read: no drift recorded");
                return None;
            }
        };
        let day = view
            .days
            .iter()
            .find(|day| day.day == self.request.day && day.layout == layout)?;
        Some(std::sync::Arc::clone(&day.rows))
    }
}

/// Why a held day was skipped.
pub(crate) const HELD: &str = "another worker holds the day";

/// What a generation is made of besides events.
#[derive(Debug)]
struct Inputs {
    layout: u64,
    definitions: u32,
    carry_in: Carry,
    files: Vec<ArchiveFile>,
}

/// Checksums of the winners that the archive holds, kinds without any left out.
fn checksums(archived: &BTreeMap<Kind, ArchivedDay>) -> BTreeMap<Kind, Checksum> {
    let sums = archived
        .iter()
        .map(|(kind, held)| (*kind, held.events_checksum()));
    sums.filter(|(_, sum)| sum.rows > 0).collect()
}

fn earlier(day: LocalDay, days: i32) -> LocalDay {
    LocalDay::from_epoch_days(day.to_epoch_days().saturating_sub(days)).unwrap_or(day)
}

/// Settles what the archive holds of a day without writing: nothing can be new, or the day is open.
pub(crate) async fn settle_without_writing(layer: &BatchLayer, day: &mut DayRun) -> Result<()> {
    day.archived = archive_day::look_up(layer, day).await?;
    Ok(())
}
