//! What a revert or an undo tells: the days, what is covered, and the numbers before and after.

use std::collections::BTreeMap;

use dwell_batch_layer::excluding::{CoveredDay, DayDifference};
use dwell_batch_layer::report::{LISTED_DAYS_MAX, RunReport};
use dwell_model::event::Kind;
use dwell_model::exclusion::Exclusion;
use dwell_model::time::{LocalDay, format_rfc3339};
use serde::Serialize;
use serde_json::{Value, json};

/// The report of a job.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    dry_run: bool,
    /// Id of the exclusion: the job that made it.
    exclusion: String,
    /// What it covers.
    covers: Value,
    /// Days that it has a part in.
    affected_days: usize,
    /// Per kind: events with a delivery that it covers.
    events: BTreeMap<Kind, u64>,
    /// Buckets over all days.
    buckets_added: u64,
    buckets_removed: u64,
    buckets_changed: u64,
    /// Day by day, the first so many.
    days: BTreeMap<LocalDay, DayEntry>,
    days_unlisted: usize,
    /// What the computing did; nothing for a dry run.
    run: Option<Value>,
}

#[derive(Debug, Default, Serialize)]
struct DayEntry {
    /// Whether it has not ended: the live view is built anew within a minute.
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<BTreeMap<Kind, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What changes; nothing for a day that is open or could not be computed.
    #[serde(flatten)]
    difference: Option<Value>,
}

impl Report {
    pub(super) fn of(exclusion: &Exclusion) -> Self {
        let scope = &exclusion.scope;
        let covers = json!({
            "sensor": scope.sensor,
            "receipt": scope.receipt,
            "from_time": scope.from.map(format_rfc3339),
            "to_time": scope.to.map(format_rfc3339),
            "received_before": scope.receipt.is_none().then(|| format_rfc3339(exclusion.made_at)),
        });
        Self {
            dry_run: false,
            exclusion: exclusion.id.clone(),
            covers,
            affected_days: exclusion.days.len(),
            events: BTreeMap::new(),
            buckets_added: 0,
            buckets_removed: 0,
            buckets_changed: 0,
            days: BTreeMap::new(),
            days_unlisted: 0,
            run: None,
        }
    }

    pub(super) fn is_dry_run(&mut self) {
        self.dry_run = true;
    }

    /// The days that were found.
    pub(super) fn covered(&mut self, found: &[CoveredDay]) {
        self.affected_days = found.len();
        for covered in found {
            for (kind, events) in &covered.events {
                *self.events.entry(*kind).or_default() += events;
            }
            if let Some(entry) = self.entry(covered.day) {
                entry.open = covered.open;
                entry.events = Some(covered.events.clone());
                entry.problem = covered.problem.clone();
            }
        }
    }

    /// What changed, or would change, in a day.
    pub(super) fn day(&mut self, day: LocalDay, difference: Option<DayDifference>) {
        if let Some(difference) = &difference {
            self.buckets_added += difference.buckets.added;
            self.buckets_removed += difference.buckets.removed;
            self.buckets_changed += difference.buckets.changed;
        }
        if let Some(entry) = self.entry(day)
            && let Some(difference) = difference
        {
            entry.open = difference.open;
            entry.difference = Some(json!({
                "buckets": difference.buckets,
                "before": difference.before,
                "after": difference.after,
                "excluded": difference.excluded,
                "restored": difference.restored,
            }));
        }
    }

    pub(super) fn ran(&mut self, run: &RunReport) {
        self.run = Some(json!({
            "computed": run.computed,
            "unchanged": run.unchanged,
            "skipped": run.skipped,
            "failed": run.failed,
            "dirty_left": run.dirty_left,
            "duration_ms": run.duration_ms,
        }));
    }

    pub(super) fn into_value(self) -> Value {
        // Texts and numbers under keys that are texts: it cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn entry(&mut self, day: LocalDay) -> Option<&mut DayEntry> {
        if self.days.len() == LISTED_DAYS_MAX && !self.days.contains_key(&day) {
            self.days_unlisted += 1;
            return None;
        }
        Some(self.days.entry(day).or_default())
    }
}
