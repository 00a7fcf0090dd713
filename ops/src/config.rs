//! Configuration: defaults < `dwell.toml` < environment (`DWELL_…`) < flags. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwell_batch_layer::Config as BatchConfig;
use dwell_ingest::http::Config as IngestConfig;
use dwell_ingest::raw_writer::Config as RawWriterConfig;
use dwell_runtime::limits::HumanDuration;
use dwell_serving_api::Config as ServingConfig;
use dwell_speed_layer::Config as SpeedConfig;
use dwell_storage::resolver::StoreUri;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// Keeps things in the data folder.
const EMBEDDED: &str = "embedded:";
const UNUSABLE: &str = "the configuration cannot be used";

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
    /// Copying the log to the raw table.
    pub(crate) raw_writer: RawWriterConfig,
    /// Live numbers.
    pub(crate) speed: SpeedConfig,
    /// Nightly computation.
    pub(crate) batch: BatchConfig,
    /// Bounds of the API.
    pub(crate) serving: ServingConfig,
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

/// Retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionConfig {
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
        Self {
            data_dir: PathBuf::from("./dwell-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7071)),
            storage: StorageConfig { tables: EMBEDDED.into(), archive: EMBEDDED.into() },
            ingest: IngestConfig::default(),
            raw_writer: RawWriterConfig::default(),
            speed: SpeedConfig::default(),
            batch: BatchConfig::default(),
            serving: ServingConfig::default(),
            retention: RetentionConfig { log: HumanDuration::days(30) },
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
            .context(UNUSABLE)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        self.batch.validate().context(UNUSABLE)?;
        self.speed.validate().context(UNUSABLE)?;
        self.ingest.validate().context(UNUSABLE)?;
        if self.retention.log.as_ms() <= 0 {
            bail!("{UNUSABLE}: retention.log must be more than 0");
        }
        self.tables_uri()?;
        self.archive_uri()?;
        Ok(())
    }

    /// Where log and tables are.
    pub(crate) fn tables_uri(&self) -> Result<StoreUri> {
        self.uri(&self.storage.tables).context("storage.tables")
    }

    /// Where the archive is.
    pub(crate) fn archive_uri(&self) -> Result<StoreUri> {
        self.uri(&self.storage.archive).context("storage.archive")
    }

    fn uri(&self, text: &str) -> Result<StoreUri> {
        match text {
            EMBEDDED => Ok(StoreUri::Embedded(self.data_dir.clone())),
            other => Ok(other.parse()?),
        }
    }

    /// The effective configuration as TOML.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(figment::providers::Toml::to_string(self)?)
    }
}
