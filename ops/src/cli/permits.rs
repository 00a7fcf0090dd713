//! `dwell permits …`

use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell permits …`
#[derive(Debug, Subcommand)]
pub(crate) enum PermitsCommand {
    /// List what tenants may have done: one's own, or all for who runs the installation
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Let a tenant's operators recompute and restore days of the past
    Allow(SetArgs),
    /// Refuse it to them, with the reason
    Deny(SetArgs),
}

/// Flags of `dwell permits allow` and `deny`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The tenant
    #[arg(long)]
    tenant: String,
    /// Why: who is refused reads it
    #[arg(long)]
    reason: String,
    /// Whom to ask for it [default: the operators of this installation]
    #[arg(long)]
    contact: Option<String>,
    /// How many days before today need no permit [default: serving.recent_days of the configuration]
    #[arg(long, value_name = "DAYS")]
    recent_days: Option<u32>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &PermitsCommand) -> Result<()> {
    match command {
        PermitsCommand::List { target } => list(target).await,
        PermitsCommand::Allow(args) => set(args, "allowed").await,
        PermitsCommand::Deny(args) => set(args, "denied").await,
    }
}

async fn list(target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().get("/v1/permits").await?;
        output.result(&answer, || {
            let permits = answer["permits"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let names = [
                "tenant",
                "historical",
                "recent_days",
                "reason",
                "contact",
                "set_by",
                "set_at",
            ];
            let rows = permits
                .iter()
                .map(|permit| names.iter().map(|name| text(&permit[*name])).collect());
            table(
                &["tenant", "the past", "recent days", "reason", "ask", "by", "at"],
                &[2],
                rows,
            )
        })
    })
    .await
}

async fn set(args: &SetArgs, historical: &str) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    let body = json!({
        "historical": historical, "reason": args.reason, "contact": args.contact, "recent_days": args.recent_days,
    });
    with_target(&args.target, async |opened| {
        let path = format!("/v1/permits/{}", escape(&args.tenant));
        let answer: Value = opened.client().json(Method::PUT, &path, Some(&body)).await?;
        output.result(&answer, || {
            format!(
                "{}: recompute and restore of the past are {historical}",
                args.tenant
            )
        })
    })
    .await
}
