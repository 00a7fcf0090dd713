//! Configuration: defaults < `dwell.toml` < environment (`DWELL_…`) < flags. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwell_runtime::limits::{ByteSize, HumanDuration};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// The whole configuration. Every option says its meaning, unit and default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Folder of everything embedded: log, tables, keys, archive. Default `./dwell-data`.
    pub(crate) data_dir: PathBuf,
    /// Address of the HTTP API. Default `127.0.0.1:7070`; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Address of `/healthz`, `/readyz` and `/metrics`. Default `127.0.0.1:7071`.
    pub(crate) admin_listen: SocketAddr,
    /// Where things are kept.
    pub(crate) storage: StorageConfig,
    /// What gateways may send.
    pub(crate) ingest: IngestConfig,
    /// Live numbers.
    pub(crate) speed: SpeedConfig,
    /// Nightly computation.
    pub(crate) batch: BatchConfig,
    /// How long what is kept.
    pub(crate) retention: RetentionConfig,
    /// Structured logs, on stderr.
    pub(crate) log: LogSection,
}

/// Backends by URI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorageConfig {
    /// Log and tables: `embedded:` keeps them in the data folder.
    pub(crate) tables: String,
    /// Archive: `embedded:` keeps it in the data folder; `file:///…` elsewhere.
    pub(crate) archive: String,
}

/// Limits of ingest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IngestConfig {
    /// Largest body, as it comes over the wire. Default 16 MiB.
    pub(crate) body_max: ByteSize,
    /// Largest body after decompression. Default 64 MiB.
    pub(crate) decompressed_max: ByteSize,
    /// Most events of one request. Default 200,000.
    pub(crate) events_max: usize,
    /// How far ahead of our clock an event may be. Default 5m.
    pub(crate) future_tolerance: HumanDuration,
    /// How long a day's pseudonym key lives after the day. Default 3d.
    pub(crate) presence_late: HumanDuration,
    /// Requests per second and key; 0 for no limit. Default 0.
    pub(crate) requests_per_second: u32,
    /// Most entries of a tenant's quarantine. Default 100,000.
    pub(crate) quarantine_max: u64,
}

/// The speed layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpeedConfig {
    /// How often the live view is published, at most a second. Default 500ms.
    pub(crate) tick: HumanDuration,
    /// How long an event may be overtaken by others without being late. Default 5s.
    pub(crate) reorder_window: HumanDuration,
}

/// The batch layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchConfig {
    /// Whether days are computed by themselves, in each venue's night. Default true.
    pub(crate) nightly: bool,
    /// How long after a day's end its computation waits for stragglers. Default 15m.
    pub(crate) grace: HumanDuration,
    /// Venue-days computed at once. Default 1.
    pub(crate) workers: usize,
    /// Memory for sorting a day or an import; what is more goes to disk. Default 256 MiB.
    pub(crate) memory: ByteSize,
}

/// Retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionConfig {
    /// Raw events; older events are refused from gateways. Default 90d.
    pub(crate) raw: HumanDuration,
    /// The event log. Default 30d.
    pub(crate) log: HumanDuration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    /// Which messages: `warn`, `info`, or a filter like `info,dwell_ingest=debug`. Default `info`.
    pub(crate) filter: String,
    /// `text` or `json`. Default `text`.
    pub(crate) format: LogStyle,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogStyle {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let minutes = HumanDuration::minutes;
        let days = HumanDuration::days;
        Self {
            data_dir: PathBuf::from("./dwell-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7071)),
            storage: StorageConfig { tables: "embedded:".into(), archive: "embedded:".into() },
            ingest: IngestConfig {
                body_max: ByteSize::mib(16),
                decompressed_max: ByteSize::mib(64),
                events_max: 200_000,
                future_tolerance: minutes(5),
                presence_late: days(3),
                requests_per_second: 0,
                quarantine_max: 100_000,
            },
            speed: SpeedConfig {
                tick: HumanDuration::millis(500),
                reorder_window: HumanDuration::millis(5_000),
            },
            batch: BatchConfig {
                nightly: true,
                grace: minutes(15),
                workers: 1,
                memory: ByteSize::mib(256),
            },
            retention: RetentionConfig { raw: days(90), log: days(30) },
            log: LogSection { filter: "info".into(), format: LogStyle::Text },
        }
    }
}

/// What flags say; they win over everything else.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

impl Config {
    /// Reads the configuration from a file (`dwell.toml` in the current folder, if it is there and none is named),
    /// the environment and flags, and checks it.
    pub(crate) fn load(file: Option<&Path>, flags: &Overrides) -> Result<Self> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        match file {
            Some(path) if !path.is_file() => bail!("there is no configuration file {}", path.display()),
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => figment = figment.merge(Toml::file_exact("dwell.toml")),
        }
        // Not options: a key for commands, failpoints for tests, a target folder for CI.
        let ignored = ["key", "url", "failpoints", "ci_target"];
        let config: Config = figment
            .merge(Env::prefixed("DWELL_").ignore(&ignored).split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| anyhow::anyhow!("{error}"))
            .context("the configuration cannot be used")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str| bail!("the configuration cannot be used: {what}");
        if self.speed.tick.as_ms() <= 0 || self.speed.tick.as_ms() > 1_000 {
            return refuse("speed.tick must be more than 0 and at most 1s: the live view is promised every second");
        }
        if self.batch.workers == 0 {
            return refuse("batch.workers must be at least 1");
        }
        if self.ingest.events_max == 0 {
            return refuse("ingest.events_max must be at least 1");
        }
        if self.ingest.decompressed_max.as_u64() < self.ingest.body_max.as_u64() {
            return refuse("ingest.decompressed_max must not be smaller than ingest.body_max");
        }
        if self.retention.log.as_ms() <= 0 || self.retention.raw.as_ms() <= 0 {
            return refuse("retention.raw and retention.log must be more than 0");
        }
        Ok(())
    }

    /// The effective configuration as TOML.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(figment::providers::Toml::to_string(self)?)
    }
}
