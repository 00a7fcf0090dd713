//! Recut: a venue's days cut anew under a corrected time zone or day start, and published in one flip.
//!
//! ```text
//! wish ─▶ keep everybody else from the venue's days ─▶ archive what raw has of the former cut's days
//!      ─▶ each day of the new cut: files beside the archive (from the former days' files), generation staged
//!      ─▶ proof: what the new files hold is what the old ones held, each event once
//!      ─▶ decided ─▶ the registry's venue gets the new cut: THE FLIP ─▶ one commit per dataset swaps the archive's files
//!      ─▶ each day's pointer and place in the feed ─▶ done
//! ```
//!
//! Until the flip readers cut time by the registry's calendar and see its generations; staged ones have another. After
//! it they see the staged ones, whether or not a day's own pointer follows yet ([`recuts::list_under`]). What was decided
//! is gone on with by whoever comes; before that a death leaves staged days, which the next try takes over where they
//! are still what it would make.
//!
//! Late events are no concern of the job: their marks lie above those of the staged generations, so their days are dirty
//! after the flip as they would have been before it.

pub mod days;
mod flip;
mod prove;
mod stage;

use std::convert::Infallible;
use std::time::Duration;

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use dwell_runtime::failpoint;
use dwell_storage::api::periods::ClosedPeriods;
use dwell_storage::api::recuts::{self, Asked, Recut, RecutPhase, Wish};
use dwell_storage::api::{Generation, JobProgress, Lease};
use dwell_storage::error::{ErrorKind, StorageError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::days::TwoCuts;
use self::stage::Staging;
use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::runner::Progress;

/// Distance between two tries for what somebody else holds.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// Most days of a recut: their list is one document.
const DAYS_MAX: usize = 10_000;

/// How a recut ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecutOutcome {
    /// The new cut is published.
    Flipped,
    /// The venue has that cut already; an earlier wish for another was taken back.
    Unchanged,
    /// A newer wish took its place.
    Superseded,
    /// It was taken back before.
    Withdrawn,
}

/// What a recut did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecutReport {
    /// How it ended.
    pub outcome: RecutOutcome,
    /// Its number.
    pub number: u64,
    /// The former cut.
    pub from: VenueCalendar,
    /// The wanted one.
    pub to: VenueCalendar,
    /// Days of the wanted cut that were staged, or are to be.
    pub days: u64,
    /// The first and the last of them.
    pub first: Option<LocalDay>,
    /// See `first`.
    pub last: Option<LocalDay>,
    /// Those of them that an earlier try had staged.
    pub taken_over: u64,
    /// Archived events, each of which was proven to be in one day of the wanted cut. Of a dry run: archived events.
    pub events: u64,
    /// Days whose archive somebody else had changed after the decision: united with what was staged.
    pub united: u64,
}

impl RecutReport {
    fn of(recut: &Recut, outcome: RecutOutcome) -> Self {
        Self {
            outcome,
            number: recut.number,
            from: recut.from,
            to: recut.to,
            days: 0,
            first: None,
            last: None,
            taken_over: 0,
            events: 0,
            united: 0,
        }
    }

    fn naming(mut self, days: impl IntoIterator<Item = LocalDay>) -> Self {
        for day in days {
            self.days += 1;
            self.first.get_or_insert(day);
            self.last = Some(day);
        }
        self
    }
}

impl BatchLayer {
    /// Cuts a venue's days anew, as a wish says, and publishes them in one flip. `Cancelled` leaves everything to the next
    /// try of the same wish; [`withdraw_recut`](Self::withdraw_recut) takes it back as long as it is not decided. An
    /// [`Error::Recut`] has taken it back. Doing it twice changes nothing.
    pub async fn recut(
        &self,
        venue: &VenueKey,
        wish: &Wish,
        reason: Option<&str>,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<RecutReport> {
        let recut = loop {
            match self.ask(venue, wish).await? {
                Asked::New(recut) | Asked::Standing(recut) => break recut,
                Asked::Superseded(recut) => {
                    return Ok(RecutReport {
                        to: wish.to,
                        ..RecutReport::of(&recut, RecutOutcome::Superseded)
                    });
                }
                Asked::Flipping(earlier) => {
                    let published = self.publish_recut(venue, &earlier, progress, cancel).await?;
                    if earlier.to == wish.to {
                        return Ok(published);
                    }
                }
            }
        };
        match recut.phase {
            RecutPhase::Withdrawn { .. } => Ok(RecutReport::of(&recut, RecutOutcome::Withdrawn)),
            RecutPhase::Done { .. } => Ok(RecutReport::of(&recut, RecutOutcome::Flipped)),
            RecutPhase::Flipping { .. } => self.publish_recut(venue, &recut, progress, cancel).await,
            RecutPhase::Asked | RecutPhase::Staging { .. } => {
                let staged = self.stage_recut(venue, &recut, reason, progress, cancel).await;
                if let Err(Error::Recut(why)) = &staged {
                    self.withdraw_recut(venue, recut.number, why).await?;
                }
                let Some((decided, report)) = staged? else {
                    return Ok(RecutReport::of(&recut, RecutOutcome::Unchanged));
                };
                let published = self.publish_recut(venue, &decided, progress, cancel).await?;
                Ok(RecutReport {
                    outcome: RecutOutcome::Flipped,
                    united: published.united,
                    ..report
                })
            }
        }
    }

    /// What a recut would work on now. Writes nothing.
    pub async fn plan_recut(&self, venue: &VenueKey, to: VenueCalendar) -> Result<RecutReport> {
        let from = self.venue(venue).await?.calendar;
        let cuts = TwoCuts {
            from,
            to,
            now: self.now_ms(),
        };
        let known = stage::known(self, venue, &cuts).await?;
        let mut plan = RecutReport {
            outcome: match from == to {
                true => RecutOutcome::Unchanged,
                false => RecutOutcome::Flipped,
            },
            number: 0,
            from,
            to,
            days: 0,
            first: None,
            last: None,
            taken_over: 0,
            events: known
                .archive
                .values()
                .map(|held| held.events_checksum().rows)
                .sum(),
            united: 0,
        };
        if from != to {
            self.refuse_closed(venue).await?;
            plan = plan.naming(known.days);
        }
        Ok(plan)
    }

    /// Takes a recut back that is not decided, with what was staged for it; one that is decided stays. Whether it is
    /// withdrawn.
    pub async fn withdraw_recut(&self, venue: &VenueKey, number: u64, why: &str) -> Result<bool> {
        let documents = self.stores().documents.as_ref();
        let stands = recuts::withdraw(documents, venue, number, self.now_ms(), why)
            .await
            .doing("withdraw the recut")?;
        let is_withdrawn = stands.is_some_and(|recut| {
            recut.number == number && matches!(recut.phase, RecutPhase::Withdrawn { .. })
        });
        if is_withdrawn {
            // Nobody is kept from the days any more, and nothing staged can be published; it only takes room.
            if let Err(error) = stage::clear_all(self, venue, number).await {
                tracing::warn!(%venue, %error, "staged days are left to the days' next runs");
            }
        }
        Ok(is_withdrawn)
    }

    async fn ask(&self, venue: &VenueKey, wish: &Wish) -> Result<Asked> {
        let published = self.venue(venue).await?.calendar;
        let wish = Wish {
            from: published,
            ..wish.clone()
        };
        recuts::ask(self.stores().documents.as_ref(), venue, &wish)
            .await
            .doing("write the wish for a recut down")
    }

    /// Stages all days and decides; `None` where the venue has the cut already.
    async fn stage_recut(
        &self,
        venue: &VenueKey,
        recut: &Recut,
        reason: Option<&str>,
        progress: Progress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Option<(Recut, RecutReport)>> {
        let published = self.venue(venue).await?.calendar;
        if published == recut.to {
            self.withdraw_recut(venue, recut.number, "the venue has that cut already")
                .await?;
            return Ok(None);
        }
        if published != recut.from {
            return Err(Error::Recut(
                "the venue's time zone or day start was written by somebody else: apply the file again"
                    .to_owned(),
            ));
        }
        self.refuse_closed(venue).await?;
        let holder = self.new_holder();
        let held = Held {
            layer: self.under(holder.clone()),
            venue: venue.clone(),
            number: recut.number,
            holder,
            stop: Stop::under(cancel),
        };
        held.begin(progress).await?;
        let work = async {
            let staging = Staging::new(&held, recut, reason, progress).await?;
            let staged = staging.all().await?;
            progress(told(staged.days.len(), staged.days.len(), "proving"));
            let events = prove::prove(&held, &staging, &staged).await?;
            failpoint!("recut.before_decision");
            self.refuse_closed(venue).await?;
            held.stop.check()?;
            let days: Vec<(LocalDay, Generation)> = staged
                .days
                .iter()
                .map(|(day, staged)| (*day, staged.fence))
                .collect();
            let decided = recuts::decide(
                self.stores().documents.as_ref(),
                venue,
                recut.number,
                &held.holder,
                self.now_ms(),
                &days,
            )
            .await
            .doing("decide the recut")?;
            let decided = decided.filter(|stands| {
                stands.number == recut.number && matches!(stands.phase, RecutPhase::Flipping { .. })
            });
            let Some(decided) = decided else {
                return Err(held.lost());
            };
            failpoint!("recut.after_decision");
            let mut report =
                RecutReport::of(&decided, RecutOutcome::Flipped).naming(staged.days.keys().copied());
            report.events = events;
            report.taken_over = staged.taken_over;
            Ok((decided, report))
        };
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            never = held.renew_for_ever() => match never {},
        };
        if let Err(error) = &outcome
            && !matches!(error, Error::Injected(_))
        {
            held.pause().await;
        }
        outcome.map(Some)
    }

    /// The numbers of a closed period are not to change without approval, and a recut changes all.
    async fn refuse_closed(&self, venue: &VenueKey) -> Result<()> {
        let documents = self.stores().documents.as_ref();
        let closed = ClosedPeriods::read(documents, &venue.tenant)
            .await
            .doing("read the closed periods")?;
        if closed.is_empty() {
            return Ok(());
        }
        let (first, last) = LocalDay::first_and_last();
        let rows = self.stores().venue_days.list(venue, first, last).await;
        let is_closed = |row: &dwell_storage::api::VenueDay| {
            row.published.as_ref().is_some_and(|info| !info.provisional) && closed.close(venue, row.day)
        };
        match rows
            .doing("list the venue's days")?
            .iter()
            .find(|row| is_closed(row))
        {
            Some(row) => Err(Error::Recut(format!(
                "{} is in a closed period, and another time zone or day start changes the numbers of all days: open the \
                 period (dwell periods open), have the days cut anew, close it again",
                row.day
            ))),
            None => Ok(()),
        }
    }
}

/// The right to be alone with a venue's days.
pub(crate) struct Held {
    /// Takes leases under the holder's name.
    pub(crate) layer: BatchLayer,
    pub(crate) venue: VenueKey,
    number: u64,
    holder: String,
    pub(crate) stop: Stop,
}

impl Held {
    /// Waits until nobody else is at it.
    async fn begin(&self, progress: Progress<'_>) -> Result<()> {
        loop {
            self.stop.check()?;
            let stands = self.extend().await?;
            match stands {
                Some(stands) if stands.is_staged_by(&self.holder) => return Ok(()),
                Some(stands)
                    if stands.number == self.number && matches!(stands.phase, RecutPhase::Staging { .. }) => {
                }
                _ => return Err(self.lost()),
            }
            progress(told(0, 0, "waits for another worker's try to end"));
            self.layer.clock().sleep(TRY_AGAIN).await;
        }
    }

    async fn extend(&self) -> Result<Option<Recut>> {
        let layer = &self.layer;
        let now = layer.now_ms();
        recuts::begin_staging(
            layer.stores().documents.as_ref(),
            &self.venue,
            self.number,
            &self.holder,
            now,
            now.saturating_add(layer.config().lease_ttl.as_ms()),
        )
        .await
        .doing("keep others from the venue's days")
    }

    async fn renew_for_ever(&self) -> Infallible {
        let pause = self.layer.config().lease_ttl.as_duration() / 3;
        loop {
            self.layer.clock().sleep(pause).await;
            match self.extend().await {
                Ok(Some(stands)) if stands.is_staged_by(&self.holder) => {}
                // Decided by this very try, which is ending.
                Ok(Some(stands))
                    if stands.number == self.number
                        && matches!(stands.phase, RecutPhase::Flipping { .. }) => {}
                Ok(_) => self.stop.lose(),
                Err(error) => tracing::warn!(venue = %self.venue, %error, "recut not renewed"),
            }
        }
    }

    /// Lets others to the days until the next try.
    async fn pause(&self) {
        let documents = self.layer.stores().documents.as_ref();
        if let Err(error) = recuts::pause_staging(documents, &self.venue, self.number, &self.holder).await {
            tracing::warn!(venue = %self.venue, %error, "the venue's days are kept from others until the lease ends");
        }
    }

    /// Somebody else has the recut now, or it was taken back: the next try finds out.
    fn lost(&self) -> Error {
        busy("another worker goes on with the recut, or it was taken back".to_owned())
    }
}

/// What passes by itself: the next try finds out.
fn busy(what: String) -> Error {
    Error::Storage {
        doing: "cut days anew",
        source: StorageError::new(ErrorKind::Busy, what),
    }
}

/// Takes the lease of a day, waiting for as long as somebody holds it: nobody takes it anew.
async fn lease_of(
    layer: &BatchLayer,
    venue: &VenueKey,
    day: LocalDay,
    stop: &Stop,
    progress: Progress<'_>,
    (done, total): (usize, usize),
) -> Result<Lease> {
    let holder = layer.new_holder();
    let ttl_ms = layer.config().lease_ttl.as_ms();
    loop {
        stop.check()?;
        let days = &layer.stores().venue_days;
        let taken = days.acquire(venue, day, &holder, layer.now_ms(), ttl_ms).await;
        if let Some(lease) = taken.doing("take the lease")? {
            return Ok(lease);
        }
        progress(told(
            done,
            total,
            &format!("waits for {day}, which another worker holds"),
        ));
        layer.clock().sleep(TRY_AGAIN).await;
    }
}

/// Raises the fence of every day that was ever leased: who held a lease, run out or not, can publish no more.
async fn fence_out(layer: &BatchLayer, venue: &VenueKey, stop: &Stop, progress: Progress<'_>) -> Result<()> {
    let (first, last) = LocalDay::first_and_last();
    let rows = layer.stores().venue_days.list(venue, first, last).await;
    let rows = rows.doing("list the venue's days")?;
    for (done, row) in rows.iter().enumerate() {
        let lease = lease_of(layer, venue, row.day, stop, progress, (done, rows.len())).await?;
        release(layer, &lease).await;
    }
    Ok(())
}

async fn release(layer: &BatchLayer, lease: &Lease) {
    if let Err(error) = layer.stores().venue_days.release(lease).await {
        tracing::warn!(venue = %lease.venue, day = %lease.day, %error, "lease not given back");
    }
}

fn told(done: usize, total: usize, doing: &str) -> JobProgress {
    JobProgress {
        done: done as u64,
        total: total as u64,
        doing: doing.to_owned(),
    }
}

/// The instant of a decision.
fn decided_at(recut: &Recut) -> TsMs {
    match recut.phase {
        RecutPhase::Flipping { at, .. } => at,
        _ => recut.asked_at,
    }
}
