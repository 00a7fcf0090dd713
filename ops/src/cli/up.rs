//! `dwell up`

use std::net::SocketAddr;

use anyhow::{Context, Result};
use dwell_runtime::shutdown::StopSignals;
use dwell_runtime::telemetry::LogHandle;
use tokio::net::TcpListener;

use super::UpArgs;
use crate::config::{Config, Overrides};
use crate::instance::InstanceFile;
use crate::output::write_line;
use crate::platform::Platform;

/// A platform that serves.
pub(crate) struct Running {
    pub(crate) platform: Platform,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    signals: StopSignals,
}

pub(crate) async fn run(args: &UpArgs, log: LogHandle) -> Result<()> {
    let flags = Overrides {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        // A second instance on one machine needs an admin port of its own.
        admin_listen: args
            .admin_listen
            .or(args.listen.map(|listen| SocketAddr::new(listen.ip(), 0))),
    };
    let config = Config::load(args.config.as_deref(), &flags)?;
    let mut running = Running::start(config, log).await?;
    write_line(&format!(
        "dwell is ready at {} (admin port {}, data in {}, admin key in {})",
        running.url,
        running.admin_url,
        running.platform.data_dir().display(),
        running.platform.data_dir().join("admin.key").display(),
    ))?;
    running.until_stopped().await;
    running.close().await
}

impl Running {
    /// Opens the folder, starts all parts, and listens.
    pub(crate) async fn start(config: Config, log: LogHandle) -> Result<Self> {
        let signals = StopSignals::install()?;
        // Bound before the folder is opened: a taken port should cost nothing.
        let api = bind(config.listen).await?;
        let admin = bind(config.admin_listen).await?;
        let (url, admin_url) = (url_of(&api)?, url_of(&admin)?);
        let mut platform = Platform::open_for_serving(config, log).await?;
        platform.start_serving(api, admin)?;
        InstanceFile {
            pid: std::process::id(),
            url: url.clone(),
            admin_url: admin_url.clone(),
        }
        .write(platform.paths())?;
        Ok(Self {
            platform,
            url,
            admin_url,
            signals,
        })
    }

    /// Waits for Ctrl-C, SIGTERM, or a part that cannot go on.
    pub(crate) async fn until_stopped(&mut self) {
        let controller = self.platform.controller().clone();
        tokio::select! {
            _ = self.signals.next() => controller.trigger(),
            () = controller.triggered() => {}
        }
    }

    /// Stops in order. A second signal ends the process at once.
    pub(crate) async fn close(mut self) -> Result<()> {
        InstanceFile::remove(self.platform.paths());
        tokio::select! {
            closed = self.platform.close() => closed,
            name = self.signals.next() => anyhow::bail!("a second {name}: stopped at once"),
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: is another instance running? choose another address")
    })
}

fn url_of(listener: &TcpListener) -> Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}
