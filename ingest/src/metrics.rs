//! What this crate counts. Call [`dwell_runtime::telemetry::describe`] with [`DEFINITIONS`] once at the start.

use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::telemetry::{MetricDef, Unit};

use crate::refusal::Code;

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    EVENTS_ACCEPTED,
    EVENTS_REFUSED,
    MESSAGES_REFUSED,
    BODY_BYTES,
    REQUEST_SECONDS,
    APPEND_SECONDS,
    CLOCK_SKEW_SECONDS,
    EVENT_AGE_SECONDS,
    QUARANTINE_ENTRIES,
    QUARANTINE_LOST,
    RAW_LAG_EVENTS,
    RAW_LAG_SECONDS,
    RAW_APPLY_SECONDS,
    RAW_ROWS,
    RAW_DAMAGED,
    RAW_STOPPED,
];

/// Events taken, by `kind`.
pub const EVENTS_ACCEPTED: MetricDef = MetricDef::counter(
    "dwell_ingest_events_accepted_total",
    Unit::Count,
    "Events that are durable in the event log, redeliveries included, by kind.",
);
/// Events refused, by `code`.
pub const EVENTS_REFUSED: MetricDef = MetricDef::counter(
    "dwell_ingest_events_refused_total",
    Unit::Count,
    "Events that were refused, by code.",
);
/// Messages of which nothing was taken, by `code`.
pub const MESSAGES_REFUSED: MetricDef = MetricDef::counter(
    "dwell_ingest_messages_refused_total",
    Unit::Count,
    "Requests and messages that were refused as a whole, by code.",
);
/// Bytes of bodies as they came over the wire.
pub const BODY_BYTES: MetricDef = MetricDef::counter(
    "dwell_ingest_body_received_bytes_total",
    Unit::Bytes,
    "Bytes of bodies, as they came over the wire.",
);
/// Time from a request's first byte to its answer, by `status`.
pub const REQUEST_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_ingest_request_seconds",
    Unit::Seconds,
    "Time from the beginning of a request to its answer, by the hundreds of its status.",
);
/// Time until the log says durable: group commit and fsync.
pub const APPEND_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_ingest_append_seconds",
    Unit::Seconds,
    "Time until the event log says that the events of a message are durable: waiting for the group, writing, fsync.",
);
/// How far senders' clocks are behind ours, where they say what time it is.
pub const CLOCK_SKEW_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_ingest_sender_clock_skew_seconds",
    Unit::Seconds,
    "Distance between a sender's sent_at and the time of receipt, its sign left out.",
);
/// Age of a message's newest event.
pub const EVENT_AGE_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_ingest_newest_event_age_seconds",
    Unit::Seconds,
    "Age of the newest event of a message when it was received.",
);
/// Entries offered to the quarantine.
pub const QUARANTINE_ENTRIES: MetricDef = MetricDef::counter(
    "dwell_ingest_quarantine_entries_total",
    Unit::Count,
    "Refused events whose bytes are in the quarantine.",
);
/// Entries that did not go into the quarantine, by `reason`.
pub const QUARANTINE_LOST: MetricDef = MetricDef::counter(
    "dwell_ingest_quarantine_left_out_total",
    Unit::Count,
    "Refused events whose bytes were not kept, by reason: message_limit, sensor_limit, source_limit, tenant_limit (too many, or \
     too many bytes, wait already), or store_failed.",
);
/// Events in the log that are not yet in the raw table.
pub const RAW_LAG_EVENTS: MetricDef = MetricDef::gauge(
    "dwell_raw_writer_lag_events",
    Unit::Count,
    "Events in the event log that are not yet in the raw table.",
);
/// Age of the oldest of them.
pub const RAW_LAG_SECONDS: MetricDef = MetricDef::gauge(
    "dwell_raw_writer_lag_seconds",
    Unit::Seconds,
    "Age of the oldest event in the log that is not yet in the raw table.",
);
/// Time of one write to the raw table.
pub const RAW_APPLY_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_raw_writer_apply_seconds",
    Unit::Seconds,
    "Time of one write to the raw table: rows, marks and position.",
);
/// Rows given to the raw table, by `result`.
pub const RAW_ROWS: MetricDef = MetricDef::counter(
    "dwell_raw_writer_rows_total",
    Unit::Count,
    "Rows written to the raw table, by result: new, or repeated (a further delivery of a row that was there).",
);
/// Damaged records that were stepped over.
pub const RAW_DAMAGED: MetricDef = MetricDef::counter(
    "dwell_raw_writer_damaged_records_total",
    Unit::Count,
    "Records of the event log that could not be read and were stepped over.",
);
/// Partitions that do not go on.
pub const RAW_STOPPED: MetricDef = MetricDef::gauge(
    "dwell_raw_writer_stopped_partitions",
    Unit::Count,
    "Partitions at which the raw writer has stopped: somebody has to look.",
);

pub(crate) fn accepted(kind: Kind, events: usize) {
    metrics::counter!(EVENTS_ACCEPTED.name, "kind" => kind.name()).increment(events as u64);
}

pub(crate) fn refused(code: Code) {
    metrics::counter!(EVENTS_REFUSED.name, "code" => code.as_str()).increment(1);
}

pub(crate) fn message_refused(code: &'static str) {
    metrics::counter!(MESSAGES_REFUSED.name, "code" => code).increment(1);
}

pub(crate) fn body_bytes(bytes: usize) {
    metrics::counter!(BODY_BYTES.name).increment(bytes as u64);
}

pub(crate) fn request(status: u16, took: Duration) {
    let class = match status {
        200..=299 => "2xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    metrics::histogram!(REQUEST_SECONDS.name, "status" => class).record(took.as_secs_f64());
}

pub(crate) fn appended(took: Duration) {
    metrics::histogram!(APPEND_SECONDS.name).record(took.as_secs_f64());
}

pub(crate) fn clock_skew(distance_ms: i64) {
    metrics::histogram!(CLOCK_SKEW_SECONDS.name).record(distance_ms.unsigned_abs() as f64 / 1_000.0);
}

pub(crate) fn newest_event_age(age_ms: i64) {
    metrics::histogram!(EVENT_AGE_SECONDS.name).record(age_ms.max(0) as f64 / 1_000.0);
}

pub(crate) fn quarantined(entries: u64) {
    metrics::counter!(QUARANTINE_ENTRIES.name).increment(entries);
}

pub(crate) fn quarantine_left_out(reason: &'static str, entries: u64) {
    if entries > 0 {
        metrics::counter!(QUARANTINE_LOST.name, "reason" => reason).increment(entries);
    }
}

pub(crate) fn raw_lag(events: u64, ms: i64) {
    metrics::gauge!(RAW_LAG_EVENTS.name).set(events as f64);
    metrics::gauge!(RAW_LAG_SECONDS.name).set(ms.max(0) as f64 / 1_000.0);
}

pub(crate) fn raw_applied(took: Duration, new_rows: u64, repeated_rows: u64) {
    metrics::histogram!(RAW_APPLY_SECONDS.name).record(took.as_secs_f64());
    metrics::counter!(RAW_ROWS.name, "result" => "new").increment(new_rows);
    metrics::counter!(RAW_ROWS.name, "result" => "repeated").increment(repeated_rows);
}

pub(crate) fn raw_damaged() {
    metrics::counter!(RAW_DAMAGED.name).increment(1);
}

pub(crate) fn raw_stopped(partitions: usize) {
    metrics::gauge!(RAW_STOPPED.name).set(partitions as f64);
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
