//! What this crate counts.

use std::time::Duration;

use dwell_runtime::clock::Stopwatch;
use dwell_runtime::telemetry::{MetricDef, Unit};

use crate::error::ErrorKind;

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    CALL_SECONDS,
    CALL_FAILURES,
    LOG_COMMIT_SECONDS,
    LOG_COMMIT_CALLS,
    LOG_BYTES,
    LOG_REFUSED,
    KAFKA_WAITING,
    KAFKA_REFUSED,
    KAFKA_DELIVERIES_FAILED,
    KAFKA_SEEKS,
    KAFKA_SHARDS,
    USAGE_REQUESTS,
    USAGE_ROWS,
    USAGE_TAKEN,
    USAGE_REFUSED,
    USAGE_LEFT_OUT,
];

const USAGE_REQUESTS: MetricDef = MetricDef::counter(
    "dwell_usage_requests_total",
    Unit::Count,
    "Requests answered, by tenant (the first hundred that a process meets; then other) and module.",
);

const USAGE_ROWS: MetricDef = MetricDef::counter(
    "dwell_usage_rows_total",
    Unit::Count,
    "Rows in answers, by tenant (the first hundred that a process meets; then other) and module.",
);

const USAGE_TAKEN: MetricDef = MetricDef::counter(
    "dwell_usage_events_taken_total",
    Unit::Count,
    "Events taken, by tenant (the first hundred that a process meets; then other) and module.",
);

const USAGE_REFUSED: MetricDef = MetricDef::counter(
    "dwell_usage_events_refused_total",
    Unit::Count,
    "Events refused, by tenant (the first hundred that a process meets; then other) and module.",
);

const USAGE_LEFT_OUT: MetricDef = MetricDef::counter(
    "dwell_usage_left_out_total",
    Unit::Count,
    "Requests and messages that are in no usage, since the process has met too many venues and modules.",
);

/// The counters of a tenant and module, to be kept: finding them takes a lock.
pub(crate) fn usage(tenant: &str, module: &'static str) -> [metrics::Counter; 4] {
    [USAGE_REQUESTS, USAGE_ROWS, USAGE_TAKEN, USAGE_REFUSED].map(
        |definition| metrics::counter!(definition.name, "tenant" => tenant.to_owned(), "module" => module),
    )
}

pub(crate) fn usage_left_out() {
    metrics::counter!(USAGE_LEFT_OUT.name).increment(1);
}

const CALL_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_storage_call_seconds",
    Unit::Seconds,
    "Time of a store's calls, by store and method. Waiting for events is left out.",
);

const CALL_FAILURES: MetricDef = MetricDef::counter(
    "dwell_storage_call_failures_total",
    Unit::Count,
    "Calls of a store that failed, by store, method and kind of failure.",
);

const LOG_COMMIT_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_storage_log_commit_seconds",
    Unit::Seconds,
    "Time of the embedded event log's commits, fsync included.",
);

const LOG_COMMIT_CALLS: MetricDef = MetricDef::histogram(
    "dwell_storage_log_commit_calls",
    Unit::Count,
    "Calls that shared a commit of the embedded event log.",
);

const LOG_BYTES: MetricDef = MetricDef::counter(
    "dwell_storage_log_appended_bytes_total",
    Unit::Bytes,
    "Bytes of records appended to the embedded event log.",
);

const LOG_REFUSED: MetricDef = MetricDef::counter(
    "dwell_storage_log_refused_total",
    Unit::Count,
    "Calls that the embedded event log refused because too much waited to be appended.",
);

const KAFKA_WAITING: MetricDef = MetricDef::gauge(
    "dwell_storage_kafka_waiting_bytes",
    Unit::Bytes,
    "Bytes of events that wait for Kafka's acknowledgement.",
);

const KAFKA_REFUSED: MetricDef = MetricDef::counter(
    "dwell_storage_kafka_refused_total",
    Unit::Count,
    "Calls that the Kafka log refused because too much waited to be acknowledged.",
);

const KAFKA_DELIVERIES_FAILED: MetricDef = MetricDef::counter(
    "dwell_storage_kafka_deliveries_failed_total",
    Unit::Count,
    "Events that Kafka did not acknowledge in time, or refused.",
);

const KAFKA_SEEKS: MetricDef = MetricDef::counter(
    "dwell_storage_kafka_seeks_total",
    Unit::Count,
    "Reads of the Kafka log that did not go on where a former one had stopped.",
);

const KAFKA_SHARDS: MetricDef = MetricDef::gauge(
    "dwell_storage_kafka_shards",
    Unit::Count,
    "Shards of the log that the consumer group has given to this process, by group.",
);

pub(crate) fn kafka_waiting(bytes: usize) {
    metrics::gauge!(KAFKA_WAITING.name).set(bytes as f64);
}

pub(crate) fn kafka_refused_busy() {
    metrics::counter!(KAFKA_REFUSED.name).increment(1);
}

pub(crate) fn kafka_delivery_failed() {
    metrics::counter!(KAFKA_DELIVERIES_FAILED.name).increment(1);
}

pub(crate) fn kafka_seek() {
    metrics::counter!(KAFKA_SEEKS.name).increment(1);
}

pub(crate) fn kafka_shards(group: &'static str, shards: usize) {
    metrics::gauge!(KAFKA_SHARDS.name, "group" => group).set(shards as f64);
}

pub(crate) fn call_finished(
    store: &'static str,
    method: &'static str,
    took: Duration,
    failure: Option<ErrorKind>,
) {
    metrics::histogram!(CALL_SECONDS.name, "store" => store, "method" => method).record(took);
    if let Some(kind) = failure {
        let labels = [("store", store), ("method", method), ("kind", kind.word())];
        metrics::counter!(CALL_FAILURES.name, &labels).increment(1);
    }
}

pub(crate) fn log_committed(stopwatch: &Stopwatch, calls: usize, bytes: usize) {
    metrics::histogram!(LOG_COMMIT_SECONDS.name).record(stopwatch.elapsed());
    metrics::histogram!(LOG_COMMIT_CALLS.name).record(calls as f64);
    metrics::counter!(LOG_BYTES.name).increment(bytes as u64);
}

pub(crate) fn log_refused_busy() {
    metrics::counter!(LOG_REFUSED.name).increment(1);
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
