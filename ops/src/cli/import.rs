//! `dwell import`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::http::Method;
use clap::{Args, ValueEnum};
use dwell_ingest::sources::files::{
    Constant, FileState, ImportPhase, ImportProgress, ImportReport, ImportState, MappingSpec,
};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TargetArgs;
use super::jobs::{progress_bar, wait_for};
use super::target::{Target, with_target};
use crate::client::{Client, escape};
use crate::importing::ImportRequest;
use crate::output::{Output, count, table};

/// Flags of `dwell import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files and folders
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The road: `log`, as if the events had been posted, or `archive`, for history
    #[arg(long, value_enum, default_value_t = RoadArg::Log)]
    to: RoadArg,
    /// A field's column, for example ts=t_epoch_ms (repeat for more)
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    columns: Vec<String>,
    /// A field's constant value, for example venue=v001 (repeat for more)
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    constants: Vec<String>,
    /// A mapping file (TOML)
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Shorthand for --set venue=ID
    #[arg(long)]
    venue: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which road the events take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoadArg {
    Log,
    Archive,
}

pub(crate) async fn run(args: &ImportArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    let request = request(args)?;
    with_target(&args.target, async |target| {
        let report = match target {
            Target::Opened { platform, .. } => {
                let progress = Arc::new(Bar(progress_bar(output)));
                let bar = progress.0.clone();
                let imported = platform
                    .importer()
                    .run(platform.tenant(), args.paths.clone(), &request, progress)
                    .await;
                bar.finish_and_clear();
                imported?
            }
            Target::Running(client) => upload(client, args, &request, output).await?,
        };
        output.result(&report, || human(&report))?;
        match report.is_complete() {
            true => Ok(()),
            false => bail!("some files could not be read to their end; the rest is imported"),
        }
    })
    .await
}

fn request(args: &ImportArgs) -> Result<ImportRequest> {
    let mut mapping = match &args.mapping {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            MappingSpec::from_toml(&path.display().to_string(), &text)?
        }
        None => MappingSpec::default(),
    };
    for (flag, text) in args.columns.iter().map(|text| ("--map", text)) {
        let (field, column) = split(flag, text)?;
        mapping.columns.insert(field, column);
    }
    for text in &args.constants {
        let (field, value) = split("--set", text)?;
        mapping.constants.insert(field, Constant::Text(value));
    }
    if let Some(venue) = &args.venue {
        mapping
            .constants
            .insert("venue".to_owned(), Constant::Text(venue.clone()));
    }
    Ok(ImportRequest {
        to_archive: args.to == RoadArg::Archive,
        mapping,
    })
}

fn split(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => bail!(
            "{flag} {text:?}: write it as FIELD={}",
            if flag == "--map" { "COLUMN" } else { "VALUE" }
        ),
    }
}

#[derive(Debug, Deserialize)]
struct Opened {
    upload: String,
}

/// Sends the files to a running instance and waits for their import. All of them are one import, so that their order
/// decides nothing.
async fn upload(
    client: &Client,
    args: &ImportArgs,
    request: &ImportRequest,
    output: Output,
) -> Result<ImportReport> {
    let files = files_of(&args.paths)?;
    let opened: Opened = client.json(Method::POST, "/v1/uploads", None).await?;
    let bar = progress_bar(output);
    bar.set_length(files.len() as u64);
    let mut names = Vec::with_capacity(files.len());
    for (i, path) in files.iter().enumerate() {
        let own = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        // Two folders may hold files of one name.
        let name = format!("{i:05}-{own}");
        bar.set_message(format!("sending {}", path.display()));
        let target = format!("/v1/uploads/{}/{}", opened.upload, escape(&name));
        client.upload(&target, path).await?.json::<Value>()?;
        names.push(name);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut body = serde_json::to_value(request)?;
    body["upload"] = json!(opened.upload);
    body["files"] = json!(names);
    let job = client.json(Method::POST, "/v1/imports", Some(&body)).await?;
    let job: Value = wait_for(client, job, output).await?;
    if job["report"].is_null() {
        bail!(
            "the import {}: {}",
            job["state"].as_str().unwrap_or("failed"),
            job["error"].as_str().unwrap_or("no report")
        );
    }
    let mut report: ImportReport = serde_json::from_value(job["report"].clone())?;
    for file in &mut report.files {
        // The name that the file was sent under, back to the one it has here.
        if let Some(sent) = names.iter().position(|name| file.path.starts_with(name.as_str())) {
            file.path = file
                .path
                .replacen(names[sent].as_str(), &files[sent].display().to_string(), 1);
        }
    }
    Ok(report)
}

/// All files below the paths, folders in order of their names.
fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
        if !path.is_dir() {
            std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push(path.to_owned());
            return Ok(());
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut inside = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        inside.sort();
        inside.iter().try_for_each(|path| collect(path, files))
    }
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    Ok(files)
}

/// Shows an import's progress.
struct Bar(ProgressBar);

impl ImportProgress for Bar {
    fn update(&self, state: &ImportState) {
        let (done, total) = match state.phase {
            ImportPhase::Writing => (state.days_done, state.days_total),
            _ => (state.bytes_done, state.bytes_total),
        };
        self.0.set_length(total);
        self.0.set_position(done);
        let doing = match state.phase {
            ImportPhase::Hashing => "looking at the files".to_owned(),
            ImportPhase::Reading => format!("{} events", count(state.rows)),
            ImportPhase::Writing => "writing venue-days".to_owned(),
            ImportPhase::Done => String::new(),
        };
        self.0.set_message(doing);
    }
}

fn human(report: &ImportReport) -> String {
    let mut lines = vec![table(
        &["file", "state", "accepted", "refused"],
        &[2, 3],
        report.files.iter().map(|file| {
            let state = match file.state {
                FileState::Imported => "imported",
                FileState::AlreadyImported => "imported before: nothing to do",
                FileState::Failed => "failed",
            };
            vec![
                file.path.clone(),
                state.to_owned(),
                count(file.accepted),
                count(file.refused),
            ]
        }),
    )];
    for error in report.files.iter().flat_map(|file| &file.errors) {
        lines.push(format!("  {error}"));
    }
    if report.days_changed + report.days_unchanged > 0 {
        lines.push(format!(
            "{} venue-days of the archive written, {} held everything already",
            count(report.days_changed),
            count(report.days_unchanged)
        ));
    }
    lines.join("\n")
}
