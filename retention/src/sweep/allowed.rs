//! What of a marked day may go still, when its turn has come: a mark may be hours old by then, and what it followed may
//! have changed.

use std::collections::BTreeSet;

use dwell_model::event::Kind;
use dwell_model::time::{LocalDay, TsMs, format_rfc3339};
use dwell_storage::api::Generation;

use super::{DaySwept, Sweeper, removes_raw};
use crate::error::{Doing, Result};
use crate::holds;
use crate::plan::{DayPlan, Verdict, old_enough_at};

/// What of a marked day may go still.
pub(super) struct Going {
    pub(super) day: LocalDay,
    /// Kinds of raw rows.
    pub(super) kinds: Vec<Kind>,
    pub(super) sessions: bool,
    /// What was to go by the mark, and is too young by now.
    pub(super) too_young: Option<String>,
}

impl Sweeper<'_> {
    /// Why people forbid to go on with some days. Cheap, and asked again before each window of rows.
    pub(super) async fn forbidden(&self, days: &[LocalDay]) -> Result<Option<String>> {
        let holds = holds::standing(&*self.retention.stores().documents, &self.venue.tenant)
            .await
            .doing("read the holds")?;
        let now = self.retention.now_ms();
        let covers = |hold: &holds::Hold| days.iter().any(|&day| hold.covers(&self.venue.venue, day));
        if let Some(hold) = holds.iter().find(|hold| hold.is_in_force(now) && covers(hold)) {
            return Ok(Some(format!("a legal hold forbids it: {}", hold.reason)));
        }
        let policy = self.retention.policy(self.venue, self.default).await?;
        let changed =
            "the retention policy was changed while the day was swept: what is left waits for the next job";
        Ok((policy != self.policy).then(|| changed.to_owned()))
    }

    /// What of a marked day may go still; or why nothing of it may, whatever its mark says.
    pub(super) async fn going(&self, plan: &DayPlan) -> Result<Result<Going, String>> {
        let stores = self.retention.stores();
        let day = plan.day;
        if let Some(why) = self.forbidden(&[day]).await? {
            return Ok(Err(why));
        }
        let (start, end) = self.calendar.bounds(day);
        let marks = stores
            .raw
            .marks(self.venue, start..end)
            .await
            .doing("read the marks")?;
        let row = stores.venue_days.get(self.venue, day).await;
        let published = row
            .doing("read the published generation")?
            .and_then(|row| row.published);
        let Some(info) = published else {
            return Ok(Err("it was never computed".to_owned()));
        };
        if info.provisional {
            return Ok(Err("its generation is provisional".to_owned()));
        }
        if marks.exceed(&info.marks) || info.calendar != *self.calendar {
            return Ok(Err(
                "something came after it was computed: recompute it".to_owned()
            ));
        }
        let times = stores.raw.marked_at(self.venue, start..end).await;
        let times = times.doing("read the times of marks")?;
        let last_mark_at = times.into_iter().map(|(_, at)| at).max();
        if last_mark_at.is_some_and(|at| at > self.mark.made_at) {
            return Ok(Err(
                "something touched it after it was marked: its age counts from then".to_owned(),
            ));
        }
        let last_mark_at = last_mark_at.unwrap_or(info.published_at);
        let mut until = TsMs::MIN;
        let mut is_old = |keep_ms: i64| {
            let old_at = old_enough_at(end, Some(last_mark_at), keep_ms);
            let is_old = old_at <= self.mark.now;
            if !is_old {
                until = until.max(old_at);
            }
            is_old
        };
        let kinds = removes_raw(plan)
            .filter(|&kind| is_old(self.policy.raw_ms_of(kind)))
            .collect();
        let sessions = matches!(plan.sessions, Verdict::Delete { .. }) && is_old(self.policy.sessions_ms);
        let too_young = (until > TsMs::MIN).then(|| {
            format!(
                "not old enough any more, by the policy in force or because it was touched: until {}",
                format_rfc3339(until)
            )
        });
        Ok(Ok(Going {
            day,
            kinds,
            sessions,
            too_young,
        }))
    }

    /// Those of some old generations that the policy in force lets go too, where it keeps them for longer than the mark's.
    pub(super) async fn still_old(
        &self,
        day: LocalDay,
        due: Vec<Generation>,
        swept: &mut DaySwept,
    ) -> Result<Vec<Generation>> {
        let keep_ms = self.policy.generations_ms;
        if due.is_empty() || keep_ms <= self.mark.policy.generations_ms {
            return Ok(due);
        }
        let history = self.retention.stores().venue_days.history(self.venue, day).await;
        let history = history.doing("read the day's history")?;
        // Newest first: each one was replaced by the one before it in the list.
        let replaced = history.windows(2);
        let young: BTreeSet<Generation> = replaced
            .filter(|pair| pair[0].published_at.saturating_add(keep_ms) > self.mark.now)
            .map(|pair| pair[1].generation)
            .collect();
        let (stay, go): (Vec<_>, Vec<_>) = due.into_iter().partition(|number| young.contains(number));
        if !stay.is_empty() {
            swept.stay(format!(
                "{} old generations stay: the policy in force keeps them for longer than when they were marked",
                stay.len()
            ));
        }
        Ok(go)
    }
}
