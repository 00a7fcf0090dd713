//! Staging: each day of the wanted cut, its files beside the archive and its generation beside the published one.

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::event::Kind;
use dwell_model::exclusion;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::metrics::Carry;
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS};
use dwell_runtime::failpoint;
use dwell_storage::api::recuts::{self, CutDayInput, Recut, StagedCutDay};
use dwell_storage::api::{ArchivedDay, Flip, GenerationInfo, Lease, Marks, Projection, StagedDay, VenueDay};
use tokio_util::sync::CancellationToken;

use super::days::{Make, TwoCuts};
use super::{DAYS_MAX, Held, busy, fence_out, lease_of, release, told};
use crate::archive_day;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::{Stop, while_renewing};
use crate::parts::DaySources;
use crate::plan::marks_by_day;
use crate::recompute::DEFINITIONS_VERSION;
use crate::report::Outcome;
use crate::run::{DayRequest, DayRun};
use crate::runner::Progress;
use crate::spec::{RunSpec, What};

/// What there is of a venue.
pub(super) struct Known {
    /// Files of the former cut's days.
    pub(super) archive: BTreeMap<(LocalDay, Kind), ArchivedDay>,
    /// The venue's rows.
    pub(super) rows: BTreeMap<LocalDay, VenueDay>,
    /// Days of the wanted cut to be made.
    pub(super) days: BTreeSet<LocalDay>,
    /// Marks of the wanted cut's days.
    pub(super) marks: BTreeMap<LocalDay, Marks>,
}

/// Reads what there is of a venue.
pub(super) async fn known(layer: &BatchLayer, venue: &VenueKey, cuts: &TwoCuts) -> Result<Known> {
    let marks = marks(layer, venue, cuts).await?;
    known_with(layer, venue, cuts, marks).await
}

async fn known_with(
    layer: &BatchLayer,
    venue: &VenueKey,
    cuts: &TwoCuts,
    marks: BTreeMap<LocalDay, Marks>,
) -> Result<Known> {
    let stores = layer.stores();
    let (first, last) = LocalDay::first_and_last();
    let rows = stores.venue_days.list(venue, first, last).await;
    let rows: BTreeMap<LocalDay, VenueDay> = rows
        .doing("list the venue's days")?
        .into_iter()
        .map(|row| (row.day, row))
        .collect();
    let archived = stores
        .archive
        .days(venue)
        .await
        .doing("list the archive's days")?;
    // A day may have superseded rows alone; then it has a generation, too.
    let published = rows.values().filter(|row| row.published.is_some());
    let known: BTreeSet<LocalDay> = archived
        .into_iter()
        .map(|(day, _)| day)
        .chain(published.map(|row| row.day))
        .collect();
    let mut archive = BTreeMap::new();
    for &day in &known {
        for kind in Kind::ALL {
            let held = stores.archive.day(venue, kind, day).await;
            let held = held.doing("look a day up in the archive")?;
            if !held.is_empty() {
                archive.insert((day, kind), held);
            }
        }
    }
    let today = cuts.to.day_of(cuts.now);
    let mut days = cuts.days(known);
    days.extend(marks.keys().copied().filter(|day| *day < today));
    Ok(Known {
        archive,
        rows,
        days,
        marks,
    })
}

async fn marks(layer: &BatchLayer, venue: &VenueKey, cuts: &TwoCuts) -> Result<BTreeMap<LocalDay, Marks>> {
    let slots = layer.stores().raw.marked_slots(venue, MIN_TS..MAX_TS).await;
    let slots = slots.doing("read the marks")?;
    let mut marks: BTreeMap<LocalDay, Marks> = BTreeMap::new();
    for (day, of_day) in marks_by_day(&cuts.to, &slots) {
        marks.entry(day).or_default().merge(&of_day);
    }
    Ok(marks)
}

/// Staging a venue's days.
pub(super) struct Staging<'a> {
    pub(super) held: &'a Held,
    pub(super) number: u64,
    pub(super) cuts: TwoCuts,
    pub(super) known: Known,
    venue: Venue,
    reason: Option<String>,
    progress: Progress<'a>,
}

/// All days, staged.
pub(super) struct Staged {
    pub(super) days: BTreeMap<LocalDay, StagedCutDay>,
    pub(super) taken_over: u64,
}

impl<'a> Staging<'a> {
    /// Brings the archive of the former cut up to date and reads what there is. The marks are read before, so that what
    /// is staged never claims more than it includes.
    pub(super) async fn new(
        held: &'a Held,
        recut: &Recut,
        reason: Option<&str>,
        progress: Progress<'a>,
    ) -> Result<Self> {
        let layer = &held.layer;
        fence_out(layer, &held.venue, &held.stop, progress).await?;
        failpoint!("recut.after_fences");
        let cuts = TwoCuts {
            from: recut.from,
            to: recut.to,
            now: layer.now_ms(),
        };
        let marks = marks(layer, &held.venue, &cuts).await?;
        archive_former_days(held, progress).await?;
        failpoint!("recut.after_archive");
        let known = known_with(layer, &held.venue, &cuts, marks).await?;
        if known.days.len() > DAYS_MAX {
            return Err(Error::Recut(format!(
                "the venue has {} days; at most {DAYS_MAX} are cut anew at once",
                known.days.len()
            )));
        }
        Ok(Self {
            held,
            number: recut.number,
            cuts,
            known,
            venue: layer.venue(&held.venue).await?,
            reason: reason.map(str::to_owned),
            progress,
        })
    }

    /// Stages all days, in order: a day's counters start from what the day before hands on.
    pub(super) async fn all(&self) -> Result<Staged> {
        let mut staged = Staged {
            days: BTreeMap::new(),
            taken_over: 0,
        };
        let mut carry = Carry::default();
        let total = self.known.days.len();
        for (done, &day) in self.known.days.iter().enumerate() {
            (self.progress)(told(done, total, &format!("{} {day}", self.venue.id)));
            let held = self.held;
            let place = (done, total);
            let lease = lease_of(&held.layer, &held.venue, day, &held.stop, self.progress, place).await?;
            let leases = vec![(lease.clone(), held.stop.clone())];
            let outcome = while_renewing(&held.layer, leases, self.day(&lease, &mut carry)).await;
            if !matches!(outcome, Err(Error::Injected(_))) {
                release(&held.layer, &lease).await;
            }
            let (of_day, is_taken_over) = outcome?;
            staged.taken_over += u64::from(is_taken_over);
            staged.days.insert(day, of_day);
            failpoint!("recut.after_day");
        }
        Ok(staged)
    }

    /// Stages a day, or takes over what an earlier try staged.
    async fn day(&self, lease: &Lease, carry: &mut Carry) -> Result<(StagedCutDay, bool)> {
        let (held, day) = (self.held, lease.day);
        let layer = &held.layer;
        let make = self.make(day).await?;
        let mut run = DayRun::of_cut(
            layer,
            lease.clone(),
            self.cuts.to,
            self.known.marks.get(&day).cloned().unwrap_or_default(),
            make == Make::Provisional,
            held.stop.clone(),
        )
        .await?;
        run.request.reason.clone_from(&self.reason);
        let made_of = self.input(&run);
        let former = self.known.rows.get(&day).and_then(|row| row.published.as_ref());
        let documents = layer.stores().documents.as_ref();
        let earlier = recuts::staged_day(documents, &held.venue, day)
            .await
            .doing("read what was staged of a day")?;
        if let Some(earlier) = earlier.map(|stored| stored.value) {
            let is_same = earlier.number == self.number && earlier.made_of == made_of;
            if is_same && let Some(handed_on) = self.stands(&earlier, former, make, carry, day).await? {
                if let Some(handed_on) = handed_on {
                    *carry = handed_on;
                }
                return Ok((earlier, true));
            }
            clear(layer, lease, &earlier, former).await?;
        }
        let mut files = Vec::new();
        for kind in Kind::ALL {
            held.stop.check()?;
            if let Some(staged) = self.kind(&run, kind).await? {
                files.push(staged);
            }
        }
        failpoint!("recut.after_files");
        run.archived = files
            .iter()
            .filter(|staged| !staged.holds.is_empty())
            .map(|staged| (staged.kind, staged.holds.clone()))
            .collect();
        let staged = StagedCutDay {
            number: self.number,
            fence: lease.fence,
            has_generation: make != Make::Files,
            made_of,
            files,
        };
        // Before the generation: what is staged of it is found again by this.
        let stands = recuts::write_staged_day(documents, &held.venue, day, &staged).await;
        if stands.doing("write down what was staged of a day")?.as_ref() != Some(&staged) {
            return Err(Error::LeaseLost);
        }
        failpoint!("recut.before_generation");
        if staged.has_generation {
            let info = run.compute_staged(layer, carry.clone(), former).await?;
            failpoint!("recut.after_rows");
            let handed_on = info.carry.clone();
            let flip = layer.stores().venue_days.stage(lease, info).await;
            if flip.doing("stage a generation")? == Flip::Lost {
                return Err(Error::LeaseLost);
            }
            *carry = handed_on;
        }
        Ok((staged, false))
    }

    /// What is made of a day. Where raw has nothing of the part that belongs to a former day which goes on, all that there
    /// is of the day is in the archive.
    async fn make(&self, day: LocalDay) -> Result<Make> {
        let make = self.cuts.make(day);
        if make != Make::Provisional {
            return Ok(make);
        }
        let open = self.cuts.in_raw_alone(day);
        let counted = self.held.layer.stores().raw.count(&self.held.venue, open).await;
        let rows: u64 = counted
            .doing("count raw events")?
            .iter()
            .map(|(_, rows)| rows)
            .sum();
        Ok(if rows == 0 { Make::Final } else { make })
    }

    /// What a day is to be made of.
    fn input(&self, run: &DayRun) -> CutDayInput {
        let day = run.request.day;
        let mut sources: Vec<String> = Vec::new();
        for source in self.cuts.sources(day).into_iter().chain([day]) {
            for kind in Kind::ALL {
                let held = self.known.archive.get(&(source, kind));
                let files = held
                    .iter()
                    .flat_map(|held| held.events.iter().chain(&held.superseded));
                sources.extend(files.map(|file| file.path.clone()));
            }
        }
        sources.sort();
        sources.dedup();
        CutDayInput {
            sources,
            layout: self.venue.layout_on(day).fingerprint(),
            definitions: DEFINITIONS_VERSION,
            exclusions: exclusion::fingerprint(exclusion::bearing(&run.venue_exclusions, day)),
            in_force: exclusion::fingerprint(&run.venue_exclusions),
            erasures: run.erasures.number(),
            marks: run.marks.clone(),
        }
    }

    /// Whether what an earlier try staged of a day is there as it was written down; what it hands on to the next day,
    /// if it has a generation.
    async fn stands(
        &self,
        earlier: &StagedCutDay,
        former: Option<&GenerationInfo>,
        make: Make,
        carry: &Carry,
        day: LocalDay,
    ) -> Result<Option<Option<Carry>>> {
        let (held, stores) = (self.held, self.held.layer.stores());
        // Events of raw alone may have come since, below the same marks.
        if make == Make::Provisional || earlier.has_generation != (make == Make::Final) {
            return Ok(None);
        }
        let published = former.map_or(0, |info| info.generation);
        let mut handed_on = None;
        if earlier.has_generation {
            let kept = stores.venue_days.history(&held.venue, day).await;
            let kept = kept.doing("read the day's history")?;
            let Some(info) = kept.into_iter().find(|info| info.generation == earlier.fence) else {
                return Ok(None);
            };
            let rows = stores.aggregates.count(&held.venue, day, info.generation).await;
            if info.provisional
                || info.generation <= published
                || info.calendar != self.cuts.to
                || info.carry_in != *carry
                || rows.doing("count staged rows")? != info.rows
            {
                return Ok(None);
            }
            handed_on = Some(info.carry);
        }
        for staged in &earlier.files {
            let now = self.known.archive.get(&(day, staged.kind));
            if now.cloned().unwrap_or_default() != staged.replaces {
                return Ok(None);
            }
            let whole = stores.archive.verify(&held.venue, &staged.holds).await;
            if whole.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(handed_on))
    }

    /// Writes a kind of a day beside the archive; `None` where there is and was nothing of it.
    async fn kind(&self, run: &DayRun, kind: Kind) -> Result<Option<StagedDay>> {
        let day = run.request.day;
        let archived: Vec<ArchivedDay> = self
            .cuts
            .sources(day)
            .into_iter()
            .filter_map(|source| self.known.archive.get(&(source, kind)).cloned())
            .collect();
        if archived.is_empty() && !self.known.archive.contains_key(&(day, kind)) {
            return Ok(None);
        }
        archive_day::replace(run, &self.sources(run, kind, archived))
            .await
            .map(Some)
    }

    /// Archived rows within a day's bounds.
    pub(super) fn sources<'r>(
        &'r self,
        run: &'r DayRun,
        kind: Kind,
        archived: Vec<ArchivedDay>,
    ) -> DaySources<'r> {
        DaySources {
            layer: &self.held.layer,
            venue: &self.held.venue,
            day: run.request.day,
            kind,
            range: run.range(),
            raw_rows: 0,
            archived,
            erasures: &run.erasures,
            projection: Projection::EventsAndDeliveries,
        }
    }
}

/// Writes what raw has of the former cut's closed days into their archive: from then on each of their events is there.
async fn archive_former_days(held: &Held, progress: Progress<'_>) -> Result<()> {
    let spec = RunSpec {
        include_open: false,
        ..RunSpec::all_dirty(What::Archive)
    };
    let days: Vec<LocalDay> = held
        .layer
        .plan_venue(&held.venue, &spec)
        .await?
        .into_iter()
        .map(|planned| planned.day)
        .collect();
    let cancel = CancellationToken::new();
    let mut done = 0;
    for group in days.chunks(held.layer.config().group_days) {
        held.stop.check()?;
        progress(told(done, days.len(), "archiving what is in raw"));
        let requests = group.iter().map(|&day| DayRequest {
            archive_only: true,
            ..DayRequest::recompute(day)
        });
        for report in held
            .layer
            .run_group(&held.venue, requests.collect(), &cancel)
            .await
        {
            if report.outcome != Outcome::Archived {
                let what = format!("{} cannot be archived: {}", report.day, report.reason);
                return Err(match report.retryable {
                    true => busy(what),
                    false => Error::Recut(what),
                });
            }
        }
        done += group.len();
    }
    Ok(())
}

/// Takes away what was staged of a day and not published, under its lease.
pub(super) async fn clear(
    layer: &BatchLayer,
    lease: &Lease,
    staged: &StagedCutDay,
    published: Option<&GenerationInfo>,
) -> Result<()> {
    let (stores, venue, day) = (layer.stores(), &lease.venue, lease.day);
    let published = published.map_or(0, |info| info.generation);
    if staged.has_generation && staged.fence > published {
        let forgotten = stores.venue_days.forget(lease, &[staged.fence]).await;
        if forgotten.doing("forget a staged generation")? == Flip::Lost {
            return Err(Error::LeaseLost);
        }
        stores
            .aggregates
            .delete(venue, day, staged.fence)
            .await
            .doing("remove staged aggregates")?;
        stores
            .sessions
            .delete(venue, day, staged.fence)
            .await
            .doing("remove staged sessions")?;
    }
    archive_day::discard(layer, staged.files.clone()).await;
    settle(layer, venue, day, staged).await
}

/// Writes down that nothing of a day is staged any more.
pub(super) async fn settle(
    layer: &BatchLayer,
    venue: &VenueKey,
    day: LocalDay,
    staged: &StagedCutDay,
) -> Result<()> {
    let settled = StagedCutDay {
        has_generation: false,
        files: Vec::new(),
        ..staged.clone()
    };
    let documents = layer.stores().documents.as_ref();
    recuts::write_staged_day(documents, venue, day, &settled)
        .await
        .doing("write down what was staged of a day")?;
    Ok(())
}

/// Takes away all that recuts up to a number staged.
pub(super) async fn clear_all(layer: &BatchLayer, venue: &VenueKey, number: u64) -> Result<()> {
    let (first, last) = LocalDay::first_and_last();
    let rows = layer.stores().venue_days.list(venue, first, last).await;
    let stop = Stop::under(&CancellationToken::new());
    for row in rows.doing("list the venue's days")? {
        let documents = layer.stores().documents.as_ref();
        let staged = recuts::staged_day(documents, venue, row.day)
            .await
            .doing("read what was staged of a day")?;
        let is_ours = |staged: &StagedCutDay| {
            staged.number <= number && (staged.has_generation || !staged.files.is_empty())
        };
        let Some(staged) = staged.map(|stored| stored.value).filter(is_ours) else {
            continue;
        };
        let lease = lease_of(layer, venue, row.day, &stop, &|_| {}, (0, 0)).await?;
        let cleared = clear(layer, &lease, &staged, row.published.as_ref()).await;
        release(layer, &lease).await;
        cleared?;
    }
    Ok(())
}
