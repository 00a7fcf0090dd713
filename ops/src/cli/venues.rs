//! `dwell venues …`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use dwell_model::time::LocalDay;
use serde_json::{Value, json};

use super::TargetArgs;
use super::changes::differing;
use super::jobs::wait_for;
use super::target::{create_job, with_target};
use crate::client::{Client, escape};
use crate::output::{Output, table, write_line};

/// `dwell venues …`
#[derive(Debug, Subcommand)]
pub(crate) enum VenuesCommand {
    /// Store the venues of a file: new ones are added, others changed; days that a change affects are computed anew.
    Apply(ApplyArgs),
    /// List the venues.
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Compare a day's published numbers with those that another layout would give; nothing is published.
    Compare {
        /// The venue
        #[arg(long)]
        venue: String,
        /// The day
        #[arg(long)]
        day: LocalDay,
        /// A day on which the other layout is in force
        #[arg(long, value_name = "DAY")]
        layout: LocalDay,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show a venue with the layout in force.
    Show {
        /// Its id
        venue: String,
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Flags of `dwell venues apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// JSON array of venues
    file: PathBuf,
    /// Only check, and say what would change
    #[arg(long)]
    dry_run: bool,
    /// Have the affected days computed or cut anew now, and wait until they are
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &VenuesCommand) -> Result<()> {
    match command {
        VenuesCommand::Apply(args) => apply(args).await,
        VenuesCommand::List { target } => list(target).await,
        VenuesCommand::Compare {
            venue,
            day,
            layout,
            target,
        } => compare(venue, *day, *layout, target).await,
        VenuesCommand::Show { venue, target } => show(venue, target).await,
    }
}

/// Has a dry run done and shows what it found.
async fn compare(venue: &str, day: LocalDay, layout: LocalDay, target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let client = opened.client();
        let body = json!({
            "kind": "recompute", "venues": [venue], "from": day, "to": day, "dry_run": true,
            "options": { "layout": layout },
        });
        let job = wait_for(client, create_job(client, &body).await?, output).await?;
        if job["state"] != "succeeded" {
            bail!("{}", job["error"].as_str().unwrap_or("see the job's report"));
        }
        let difference = &job["report"]["differences"][0];
        if difference.is_null() {
            bail!("nothing is known of {venue} on {day}");
        }
        output.result(difference, || human_difference(difference))
    })
    .await
}

fn human_difference(difference: &Value) -> String {
    let changed = &difference["changed"];
    let buckets = difference["buckets"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let rows = buckets.iter().map(|bucket| {
        let names = ["grain", "start", "family", "subject"].iter();
        let mut cells: Vec<String> = names.map(|name| text(&bucket[*name])).collect();
        cells.push(differing(&bucket["before"], &bucket["after"]));
        cells
    });
    let table = table(&["grain", "start", "family", "subject", "difference"], &[], rows);
    format!(
        "against generation {}: {} buckets differ, {} are new, {} gone; {} not shown\n{table}",
        text(&difference["published"]),
        text(&changed["changed"]),
        text(&changed["added"]),
        text(&changed["removed"]),
        text(&difference["buckets_unlisted"])
    )
}

async fn apply(args: &ApplyArgs) -> Result<()> {
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let venues: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", args.file.display()))?;
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let path = if args.dry_run {
            "/v1/venues?dry_run=true"
        } else {
            "/v1/venues"
        };
        let mut answer: Value = target.client().json(Method::PUT, path, Some(&venues)).await?;
        if !args.wait {
            return output.result(&answer, || applied(&answer, false));
        }
        if output == Output::Human {
            write_line(&applied(&answer, true))?;
        }
        wait_for_recuts(target.client(), &mut answer, output).await?;
        answer["recompute"] = recompute_affected(target.client(), &answer, output).await?;
        output.result(&answer, || waited(&answer))
    })
    .await
}

fn applied(answer: &Value, is_waited_for: bool) -> String {
    let venues = answer["venues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |venue: &Value| {
        let affected = &venue["affected"];
        vec![
            text(&venue["id"]),
            text(&venue["change"]),
            text(&affected["count"]),
            text(&affected["first"]),
            text(&affected["last"]),
        ]
    };
    let shown = table(
        &["venue", "change", "days to compute anew", "first", "last"],
        &[2],
        venues.iter().map(row),
    );
    let recuts: String = venues
        .iter()
        .filter(|venue| venue["recut"].is_object())
        .map(|venue| recut_line(venue, answer["dry_run"] == true))
        .collect();
    let shown = format!("{shown}{recuts}");
    let dirty = venues.iter().any(is_dirty) && !is_waited_for;
    match (dirty, answer["dry_run"] == true) {
        (false, _) => shown,
        (true, true) => format!("{shown}\nnothing was stored: this was a dry run"),
        (true, false) => format!(
            "{shown}\nthe next night computes them anew; to have them now: dwell jobs run recompute --venue all"
        ),
    }
}

/// Waits for the jobs that cut days anew and puts what came of each into the answer; fails with the first that does.
async fn wait_for_recuts(client: &Client, answer: &mut Value, output: Output) -> Result<()> {
    let venues = answer["venues"].as_array_mut().into_iter().flatten();
    for recut in venues.filter_map(|venue| venue.get_mut("recut")) {
        let Some(id) = recut["job"].as_str() else { continue };
        let job: Value = client.get(&format!("/v1/jobs/{}", escape(id))).await?;
        let job = wait_for(client, job, output).await?;
        succeeded(&job)?;
        recut["outcome"] = job["report"]["outcome"].clone();
    }
    Ok(())
}

/// Has the affected days of venues that no recut has cut anew computed, and waits; null when there are none. Fails when
/// not all of them could be.
async fn recompute_affected(client: &Client, answer: &Value, output: Output) -> Result<Value> {
    let venues = answer["venues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<&Value> = venues
        .iter()
        .filter(|venue| is_affected(venue) && !is_cut_anew(venue))
        .map(|venue| &venue["id"])
        .collect();
    if ids.is_empty() {
        return Ok(Value::Null);
    }
    let body = json!({ "kind": "recompute", "venues": ids, "reason": "venues apply" });
    let job = wait_for(client, create_job(client, &body).await?, output).await?;
    succeeded(&job)?;
    Ok(json!({ "job": job["id"], "state": job["state"], "computed": job["report"]["computed"] }))
}

/// Whether a change leaves days to be computed anew by a usual run, and not by a recut.
fn is_dirty(venue: &Value) -> bool {
    is_affected(venue) && !venue["recut"].is_object()
}

fn is_affected(venue: &Value) -> bool {
    venue["affected"]["count"] != 0
}

/// Whether the recut that was waited for has cut the days anew; one that was taken back leaves them as they were.
fn is_cut_anew(venue: &Value) -> bool {
    venue["recut"]["outcome"] == "flipped"
}

fn succeeded(job: &Value) -> Result<()> {
    match job["state"] == "succeeded" {
        true => Ok(()),
        false => bail!(
            "job {} is {}: {}",
            text(&job["id"]),
            text(&job["state"]),
            job["error"].as_str().unwrap_or("see its report")
        ),
    }
}

/// What people read when the wait is over.
fn waited(answer: &Value) -> String {
    let venues = answer["venues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = venues
        .iter()
        .filter(|venue| is_cut_anew(venue))
        .map(|venue| format!("{}: its days are cut anew", text(&venue["id"])))
        .collect();
    let computed = &answer["recompute"]["computed"];
    if !computed.is_null() {
        lines.push(format!("{} days are computed anew", text(computed)));
    }
    match lines.is_empty() {
        true => "no days depend on what changed: there was nothing to wait for".to_owned(),
        false => lines.join("\n"),
    }
}

/// What becomes of a venue whose time zone or day start is another in the file.
fn recut_line(venue: &Value, is_dry_run: bool) -> String {
    let (id, recut) = (text(&venue["id"]), &venue["recut"]);
    let cut = format!(
        "{}, days from {}:00",
        text(&recut["tz"]),
        text(&recut["day_start_hour"])
    );
    match is_dry_run {
        true => format!("\n{id}: a job would cut its days anew ({cut})"),
        false => format!(
            "\n{id}: job {} cuts its days anew ({cut}); until it has ended all answers are by the former ones",
            text(&recut["job"])
        ),
    }
}

async fn list(target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().get("/v1/venues").await?;
        output.result(&answer, || {
            let venues = answer["venues"].as_array().map(Vec::as_slice).unwrap_or_default();
            table(
                &["venue", "name", "time zone", "zones"],
                &[3],
                venues.iter().map(|venue| {
                    vec![
                        text(&venue["id"]),
                        text(&venue["name"]),
                        text(&venue["tz"]),
                        text(&venue["zones"]),
                    ]
                }),
            )
        })
    })
    .await
}

async fn show(venue: &str, target: &TargetArgs) -> Result<()> {
    with_target(target, async |opened| {
        let answer: Value = opened
            .client()
            .get(&format!("/v1/venues/{}", escape(venue)))
            .await?;
        match target.json {
            true => write_line(&serde_json::to_string(&answer)?),
            false => write_line(&serde_json::to_string_pretty(&answer)?),
        }
    })
    .await
}

/// A JSON value as a table shows it; lists by their length.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.len().to_string(),
        other => other.to_string(),
    }
}
