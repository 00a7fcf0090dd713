//! Proposals: what is computed for a closed day, and how it is published once somebody approves it.
//!
//! ```text
//! closed day, other input ─▶ rows under the fence ─▶ proposal document (replaces an older one, whose rows go)
//! approve ─▶ nothing has changed since? ─▶ its rows again under a new fence ─▶ the usual flip ─▶ approved
//! ```
//!
//! The flip is conditional on the fence of the lease, and a proposal's fence has passed; so approving copies its rows
//! under the number of a new one. The document says before the flip which number that is: whoever finds it after a
//! death knows from the day's published generation whether it happened.

use dwell_model::exclusion;
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_runtime::failpoint;
use dwell_storage::api::periods::{self, ClosedPeriods, Proposal, ProposalState};
use dwell_storage::api::{
    Flip, Generation, GenerationInfo, RowFilter, SessionCursor, StoredSession, VenueDay,
};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::while_renewing;
use crate::publish;
use crate::recompute::DEFINITIONS_VERSION;
use crate::report::{DayReport, Outcome};
use crate::run::{Begun, DayRequest, DayRun};
use crate::spec::What;

/// Sessions copied at a time.
const SESSIONS_AT_ONCE: usize = 5_000;

impl BatchLayer {
    /// Publishes the proposed generation of a closed day, if it is still what a run would compute, and the one that was
    /// looked at where `generation` says which. `Failed` with what to do otherwise. Doing it twice changes nothing.
    pub async fn approve_day(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Option<Generation>,
        by: &str,
        cancel: &CancellationToken,
    ) -> DayReport {
        let run = match DayRun::begin(self, venue, DayRequest::recompute(day), cancel).await {
            Ok(Begun::Run(run)) => run,
            Ok(Begun::Skip(report)) => return report,
            Err(error) => return DayReport::of_failure(venue, day, What::Recompute, &error),
        };
        let leases = vec![(run.lease.clone(), run.stop.clone())];
        match while_renewing(self, leases, approve(self, &run, generation, by)).await {
            Ok(report) => {
                run.release(self).await;
                report
            }
            Err(error) => {
                run.end(self, &error).await;
                run.failed_report(&error)
            }
        }
    }

    /// Lets a closed day with a proposal count as what is proposed: equal input is no reason to compute it again. What
    /// it hands on to the next day stays that of the published generation.
    pub(crate) async fn count_proposals(&self, venue: &VenueKey, days: &mut [VenueDay]) -> Result<()> {
        let documents = self.stores().documents.as_ref();
        let closed = ClosedPeriods::read(documents, &venue.tenant)
            .await
            .doing("read the closed periods")?;
        if closed.is_empty() {
            return Ok(());
        }
        let proposals = periods::proposals(documents, venue).await;
        for proposal in proposals.doing("read the proposed generations")? {
            let Ok(place) = days.binary_search_by_key(&proposal.day, |row| row.day) else {
                continue;
            };
            let published = &mut days[place].published;
            if closed.close(venue, proposal.day) && proposal.stands_beside(published.as_ref()) {
                let carry = published.take().map(|info| info.carry).unwrap_or_default();
                *published = Some(GenerationInfo {
                    carry,
                    ..proposal.info
                });
            }
        }
        Ok(())
    }
}

impl DayRun {
    /// Reads whether the day is closed, and what was proposed for it.
    pub(crate) async fn read_proposal(&mut self, layer: &BatchLayer) -> Result<()> {
        let documents = layer.stores().documents.as_ref();
        self.closed = self.is_closed(layer).await?;
        let proposal = periods::proposal(documents, &self.venue, self.request.day).await;
        let proposal = proposal.doing("read the proposed generation")?;
        self.proposal = proposal.map(|stored| stored.value).filter(Proposal::is_open);
        Ok(())
    }

    /// Whether the day is closed now.
    pub(crate) async fn is_closed(&self, layer: &BatchLayer) -> Result<bool> {
        // What has never been final is not protected by a closing.
        if self.before.as_ref().is_none_or(|before| before.provisional) {
            return Ok(false);
        }
        let closed = ClosedPeriods::read(layer.stores().documents.as_ref(), &self.venue.tenant).await;
        let closed = closed.doing("read the closed periods")?;
        Ok(closed.close(&self.venue, self.request.day))
    }

    /// The proposal, where a run of the closed day goes on from it: its rows must be there.
    pub(crate) async fn standing_proposal(&self, layer: &BatchLayer) -> Result<Option<&Proposal>> {
        let stands = |proposal: &&Proposal| self.closed && proposal.stands_beside(self.before.as_ref());
        let Some(proposal) = self.proposal.as_ref().filter(stands) else {
            return Ok(None);
        };
        let aggregates = &layer.stores().aggregates;
        let rows = aggregates
            .count(&self.venue, self.request.day, proposal.info.generation)
            .await
            .doing("count the proposed rows")?;
        Ok((rows == proposal.info.rows).then_some(proposal))
    }

    /// The input is what the proposal was made of: its marks include everything now.
    pub(crate) async fn keep_proposal(&self, layer: &BatchLayer, proposal: &Proposal) -> Result<DayReport> {
        let generation = proposal.info.generation;
        let raised = periods::change_proposal(
            layer.stores().documents.as_ref(),
            &self.venue,
            self.request.day,
            generation,
            |proposal| proposal.info.marks.merge(&self.marks),
        );
        raised.await.doing("raise the marks of the proposal")?;
        let reason = format!("generation {generation} is proposed and waits for approval");
        let mut report = self.report(Outcome::Unchanged, reason);
        report.rows = proposal.info.rows;
        report.sessions = proposal.info.sessions;
        Ok(report)
    }

    /// Stores a generation, whose rows are written, as the day's proposal.
    pub(crate) async fn propose(&self, layer: &BatchLayer, info: GenerationInfo) -> Result<DayReport> {
        let documents = layer.stores().documents.as_ref();
        let base = self.before.as_ref().map_or(0, |before| before.generation);
        let (generation, changed) = (info.generation, info.changed.clone());
        let reason = format!(
            "the day is closed: generation {generation} is proposed ({})",
            info.reason
        );
        let mut report = self.report(Outcome::Proposed, reason);
        report.events = info.events.values().map(|sum| sum.rows).sum();
        report.rows = info.rows;
        report.sessions = info.sessions;
        report.changed = changed;
        let proposal = Proposal {
            day: self.request.day,
            state: ProposalState::Pending,
            base,
            info,
        };
        failpoint!("batch.before_propose");
        self.check_fence(layer).await?;
        // Whether it was stored is unknown after a failure: its rows stay, and the next run looks.
        let stands = periods::propose(documents, &self.venue, &proposal)
            .await
            .map_err(|source| match source.kind().is_retryable() {
                true => Error::OutcomeUnknown { source },
                false => Error::Storage {
                    doing: "store the proposed generation",
                    source,
                },
            })?;
        if stands.is_none_or(|stands| stands.value.info.generation != generation) {
            return Err(Error::LeaseLost);
        }
        failpoint!("batch.after_propose");
        if let Some(former) = &self.proposal
            && let Err(error) = self.remove_rows(layer, former.info.generation).await
        {
            tracing::warn!(venue = %self.venue, day = %self.request.day, %error, "rows of a replaced proposal not removed");
        }
        Ok(report)
    }

    /// Takes a proposal back that nothing is left of: the day's published generation has its input again, or the day was
    /// opened and computed anew.
    pub(crate) async fn withdraw_proposal(&self, layer: &BatchLayer) -> Result<()> {
        let Some(proposal) = &self.proposal else {
            return Ok(());
        };
        let generation = proposal.info.generation;
        let (published, at) = (
            self.before.as_ref().map(|before| before.generation),
            layer.now_ms(),
        );
        let withdrawn = periods::change_proposal(
            layer.stores().documents.as_ref(),
            &self.venue,
            self.request.day,
            generation,
            |proposal| {
                // Who approved it died after the flip.
                proposal.state = match &proposal.state {
                    ProposalState::Approving { generation, by } if published == Some(*generation) => {
                        let (generation, by) = (*generation, by.clone());
                        ProposalState::Approved { generation, at, by }
                    }
                    _ => ProposalState::Withdrawn,
                };
            },
        );
        withdrawn.await.doing("withdraw the proposed generation")?;
        self.remove_rows(layer, generation).await
    }

    /// The same once another generation is published: what fails is done by the day's next run.
    pub(crate) async fn withdraw_proposal_if_possible(&self, layer: &BatchLayer) {
        if let Err(error) = self.withdraw_proposal(layer).await {
            tracing::warn!(venue = %self.venue, day = %self.request.day, %error, "proposal not withdrawn");
        }
    }
}

async fn approve(
    layer: &BatchLayer,
    run: &DayRun,
    wanted: Option<Generation>,
    by: &str,
) -> Result<DayReport> {
    let day = run.request.day;
    let documents = layer.stores().documents.as_ref();
    let refuse = |why: String| Err(Error::NotApproved(why));
    let stored = periods::proposal(documents, &run.venue, day)
        .await
        .doing("read the proposed generation")?;
    let Some(proposal) = stored.map(|stored| stored.value) else {
        return refuse("nothing is proposed for the day".to_owned());
    };
    let proposed = proposal.info.generation;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != proposed) {
        return refuse(format!(
            "generation {proposed} is proposed now, not {wanted}: look at it, then approve it"
        ));
    }
    let published = run.before.as_ref().map(|before| before.generation);
    match &proposal.state {
        ProposalState::Pending => {}
        ProposalState::Approved { generation, .. } => return Ok(approved(run, *generation, &proposal)),
        // Who began to approve it died: before the flip, or after.
        ProposalState::Approving { generation, by } if published == Some(*generation) => {
            finish(layer, run, &proposal, *generation, by).await?;
            return Ok(approved(run, *generation, &proposal));
        }
        ProposalState::Approving { .. } => {}
        ProposalState::Withdrawn => {
            return refuse(
                "the proposal was withdrawn: the published generation has its input again".to_owned(),
            );
        }
    }
    if let Some(why) = stale(layer, run, &proposal).await? {
        return refuse(format!(
            "the proposal is stale, since {why}: recompute the day for a new one (dwell jobs run recompute --venue {} \
             --from {day} --to {day}), look at it, then approve that",
            run.venue.venue
        ));
    }
    let generation = run.lease.fence;
    copy_rows(layer, run, &proposal.info).await?;
    let begun = periods::change_proposal(documents, &run.venue, day, proposed, |proposal| {
        let by = by.to_owned();
        proposal.state = ProposalState::Approving { generation, by };
    });
    begun.await.doing("begin to approve the proposal")?;
    failpoint!("batch.before_approve");
    run.stop.check()?;
    let info = GenerationInfo {
        generation,
        published_at: layer.now_ms(),
        reason: format!(
            "{} (proposed as generation {proposed}, approved)",
            proposal.info.reason
        ),
        ..proposal.info.clone()
    };
    match publish::publish(layer, run, info).await? {
        Flip::Done => {}
        Flip::Lost => return Err(Error::LeaseLost),
    }
    failpoint!("batch.after_approve");
    finish(layer, run, &proposal, generation, by).await?;
    Ok(approved(run, generation, &proposal))
}

/// Writes down that a proposal is published, and removes the rows under its own number.
async fn finish(
    layer: &BatchLayer,
    run: &DayRun,
    proposal: &Proposal,
    generation: Generation,
    by: &str,
) -> Result<()> {
    let at = layer.now_ms();
    let done = periods::change_proposal(
        layer.stores().documents.as_ref(),
        &run.venue,
        run.request.day,
        proposal.info.generation,
        |proposal| {
            let by = by.to_owned();
            proposal.state = ProposalState::Approved { generation, at, by };
        },
    );
    done.await.doing("write down the approval")?;
    run.remove_rows(layer, proposal.info.generation).await
}

fn approved(run: &DayRun, generation: Generation, proposal: &Proposal) -> DayReport {
    let reason = format!(
        "the proposed generation {} is published as generation {generation}",
        proposal.info.generation
    );
    let mut report = run.report(Outcome::Computed, reason);
    report.generation = Some(generation);
    report.events = proposal.info.events.values().map(|sum| sum.rows).sum();
    report.rows = proposal.info.rows;
    report.sessions = proposal.info.sessions;
    report.changed = proposal.info.changed.clone();
    report
}

/// Why a run would compute something else than the proposal now; `None` when it would not.
async fn stale(layer: &BatchLayer, run: &DayRun, proposal: &Proposal) -> Result<Option<&'static str>> {
    let info = &proposal.info;
    let marks = layer.stores().raw.marks(&run.venue, run.range()).await;
    let marks = marks.doing("read the marks")?;
    let venue = layer.venue(&run.venue).await?;
    let layout = venue.layout_on(run.request.day).fingerprint();
    let in_force = layer.exclusions(&run.venue).await?;
    let exclusions = exclusion::fingerprint(exclusion::bearing(&in_force, run.request.day));
    let checks = [
        (
            !proposal.stands_beside(run.before.as_ref()),
            "another generation was published",
        ),
        (marks.exceed(&info.marks), "more events came"),
        (
            exclusions != info.exclusions.fingerprint,
            "other deliveries are excluded",
        ),
        (layout != info.layout, "the layout was changed"),
        (
            DEFINITIONS_VERSION != info.definitions,
            "the metric definitions were changed",
        ),
        (
            venue.calendar != info.calendar,
            "the time zone or day start was changed",
        ),
        (
            run.carry_in(layer).await? != info.carry_in,
            "the counters carried in were changed",
        ),
    ];
    Ok(checks.into_iter().find_map(|(holds, why)| holds.then_some(why)))
}

/// Stores a proposal's rows and sessions once more, under the run's fence.
async fn copy_rows(layer: &BatchLayer, run: &DayRun, from: &GenerationInfo) -> Result<()> {
    let (stores, venue, day) = (layer.stores(), &run.venue, run.request.day);
    let rows = stores
        .aggregates
        .read(venue, day, from.generation, &RowFilter::default())
        .await
        .doing("read the proposed rows")?;
    if rows.len() as u64 != from.rows {
        return Err(Error::NotApproved(format!(
            "of {} proposed rows {} are there: recompute the day for a new proposal",
            from.rows,
            rows.len()
        )));
    }
    let mut sessions: Vec<StoredSession> = Vec::new();
    loop {
        run.stop.check()?;
        let after = sessions.last().map(|last| SessionCursor {
            start: last.session.start,
            id: last.id.clone(),
        });
        let page = stores
            .sessions
            .list(venue, day, from.generation, after.as_ref(), SESSIONS_AT_ONCE)
            .await
            .doing("read the proposed sessions")?;
        let is_last = page.len() < SESSIONS_AT_ONCE;
        sessions.extend(page);
        if is_last {
            break;
        }
    }
    let generation = run.lease.fence;
    stores
        .sessions
        .write(venue, day, generation, sessions)
        .await
        .doing("write sessions")?;
    stores
        .aggregates
        .write(venue, day, generation, rows)
        .await
        .doing("write aggregates")?;
    failpoint!("batch.after_approved_rows");
    Ok(())
}
