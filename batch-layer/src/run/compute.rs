//! Computing one day: from its archived (or, while it is open, raw) events to the flip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dwell_model::event::{Checksum, Kind};
use dwell_model::exclusion;
use dwell_model::layout::Layout;
use dwell_model::metrics::{AggregateRow, Carry, DaySlices};
use dwell_model::time::LocalDay;
use dwell_runtime::failpoint;
use dwell_storage::api::{
    AppliedExclusions, ArchiveFile, ArchivedDay, Drift, Flip, GenerationInfo, LateLedger, RowFilter,
    exclusions,
};

use super::DayRun;
use crate::drift::drift;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::plan::Cause;
use crate::recompute::{self, Computed};
use crate::report::{DayReport, Outcome};
use crate::{metrics, publish, rows};

impl DayRun {
    /// Folds the day and publishes it, or raises the published marks where nothing has changed.
    pub(crate) async fn compute(&mut self, layer: &BatchLayer) -> Result<DayReport> {
        self.stop.check()?;
        let venue = layer.venue(&self.venue).await?;
        if venue.calendar != self.calendar {
            return Err(Error::CutChanged);
        }
        let layout = venue.layout_on(self.request.day).clone();
        let bearing: BTreeSet<String> = exclusion::bearing(&self.venue_exclusions, self.request.day)
            .map(|exclusion| exclusion.id.clone())
            .collect();
        let mut inputs = Inputs {
            layout: layout.fingerprint(),
            definitions: recompute::DEFINITIONS_VERSION,
            carry_in: self.carry_in(layer).await?,
            files: Vec::new(),
            exclusions: AppliedExclusions::default(),
            slices: DaySlices::of(&self.cut, &layout),
        };
        self.apply(&mut inputs, &bearing);
        if !self.open {
            // With exclusions the events that count are known only later, but they follow from the files.
            let events = bearing.is_empty().then(|| checksums(&self.archived));
            if let Some(kept) = self.keep_what_stands(layer, &inputs, events.as_ref()).await? {
                return Ok(kept);
            }
        }
        let computed = recompute::compute(layer, self, &layout, inputs.carry_in.clone()).await?;
        let found = self.write_down_exclusions(layer, &bearing, &computed).await?;
        self.apply(&mut inputs, &found);
        inputs.exclusions.excluded = computed.excluded.events.clone();
        inputs.exclusions.restored = computed.excluded.restored;
        // An open day's events are known only now, and so are those of a day that shares files with its neighbours.
        if let Some(kept) = self
            .keep_what_stands(layer, &inputs, Some(&computed.events))
            .await?
        {
            return Ok(kept);
        }
        self.stop.check()?;
        // Rows whose generation may be published stay: a later run removes them if it is not.
        let published = self.write_and_publish(layer, &layout, &inputs, computed).await;
        if let Err(error) = &published
            && !matches!(error, Error::Injected(_) | Error::OutcomeUnknown { .. })
        {
            self.remove_own_rows(layer).await;
        }
        published
    }

    /// Folds a day of another cut and stores what it comes to under the lease's fence, published nowhere. `former` is
    /// what is published of the day, to be compared with.
    pub(crate) async fn compute_staged(
        &mut self,
        layer: &BatchLayer,
        carry_in: Carry,
        former: Option<&GenerationInfo>,
    ) -> Result<GenerationInfo> {
        let venue = layer.venue(&self.venue).await?;
        let layout = venue.layout_on(self.request.day).clone();
        let bearing: BTreeSet<String> = exclusion::bearing(&self.venue_exclusions, self.request.day)
            .map(|exclusion| exclusion.id.clone())
            .collect();
        let computed = recompute::compute(layer, self, &layout, carry_in.clone()).await?;
        let found = self.write_down_exclusions(layer, &bearing, &computed).await?;
        let mut inputs = Inputs {
            layout: layout.fingerprint(),
            definitions: recompute::DEFINITIONS_VERSION,
            carry_in,
            files: Vec::new(),
            exclusions: AppliedExclusions::default(),
            slices: DaySlices::of(&self.cut, &layout),
        };
        self.apply(&mut inputs, &found);
        inputs.exclusions.excluded = computed.excluded.events.clone();
        inputs.exclusions.restored = computed.excluded.restored;
        self.stop.check()?;
        let outcome = Replacing {
            former,
            drift: None,
            late: LateLedger::default(),
            reason: match (&self.request.reason, former) {
                (None, None) => Cause::NeverComputed.to_string(),
                (None, Some(_)) => Cause::CutChanged.to_string(),
                (Some(asked), _) => format!("{} (asked for: {asked})", Cause::CutChanged),
            },
        };
        self.write(layer, &layout, &inputs, computed, outcome).await
    }

    /// The counters' samples that the nearest earlier computed day hands on.
    pub(crate) async fn carry_in(&self, layer: &BatchLayer) -> Result<Carry> {
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

    /// Says in a day's inputs which exclusions are applied, by id.
    fn apply(&self, inputs: &mut Inputs, bearing: &BTreeSet<String>) {
        let applied = self
            .venue_exclusions
            .iter()
            .filter(|known| bearing.contains(&known.id));
        inputs.exclusions.fingerprint = exclusion::fingerprint(applied);
        inputs.exclusions.jobs = bearing.iter().cloned().collect();
        inputs.files = self.files(!bearing.is_empty());
    }

    /// Writes down the day with exclusions that were found to cover a delivery of it and did not know: a redelivery of
    /// an excluded receipt may bring events of other days, and a resumed import some that were received before.
    /// Returns all that have a part in the day.
    async fn write_down_exclusions(
        &self,
        layer: &BatchLayer,
        bearing: &BTreeSet<String>,
        computed: &Computed,
    ) -> Result<BTreeSet<String>> {
        let (documents, day) = (&layer.stores().documents, self.request.day);
        for id in computed.excluded.by.difference(bearing) {
            exclusions::add_days(&**documents, &self.venue.tenant, id, &[day], false)
                .await
                .doing("write a day down with its exclusion")?;
        }
        Ok(bearing.union(&computed.excluded.by).cloned().collect())
    }

    /// Files that a generation is made of: those of the winners, and with exclusions those of what they superseded.
    fn files(&self, with_superseded: bool) -> Vec<ArchiveFile> {
        let of_day = |held: &ArchivedDay| -> Vec<ArchiveFile> {
            let superseded = held.superseded.iter().filter(|_| with_superseded);
            held.events.iter().chain(superseded).cloned().collect()
        };
        let mut files: Vec<ArchiveFile> = self.archived.values().flat_map(of_day).collect();
        files.sort();
        files
    }

    /// Leaves the published generation as it is, or the proposed one, if it was made of just this input; `None` for
    /// events that follow from the rest.
    async fn keep_what_stands(
        &self,
        layer: &BatchLayer,
        inputs: &Inputs,
        events: Option<&BTreeMap<Kind, Checksum>>,
    ) -> Result<Option<DayReport>> {
        if self.request.force {
            return Ok(None);
        }
        let same = |before: &&GenerationInfo| {
            before.provisional == self.open
                && before.layout == inputs.layout
                && before.definitions == inputs.definitions
                && before.calendar == self.calendar
                && before.carry_in == inputs.carry_in
                && before.files == inputs.files
                // One from before there were slices has all of them where the layout declares none.
                && before.slices.clone().unwrap_or_default() == inputs.slices
                && before.exclusions.fingerprint == inputs.exclusions.fingerprint
                && events.is_none_or(|events| before.events == *events)
        };
        if let Some(before) = self.before.as_ref().filter(same) {
            let report = self.keep(layer, before.clone()).await?;
            self.withdraw_proposal(layer).await?;
            return Ok(Some(report));
        }
        match self
            .standing_proposal(layer)
            .await?
            .filter(|proposal| same(&&proposal.info))
        {
            Some(proposal) => Ok(Some(self.keep_proposal(layer, proposal).await?)),
            None => Ok(None),
        }
    }

    /// Nothing has changed: the published generation includes everything up to the marks.
    async fn keep(&self, layer: &BatchLayer, before: GenerationInfo) -> Result<DayReport> {
        failpoint!("batch.before_publish");
        match publish::raise_marks(layer, self, &before).await? {
            Flip::Done => {}
            Flip::Lost => return Err(Error::LeaseLost),
        }
        failpoint!("batch.after_publish");
        let mut report = self.report(Outcome::Unchanged, "nothing has changed".to_owned());
        report.events = before.events.values().map(|sum| sum.rows).sum();
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
        let reason = publish::reason(self, inputs, &computed.events, &computed.late);
        let exclusions_changed = publish::exclusions_changed(self, inputs);
        let before = self.before.as_ref();
        let ledger = publish::ledger(before, &computed.events, &computed.late, exclusions_changed);
        let late_events = ledger.events - before.map_or(0, |before| before.late.events);
        let found = self
            .live_rows(layer, inputs.layout)
            .await
            .map(|live| drift(&live, &computed.rows));
        let replacing = Replacing {
            former: before,
            drift: found.clone(),
            late: ledger,
            reason: reason.clone(),
        };
        let info = self.write(layer, layout, inputs, computed, replacing).await?;
        let (generation, changed) = (info.generation, info.changed.clone());
        let (row_count, session_count) = (info.rows, info.sessions);
        let event_count = info.events.values().map(|sum| sum.rows).sum();
        // Looked at once more: a group of days computes for minutes, and whoever closed a period since was told that it is.
        if self.closed || self.is_closed(layer).await? {
            let mut report = self.propose(layer, info).await?;
            report.late_events = late_events;
            return Ok(report);
        }
        failpoint!("batch.before_publish");
        self.stop.check()?;
        match publish::publish(layer, self, info).await? {
            Flip::Done => {}
            Flip::Lost => return Err(Error::LeaseLost),
        }
        failpoint!("batch.after_publish");
        self.withdraw_proposal_if_possible(layer).await;
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

    /// Stores a generation's sessions and rows under the lease's fence, and says what it is.
    async fn write(
        &self,
        layer: &BatchLayer,
        layout: &Layout,
        inputs: &Inputs,
        computed: Computed,
        replacing: Replacing<'_>,
    ) -> Result<GenerationInfo> {
        let (stores, day, generation) = (layer.stores(), self.request.day, self.lease.fence);
        let Computed {
            rows: aggregates,
            sessions,
            carry,
            events,
            conflicts,
            late: _,
            excluded: _,
        } = computed;
        let changed = match replacing.former {
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
        Ok(GenerationInfo {
            generation,
            published_at: layer.now_ms(),
            duration_ms: self.duration_ms(),
            provisional: self.open,
            lagging: self.request.lagging,
            reason: replacing.reason,
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
            late: replacing.late,
            drift: replacing.drift,
            changed,
            carry,
            carry_in: inputs.carry_in.clone(),
            exclusions: inputs.exclusions.clone(),
            slices: Some(inputs.slices.clone()),
        })
    }

    /// What the live view shows of the day, if it was made with the same layout. A view that cannot be read costs the
    /// comparison, not the run.
    async fn live_rows(&self, layer: &BatchLayer, layout: u64) -> Option<Arc<Vec<AggregateRow>>> {
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
        Some(Arc::clone(&day.rows))
    }
}

/// What a generation says of the one that it replaces.
struct Replacing<'a> {
    /// The one whose rows it is compared with.
    former: Option<&'a GenerationInfo>,
    drift: Option<Drift>,
    late: LateLedger,
    reason: String,
}

/// What a generation is made of besides events.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) layout: u64,
    pub(crate) definitions: u32,
    pub(crate) carry_in: Carry,
    pub(crate) files: Vec<ArchiveFile>,
    pub(crate) exclusions: AppliedExclusions,
    pub(crate) slices: DaySlices,
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
