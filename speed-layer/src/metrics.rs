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
    SHARDS,
    GAPS,
    GAP_RECORDS,
    TABLE_SHOWS,
    TABLE_SHOW_SECONDS,
    TABLE_WAITING,
];

const EVENTS: MetricDef = MetricDef::counter(
    "dwell_speed_events_total",
    Unit::Count,
    "Events read from the log, by kind.",
);

const LAG_EVENTS: MetricDef = MetricDef::gauge(
    "dwell_speed_lag_events",
    Unit::Count,
    "Events in the log that are not yet taken in, by shard.",
);

const LAG_SECONDS: MetricDef = MetricDef::gauge(
    "dwell_speed_lag_seconds",
    Unit::Seconds,
    "Age of the oldest event in the log that is not yet taken in, by shard.",
);

const OPEN_SESSIONS: MetricDef = MetricDef::gauge(
    "dwell_speed_open_sessions",
    Unit::Count,
    "Sessions that are open, by shard.",
);

const WAITING_EVENTS: MetricDef = MetricDef::gauge(
    "dwell_speed_waiting_events",
    Unit::Count,
    "Positions that wait in the reorder window, by shard.",
);

const VENUES: MetricDef = MetricDef::gauge(
    "dwell_speed_venues",
    Unit::Count,
    "Venues with live state, by shard.",
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
     unknown_venue, damaged (records of the log that cannot be read).",
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
    "Time of one publishing of all venues of a shard.",
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

const SHARDS: MetricDef = MetricDef::gauge(
    "dwell_speed_shards",
    Unit::Count,
    "Shards of the log that this process follows.",
);

const GAPS: MetricDef = MetricDef::counter(
    "dwell_speed_log_gaps_total",
    Unit::Count,
    "Times that the log no longer held what was to be read next, by whether the raw table holds it (yes, no).",
);

const GAP_RECORDS: MetricDef = MetricDef::counter(
    "dwell_speed_log_gap_records_total",
    Unit::Count,
    "Records in those gaps, by whether the raw table holds them (yes, no).",
);

const TABLE_SHOWS: MetricDef = MetricDef::counter(
    "dwell_speed_table_shows_total",
    Unit::Count,
    "States of venues written to the table of the live view, by what became of them (shown, failed, refused).",
);

const TABLE_SHOW_SECONDS: MetricDef = MetricDef::histogram(
    "dwell_speed_table_show_seconds",
    Unit::Seconds,
    "Time of writing a venue's state to the table of the live view.",
);

const TABLE_WAITING: MetricDef = MetricDef::gauge(
    "dwell_speed_table_waiting_venues",
    Unit::Count,
    "Venues whose newest state is not yet in the table of the live view.",
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

pub(crate) fn shards_followed(shards: usize) {
    metrics::gauge!(SHARDS.name).set(shards as f64);
}

pub(crate) fn gap_met(is_in_raw: bool, records: u64) {
    let in_raw = if is_in_raw { "yes" } else { "no" };
    metrics::counter!(GAPS.name, "in_raw" => in_raw).increment(1);
    metrics::counter!(GAP_RECORDS.name, "in_raw" => in_raw).increment(records);
}

pub(crate) fn table_shown(outcome: &'static str, took: Duration) {
    metrics::counter!(TABLE_SHOWS.name, "outcome" => outcome).increment(1);
    metrics::histogram!(TABLE_SHOW_SECONDS.name).record(took);
}

pub(crate) fn table_waiting(venues: usize) {
    metrics::gauge!(TABLE_WAITING.name).set(venues as f64);
}

/// The gauges of one shard; they fall to zero when it is no longer followed here.
#[derive(Debug)]
pub(crate) struct ShardGauges {
    lag_events: metrics::Gauge,
    lag_seconds: metrics::Gauge,
    open_sessions: metrics::Gauge,
    waiting_events: metrics::Gauge,
    venues: metrics::Gauge,
}

impl ShardGauges {
    pub(crate) fn new(shard: u32) -> Self {
        let gauge = |def: MetricDef| metrics::gauge!(def.name, "shard" => shard.to_string());
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

impl Drop for ShardGauges {
    fn drop(&mut self) {
        self.lag(0, 0.0);
        self.state(0, 0, 0);
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
