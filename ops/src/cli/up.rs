//! `dwell up` and the roles one by one: processes that run until they are stopped.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use dwell_runtime::shutdown::StopSignals;
use dwell_runtime::telemetry::LogHandle;
use tokio::net::TcpListener;

use super::UpArgs;
use crate::config::{Config, Overrides};
use crate::instance::InstanceFile;
use crate::output::write_line;
use crate::platform::{Base, Engines, Platform, check_roles};
use crate::roles::{Role, Roles};

/// A process that runs.
pub(crate) struct Running {
    pub(crate) platform: Platform,
    /// Where users find it; empty where it does not listen for them.
    pub(crate) url: String,
    pub(crate) admin_url: String,
    signals: StopSignals,
}

pub(crate) async fn run(args: &UpArgs, log: LogHandle) -> Result<()> {
    serve(args, Roles::All, log).await
}

/// Runs one role.
pub(crate) async fn run_role(role: Role, args: &UpArgs, log: LogHandle) -> Result<()> {
    let roles = Roles::One(role);
    if args.listen.is_some() && !roles.has_api() {
        bail!("{roles} has no API to listen for: leave --listen out (--admin-listen is its admin port)");
    }
    serve(args, roles, log).await
}

async fn serve(args: &UpArgs, roles: Roles, log: LogHandle) -> Result<()> {
    let flags = Overrides {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        // A second instance on one machine needs an admin port of its own.
        admin_listen: args
            .admin_listen
            .or(args.listen.map(|listen| SocketAddr::new(listen.ip(), 0))),
    };
    let config = Config::load(args.config.as_deref(), &flags)?;
    check_roles(&config, roles)?;
    let Some(mut running) = Running::start(config, roles, log).await? else {
        return Ok(());
    };
    let at = match running.url.is_empty() {
        true => String::new(),
        false => format!(" at {}", running.url),
    };
    let admin_url = &running.admin_url;
    write_line(&match running.platform.is_embedded() {
        true => format!(
            "{roles} is ready{at} (admin port {admin_url}, data in {}, admin key in {})",
            running.platform.data_dir().display(),
            running.platform.data_dir().join("admin.key").display(),
        ),
        false => format!("{roles} is ready{at} (admin port {admin_url})"),
    })?;
    running.until_stopped().await;
    running.close().await
}

impl Running {
    /// Listens, opens the stores, starts all parts; `None` when it was asked to stop before the engines answered.
    pub(crate) async fn start(config: Config, roles: Roles, log: LogHandle) -> Result<Option<Self>> {
        let mut signals = StopSignals::install()?;
        // Bound before the stores are opened: a taken port should cost nothing.
        let api = match roles.has_api() {
            true => Some(bind(config.listen).await?),
            false => None,
        };
        let admin = bind(config.admin_listen).await?;
        let url = api.as_ref().map(url_of).transpose()?.unwrap_or_default();
        let admin_url = url_of(&admin)?;
        let base = Base::new();
        base.serve_admin(admin, log)?;
        let opening = Engines::open_patiently(&config, &base);
        let opened = tokio::select! {
            opened = opening => opened?,
            _ = signals.next() => None,
        };
        let Some(engines) = opened else {
            return Ok(None);
        };
        let mut platform = Platform::assemble(config, base, engines, roles).await?;
        platform.start_serving(api);
        if platform.is_embedded() {
            InstanceFile {
                pid: std::process::id(),
                url: url.clone(),
                admin_url: admin_url.clone(),
            }
            .write(platform.paths())?;
        }
        Ok(Some(Self {
            platform,
            url,
            admin_url,
            signals,
        }))
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
