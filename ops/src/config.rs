//! Configuration: defaults < `dwell.toml` < environment (`DWELL_…`) < flags. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwell_batch_layer::Config as BatchConfig;
use dwell_ingest::intake::IntakeConfig;
use dwell_ingest::quarantine::QuarantineLimits;
use dwell_ingest::sources::http::HttpConfig;
use dwell_retention::{Policy, Settings as RetentionSettings};
use dwell_runtime::limits::{ByteSize, HumanDuration, RateLimit};
use dwell_serving_api::Config as ServingConfig;
use dwell_speed_layer::Config as SpeedConfig;
use dwell_storage::api::{QuarantineBounds, QuarantineSize};
use dwell_storage::archive::RemoteArchiveConfig;
use dwell_storage::backends::cassandra::CassandraConfig;
use dwell_storage::backends::kafka::KafkaConfig;
use dwell_storage::resolver::{EngineSettings, StoreUri};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::jobs::{self, Places};
use crate::schedule::BuiltIn;

/// Keeps things in the data folder.
const EMBEDDED: &str = "embedded:";
/// Read from the current folder when no file is named.
const DEFAULT_FILE: &str = "dwell.toml";
const UNUSABLE: &str = "the configuration cannot be used";

/// The whole configuration. Every option says its meaning, unit and default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Folder of everything embedded: log, tables, keys, archive. Where other engines keep those, only passing files of
    /// this process lie in it. Default `./dwell-data`.
    pub(crate) data_dir: PathBuf,
    /// Address of the HTTP API. Default `127.0.0.1:7070`; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Address of `/healthz`, `/readyz` and `/metrics`. Default `127.0.0.1:7071`.
    pub(crate) admin_listen: SocketAddr,
    /// One broker or one Cassandra node is meant: `dwell migrate` and `dwell doctor` accept that nothing is replicated.
    /// Default false.
    pub(crate) single_node: bool,
    /// Where things are kept.
    pub(crate) storage: StorageConfig,
    /// What gateways may send.
    pub(crate) ingest: IngestConfig,
    /// Live numbers.
    pub(crate) speed: SpeedConfig,
    /// Nightly computation.
    pub(crate) batch: BatchConfig,
    /// Jobs: how many at a time.
    #[serde(default)]
    pub(crate) jobs: Places,
    /// Schedules that nobody had to set.
    #[serde(default)]
    pub(crate) schedules: BuiltIn,
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
    /// The event log: `embedded:` keeps it in the data folder; `kafka://HOST:PORT,…/PREFIX`.
    pub(crate) log: String,
    /// The tables: `embedded:` keeps them in the data folder; `cassandra://HOST:PORT,…/KEYSPACE`.
    pub(crate) tables: String,
    /// The archive: `embedded:` keeps it in the data folder; `file:///…`, `s3://…`, `gs://…`, `az://…`.
    pub(crate) archive: String,
    /// How a `kafka://` log is used.
    pub(crate) kafka: KafkaConfig,
    /// How `cassandra://` tables are used.
    pub(crate) cassandra: CassandraConfig,
    /// How the object store of an `s3://`, `gs://` or `az://` archive is used.
    pub(crate) s3: RemoteArchiveConfig,
}

/// What gateways may send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IngestConfig {
    /// Largest body, as it comes over the wire. Default 16MiB.
    pub(crate) body_max: ByteSize,
    /// Largest body after decompression. Default 64MiB.
    pub(crate) decompressed_max: ByteSize,
    /// How many times its length a body may grow by decompression. Default 200.
    pub(crate) compression_ratio_max: usize,
    /// Longest event, as text. Default 1MiB.
    pub(crate) event_max: ByteSize,
    /// Most events of one request. Default 200,000.
    pub(crate) events_max: u64,
    /// Fields beyond the known ones that are ignored instead of refused. Default none.
    pub(crate) ignored_fields: Vec<String>,
    /// How far ahead of our clock an event may be. Default 5m.
    pub(crate) future_tolerance: HumanDuration,
    /// How long a day's pseudonym key lives after the day. Default 3d.
    pub(crate) presence_late: HumanDuration,
    /// Requests per second that one key may send; 0 for no limit. Default 0.
    pub(crate) requests_per_second: u32,
    /// Most entries that wait in a tenant's quarantine. Default 1,000,000.
    pub(crate) quarantine_entries_max: u64,
    /// What they may take. Default 4GiB.
    pub(crate) quarantine_bytes_max: ByteSize,
    /// Most entries that wait of a venue from one source (`http`, a file). Default 100,000.
    pub(crate) quarantine_source_entries_max: u64,
    /// What they may take. Default 512MiB.
    pub(crate) quarantine_source_bytes_max: ByteSize,
    /// Most entries that wait of one sensor in that; events whose sensor is not known count as one. Default 10,000.
    pub(crate) quarantine_sensor_entries_max: u64,
    /// What they may take. Default 64MiB.
    pub(crate) quarantine_sensor_bytes_max: ByteSize,
    /// Entries of each reason that are kept although a source or sensor has too many. Default 20.
    pub(crate) quarantine_sample_entries: u64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            body_max: ByteSize::mib(16),
            decompressed_max: ByteSize::mib(64),
            compression_ratio_max: 200,
            event_max: ByteSize::mib(1),
            events_max: 200_000,
            ignored_fields: Vec::new(),
            future_tolerance: HumanDuration::minutes(5),
            presence_late: HumanDuration::days(3),
            requests_per_second: 0,
            quarantine_entries_max: 1_000_000,
            quarantine_bytes_max: ByteSize::mib(4_096),
            quarantine_source_entries_max: 100_000,
            quarantine_source_bytes_max: ByteSize::mib(512),
            quarantine_sensor_entries_max: 10_000,
            quarantine_sensor_bytes_max: ByteSize::mib(64),
            quarantine_sample_entries: 20,
        }
    }
}

impl Config {
    /// Bounds of the HTTP source.
    pub(crate) fn http(&self) -> HttpConfig {
        let per_second = self.ingest.requests_per_second;
        HttpConfig {
            body_bytes_max: self.ingest.body_max.as_usize(),
            decompressed_bytes_max: self.ingest.decompressed_max.as_usize(),
            compression_ratio_max: self.ingest.compression_ratio_max,
            rate: (per_second > 0).then(|| RateLimit {
                per_second,
                burst: per_second.saturating_mul(4),
            }),
            // Past half of what the log keeps, the raw writer must catch up before more is taken.
            raw_lag_ms_max: self.retention.log.as_ms() / 2,
            ..HttpConfig::default()
        }
    }

    /// How much may wait in the quarantine.
    pub(crate) fn quarantine_bounds(&self) -> QuarantineBounds {
        let ingest = &self.ingest;
        let size = |entries, bytes: ByteSize| QuarantineSize {
            entries,
            bytes: bytes.as_usize() as u64,
        };
        QuarantineBounds {
            tenant: size(ingest.quarantine_entries_max, ingest.quarantine_bytes_max),
            source: size(
                ingest.quarantine_source_entries_max,
                ingest.quarantine_source_bytes_max,
            ),
            sensor: size(
                ingest.quarantine_sensor_entries_max,
                ingest.quarantine_sensor_bytes_max,
            ),
            sample_entries: ingest.quarantine_sample_entries,
        }
    }

    /// What events are taken.
    pub(crate) fn intake(&self) -> IntakeConfig {
        let defaults = IntakeConfig::default();
        IntakeConfig {
            ignored_fields: self.ingest.ignored_fields.clone(),
            event_bytes_max: self.ingest.event_max.as_usize(),
            events_max: self.ingest.events_max,
            future_tolerance_ms: self.ingest.future_tolerance.as_ms(),
            raw_retention_ms: self.retention.raw.as_ms(),
            presence_late_ms: self.ingest.presence_late.as_ms(),
            quarantine: QuarantineLimits {
                bounds: self.quarantine_bounds(),
                ..defaults.quarantine
            },
            ..defaults
        }
    }
}

/// Retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionConfig {
    /// Raw events; older events are refused from gateways. A tenant's own policy decides when they are swept, where it has
    /// one. Default 90d.
    pub(crate) raw: HumanDuration,
    /// Sessions, unless a tenant's policy says otherwise. Default 90d.
    pub(crate) sessions: HumanDuration,
    /// Generations that are no longer published, unless a tenant's policy says otherwise. Default 400d.
    pub(crate) generations: HumanDuration,
    /// The event log. Default 30d.
    pub(crate) log: HumanDuration,
    /// What is allowed between the clocks of processes, with the longest that a write may be on its way. In Cassandra a
    /// sweep leaves what was written in so long before it. Default 1h.
    pub(crate) clock_skew: HumanDuration,
    /// Files of the archive after others took their place; 1d to 29d. Default 7d.
    #[serde(default = "replaced_files_kept")]
    pub(crate) replaced_files: HumanDuration,
}

const fn replaced_files_kept() -> HumanDuration {
    HumanDuration::days(7)
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    /// Which messages: `warn`, `info`, or a filter like `info,dwell_ingest=debug`. Default `info`, less of the libraries.
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
            single_node: false,
            storage: StorageConfig {
                log: EMBEDDED.into(),
                tables: EMBEDDED.into(),
                archive: EMBEDDED.into(),
                kafka: KafkaConfig::default(),
                cassandra: CassandraConfig::default(),
                s3: RemoteArchiveConfig::default(),
            },
            ingest: IngestConfig::default(),
            speed: SpeedConfig::default(),
            // One process owns the folder, so a lease that outlives its holder is that of a dead one: short is kind.
            batch: BatchConfig {
                lease_ttl: HumanDuration::seconds(10),
                ..BatchConfig::default()
            },
            jobs: Places::default(),
            schedules: BuiltIn::default(),
            serving: ServingConfig::default(),
            retention: RetentionConfig {
                raw: HumanDuration::days(90),
                sessions: HumanDuration::days(90),
                generations: HumanDuration::days(400),
                log: HumanDuration::days(30),
                clock_skew: HumanDuration::hours(1),
                replaced_files: replaced_files_kept(),
            },
            log: LogSection {
                filter: "info,buoyant_kernel=warn,deltalake_core=warn".into(),
                format: LogStyle::Text,
            },
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
            None if Path::new(DEFAULT_FILE).is_file() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE))
            }
            None => {}
        }
        // Not options: a key and an address for commands, failpoints, and what tests and CI are told.
        let is_option = |name: &figment::value::UncasedStr| {
            let name = name.as_str().to_ascii_lowercase();
            let of_tests = ["test_", "ci_", "chaos_"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            !of_tests && !["key", "url", "failpoints", "servers_cache"].contains(&name.as_str())
        };
        let config: Config = figment
            .merge(Env::prefixed("DWELL_").filter(is_option).split("__"))
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
        if let Some(problem) = self.jobs.problem() {
            bail!("{UNUSABLE}: {problem}");
        }
        if let Some(place) = &self.schedules.backup_to {
            jobs::place_of(place)
                .context("schedules.backup_to")
                .context(UNUSABLE)?;
        }
        if self.ingest.events_max == 0 {
            bail!("{UNUSABLE}: ingest.events_max must be at least 1");
        }
        if self.ingest.decompressed_max < self.ingest.body_max {
            bail!("{UNUSABLE}: ingest.decompressed_max must not be smaller than ingest.body_max");
        }
        if self.retention.log.as_ms() <= 0 || self.retention.clock_skew.as_ms() <= 0 {
            bail!("{UNUSABLE}: retention.log and retention.clock_skew must be more than 0");
        }
        self.retention_policy().check().context(UNUSABLE)?;
        if !jobs::REPLACED_FILES_KEPT.contains(&self.retention.replaced_files) {
            bail!("{UNUSABLE}: retention.replaced_files must be 1d to 29d");
        }
        self.engines()?;
        Ok(())
    }

    /// How long what is kept where a tenant has set nothing else.
    pub(crate) fn retention_policy(&self) -> Policy {
        Policy {
            raw_ms: self.retention.raw.as_ms(),
            sessions_ms: self.retention.sessions.as_ms(),
            generations_ms: self.retention.generations.as_ms(),
            ..Policy::default()
        }
    }

    /// How sweeps and restores are done.
    pub(crate) fn retention_settings(&self) -> RetentionSettings {
        RetentionSettings {
            lease_ttl_ms: self.batch.lease_ttl.as_ms(),
            // Whoever died has lost its lease by then.
            held_wait_ms: self.batch.lease_ttl.as_ms() + 5_000,
            clock_skew_ms: self.retention.clock_skew.as_ms(),
            ..RetentionSettings::default()
        }
    }

    /// Which engines keep what, and how they are reached.
    pub(crate) fn engines(&self) -> Result<EngineSettings> {
        let settings = EngineSettings {
            log: self.uri(&self.storage.log).context("storage.log")?,
            tables: self.uri(&self.storage.tables).context("storage.tables")?,
            archive: self.uri(&self.storage.archive).context("storage.archive")?,
            kafka: KafkaConfig {
                single_node: self.single_node,
                retention_ms: self.retention.log.as_ms(),
                ..self.storage.kafka.clone()
            },
            cassandra: CassandraConfig {
                single_node: self.single_node,
                ..self.storage.cassandra.clone()
            },
            objects: self.storage.s3.clone(),
        };
        settings.check().context(UNUSABLE)?;
        Ok(settings)
    }

    fn uri(&self, text: &str) -> Result<StoreUri> {
        match text {
            EMBEDDED => Ok(StoreUri::Embedded(self.data_dir.clone())),
            other => Ok(other.parse()?),
        }
    }

    /// The effective configuration as TOML.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }
}
