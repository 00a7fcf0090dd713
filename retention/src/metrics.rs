//! What this crate counts.

use dwell_model::event::Kind;
use dwell_runtime::telemetry::{MetricDef, Unit};

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    ROWS_REMOVED,
    SESSIONS_REMOVED,
    GENERATIONS_REMOVED,
    ROWS_RESTORED,
    DAYS_KEPT,
];

const ROWS_REMOVED: MetricDef = MetricDef::counter(
    "dwell_retention_raw_rows_removed_total",
    Unit::Count,
    "Raw rows removed because they were old and proven archived, by kind.",
);
const SESSIONS_REMOVED: MetricDef = MetricDef::counter(
    "dwell_retention_sessions_removed_total",
    Unit::Count,
    "Sessions removed because they were old.",
);
const GENERATIONS_REMOVED: MetricDef = MetricDef::counter(
    "dwell_retention_generations_removed_total",
    Unit::Count,
    "Generations removed that were no longer published and old.",
);
const ROWS_RESTORED: MetricDef = MetricDef::counter(
    "dwell_restored_raw_rows_total",
    Unit::Count,
    "Deliveries of raw rows written back from the archive, by kind.",
);
const DAYS_KEPT: MetricDef = MetricDef::gauge(
    "dwell_retention_days_kept",
    Unit::Count,
    "Venue-days old enough to be swept whose archive is in doubt, as of the tenant's last retention job.",
);

pub(crate) fn rows_removed(kind: Kind, rows: u64) {
    metrics::counter!(ROWS_REMOVED.name, "kind" => kind.name()).increment(rows);
}

pub(crate) fn sessions_removed(sessions: u64) {
    metrics::counter!(SESSIONS_REMOVED.name).increment(sessions);
}

pub(crate) fn generations_removed(generations: u64) {
    metrics::counter!(GENERATIONS_REMOVED.name).increment(generations);
}

pub(crate) fn rows_restored(kind: Kind, deliveries: u64) {
    metrics::counter!(ROWS_RESTORED.name, "kind" => kind.name()).increment(deliveries);
}

/// Tells how many days of a tenant stay because their archive is in doubt: somebody has to look at it.
pub fn days_in_doubt(tenant: &str, days: u64) {
    metrics::gauge!(DAYS_KEPT.name, "tenant" => tenant.to_owned()).set(days as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_house() {
        let problems: Vec<String> = DEFINITIONS.iter().filter_map(MetricDef::problem).collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
}
