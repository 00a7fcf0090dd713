//! The dwell binary: roles, jobs, command line.
//!
//! `main` only wires: it reads the command line, sets up logs and metrics, and hands over. [`cli`] has a file per
//! command, [`platform`] puts the layers together, [`jobs`] carries out what was asked for, [`demo`] shows it all.

mod backup;
mod cli;
mod client;
mod config;
mod demo;
mod erasing;
mod export;
mod importing;
mod instance;
mod jobs;
mod metrics;
mod moving;
mod output;
mod platform;
mod roles;
mod routes;
mod schedule;
#[cfg(test)]
mod test_world;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use dwell_runtime::telemetry::{self, LogConfig, LogFormat, LogHandle};

use cli::{Cli, Command, ConfigCommand};
use config::{Config, LogStyle, Overrides};
use roles::Role;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(run(&cli.command));
    // Blocking work that is still under way (a read of a large file) must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    use std::io::Write;
    // Where even this cannot be written, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "dwell: {error:#}");
    ExitCode::FAILURE
}

async fn run(command: &Command) -> Result<()> {
    dwell_runtime::failpoints::set_from_env()?;
    let log = init_logs(command)?;
    match command {
        Command::Up(args) => cli::up::run(args, log).await,
        Command::Ingest(args) => cli::up::run_role(Role::Ingest, args, log).await,
        Command::RawWriter(args) => cli::up::run_role(Role::RawWriter, args, log).await,
        Command::Speed(args) => cli::up::run_role(Role::Speed, args, log).await,
        Command::Batch(args) => cli::up::run_role(Role::Batch, args, log).await,
        Command::Serve(args) => cli::up::run_role(Role::Serve, args, log).await,
        Command::Scheduler(args) => cli::up::run_role(Role::Scheduler, args, log).await,
        Command::Migrate(args) => cli::engines::migrate(args).await,
        Command::MigrateData(args) => cli::migrate_data::run(args).await,
        Command::Doctor(args) => cli::engines::doctor(args).await,
        Command::Demo(args) => demo::run(args, log).await,
        Command::Import(args) => cli::import::run(args).await,
        Command::Venues(command) => cli::venues::run(command).await,
        Command::Jobs(command) => cli::jobs::run(command).await,
        Command::Schedules(command) => cli::schedules::run(command).await,
        Command::Audit(args) => cli::audit::run(args).await,
        Command::Days(args) => cli::days::run(args).await,
        Command::Erasures(args) => cli::erasures::run(args).await,
        Command::Exclusions(args) => cli::exclusions::run(args).await,
        Command::Changes(args) => cli::changes::run(args).await,
        Command::Periods(command) => cli::periods::run(command).await,
        Command::Permits(command) => cli::permits::run(command).await,
        Command::Explain(args) => cli::explain::run(args).await,
        Command::Query(args) => cli::query::run(args).await,
        Command::Export(args) => cli::export::run(args).await,
        Command::Quarantine(command) => cli::quarantine::run(command).await,
        Command::Retention(command) => cli::retention::run(command).await,
        Command::Log(command) => cli::log::run(command).await,
        Command::Usage(args) => cli::usage::run(args).await,
        Command::Keys(command) => cli::keys::run(command).await,
        Command::Backups(args) => cli::backups::run(args).await,
        Command::Config(ConfigCommand::Check { config }) => {
            let config = Config::load(config.as_deref(), &Overrides::default())?;
            output::write_line(config.to_toml()?.trim_end())
        }
    }
}

/// Logs go to stderr. A running instance logs as its configuration says; commands only warn, so that their output is
/// theirs.
fn init_logs(command: &Command) -> Result<LogHandle> {
    let running = match command {
        Command::Up(args)
        | Command::Ingest(args)
        | Command::RawWriter(args)
        | Command::Speed(args)
        | Command::Batch(args)
        | Command::Serve(args)
        | Command::Scheduler(args) => Some(args),
        _ => None,
    };
    let (filter, style) = match running {
        Some(args) => {
            let log = Config::load(args.config.as_deref(), &Overrides::default())?.log;
            (log.filter, log.format)
        }
        None => ("error".to_owned(), LogStyle::Text),
    };
    let format = match style {
        LogStyle::Text => LogFormat::Text,
        LogStyle::Json => LogFormat::Json,
    };
    let log = telemetry::init_logging(&LogConfig { filter, format })?;
    telemetry::install_metrics()?;
    Ok(log)
}
