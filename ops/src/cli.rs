//! The command line: what users type, and where each command is carried out.

pub(crate) mod audit;
pub(crate) mod backups;
pub(crate) mod changes;
pub(crate) mod days;
pub(crate) mod engines;
pub(crate) mod erasures;
pub(crate) mod exclusions;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod migrate_data;
pub(crate) mod periods;
pub(crate) mod permits;
pub(crate) mod quarantine;
pub(crate) mod query;
pub(crate) mod retention;
pub(crate) mod schedules;
pub(crate) mod target;
pub(crate) mod up;
pub(crate) mod usage;
pub(crate) mod venues;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Overrides};

/// Analytics from in-store sensors: every event kept, live numbers now, proven numbers each night.
#[derive(Debug, Parser)]
#[command(name = "dwell", version, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole platform in this process: embedded in one folder, or on the engines that the configuration names.
    Up(UpArgs),
    /// Take events over HTTP into the event log
    Ingest(UpArgs),
    /// Copy the event log into the raw table
    RawWriter(UpArgs),
    /// Follow the event log into the live view
    Speed(UpArgs),
    /// Carry out jobs and every venue's night
    Batch(UpArgs),
    /// Answer queries
    Serve(UpArgs),
    /// Do what has to be done from time to time and belongs to no venue
    Scheduler(UpArgs),
    /// Make, or bring up to date, what the engines need: topics, tables
    Migrate(EngineArgs),
    /// Move an embedded installation onto the engines of a configuration, without losing an event
    MigrateData(migrate_data::MigrateDataArgs),
    /// Check the configuration and every connection, and say what is wrong and what to do
    Doctor(EngineArgs),
    /// Run the platform on real sample data, show a first table, and serve until Ctrl-C.
    Demo(DemoArgs),
    /// Bring in files: CSV, NDJSON, JSON or Parquet, also in gzip, zstd and zip.
    Import(import::ImportArgs),
    /// Change and show venues and their layouts.
    #[command(subcommand)]
    Venues(venues::VenuesCommand),
    /// Run jobs and look at them.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Let jobs be asked for by themselves.
    #[command(subcommand)]
    Schedules(schedules::SchedulesCommand),
    /// Show who did what, when and why.
    Audit(audit::AuditArgs),
    /// Show the days of a venue: state, generation, completeness, late events, drift.
    Days(days::DaysArgs),
    /// List the receipts of erasures.
    Erasures(erasures::ErasuresArgs),
    /// List what was taken out of the numbers (`dwell jobs run revert`), by whom and why.
    Exclusions(exclusions::ExclusionsArgs),
    /// Show what was published, in order, and what each publication restated.
    Changes(changes::ChangesArgs),
    /// Close periods, so that their numbers change only when somebody approves it.
    #[command(subcommand)]
    Periods(periods::PeriodsCommand),
    /// Say which tenants may have days of the past recomputed and restored.
    #[command(subcommand)]
    Permits(permits::PermitsCommand),
    /// Walk from a number to what it was made of: formula, generation, layout, sensors, receipts, events.
    Explain(explain::ExplainArgs),
    /// Ask for metrics.
    Query(query::QueryArgs),
    /// Write the published numbers as Parquet files.
    Export(export::ExportArgs),
    /// Look at what was refused, and work it.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// See what retention would delete and why the rest stays; set the policy and legal holds.
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Show requests, rows and events per day, venue and module, and bytes stored by age.
    Usage(usage::UsageArgs),
    /// Make, list and take back access keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at the event log
    #[command(subcommand)]
    Log(log::LogCommand),
    /// List the backups at a place
    Backups(backups::BackupsArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Where the platform is, for every command but `up` and `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Folder of an embedded installation: the instance running on it is asked, or, where none runs, the folder is
    /// opened by this command [default: ./dwell-data]
    #[arg(long, value_name = "DIR", global = false)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of a running instance, for example http://127.0.0.1:7070
    #[arg(long, env = "DWELL_URL", conflicts_with = "data_dir")]
    pub(crate) url: Option<String>,
    /// Access key for --url
    #[arg(long, env = "DWELL_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Configuration file [default: dwell.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags that operators' commands have in common, so that scripts may give them to all. What only reads changes nothing and
/// answers when it is done: it takes them and does what it does without.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReadFlags {
    /// Nothing is changed anyway
    #[arg(long, hide = true)]
    #[allow(dead_code, reason = "taken so that it is not refused")]
    dry_run: bool,
    /// It answers when it is done anyway
    #[arg(long, hide = true)]
    #[allow(dead_code, reason = "taken so that it is not refused")]
    wait: bool,
}

impl TargetArgs {
    /// The effective configuration.
    pub(crate) fn load_config(&self) -> anyhow::Result<Config> {
        let flags = Overrides {
            data_dir: self.data_dir.clone(),
            ..Overrides::default()
        };
        Config::load(self.config.as_deref(), &flags)
    }
}

/// Flags of `dwell up`, and of each role of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Folder of everything embedded, or of this process's passing files [default: ./dwell-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the HTTP API; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of /healthz, /readyz and /metrics [default: 127.0.0.1:7071, or a free port where --listen is given]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Configuration file [default: dwell.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of commands that look at the engines themselves.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// Configuration file [default: dwell.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of an embedded installation [default: ./dwell-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

impl EngineArgs {
    /// The effective configuration.
    pub(crate) fn load_config(&self) -> anyhow::Result<Config> {
        let flags = Overrides {
            data_dir: self.data_dir.clone(),
            ..Overrides::default()
        };
        Config::load(self.config.as_deref(), &flags)
    }
}

/// Flags of `dwell demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Folder of the demo [default: ./dwell-demo]
    #[arg(long, value_name = "DIR", default_value = "./dwell-demo")]
    pub(crate) data_dir: PathBuf,
    /// Address of the HTTP API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// Stop once the first table is shown
    #[arg(long)]
    pub(crate) exit: bool,
}

/// `dwell config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and print the effective one as TOML.
    Check {
        /// Configuration file [default: dwell.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_commands_take_dry_run_wait_and_json() {
        let commands = [
            "jobs run restore --venue all --from 2026-03-01 --to 2026-03-02",
            "jobs run recompute --venue v",
            "jobs run archive --venue v",
            "jobs run verify --venue v",
            "jobs run revert --venue v --sensor s --reason r",
            "jobs run undo --job j",
            "jobs run erase --venue v --track t",
            "jobs run erase --venue v --device d",
            "jobs run backup --to file:///b",
            "jobs run restore-backup --from file:///b",
            "jobs run drill",
            "jobs run retention --now 2026-03-01T00:00:00Z",
            "retention plan",
            "days --venue v",
            "changes --since 2026-03-01T00:00:00Z",
            "exclusions",
            "quarantine list",
            "quarantine show e",
            "quarantine replay e",
            "quarantine drop e",
            "query --venue v --metric visits --from 2026-03-01 --to 2026-03-02 --by day --as-of 3",
        ];
        for command in commands {
            let words = ["dwell"].into_iter().chain(command.split(' '));
            for flags in [&["--dry-run", "--json"][..], &["--wait"]] {
                let parsed = Cli::try_parse_from(words.clone().chain(flags.iter().copied()));
                assert!(parsed.is_ok(), "{command} {flags:?}: {}", parsed.unwrap_err());
            }
        }
    }
}
