//! What this crate counts.

use dwell_runtime::telemetry::{MetricDef, Unit};

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    REQUESTS,
    REQUEST_SECONDS,
    REQUESTS_REFUSED,
    STREAMS_OPEN,
    REREADS,
    ANSWERED_STALE,
];

const REQUESTS: MetricDef = MetricDef::counter(
    "dwell_serving_requests_total",
    Unit::Count,
    "Requests answered, by route template, method and status.",
);

const REQUEST_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_serving_request_seconds",
    Unit::Seconds,
    "Time until the answer began, by route template and method.",
);

const REQUESTS_REFUSED: MetricDef = MetricDef::counter(
    "dwell_serving_requests_refused_total",
    Unit::Count,
    "Requests refused to protect the service, by reason (rate, gate, timeout, streams).",
);

const STREAMS_OPEN: MetricDef = MetricDef::gauge(
    "dwell_serving_streams_open",
    Unit::Count,
    "Live streams that are open.",
);

const REREADS: MetricDef = MetricDef::counter(
    "dwell_serving_generation_rereads_total",
    Unit::Count,
    "Generations read again because their rows did not match the pointer.",
);

const ANSWERED_STALE: MetricDef = MetricDef::counter(
    "dwell_serving_answers_stale_total",
    Unit::Count,
    "Queries answered with an answer from before, since the stores could not be reached.",
);

pub(crate) fn answered_stale() {
    metrics::counter!(ANSWERED_STALE.name).increment(1);
}

pub(crate) fn answered(route: &str, method: &'static str, status: u16, seconds: f64) {
    let route = route.to_owned();
    metrics::counter!(REQUESTS.name, "route" => route.clone(), "method" => method, "status" => status.to_string())
        .increment(1);
    metrics::histogram!(REQUEST_SECONDS.name, "route" => route, "method" => method).record(seconds);
}

pub(crate) fn refused(reason: &'static str) {
    metrics::counter!(REQUESTS_REFUSED.name, "reason" => reason).increment(1);
}

pub(crate) fn streams_changed(by: f64) {
    metrics::gauge!(STREAMS_OPEN.name).increment(by);
}

pub(crate) fn reread() {
    metrics::counter!(REREADS.name).increment(1);
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
