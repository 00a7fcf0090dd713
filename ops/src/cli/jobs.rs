//! `dwell jobs …`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SystemClock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::TargetArgs;
use super::target::{JobView, Target, create_job, venues_of, with_target};
use super::venues::text;
use crate::client::{Client, escape};
use crate::output::{Output, table};

/// How often a waiting command looks at its job.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `dwell jobs …`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Ask for a job: recompute, archive or verify.
    Run(RunArgs),
    /// List jobs, newest first.
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show a job.
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Ask a job to stop.
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Flags of `dwell jobs run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// recompute, archive or verify
    kind: String,
    /// A venue, or `all`
    #[arg(long)]
    venue: String,
    /// First day (local) [default: every day that is dirty]
    #[arg(long, value_name = "DAY")]
    from: Option<LocalDay>,
    /// Last day, included
    #[arg(long, value_name = "DAY")]
    to: Option<LocalDay>,
    /// Compute days even when their input has not changed
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is done; the exit code is 0 only when it succeeded
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &JobsCommand) -> Result<()> {
    match command {
        JobsCommand::Run(args) => start(args).await,
        JobsCommand::List { limit, target } => list(*limit, target).await,
        JobsCommand::Show { id, target } => show(id, target).await,
        JobsCommand::Cancel { id, target } => {
            let output = Output::from_flag(target.json);
            with_target(target, async |opened| {
                let path = format!("/v1/jobs/{}/cancel", escape(id));
                let job: Value = opened.client().json(Method::POST, &path, None).await?;
                output.result(&job, || describe(&job))
            })
            .await
        }
    }
}

async fn start(args: &RunArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let client = target.client();
        let venues = match args.venue.as_str() {
            "all" => json!("all"),
            venue => json!(venues_of(client, venue).await?),
        };
        let mut body = json!({ "kind": args.kind, "venues": venues });
        let optional = [
            ("from", args.from.map(|day| json!(day))),
            ("to", args.to.map(|day| json!(day))),
            ("reason", args.reason.as_ref().map(|reason| json!(reason))),
            ("options", args.force.then(|| json!({ "force": true }))),
            ("dry_run", args.dry_run.then_some(json!(true))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let mut job = create_job(client, &body).await?;
        // A process that opened the folder itself is the only one that could do the job.
        let wait = args.wait || matches!(target, Target::Opened { .. });
        if wait && !args.dry_run {
            job = wait_for(client, job, output).await?;
        }
        output.result(&job, || describe(&job))?;
        match job["state"].as_str() {
            Some("failed" | "partial" | "cancelled") => bail!(
                "the job {} ended as {}: {}",
                text(&job["id"]),
                text(&job["state"]),
                job["error"].as_str().unwrap_or("see its report")
            ),
            _ => Ok(()),
        }
    })
    .await
}

/// Waits until a job has ended, showing its progress to people.
pub(crate) async fn wait_for(client: &Client, mut job: Value, output: Output) -> Result<Value> {
    let clock = SystemClock::shared();
    let bar = progress_bar(output);
    loop {
        let view: JobView = serde_json::from_value(job.clone()).context("the answer is not a job")?;
        bar.set_length(view.progress["total"].as_u64().unwrap_or(0));
        bar.set_position(view.progress["done"].as_u64().unwrap_or(0));
        bar.set_message(view.progress["doing"].as_str().unwrap_or(&view.state).to_owned());
        if view.is_final() {
            bar.finish_and_clear();
            return Ok(job);
        }
        clock.sleep(LOOK_EVERY).await;
        job = client.get(&format!("/v1/jobs/{}", escape(&view.id))).await?;
    }
}

/// A bar on a terminal; hidden for scripts.
pub(crate) fn progress_bar(output: Output) -> ProgressBar {
    let target = match output {
        Output::Human => ProgressDrawTarget::stderr(),
        Output::Json => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

async fn list(limit: usize, target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().get(&format!("/v1/jobs?limit={limit}")).await?;
        output.result(&answer, || {
            let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            table(
                &["id", "kind", "state", "done", "of", "asked by", "created"],
                &[3, 4],
                jobs.iter().map(|job| {
                    vec![
                        text(&job["id"]),
                        text(&job["kind"]),
                        text(&job["state"]),
                        text(&job["progress"]["done"]),
                        text(&job["progress"]["total"]),
                        text(&job["requested_by"]),
                        text(&job["created_at"]),
                    ]
                }),
            )
        })
    })
    .await
}

async fn show(id: &str, target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let job: Value = opened.client().get(&format!("/v1/jobs/{}", escape(id))).await?;
        output.result(&job, || describe(&job))
    })
    .await
}

fn describe(job: &Value) -> String {
    let mut lines = vec![format!(
        "{} {}: {} ({}/{})",
        text(&job["kind"]),
        text(&job["id"]),
        text(&job["state"]),
        text(&job["progress"]["done"]),
        text(&job["progress"]["total"])
    )];
    if let Some(error) = job["error"].as_str() {
        lines.push(format!("  error: {error}"));
    }
    if let Some(report) = job["report"].as_object() {
        lines.extend(
            report
                .iter()
                .map(|(name, value)| format!("  {name}: {}", short(value))),
        );
    }
    lines.join("\n")
}

fn short(value: &Value) -> String {
    const SHOWN: usize = 100;
    let full = text(value);
    match full.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &full[..end]),
        None => full,
    }
}
