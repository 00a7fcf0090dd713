//! What this crate counts.

use std::time::Duration;

use dwell_model::event::Kind;
use dwell_runtime::telemetry::{MetricDef, Unit};

/// Every metric of this crate.
pub const DEFINITIONS: &[MetricDef] = &[
    EVENTS,
    LAG_EVENTS,
    LAG_SECONDS,
    OPEN_SESSIONS,
    WAITING_EVENTS,
    VENUES,
    LATE,
    IGNORED,
    REBUILDS,
    REBUILD_SECONDS,
    TICK_SECONDS,
    CHECKPOINT_SECONDS,
    BOUND_REACHED,
];

const EVENTS: MetricDef = MetricDef::counter(
    "dwell_speed_events_total",
    Unit::Count,
    "Events read from the log, by kind.",
);

const LAG_EVENTS: MetricDef = MetricDef::gauge(
    "dwell_speed_lag_events",
    Unit::Count,
    "Events in the log that are not yet read, by partition.",
);

const LAG_SECONDS: MetricDef = MetricDef::gauge(
    "dwell_speed_lag_seconds",
    Unit::Seconds,
    "Age of the oldest event in the log that is not yet read, by partition.",
);

const OPEN_SESSIONS: MetricDef = MetricDef::gauge(
    "dwell_speed_open_sessions",
    Unit::Count,
    "Sessions that are open, by partition.",
);

const WAITING_EVENTS: MetricDef = MetricDef::gauge(
    "dwell_speed_waiting_events",
    Unit::Count,
    "Positions that wait in the reorder window, by partition.",
);

const VENUES: MetricDef = MetricDef::gauge(
    "dwell_speed_venues",
    Unit::Count,
    "Venues with live state, by partition.",
);

const LATE: MetricDef = MetricDef::counter(
    "dwell_speed_late_events_total",
    Unit::Count,
    "New events and corrections that came after the reorder window, by what became of them: folded (nothing after \
     them had been settled), rebuild (their day is built anew), published (their day waits for the nightly run).",
);

const IGNORED: MetricDef = MetricDef::counter(
    "dwell_speed_ignored_events_total",
    Unit::Count,
    "Events that the live view does not use, by reason: redelivery, old (before the live days), future, \
     unknown_venue.",
);

const REBUILDS: MetricDef = MetricDef::counter(
    "dwell_speed_rebuilds_total",
    Unit::Count,
    "Days built anew from raw and log, by reason, and how it ended (done, failed, postponed).",
);

const REBUILD_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_speed_rebuild_seconds",
    Unit::Seconds,
    "Time that building a day anew took.",
);

const TICK_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_speed_tick_seconds",
    Unit::Seconds,
    "Time of one publishing of all venues of a partition.",
);

const CHECKPOINT_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_speed_checkpoint_seconds",
    Unit::Seconds,
    "Time of storing a checkpoint.",
);

const BOUND_REACHED: MetricDef = MetricDef::counter(
    "dwell_speed_bound_reached_total",
    Unit::Count,
    "Times that a bound of the configuration was met, by its name.",
);

/// Events read, counted per kind before they are reported, so that single events cost nothing.
pub(crate) fn events_read(kind: Kind, events: u64) {
    metrics::counter!(EVENTS.name, "kind" => kind.name()).increment(events);
}

pub(crate) fn late(outcome: &'static str, events: u64) {
    if events > 0 {
        metrics::counter!(LATE.name, "outcome" => outcome).increment(events);
    }
}

pub(crate) fn ignored(reason: &'static str, events: u64) {
    if events > 0 {
        metrics::counter!(IGNORED.name, "reason" => reason).increment(events);
    }
}

pub(crate) fn rebuild_ended(reason: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!(REBUILDS.name, "reason" => reason, "outcome" => outcome).increment(1);
    metrics::histogram!(REBUILD_SECONDS.name).record(took);
}

pub(crate) fn ticked(took: Duration) {
    metrics::histogram!(TICK_SECONDS.name).record(took);
}

pub(crate) fn checkpointed(took: Duration) {
    metrics::histogram!(CHECKPOINT_SECONDS.name).record(took);
}

pub(crate) fn bound_reached(bound: &'static str, times: u64) {
    if times > 0 {
        metrics::counter!(BOUND_REACHED.name, "bound" => bound).increment(times);
    }
}

/// The gauges of one partition.
#[derive(Debug)]
pub(crate) struct PartitionGauges {
    lag_events: metrics::Gauge,
    lag_seconds: metrics::Gauge,
    open_sessions: metrics::Gauge,
    waiting_events: metrics::Gauge,
    venues: metrics::Gauge,
}

impl PartitionGauges {
    pub(crate) fn new(partition: u32) -> Self {
        let gauge = |def: MetricDef| metrics::gauge!(def.name, "partition" => partition.to_string());
        Self {
            lag_events: gauge(LAG_EVENTS),
            lag_seconds: gauge(LAG_SECONDS),
            open_sessions: gauge(OPEN_SESSIONS),
            waiting_events: gauge(WAITING_EVENTS),
            venues: gauge(VENUES),
        }
    }

    pub(crate) fn lag(&self, events: u64, seconds: f64) {
        self.lag_events.set(events as f64);
        self.lag_seconds.set(seconds);
    }

    pub(crate) fn state(&self, venues: usize, open_sessions: u64, waiting_events: u64) {
        self.venues.set(venues as f64);
        self.open_sessions.set(open_sessions as f64);
        self.waiting_events.set(waiting_events as f64);
    }
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
