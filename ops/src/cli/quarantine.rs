//! `dwell quarantine …`

use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::TargetArgs;
use super::jobs::wait_for;
use super::target::{create_job, with_target};
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell quarantine …`
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List what was refused, newest first.
    List(ListArgs),
    /// Show an entry with its bytes.
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Try to take entries again, now that their reason may be gone.
    Replay {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Mark entries as rubbish.
    Drop {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Flags of `dwell quarantine list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Of this venue
    #[arg(long)]
    venue: Option<String>,
    /// With this code
    #[arg(long)]
    code: Option<String>,
    /// From this source
    #[arg(long)]
    source: Option<String>,
    /// open, replayed or dropped
    #[arg(long)]
    state: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &QuarantineCommand) -> Result<()> {
    match command {
        QuarantineCommand::List(args) => list(args).await,
        QuarantineCommand::Show { id, target } => {
            with_target(target, async |opened| {
                let entry: Value = opened
                    .client()
                    .get(&format!("/v1/quarantine/{}", escape(id)))
                    .await?;
                Output::from_flag(target.json).result(&entry, || lines(&entry))
            })
            .await
        }
        QuarantineCommand::Replay { ids, target } => replay(ids, target).await,
        QuarantineCommand::Drop { ids, target } => {
            with_target(target, async |opened| {
                for id in ids {
                    let path = format!("/v1/quarantine/{}/drop", escape(id));
                    opened
                        .client()
                        .send(Method::POST, &path, None)
                        .await?
                        .json::<Value>()?;
                }
                let answer = json!({ "dropped": ids });
                Output::from_flag(target.json).result(&answer, || format!("{} dropped", ids.len()))
            })
            .await
        }
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let mut path = format!("/v1/quarantine?limit={}", args.limit);
        let filters = [
            ("venue", &args.venue),
            ("code", &args.code),
            ("source", &args.source),
            ("state", &args.state),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let answer: Value = target.client().get(&path).await?;
        output.result(&answer, || {
            let entries = answer["entries"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            table(
                &[
                    "id", "received", "venue", "source", "index", "code", "message", "state",
                ],
                &[4],
                entries.iter().map(|entry| {
                    [
                        "id",
                        "received_at",
                        "venue",
                        "source",
                        "index",
                        "code",
                        "message",
                        "state",
                    ]
                    .iter()
                    .map(|name| text(&entry[*name]))
                    .collect()
                }),
            )
        })
    })
    .await
}

async fn replay(ids: &[String], target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let job = create_job(
            opened.client(),
            &json!({ "kind": "replay", "options": { "entries": ids } }),
        )
        .await?;
        let job = wait_for(opened.client(), job, output).await?;
        output.result(&job, || lines(&job["report"]))
    })
    .await
}

fn lines(value: &Value) -> String {
    match value.as_object() {
        Some(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", text(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        None => text(value),
    }
}
