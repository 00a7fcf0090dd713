//! What is measured of backups: from what the installation remembers of them, whichever process took them.

use dwell_model::time::TsMs;
use dwell_runtime::telemetry::{MetricDef, Unit};

use super::state::BackupState;

/// The last backup.
const BACKUP_LAST_SUCCESS: MetricDef = MetricDef::gauge(
    "dwell_backup_last_success_timestamp_seconds",
    Unit::Seconds,
    "The moment that the last backup shows, seconds since 1970; 0 when there was none.",
);
const BACKUP_AGE: MetricDef = MetricDef::gauge(
    "dwell_backup_age_seconds",
    Unit::Seconds,
    "Time since the moment that the last backup shows; not there before the first.",
);
const BACKUP_DURATION: MetricDef = MetricDef::gauge(
    "dwell_backup_duration_seconds",
    Unit::Seconds,
    "How long the last backup took.",
);
const BACKUP_BYTES: MetricDef = MetricDef::gauge(
    "dwell_backup_bytes",
    Unit::Bytes,
    "Length of what the last backup holds, before it was compressed.",
);
const BACKUP_OBJECTS: MetricDef = MetricDef::gauge(
    "dwell_backup_objects",
    Unit::Count,
    "Objects of the last backup: all, and those that no earlier one had.",
);
/// The last drill.
const DRILL_LAST_SUCCESS: MetricDef = MetricDef::gauge(
    "dwell_backup_drill_last_success_timestamp_seconds",
    Unit::Seconds,
    "When a backup was last restored into a scratch folder and found good, seconds since 1970; 0 when never.",
);
const DRILL_DURATION: MetricDef = MetricDef::gauge(
    "dwell_backup_drill_duration_seconds",
    Unit::Seconds,
    "How long that drill took.",
);

/// Definitions of these metrics.
pub(crate) const DEFINITIONS: &[MetricDef] = &[
    BACKUP_LAST_SUCCESS,
    BACKUP_AGE,
    BACKUP_DURATION,
    BACKUP_BYTES,
    BACKUP_OBJECTS,
    DRILL_LAST_SUCCESS,
    DRILL_DURATION,
];

/// Shows what is remembered of backups, whichever process took them.
pub(crate) fn show(state: &BackupState, now: TsMs) {
    let seconds = |ms: i64| ms as f64 / 1e3;
    let taken_at = state.backup.as_ref().map_or(0, |backup| backup.taken_at);
    metrics::gauge!(BACKUP_LAST_SUCCESS.name).set(seconds(taken_at));
    if let Some(backup) = &state.backup {
        metrics::gauge!(BACKUP_AGE.name).set(seconds(now - backup.taken_at));
        metrics::gauge!(BACKUP_DURATION.name).set(seconds(backup.duration_ms));
        metrics::gauge!(BACKUP_BYTES.name).set(backup.bytes as f64);
        metrics::gauge!(BACKUP_OBJECTS.name, "which" => "all").set(backup.objects as f64);
        metrics::gauge!(BACKUP_OBJECTS.name, "which" => "new").set(backup.new_objects as f64);
    }
    let drilled_at = state.drill.as_ref().map_or(0, |drill| drill.at);
    metrics::gauge!(DRILL_LAST_SUCCESS.name).set(seconds(drilled_at));
    if let Some(drill) = &state.drill {
        metrics::gauge!(DRILL_DURATION.name).set(seconds(drill.duration_ms));
    }
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
