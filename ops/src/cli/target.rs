//! Where a command is carried out: by a running instance, or by opening the data folder here.

use anyhow::{Context, Result, bail};
use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::TargetArgs;
use crate::client::Client;
use crate::instance::InstanceFile;
use crate::platform::Platform;

/// Where a command is carried out.
pub(crate) enum Target {
    /// A running instance answers.
    Running(Client),
    /// This process has opened the folder; the platform must be closed in the end.
    Opened { client: Client, platform: Box<Platform> },
}

impl Target {
    /// Finds the instance that the flags mean; where none runs on the data folder, opens it. Engines that processes
    /// share are opened by the command itself.
    pub(crate) async fn open(args: &TargetArgs) -> Result<Self> {
        if let Some(running) = Self::running(args)? {
            return Ok(running);
        }
        let config = args.load_config()?;
        let platform = Platform::open_for_command(config).await?;
        let client = platform.client(platform.admin_key());
        Ok(Target::Opened {
            client,
            platform: Box::new(platform),
        })
    }

    /// The running instance that the flags mean, if there is one.
    fn running(args: &TargetArgs) -> Result<Option<Self>> {
        if let Some(url) = &args.url {
            let key = args.key.as_deref().context("--url needs --key (or DWELL_KEY)")?;
            return Ok(Some(Target::Running(Client::http(url, key)?)));
        }
        let config = args.load_config()?;
        if !config.engines()?.is_embedded() {
            return Ok(None);
        }
        let Some(instance) = InstanceFile::of_running(&config.data_dir)? else {
            return Ok(None);
        };
        let key = match &args.key {
            Some(key) => key.clone(),
            None => crate::instance::read_admin_key(&config.data_dir)?,
        };
        Ok(Some(Target::Running(Client::http(&instance.url, &key)?)))
    }

    pub(crate) fn client(&self) -> &Client {
        match self {
            Target::Running(client) | Target::Opened { client, .. } => client,
        }
    }

    /// Ends what this process started.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            Target::Running(_) => Ok(()),
            Target::Opened { platform, .. } => platform.close().await,
        }
    }
}

/// Runs a command against its target and closes it, whatever came out.
pub(crate) async fn with_target<T>(
    args: &TargetArgs,
    command: impl AsyncFnOnce(&Target) -> Result<T>,
) -> Result<T> {
    let target = Target::open(args).await?;
    let result = command(&target).await;
    let closed = target.close().await;
    let value = result?;
    closed?;
    Ok(value)
}

#[derive(Debug, Deserialize)]
struct VenueList {
    venues: Vec<VenueName>,
}

#[derive(Debug, Deserialize)]
struct VenueName {
    id: String,
}

/// The venues that `--venue` means: one, or all.
pub(crate) async fn venues_of(client: &Client, venue: &str) -> Result<Vec<String>> {
    let known: VenueList = client.get("/v1/venues").await?;
    let ids: Vec<String> = known.venues.into_iter().map(|venue| venue.id).collect();
    if venue == "all" {
        return Ok(ids);
    }
    match ids.iter().any(|id| id == venue) {
        true => Ok(vec![venue.to_owned()]),
        false if ids.is_empty() => {
            bail!("there is no venue {venue:?}: no venue is known; use `dwell venues apply FILE`")
        }
        false => bail!("there is no venue {venue:?}; known are {}", short_list(&ids)),
    }
}

fn short_list(ids: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN {
        format!("{shown} and {} more", ids.len() - SHOWN)
    } else {
        shown
    }
}

/// A job as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JobView {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) progress: Value,
}

impl JobView {
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self.state.as_str(), "queued" | "running")
    }
}

/// Asks for a job.
pub(crate) async fn create_job(client: &Client, body: &Value) -> Result<Value> {
    client.json(Method::POST, "/v1/jobs", Some(body)).await
}
