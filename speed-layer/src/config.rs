//! Settings of the speed layer: how often it works, and its bounds.

use dwell_runtime::limits::HumanDuration;
use serde::{Deserialize, Serialize};

/// How the speed layer works. In JSON and TOML every option may be left out.
///
/// Bounds are per venue where not said otherwise. Reaching one never stops the layer: it settles earlier, or leaves
/// work to the next rebuild, counts that (`dwell_speed_bound_reached_total`), and the nightly run puts it right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often the live view is published, at most 1s. Default 500ms.
    pub tick: HumanDuration,
    /// How long an event may be overtaken by others without being late. Default 5s.
    pub reorder_window: HumanDuration,
    /// How often the state is checkpointed. A checkpoint is small, whatever the day holds. Default 1s.
    pub checkpoint_every: HumanDuration,
    /// How long after the first late event a day is rebuilt, so that its companions share the rebuild. Default 2s.
    pub rebuild_after: HumanDuration,
    /// Least time between the end of a rebuild of a day and the begin of its next, at most 45s. Default 10s.
    pub rebuild_pause: HumanDuration,
    /// How often the registry is looked at for new venues and layouts. Default 2s.
    pub registry_every: HumanDuration,
    /// How often it is looked for new and ended exclusions that were not heard of in this process. Default 5s.
    pub exclusions_every: HumanDuration,
    /// How often it is looked whether closed days have been published. Default 5s.
    pub published_every: HumanDuration,
    /// How often a venue's state that does not change is shown again in the table of the live view, at most 10m: its
    /// time of publishing tells readers of other processes that somebody still follows. Default 30s.
    pub shown_again_every: HumanDuration,
    /// Most states that are written to that table at once. Default 8.
    pub table_shows_max: usize,
    /// Bytes of a partition of the log read at once. Default 1 MiB: about 30,000 positions, 15 ms of work.
    pub read_bytes: usize,
    /// Most venues with live state in a shard, and in all that this process follows together. Default 10,000.
    pub venues_max: usize,
    /// Most sessions open at once; those heard of longest ago are closed beyond. Default 200,000.
    pub open_sessions_max: usize,
    /// Most positions that wait in the reorder window; the oldest are settled early beyond. Default 500,000.
    pub waiting_events_max: usize,
    /// Most events of a day whose identity is remembered (about 20 bytes each); beyond, a redelivery that comes after
    /// its time was settled costs a rebuild. Default 16,000,000.
    pub known_events_max: usize,
    /// Most rows of a day that are no positions (crossings, counts, …; about 150 bytes each). Default 3,000,000.
    pub other_rows_max: usize,
    /// Closed days kept until their generation is published. Default 3.
    pub closed_days_max: usize,
    /// Most events between the raw writer's position and ours that a rebuild holds in memory; with more it waits for
    /// the raw writer. Default 1,000,000.
    pub tail_events_max: u64,
    /// Most subscribers. Default 1,000.
    pub subscribers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tick: HumanDuration::millis(500),
            reorder_window: HumanDuration::seconds(5),
            checkpoint_every: HumanDuration::seconds(1),
            rebuild_after: HumanDuration::seconds(2),
            rebuild_pause: HumanDuration::seconds(10),
            registry_every: HumanDuration::seconds(2),
            exclusions_every: HumanDuration::seconds(5),
            published_every: HumanDuration::seconds(5),
            shown_again_every: HumanDuration::seconds(30),
            table_shows_max: 8,
            read_bytes: 1 << 20,
            venues_max: 10_000,
            open_sessions_max: 200_000,
            waiting_events_max: 500_000,
            known_events_max: 16_000_000,
            other_rows_max: 3_000_000,
            closed_days_max: 3,
            tail_events_max: 1_000_000,
            subscribers_max: 1_000,
        }
    }
}

/// A setting that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("speed.{name} {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: &'static str,
}

impl Config {
    /// Refuses settings under which the promises could not be kept.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |name, problem| Err(ConfigError { name, problem });
        let second = HumanDuration::seconds(1);
        if self.tick < HumanDuration::millis(10) || self.tick > second {
            return refuse("tick", "must be from 10ms to 1s");
        }
        if self.reorder_window > HumanDuration::minutes(10) {
            return refuse("reorder_window", "must be at most 10m");
        }
        if self.checkpoint_every < HumanDuration::millis(100)
            || self.checkpoint_every > HumanDuration::minutes(1)
        {
            return refuse("checkpoint_every", "must be from 100ms to 1m");
        }
        // Debounce, pause and the rebuild itself have to fit into the promised minute.
        if self.rebuild_after > HumanDuration::seconds(15) {
            return refuse("rebuild_after", "must be at most 15s");
        }
        if self.rebuild_pause > HumanDuration::seconds(45) {
            return refuse("rebuild_pause", "must be at most 45s");
        }
        if self.registry_every < HumanDuration::millis(100)
            || self.registry_every > HumanDuration::seconds(30)
        {
            return refuse("registry_every", "must be from 100ms to 30s");
        }
        if self.exclusions_every < HumanDuration::millis(100)
            || self.exclusions_every > HumanDuration::seconds(15)
        {
            return refuse("exclusions_every", "must be from 100ms to 15s");
        }
        if self.published_every < HumanDuration::millis(100) {
            return refuse("published_every", "must be at least 100ms");
        }
        if self.shown_again_every < HumanDuration::seconds(1)
            || self.shown_again_every > HumanDuration::minutes(10)
        {
            return refuse("shown_again_every", "must be from 1s to 10m");
        }
        let counts = [
            ("table_shows_max", self.table_shows_max),
            ("read_bytes", self.read_bytes),
            ("venues_max", self.venues_max),
            ("open_sessions_max", self.open_sessions_max),
            ("waiting_events_max", self.waiting_events_max),
            ("other_rows_max", self.other_rows_max),
            ("closed_days_max", self.closed_days_max),
            ("subscribers_max", self.subscribers_max),
        ];
        match counts.into_iter().find(|&(_, count)| count == 0) {
            Some((name, _)) => refuse(name, "must not be 0"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        Config::default().validate().unwrap();
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|c| c.tick = HumanDuration::millis(1_001)),
            "speed.tick must be from 10ms to 1s"
        );
        assert!(refused(|c| c.rebuild_pause = HumanDuration::minutes(1)).starts_with("speed.rebuild_pause"));
        assert_eq!(refused(|c| c.venues_max = 0), "speed.venues_max must not be 0");
    }
}
