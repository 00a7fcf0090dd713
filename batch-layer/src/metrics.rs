//! What this crate counts.

use dwell_runtime::telemetry::{MetricDef, Unit};

use crate::report::{DayReport, Outcome};

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    DAYS,
    EVENTS,
    DAY_SECONDS,
    LATE_EVENTS,
    DRIFTING_BUCKETS,
    COMPARED_BUCKETS,
    LEASES_LOST,
    ARCHIVE_COMMITS,
    ARCHIVED_DAYS,
    NIGHTS_WAITING,
    NIGHTS_LATE,
    NIGHT_FAILURES,
];

const DAYS: MetricDef = MetricDef::counter(
    "dwell_batch_days_total",
    Unit::Count,
    "Venue-days worked on, by what and by outcome (computed, unchanged, archived, verified, skipped, failed).",
);
const EVENTS: MetricDef = MetricDef::counter(
    "dwell_batch_events_total",
    Unit::Count,
    "Events folded into published generations; a day computed again counts again.",
);
const DAY_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_batch_day_seconds",
    Unit::Seconds,
    "Time from taking a venue-day's lease to its outcome, by what was done.",
);
const LATE_EVENTS: MetricDef = MetricDef::counter(
    "dwell_batch_late_events_total",
    Unit::Count,
    "Events that were received after their day had been published, found by the recompute that includes them.",
);
const DRIFTING_BUCKETS: MetricDef = MetricDef::counter(
    "dwell_batch_drifting_buckets_total",
    Unit::Count,
    "Buckets in which the live view differed from the batch result when it was published.",
);
const COMPARED_BUCKETS: MetricDef = MetricDef::counter(
    "dwell_batch_compared_buckets_total",
    Unit::Count,
    "Buckets in which the live view was compared with the batch result.",
);
const LEASES_LOST: MetricDef = MetricDef::counter(
    "dwell_batch_leases_lost_total",
    Unit::Count,
    "Leases that another worker took while a day was being worked on.",
);
const ARCHIVE_COMMITS: MetricDef = MetricDef::counter(
    "dwell_batch_archive_commits_total",
    Unit::Count,
    "Commits to the archive; one may hold many days.",
);
const ARCHIVED_DAYS: MetricDef = MetricDef::counter(
    "dwell_batch_archived_days_total",
    Unit::Count,
    "Days and kinds that were written to the archive and committed.",
);
const NIGHTS_WAITING: MetricDef = MetricDef::gauge(
    "dwell_batch_nights_waiting",
    Unit::Count,
    "Venues whose last closed day is not done yet: waiting for the raw writer, held elsewhere, or failed.",
);
const NIGHTS_LATE: MetricDef = MetricDef::gauge(
    "dwell_batch_nights_late",
    Unit::Count,
    "Venues whose last closed day is not done though its numbers must be there: past ready_by, or past its opening.",
);
const NIGHT_FAILURES: MetricDef = MetricDef::counter(
    "dwell_batch_night_failures_total",
    Unit::Count,
    "Nights of a venue that could not be planned or had days that failed; they are tried again.",
);

pub(crate) fn day_done(report: &DayReport) {
    let (what, outcome) = (report.what.word(), report.outcome.word());
    metrics::counter!(DAYS.name, "what" => what, "outcome" => outcome).increment(1);
    if report.outcome == Outcome::Computed {
        metrics::counter!(EVENTS.name).increment(report.events);
        metrics::counter!(LATE_EVENTS.name).increment(report.late_events);
    }
    if report.outcome != Outcome::Skipped {
        let seconds = report.duration_ms as f64 / 1_000.0;
        metrics::histogram!(DAY_SECONDS.name, "what" => what).record(seconds);
    }
}

pub(crate) fn compared_with_live(drift: &dwell_storage::api::Drift) {
    metrics::counter!(COMPARED_BUCKETS.name).increment(drift.buckets);
    metrics::counter!(DRIFTING_BUCKETS.name).increment(drift.differing);
}

pub(crate) fn lease_lost() {
    metrics::counter!(LEASES_LOST.name).increment(1);
}

pub(crate) fn archive_committed(days: u64) {
    metrics::counter!(ARCHIVE_COMMITS.name).increment(1);
    metrics::counter!(ARCHIVED_DAYS.name).increment(days);
}

pub(crate) fn nights_waiting(count: usize) {
    metrics::gauge!(NIGHTS_WAITING.name).set(count as f64);
}

pub(crate) fn nights_late(count: usize) {
    metrics::gauge!(NIGHTS_LATE.name).set(count as f64);
}

pub(crate) fn night_failed() {
    metrics::counter!(NIGHT_FAILURES.name).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_follow_the_rules() {
        let problems: Vec<_> = DEFINITIONS.iter().filter_map(MetricDef::problem).collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
}
