//! `dwell jobs …`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use dwell_model::time::LocalDay;
use dwell_runtime::clock::SystemClock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

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
    /// Ask for a job.
    Run(Box<RunArgs>),
    /// List the kinds of jobs.
    Kinds {
        #[command(flatten)]
        target: TargetArgs,
    },
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
    /// Ask for a job that does what another could not do: of days, those that failed.
    Retry {
        /// Its id
        id: String,
        /// Wait until it is done; the exit code is 0 only when it succeeded
        #[arg(long)]
        wait: bool,
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
    /// What to do; `dwell jobs kinds` lists what there is
    kind: String,
    /// A venue, or `all`
    #[arg(long)]
    venue: Option<String>,
    /// First day (local) [default: since ever]; for restore-backup the backup's URI
    #[arg(long, value_name = "DAY|URI")]
    from: Option<String>,
    /// Last day, included [default: until now]; for backup where it goes
    #[arg(long, value_name = "DAY|URI")]
    to: Option<String>,
    /// A sensor
    #[arg(long)]
    sensor: Option<String>,
    /// A receipt: what answered a post, or of an imported file
    #[arg(long)]
    receipt: Option<String>,
    /// First instant of the events' time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from_time: Option<String>,
    /// Instant after the last of the events' time
    #[arg(long, value_name = "TIME")]
    to_time: Option<String>,
    /// A person's track
    #[arg(long)]
    track: Option<String>,
    /// A device, as it was before it was pseudonymised
    #[arg(long)]
    device: Option<String>,
    /// The job that is meant
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// A time to act as if it were now, for trying
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Any other option of the kind, as NAME=VALUE; the value may be JSON
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Compute days even when their input has not changed
    #[arg(long)]
    force: bool,
    /// Which queue to wait in [default: by kind and range]
    #[arg(long, value_parser = ["nightly", "demand", "backfill"])]
    lane: Option<String>,
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

impl RunArgs {
    /// Kinds that work on venues, so that one must be named: nobody means all of them by leaving it out.
    const OF_VENUES: [&str; 6] = ["recompute", "archive", "verify", "restore", "revert", "erase"];
    /// Kinds whose `--from` and `--to` are places.
    const OF_PLACES: [&str; 3] = ["backup", "restore-backup", "drill"];

    /// What the kind wants to know besides venues and days.
    fn options(&self) -> Result<Map<String, Value>> {
        let texts = [
            ("sensor", &self.sensor),
            ("receipt", &self.receipt),
            ("from_time", &self.from_time),
            ("to_time", &self.to_time),
            ("track", &self.track),
            ("device", &self.device),
            ("job", &self.job),
            ("now", &self.now),
        ];
        let mut options = Map::new();
        for (name, text) in texts {
            if let Some(text) = text {
                options.insert(name.to_owned(), json!(text));
            }
        }
        if self.force {
            options.insert("force".to_owned(), json!(true));
        }
        options.extend(further_options(&self.options)?);
        Ok(options)
    }

    /// The request, venues apart.
    fn body(&self) -> Result<Value> {
        let mut options = self.options()?;
        let mut body = json!({ "kind": self.kind });
        for (name, text) in [("from", &self.from), ("to", &self.to)] {
            let Some(text) = text else { continue };
            if Self::OF_PLACES.contains(&self.kind.as_str()) {
                options.insert(name.to_owned(), json!(text));
            } else {
                let day: LocalDay = text.parse().with_context(|| format!("--{name} {text}"))?;
                body[name] = json!(day);
            }
        }
        if let Some(reason) = &self.reason {
            body["reason"] = json!(reason);
        }
        if let Some(lane) = &self.lane {
            body["lane"] = json!(lane);
        }
        if self.dry_run {
            body["dry_run"] = json!(true);
        }
        if !options.is_empty() {
            body["options"] = Value::Object(options);
        }
        Ok(body)
    }
}

pub(crate) async fn run(command: &JobsCommand) -> Result<()> {
    match command {
        JobsCommand::Run(args) => start(args).await,
        JobsCommand::Kinds { target } => kinds(target).await,
        JobsCommand::List { limit, target } => list(*limit, target).await,
        JobsCommand::Show { id, target } => show(id, target).await,
        JobsCommand::Retry { id, wait, target } => {
            let output = Output::from_flag(target.json);
            with_target(target, async |opened| {
                let path = format!("/v1/jobs/{}/retry", escape(id));
                let job: Value = opened.client().json(Method::POST, &path, None).await?;
                follow(opened, job, *wait, output).await
            })
            .await
        }
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
        let mut body = args.body()?;
        match args.venue.as_deref() {
            None if RunArgs::OF_VENUES.contains(&args.kind.as_str()) => {
                bail!("--venue is missing: name a venue, or `all`")
            }
            None => {}
            Some("all") => body["venues"] = json!("all"),
            Some(venue) => body["venues"] = json!(venues_of(client, venue).await?),
        }
        let job = create_job(client, &body).await?;
        // A dry run is asked for its answer.
        follow(target, job, args.wait || args.dry_run, output).await
    })
    .await
}

/// Shows a job that was asked for, if wanted once it has ended; an error when it did not succeed.
async fn follow(target: &Target, mut job: Value, wait: bool, output: Output) -> Result<()> {
    // A process that opened the folder itself is the only one that could do the job.
    if wait || matches!(target, Target::Opened { .. }) {
        job = wait_for(target.client(), job, output).await?;
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
}

/// What `--option NAME=VALUE` says, each given once or more; a value that is no JSON is a text.
pub(crate) fn further_options(given: &[String]) -> Result<Map<String, Value>> {
    let read = |option: &String| {
        let (name, value) = option
            .split_once('=')
            .with_context(|| format!("--option {option}: NAME=VALUE is wanted"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        Ok((name.to_owned(), value))
    };
    given.iter().map(read).collect()
}

/// Waits until a job has ended, showing its progress to people.
pub(crate) async fn wait_for(client: &Client, mut job: Value, output: Output) -> Result<Value> {
    let clock = SystemClock::shared();
    let bar = progress_bar(output);
    if let Some(id) = job["id"].as_str() {
        client.awaits(id);
    }
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
            let table = table(
                &["id", "kind", "lane", "state", "done", "of", "asked by", "created"],
                &[4, 5],
                jobs.iter().map(|job| {
                    vec![
                        text(&job["id"]),
                        text(&job["kind"]),
                        text(&job["lane"]),
                        text(&job["state"]),
                        text(&job["progress"]["done"]),
                        text(&job["progress"]["total"]),
                        text(&job["requested_by"]),
                        text(&job["created_at"]),
                    ]
                }),
            );
            format!("{table}\n{}", lanes(&answer["lanes"]))
        })
    })
    .await
}

/// What waits and runs, a line for each lane with anything in it.
fn lanes(lanes: &Value) -> String {
    let lanes = lanes.as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |lane: &Value| {
        let (queued, running) = (lane["queued"].as_u64()?, lane["running"].as_u64()?);
        let oldest = lane["oldest_queued"].as_str();
        let since = oldest.map_or_else(String::new, |oldest| format!(", the oldest since {oldest}"));
        (queued + running > 0).then(|| {
            format!(
                "{}: {queued} waiting{since}; {running} running",
                text(&lane["lane"])
            )
        })
    };
    let lines: Vec<String> = lanes.iter().filter_map(line).collect();
    match lines.is_empty() {
        true => "nothing waits or runs".to_owned(),
        false => lines.join("\n"),
    }
}

async fn kinds(target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().get("/v1/jobs?limit=1").await?;
        let kinds = answer["kinds"].clone();
        output.result(&kinds, || {
            let kinds = kinds.as_array().map(Vec::as_slice).unwrap_or_default();
            let rows = kinds
                .iter()
                .map(|kind| vec![text(&kind["kind"]), text(&kind["summary"])]);
            table(&["kind", "what it does"], &[], rows)
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
