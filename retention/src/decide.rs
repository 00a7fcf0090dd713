//! From what is known of a venue to what goes: a plan, the comparisons that it asks for, and the mark.

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use dwell_runtime::failpoint;
use tokio_util::sync::CancellationToken;

use crate::engine::Retention;
use crate::error::{Doing, Error, Result};
use crate::facts::{ArchiveProof, DayFacts, Policy};
use crate::marks::{self, MARKED_DAYS_MAX, Mark};
use crate::plan::{DayPlan, KeepReason, Plan, plan};

/// What to do about days that nobody has compared with the archive since they last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparing {
    /// Leave them: a plan says that they wait for it.
    No,
    /// Compare, and remember nothing: a dry run.
    Look,
    /// Compare under the day's lease, and remember the result.
    Prove,
}

/// What was decided about a venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The plan over the days that are old enough for something.
    pub plan: Plan,
    /// Days that are too young for everything.
    pub young: u64,
    /// When the first of them will be old enough, unless something touches it.
    pub next_due_at: Option<TsMs>,
    /// Days that could not be compared because another worker holds them.
    pub busy: Vec<LocalDay>,
    /// The last day that was looked at, where there are more than one time takes: go on after it.
    pub through: Option<LocalDay>,
}

impl Retention {
    /// Decides what of a venue may go at `now`, of its days after `after`, [`MARKED_DAYS_MAX`] at a time. `tell` is told
    /// each day that is compared, with how many are done and to do.
    pub async fn decide(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        policy: &Policy,
        now: TsMs,
        after: Option<LocalDay>,
        comparing: Comparing,
        tell: &(dyn Fn(u64, u64, LocalDay) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Decided> {
        let survey = self.survey(venue, calendar, policy, now).await?;
        let (mut days, mut busy) = (survey.days, Vec::new());
        days.retain(|day| after.is_none_or(|after| day.day > after));
        let more = days.len() > MARKED_DAYS_MAX;
        days.truncate(MARKED_DAYS_MAX);
        if comparing != Comparing::No {
            let asked = to_compare(policy, now, &days);
            let total = asked.len();
            for (done, place) in asked.into_iter().enumerate() {
                let day = days[place].day;
                tell(done as u64, total as u64, day);
                let proof = match comparing {
                    Comparing::Look => Some(self.compare_day(venue, calendar, day, cancel).await?),
                    _ => match self.prove(venue, calendar, day, cancel).await {
                        // Somebody else has the day now.
                        Err(Error::LeaseLost { .. }) => None,
                        proof => proof?,
                    },
                };
                match proof {
                    Some(proof) => days[place].archive = ArchiveProof::from(&proof),
                    None => {
                        days[place].archive = ArchiveProof::Unverified;
                        busy.push(day);
                    }
                }
            }
        }
        Ok(Decided {
            plan: plan(policy, now, &days),
            young: survey.young,
            next_due_at: survey.next_due_at,
            busy,
            through: days.last().filter(|_| more).map(|last| last.day),
        })
    }

    /// Decides, compares what has to be, and stores the result as the venue's mark. `before` is the job's mark before it,
    /// where the venue has more days than one mark takes: it is gone on after.
    pub async fn mark(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        policy: &Policy,
        now: TsMs,
        before: Option<&Mark>,
        job: &str,
        tell: &(dyn Fn(u64, u64, LocalDay) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<(Mark, Decided)> {
        let after = before.and_then(|before| before.through);
        let decided = self
            .decide(
                venue,
                calendar,
                policy,
                now,
                after,
                Comparing::Prove,
                tell,
                cancel,
            )
            .await?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let days = &decided.plan.days;
        let going = days.iter().filter(|day| day.deletes());
        let kept: Vec<_> = days.iter().filter(|day| is_kept(day)).cloned().collect();
        let mut tally = before.map(Mark::so_far).unwrap_or_default();
        tally.plan(&decided.plan.totals, &kept);
        for &day in &decided.busy {
            tally.trouble(venue, day, "another worker holds the day");
        }
        let mark = Mark {
            job: job.to_owned(),
            // Compared with the times of marks.
            made_at: self.raw_now_ms().await?,
            now,
            policy: policy.clone(),
            through: decided.through,
            days: going.cloned().collect(),
            kept,
            totals: decided.plan.totals,
            done: 0,
            finished_at: None,
            tally: Some(tally),
        };
        failpoint!("retention.before_mark");
        let documents = &*self.stores().documents;
        marks::put(documents, &venue.tenant, &venue.venue, &mark)
            .await
            .doing("store the mark")?;
        failpoint!("retention.after_mark");
        Ok((mark, decided))
    }
}

/// The places of the days that only a comparison keeps from being decided: never made, outdated, or with a result that
/// may be another by now.
fn to_compare(policy: &Policy, now: TsMs, days: &[DayFacts]) -> Vec<usize> {
    let doubted = |facts: &DayFacts| {
        let mut facts = facts.clone();
        let is_proven = matches!(&facts.archive, ArchiveProof::Verified { raw, found, .. } if raw == found);
        if !is_proven {
            facts.archive = ArchiveProof::Unverified;
        }
        facts
    };
    let days: Vec<DayFacts> = days.iter().map(doubted).collect();
    let planned = plan(policy, now, &days).days;
    let asking = planned.iter().enumerate().filter(|(_, day)| day.compares());
    asking.map(|(place, _)| place).collect()
}

/// Whether a day that is old enough stays, or part of it, for a reason that somebody may want to look at.
fn is_kept(day: &DayPlan) -> bool {
    day.reasons()
        .any(|reason| !matches!(reason, KeepReason::TooYoung { .. }))
}
