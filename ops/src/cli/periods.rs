//! `dwell periods …`

use anyhow::{Result, bail};
use axum::http::Method;
use clap::Subcommand;
use dwell_model::time::LocalDay;
use serde_json::{Value, json};

use super::TargetArgs;
use super::jobs::wait_for;
use super::target::{create_job, venues_of, with_target};
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell periods …`
#[derive(Debug, Subcommand)]
pub(crate) enum PeriodsCommand {
    /// Close a period: what runs compute for its days is proposed, and published only when it is approved
    Close {
        /// A venue, or `all`
        #[arg(long)]
        venue: String,
        /// First day (local)
        #[arg(long, value_name = "DAY")]
        from: LocalDay,
        /// Last day, included
        #[arg(long, value_name = "DAY")]
        to: LocalDay,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show closed periods, and what is proposed for their days
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Open a period again
    Open {
        /// Its id (see `dwell periods list`)
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Publish what is proposed for a closed day
    Approve {
        /// The venue
        #[arg(long)]
        venue: String,
        /// The day (local)
        #[arg(long)]
        day: LocalDay,
        /// The proposed generation that was looked at; another one is not approved
        #[arg(long)]
        generation: Option<u64>,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
        /// Show what would be published, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        target: TargetArgs,
    },
}

pub(crate) async fn run(command: &PeriodsCommand) -> Result<()> {
    match command {
        PeriodsCommand::Close {
            venue,
            from,
            to,
            reason,
            target,
        } => {
            let output = Output::from_flag(target.json);
            with_target(target, async |opened| {
                let client = opened.client();
                let mut body = json!({ "from": from, "to": to, "reason": reason });
                if venue != "all" {
                    body["venues"] = json!(venues_of(client, venue).await?);
                }
                let period: Value = client.json(Method::POST, "/v1/periods", Some(&body)).await?;
                output.result(&period, || format!("closed: {}", text(&period["id"])))
            })
            .await
        }
        PeriodsCommand::List { target } => {
            let output = Output::from_flag(target.json);
            with_target(target, async |opened| {
                let answer: Value = opened.client().get("/v1/periods").await?;
                output.result(&answer, || human(&answer))
            })
            .await
        }
        PeriodsCommand::Open { id, reason, target } => {
            let output = Output::from_flag(target.json);
            with_target(target, async |opened| {
                let path = format!("/v1/periods/{}/open", escape(id));
                let body = json!({ "reason": reason });
                let period: Value = opened.client().json(Method::POST, &path, Some(&body)).await?;
                output.result(&period, || format!("open: {}", text(&period["id"])))
            })
            .await
        }
        PeriodsCommand::Approve {
            venue,
            day,
            generation,
            reason,
            dry_run,
            target,
        } => {
            let mut body = json!({
                "kind": "approve", "venues": [venue], "from": day, "to": day, "dry_run": dry_run,
            });
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            if let Some(generation) = generation {
                body["options"] = json!({ "generation": generation });
            }
            approve(&body, target).await
        }
    }
}

/// Has the job done and waits for it.
async fn approve(body: &Value, target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let client = opened.client();
        let job = wait_for(client, create_job(client, body).await?, output).await?;
        output.result(&job, || match body["dry_run"].as_bool() {
            Some(true) => text(&job["report"]["proposed"]),
            _ => text(&job["report"]["day"]["reason"]),
        })?;
        match job["state"].as_str() {
            Some("succeeded") => Ok(()),
            _ => bail!("{}", job["error"].as_str().unwrap_or("see the job's report")),
        }
    })
    .await
}

fn human(answer: &Value) -> String {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let periods = list("periods");
    let periods = periods.iter().map(|period| {
        let venues = match &period["venues"] {
            Value::Array(ids) => ids.iter().map(text).collect::<Vec<_>>().join(", "),
            _ => "all".to_owned(),
        };
        ["id", "from", "to", "state", "closed_by", "closed_at", "reason"]
            .iter()
            .map(|name| text(&period[*name]))
            .chain([venues])
            .collect()
    });
    let heads = ["id", "from", "to", "state", "by", "at", "reason", "venues"];
    let closed = table(&heads, &[], periods);
    let proposals = list("proposals");
    if proposals.is_empty() {
        return format!("{closed}\nnothing is proposed");
    }
    let proposals = proposals.iter().map(|proposal| {
        let changed = &proposal["changed"];
        vec![
            text(&proposal["venue"]),
            text(&proposal["day"]),
            text(&proposal["generation"]),
            text(&proposal["replaces"]),
            text(&changed["changed"]),
            text(&changed["added"]),
            text(&changed["removed"]),
            text(&proposal["reason"]),
        ]
    });
    let heads = [
        "venue", "day", "proposed", "replaces", "changed", "added", "removed", "reason",
    ];
    format!("{closed}\n{}", table(&heads, &[2, 3, 4, 5, 6], proposals))
}
