//! What this crate counts.

use crate::telemetry::{MetricDef, Unit};

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[TASK_FAILURES, TASKS_RUNNING];

const TASK_FAILURES: MetricDef = MetricDef::counter(
    "dwell_runtime_task_failures_total",
    Unit::Count,
    "Tasks and blocking work that returned an error, panicked, or ended although the process needs them, by name.",
);

const TASKS_RUNNING: MetricDef = MetricDef::gauge(
    "dwell_runtime_tasks_running",
    Unit::Count,
    "Tasks that are running.",
);

pub(crate) fn task_failed(task: &str) {
    metrics::counter!(TASK_FAILURES.name, "task" => task.to_owned()).increment(1);
}

pub(crate) fn tasks_running(count: usize) {
    metrics::gauge!(TASKS_RUNNING.name).set(count as f64);
}
