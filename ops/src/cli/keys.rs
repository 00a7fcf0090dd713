//! `dwell keys …`

use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell keys …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; its secret is shown once.
    Create(CreateArgs),
    /// List the keys, without their secrets.
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Take a key back.
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Flags of `dwell keys create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// gateway, viewer, operator or admin
    #[arg(long)]
    role: String,
    /// For gateways: a venue that it may post to (repeat for more) [default: all]
    #[arg(long = "venue")]
    venues: Vec<String>,
    /// For people
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create(args) => {
            let mut body = json!({ "role": args.role });
            if !args.venues.is_empty() {
                body["venues"] = json!(args.venues);
            }
            if let Some(name) = &args.name {
                body["name"] = json!(name);
            }
            with_target(&args.target, async |target| {
                let key: Value = target
                    .client()
                    .json(Method::POST, "/v1/keys", Some(&body))
                    .await?;
                Output::from_flag(args.target.json).result(&key, || text(&key["key"]))
            })
            .await
        }
        KeysCommand::List { target } => {
            with_target(target, async |opened| {
                let answer: Value = opened.client().get("/v1/keys").await?;
                Output::from_flag(target.json).result(&answer, || {
                    let keys = answer["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                    table(
                        &["id", "role", "venues", "name", "created", "revoked"],
                        &[],
                        keys.iter().map(|key| {
                            ["id", "role", "venues", "name", "created_at", "revoked_at"]
                                .iter()
                                .map(|name| text(&key[*name]))
                                .collect()
                        }),
                    )
                })
            })
            .await
        }
        KeysCommand::Revoke { id, target } => {
            with_target(target, async |opened| {
                let path = format!("/v1/keys/{}", escape(id));
                let answer = opened.client().send(Method::DELETE, &path, None).await?;
                if !(200..300).contains(&answer.status) {
                    answer.json::<Value>()?;
                }
                Output::from_flag(target.json).result(&json!({ "revoked": id }), || format!("{id} revoked"))
            })
            .await
        }
    }
}
