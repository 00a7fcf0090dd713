//! Settings of the batch layer.

use dwell_runtime::limits::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// How the batch layer works. In JSON and TOML every option may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether days are computed by themselves, in each venue's night. Default true.
    pub nightly: bool,
    /// Venues worked on at once; the days of one venue follow each other. Default 1. Each takes its share of `memory`.
    pub workers: usize,
    /// Memory for the raw rows of the days in work, of nights and all jobs of the process together; a day with more is
    /// read in several passes. Default 256 MiB.
    pub memory: ByteSize,
    /// How long after a day's end its computation waits for stragglers. Default 15m.
    pub grace: HumanDuration,
    /// How long after a day's end its numbers must be there, or until the venue opens where that is earlier: from then on
    /// it is computed even where the raw writer is behind (the generation is marked `lagging`), and a day that is not
    /// done counts as late. Default 4h.
    pub ready_by: HumanDuration,
    /// How long a worker that has died keeps others from its days. Default 60s.
    pub lease_ttl: HumanDuration,
    /// Most days of a venue that share one commit to the archive. Default 16.
    pub group_days: usize,
    /// How often the service looks for nights that have come. Default 15s.
    pub look_every: HumanDuration,
    /// After how long days that failed are tried again, without anybody's asking. Default 10m.
    pub retry_after: HumanDuration,
    /// How long a run on demand waits for the raw writer to pass the log's end as of its start. Default 2m.
    pub raw_writer_wait: HumanDuration,
    /// How long a run on demand goes on trying days that other workers hold. Default 3m.
    pub held_wait: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nightly: true,
            workers: 1,
            memory: ByteSize::mib(256),
            grace: HumanDuration::minutes(15),
            ready_by: HumanDuration::hours(4),
            lease_ttl: HumanDuration::seconds(60),
            group_days: 16,
            look_every: HumanDuration::seconds(15),
            retry_after: HumanDuration::minutes(10),
            raw_writer_wait: HumanDuration::minutes(2),
            held_wait: HumanDuration::minutes(3),
        }
    }
}

/// A setting that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("batch.{name} {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: &'static str,
}

impl Config {
    /// Refuses settings under which nothing could work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |name, problem| Err(ConfigError { name, problem });
        if !(1..=256).contains(&self.workers) {
            return refuse("workers", "must be from 1 to 256");
        }
        if self.memory < ByteSize::mib(16) {
            return refuse("memory", "must be at least 16MiB");
        }
        if self.lease_ttl < HumanDuration::seconds(3) {
            return refuse(
                "lease_ttl",
                "must be at least 3s: leases are renewed three times within it",
            );
        }
        if !(1..=256).contains(&self.group_days) {
            return refuse("group_days", "must be from 1 to 256");
        }
        if self.look_every < HumanDuration::millis(100) {
            return refuse("look_every", "must be at least 100ms");
        }
        if self.ready_by < self.grace {
            return refuse("ready_by", "must not be shorter than batch.grace");
        }
        Ok(())
    }

    /// Bytes of raw rows that one worker may read at once. A third of its share: one part is being read while another
    /// is handed over and a third is being written.
    pub(crate) fn part_bytes(&self) -> usize {
        (self.memory.as_usize() / self.workers.max(1) / 3).max(1 << 20)
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
        assert_eq!(refused(|c| c.workers = 0), "batch.workers must be from 1 to 256");
        assert!(refused(|c| c.lease_ttl = HumanDuration::seconds(1)).starts_with("batch.lease_ttl"));
        assert!(refused(|c| c.ready_by = HumanDuration::minutes(1)).starts_with("batch.ready_by"));
        assert!(
            serde_json::from_str::<Config>(r#"{"worker":2}"#).is_err(),
            "unknown options are refused"
        );
        assert_eq!(
            serde_json::from_str::<Config>(r#"{"workers":2,"grace":"5m"}"#)
                .unwrap()
                .workers,
            2
        );
    }
}
