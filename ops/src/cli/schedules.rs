//! `dwell schedules …`

use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::TargetArgs;
use super::jobs::further_options;
use super::target::with_target;
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell schedules …`
#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesCommand {
    /// List the schedules: what each does, when it was last done and is next due, and what it waits for.
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Make a schedule, or change it.
    Set(Box<SetArgs>),
    /// Let a schedule do nothing until it is resumed.
    Pause(NameArgs),
    /// Let a paused schedule go on.
    Resume(NameArgs),
    /// Take a schedule back.
    Remove(NameArgs),
}

/// Names a schedule.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Flags of `dwell schedules set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Its name: small letters, digits and dashes
    name: String,
    /// Kind of the job (see `dwell jobs kinds`)
    #[arg(long)]
    kind: String,
    /// When: minute, hour, day of the month, month, day of the week, as "30 5 * * *"
    #[arg(long)]
    cron: String,
    /// Time zone, as Europe/Madrid; or `venue` for a job per venue in its own time
    #[arg(long, default_value = "UTC")]
    time_zone: String,
    /// Only these venues
    #[arg(long = "venue")]
    venues: Vec<String>,
    /// What must be done first: another schedule, or `nights`
    #[arg(long)]
    after: Vec<String>,
    /// Why, for kinds that want a reason, and for the record
    #[arg(long)]
    reason: Option<String>,
    /// Which queue its jobs wait in [default: nightly]
    #[arg(long, value_parser = ["nightly", "demand", "backfill"])]
    lane: Option<String>,
    /// An option of the kind, as NAME=VALUE; the value may be JSON
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &SchedulesCommand) -> Result<()> {
    match command {
        SchedulesCommand::List { target } => list(target).await,
        SchedulesCommand::Set(args) => set(args).await,
        SchedulesCommand::Pause(args) => act(args, Method::POST, "/pause").await,
        SchedulesCommand::Resume(args) => act(args, Method::POST, "/resume").await,
        SchedulesCommand::Remove(args) => act(args, Method::DELETE, "").await,
    }
}

async fn list(target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().get("/v1/schedules").await?;
        output.result(&answer, || {
            let schedules = answer["schedules"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let row = |entry: &Value| {
                let by = match entry["schedule"]["built_in"] == true {
                    true => "built in",
                    false => "operator",
                };
                vec![
                    text(&entry["name"]),
                    by.to_owned(),
                    text(&entry["venue"]),
                    text(&entry["schedule"]["kind"]),
                    text(&entry["schedule"]["cron"]),
                    text(&entry["schedule"]["time_zone"]),
                    text(&entry["last_state"]),
                    next(&entry["next"]),
                ]
            };
            let columns = ["name", "by", "venue", "kind", "when", "in", "last", "next"];
            table(&columns, &[], schedules.iter().map(row))
        })
    })
    .await
}

/// What comes next, in words.
fn next(next: &Value) -> String {
    let at = |value: &Value| {
        value
            .as_i64()
            .map_or_else(|| "never".to_owned(), dwell_model::time::format_rfc3339)
    };
    match next["state"].as_str() {
        Some("at") => at(&next["at"]),
        Some("held") => format!("held since {}: {}", at(&next["since"]), text(&next["because"])),
        Some("denied") => format!("denied: {}", text(&next["because"])),
        Some(state @ ("due" | "running")) => format!("{state} since {}", at(&next["since"])),
        _ => text(&next["state"]),
    }
}

async fn set(args: &SetArgs) -> Result<()> {
    let options = further_options(&args.options)?;
    let mut body = json!({
        "kind": args.kind, "cron": args.cron, "time_zone": args.time_zone, "after": args.after, "options": options,
    });
    if !args.venues.is_empty() {
        body["venues"] = json!(args.venues);
    }
    for (name, text) in [("reason", &args.reason), ("lane", &args.lane)] {
        if let Some(text) = text {
            body[name] = json!(text);
        }
    }
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |opened| {
        let path = format!("/v1/schedules/{}", escape(&args.name));
        let answer: Value = opened.client().json(Method::PUT, &path, Some(&body)).await?;
        output.result(&answer, || format!("{} is scheduled", args.name))
    })
    .await
}

async fn act(args: &NameArgs, method: Method, what: &str) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |opened| {
        let path = format!("/v1/schedules/{}{what}", escape(&args.name));
        let answer: Value = opened.client().json(method, &path, None).await?;
        output.result(&answer, || {
            let schedule = &answer["schedule"];
            let state = match (schedule["removed"] == true, schedule["paused"] == true) {
                (true, _) => "removed",
                (false, true) => "paused",
                (false, false) => "active",
            };
            format!("{} is {state}", args.name)
        })
    })
    .await
}
